//! Answers of Cloud Run as statuses, exits and launch errors. Pure. Field names and reasons are those of the v2 API.

use std::time::Duration;

use serde_json::Value;
use spillway_cost::{Capacity, Shape};

use crate::exit::{Billed, ExitReport, TaskExit, TaskMachine};
use crate::launcher::{LaunchError, TaskStatus};
use crate::rest::{RestResponse, milliseconds, text};

pub(super) const NAME: &str = "cloud-run";

/// Status of an execution. `task`: its one task (`…/tasks`), null where [`needs_task`] is false; `ended_by_us`: why we
/// cancelled it.
pub(super) fn task_status(execution: &Value, task: &Value, ended_by_us: Option<String>) -> TaskStatus {
    if milliseconds(&execution["completionTime"]).is_some() {
        return TaskStatus::Gone(exit_report(execution, task, ended_by_us));
    }
    if count(execution, "runningCount") > 0 {
        return TaskStatus::Alive;
    }
    let waiting = conditions(execution).find(|condition| text(&condition["state"]) != "CONDITION_SUCCEEDED");
    let message = waiting.map(|condition| text(&condition["message"])).filter(|message| !message.is_empty());
    TaskStatus::Starting(message.unwrap_or("waiting for an instance").to_owned())
}

/// Whether the exit status is only known from the task.
pub(super) fn needs_task(execution: &Value) -> bool {
    milliseconds(&execution["completionTime"]).is_some() && count(execution, "failedCount") > 0
}

fn exit_report(execution: &Value, task: &Value, ended_by_us: Option<String>) -> ExitReport {
    let to = milliseconds(&execution["completionTime"]);
    // Without a start nothing ran and nothing is billed.
    let from = milliseconds(&execution["startTime"]).or(to);
    ExitReport {
        how: exit(execution, task, ended_by_us),
        billed: from.zip(to).map(|(from, to)| Billed { from: from.min(to), to }),
        machine: machine(execution),
    }
}

fn exit(execution: &Value, task: &Value, ended_by_us: Option<String>) -> TaskExit {
    let result = &task["lastAttemptResult"];
    let said = text(&result["status"]["message"]);
    if said.contains("Memory limit") || said.contains("out of memory") {
        return TaskExit::OutOfMemory { limit_mib: machine(execution).map(|machine| machine.shape.memory_mib) };
    }
    let completed = conditions(execution).find(|condition| condition["type"] == "Completed").unwrap_or(&Value::Null);
    if count(execution, "cancelledCount") > 0 || completed["executionReason"] == "CANCELLED" {
        return match ended_by_us {
            Some(reason) => TaskExit::EndedByUs(reason),
            None => TaskExit::Other("the execution was cancelled".to_owned()),
        };
    }
    if let Some(signal) = result["termSignal"].as_i64().filter(|signal| *signal > 0) {
        return TaskExit::Signalled(i32::try_from(signal).unwrap_or(9));
    }
    if count(execution, "succeededCount") > 0 {
        return TaskExit::Exited(0);
    }
    if let Some(status) = result["exitCode"].as_i64().filter(|status| *status > 0) {
        return TaskExit::of_status(i32::try_from(status).unwrap_or(-1));
    }
    if said.contains("timeout was reached") {
        return TaskExit::Other("the longest time of the task was over".to_owned());
    }
    let failed = conditions(execution).find(|condition| text(&condition["state"]) == "CONDITION_FAILED");
    let failed = failed.unwrap_or(completed);
    let message = text(&failed["message"]).to_owned();
    match text(&failed["reason"]) {
        "CONTAINER_MISSING"
        | "CONTAINER_PERMISSION_DENIED"
        | "CONTAINER_IMAGE_UNAUTHORIZED"
        | "CONTAINER_IMAGE_AUTHORIZATION_CHECK_FAILED" => TaskExit::ImageNotPulled(message),
        "SECRETS_ACCESS_CHECK_FAILED"
        | "SECRET_DOES_NOT_EXIST"
        | "VPC_NETWORK_NOT_FOUND"
        | "ENCRYPTION_KEY_PERMISSION_DENIED"
        | "ENCRYPTION_KEY_CHECK_FAILED"
        | "PROGRESS_DEADLINE_EXCEEDED" => TaskExit::NeverStarted(message),
        _ if execution["startTime"].is_null() => TaskExit::NeverStarted(message),
        _ if !said.is_empty() => TaskExit::Other(said.to_owned()),
        _ if !message.is_empty() => TaskExit::Other(message),
        _ => TaskExit::Unknown,
    }
}

fn machine(execution: &Value) -> Option<TaskMachine> {
    let limits = &execution["template"]["containers"][0]["resources"]["limits"];
    let cpu_milli = match text(&limits["cpu"]) {
        milli if milli.ends_with('m') => milli.trim_end_matches('m').parse().ok()?,
        whole => whole.parse::<u32>().ok()?.checked_mul(1000)?,
    };
    let memory = text(&limits["memory"]);
    let memory_mib = match memory.strip_suffix("Gi") {
        Some(gib) => gib.parse::<u32>().ok()?.checked_mul(1024)?,
        None => memory.strip_suffix("Mi")?.parse().ok()?,
    };
    // The file system is in memory.
    let shape = Shape { cpu_milli, memory_mib, disk_gib: 0 };
    Some(TaskMachine { shape, capacity: Capacity::OnDemand })
}

/// A value in the environment that the execution was started with.
pub(super) fn variable<'a>(execution: &'a Value, name: &str) -> Option<&'a str> {
    let variables = execution["template"]["containers"][0]["env"].as_array()?;
    variables.iter().rev().find(|variable| variable["name"] == name)?["value"].as_str()
}

/// The error of a refused request.
pub(super) fn refused(answer: &RestResponse) -> LaunchError {
    let message = answer.message();
    let lower = message.to_lowercase();
    match answer.status {
        429 if lower.contains("instance") || lower.contains("cpu allocation") => LaunchError::Quota { message },
        429 => LaunchError::Throttled { message, retry_after: answer.retry_after },
        _ if lower.contains("no capacity") || lower.contains("capacity is not available") => {
            LaunchError::Capacity { message }
        }
        500.. | 408 | 409 => LaunchError::Transient { message, source: None },
        _ => LaunchError::Misconfigured { message, source: None },
    }
}

/// A duration as Google's JSON has it.
pub(super) fn duration(max_duration: Duration) -> String {
    format!("{}s", max_duration.as_secs().max(1))
}

fn conditions(execution: &Value) -> impl Iterator<Item = &Value> {
    execution["conditions"].as_array().into_iter().flatten()
}

/// Google writes 64-bit numbers as text and leaves zeros out.
fn count(value: &Value, name: &str) -> i64 {
    let value = &value[name];
    value.as_i64().or_else(|| value.as_str()?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn execution() -> Value {
        json!({
            "name": "projects/p/locations/l/jobs/egress-1/executions/egress-1-abcde",
            "createTime": "2026-11-22T10:00:00Z", "startTime": "2026-11-22T10:00:05Z",
            "completionTime": "2026-11-22T10:05:05.500Z", "taskCount": 1,
            "template": {"containers": [{"name": "runner", "resources": {"limits": {"cpu": "1", "memory": "512Mi"}}}]},
            "conditions": [{"type": "Completed", "state": "CONDITION_FAILED", "message": "Task x failed"}],
        })
    }

    fn failed(result: Value) -> TaskExit {
        let mut execution = execution();
        execution["failedCount"] = 1.into();
        exit(&execution, &json!({"lastAttemptResult": result}), None)
    }

    #[test]
    fn an_exit_is_described() {
        let table = [
            (json!({"exitCode": 1}), "exit status 1"),
            (json!({"termSignal": 9}), "signal 9 (killed; often: out of memory)"),
            (json!({"exitCode": 137}), "signal 9 (killed; often: out of memory)"),
            (
                json!({"termSignal": 9, "status": {"code": 13, "message": "Memory limit of 512 MiB exceeded with 530 MiB used."}}),
                "out of memory at 512 MiB",
            ),
            (
                json!({"status": {"code": 4, "message": "The configured timeout was reached."}}),
                "the longest time of the task was over",
            ),
            (json!({"status": {"message": "something new"}}), "something new"),
            (json!({}), "Task x failed"),
        ];
        for (result, message) in table {
            assert_eq!(failed(result.clone()).to_string(), message, "{result}");
        }
    }

    #[test]
    fn a_task_that_never_ran_says_why() {
        let never = |reason: &str| {
            let mut execution = execution();
            execution["conditions"] = json!([
                {"type": "ContainerReady", "state": "CONDITION_FAILED", "reason": reason, "message": "the words"}]);
            exit(&execution, &Value::Null, None).to_string()
        };
        assert_eq!(never("CONTAINER_MISSING"), "image could not be pulled: the words");
        assert_eq!(never("CONTAINER_PERMISSION_DENIED"), "image could not be pulled: the words");
        assert_eq!(never("SECRETS_ACCESS_CHECK_FAILED"), "could not be started: the words");
        assert_eq!(never("VPC_NETWORK_NOT_FOUND"), "could not be started: the words");
    }

    #[test]
    fn an_execution_is_starting_alive_or_gone_and_billed() {
        let mut running = execution();
        running["completionTime"] = Value::Null;
        let starting = task_status(&running, &Value::Null, None);
        assert_eq!(starting, TaskStatus::Starting("Task x failed".into()), "the condition it waits for is named");
        running["runningCount"] = 1.into();
        assert_eq!(task_status(&running, &Value::Null, None), TaskStatus::Alive);

        let mut done = execution();
        done["succeededCount"] = "1".into();
        let TaskStatus::Gone(exit_report) = task_status(&done, &Value::Null, None) else { panic!("completed is gone") };
        assert_eq!(exit_report.how, TaskExit::Exited(0));
        let billed = exit_report.billed.unwrap();
        assert_eq!(billed.to - billed.from, 300_500);
        assert_eq!(exit_report.machine.unwrap().shape, Shape { cpu_milli: 1000, memory_mib: 512, disk_gib: 0 });

        let mut cancelled = execution();
        cancelled["cancelledCount"] = 1.into();
        let how = |ended: Option<&str>| exit(&cancelled, &Value::Null, ended.map(str::to_owned));
        assert_eq!(how(Some("egress is over")), TaskExit::EndedByUs("egress is over".into()));
        assert_eq!(how(None), TaskExit::Other("the execution was cancelled".into()));
    }

    #[test]
    fn a_refusal_says_what_to_do_about_it() {
        let refusal = |status, code: &str, message: &str| {
            let body = json!({"error": {"code": status, "status": code, "message": message}});
            refused(&RestResponse { status, retry_after: None, body })
        };
        assert!(matches!(
            refusal(429, "RESOURCE_EXHAUSTED", "Quota exceeded for JobRunRequests"),
            LaunchError::Throttled { .. }
        ));
        assert!(matches!(refusal(429, "RESOURCE_EXHAUSTED", "too many instances"), LaunchError::Quota { .. }));
        assert!(matches!(refusal(503, "UNAVAILABLE", "no capacity in this region"), LaunchError::Capacity { .. }));
        assert!(matches!(refusal(503, "UNAVAILABLE", "try again"), LaunchError::Transient { .. }));
        for (status, code) in
            [(400, "FAILED_PRECONDITION"), (400, "INVALID_ARGUMENT"), (404, "NOT_FOUND"), (403, "PERMISSION_DENIED")]
        {
            assert!(matches!(refusal(status, code, ""), LaunchError::Misconfigured { .. }), "{code}");
        }
    }
}
