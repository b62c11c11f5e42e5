//! The launch queue behind a lock, with a signal for the launch loop. Called by all tasks of a dispatcher.

use std::sync::{Arc, Mutex, MutexGuard};

use spillway_bus::Record;
use spillway_protocol::code::RpcError;
use spillway_protocol::ids::EgressId;
use tokio::sync::Notify;

use super::launch_queue::LaunchQueue;
use super::queued_launch::QueuedLaunch;
use crate::admission::{Admission, Bounds};
use crate::lock::locked;

/// The launch queue that the tasks of one dispatcher share.
#[derive(Debug)]
pub struct SharedQueue {
    queue: Mutex<LaunchQueue>,
    changed: Notify,
}

impl SharedQueue {
    /// An empty queue.
    pub fn new(bounds: Bounds) -> Self {
        Self { queue: Mutex::new(LaunchQueue::new(bounds)), changed: Notify::new() }
    }

    /// Not to be held across an `await`.
    pub fn lock(&self) -> MutexGuard<'_, LaunchQueue> {
        locked(&self.queue)
    }

    /// Puts a record's launch into the queue, unless it waits there or is being launched: one that was just accepted,
    /// taken over from another dispatcher, or has to be launched again. `now_ms`: as for [`QueuedLaunch::of`].
    pub fn enqueue(&self, record: &Record, now_ms: i64) {
        if self.lock().enqueue(QueuedLaunch::of(record, now_ms)) {
            self.notify();
        }
    }

    /// As [`LaunchQueue::admit`]; what is reserved is released with the answer at the latest.
    ///
    /// # Errors
    /// As [`LaunchQueue::admit`].
    pub fn admit(
        self: &Arc<Self>,
        egress_id: &EgressId,
        tenant: &str,
        weight: f64,
        max_waiting: Option<usize>,
    ) -> Result<(Admission, Reservation), RpcError> {
        let admission = self.lock().admit(egress_id, tenant, weight, max_waiting)?;
        Ok((admission, Reservation { queue: Arc::clone(self), egress_id: egress_id.clone() }))
    }

    /// Frees the slot and the position of an egress.
    pub fn leave(&self, egress_id: &EgressId) {
        self.lock().remove(egress_id);
        self.notify();
    }

    /// Something may be launched now that could not before.
    pub fn notify(&self) {
        self.changed.notify_one();
    }

    /// Waits for that. Cancel-safe.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }
}

/// What an admitted request will take, reserved until it is enqueued or this is dropped.
#[derive(Debug)]
pub struct Reservation {
    queue: Arc<SharedQueue>,
    egress_id: EgressId,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.queue.lock().release(&self.egress_id);
    }
}
