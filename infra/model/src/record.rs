//! The record of one egress. Dispatchers and the runner share it through Redis and change it by compare-and-set, with
//! the transitions of `lifecycle`. `stored_record` is its JSON; what is there and cannot be read is an error, never a
//! default.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use spillway_protocol::EgressId;

use crate::dispatch::Dispatch;
use crate::launch_state::{LaunchState, Phase};
use crate::resumption::Resumption;
use crate::stored_record::{FIRST, FORMAT, RESUMING, StoredDispatch, StoredRecord};
use crate::task::{TaskKey, TaskRef};

/// What is known about one egress. Fields of a newer version are kept in `extra` and written back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "StoredRecord", into = "StoredRecord")]
pub struct Record {
    /// The id livekit-server gave it.
    pub egress_id: EgressId,
    /// Counts the writes, from 1. Set by the registry; stored beside the JSON, not in it.
    pub version: u64,
    /// Where the launch stands.
    pub state: LaunchState,
    /// Number of the current launch; the first is 1, and 0 means none yet.
    pub attempt: u32,
    /// Name of the dispatcher that sees to the egress: the one that accepted it, or adopted it since.
    pub dispatcher: String,
    /// The last `livekit.EgressInfo` as protobuf; base64 in the JSON.
    pub info: Vec<u8>,
    /// The ledger (`spillway_protocol::ledger`) that `info` is made from, as JSON.
    pub ledger: String,
    /// StopEgress came before a runner listened.
    pub stop_asked: bool,
    /// Claim token of a second ticket, for a salvage run if the task dies with uploads unfinished. The component that
    /// ends the egress clears it. Empty: only a disk can hold something to salvage.
    pub spare: String,
    /// Why the recording task is gone. Not empty: the current attempt is its salvage run, and the egress ends with this
    /// message.
    pub lost: String,
    /// If the recording task dies, another one may go on: its target is of a kind for that, and the installation wants it.
    /// Of the last launch call.
    pub resumable: bool,
    /// The spare ticket is for a task that goes on with the recording: a salvage run would find nothing to do.
    pub nothing_to_salvage: bool,
    /// The recording was interrupted; `None`: never.
    pub resumption: Option<Resumption>,
    /// When StartEgress was accepted, Unix milliseconds of Redis' clock.
    pub accepted_at: i64,
    /// The dispatcher's own part.
    pub dispatch: Dispatch,
    /// Further fields, of a newer version.
    pub extra: BTreeMap<String, serde_json::Value>,
}

impl Record {
    /// A queued record with everything else empty. `accepted_at` in Unix milliseconds.
    pub fn new(egress_id: EgressId, accepted_at: i64) -> Self {
        Self {
            egress_id,
            version: 0,
            state: LaunchState::Queued { renumber: false },
            attempt: 0,
            dispatcher: String::new(),
            info: Vec::new(),
            ledger: String::new(),
            stop_asked: false,
            spare: String::new(),
            lost: String::new(),
            resumable: false,
            nothing_to_salvage: false,
            resumption: None,
            accepted_at,
            dispatch: Dispatch::default(),
            extra: BTreeMap::new(),
        }
    }

    /// The stored word of the state.
    pub fn phase(&self) -> Phase {
        self.state.phase()
    }

    /// The task of the current launch; `None`: it is not known, or there is none.
    pub fn task(&self) -> Option<&TaskRef> {
        self.state.task()
    }

    /// The task of one of its launches, as far as it is known.
    pub fn task_of(&self, attempt: u32) -> Option<&TaskRef> {
        self.dispatch.earlier.get(&attempt).or_else(|| self.task().filter(|_| self.attempt == attempt))
    }

    /// The current launch.
    pub fn key(&self) -> TaskKey {
        TaskKey { egress_id: self.egress_id.clone(), attempt: self.attempt }
    }

    /// The launch is being made, or its task runs or may run.
    pub fn wants(&self, attempt: u32) -> bool {
        !self.state.is_over() && !self.dispatch.earlier.contains_key(&attempt)
    }

    /// It is from before the task of this number owned it, so writes were lost. A number is in the record before its task can
    /// run: a runner with a higher one proves it. So does the owner of a number that no runner has taken over, unless that
    /// number was given up since. Never of an egress that is over.
    pub fn is_before(&self, attempt: u32) -> bool {
        let is_new = self.state.is_starting() && !self.state.needs_new_number();
        !self.state.is_over() && (self.attempt < attempt || (self.attempt == attempt && is_new))
    }

    /// The current launch is, or will be, a salvage run.
    pub fn is_salvage(&self) -> bool {
        !self.lost.is_empty()
    }

    /// The current launch goes on, or will, with what another task has recorded.
    pub fn is_resumption(&self) -> bool {
        self.resumption.is_some() && !self.is_salvage()
    }

    /// A heartbeat of launch `attempt` is one of the runner that has, or will have, the egress. A later launch than the
    /// record's: it has lost its last writes. Of an interrupted recording the last heartbeats of the dead task are not.
    pub fn is_beat_of(&self, attempt: u32) -> bool {
        attempt > self.attempt || (attempt == self.attempt && self.state != LaunchState::Interrupted)
    }

    /// A launch that goes on with a recording, and has not taken over yet.
    pub fn is_resuming(&self) -> bool {
        self.is_resumption() && self.state.is_starting()
    }
}

/// Why a stored record is not one of this version.
#[derive(Debug)]
pub(crate) enum Unreadable {
    /// Of a newer form.
    Format(u32),
    /// The reference to its task.
    Task(serde_json::Error),
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Format(format) => write!(f, "form {format} is newer than {FORMAT}, the newest known"),
            Self::Task(error) => write!(f, "reference to its task: {error}"),
        }
    }
}

impl TryFrom<StoredRecord> for Record {
    type Error = Unreadable;

    fn try_from(stored: StoredRecord) -> Result<Self, Unreadable> {
        if stored.format > FORMAT {
            return Err(Unreadable::Format(stored.format));
        }
        let task = stored.task.as_deref().map(serde_json::from_str::<TaskRef>).transpose().map_err(Unreadable::Task)?;
        let StoredDispatch { asked, fresh, unanswered, mut dispatch } = stored.dispatch.unwrap_or_default();
        let salvage = !stored.lost.is_empty();
        let resuming = stored.resumption.is_some() && !salvage;
        let state = match (stored.phase, task) {
            // Version 0.1.0 noted the late answer of a launch there although the launch had been given up.
            (Phase::Accepted, Some(task)) if fresh => {
                dispatch.earlier.insert(stored.attempt, task);
                waiting(salvage, true)
            }
            (Phase::Accepted, None) if resuming => LaunchState::Interrupted,
            (Phase::Accepted, None) => waiting(salvage, fresh),
            (Phase::Accepted | Phase::Launching, Some(task)) => LaunchState::Launched { task },
            (Phase::Launching, None) if unanswered => LaunchState::Unknown,
            (Phase::Launching, None) => LaunchState::Asking,
            (Phase::Running, task) if salvage => LaunchState::Salvaging { task, ending: false },
            (Phase::Running, task) => LaunchState::Running { task, ending: false },
            (Phase::Ending, task) if salvage => LaunchState::Salvaging { task, ending: true },
            (Phase::Ending, task) => LaunchState::Running { task, ending: true },
            (Phase::Over, task) => LaunchState::Ended { task, asked: asked || fresh },
        };
        Ok(Self {
            egress_id: stored.egress_id,
            version: 0,
            state,
            attempt: stored.attempt,
            dispatcher: stored.dispatcher,
            info: stored.info,
            ledger: stored.ledger,
            stop_asked: stored.stop_asked,
            spare: stored.spare,
            lost: stored.lost,
            resumable: stored.resumable,
            nothing_to_salvage: stored.nothing_to_salvage,
            resumption: stored.resumption,
            accepted_at: stored.accepted_at,
            dispatch,
            extra: stored.extra,
        })
    }
}

fn waiting(salvage: bool, renumber: bool) -> LaunchState {
    if salvage { LaunchState::Lost { renumber } } else { LaunchState::Queued { renumber } }
}

impl From<Record> for StoredRecord {
    fn from(record: Record) -> Self {
        // A reader that does not know of interruptions would end it as never recorded, or record over it.
        let format = if record.is_resuming() { RESUMING } else { FIRST };
        let state = record.state;
        // A reference is two texts: its JSON cannot fail.
        let task = state.task().and_then(|task| serde_json::to_string(task).ok());
        let asked = match &state {
            LaunchState::Queued { .. } | LaunchState::Interrupted | LaunchState::Lost { .. } => false,
            state => state.may_have_task(),
        };
        Self {
            format,
            egress_id: record.egress_id,
            phase: state.phase(),
            attempt: record.attempt,
            dispatcher: record.dispatcher,
            task,
            info: record.info,
            ledger: record.ledger,
            stop_asked: record.stop_asked,
            spare: record.spare,
            lost: record.lost,
            resumable: record.resumable,
            nothing_to_salvage: record.nothing_to_salvage,
            resumption: record.resumption,
            accepted_at: record.accepted_at,
            dispatch: Some(StoredDispatch {
                asked,
                fresh: state.needs_new_number(),
                unanswered: state == LaunchState::Unknown,
                dispatch: record.dispatch,
            }),
            extra: record.extra,
        }
    }
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
