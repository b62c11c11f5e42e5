//! Answers of Azure Container Instances as statuses, exits and launch errors. Pure. Fields and states are those of api-version
//! 2023-05-01.

use serde_json::Value;
use spillway_cost::{ACI_DISK, Capacity, Shape};

use crate::exit::{Billed, ExitReport, TaskExit, TaskMachine};
use crate::launcher::{LaunchError, TaskStatus};
use crate::rest::{RestResponse, milliseconds, text};

pub(super) const NAME: &str = "aci";

/// Status of a container group; `ended_by_us`: why we stopped it.
pub(super) fn task_status(group: &Value, ended_by_us: Option<String>) -> TaskStatus {
    let properties = &group["properties"];
    let view = &properties["containers"][0]["properties"]["instanceView"];
    let state = &view["currentState"];
    match text(&state["state"]) {
        "Running" => return TaskStatus::Alive,
        "Terminated" => return TaskStatus::Gone(exit_report(group, ended_by_us)),
        _ => {}
    }
    match (text(&properties["provisioningState"]), text(&properties["instanceView"]["state"])) {
        // It may still start later: the launcher deletes a group that it gives up.
        ("Failed", _) => TaskStatus::Starting(format!("could not be provisioned: {}", last_event(view))),
        (_, "Stopped" | "Succeeded" | "Failed") => TaskStatus::Gone(exit_report(group, ended_by_us)),
        (_, "Running") => TaskStatus::Alive,
        _ => {
            let detail = text(&state["detailStatus"]);
            let message = [detail, last_event(view)].into_iter().find(|message| !message.is_empty());
            TaskStatus::Starting(message.unwrap_or("waiting for a machine").to_owned())
        }
    }
}

/// The exit of a group that the platform could not provision. It may still start it later, so the group has to be deleted.
pub(super) fn given_up(group: &Value) -> Option<TaskExit> {
    let properties = &group["properties"];
    let view = &properties["containers"][0]["properties"]["instanceView"];
    let ran = matches!(text(&view["currentState"]["state"]), "Running" | "Terminated");
    if properties["provisioningState"] != "Failed" || ran {
        return None;
    }
    let message = last_event(view).to_owned();
    let all = format!("{message} {}", text(&view["currentState"]["detailStatus"]));
    Some(if ["ImagePull", "pull image", "Failed to pull", "InaccessibleImage"].iter().any(|it| all.contains(it)) {
        TaskExit::ImageNotPulled(message)
    } else {
        TaskExit::NeverStarted(message)
    })
}

fn exit_report(group: &Value, ended_by_us: Option<String>) -> ExitReport {
    let view = &group["properties"]["containers"][0]["properties"]["instanceView"];
    let to = milliseconds(&view["currentState"]["finishTime"]);
    let pulling = events(view).find(|event| event["name"] == "Pulling").map(|event| &event["firstTimestamp"]);
    let from = pulling.and_then(milliseconds).or_else(|| milliseconds(&view["currentState"]["startTime"])).or(to);
    ExitReport {
        how: exit(group, ended_by_us),
        billed: from.zip(to).map(|(from, to)| Billed { from: from.min(to), to }),
        machine: machine(group),
    }
}

fn exit(group: &Value, ended_by_us: Option<String>) -> TaskExit {
    let view = &group["properties"]["containers"][0]["properties"]["instanceView"];
    let state = &view["currentState"];
    if state["detailStatus"] == "OOMKilled" {
        return TaskExit::OutOfMemory { limit_mib: machine(group).map(|machine| machine.shape.memory_mib) };
    }
    if let Some(reason) = ended_by_us {
        return TaskExit::EndedByUs(reason);
    }
    match state["exitCode"].as_i64().and_then(|status| i32::try_from(status).ok()) {
        Some(status) => TaskExit::of_status(status),
        None if group["properties"]["instanceView"]["state"] == "Stopped" => {
            TaskExit::Other("the container group was stopped".to_owned())
        }
        None => match last_event(view) {
            "" => TaskExit::Unknown,
            message => TaskExit::Other(message.to_owned()),
        },
    }
}

/// Size of the machine that was asked for.
pub(super) fn machine(group: &Value) -> Option<TaskMachine> {
    let requests = &group["properties"]["containers"][0]["properties"]["resources"]["requests"];
    let shape = Shape {
        cpu_milli: (requests["cpu"].as_f64()? * 1000.0).round() as u32,
        memory_mib: (requests["memoryInGB"].as_f64()? * 1024.0).round() as u32,
        disk_gib: ACI_DISK,
    };
    let spot = group["properties"]["priority"] == "Spot";
    Some(TaskMachine { shape, capacity: if spot { Capacity::Spot } else { Capacity::OnDemand } })
}

/// The error of a refused request. After a 5xx the request may have been carried out; the next call looks.
pub(super) fn refused(answer: &RestResponse) -> LaunchError {
    let message = answer.message();
    let code = text(&answer.body["error"]["code"]);
    let lower = message.to_lowercase();
    match code {
        "ContainerGroupQuotaReached" | "QuotaExceeded" | "SubscriptionQuotaExceeded" => {
            return LaunchError::Quota { message };
        }
        "TooManyRequests" | "SubscriptionRequestsThrottled" => {
            return LaunchError::Throttled { message, retry_after: answer.retry_after };
        }
        // The registry may be away for a moment.
        "RegistryErrorResponse" | "ContainerGroupTransitioning" => {
            return LaunchError::Transient { message, source: None };
        }
        _ => {}
    }
    let capacity = ["is not available in the location", "not enough capacity", "no capacity"];
    if capacity.iter().any(|it| lower.contains(it)) {
        return LaunchError::Capacity { message };
    }
    match answer.status {
        429 => LaunchError::Throttled { message, retry_after: answer.retry_after },
        500.. | 408 | 409 => LaunchError::Transient { message, source: None },
        _ => LaunchError::Misconfigured { message, source: None },
    }
}

fn events(view: &Value) -> impl Iterator<Item = &Value> {
    view["events"].as_array().into_iter().flatten()
}

/// Message of the newest event, warnings first.
fn last_event(view: &Value) -> &str {
    let by_time = |event: &&Value| text(&event["lastTimestamp"]).to_owned();
    let warning = events(view).filter(|event| event["type"] == "Warning").max_by_key(by_time);
    let event = warning.or_else(|| events(view).max_by_key(by_time)).unwrap_or(&Value::Null);
    text(&event["message"])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn group(provisioning: &str, state: &str, current: Value, events: Value) -> Value {
        json!({"properties": {
            "provisioningState": provisioning, "instanceView": {"state": state},
            "containers": [{"properties": {
                "resources": {"requests": {"cpu": 0.5, "memoryInGB": 0.5}},
                "instanceView": {"currentState": current, "events": events},
            }}],
        }})
    }

    #[test]
    fn an_exit_is_read_and_billed_from_the_first_pull() {
        let ended = json!({"state": "Terminated", "exitCode": 137, "startTime": "2026-11-22T10:00:30Z",
            "finishTime": "2026-11-22T10:05:30Z", "detailStatus": "Error"});
        let pulled = json!([{"name": "Pulling", "firstTimestamp": "2026-11-22T10:00:10Z", "message": "pulling"}]);
        let how = |current: &Value, ours: Option<&str>| {
            let seen =
                task_status(&group("Succeeded", "Failed", current.clone(), pulled.clone()), ours.map(str::to_owned));
            let TaskStatus::Gone(exit_report) = seen else { panic!("terminated is gone: {seen:?}") };
            exit_report
        };
        let killed = how(&ended, None);
        assert_eq!(killed.how, TaskExit::Signalled(9));
        let billed = killed.billed.unwrap();
        assert_eq!(billed.to - billed.from, 320_000);
        assert_eq!(killed.machine.unwrap().shape, Shape { cpu_milli: 500, memory_mib: 512, disk_gib: 50 });
        assert_eq!(how(&ended, Some("egress is over")).how, TaskExit::EndedByUs("egress is over".into()));
        let mut memory = ended.clone();
        memory["detailStatus"] = "OOMKilled".into();
        assert_eq!(how(&memory, Some("egress is over")).how, TaskExit::OutOfMemory { limit_mib: Some(512) });
        let mut fine = ended;
        fine["exitCode"] = 0.into();
        assert_eq!(how(&fine, None).how, TaskExit::Exited(0));
    }

    #[test]
    fn a_group_is_starting_alive_or_given_up() {
        let waiting = json!({"state": "Waiting", "detailStatus": ""});
        let pulling = json!([{"name": "Pulling", "lastTimestamp": "2", "message": "pulling image \"x\""}]);
        let seen = |provisioning, state, current: &Value, events: &Value| {
            task_status(&group(provisioning, state, current.clone(), events.clone()), None)
        };
        assert_eq!(seen("Creating", "Pending", &waiting, &pulling), TaskStatus::Starting("pulling image \"x\"".into()));
        assert_eq!(seen("Pending", "", &Value::Null, &json!([])), TaskStatus::Starting("waiting for a machine".into()));
        assert_eq!(seen("Succeeded", "Running", &json!({"state": "Running"}), &pulling), TaskStatus::Alive);
        assert!(matches!(seen("Succeeded", "Stopped", &Value::Null, &json!([])), TaskStatus::Gone(_)));

        let failing = json!([{"name": "Failed", "type": "Warning", "lastTimestamp": "3", "message": "Failed to pull image \"x\": 404"}]);
        let failed = group("Failed", "Pending", waiting, failing);
        assert!(matches!(task_status(&failed, None), TaskStatus::Starting(_)), "it may still start");
        assert_eq!(given_up(&failed), Some(TaskExit::ImageNotPulled("Failed to pull image \"x\": 404".into())));
        assert_eq!(given_up(&group("Succeeded", "Running", json!({"state": "Running"}), json!([]))), None);
    }

    #[test]
    fn a_refusal_says_what_to_do_about_it() {
        let refusal = |status, code: &str, message: &str| {
            refused(&RestResponse {
                status,
                retry_after: None,
                body: json!({"error": {"code": code, "message": message}}),
            })
        };
        let capacity = "The requested resource with '4' CPU and '8.0' GB memory is not available in the location 'x' at this moment.";
        assert!(matches!(refusal(409, "ServiceUnavailable", capacity), LaunchError::Capacity { .. }));
        assert!(matches!(refusal(409, "ContainerGroupQuotaReached", ""), LaunchError::Quota { .. }));
        assert!(matches!(refusal(429, "TooManyRequests", ""), LaunchError::Throttled { .. }));
        assert!(matches!(refusal(409, "RegistryErrorResponse", ""), LaunchError::Transient { .. }));
        assert!(matches!(refusal(500, "InternalServerError", ""), LaunchError::Transient { .. }));
        assert!(matches!(refusal(400, "InaccessibleImage", ""), LaunchError::Misconfigured { .. }));
        assert!(matches!(refusal(403, "AuthorizationFailed", ""), LaunchError::Misconfigured { .. }));
    }
}
