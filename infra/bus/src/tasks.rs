//! Which tasks are open, counted by tenant and target, and what the closed ones cost; shared by all dispatchers. Caps
//! and the pace of launches are enforced here, in one atomic step in Redis, so that they hold among any number of
//! dispatchers and whichever of them dies. Runs in the caller's task.

use std::time::Duration;

use spillway_model::{CloseTask, LedgerLine, OpenTask, OpenTaskEntry, Pace, PaceState, SlotResult, TaskKey};

use crate::bus::Bus;
use crate::error::BusError;
use crate::task_ledger::one_line;

/// Open tasks and the ledger of this installation.
#[derive(Clone)]
pub struct Tasks {
    bus: Bus,
}

impl Tasks {
    /// On this bus.
    pub fn new(bus: &Bus) -> Self {
        Self { bus: bus.clone() }
    }

    /// Opens a task if caps and pace allow. A task that is open already is granted, whatever the caps are by now; so
    /// is one that was closed with a line, and that one stays closed.
    ///
    /// # Errors
    /// Redis was not reached or did not answer: the task may be open, and a retry is right.
    pub async fn open(&self, open_task: OpenTask<'_>) -> Result<SlotResult, BusError> {
        self.bus.backend.open_task(&open_task).await
    }

    /// The platform throttled: no launch at the target for `retry_after`, and then at half the pace.
    ///
    /// # Errors
    /// Redis was not reached or did not answer; the pace may have been halved, and a retry may halve it again.
    pub async fn slow_down(&self, target: &str, pace: Pace, retry_after: Duration) -> Result<(), BusError> {
        self.bus.backend.adjust_pace(target, pace, Some(retry_after)).await
    }

    /// A launch went well: a little faster again.
    ///
    /// # Errors
    /// Redis was not reached or did not answer; the next launch that goes well is retry enough.
    pub async fn speed_up(&self, target: &str, pace: Pace) -> Result<(), BusError> {
        self.bus.backend.adjust_pace(target, pace, None).await
    }

    /// The pace of each target now, in their order. `None`: nothing was launched there with a pace.
    ///
    /// # Errors
    /// Redis was not reached or did not answer; a retry is right.
    pub async fn pace_states(&self, targets: &[String]) -> Result<Vec<Option<PaceState>>, BusError> {
        self.bus.backend.pace_states(targets).await
    }

    /// Closes a task that never ran. False: it was not open.
    ///
    /// # Errors
    /// Redis was not reached or did not answer; a retry is right.
    pub async fn drop(&self, task: &TaskKey) -> Result<bool, BusError> {
        self.bus.backend.close_task(&CloseTask { task, line: None }).await
    }

    /// Closes a task that is gone and writes what it cost. Of several callers one gets true, and its line counts.
    ///
    /// # Errors
    /// Redis was not reached or did not answer: a retry is right, and gets false if the first call was done.
    pub async fn close(&self, task: &TaskKey, line: LedgerLine<'_>) -> Result<bool, BusError> {
        self.bus.backend.close_task(&CloseTask { task, line: Some(line) }).await
    }

    /// Every open task, in no order. Entries this version cannot read are left out.
    ///
    /// # Errors
    /// Redis was not reached or did not answer; a retry is right.
    pub async fn list(&self) -> Result<Vec<OpenTaskEntry>, BusError> {
        let found = self.bus.backend.open_tasks().await?;
        Ok(found.iter().filter_map(|(task, stored)| OpenTaskEntry::from_stored(task, stored)).collect())
    }

    /// What the tenant's closed tasks cost in `month` (`2026-11`).
    ///
    /// # Errors
    /// Redis was not reached or did not answer; a retry is right.
    pub async fn spent(&self, month: &str, tenant: &str) -> Result<f64, BusError> {
        self.bus.backend.spent(&format!("{month} {}", one_line(tenant))).await
    }

    /// At most `max` lines of the ledger between `since_ms` and `until_ms` (Unix milliseconds), the oldest first,
    /// each with its id. `after`: the id of the last line of the call before, to read on.
    ///
    /// # Errors
    /// Redis was not reached or did not answer; a retry is right.
    pub async fn lines(
        &self,
        since_ms: i64,
        until_ms: i64,
        after: Option<&str>,
        max: usize,
    ) -> Result<Vec<(String, String)>, BusError> {
        let from = after.map_or_else(|| since_ms.max(0).to_string(), |after| format!("({after}"));
        self.bus.backend.ledger_lines(&from, until_ms.max(0), max).await
    }

    /// As [`Tasks::lines`], the newest first. `before`: the id of the last line of the call before, to read on.
    ///
    /// # Errors
    /// As [`Tasks::lines`].
    pub async fn newest_lines(
        &self,
        since_ms: i64,
        until_ms: i64,
        before: Option<&str>,
        max: usize,
    ) -> Result<Vec<(String, String)>, BusError> {
        let until = before.map_or_else(|| until_ms.max(0).to_string(), |before| format!("({before}"));
        self.bus.backend.newest_lines(&until, since_ms.max(0), max).await
    }
}
