//! One launch in the queue: what its record says, and how far it is. Pure.

use std::sync::Arc;
use std::time::Duration;

use spillway_bus::{Dispatch, Record};
use spillway_launchers::RunMode;
use spillway_protocol::ids::EgressId;
use tokio::time::Instant;

/// A launch that waits.
#[derive(Clone, Debug)]
pub struct QueuedLaunch {
    /// Of the egress.
    pub egress_id: EgressId,
    /// Of the record; the launch itself may get the next number.
    pub attempt: u32,
    /// Records, goes on with the recording of a task that is gone, or completes its uploads.
    pub run_mode: RunMode,
    /// Cores it occupies.
    pub weight: f64,
    /// Whose share it counts against.
    pub tenant: Arc<str>,
    /// As the record has it.
    pub dispatch: Dispatch,
    /// A launch of this number was requested and its outcome is unknown or positive: no other target is asked before it
    /// is known.
    pub asked: bool,
    /// The next launch needs a new number, because a platform may still know this one.
    pub fresh: bool,
    /// For the wait metric.
    pub enqueued_at: Instant,
    /// A launch that still waits then is given up.
    pub deadline: Instant,
    /// This launch is skipped until then.
    pub not_before: Option<Instant>,
    /// Why it waits, for the error of a launch that is given up; empty: no slot was free.
    pub message: String,
}

impl QueuedLaunch {
    /// From what a record says about its launch. `now_ms`: Unix milliseconds, the clock of the record's deadline.
    pub fn of(record: &Record, now_ms: i64) -> Self {
        let dispatch = record.dispatch.clone();
        let left_ms = u64::try_from(dispatch.deadline_ms.saturating_sub(now_ms)).unwrap_or(0);
        let now = Instant::now();
        Self {
            egress_id: record.egress_id.clone(),
            attempt: record.attempt,
            run_mode: match record {
                record if record.is_salvage() => RunMode::Salvage,
                record if record.is_resumption() => RunMode::Resume,
                _ => RunMode::Record,
            },
            weight: dispatch.weight,
            tenant: dispatch.tenant.as_str().into(),
            dispatch,
            asked: record.state.is_asked(),
            fresh: record.state.needs_new_number(),
            enqueued_at: now,
            deadline: now + Duration::from_millis(left_ms),
            not_before: None,
            message: String::new(),
        }
    }

    /// The next launch needs a number of its own: a platform may still know the previous one, and so may another
    /// dispatcher.
    pub fn is_fresh_at(&self, target: &str) -> bool {
        self.fresh || (!self.dispatch.target.is_empty() && self.dispatch.target != target)
    }

    /// The attempt number that its next launch at `target` has.
    pub fn next_attempt(&self, target: &str) -> u32 {
        self.attempt + u32::from(self.is_fresh_at(target))
    }

    /// A task before it has left something: the launch waits for no slot and goes before new recordings.
    pub fn is_urgent(&self) -> bool {
        match self.run_mode {
            RunMode::Resume | RunMode::Salvage => true,
            RunMode::Record | RunMode::Probe => false,
        }
    }

    /// Time of the last call, where its answer was a certain no.
    pub fn refused_ms(&self) -> Option<i64> {
        Some(self.dispatch.launched_ms).filter(|launched_ms| !self.asked && *launched_ms > 0)
    }

    /// The tenant's weight; 1 in records of an older version.
    pub fn weight_of_tenant(&self) -> f64 {
        if self.dispatch.share > 0.0 { self.dispatch.share } else { 1.0 }
    }
}
