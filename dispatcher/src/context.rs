//! What all parts of the dispatcher share.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use serde::{Deserialize, Serialize};
use spillway_bus::{
    Bus, BusError, Heartbeats, Installation, IoClient, Leases, Record, Registry, TaskKey, Tasks, Tickets,
};
use spillway_cost::{Load, Shape};
use spillway_launchers::TaskRef;
use spillway_process::{Clock, Shutdown};
use spillway_protocol::Secret;
use spillway_protocol::ids::EgressId;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::billing::overhead::Overheads;
use crate::config::Config;
use crate::metrics::Metrics;
use crate::queue::LaunchQueue;
use crate::targets::Targets;

pub struct Context {
    /// This dispatcher among others; new at each start.
    pub name: EgressId,
    config: RwLock<Arc<Config>>,
    pub clock: Clock,
    pub bus: Bus,
    pub registry: Registry,
    pub tickets: Tickets,
    pub heartbeats: Heartbeats,
    pub io: IoClient,
    pub tasks: Tasks,
    pub leases: Leases,
    pub targets: Targets,
    pub metrics: Metrics,
    /// One JSON object on a line for the runner's standard input.
    pub handover: Secret,
    pub shutdown: Shutdown,
    queue: Mutex<LaunchQueue>,
    /// The line has moved: somebody came, left or was put back.
    pub queue_changed: Notify,
    /// Granted to us and not answered yet.
    in_flight: Mutex<HashSet<EgressId>>,
    /// Whose last word is on its way.
    delivering: Mutex<HashSet<EgressId>>,
    draining: AtomicBool,
    /// Launches that records stood at when they were last all looked at.
    live: RwLock<Arc<HashSet<TaskKey>>>,
    /// The id of the installation, as it was last read; stands in every order.
    installation: RwLock<String>,
    /// What tasks are billed beside their recordings.
    overheads: Mutex<Overheads>,
    /// Where lines of the ledger are said beside Redis.
    ledger_sink: Option<LedgerSink>,
    /// The process is to be thought gone: nothing more is done or said. Only tests do that to a dispatcher.
    abandoned: CancellationToken,
}

/// The dispatcher's own facts in a record, under the name `dispatch`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Dispatch {
    /// Opens the ticket for one who also has the ticket key; so that another dispatcher can launch in our place.
    pub claim: String,
    pub weight: f64,
    /// Unix milliseconds: launched by then, or given up.
    pub deadline_ms: i64,
    /// Unix milliseconds; 0 before.
    pub launched_ms: i64,
    pub room: String,
    pub kind: String,
    pub tenant: String,
    /// The tenant's turns in proportion to others.
    pub share: f64,
    pub load: Load,
    /// The machine at each target that can take it.
    pub shapes: BTreeMap<String, Shape>,
    /// The platform may end the task after so many seconds.
    pub max_duration_s: Option<u64>,
    /// Where the launch of this attempt was last asked for.
    pub target: String,
    /// That launch may have happened: nobody else is asked before it is known.
    pub asked: bool,
    /// The next launch needs a new attempt number.
    pub fresh: bool,
    /// Targets that surely did not launch it; the others go first.
    pub tried: BTreeSet<String>,
    /// Tasks that were launched and never recorded anything.
    pub lost_starts: u32,
    /// Tasks that were to save what others had recorded.
    pub salvages: u32,
    /// Tasks of earlier attempts, for the bill.
    pub earlier: BTreeMap<u32, TaskRef>,
}

const DISPATCH: &str = "dispatch";

impl Dispatch {
    pub fn of(record: &Record) -> Self {
        record.extra.get(DISPATCH).and_then(|value| serde_json::from_value(value.clone()).ok()).unwrap_or_default()
    }

    pub fn write(&self, record: &mut Record) {
        if let Ok(value) = serde_json::to_value(self) {
            record.extra.insert(DISPATCH.to_owned(), value);
        }
    }
}

/// The task a record names, if it names one.
pub fn task_of(record: &Record) -> Option<TaskRef> {
    record.task.as_deref().and_then(|text| serde_json::from_str(text).ok())
}

/// The launch a record stands at.
pub fn key_of(record: &Record) -> TaskKey {
    TaskKey { egress_id: record.egress_id.clone(), attempt: record.attempt }
}

pub struct ContextParts {
    pub config: Config,
    pub clock: Clock,
    pub bus: Bus,
    pub tickets: Tickets,
    pub targets: Targets,
    pub handover: Secret,
    pub queue: LaunchQueue,
    pub ledger_sink: Option<LedgerSink>,
}

pub type LedgerSink = Box<dyn Fn(&str) + Send + Sync>;

impl Context {
    pub fn new(name: EgressId, parts: ContextParts) -> Self {
        Self {
            name,
            registry: Registry::new(&parts.bus),
            heartbeats: Heartbeats::new(&parts.bus),
            io: IoClient::new(&parts.bus),
            tasks: Tasks::new(&parts.bus),
            leases: Leases::new(&parts.bus),
            metrics: Metrics::default(),
            config: RwLock::new(Arc::new(parts.config)),
            clock: parts.clock,
            bus: parts.bus,
            tickets: parts.tickets,
            targets: parts.targets,
            handover: parts.handover,
            shutdown: Shutdown::new(),
            queue: Mutex::new(parts.queue),
            queue_changed: Notify::new(),
            in_flight: Mutex::default(),
            delivering: Mutex::default(),
            draining: AtomicBool::new(false),
            live: RwLock::default(),
            installation: RwLock::default(),
            overheads: Mutex::default(),
            ledger_sink: parts.ledger_sink,
            abandoned: CancellationToken::new(),
        }
    }

    /// What holds now; it may change while we run.
    pub fn config(&self) -> Arc<Config> {
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn set_config(&self, config: Config) {
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
    }

    /// A task of this dispatcher; leaving waits for it.
    pub fn spawn(self: &Arc<Self>, task: impl Future<Output = ()> + Send + 'static) {
        let abandoned = self.abandoned.clone();
        self.shutdown.spawn(async move {
            abandoned.run_until_cancelled(task).await;
        });
    }

    /// As [`Context::spawn`], but leaving does not wait.
    pub fn spawn_untracked(self: &Arc<Self>, task: impl Future<Output = ()> + Send + 'static) {
        let abandoned = self.abandoned.clone();
        tokio::spawn(async move {
            abandoned.run_until_cancelled(task).await;
        });
    }

    /// What a call in hand waits for; never, once the dispatcher is abandoned.
    pub async fn unless_abandoned<T>(&self, work: impl Future<Output = T>) -> T {
        match self.abandoned.run_until_cancelled(work).await {
            Some(done) => done,
            None => std::future::pending().await,
        }
    }

    pub fn abandon(&self) {
        self.drain();
        self.abandoned.cancel();
        self.shutdown.trigger();
    }

    /// Unix milliseconds until which one who joins the line now may wait in it.
    pub fn deadline_ms(&self) -> i64 {
        let wait = i64::try_from(self.config().queue_deadline.as_millis()).unwrap_or(i64::MAX);
        self.clock.unix_ms().saturating_add(wait)
    }

    pub fn queue(&self) -> MutexGuard<'_, LaunchQueue> {
        locked(&self.queue)
    }

    /// Its place is free for the next.
    pub fn leave_queue(&self, egress_id: &EgressId) {
        self.queue().remove(egress_id);
        self.queue_changed.notify_one();
    }

    pub fn owns(&self, record: &Record) -> bool {
        record.dispatcher == self.name.as_str()
    }

    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    pub fn set_live(&self, live: HashSet<TaskKey>) {
        *self.live.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(live);
    }

    pub fn is_live(&self, task: &TaskKey) -> bool {
        self.live.read().unwrap_or_else(PoisonError::into_inner).contains(task)
    }

    /// Reads the installation's id, and makes one where there is none: in a new Redis, and in one that has lost everything.
    pub async fn learn_installation(&self) -> Result<(), BusError> {
        let id = Installation::new(&self.bus).get_or_make().await?;
        let before =
            std::mem::replace(&mut *self.installation.write().unwrap_or_else(PoisonError::into_inner), id.clone());
        if !before.is_empty() && before != id {
            warn!(
                before,
                id, "redis has lost the installation's id: tasks of the old one are only reported from now on"
            );
        }
        Ok(())
    }

    /// Empty before it was read for the first time.
    pub fn installation(&self) -> String {
        self.installation.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn overheads(&self) -> MutexGuard<'_, Overheads> {
        locked(&self.overheads)
    }

    pub fn emit_ledger_line(&self, entry: &str) {
        if let Some(emit) = &self.ledger_sink {
            emit(entry);
        }
    }

    pub fn take_in_flight(self: &Arc<Self>, egress_id: &EgressId) -> Option<HeldId> {
        locked(&self.in_flight).insert(egress_id.clone()).then(|| HeldId {
            context: Arc::clone(self),
            egress_id: egress_id.clone(),
            what: |context| &context.in_flight,
        })
    }

    pub fn is_in_flight(&self, egress_id: &EgressId) -> bool {
        locked(&self.in_flight).contains(egress_id)
    }

    pub fn take_for_delivery(self: &Arc<Self>, egress_id: &EgressId) -> Option<HeldId> {
        locked(&self.delivering).insert(egress_id.clone()).then(|| HeldId {
            context: Arc::clone(self),
            egress_id: egress_id.clone(),
            what: |context| &context.delivering,
        })
    }

    /// Nothing was granted, waits or is on its way.
    pub fn is_idle(&self) -> bool {
        locked(&self.in_flight).is_empty() && locked(&self.delivering).is_empty() && self.queue().is_empty()
    }
}

/// An id in one of the dispatcher's sets, until it is dropped.
pub struct HeldId {
    context: Arc<Context>,
    egress_id: EgressId,
    what: fn(&Context) -> &Mutex<HashSet<EgressId>>,
}

impl Drop for HeldId {
    fn drop(&mut self) {
        locked((self.what)(&self.context)).remove(&self.egress_id);
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change is one statement, so a panic elsewhere leaves nothing half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
