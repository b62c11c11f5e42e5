//! A store that fails: since when, why, until when nothing is sent, and when that has been long enough. What an upload does
//! then is its own business (`task::outage`, `objects`). Asks no store.

use std::time::Duration;

use spillway_process::retry::RetrySchedule;
use spillway_storage::StorageError;
use tokio::time::Instant;

use super::settings::UploadSettings;

/// A refusal counts when it came so often in a row: new keys and policies take a moment to reach every server.
const REFUSALS: u32 = 2;

/// What one upload knows of the failures of its store.
#[derive(Debug)]
pub(in crate::upload) struct StoreOutage {
    waits: RetrySchedule,
    /// Errors in a row that are not transient.
    refusals: u32,
    /// Nothing of the spool is sent before then.
    pub until: Option<Instant>,
    /// The first error; `None`: the store works.
    pub since: Option<Instant>,
    /// The newest error, for the user.
    pub message: String,
}

impl StoreOutage {
    /// Of a store that works.
    pub fn new(settings: &UploadSettings) -> Self {
        Self { waits: settings.waits(), refusals: 0, until: None, since: None, message: String::new() }
    }

    /// A request failed.
    pub fn note(&mut self, error: &StorageError) {
        self.refusals = if error.is_transient() { 0 } else { self.refusals + 1 };
        self.since.get_or_insert_with(Instant::now);
        self.message = error.to_string();
        self.wait();
    }

    /// No request for a while, each time for longer.
    pub fn wait(&mut self) {
        self.until = Some(Instant::now() + self.waits.wait());
    }

    /// The store refuses; its errors do not pass by themselves.
    pub fn is_refused(&self) -> bool {
        self.refusals >= REFUSALS
    }

    /// It has failed for too long. While no other store can take over, there is no limit before the end of the recording.
    pub fn is_over(&self, can_change: bool, closed_at: Option<Instant>, settings: &UploadSettings) -> bool {
        let Some(since) = self.since else { return false };
        let limit = match (can_change, closed_at) {
            (true, _) => since + Duration::from_millis(settings.backup_after_ms),
            (false, Some(closed_at)) => since.max(closed_at) + Duration::from_millis(settings.max_outage_ms),
            (false, None) => return false,
        };
        Instant::now() >= limit
    }
}
