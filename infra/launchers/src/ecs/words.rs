//! What ECS says, in our vocabulary. Pure. The texts are those of the API reference, the developer guide's "Stopped tasks
//! error codes" and the crate's model.

use spillway_cost::{Capacity, Shape};

use crate::departure::{Billed, Departed, Departure, Machine};
use crate::launcher::{LaunchError, Sighting};

/// Stands before our reasons, so that they are told from an operator's.
pub(super) const OURS: &str = "spillway: ";
pub(super) const SPOT: &str = "FARGATE_SPOT";
/// GiB, in every Fargate task.
const INCLUDED_DISK: u32 = 20;

/// A task as an answer or an event shows it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Shown {
    pub last_status: String,
    pub stop_code: String,
    pub stopped_reason: String,
    pub capacity_provider: String,
    /// Thousand-and-twenty-fourths of a vCPU, and MiB, as text.
    pub cpu: String,
    pub memory: String,
    pub disk_gib: Option<u32>,
    /// Of the runner's container.
    pub exit_code: Option<i32>,
    pub container_reason: String,
    pub container_status: String,
    /// Unix milliseconds.
    pub pull_started: Option<i64>,
    pub stopped: Option<i64>,
}

pub(super) fn sighting(shown: &Shown) -> Sighting {
    match shown.last_status.as_str() {
        "RUNNING" | "DEACTIVATING" | "STOPPING" => Sighting::Alive,
        "STOPPED" => Sighting::Gone(departed(shown)),
        // The container is gone, its network is being taken down; the bill is not closed.
        "DEPROVISIONING" if shown.container_status == "STOPPED" => {
            Sighting::Gone(Departed { billed: None, ..departed(shown) })
        }
        "DEPROVISIONING" => Sighting::Alive,
        "PROVISIONING" => Sighting::Starting("a machine and its network are being made".to_owned()),
        "PENDING" if shown.pull_started.is_some() => Sighting::Starting("the image is being pulled".to_owned()),
        "PENDING" => Sighting::Starting("waiting for the image".to_owned()),
        "ACTIVATING" => Sighting::Starting("about to run".to_owned()),
        other => Sighting::Starting(other.to_lowercase()),
    }
}

fn departed(shown: &Shown) -> Departed {
    let billed = shown.stopped.map(|to| Billed { from: shown.pull_started.unwrap_or(to).min(to), to });
    Departed { how: departure(shown), billed, machine: machine(shown) }
}

pub(super) fn departure(shown: &Shown) -> Departure {
    let limit_mib = shown.memory.parse().ok();
    let said = shown.stopped_reason.as_str();
    if shown.container_reason.starts_with("OutOfMemoryError") || said.starts_with("OutOfMemoryError") {
        return Departure::OutOfMemory { limit_mib };
    }
    let spot = shown.capacity_provider == SPOT;
    match shown.stop_code.as_str() {
        "SpotInterruption" => Departure::CapacityReclaimed,
        "TerminationNotice" if spot || said.contains("Spot") => Departure::CapacityReclaimed,
        "TaskFailedToStart" => not_started(said, &shown.container_reason),
        "UserInitiated" => match said.strip_prefix(OURS) {
            Some(reason) => Departure::EndedByUs(reason.to_owned()),
            None if said.is_empty() => Departure::Said("stopped by an operator".to_owned()),
            None => Departure::Said(format!("stopped by an operator: {said}")),
        },
        "InfrastructureHealth" | "ServiceSchedulerInitiated" | "TerminationNotice" => {
            Departure::HostRetired(said.to_owned())
        }
        _ => match shown.exit_code {
            Some(status) => Departure::of_status(status),
            None if !shown.container_reason.is_empty() => Departure::Said(shown.container_reason.clone()),
            None if !said.is_empty() => Departure::Said(said.to_owned()),
            None => Departure::Unsaid,
        },
    }
}

fn not_started(said: &str, container: &str) -> Departure {
    // The container's own reason is the longer one, where there is one.
    let words = [container, said].into_iter().find(|words| !words.is_empty()).unwrap_or_default();
    let text = words.strip_prefix("TaskFailedToStart: ").unwrap_or(words);
    for pulled in ["CannotPullContainerError: ", "CannotPullImageManifestError: ", "CannotPullECRContainerError: "] {
        if let Some(rest) = text.strip_prefix(pulled) {
            return Departure::ImageNotPulled(rest.to_owned());
        }
    }
    Departure::NeverStarted(text.to_owned())
}

fn machine(shown: &Shown) -> Option<Machine> {
    let units: u32 = shown.cpu.parse().ok()?;
    let shape = Shape {
        cpu_milli: units * 1000 / 1024,
        memory_mib: shown.memory.parse().ok()?,
        disk_gib: shown.disk_gib.unwrap_or(INCLUDED_DISK),
    };
    let capacity = if shown.capacity_provider == SPOT { Capacity::Spot } else { Capacity::OnDemand };
    Some(Machine { shape, capacity })
}

/// ECS counts in 1024ths, and the sizes it sells are powers of two.
pub(super) fn cpu_units(shape: Shape) -> u32 {
    (shape.cpu_milli * 1024).div_ceil(1000).next_power_of_two().max(256)
}

/// GiB to be asked for beyond what is included.
pub(super) fn disk(shape: Shape) -> Option<i32> {
    (shape.disk_gib > INCLUDED_DISK).then(|| i32::try_from(shape.disk_gib.clamp(21, 200)).unwrap_or(200))
}

/// An entry of `failures` in an answer that is otherwise fine.
pub(super) fn failure(reason: &str, detail: &str) -> LaunchError {
    let words = if detail.is_empty() { reason.to_owned() } else { format!("{reason}: {detail}") };
    let all = words.to_ascii_lowercase();
    if is_limit(&all) {
        LaunchError::Quota { words }
    } else if all.starts_with("resource:")
        || all.contains("capacity is unavailable")
        || all == "agent"
        || all == "location"
    {
        LaunchError::Capacity { words }
    } else if ["inactive", "missing", "attribute"].iter().any(|kind| all.starts_with(kind)) {
        LaunchError::Misconfigured { words, source: None }
    } else {
        LaunchError::Passing { words, source: None }
    }
}

fn is_limit(words: &str) -> bool {
    words.contains("reached the limit on the number of") || words.contains("vcpu limit") || words.contains("quota")
}

/// An answer with an error; `status` is HTTP's.
pub(super) fn refused(
    code: &str,
    message: &str,
    status: u16,
    source: Box<dyn std::error::Error + Send + Sync>,
) -> LaunchError {
    let words = match (code, message) {
        ("", "") => format!("HTTP status {status}"),
        (code, "") => code.to_owned(),
        ("", message) => message.to_owned(),
        (code, message) => format!("{code}: {message}"),
    };
    let said = message.to_ascii_lowercase();
    match code {
        "ThrottlingException"
        | "Throttling"
        | "ThrottledException"
        | "RequestThrottled"
        | "TooManyRequestsException"
        | "RequestLimitExceeded"
        | "RequestThrottledException"
        | "SlowDown" => LaunchError::Throttled { words, retry_after: None },
        "LimitExceededException" => LaunchError::Quota { words },
        _ if is_limit(&said) => LaunchError::Quota { words },
        _ if said.contains("capacity is unavailable") => LaunchError::Capacity { words },
        // A clock that is wrong and a token that has run out are put right without us.
        "ExpiredTokenException" | "ExpiredToken" | "RequestExpired" | "RequestTimeTooSkewed" => {
            LaunchError::Passing { words, source: Some(source) }
        }
        "InvalidSignatureException" if said.starts_with("signature expired") || said.contains("not yet current") => {
            LaunchError::Passing { words, source: Some(source) }
        }
        _ if (400..500).contains(&status) && status != 408 && status != 429 => {
            LaunchError::Misconfigured { words, source: Some(source) }
        }
        _ if status == 429 => LaunchError::Throttled { words, retry_after: None },
        _ => LaunchError::Passing { words, source: Some(source) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stopped(stop_code: &str, stopped_reason: &str) -> Shown {
        Shown {
            last_status: "STOPPED".into(),
            stop_code: stop_code.into(),
            stopped_reason: stopped_reason.into(),
            cpu: "256".into(),
            memory: "512".into(),
            pull_started: Some(1000),
            stopped: Some(61_000),
            container_status: "STOPPED".into(),
            ..Shown::default()
        }
    }

    #[test]
    fn every_stop_code_has_its_words() {
        let exited = |exit_code, container_reason: &str| Shown {
            exit_code,
            container_reason: container_reason.into(),
            ..stopped("EssentialContainerExited", "Essential container in task exited")
        };
        let spot = |shown: Shown| Shown { capacity_provider: SPOT.into(), ..shown };
        let failed = |words: &str| stopped("TaskFailedToStart", words);
        let table: Vec<(Shown, &str)> = vec![
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
        for (shown, words) in table {
            assert_eq!(departure(&shown).to_string(), words, "{shown:?}");
        }
    }

    #[test]
    fn every_state_is_starting_alive_or_gone() {
        let at = |last_status: &str| sighting(&Shown { last_status: last_status.into(), ..stopped("", "") });
        for status in ["PROVISIONING", "PENDING", "ACTIVATING", "DELETED_SOON"] {
            assert!(matches!(at(status), Sighting::Starting(_)), "{status}");
        }
        for status in ["RUNNING", "DEACTIVATING", "STOPPING"] {
            assert_eq!(at(status), Sighting::Alive, "{status}");
        }
        assert!(matches!(at("DEPROVISIONING"), Sighting::Gone(Departed { billed: None, .. })));
        let Sighting::Gone(departed) = at("STOPPED") else { panic!("stopped is gone") };
        assert_eq!(departed.billed, Some(Billed { from: 1000, to: 61_000 }));
        let shape = Shape { cpu_milli: 250, memory_mib: 512, disk_gib: 20 };
        assert_eq!(departed.machine, Some(Machine { shape, capacity: Capacity::OnDemand }));
    }

    #[test]
    fn a_refusal_says_what_to_do_about_it() {
        let kind = |error: &LaunchError| match error {
            LaunchError::Capacity { .. } | LaunchError::PlaceFull { .. } => "capacity",
            LaunchError::Quota { .. } => "quota",
            LaunchError::Throttled { .. } => "throttled",
            LaunchError::Misconfigured { .. } => "misconfigured",
            LaunchError::Passing { .. } => "passing",
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
