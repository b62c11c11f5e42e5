//! Open tasks, the pace of their launches, and the ledger of closed ones: the trait, and the numbers every
//! implementation shares. [`crate::Tasks`] is its only user.

use std::time::Duration;

use async_trait::async_trait;
use spillway_model::{CloseTask, OpenTask, Pace, PaceState, SlotResult};

use crate::error::BusError;

/// After the platform throttled the pace is halved, down to this share of the full pace.
pub(crate) const MIN_PACE_FACTOR: f64 = 1.0 / 16.0;
/// Each launch that goes well adds this share of the full pace.
pub(crate) const PACE_RECOVERY: f64 = 0.05;
/// How long a task with a ledger line is known as closed, so that a late opener does not open it again.
pub(crate) const CLOSED_REMEMBERED: Duration = Duration::from_secs(24 * 3600);
/// Lines the ledger keeps, about; what needs all of them reads them as they come.
pub(crate) const MAX_LINES: u64 = 100_000;

/// A tenant's name as it is stored: line breaks separate the fields of a stored task.
pub(crate) fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '_' } else { c }).collect()
}

/// Each method is one atomic step on the server, so that caps and pace hold among any number of dispatchers. It fails
/// when Redis is not reached or does not answer in time; the step may have been done, and repeating it is harmless.
#[async_trait]
pub(crate) trait TaskLedger: Send + Sync {
    /// Opens a task if caps and pace allow. One that is open, or closed with a line, is answered as granted at once.
    async fn open_task(&self, open_task: &OpenTask<'_>) -> Result<SlotResult, BusError>;

    /// After a throttle of the platform (`retry_after`) slower, after a launch that went well a little faster.
    async fn adjust_pace(&self, target: &str, pace: Pace, retry_after: Option<Duration>) -> Result<(), BusError>;

    /// The pace of each target, in their order; `None`: nothing was launched there with a pace.
    async fn pace_states(&self, targets: &[String]) -> Result<Vec<Option<PaceState>>, BusError>;

    /// Closes a task and writes its line, if it has one. False: it was not open.
    async fn close_task(&self, close_task: &CloseTask<'_>) -> Result<bool, BusError>;

    /// Open tasks: the task's text, and what [`spillway_model::OpenTaskEntry::from_stored`] reads.
    async fn open_tasks(&self) -> Result<Vec<(String, String)>, BusError>;

    /// Sum of a tenant's lines in a month; `field` is both, separated by a space.
    async fn spent(&self, field: &str) -> Result<f64, BusError>;

    /// Lines of the ledger with their ids, the oldest first. `from`: Unix milliseconds, or `(` and the id of the line
    /// before.
    async fn ledger_lines(&self, from: &str, until_ms: i64, max: usize) -> Result<Vec<(String, String)>, BusError>;

    /// The same, the newest first. `until`: Unix milliseconds, or `(` and the id of the line after.
    async fn newest_lines(&self, until: &str, since_ms: i64, max: usize) -> Result<Vec<(String, String)>, BusError>;
}
