//! Answers and errors of Docker's daemon as statuses, exits and launch errors; what its containers may do. Pure.

use bollard::errors::Error;
use bollard::models::{ContainerState, ContainerStateStatusEnum};

use crate::exit::{ExitReport, TaskExit};
use crate::launcher::{LaunchError, TaskStatus};

pub(super) const NAME: &str = "docker";
/// Text of the status of a container that was created and never started.
pub(super) const NOT_STARTED: &str = "the container is made";

/// Docker's own list of system calls, and those that Chromium's sandbox is made of: namespaces of an ordinary user.
const PAGE_SYSTEM_CALLS: &str = include_str!("../../../images/chrome-seccomp.json");
/// Of `/dev/shm`, part of the container's memory: a page's profile and Chromium's shared memory.
const PAGE_SHM_BYTES: i64 = 512 << 20;

/// Security options of a container, and the size of its `/dev/shm` where it is not Docker's.
pub(super) fn limits(page: bool) -> (Vec<String>, Option<i64>) {
    let mut options = vec!["no-new-privileges".to_owned()];
    if page {
        options.push(format!("seccomp={PAGE_SYSTEM_CALLS}"));
    }
    (options, page.then_some(PAGE_SHM_BYTES))
}

/// Status of a container. `limit_mib`: its memory limit.
pub(super) fn task_status(state: &ContainerState, limit_mib: Option<u32>) -> TaskStatus {
    match state.status {
        Some(ContainerStateStatusEnum::EXITED | ContainerStateStatusEnum::DEAD) => {
            TaskStatus::Gone(exit_report(state, limit_mib))
        }
        // With an error: the program could not be started, and the container stays created.
        Some(ContainerStateStatusEnum::CREATED) => match state.error.as_deref() {
            Some(error) if !error.is_empty() => TaskStatus::Gone(TaskExit::NeverStarted(error.to_owned()).into()),
            _ => TaskStatus::Starting(NOT_STARTED.to_owned()),
        },
        _ => TaskStatus::Alive,
    }
}

fn exit_report(state: &ContainerState, limit_mib: Option<u32>) -> ExitReport {
    let status = state.exit_code.and_then(|status| i32::try_from(status).ok());
    let how = match (status, state.error.as_deref()) {
        _ if state.oom_killed == Some(true) => TaskExit::OutOfMemory { limit_mib },
        (_, Some(error)) if !error.is_empty() => TaskExit::NeverStarted(error.to_owned()),
        (Some(status), _) => TaskExit::of_status(status),
        (None, _) => TaskExit::Unknown,
    };
    how.into()
}

/// HTTP status of the daemon's answer; `None`: there was none.
pub(super) fn status(error: &Error) -> Option<u16> {
    match error {
        Error::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

/// The error of a request about a container that existed a moment ago: if it was removed, the next launch makes another.
pub(super) fn refusal_of_one(error: Error) -> LaunchError {
    match status(&error) {
        Some(404) => LaunchError::Transient { message: "the container is gone".to_owned(), source: Some(error.into()) },
        _ => refusal(error),
    }
}

/// The error of a failed request.
pub(super) fn refusal(error: Error) -> LaunchError {
    let message = match &error {
        Error::DockerResponseServerError { message, .. } => message.clone(),
        _ => "Docker did not answer".to_owned(),
    };
    match status(&error) {
        // The container is busy with another request.
        Some(409) => LaunchError::Transient { message, source: Some(error.into()) },
        Some(400..=499) => LaunchError::Misconfigured { message, source: Some(error.into()) },
        _ => LaunchError::Transient { message, source: Some(error.into()) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_page_may_make_namespaces() {
        assert_eq!(limits(false), (vec!["no-new-privileges".to_owned()], None));
        let (options, shm) = limits(true);
        let profile = options.iter().find_map(|option| option.strip_prefix("seccomp=")).unwrap();
        let profile: serde_json::Value = serde_json::from_str(profile).unwrap();
        assert_eq!((profile["defaultAction"].as_str(), shm), (Some("SCMP_ACT_ERRNO"), Some(PAGE_SHM_BYTES)));
        let always = &profile["syscalls"][0];
        assert!(
            always["action"] == "SCMP_ACT_ALLOW" && always.get("includes").is_none() && always.get("args").is_none()
        );
        for name in ["clone", "unshare", "setns", "chroot", "memfd_create"] {
            assert!(always["names"].as_array().unwrap().iter().any(|known| known == name), "{name}");
        }
    }

    #[test]
    fn every_state_is_starting_alive_or_gone() {
        let state = |status, exit_code, oom, error: &str| {
            let error = (!error.is_empty()).then(|| error.to_owned());
            let state = ContainerState {
                status: Some(status),
                exit_code: Some(exit_code),
                oom_killed: Some(oom),
                error,
                ..ContainerState::default()
            };
            task_status(&state, Some(256))
        };
        use ContainerStateStatusEnum::{CREATED, DEAD, EXITED, PAUSED, RUNNING};
        let gone = |how: TaskExit| TaskStatus::Gone(how.into());
        assert_eq!(state(RUNNING, 0, false, ""), TaskStatus::Alive);
        assert_eq!(state(PAUSED, 0, false, ""), TaskStatus::Alive);
        assert!(matches!(state(CREATED, 0, false, ""), TaskStatus::Starting(_)));
        assert_eq!(state(CREATED, 127, false, "no such file"), gone(TaskExit::NeverStarted("no such file".into())));
        assert_eq!(state(EXITED, 0, false, ""), gone(TaskExit::Exited(0)));
        assert_eq!(state(EXITED, 137, false, ""), gone(TaskExit::Signalled(9)));
        assert_eq!(state(EXITED, 137, true, ""), gone(TaskExit::OutOfMemory { limit_mib: Some(256) }));
        assert_eq!(state(DEAD, 1, false, ""), gone(TaskExit::Exited(1)));
    }
}
