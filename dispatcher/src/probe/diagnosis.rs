//! From what a platform or a launcher says to a cause: refused launches, tasks that never ran or left without a word. The kinds
//! come first; where one has several causes, the vendor's documented texts tell them apart. Pure.

use std::time::Duration;

use spillway_bus::{ProbeCause, ProbeLine};
use spillway_launchers::{ExitReport, LaunchError, TaskExit, TaskLog};
use spillway_process::chain;

/// Of a log without a line of the probe, so many of its last characters are shown.
const SHOWN_LOG: usize = 400;

/// Texts and what they mean, more particular ones first. All texts of a row must be there, in any case of letters.
const LAUNCH_TEXTS: &[(&[&str], ProbeCause)] = &[
    (&["iam:passrole"], ProbeCause::PassRoleDenied),
    (&["iam.serviceaccounts.actas"], ProbeCause::PassRoleDenied),
    (&["userassignedidentities", "assign/action"], ProbeCause::PassRoleDenied),
    (&["subnets", "join/action"], ProbeCause::PassRoleDenied),
    (&["linkedauthorizationfailed"], ProbeCause::PassRoleDenied),
    (&["signature expired"], ProbeCause::ClockWrong),
    (&["not yet current"], ProbeCause::ClockWrong),
    (&["requesttimetooskewed"], ProbeCause::ClockWrong),
    (&["expiredtoken"], ProbeCause::CredentialsMissing),
    (&["expiredauthenticationtoken"], ProbeCause::CredentialsMissing),
    (&["unrecognizedclientexception"], ProbeCause::CredentialsMissing),
    (&["invalidclienttokenid"], ProbeCause::CredentialsMissing),
    (&["signatureexception"], ProbeCause::CredentialsMissing),
    (&["invalid authentication credentials"], ProbeCause::CredentialsMissing),
    (&["unauthenticated"], ProbeCause::CredentialsMissing),
    (&["authenticationfailed"], ProbeCause::CredentialsMissing),
    (&["no credentials"], ProbeCause::CredentialsMissing),
    (&["no token for"], ProbeCause::CredentialsMissing),
    (&["find an identity"], ProbeCause::CredentialsMissing),
    (&["accessdenied"], ProbeCause::LaunchDenied),
    (&["not authorized"], ProbeCause::LaunchDenied),
    (&["authorizationfailed"], ProbeCause::LaunchDenied),
    (&["permission", "denied"], ProbeCause::LaunchDenied),
    (&["could not be pulled"], ProbeCause::ImageNotPulled),
    (&["inaccessibleimage"], ProbeCause::ImageNotPulled),
    (&["image", "not accessible"], ProbeCause::ImageNotPulled),
    (&["subnet"], ProbeCause::SubnetUnusable),
    (&["security group"], ProbeCause::SubnetUnusable),
    (&["clusternotfound"], ProbeCause::TargetNotFound),
    (&["resourcegroupnotfound"], ProbeCause::TargetNotFound),
    (&["task definition"], ProbeCause::TargetNotFound),
    (&["taskdefinition"], ProbeCause::TargetNotFound),
    (&["does not exist"], ProbeCause::TargetNotFound),
    (&["not found"], ProbeCause::TargetNotFound),
    (&["not_found"], ProbeCause::TargetNotFound),
    (&["no job has"], ProbeCause::TargetNotFound),
    (&["is not an executable file"], ProbeCause::TargetNotFound),
    (&["did not answer"], ProbeCause::PlatformSilent),
    (&["does not answer"], ProbeCause::PlatformSilent),
];

/// The same for tasks that were taken and did not run.
const START_TEXTS: &[(&[&str], ProbeCause)] = &[
    (&["exec format error"], ProbeCause::WrongArchitecture),
    (&["no matching manifest"], ProbeCause::WrongArchitecture),
    (&["image", "architecture"], ProbeCause::WrongArchitecture),
    (&["logging driver"], ProbeCause::LogDenied),
    (&["createlogstream"], ProbeCause::LogDenied),
    (&["log stream"], ProbeCause::LogDenied),
    (&["i/o timeout"], ProbeCause::NoWayOut),
    (&["deadline exceeded"], ProbeCause::NoWayOut),
    (&["connection issue"], ProbeCause::NoWayOut),
    (&["no route to host"], ProbeCause::NoWayOut),
    (&["network is unreachable"], ProbeCause::NoWayOut),
    (&["no such host"], ProbeCause::NoWayOut),
    (&["timed out"], ProbeCause::NoWayOut),
    (&["secret"], ProbeCause::SecretDenied),
    (&["network interface"], ProbeCause::SubnetUnusable),
    (&["free addresses"], ProbeCause::SubnetUnusable),
    (&["free ip"], ProbeCause::SubnetUnusable),
    (&["subnet"], ProbeCause::SubnetUnusable),
    (&["vpc"], ProbeCause::SubnetUnusable),
    (&["capacity"], ProbeCause::NoCapacity),
    (&["pull"], ProbeCause::ImageNotPulled),
    (&["image"], ProbeCause::ImageNotPulled),
];

fn by_text(text: &str, table: &[(&[&str], ProbeCause)]) -> Option<ProbeCause> {
    let text = text.to_lowercase();
    table.iter().find(|(all, _)| all.iter().all(|part| text.contains(part))).map(|(_, cause)| *cause)
}

/// Why no task was started.
pub fn of_launch(error: &LaunchError) -> ProbeCause {
    match error {
        LaunchError::Capacity { message } | LaunchError::ZoneCapacity { message } => {
            // ECS has no address left, which it calls RESOURCE:ENI.
            if message.contains("RESOURCE:ENI") { ProbeCause::SubnetUnusable } else { ProbeCause::NoCapacity }
        }
        LaunchError::Quota { .. } => ProbeCause::QuotaReached,
        LaunchError::Throttled { .. } => ProbeCause::Throttled,
        LaunchError::Misconfigured { .. } | LaunchError::Transient { .. } => {
            by_text(&chain(error).to_string(), LAUNCH_TEXTS).unwrap_or(ProbeCause::Unclear)
        }
    }
}

/// Why a task that was taken is gone before its last line. `reported`: it had begun to report.
pub fn of_exit(exit_report: &ExitReport, reported: bool) -> ProbeCause {
    match &exit_report.how {
        TaskExit::Exited(status) => match ProbeCause::of_exit_status(*status) {
            Some(cause) => cause,
            // A runner that does not know the argument, or ignores the variable and finds nothing to record.
            None if matches!(status, 0 | 2) && !reported => ProbeCause::RunnerTooOld,
            None => ProbeCause::NothingReported,
        },
        TaskExit::OutOfMemory { .. } => ProbeCause::OutOfMemory,
        TaskExit::CapacityReclaimed | TaskExit::HostRetired(_) => ProbeCause::CapacityReclaimed,
        TaskExit::ImageNotPulled(text) => by_text(text, START_TEXTS)
            .filter(|cause| matches!(cause, ProbeCause::NoWayOut | ProbeCause::WrongArchitecture))
            .unwrap_or(ProbeCause::ImageNotPulled),
        TaskExit::NeverStarted(text) => by_text(text, START_TEXTS).unwrap_or(ProbeCause::NotStarted),
        TaskExit::Other(text) => by_text(text, START_TEXTS).unwrap_or(ProbeCause::NothingReported),
        TaskExit::Signalled(_) | TaskExit::EndedByUs(_) | TaskExit::Unknown => ProbeCause::NothingReported,
    }
}

/// Why a task is still starting when its time is over, by what its platform says it is doing.
pub fn of_start(status: &str) -> ProbeCause {
    match by_text(status, START_TEXTS) {
        Some(cause @ (ProbeCause::SecretDenied | ProbeCause::NoWayOut | ProbeCause::SubnetUnusable)) => cause,
        _ => ProbeCause::NotStarted,
    }
}

/// The last line of the probe in a task's log.
pub fn of_log(log: &str) -> Option<ProbeLine> {
    log.lines().rev().find_map(|line| {
        // A log driver may put a time before it.
        let json = &line[line.find("{\"probe\":")?..];
        let mut found: serde_json::Value = serde_json::from_str(json).ok()?;
        serde_json::from_value(found["probe"].take()).ok()
    })
}

/// A task that is gone before its last line.
pub fn left(exit_report: &ExitReport, log: &TaskLog, reported: bool) -> ProbeLine {
    let check = if reported { "runner" } else { "start" };
    let logged = match log {
        TaskLog::Tail(text) => of_log(text).filter(|line| line.cause.is_some()),
        TaskLog::At(_) => None,
    };
    match (logged, log) {
        (Some(line), _) => {
            let cause = line.cause.unwrap_or(ProbeCause::Unclear);
            ProbeLine::failed(line.check, cause, format!("{} ({exit_report})", line.message))
        }
        (None, TaskLog::Tail(text)) => {
            let from = text.char_indices().rev().nth(SHOWN_LOG).map_or(0, |(at, _)| at);
            let end = text[from..].split_whitespace().collect::<Vec<_>>().join(" ");
            ProbeLine::failed(check, of_exit(exit_report, reported), format!("{exit_report}; its log ends: {end}"))
        }
        (None, TaskLog::At(place)) => {
            ProbeLine::failed(check, of_exit(exit_report, reported), format!("{exit_report}; its log: {place}"))
        }
    }
}

/// A task whose time is over.
pub fn late(max: Duration, last: &str, reported: bool) -> ProbeLine {
    let seconds = max.as_secs();
    match reported {
        true => ProbeLine::failed("runner", ProbeCause::NothingReported, format!("not done within {seconds} s")),
        false => {
            let message = format!("nothing reported within {seconds} s; seen last: {last}");
            ProbeLine::failed("start", of_start(last), message)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_launch_has_a_cause() {
        let misconfigured = |message: &str| LaunchError::Misconfigured { message: message.into(), source: None };
        for (message, cause) in [
            (
                "AccessDeniedException: User: arn:aws:sts::1:assumed-role/dispatcher is not authorized to perform: ecs:RunTask",
                ProbeCause::LaunchDenied,
            ),
            ("AccessDeniedException: … is not authorized to perform: iam:PassRole on …", ProbeCause::PassRoleDenied),
            ("InvalidParameterException: The subnet ID 'subnet-1' does not exist", ProbeCause::SubnetUnusable),
            ("InvalidParameterException: Security group sg-1 does not exist", ProbeCause::SubnetUnusable),
            ("ClusterNotFoundException: Cluster not found.", ProbeCause::TargetNotFound),
            ("ClientException: TaskDefinition not found.", ProbeCause::TargetNotFound),
            ("InvalidSignatureException: Signature expired: 1 is now earlier than 2", ProbeCause::ClockWrong),
            ("no credentials for ECS", ProbeCause::CredentialsMissing),
            ("UnrecognizedClientException: The security token … is invalid.", ProbeCause::CredentialsMissing),
            ("PERMISSION_DENIED: Permission 'run.jobs.run' denied on resource 'x'", ProbeCause::LaunchDenied),
            ("PERMISSION_DENIED: Permission 'iam.serviceaccounts.actAs' denied", ProbeCause::PassRoleDenied),
            ("NOT_FOUND: Resource 'x' of kind 'JOB' in region does not exist.", ProbeCause::TargetNotFound),
            (
                "AuthorizationFailed: … to perform action 'Microsoft.ContainerInstance/containerGroups/write'",
                ProbeCause::LaunchDenied,
            ),
            (
                "AuthorizationFailed: … action 'Microsoft.ManagedIdentity/userAssignedIdentities/assign/action'",
                ProbeCause::PassRoleDenied,
            ),
            ("SubnetMissingRequiredDelegation: the subnet is not delegated", ProbeCause::SubnetUnusable),
            ("ResourceGroupNotFound: Resource group 'x' could not be found.", ProbeCause::TargetNotFound),
            ("InaccessibleImage: The image 'x' in container group 'y' is not accessible.", ProbeCause::ImageNotPulled),
            ("the image x could not be pulled", ProbeCause::ImageNotPulled),
            ("/x/spillway-runner is not an executable file", ProbeCause::TargetNotFound),
            ("something new", ProbeCause::Unclear),
        ] {
            assert_eq!(of_launch(&misconfigured(message)), cause, "{message}");
        }
        assert_eq!(of_launch(&LaunchError::Quota { message: String::new() }), ProbeCause::QuotaReached);
        assert_eq!(of_launch(&LaunchError::Capacity { message: "RESOURCE:ENI".into() }), ProbeCause::SubnetUnusable);
        let lost = LaunchError::Transient { message: "Azure did not answer".into(), source: None };
        assert_eq!(of_launch(&lost), ProbeCause::PlatformSilent);
    }

    #[test]
    fn a_task_that_never_ran_has_a_cause() {
        let never = |text: &str| of_exit(&TaskExit::NeverStarted(text.into()).into(), false);
        for (text, cause) in [
            (
                "ResourceInitializationError: unable to pull secrets or registry auth: … AccessDeniedException: … \
                 secretsmanager:GetSecretValue",
                ProbeCause::SecretDenied,
            ),
            (
                "ResourceInitializationError: unable to pull secrets or registry auth: … There is a connection issue between \
                 the task and AWS Secrets Manager. Check your task network configuration.",
                ProbeCause::NoWayOut,
            ),
            (
                "ResourceInitializationError: failed to validate logger args: create stream has been retried: \
                 failed to create Cloudwatch log stream: AccessDeniedException",
                ProbeCause::LogDenied,
            ),
            (
                "CannotStartContainerError: exec /usr/bin/spillway-runner: exec format error",
                ProbeCause::WrongArchitecture,
            ),
            ("Permission denied on secret: projects/1/secrets/ticket-key/versions/latest", ProbeCause::SecretDenied),
            ("VPC_NETWORK_NOT_FOUND: the network x was not found", ProbeCause::SubnetUnusable),
            ("Timeout waiting for network interface provisioning to complete.", ProbeCause::SubnetUnusable),
            ("Unexpected error", ProbeCause::NotStarted),
        ] {
            assert_eq!(never(text), cause, "{text}");
        }
        let pulled = |text: &str| of_exit(&TaskExit::ImageNotPulled(text.into()).into(), false);
        for (text, cause) in [
            ("pull image manifest has been retried 1 time(s): not found", ProbeCause::ImageNotPulled),
            ("pull access denied … may require authorization: 403 Forbidden", ProbeCause::ImageNotPulled),
            ("request canceled while waiting for connection: dial tcp 52.1.2.3:443: i/o timeout", ProbeCause::NoWayOut),
            ("no matching manifest for linux/arm64 in the manifest list entries", ProbeCause::WrongArchitecture),
        ] {
            assert_eq!(pulled(text), cause, "{text}");
        }
    }

    #[test]
    fn a_task_that_left_has_the_cause_of_its_exit_status() {
        let exited = |status, reported| of_exit(&TaskExit::Exited(status).into(), reported);
        assert_eq!(exited(84, false), ProbeCause::RedisTls);
        assert_eq!(exited(87, false), ProbeCause::AnotherRedis);
        assert_eq!((exited(2, false), exited(0, false)), (ProbeCause::RunnerTooOld, ProbeCause::RunnerTooOld));
        assert_eq!((exited(0, true), exited(101, false)), (ProbeCause::NothingReported, ProbeCause::NothingReported));
        assert_eq!(of_exit(&TaskExit::OutOfMemory { limit_mib: Some(256) }.into(), true), ProbeCause::OutOfMemory);
    }

    #[test]
    fn the_last_line_of_a_probe_is_found_in_a_log() {
        let log = "starting\n{\"probe\":{\"check\":\"a\",\"outcome\":\"passed\",\"message\":\"1\"}}\n\
                   2026-12-01T03:00:00Z {\"probe\":{\"check\":\"redis\",\"outcome\":\"failed\",\"message\":\"m\",\"cause\":\"redis_tls\"}}\nend\n";
        let line = of_log(log).unwrap();
        assert_eq!((line.check.as_str(), line.cause), ("redis", Some(ProbeCause::RedisTls)));
        assert_eq!(of_log("nothing\n{\"probe\":"), None);
    }

    #[test]
    fn a_task_that_left_early_is_explained_by_its_own_line_or_by_the_end_of_its_log() {
        let own =
            r#"{"probe":{"check":"redis","outcome":"failed","message":"wrong version number","cause":"redis_tls"}}"#;
        let line = left(&TaskExit::Exited(84).into(), &TaskLog::Tail(format!("x\n{own}\n")), false);
        assert_eq!((line.check.as_str(), line.cause), ("redis", Some(ProbeCause::RedisTls)));
        assert_eq!(line.message, "wrong version number (exit status 84)");
        let old =
            left(&TaskExit::Exited(2).into(), &TaskLog::Tail("error: unexpected\n argument '--probe'".into()), false);
        assert_eq!((old.check.as_str(), old.cause), ("start", Some(ProbeCause::RunnerTooOld)));
        assert_eq!(old.message, "exit status 2; its log ends: error: unexpected argument '--probe'");
        let far = left(&TaskExit::Exited(85).into(), &TaskLog::At("CloudWatch, group x".into()), false);
        assert_eq!(
            (far.cause, far.message.as_str()),
            (Some(ProbeCause::RedisLogin), "exit status 85; its log: CloudWatch, group x")
        );
        let killed = left(&TaskExit::OutOfMemory { limit_mib: Some(256) }.into(), &TaskLog::At("x".into()), true);
        assert_eq!((killed.check.as_str(), killed.cause), ("runner", Some(ProbeCause::OutOfMemory)));
    }

    #[test]
    fn a_task_that_takes_too_long_is_explained_by_what_the_platform_says() {
        let max = Duration::from_secs(60);
        assert_eq!(late(max, "waiting for the image", false).cause, Some(ProbeCause::NotStarted));
        assert_eq!(late(max, "Failed to read secret x", false).cause, Some(ProbeCause::SecretDenied));
        assert_eq!(late(max, "the task runs", true).check, "runner");
    }
}
