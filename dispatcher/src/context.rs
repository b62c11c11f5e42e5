//! State that the tasks of one dispatcher share: handles of the bus, the launch queue, the targets, the configuration.
//! Made once at the start; every task of the dispatcher holds an `Arc` of it.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use spillway_bus::{
    Bus, BusError, ClaimToken, Heartbeats, Installation, IoClient, Leases, Record, Registry, TaskKey, Tasks, Tickets,
};
use spillway_cost::Overheads;
use spillway_process::{Clock, Shutdown, chain};
use spillway_protocol::Secret;
use spillway_protocol::ids::EgressId;
use tracing::{debug, warn};

use crate::admission::Bounds;
use crate::config::Config;
use crate::cut_off::CutOff;
use crate::lock::locked;
use crate::metrics::Metrics;
use crate::queue::SharedQueue;
use crate::targets::Targets;

/// Shared by all tasks of one dispatcher.
pub struct Context {
    /// Of this dispatcher among others; new at each start.
    pub name: EgressId,
    config: Mutex<Arc<Config>>,
    /// Redis' time.
    pub clock: Clock,
    /// For what has no handle below.
    pub bus: Bus,
    /// Records.
    pub registry: Registry,
    /// Encrypted tickets.
    pub tickets: Tickets,
    /// Of runners and of dispatchers.
    pub heartbeats: Heartbeats,
    /// livekit-server's IOInfo service.
    pub io: IoClient,
    /// Open tasks, caps, pacing, and the ledger.
    pub tasks: Tasks,
    /// For work that one dispatcher at a time does.
    pub leases: Leases,
    /// Where recordings may run.
    pub targets: Targets,
    /// Read by `/metrics`.
    pub metrics: Metrics,
    /// One line of JSON for the runner's standard input: ticket key, Redis, logging.
    pub handover: Secret,
    /// Stops and tracks the tasks.
    pub shutdown: Shutdown,
    /// Launches that wait, and slots.
    pub queue: SharedQueue,
    /// StartEgress calls granted to us and not answered yet.
    in_flight: Mutex<HashSet<EgressId>>,
    /// Whose final state is being delivered.
    delivering: Mutex<HashSet<EgressId>>,
    draining: AtomicBool,
    /// Launches that the records were at in the last sweep.
    live: Mutex<HashSet<TaskKey>>,
    /// Id of the installation as last read; part of every launch order.
    installation: Mutex<String>,
    overheads: Mutex<Overheads>,
    ledger_sink: Option<LedgerSink>,
    /// Every task of the context, and every answer that changes something, runs under it.
    cut_off: CutOff,
}

/// What [`Context::new`] takes over.
pub struct ContextParts {
    /// At the start; a reload replaces it.
    pub config: Config,
    /// Redis' time.
    pub clock: Clock,
    /// A live connection.
    pub bus: Bus,
    /// With the installation's ticket key.
    pub tickets: Tickets,
    /// With open launchers.
    pub targets: Targets,
    /// See [`Context::handover`].
    pub handover: Secret,
    /// Gets each line of the ledger.
    pub ledger_sink: Option<LedgerSink>,
}

/// Takes a line of the ledger, besides Redis: standard output in production.
pub type LedgerSink = Box<dyn Fn(&str) + Send + Sync>;

impl Context {
    /// Starts nothing yet.
    pub fn new(name: EgressId, parts: ContextParts) -> Self {
        Self {
            name,
            queue: SharedQueue::new(Bounds::of(&parts.config)),
            registry: Registry::new(&parts.bus),
            heartbeats: Heartbeats::new(&parts.bus),
            io: IoClient::new(&parts.bus),
            tasks: Tasks::new(&parts.bus),
            leases: Leases::new(&parts.bus),
            metrics: Metrics::default(),
            config: Mutex::new(Arc::new(parts.config)),
            clock: parts.clock,
            bus: parts.bus,
            tickets: parts.tickets,
            targets: parts.targets,
            handover: parts.handover,
            shutdown: Shutdown::new(),
            in_flight: Mutex::default(),
            delivering: Mutex::default(),
            draining: AtomicBool::new(false),
            live: Mutex::default(),
            installation: Mutex::default(),
            overheads: Mutex::default(),
            ledger_sink: parts.ledger_sink,
            cut_off: CutOff::default(),
        }
    }

    /// The current configuration; a reload may replace it at any time.
    pub fn config(&self) -> Arc<Config> {
        Arc::clone(&locked(&self.config))
    }

    /// After a reload.
    pub fn set_config(&self, config: Config) {
        *locked(&self.config) = Arc::new(config);
    }

    /// Starts a task that the shutdown waits for.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.shutdown.spawn(self.cut_off.clone().unless(task));
    }

    /// As [`Context::spawn`], but the shutdown does not wait for it.
    pub fn spawn_untracked(&self, task: impl Future<Output = ()> + Send + 'static) {
        tokio::spawn(self.cut_off.clone().unless(task));
    }

    /// Runs what an RPC or HTTP call waits for; never returns once a test has cut the dispatcher off.
    pub async fn answered<T>(&self, work: impl Future<Output = T>) -> T {
        match self.cut_off.clone().unless(work).await {
            Some(done) => done,
            None => std::future::pending().await,
        }
    }

    /// Stops everything at once without finishing anything.
    #[cfg(feature = "testing")]
    pub fn cut_off(&self) {
        self.drain();
        self.cut_off.cut();
        self.shutdown.trigger();
    }

    /// Unix milliseconds until which a launch that is enqueued now may wait.
    pub fn deadline_ms(&self) -> i64 {
        let wait = i64::try_from(self.config().queue_deadline.as_millis()).unwrap_or(i64::MAX);
        self.clock.unix_ms().saturating_add(wait)
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

    /// The record names this dispatcher.
    pub fn owns(&self, record: &Record) -> bool {
        record.dispatcher == self.name.as_str()
    }

    /// From now on no StartEgress is claimed and `/readyz` says so.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// After [`Context::drain`].
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// After each sweep.
    pub fn set_live(&self, live: HashSet<TaskKey>) {
        *locked(&self.live) = live;
    }

    /// A record was at this launch in the last sweep.
    pub fn is_live(&self, task: &TaskKey) -> bool {
        locked(&self.live).contains(task)
    }

    /// Reads the installation's id, and creates one where Redis has none: because it is new, or has lost everything.
    ///
    /// # Errors
    /// When Redis does not answer; a retry is right, the id read before stays.
    pub async fn learn_installation(&self) -> Result<(), BusError> {
        let id = Installation::new(&self.bus).get_or_make().await?;
        let before = std::mem::replace(&mut *locked(&self.installation), id.clone());
        if !before.is_empty() && before != id {
            warn!(
                before,
                id, "redis has lost the installation's id: tasks of the old one are only reported from now on"
            );
        }
        Ok(())
    }

    /// Empty before [`Context::learn_installation`].
    pub fn installation(&self) -> String {
        locked(&self.installation).clone()
    }

    /// Not to be held across an `await`.
    pub fn overheads(&self) -> MutexGuard<'_, Overheads> {
        locked(&self.overheads)
    }

    /// A line of the ledger, after it was stored.
    pub fn emit_ledger_line(&self, entry: &str) {
        if let Some(emit) = &self.ledger_sink {
            emit(entry);
        }
    }

    /// Marks a StartEgress as being answered; `None`: it already is.
    pub fn take_in_flight(self: &Arc<Self>, egress_id: &EgressId) -> Option<HeldId> {
        self.hold(egress_id, |context| &context.in_flight)
    }

    /// A StartEgress for it is being answered.
    pub fn is_in_flight(&self, egress_id: &EgressId) -> bool {
        locked(&self.in_flight).contains(egress_id)
    }

    /// Marks its final state as being delivered; `None`: it already is.
    pub fn take_for_delivery(self: &Arc<Self>, egress_id: &EgressId) -> Option<HeldId> {
        self.hold(egress_id, |context| &context.delivering)
    }

    fn hold(self: &Arc<Self>, egress_id: &EgressId, set: fn(&Context) -> &Mutex<HashSet<EgressId>>) -> Option<HeldId> {
        let is_new = locked(set(self)).insert(egress_id.clone());
        is_new.then(|| HeldId { context: Arc::clone(self), egress_id: egress_id.clone(), set })
    }

    /// No call is being answered, no launch waits or is in progress, no final state is being delivered.
    pub fn is_idle(&self) -> bool {
        locked(&self.in_flight).is_empty() && locked(&self.delivering).is_empty() && self.queue.lock().is_empty()
    }
}

/// An id in one of the dispatcher's sets, until it is dropped.
pub struct HeldId {
    context: Arc<Context>,
    egress_id: EgressId,
    set: fn(&Context) -> &Mutex<HashSet<EgressId>>,
}

impl Drop for HeldId {
    fn drop(&mut self) {
        locked((self.set)(&self.context)).remove(&self.egress_id);
    }
}
