//! Input of the ledger: what happened to an egress, how it ended, and why. Plain values; dispatcher and runner make them
//! and pass them to [`EgressLedger::on`](super::EgressLedger::on).

use serde::{Deserialize, Serialize};

use crate::code::Code;
use crate::requested::RedactedUrl;

/// Something that happened to an egress. Times are Unix nanoseconds, `index` counts the results of its kind from 0.
/// A stream has an `id`: those of the request count from 0 in its order, later ones go on behind them.
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
    /// How much of a file is written: a total, not a difference. While it is recorded its size is this.
    FileProgress {
        /// Which file.
        index: usize,
        /// Bytes.
        bytes: u64,
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
    /// A file takes no more, and the egress goes on without it: unless it fails or is aborted anyway, it ends FAILED with
    /// this text. What was written is kept, and may be stored later.
    FileFailed {
        /// Which file.
        index: usize,
        /// Names the file and the reason.
        message: String,
    },
    /// The segments of an output are being written.
    SegmentsOpened {
        /// Which segment output.
        index: usize,
        /// Storage path of the playlist, without the prefix of the installation.
        playlist: String,
        /// The same of the live playlist, where one is written.
        live_playlist: Option<String>,
    },
    /// How much of a segment output is stored and listed in its playlist: totals, not differences.
    SegmentsProgress {
        /// Which segment output.
        index: usize,
        /// Segments.
        count: u64,
        /// Bytes of the segments, without playlists.
        bytes: u64,
        /// Sum of their lengths.
        duration_ns: u64,
    },
    /// A segment output is complete in its destination, and its playlists are closed. The last
    /// [`Fact::SegmentsProgress`] comes before it.
    SegmentsStored {
        /// Which segment output.
        index: usize,
        /// Path or URL of the playlist, as a client opens it.
        playlist_location: String,
        /// The same of the live playlist, where one was written.
        live_location: Option<String>,
        /// When the first media of the first segment was captured.
        started_at: i64,
        /// When the last media of the last segment was captured.
        ended_at: i64,
    },
    /// The images of an output are being made.
    ImagesOpened {
        /// Which image output.
        index: usize,
        /// The request's prefix after substitution of its variables; empty where the request has none.
        prefix: String,
    },
    /// How many images of an output are stored: a total, not a difference.
    ImagesProgress {
        /// Which image output.
        index: usize,
        /// Images.
        count: u64,
    },
    /// An image output is complete in its destination.
    ImagesStored {
        /// Which image output.
        index: usize,
        /// When the first image was captured.
        started_at: i64,
        /// When the last image was captured.
        ended_at: i64,
    },
    /// A stream was added while the egress runs ([`Fact::stream_added`] makes it from the URL). For a stream that is
    /// known: its URL is shown in this form from now on, e.g. after `mux://` was resolved.
    StreamAdded {
        /// Which stream.
        id: u32,
        /// As users see it.
        url: RedactedUrl,
    },
    /// The server of a stream takes media, for the first time or again after a retry.
    StreamConnected {
        /// Which stream.
        id: u32,
        /// Since when.
        at: i64,
    },
    /// The connection of a stream was lost, and it connects again.
    StreamRetried {
        /// Which stream.
        id: u32,
        /// When it was lost.
        at: i64,
        /// Why; without the URL of the stream.
        message: String,
    },
    /// A stream is over: removed, failed, or at the end of the egress. The first such fact of a stream counts.
    StreamEnded {
        /// Which stream.
        id: u32,
        /// When.
        at: i64,
        /// Why it failed, without its URL; `None`: it did not. A failure while the egress ends for another reason than a
        /// failure is none, because a server may close the connection before we do.
        failure: Option<String>,
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

impl Fact {
    /// [`Fact::StreamAdded`] from the URL with its key.
    pub fn stream_added(id: u32, url: &str) -> Self {
        Self::StreamAdded { id, url: RedactedUrl::of(url) }
    }
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
    /// Longest duration, largest file or most bytes of segments reached.
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
