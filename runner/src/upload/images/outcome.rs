//! How far the upload of an image output is, what became of it, and what its task is asked. Values between handle and task.

use std::path::PathBuf;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::saved::{ImageTotals, SpooledImage};

/// How far an image output is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImagesStatus {
    /// Sums.
    pub totals: ImageTotals,
    /// Bytes in the spool.
    pub spooled_bytes: u64,
    /// The store's error while it fails; else empty.
    pub error: String,
}

/// What an image output came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImagesResult {
    /// Sums.
    pub totals: ImageTotals,
    /// When the first stored image was captured and when the last, Unix nanoseconds; 0 without one.
    pub started_at: i64,
    /// See `started_at`.
    pub ended_at: i64,
    /// Name, location and time of capture (Unix nanoseconds) of each stored object, for the manifest.
    pub images: Vec<(String, String, i64)>,
    /// Something is in the backup store.
    pub used_backup: bool,
    /// For `details`: images that are lost, and why.
    pub notes: Vec<String>,
    /// Why the images are not stored as they should be, for the user.
    pub failure: Option<String>,
    /// The folder of what is not stored then.
    pub spooled: Option<PathBuf>,
    /// A later attempt of this egress has taken the output over and reports it.
    pub gone: bool,
}

/// What the handle of the upload asks of its task.
#[derive(Debug)]
pub(super) enum ImagesCommand {
    Captured(SpooledImage),
    Interrupted {
        next_n: u32,
    },
    /// Nothing writes any more: answered when everything is stored.
    Rest(oneshot::Sender<()>),
    Finish(oneshot::Sender<ImagesResult>),
    PutBeside {
        name: String,
        content: Bytes,
        done: oneshot::Sender<Result<String, String>>,
    },
    Drop(oneshot::Sender<()>),
}
