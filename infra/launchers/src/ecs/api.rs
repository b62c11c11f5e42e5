//! Answers of ECS as statuses, exits and launch errors. Pure. The texts are those of the API reference, the developer guide's
//! "Stopped tasks error codes" and the SDK's model.

use spillway_cost::{Capacity, FARGATE_DISK, Shape};

use crate::exit::{Billed, ExitReport, TaskExit, TaskMachine};
use crate::launcher::{LaunchError, TaskStatus};

pub(super) const NAME: &str = "ecs";
/// Prefix of our stop reasons, which tells them from an operator's.
pub(super) const OURS: &str = "spillway: ";
pub(super) const SPOT: &str = "FARGATE_SPOT";

/// A task as an answer or an event describes it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct DescribedTask {
    /// `RUNNING`, `STOPPED` …
    pub last_status: String,
    /// Why it was stopped, as a code.
    pub stop_code: String,
    /// Why it was stopped, as text.
    pub stopped_reason: String,
    /// Empty for the launch type Fargate.
    pub capacity_provider: String,
    /// 1024ths of a vCPU, as text.
    pub cpu: String,
    /// MiB, as text.
    pub memory: String,
    /// Disk, GiB; `None`: what is included.
    pub disk_gib: Option<u32>,
    /// Exit status of the runner's container.
    pub exit_code: Option<i32>,
    /// Reason of the runner's container.
    pub container_reason: String,
    /// Status of the runner's container.
    pub container_status: String,
    /// Start of the image pull, which begins the bill; Unix milliseconds.
    pub pull_started: Option<i64>,
    /// End of the bill, Unix milliseconds.
    pub stopped: Option<i64>,
}

pub(super) fn task_status(described: &DescribedTask) -> TaskStatus {
    match described.last_status.as_str() {
        "RUNNING" | "DEACTIVATING" | "STOPPING" => TaskStatus::Alive,
        "STOPPED" => TaskStatus::Gone(exit_report(described)),
        // The container has ended, its network is being removed; the bill is still open.
        "DEPROVISIONING" if described.container_status == "STOPPED" => {
            TaskStatus::Gone(ExitReport { billed: None, ..exit_report(described) })
        }
        "DEPROVISIONING" => TaskStatus::Alive,
        "PROVISIONING" => TaskStatus::Starting("a machine and its network are being made".to_owned()),
        "PENDING" if described.pull_started.is_some() => TaskStatus::Starting("the image is being pulled".to_owned()),
        "PENDING" => TaskStatus::Starting("waiting for the image".to_owned()),
        "ACTIVATING" => TaskStatus::Starting("about to run".to_owned()),
        other => TaskStatus::Starting(other.to_lowercase()),
    }
}

fn exit_report(described: &DescribedTask) -> ExitReport {
    let billed = described.stopped.map(|to| Billed { from: described.pull_started.unwrap_or(to).min(to), to });
    ExitReport { how: exit(described), billed, machine: machine(described) }
}

pub(super) fn exit(described: &DescribedTask) -> TaskExit {
    let limit_mib = described.memory.parse().ok();
    let said = described.stopped_reason.as_str();
    if described.container_reason.starts_with("OutOfMemoryError") || said.starts_with("OutOfMemoryError") {
        return TaskExit::OutOfMemory { limit_mib };
    }
    let spot = described.capacity_provider == SPOT;
    match described.stop_code.as_str() {
        "SpotInterruption" => TaskExit::CapacityReclaimed,
        "TerminationNotice" if spot || said.contains("Spot") => TaskExit::CapacityReclaimed,
        "TaskFailedToStart" => not_started(said, &described.container_reason),
        "UserInitiated" => match said.strip_prefix(OURS) {
            Some(reason) => TaskExit::EndedByUs(reason.to_owned()),
            None if said.is_empty() => TaskExit::Other("stopped by an operator".to_owned()),
            None => TaskExit::Other(format!("stopped by an operator: {said}")),
        },
        "InfrastructureHealth" | "ServiceSchedulerInitiated" | "TerminationNotice" => {
            TaskExit::HostRetired(said.to_owned())
        }
        _ => match described.exit_code {
            Some(status) => TaskExit::of_status(status),
            None if !described.container_reason.is_empty() => TaskExit::Other(described.container_reason.clone()),
            None if !said.is_empty() => TaskExit::Other(said.to_owned()),
            None => TaskExit::Unknown,
        },
    }
}

fn not_started(said: &str, container: &str) -> TaskExit {
    // The container's own reason says more, where there is one.
    let message = [container, said].into_iter().find(|message| !message.is_empty()).unwrap_or_default();
    let text = message.strip_prefix("TaskFailedToStart: ").unwrap_or(message);
    for pulled in ["CannotPullContainerError: ", "CannotPullImageManifestError: ", "CannotPullECRContainerError: "] {
        if let Some(rest) = text.strip_prefix(pulled) {
            return TaskExit::ImageNotPulled(rest.to_owned());
        }
    }
    TaskExit::NeverStarted(text.to_owned())
}

fn machine(described: &DescribedTask) -> Option<TaskMachine> {
    let units: u32 = described.cpu.parse().ok()?;
    let shape = Shape {
        cpu_milli: units * 1000 / 1024,
        memory_mib: described.memory.parse().ok()?,
        disk_gib: described.disk_gib.unwrap_or(FARGATE_DISK),
    };
    let capacity = if described.capacity_provider == SPOT { Capacity::Spot } else { Capacity::OnDemand };
    Some(TaskMachine { shape, capacity })
}

/// CPU units of a shape: ECS counts in 1024ths, and the sizes it sells are powers of two.
pub(super) fn cpu_units(shape: Shape) -> u32 {
    (shape.cpu_milli * 1024).div_ceil(1000).next_power_of_two().max(256)
}

/// Disk to be asked for, GiB; `None`: what is included is enough.
pub(super) fn disk(shape: Shape) -> Option<i32> {
    (shape.disk_gib > FARGATE_DISK).then(|| i32::try_from(shape.disk_gib.clamp(21, 200)).unwrap_or(200))
}

/// The error in an entry of `failures` of a successful answer.
pub(super) fn failure(reason: &str, detail: &str) -> LaunchError {
    let message = if detail.is_empty() { reason.to_owned() } else { format!("{reason}: {detail}") };
    let all = message.to_ascii_lowercase();
    if is_limit(&all) {
        LaunchError::Quota { message }
    } else if all.starts_with("resource:")
        || all.contains("capacity is unavailable")
        || all == "agent"
        || all == "location"
    {
        LaunchError::Capacity { message }
    } else if ["inactive", "missing", "attribute"].iter().any(|kind| all.starts_with(kind)) {
        LaunchError::Misconfigured { message, source: None }
    } else {
        LaunchError::Transient { message, source: None }
    }
}

fn is_limit(message: &str) -> bool {
    message.contains("reached the limit on the number of")
        || message.contains("vcpu limit")
        || message.contains("quota")
}

/// The error of an answer with an error; `status` is HTTP's.
pub(super) fn refused(
    code: &str,
    text: &str,
    status: u16,
    source: Box<dyn std::error::Error + Send + Sync>,
) -> LaunchError {
    let message = match (code, text) {
        ("", "") => format!("HTTP status {status}"),
        (code, "") => code.to_owned(),
        ("", text) => text.to_owned(),
        (code, text) => format!("{code}: {text}"),
    };
    let said = text.to_ascii_lowercase();
    match code {
        "ThrottlingException"
        | "Throttling"
        | "ThrottledException"
        | "RequestThrottled"
        | "TooManyRequestsException"
        | "RequestLimitExceeded"
        | "RequestThrottledException"
        | "SlowDown" => LaunchError::Throttled { message, retry_after: None },
        "LimitExceededException" => LaunchError::Quota { message },
        _ if is_limit(&said) => LaunchError::Quota { message },
        _ if said.contains("capacity is unavailable") => LaunchError::Capacity { message },
        // A wrong clock and an expired token are corrected outside of this process.
        "ExpiredTokenException" | "ExpiredToken" | "RequestExpired" | "RequestTimeTooSkewed" => {
            LaunchError::Transient { message, source: Some(source) }
        }
        "InvalidSignatureException" if said.starts_with("signature expired") || said.contains("not yet current") => {
            LaunchError::Transient { message, source: Some(source) }
        }
        _ if (400..500).contains(&status) && status != 408 && status != 429 => {
            LaunchError::Misconfigured { message, source: Some(source) }
        }
        _ if status == 429 => LaunchError::Throttled { message, retry_after: None },
        _ => LaunchError::Transient { message, source: Some(source) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stopped(stop_code: &str, stopped_reason: &str) -> DescribedTask {
        DescribedTask {
            last_status: "STOPPED".into(),
            stop_code: stop_code.into(),
            stopped_reason: stopped_reason.into(),
            cpu: "256".into(),
            memory: "512".into(),
            pull_started: Some(1000),
            stopped: Some(61_000),
            container_status: "STOPPED".into(),
            ..DescribedTask::default()
        }
    }

    #[test]
    fn every_stop_code_has_its_text() {
        let exited = |exit_code, container_reason: &str| DescribedTask {
            exit_code,
            container_reason: container_reason.into(),
            ..stopped("EssentialContainerExited", "Essential container in task exited")
        };
        let spot = |described: DescribedTask| DescribedTask { capacity_provider: SPOT.into(), ..described };
        let failed = |message: &str| stopped("TaskFailedToStart", message);
        let table: Vec<(DescribedTask, &str)> = vec![
            (exited(Some(0), ""), "exit status 0"),
            (exited(Some(101), ""), "exit status 101"),
            (exited(Some(137), ""), "signal 9 (killed; often: out of memory)"),
            (exited(Some(139), ""), "signal 11 (segmentation fault)"),
            (exited(Some(143), ""), "signal 15 (terminated)"),
            (exited(Some(137), "OutOfMemoryError: Container killed due to memory usage"), "out of memory at 512 MiB"),
            (exited(None, ""), "Essential container in task exited"),
            (exited(None, "CannotStopContainerError: x"), "CannotStopContainerError: x"),
            (spot(stopped("SpotInterruption", "Your Spot Task was interrupted.")), "spot capacity reclaimed"),
            (spot(stopped("TerminationNotice", "Your Spot Task was interrupted.")), "spot capacity reclaimed"),
            (stopped("TerminationNotice", "maintenance"), "its host was retired: maintenance"),
            (stopped("InfrastructureHealth", ""), "its host was retired"),
            (
                stopped("ServiceSchedulerInitiated", "ECS is performing maintenance"),
                "its host was retired: ECS is performing maintenance",
            ),
            (stopped("UserInitiated", "spillway: egress is over"), "ended by us: egress is over"),
            (stopped("UserInitiated", "cleaning up"), "stopped by an operator: cleaning up"),
            (stopped("UserInitiated", ""), "stopped by an operator"),
            (
                failed("CannotPullContainerError: pull image manifest has been retried 1 time(s): not found"),
                "image could not be pulled: pull image manifest has been retried 1 time(s): not found",
            ),
            (
                failed("ResourceInitializationError: unable to pull secrets"),
                "could not be started: ResourceInitializationError: unable to pull secrets",
            ),
            (failed("TaskFailedToStart: Unexpected EC2 error"), "could not be started: Unexpected EC2 error"),
            (
                failed("CannotStartContainerError: exec format"),
                "could not be started: CannotStartContainerError: exec format",
            ),
            (failed("OutOfMemoryError: container killed"), "out of memory at 512 MiB"),
            (stopped("", ""), "no exit status known"),
            (stopped("SomethingNew", "for reasons"), "for reasons"),
        ];
        for (described, message) in table {
            assert_eq!(exit(&described).to_string(), message, "{described:?}");
        }
    }

    #[test]
    fn every_state_is_starting_alive_or_gone() {
        let at = |last_status: &str| task_status(&DescribedTask { last_status: last_status.into(), ..stopped("", "") });
        for status in ["PROVISIONING", "PENDING", "ACTIVATING", "DELETED_SOON"] {
            assert!(matches!(at(status), TaskStatus::Starting(_)), "{status}");
        }
        for status in ["RUNNING", "DEACTIVATING", "STOPPING"] {
            assert_eq!(at(status), TaskStatus::Alive, "{status}");
        }
        assert!(matches!(at("DEPROVISIONING"), TaskStatus::Gone(ExitReport { billed: None, .. })));
        let TaskStatus::Gone(exit_report) = at("STOPPED") else { panic!("stopped is gone") };
        assert_eq!(exit_report.billed, Some(Billed { from: 1000, to: 61_000 }));
        let shape = Shape { cpu_milli: 250, memory_mib: 512, disk_gib: 20 };
        assert_eq!(exit_report.machine, Some(TaskMachine { shape, capacity: Capacity::OnDemand }));
    }

    #[test]
    fn a_refusal_says_what_to_do_about_it() {
        let kind = |error: &LaunchError| match error {
            LaunchError::Capacity { .. } | LaunchError::ZoneCapacity { .. } => "capacity",
            LaunchError::Quota { .. } => "quota",
            LaunchError::Throttled { .. } => "throttled",
            LaunchError::Misconfigured { .. } => "misconfigured",
            LaunchError::Transient { .. } => "passing",
        };
        let failures = [
            ("RESOURCE:ENI", "capacity"),
            ("RESOURCE:FARGATE", "capacity"),
            ("RESOURCE:MEMORY", "capacity"),
            (
                "Capacity is unavailable at this time. Please try again later or in a different availability zone",
                "capacity",
            ),
            ("AGENT", "capacity"),
            ("You've reached the limit on the number of tasks you can run concurrently", "quota"),
            ("You've reached the limit on the number of vCPUs you can run concurrently", "quota"),
            ("INACTIVE", "misconfigured"),
            ("MISSING", "misconfigured"),
            ("something new", "passing"),
        ];
        for (reason, expected) in failures {
            assert_eq!(kind(&failure(reason, "")), expected, "{reason}");
        }
        let refusals = [
            ("ThrottlingException", "Rate exceeded", 400, "throttled"),
            ("", "", 429, "throttled"),
            ("LimitExceededException", "", 400, "quota"),
            ("ClientException", "You've reached the limit on the number of vCPUs", 400, "quota"),
            ("ClientException", "Capacity is unavailable at this time.", 400, "capacity"),
            ("AccessDeniedException", "User is not authorized", 400, "misconfigured"),
            ("InvalidParameterException", "", 400, "misconfigured"),
            ("ClusterNotFoundException", "", 400, "misconfigured"),
            ("ExpiredTokenException", "", 400, "passing"),
            ("InvalidSignatureException", "Signature expired: 20261122T100000Z is now earlier than …", 400, "passing"),
            ("InvalidSignatureException", "Signature not yet current: 20261122T110000Z is still later", 400, "passing"),
            ("InvalidSignatureException", "The request signature we calculated does not match", 400, "misconfigured"),
            ("ServerException", "", 500, "passing"),
            ("", "", 503, "passing"),
        ];
        for (code, message, status, expected) in refusals {
            let error = refused(code, message, status, "cause".into());
            assert_eq!(kind(&error), expected, "{code} {message}");
        }
    }

    #[test]
    fn sizes_are_those_of_the_price_list() {
        let units = |cpu_milli| cpu_units(Shape { cpu_milli, memory_mib: 0, disk_gib: 0 });
        assert_eq!([250, 500, 1000, 2000, 4000, 8000].map(units), [256, 512, 1024, 2048, 4096, 8192]);
        assert_eq!(disk(Shape { cpu_milli: 0, memory_mib: 0, disk_gib: 20 }), None);
        assert_eq!(disk(Shape { cpu_milli: 0, memory_mib: 0, disk_gib: 50 }), Some(50));
    }
}
