//! Input of the ledger: what happened to an egress, how it ended, and why. Plain values; dispatcher and runner make them
//! and pass them to [`EgressLedger::on`](super::EgressLedger::on).

use serde::{Deserialize, Serialize};

use crate::code::Code;

/// Something that happened to an egress. Times are Unix nanoseconds, `index` counts the files of the egress from 0.
#[derive(Clone, Debug, PartialEq)]
pub enum Fact {
    /// The recorder waits for something before it can start; the text names it, e.g. `waiting for track TR_x`.
    Waiting(String),
    /// The recorder is in the room.
    Joined {
        /// Sid of the room as livekit-server reports it.
        room_id: String,
        /// Name of the room as livekit-server reports it.
        room_name: String,
    },
    /// A file is being written.
    FileOpened {
        /// Which file.
        index: usize,
        /// Storage path of the finished file, without the prefix of the installation.
        filename: String,
        /// Where the bytes are while they are written; empty where no other process can reach them.
        location: String,
    },
    /// The first media was recorded.
    Active {
        /// When that media was captured.
        started_at: i64,
    },
    /// The end has begun; only the first reason counts.
    Ending(EgressEndReason),
    /// A file is complete in its destination.
    FileStored {
        /// Which file.
        index: usize,
        /// Bytes.
        size: u64,
        /// When the first media of the file was captured.
        started_at: i64,
        /// When its last media was captured.
        ended_at: i64,
        /// Path or URL that a client opens.
        location: String,
    },
    /// A note for the user: a reconnect, a gap, a recording of poor quality.
    Noted(String),
    /// The manifest is in its destination.
    ManifestStored {
        /// Path or URL that a client opens.
        location: String,
    },
    /// The primary destination failed and the backup took over.
    BackupUsed,
    /// The egress is over.
    Over(Outcome),
}

/// How an egress ended; selects the terminal status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Everything recorded is stored. Becomes LIMIT_REACHED when the end was caused by a limit, and ABORTED when nothing
    /// was recorded.
    Complete,
    /// FAILED.
    Failed {
        /// Its HTTP number goes into `EgressInfo.error_code`.
        code: Code,
        /// Goes into `EgressInfo.error`; an empty one becomes `failed`.
        message: String,
    },
    /// ABORTED: over before anything was recorded.
    Aborted {
        /// Goes into `EgressInfo.error`; an empty one becomes `aborted`.
        message: String,
    },
    /// LIMIT_REACHED, or ABORTED when nothing was recorded.
    LimitReached,
}

/// livekit/egress' text for an end before any media.
pub(super) const NOTHING_CAME: &str = "Start signal not received";

impl Outcome {
    /// Stopped after the recorder was ready and before any media arrived.
    pub fn nothing_came() -> Self {
        Self::Aborted { message: NOTHING_CAME.to_owned() }
    }

    /// Stopped before a recorder was running. livekit/egress' text.
    pub fn stopped_before_start() -> Self {
        Self::Aborted { message: "Stop called before pipeline could start".to_owned() }
    }
}

/// Why an egress ended. Stored with the ledger as JSON, so a variant is never renamed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EgressEndReason {
    /// A StopEgress call.
    StopAsked,
    /// The recording process was asked to terminate by its host.
    Killed,
    /// The room, participant or track is gone.
    SourceClosed,
    /// Longest duration or largest file reached.
    Limit,
    /// Every stream output has failed or was removed.
    StreamsStopped,
    /// The machine could not keep up.
    CpuExhausted,
    /// An error.
    Failure,
}

impl EgressEndReason {
    /// Text after `End reason: ` in `EgressInfo.details`. livekit/egress' own; clients match on it.
    pub fn message(self) -> &'static str {
        match self {
            Self::StopAsked => "StopEgress API",
            Self::Killed => "Process killed",
            Self::SourceClosed => "Source closed",
            Self::Limit => "Session limit reached",
            Self::StreamsStopped => "All streams stopped",
            Self::CpuExhausted => "CPU exhausted",
            Self::Failure => "Failure",
        }
    }
}
