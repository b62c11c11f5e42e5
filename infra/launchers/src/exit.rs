//! How a task exited and what it is billed for, in one vocabulary for all platforms. Values only; the dispatcher stores them and
//! writes their text into EgressInfo.

use std::fmt;

use serde::{Deserialize, Serialize};
use spillway_cost::{Capacity, Shape};

/// How a task exited. `Display` is the text for EgressInfo.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskExit {
    /// The program exited with this status.
    Exited(i32),
    /// The program was killed by this signal.
    Signalled(i32),
    /// Killed because the container used more memory than its limit.
    OutOfMemory {
        /// The limit, where the platform tells it.
        limit_mib: Option<u32>,
    },
    /// The platform took spot capacity back.
    CapacityReclaimed,
    /// The program never ran; the platform's message.
    ImageNotPulled(String),
    /// The program never ran; the platform's message.
    NeverStarted(String),
    /// The machine failed or was taken out of service; the platform's message.
    HostRetired(String),
    /// Stopped by this stack, for this reason.
    EndedByUs(String),
    /// The platform's message, where none of the others fits.
    Other(String),
    /// Gone, for a reason that was not recorded.
    Unknown,
}

impl TaskExit {
    /// An exit status in the shell's convention: 128 and a signal's number.
    pub fn of_status(status: i32) -> Self {
        match status {
            129..=159 => Self::Signalled(status - 128),
            _ => Self::Exited(status),
        }
    }

    /// Whether the program never ran, so that nothing of the egress can have been written.
    pub fn never_ran(&self) -> bool {
        matches!(self, Self::ImageNotPulled(_) | Self::NeverStarted(_))
    }
}

impl fmt::Display for TaskExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "exit status {code}"),
            Self::Signalled(6) => f.write_str("signal 6 (aborted)"),
            Self::Signalled(9) => f.write_str("signal 9 (killed; often: out of memory)"),
            Self::Signalled(11) => f.write_str("signal 11 (segmentation fault)"),
            Self::Signalled(15) => f.write_str("signal 15 (terminated)"),
            Self::Signalled(number) => write!(f, "signal {number}"),
            Self::OutOfMemory { limit_mib: Some(limit) } => write!(f, "out of memory at {limit} MiB"),
            Self::OutOfMemory { limit_mib: None } => f.write_str("out of memory"),
            Self::CapacityReclaimed => f.write_str("spot capacity reclaimed"),
            Self::ImageNotPulled(message) => with_message(f, "image could not be pulled", message),
            Self::NeverStarted(message) => with_message(f, "could not be started", message),
            Self::HostRetired(message) => with_message(f, "its host was retired", message),
            Self::EndedByUs(message) => with_message(f, "ended by us", message),
            Self::Other(message) => f.write_str(message),
            Self::Unknown => f.write_str("no exit status known"),
        }
    }
}

fn with_message(f: &mut fmt::Formatter<'_>, what: &str, message: &str) -> fmt::Result {
    if message.is_empty() { f.write_str(what) } else { write!(f, "{what}: {message}") }
}

/// An exit with what the platform tells for the bill.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitReport {
    /// How the task exited.
    pub how: TaskExit,
    /// `None` where the platform bills nothing, or while the bill is open: then a later status has it.
    #[serde(default)]
    pub billed: Option<Billed>,
    /// `None` where the platform does not tell.
    #[serde(default)]
    pub machine: Option<TaskMachine>,
}

/// The billed time, Unix milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Billed {
    /// Start of the bill.
    pub from: i64,
    /// End of the bill.
    pub to: i64,
}

/// The machine that the task ran on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskMachine {
    /// Its size.
    pub shape: Shape,
    /// On demand or spot.
    pub capacity: Capacity,
}

impl From<TaskExit> for ExitReport {
    fn from(how: TaskExit) -> Self {
        Self { how, billed: None, machine: None }
    }
}

impl ExitReport {
    /// The report of a task that we have signalled, for this reason. Exits that have another cause (out of memory, an exit by
    /// itself) stay.
    pub(crate) fn ended_by(self, reason: Option<String>) -> Self {
        match (&self.how, reason) {
            (TaskExit::Signalled(9 | 15), Some(reason)) => Self { how: TaskExit::EndedByUs(reason), ..self },
            _ => self,
        }
    }
}

impl fmt::Display for ExitReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.how.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_is_described_in_plain_language() {
        let message = |how: TaskExit| how.to_string();
        assert_eq!(message(TaskExit::OutOfMemory { limit_mib: Some(2048) }), "out of memory at 2048 MiB");
        assert_eq!(message(TaskExit::CapacityReclaimed), "spot capacity reclaimed");
        assert_eq!(message(TaskExit::ImageNotPulled("no such tag".into())), "image could not be pulled: no such tag");
        assert_eq!(message(TaskExit::HostRetired(String::new())), "its host was retired");
        assert_eq!(message(TaskExit::of_status(137)), "signal 9 (killed; often: out of memory)");
        assert_eq!(TaskExit::of_status(101), TaskExit::Exited(101));
        assert_eq!(TaskExit::of_status(255), TaskExit::Exited(255));
    }

    #[test]
    fn a_stored_report_is_read_back() {
        let exit_report = ExitReport {
            how: TaskExit::OutOfMemory { limit_mib: None },
            billed: Some(Billed { from: 1, to: 2 }),
            machine: Some(TaskMachine {
                shape: Shape { cpu_milli: 250, memory_mib: 512, disk_gib: 20 },
                capacity: Capacity::Spot,
            }),
        };
        let text = serde_json::to_string(&exit_report).unwrap();
        assert_eq!(serde_json::from_str::<ExitReport>(&text).unwrap(), exit_report);
        assert_eq!(
            serde_json::from_str::<ExitReport>(r#"{"how":"unknown"}"#).unwrap(),
            ExitReport::from(TaskExit::Unknown)
        );
    }
}
