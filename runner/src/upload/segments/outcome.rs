//! How far the upload of an HLS output is, what became of it, and what its task is asked. Values between handle and task.

use std::path::PathBuf;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::machine::SpooledSegment;
use super::sequencer::SegmentTotals;

/// How far an HLS output is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SegmentsStatus {
    /// Of all that is listed.
    pub totals: SegmentTotals,
    /// Bytes in the spool.
    pub spooled_bytes: u64,
    /// The store's error while it fails; else empty.
    pub error: String,
}

/// What an HLS output came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SegmentsResult {
    /// Of all that is listed.
    pub totals: SegmentTotals,
    /// Begin of the first listed segment and end of the last, Unix nanoseconds; 0 without one.
    pub started_at: i64,
    /// See `started_at`.
    pub ended_at: i64,
    /// Where the playlist is.
    pub playlist_location: Option<String>,
    /// Where the live playlist is.
    pub live_location: Option<String>,
    /// Name and location of each listed segment, for the manifest.
    pub segments: Vec<(String, String)>,
    /// Something is in the backup store.
    pub used_backup: bool,
    /// For `details`: segments that are lost, and why.
    pub notes: Vec<String>,
    /// The playlists are stored with their end.
    pub ended: bool,
    /// Why the output is not stored as it should be, for the user.
    pub failure: Option<String>,
    /// The folder of what is not stored then.
    pub spooled: Option<PathBuf>,
    /// A later attempt of this egress has taken the output over and reports it.
    pub gone: bool,
}

/// What the handle of the upload asks of its task.
#[derive(Debug)]
pub(super) enum SegmentsCommand {
    Opened {
        n: u32,
        at_ns: u64,
    },
    Wrote {
        n: u32,
        bytes: u64,
    },
    Closed(SpooledSegment),
    Lost(u32),
    Interrupted {
        next_n: u32,
    },
    /// Nothing writes any more: answered when everything whole is stored.
    Rest(oneshot::Sender<()>),
    Finish(oneshot::Sender<SegmentsResult>),
    PutBeside {
        name: String,
        content: Bytes,
        done: oneshot::Sender<Result<String, String>>,
    },
    Drop(oneshot::Sender<()>),
}
