//! The final state of an egress whose runner cannot report it: decided once, by compare-and-set in the record, then
//! delivered to livekit-server until it is acknowledged. Called by launch, control and reconcile; deliveries run as
//! tasks of their own. Never decides that an egress is to end.

use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use spillway_bus::lifecycle::{EndCondition, LaunchEvent, SeenLaunch};
use spillway_bus::{BusError, ClaimToken, IoClient, Record, Tickets, Updated};
use spillway_launchers::TaskLinks;
use spillway_process::{LocalRoot, chain};
use spillway_protocol::ids::EgressId;
use spillway_protocol::ledger::{Fact, Outcome};
use spillway_protocol::livekit::{EgressInfo, EgressStatus};
use tracing::{Instrument, debug, error, info, info_span, warn};

use crate::held::HeldIds;
use crate::instance::Instance;
use crate::queue::SharedQueue;
use crate::records::Records;
use crate::report::{self, FilesLeftBehind};
use crate::targets::Targets;

/// livekit-server itself keeps an ended egress for 24 h; until then a late stop is answered from the record.
const REMEMBERED: Duration = Duration::from_secs(24 * 3600);
/// For one delivery. The record stays until it succeeds; the next sweep, or another dispatcher, starts another.
const DELIVERY: Duration = Duration::from_secs(600);
/// A final state waits no longer than this for a disk to tell the size of a file.
const DISK_TIMEOUT: Duration = Duration::from_secs(1);
/// For livekit-server's answer about what it knows; its nodes answer from their Redis.
const KNOWN: Duration = Duration::from_secs(3);

/// Ends egresses, and tells livekit-server.
pub struct Finisher {
    /// Its tasks are those of this dispatcher.
    pub instance: Arc<Instance>,
    /// Where the end is decided.
    pub records: Records,
    /// Of launches that will not happen.
    pub tickets: Tickets,
    /// livekit-server's IOInfo service.
    pub io: IoClient,
    /// Whose slots and positions become free.
    pub queue: Arc<SharedQueue>,
    /// Where the tasks of ended egresses ran.
    pub targets: Arc<Targets>,
    /// Whose final state is being delivered.
    pub delivering: HeldIds,
}

impl Finisher {
    /// Takes over the end that livekit-server knows, where the record says that the egress goes on: Redis lost the last
    /// write, as a failover to a replica may. False: livekit-server knows of no end.
    ///
    /// # Errors
    /// When Redis does not answer; a retry is right.
    pub async fn as_livekit_knows_it(self: &Arc<Self>, record: &Record) -> Result<bool, BusError> {
        let id = &record.egress_id;
        let known = match self.io.get_egress(id, KNOWN).await {
            Ok(Some(known)) if is_over(&known) => known,
            Ok(_) => return Ok(false),
            Err(error) => {
                debug!(code = %error.code, %error, "livekit-server does not say what it knows");
                return Ok(false);
            }
        };
        let (by, seen, info) = (self.records.by(), SeenLaunch::of(record), known.encode_to_vec());
        let updated = self.records.apply(id, &LaunchEvent::EndKnown { by, seen, info }).await?;
        let Updated::Written(record) = updated else { return Ok(false) };
        info!(status = ?known.status(), "the record had lost its end, livekit-server knows it");
        self.queue.leave(id);
        self.instance.spawn(Arc::clone(self).take_away_tickets(record));
        self.records.registry.finish(id, REMEMBERED).await?;
        Ok(true)
    }

    /// Ends an egress without its runner, with what it left on this machine's disk, if `when` holds for the record as it
    /// is in Redis now. `outcome`: FAILED or ABORTED, from the message; COMPLETE instead where the runner had finished
    /// every file. False: `when` does not hold, or the egress is over already.
    ///
    /// # Errors
    /// When Redis does not answer; a retry is right. When the record cannot be read; it is left as it is.
    pub async fn end(
        self: &Arc<Self>,
        id: &EgressId,
        message: String,
        outcome: impl FnOnce(String) -> Outcome,
        when: EndCondition,
    ) -> Result<bool, BusError> {
        let Some(record) = self.records.registry.get(id).await? else { return Ok(false) };
        let message = match &record.resumption {
            _ if record.is_salvage() => format!("{}; its uploads could not be completed: {message}", record.lost),
            Some(resumption) if record.is_resuming() => {
                format!("{}; the recording could not go on: {message}", resumption.why)
            }
            _ => message,
        };
        let FilesLeftBehind { mut facts, finished } = self.left_behind(&record).await;
        let outcome = if finished { Outcome::Complete } else { outcome(message.clone()) };
        // Of a launch that was to follow a dead task: that one's.
        let task = record.task().or_else(|| record.dispatch.earlier.values().next_back());
        let TaskLinks { task_url, log_url } = task.map(|task| self.targets.links(task)).unwrap_or_default();
        if let (Some(url), true) = (&task_url, self.instance.config().links_in_details) {
            facts.push(Fact::Noted(format!("task: {url}")));
        }
        facts.push(Fact::Over(outcome));
        let ended = self.end_with(id, facts, when).await?.is_some();
        if ended {
            info!(egress_id = %id, reason = message, finished, task_url, log_url, "egress ended by the dispatcher");
        }
        Ok(ended)
    }

    /// Files and playlists of a dead runner of this machine. With Redis unreachable it may have finished them without
    /// being able to report it.
    async fn left_behind(&self, record: &Record) -> FilesLeftBehind {
        if !self.targets.is_here(record) {
            return FilesLeftBehind::default();
        }
        let Some(ledger) = report::ledger_of(record) else { return FilesLeftBehind::default() };
        // A runner of this machine has our working directory.
        let root = LocalRoot::of_setting(self.instance.config().local_root.as_deref());
        let Ok(root) = root else { return FilesLeftBehind::default() };
        let clock = self.instance.clock.clone();
        let scan = tokio::task::spawn_blocking(move || report::left_behind(&ledger, &root, &clock));
        tokio::time::timeout(DISK_TIMEOUT, scan).await.ok().and_then(Result::ok).unwrap_or_default()
    }

    /// Ends the egress with these facts, if `when` holds for the record as it is in Redis now, and starts the delivery.
    /// `None`: it is over already, or `when` does not hold.
    ///
    /// # Errors
    /// As [`Finisher::end`].
    pub async fn end_with(
        self: &Arc<Self>,
        id: &EgressId,
        facts: Vec<Fact>,
        when: EndCondition,
    ) -> Result<Option<Box<Record>>, BusError> {
        let event = LaunchEvent::Ended { by: self.records.by(), when, facts, at_ns: self.instance.clock.unix_ns() };
        let updated = self.records.apply(id, &event).await?;
        let Updated::Written(record) = updated else { return Ok(None) };
        self.queue.leave(id);
        self.instance.spawn(Arc::clone(self).take_away_tickets(record.clone()));
        self.deliver(&record);
        Ok(Some(record))
    }

    /// There will be no further launch.
    async fn take_away_tickets(self: Arc<Self>, record: Box<Record>) {
        let goes_on = record.is_salvage() || record.is_resumption();
        let launch = if goes_on { record.dispatch.claim.as_str() } else { "" };
        self.withdraw_tickets(&record.egress_id, &[&record.spare, launch]).await;
    }

    /// Takes back tickets of an egress that will not be launched with them; an empty claim is none. If this fails the
    /// tickets, which are encrypted, expire.
    pub async fn withdraw_tickets(&self, egress_id: &EgressId, claims: &[&str]) {
        for claim in claims.iter().filter(|claim| !claim.is_empty()) {
            if let Err(error) = self.tickets.withdraw(egress_id, &ClaimToken::from_text(claim)).await {
                debug!(%egress_id, error = %chain(&error), "ticket not withdrawn; it expires");
            }
        }
    }

    /// Delivers the record's EgressInfo to livekit-server in the background; one delivery per egress at a time.
    pub fn deliver(self: &Arc<Self>, record: &Record) {
        let id = record.egress_id.clone();
        let Some(held) = self.delivering.take(&id) else { return };
        let info = match report::info_of(record) {
            Ok(info) => info,
            Err(error) => return error!(egress_id = %id, %error, "record holds no EgressInfo, nothing to deliver"),
        };
        let span = info_span!("egress", egress_id = %id);
        let finisher = Arc::clone(self);
        let delivery = async move {
            let _held = held;
            // The dispatcher that accepted it may have died before livekit-server knew; for a known id this does
            // nothing.
            if let Err(error) = finisher.io.ensure_egress(&info, DELIVERY).await {
                return warn!(code = %error.code, %error, "last state not delivered yet");
            }
            match finisher.io.update_egress(&info, DELIVERY).await {
                Ok(()) => info!(status = ?info.status(), "last state delivered"),
                Err(error) => return warn!(code = %error.code, %error, "last state not delivered yet"),
            }
            if let Err(error) = finisher.records.registry.finish(&id, REMEMBERED).await {
                warn!(error = %chain(&error), "record not finished; its last state may be delivered twice");
            }
        };
        // Untracked: the shutdown does not wait ten minutes for livekit-server, and the record tells the next
        // dispatcher.
        self.instance.spawn_untracked(delivery.instrument(span));
    }
}

fn is_over(info: &EgressInfo) -> bool {
    !matches!(info.status(), EgressStatus::EgressStarting | EgressStatus::EgressActive | EgressStatus::EgressEnding)
}
