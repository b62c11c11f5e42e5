use std::fmt;

use serde::{Deserialize, Serialize};
use spillway_cost::{Capacity, Shape};

/// How a task left, in one vocabulary for all platforms. Its words go into EgressInfo.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskExit {
    Exited(i32),
    Signalled(i32),
    OutOfMemory {
        limit_mib: Option<u32>,
    },
    /// Spot capacity, which others pay more for.
    CapacityReclaimed,
    /// The platform's words. It never ran.
    ImageNotPulled(String),
    /// The platform's words. It never ran.
    NeverStarted(String),
    /// The machine under it failed or was taken out of service.
    HostRetired(String),
    /// By this stack, with this reason.
    EndedByUs(String),
    /// In the platform's own words, where none of the others fits.
    Other(String),
    /// Gone, and nobody kept the reason.
    Unknown,
}

impl TaskExit {
    /// A container's exit status as a shell gives it: 128 and more are signals.
    pub fn of_status(status: i32) -> Self {
        match status {
            129..=159 => Self::Signalled(status - 128),
            _ => Self::Exited(status),
        }
    }

    /// The program never ran, so nothing of the egress can have been touched.
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
            Self::ImageNotPulled(message) => said(f, "image could not be pulled", message),
            Self::NeverStarted(message) => said(f, "could not be started", message),
            Self::HostRetired(message) => said(f, "its host was retired", message),
            Self::EndedByUs(message) => said(f, "ended by us", message),
            Self::Other(message) => f.write_str(message),
            Self::Unknown => f.write_str("no exit status known"),
        }
    }
}

fn said(f: &mut fmt::Formatter<'_>, what: &str, message: &str) -> fmt::Result {
    if message.is_empty() { f.write_str(what) } else { write!(f, "{what}: {message}") }
}

/// An exit with what the platform says for the bill.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitReport {
    pub how: TaskExit,
    /// `None` where the platform bills nothing, or while it still counts: then a later look knows.
    #[serde(default)]
    pub billed: Option<Billed>,
    #[serde(default)]
    pub machine: Option<TaskMachine>,
}

/// From when to when the platform bills the task, Unix milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Billed {
    pub from: i64,
    pub to: i64,
}

/// What the task really ran on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskMachine {
    pub shape: Shape,
    pub capacity: Capacity,
}

impl From<TaskExit> for ExitReport {
    fn from(how: TaskExit) -> Self {
        Self { how, billed: None, machine: None }
    }
}

impl ExitReport {
    /// A signal that we have sent ourselves is told as that. What the platform knows better (out of memory, a program that
    /// left by itself) stays.
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
    fn what_lies_in_the_registry_is_read_back() {
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
