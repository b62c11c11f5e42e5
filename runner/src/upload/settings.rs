//! Settings of uploads, as they travel in the ticket.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use spillway_process::retry::RetrySchedule;

use super::machine::Tuning;
use super::plan::PartSizes;

/// How recordings are uploaded; the defaults are those of the configuration reference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct UploadSettings {
    /// How old media may become before it is in the store: what the loss of the whole task may cost, plus a fragment and
    /// the time of one request. Milliseconds, as everywhere here.
    pub checkpoint_ms: u64,
    /// Sizes of the parts of an object.
    pub parts: PartSizes,
    /// Requests at once, of one file.
    pub at_once: usize,
    /// Bytes of one file in memory because they are being sent.
    pub bytes_at_once: u64,
    /// First wait between two attempts; it doubles from attempt to attempt.
    pub first_wait_ms: u64,
    /// Longest wait between two attempts.
    pub longest_wait_ms: u64,
    /// How long a store may fail after the recording has ended; while it goes on, as long as the spool has room.
    pub max_outage_ms: u64,
    /// How long the primary store may fail before the backup takes over, if there is one.
    pub backup_after_ms: u64,
    /// Where files lie while they are uploaded; `None`: in the system's folder for temporary files.
    pub spool_dir: Option<PathBuf>,
    /// Bytes of an egress that may wait there; also bounded by four fifths of what is free.
    pub spool_cap_bytes: u64,
    /// Storage is tried before the room is joined.
    pub write_check: bool,
    /// Timeout of that trial; after it the recording begins as if the store had answered.
    pub write_check_ms: u64,
}

impl Default for UploadSettings {
    fn default() -> Self {
        Self {
            checkpoint_ms: 10_000,
            parts: PartSizes::default(),
            at_once: 4,
            bytes_at_once: 48 << 20,
            first_wait_ms: 1000,
            longest_wait_ms: 30_000,
            max_outage_ms: 15 * 60_000,
            backup_after_ms: 60_000,
            spool_dir: None,
            spool_cap_bytes: 2 << 30,
            write_check: true,
            write_check_ms: 4000,
        }
    }
}

impl UploadSettings {
    pub(crate) fn tuning(&self) -> Tuning {
        Tuning {
            checkpoint: Duration::from_millis(self.checkpoint_ms),
            at_once: self.at_once.max(1),
            bytes_at_once: self.bytes_at_once,
        }
    }

    /// Waits between two attempts, for one request or one outage.
    pub(crate) fn waits(&self) -> RetrySchedule {
        RetrySchedule::new(Duration::from_millis(self.first_wait_ms), Duration::from_millis(self.longest_wait_ms))
    }

    /// The folder of all spool files on this machine.
    pub fn spool(&self) -> PathBuf {
        self.spool_dir.clone().unwrap_or_else(|| std::env::temp_dir().join("spillway"))
    }
}
