//! The actor that launches: its state, and what other actors ask of it. The loop and the path of a launch are in `launch`
//! itself.

use std::sync::Arc;

use spillway_bus::{Record, Tasks, Tickets};
use spillway_protocol::Secret;

use crate::final_state::Finisher;
use crate::installation::InstallationId;
use crate::instance::Instance;
use crate::overheads::UsualOverheads;
use crate::queue::SharedQueue;
use crate::records::Records;
use crate::targets::Targets;

/// The actor that owns the launch queue and the targets: starts a task for each launch whose turn it is.
pub struct TaskLauncher {
    /// Its tasks are those of this dispatcher.
    pub instance: Arc<Instance>,
    /// Where each call is announced before it is made.
    pub records: Records,
    /// Copied for new numbers.
    pub tickets: Tickets,
    /// Slots, caps and pace of all dispatchers.
    pub tasks: Tasks,
    /// Ends what cannot be launched.
    pub finisher: Arc<Finisher>,
    /// Launches that wait, and slots.
    pub queue: Arc<SharedQueue>,
    /// Where recordings may run.
    pub targets: Arc<Targets>,
    /// One line of JSON for the runner's standard input: ticket key, Redis, logging.
    pub handover: Secret,
    /// Part of every launch order.
    pub installation: InstallationId,
    /// For the expected cost of an hour.
    pub overheads: UsualOverheads,
}

impl TaskLauncher {
    /// Puts a record's launch into the queue, unless it waits there or is being launched.
    pub fn enqueue(&self, record: &Record) {
        self.queue.enqueue(record, self.instance.clock.unix_ms());
    }

    /// Takes a record's launch out of the queue and puts it in anew: its state there is old.
    pub fn enqueue_anew(&self, record: &Record) {
        self.queue.leave(&record.egress_id);
        self.enqueue(record);
    }
}
