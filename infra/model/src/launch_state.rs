//! Where the launch of an egress stands: one enum, and the words it is stored with. `lifecycle` has the transitions.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::task::TaskRef;

/// State of the launch that a record is at. Its number (`Record::attempt`), its target and the time it was asked for
/// (`Dispatch::target`, `Dispatch::launched_ms`) are in the record, because they outlive the state: the bill needs
/// them after the end. Of a salvage run `Record::lost` says so from [`LaunchState::Lost`] on, of a task that goes on with a
/// recording `Record::resumption` from [`LaunchState::Interrupted`] on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LaunchState {
    /// In the launch queue; no launcher was asked for this number.
    Queued {
        /// A task of this number existed and never recorded: the next launch needs a new number.
        renumber: bool,
    },
    /// A launcher is being asked; no answer is known yet.
    Asking,
    /// A launcher was asked and an answer was lost: a task may exist, whatever a later call answers.
    Unknown,
    /// The platform has a task; its runner has not taken over.
    Launched {
        /// The task.
        task: TaskRef,
    },
    /// A runner records, and owns what the egress reports.
    Running {
        /// Its task; `None`: the answer of the launch call was lost.
        task: Option<TaskRef>,
        /// It finishes files and uploads.
        ending: bool,
    },
    /// The recording task is gone, and another one that goes on with the recording is due, with a new number.
    Interrupted,
    /// The recording task is gone and uploads are unfinished: a salvage run is due.
    Lost {
        /// As for [`LaunchState::Queued`].
        renumber: bool,
    },
    /// A salvage run completes the uploads.
    Salvaging {
        /// Its task, as for [`LaunchState::Running`].
        task: Option<TaskRef>,
        /// It has reported that it ends.
        ending: bool,
    },
    /// The final EgressInfo is in the record; nothing changes any more.
    Ended {
        /// The last task, to be watched until it is gone and billed.
        task: Option<TaskRef>,
        /// A launcher was asked for this number, so there may be a task even where `task` is `None`.
        asked: bool,
    },
}

impl LaunchState {
    /// The stored word of the state.
    pub fn phase(&self) -> Phase {
        match self {
            Self::Queued { .. } | Self::Interrupted | Self::Lost { .. } => Phase::Accepted,
            Self::Asking | Self::Unknown | Self::Launched { .. } => Phase::Launching,
            Self::Running { ending: false, .. } | Self::Salvaging { ending: false, .. } => Phase::Running,
            Self::Running { ending: true, .. } | Self::Salvaging { ending: true, .. } => Phase::Ending,
            Self::Ended { .. } => Phase::Over,
        }
    }

    /// The task of the current number.
    pub fn task(&self) -> Option<&TaskRef> {
        match self {
            Self::Launched { task } => Some(task),
            Self::Running { task, .. } | Self::Salvaging { task, .. } | Self::Ended { task, .. } => task.as_ref(),
            Self::Queued { .. } | Self::Interrupted | Self::Asking | Self::Unknown | Self::Lost { .. } => None,
        }
    }

    /// A launcher was asked for the current number, or a task of it existed: a task may have to be billed.
    pub fn may_have_task(&self) -> bool {
        match self {
            Self::Queued { renumber } | Self::Lost { renumber } => *renumber,
            Self::Ended { task, asked } => *asked || task.is_some(),
            Self::Interrupted
            | Self::Asking
            | Self::Unknown
            | Self::Launched { .. }
            | Self::Running { .. }
            | Self::Salvaging { .. } => true,
        }
    }

    /// A launcher was asked for the current number and no other target may be asked for it.
    pub fn is_asked(&self) -> bool {
        matches!(self, Self::Asking | Self::Unknown | Self::Launched { .. })
    }

    /// The next launch needs a new number; only of a launch in the queue.
    pub fn needs_new_number(&self) -> bool {
        matches!(self, Self::Queued { renumber: true } | Self::Interrupted | Self::Lost { renumber: true })
    }

    /// No runner has taken over yet.
    pub fn is_starting(&self) -> bool {
        matches!(self.phase(), Phase::Accepted | Phase::Launching)
    }

    /// A runner owns the egress.
    pub fn has_runner(&self) -> bool {
        matches!(self, Self::Running { .. } | Self::Salvaging { .. })
    }

    /// The final EgressInfo is in the record.
    pub fn is_over(&self) -> bool {
        matches!(self, Self::Ended { .. })
    }
}

/// For the log: the state without its fields.
impl fmt::Display for LaunchState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Queued { .. } => "queued",
            Self::Asking => "asking",
            Self::Unknown => "unknown",
            Self::Launched { .. } => "launched",
            Self::Running { ending: false, .. } => "running",
            Self::Running { ending: true, .. } => "ending",
            Self::Interrupted => "interrupted",
            Self::Lost { .. } => "lost",
            Self::Salvaging { .. } => "salvaging",
            Self::Ended { .. } => "ended",
        })
    }
}

/// The word that a record stores for its state; together with other fields it gives the [`LaunchState`]. Every version
/// reads these five; another word is an error of the reader.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// StartEgress was granted, or another task is due that goes on or salvages; no launch of this number was attempted yet.
    #[default]
    Accepted,
    /// A launcher was or is being asked for a task.
    Launching,
    /// The runner took its ticket and owns the egress.
    Running,
    /// The runner finishes files and uploads.
    Ending,
    /// The final EgressInfo is in the record.
    Over,
}
