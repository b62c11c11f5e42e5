//! What happens to an egress: values that the table of `lifecycle` judges.

use std::collections::BTreeSet;

use spillway_protocol::ledger::Fact;

use crate::launch_state::Phase;
use crate::record::Record;
use crate::task::TaskRef;

/// Something that happened to an egress, or is going to be done about it.
#[derive(Clone, Debug)]
pub enum LaunchEvent {
    /// A dispatcher is going to ask a launcher.
    Requested(LaunchCall),
    /// A platform has a task for a launch.
    TaskNoted {
        /// Number of the launch.
        attempt: u32,
        /// Its task.
        task: TaskRef,
    },
    /// A runner has its ticket and owns the egress from here on.
    TookOver {
        /// The runner's number.
        attempt: u32,
    },
    /// The runner that owns the egress reports.
    Reported {
        /// The runner's number.
        attempt: u32,
        /// The new EgressInfo, as protobuf.
        info: Vec<u8>,
        /// The ledger it is made from, as JSON.
        ledger: String,
        /// How far the runner is.
        stage: RunnerStage,
    },
    /// The runner that owns the egress finds a record that has lost its last writes, as after a failover: it does not know
    /// of the runner. The runner's own copy, with its report, takes its place.
    Restored(Box<Record>),
    /// StopEgress came and no runner answered it.
    StopAsked,
    /// The dispatcher of the record is gone, and another one sees to it.
    Adopted {
        /// The dispatcher that is gone.
        from: String,
        /// The one that takes its place.
        by: String,
    },
    /// The task never recorded anything: the launch is made again, with a new number.
    StartLost {
        /// Number of the launch.
        attempt: u32,
        /// The task that was seen; `None`: none was known.
        task: Option<TaskRef>,
        /// The dispatcher that launches again.
        by: String,
        /// Unix milliseconds until which the next launch may wait; an earlier deadline is put off.
        deadline_ms: i64,
    },
    /// The recording task is certainly gone: another one goes on.
    TaskInterrupted {
        /// The dispatcher that launches it.
        by: String,
        /// Number of the launch whose task is gone.
        attempt: u32,
        /// Why it is gone, for the user.
        why: String,
        /// Unix milliseconds.
        at_ms: i64,
    },
    /// The runner that owns the egress is told to leave by its platform; it records no more, and another one goes on.
    HandedOver {
        /// The runner's number.
        attempt: u32,
        /// As in [`LaunchEvent::Reported`].
        info: Vec<u8>,
        /// As in [`LaunchEvent::Reported`].
        ledger: String,
        /// Why it leaves, for the user.
        why: String,
        /// Unix milliseconds.
        at_ms: i64,
    },
    /// The task is gone and has left unfinished uploads.
    TaskLost(SalvageOrder),
    /// A dispatcher ends the egress, because no runner can.
    Ended {
        /// The dispatcher that delivers the end.
        by: String,
        /// What must hold for it.
        when: EndCondition,
        /// For the ledger; the last one is the end.
        facts: Vec<Fact>,
        /// Unix nanoseconds of the facts.
        at_ns: i64,
    },
    /// livekit-server knows an end that the record has lost.
    EndKnown {
        /// The dispatcher that asked it.
        by: String,
        /// The launch that was asked about.
        seen: SeenLaunch,
        /// What livekit-server has, as protobuf.
        info: Vec<u8>,
    },
}

/// A launcher's call, as it is announced in the record before it is made.
#[derive(Clone, Debug)]
pub struct LaunchCall {
    /// The dispatcher that makes it; it must own the record.
    pub by: String,
    /// Number of the launch that the dispatcher has in its queue.
    pub seen: u32,
    /// Number of the call: the same, or the next one.
    pub attempt: u32,
    /// Name of the target.
    pub target: String,
    /// Claim of the ticket for this number.
    pub claim: String,
    /// Targets that certainly did not launch it.
    pub tried: BTreeSet<String>,
    /// The task goes on with a recording: one that was asked for before the interruption would record over it.
    pub resumes: bool,
    /// As [`Record::resumable`].
    pub resumable: bool,
    /// Unix milliseconds of the call.
    pub at_ms: i64,
    /// Time of the dispatcher's own last call, to which the answer was a certain no; `None`: there was none.
    pub refused_ms: Option<i64>,
}

impl LaunchCall {
    pub(super) fn renumbers(&self) -> bool {
        self.attempt != self.seen
    }
}

/// A salvage run that is to be launched.
#[derive(Clone, Debug)]
pub struct SalvageOrder {
    /// The dispatcher that launches it.
    pub by: String,
    /// Number of the launch whose task is gone; the salvage run gets the next one.
    pub attempt: u32,
    /// The spare ticket's claim, as it was seen.
    pub spare: String,
    /// Claim of its copy, for the salvage run.
    pub claim: String,
    /// Unix milliseconds until which the launch may wait.
    pub deadline_ms: i64,
    /// Why the task is gone.
    pub message: String,
}

/// How far a runner is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunnerStage {
    /// It records, or has not begun.
    Going,
    /// It finishes files and uploads.
    Ending,
    /// The report is its last.
    Over,
}

/// A launch as it was seen: a diagnosis is about this one and no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeenLaunch {
    /// Its number.
    pub attempt: u32,
    /// Where it stood.
    pub phase: Phase,
}

impl SeenLaunch {
    /// As the record has it.
    pub fn of(record: &Record) -> Self {
        Self { attempt: record.attempt, phase: record.phase() }
    }
}

/// What must hold for a dispatcher to end an egress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndCondition {
    /// The launch stands as it was seen.
    Stands(SeenLaunch),
    /// No runner has taken over the launch of this number.
    NotStarted(u32),
    /// Nothing was ever recorded: it is no salvage run, goes on with nothing, and no runner has taken over.
    NeverRecorded,
}
