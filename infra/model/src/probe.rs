//! What a probe of a target is told in its ticket and what it reports: a line for each check, in Redis, and an exit status
//! where it cannot write there. The runner finds a cause; the dispatcher knows what to change on which platform.

use std::io;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::machine::{Platform, Shape};

/// What a probe needs beside the rest of its ticket. Its presence makes the ticket one of a probe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeOrder {
    /// Whose machine it should find itself on.
    pub platform: Platform,
    /// The machine that was asked for.
    pub shape: Shape,
    /// Name of the object that it writes and deletes again, as a request would give it: without the installation's prefix.
    pub object: String,
}

/// Outcome of one check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProbeOutcome {
    /// As it should be.
    Passed,
    /// Worth knowing, and nothing is wrong.
    Noted,
    /// Recordings work, and worse than they could.
    Warned,
    /// Recordings would fail. Also what this version cannot read: it must not pass for a success.
    #[serde(other)]
    Failed,
}

/// One check, as the runner reports it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeLine {
    /// What was checked: `redis`, `store S3` and the like.
    pub check: String,
    /// How it came out.
    pub outcome: ProbeOutcome,
    /// What was found, for people; holds no secret.
    pub message: String,
    /// Why it is not as it should be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<ProbeCause>,
    /// How long it took.
    #[serde(default)]
    pub took_ms: u64,
}

impl ProbeLine {
    /// A check that found everything as it should be.
    pub fn passed(check: impl Into<String>, message: impl Into<String>) -> Self {
        Self { check: check.into(), outcome: ProbeOutcome::Passed, message: message.into(), cause: None, took_ms: 0 }
    }

    /// The same line of a check that took so long.
    pub fn took(self, time: Duration) -> Self {
        Self { took_ms: u64::try_from(time.as_millis()).unwrap_or(u64::MAX), ..self }
    }

    /// A check that found something worth knowing.
    pub fn noted(check: impl Into<String>, message: impl Into<String>) -> Self {
        Self { outcome: ProbeOutcome::Noted, ..Self::passed(check, message) }
    }

    /// A check that found what makes recordings worse.
    pub fn warned(check: impl Into<String>, cause: ProbeCause, message: impl Into<String>) -> Self {
        Self { outcome: ProbeOutcome::Warned, cause: Some(cause), ..Self::passed(check, message) }
    }

    /// A check that found what makes recordings fail.
    pub fn failed(check: impl Into<String>, cause: ProbeCause, message: impl Into<String>) -> Self {
        Self { outcome: ProbeOutcome::Failed, cause: Some(cause), ..Self::passed(check, message) }
    }
}

/// Everything a probe has reported so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProbeReport {
    /// In the order in which the checks ended.
    pub lines: Vec<ProbeLine>,
    /// No further line follows.
    pub is_over: bool,
}

/// Defines [`ProbeCause`] with the list of its values.
macro_rules! causes {
    ($($(#[$doc:meta])* $cause:ident,)*) => {
        /// Why a check is not as it should be; what to change follows from it and the platform.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum ProbeCause {
            $($(#[$doc])* $cause,)*
            /// None of the others, or one of another version.
            #[serde(other)]
            Unclear,
        }

        impl ProbeCause {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$cause,)* Self::Unclear];
        }
    };
}

causes! {
    /// The account runs as many tasks, cores or GiB as it may.
    QuotaReached,
    /// The platform has no such machine free.
    NoCapacity,
    /// The platform wants fewer calls.
    Throttled,
    /// The platform's API does not answer.
    PlatformSilent,
    /// The dispatcher has no credentials for the platform, or wrong ones.
    CredentialsMissing,
    /// The platform refuses the dispatcher's identity.
    LaunchDenied,
    /// The dispatcher may launch, and may not give a task its identity.
    PassRoleDenied,
    /// The definition, job, group or network that the configuration names does not exist.
    TargetNotFound,
    /// Subnet, security group or virtual network do not fit together, or have no address left.
    SubnetUnusable,
    /// The platform could not pull the image.
    ImageNotPulled,
    /// The platform had no way to the registry or to the secrets.
    NoWayOut,
    /// The platform could not read the handover's secret for the task.
    SecretDenied,
    /// The platform could not open the task's log.
    LogDenied,
    /// The image is of another processor than the machine.
    WrongArchitecture,
    /// The task did not run in time.
    NotStarted,
    /// The task ran and reported nothing.
    NothingReported,
    /// The image has a runner that knows no probe.
    RunnerTooOld,
    /// The task was killed: its memory is too small.
    OutOfMemory,
    /// The platform took the machine back.
    CapacityReclaimed,
    /// No line of JSON from the launcher, or not its variables.
    HandoverMissing,
    /// A configured name does not resolve.
    NameNotFound,
    /// No name server answers.
    NameServerSilent,
    /// Nothing answers at Redis' address.
    RedisUnreachable,
    /// One side speaks TLS and the other does not, or the certificate is not accepted.
    RedisTls,
    /// User or password are refused.
    RedisLogin,
    /// Redis refuses a command or does not take writes.
    RedisRefuses,
    /// Redis may drop what must stay.
    RedisEviction,
    /// Redis is older than what is tested.
    RedisVersion,
    /// The ticket is not where the dispatcher put it: another Redis, or another database of it.
    AnotherRedis,
    /// The ticket is encrypted with another key.
    AnotherTicketKey,
    /// The clock of the machine differs from Redis'.
    ClockWrong,
    /// Nothing answers at livekit-server's address.
    ServerUnreachable,
    /// livekit-server's certificate is not accepted, or it speaks no TLS.
    ServerTls,
    /// livekit-server refuses the token: another API key or secret.
    TokenRefused,
    /// livekit-server answers, and not as a signal endpoint does.
    ServerRefuses,
    /// Signalling works, and no way for media was found.
    NoMedia,
    /// Media goes by TCP or a relay: UDP is closed.
    NoUdp,
    /// The media process does not work.
    MediaProcess,
    /// The bucket or container does not exist.
    BucketNotFound,
    /// The store refuses the write.
    StoreDenied,
    /// The store's credentials are missing, wrong or expired.
    StoreCredentials,
    /// Nothing answers at the store's address.
    StoreUnreachable,
    /// The store refuses for another reason.
    StoreRefuses,
    /// The task has no identity on its platform, or its credentials cannot be had.
    IdentityMissing,
    /// Part of the spool's disk is missing or it cannot be written.
    SpoolUnusable,
    /// The spool's disk is smaller than what was asked for.
    SpoolSmall,
    /// The task has less CPU or memory than was asked for.
    MachineSmall,
}

/// Exit statuses of a probe that cannot report through Redis. No other program of ours ends with one of them.
const STATUSES: [(i32, ProbeCause); 9] = [
    (81, ProbeCause::HandoverMissing),
    (82, ProbeCause::NameNotFound),
    (83, ProbeCause::RedisUnreachable),
    (84, ProbeCause::RedisTls),
    (85, ProbeCause::RedisLogin),
    (86, ProbeCause::RedisRefuses),
    (87, ProbeCause::AnotherRedis),
    (88, ProbeCause::AnotherTicketKey),
    (89, ProbeCause::NameServerSilent),
];

impl ProbeCause {
    /// The exit status that stands for it; `None`: it is reported through Redis.
    pub fn exit_status(self) -> Option<u8> {
        let found = STATUSES.iter().find(|(_, cause)| *cause == self);
        found.and_then(|(status, _)| u8::try_from(*status).ok())
    }

    /// Why a name was not resolved: the name server does not know it, or there is no name server.
    pub fn of_lookup(error: &io::Error) -> Self {
        // The texts of glibc and musl for EAI_AGAIN; the standard library keeps no code of the resolver's.
        let text = error.to_string();
        let is_silent =
            error.kind() == io::ErrorKind::TimedOut || text.contains("emporary failure") || text.contains("Try again");
        if is_silent { Self::NameServerSilent } else { Self::NameNotFound }
    }

    /// What a probe's exit status says.
    pub fn of_exit_status(status: i32) -> Option<Self> {
        STATUSES.iter().find(|(known, _)| *known == status).map(|(_, cause)| *cause)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_line_of_a_newer_version_is_no_success() {
        let line = r#"{"check":"gpu","outcome":"pending","message":"?","cause":"no_gpu","extra":1}"#;
        let line: ProbeLine = serde_json::from_str(line).unwrap();
        assert_eq!((line.outcome, line.cause, line.took_ms), (ProbeOutcome::Failed, Some(ProbeCause::Unclear), 0));
    }

    #[test]
    fn a_report_is_read_as_it_was_written() {
        let lines = vec![
            ProbeLine::passed("redis", "7.2"),
            ProbeLine { took_ms: 3, ..ProbeLine::warned("media", ProbeCause::NoUdp, "tcp") },
        ];
        let report = ProbeReport { lines, is_over: true };
        let text = serde_json::to_string(&report).unwrap();
        assert!(text.contains(r#""cause":"no_udp""#), "{text}");
        assert_eq!(serde_json::from_str::<ProbeReport>(&text).unwrap(), report);
    }

    #[test]
    fn a_silent_name_server_is_not_an_unknown_name() {
        let of = |text: &str| {
            ProbeCause::of_lookup(&io::Error::other(format!("failed to lookup address information: {text}")))
        };
        assert_eq!(of("Name or service not known"), ProbeCause::NameNotFound);
        assert_eq!(of("Temporary failure in name resolution"), ProbeCause::NameServerSilent);
        assert_eq!(ProbeCause::of_lookup(&io::ErrorKind::TimedOut.into()), ProbeCause::NameServerSilent);
    }

    #[test]
    fn an_exit_status_is_one_cause_and_no_signal() {
        let mut seen = HashSet::new();
        for cause in ProbeCause::ALL {
            let Some(status) = cause.exit_status() else { continue };
            assert!(status < 126 && seen.insert(status), "{cause:?}");
            assert_eq!(ProbeCause::of_exit_status(status.into()), Some(*cause));
        }
        assert_eq!((seen.len(), ProbeCause::of_exit_status(2)), (STATUSES.len(), None));
    }
}
