//! The actor that launches: its state, and what other actors ask of it. The loop and the path of a launch are in `launch`
//! itself.

use std::sync::Arc;

use spillway_bus::lifecycle::{self, LaunchEvent, SalvageOrder};
use spillway_bus::{BusError, ClaimToken, Record, Tasks, Tickets, Updated};
use spillway_launchers::RunMode;
use spillway_process::chain;
use spillway_protocol::Secret;
use tracing::{error, info};

use crate::config::settings::SALVAGE_TIMEOUT;
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

    /// A task that died with its disk leaves incomplete uploads. A salvage run, a task of the same image, completes
    /// them: the dispatcher itself has no access to users' stores. It has the next attempt number, so that a runner
    /// which was only cut off finds itself replaced; if it dies too, another one follows. False: there is nothing to
    /// salvage, or the record has changed since it was `seen`.
    ///
    /// # Errors
    /// When Redis does not answer; a retry is right. When the record cannot be read; it is left alone.
    pub async fn salvage(&self, seen: &Record, message: &str) -> Result<bool, BusError> {
        if !lifecycle::can_be_salvaged(seen) {
            return Ok(false);
        }
        let (id, attempt) = (&seen.egress_id, seen.attempt + 1);
        let spare = ClaimToken::from_text(&seen.spare);
        let ttl = self.instance.config().ticket_ttl(RunMode::Salvage);
        let claim = match self.tickets.copy(id, &spare, attempt, ttl).await {
            Ok(Some(claim)) => claim,
            // The spare ticket is gone only after it has expired.
            Ok(None) => return Ok(false),
            Err(error @ BusError::Ticket { .. }) => {
                error!(egress_id = %id, error = %chain(&error), "its spare ticket is of another key; nothing is salvaged");
                return Ok(false);
            }
            Err(error) => return Err(error),
        };
        let order = SalvageOrder {
            by: self.records.by(),
            attempt: seen.attempt,
            spare: seen.spare.clone(),
            claim: claim.reveal().to_owned(),
            deadline_ms: self.instance.clock.unix_ms().saturating_add(SALVAGE_TIMEOUT.as_millis() as i64),
            message: message.to_owned(),
        };
        let Updated::Written(record) = self.records.apply(id, &LaunchEvent::TaskLost(order)).await? else {
            self.tickets.withdraw(id, &claim).await?;
            return Ok(false);
        };
        info!(reason = message, attempt, "recording task lost; its uploads are completed by another");
        self.enqueue_anew(&record);
        Ok(true)
    }
}
