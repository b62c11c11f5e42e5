//! The control loop: once a second a sweep compares every live record of this dispatcher (desired state) with its
//! heartbeat and the status of its task (observed state). `diagnosis` says what that means, `act` carries it out:
//! launch, relaunch, salvage, end, deliver. The sweep also sends this dispatcher's own heartbeat and adopts the records
//! of dispatchers whose heartbeat is missing. `task_exit` does the same for one egress when its platform reports the
//! end of the task.
//!
//! A sweep waits for Redis alone; platforms are asked and tasks ended in the background. While Redis is unreachable
//! nothing is concluded from missing heartbeats.

mod diagnosis;
mod status_poller;
mod relaunch;
mod salvage;
mod act;
pub mod task_exit;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use spillway_bus::{BusError, Heartbeat, LiveIndex, Phase, Record, Switches};
use spillway_launchers::TaskStatus;
use spillway_process::chain;
use spillway_protocol::ids::EgressId;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{Instrument, info, info_span, warn};

use self::act::{ActOutcome, act};
use self::diagnosis::{Observation, Timeouts, diagnose};
use self::status_poller::StatusPoller;
use crate::context::Context;
use crate::liveness::{HEARTBEAT_FRESH, beat_as};
use crate::targets::SWITCHES;

const SWEEP: Duration = Duration::from_secs(1);
/// How long a dispatcher's heartbeat must be missing until its records are adopted.
const TAKE_OVER_AFTER: Duration = Duration::from_secs(2);

/// What a sweep remembers for the next one.
pub struct Reconciler {
    context: Arc<Context>,
    timeouts: Timeouts,
    /// Since when an egress has had no heartbeat.
    silent_since: HashMap<EgressId, Instant>,
    /// Since when a dispatcher that owns records has had no heartbeat.
    owner_missing_since: HashMap<String, Instant>,
    /// Since when a record has had a stop that its runner has not followed.
    stop_seen: HashMap<EgressId, Instant>,
    status_poller: StatusPoller,
    switches: Switches,
    live_index: LiveIndex,
    /// Egresses that were live in the last sweep.
    live: HashSet<EgressId>,
}

fn timeouts_of(context: &Context) -> Timeouts {
    let config = context.config();
    Timeouts { start: config.start_deadline, hung: config.heartbeat_timeout }
}

/// Age of the last heartbeat, and its content.
type LastHeartbeat = Option<(Duration, Heartbeat)>;

impl Reconciler {
    /// Remembers nothing yet.
    pub fn new(context: Arc<Context>) -> Self {
        let timeouts = timeouts_of(&context);
        let switches = Switches::new(&context.bus, SWITCHES);
        Self {
            status_poller: StatusPoller::new(Arc::clone(&context)),
            context,
            timeouts,
            silent_since: HashMap::new(),
            owner_missing_since: HashMap::new(),
            stop_seen: HashMap::new(),
            switches,
            live_index: LiveIndex::default(),
            live: HashSet::new(),
        }
    }

    /// Sweeps until the dispatcher stops.
    pub async fn run(mut self) {
        let mut ticks = interval(SWEEP);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut failing = false;
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = self.context.shutdown.triggered() => return,
            }
            match self.sweep().await {
                Ok(()) if failing => {
                    failing = false;
                    info!("registry is back");
                }
                Ok(()) => {}
                Err(error) => {
                    // No heartbeat could be read meanwhile: that they were missing until now proves nothing.
                    self.forget_silences();
                    if !failing {
                        warn!(error = %chain(&error), "registry not reached, sweep put off");
                    }
                    failing = true;
                }
            }
        }
    }

    fn forget_silences(&mut self) {
        self.silent_since.clear();
        self.owner_missing_since.clear();
    }

    async fn sweep(&mut self) -> Result<(), BusError> {
        beat_as(&self.context.name, &self.context.heartbeats).await?;
        if !self.context.bus.healthy() {
            self.forget_silences();
            return Ok(());
        }
        self.context.targets.apply_switches(&self.switches.all().await?);
        self.timeouts = timeouts_of(&self.context);
        let admitted = self.context.queue.lock().admitted();
        let live = self.context.registry.refresh_live_index(&mut self.live_index).await?;
        self.forget_all_but(&live);
        // Live records include these since they were accepted, so their runners have finished them.
        for id in admitted.iter().filter(|id| !self.live.contains(*id)) {
            self.context.queue.leave(id);
        }
        self.measure(&live);
        let mine: Vec<EgressId> =
            live.iter().filter(|record| self.context.owns(record)).map(|record| record.egress_id.clone()).collect();
        let heartbeats = self.context.heartbeats.last_of(&mine).await?;
        let mut heartbeats: HashMap<EgressId, LastHeartbeat> = mine.into_iter().zip(heartbeats).collect();
        let mut owners = HashMap::new();
        for record in live {
            let heartbeat = heartbeats.remove(&record.egress_id);
            let span = info_span!("egress", egress_id = %record.egress_id);
            self.attend(record, heartbeat, &mut owners).instrument(span).await?;
        }
        self.status_poller.ask();
        Ok(())
    }

    /// Drops what is remembered about other egresses.
    fn forget_all_but(&mut self, live: &[Arc<Record>]) {
        self.live = live.iter().map(|record| record.egress_id.clone()).collect();
        // Their tasks are wanted, so billing leaves them open.
        let at_work = live.iter().filter(|record| record.wants(record.attempt));
        self.context.set_live(at_work.map(|record| record.key()).collect());
        let ids: HashSet<&EgressId> = live.iter().map(|record| &record.egress_id).collect();
        let owners: HashSet<&str> = live.iter().map(|record| record.dispatcher.as_str()).collect();
        self.stop_seen.retain(|id, _| ids.contains(id));
        self.silent_since.retain(|id, _| ids.contains(id));
        self.owner_missing_since.retain(|owner, _| owners.contains(owner.as_str()));
        self.status_poller.forget_all_but(&ids);
    }

    fn measure(&self, live: &[Arc<Record>]) {
        let (context, metrics) = (&self.context, &self.context.metrics);
        let mine = live.iter().filter(|record| context.owns(record) && !record.state.is_over()).count();
        metrics.set("spillway_running", &[], mine as f64);
        metrics.set("spillway_queue_length", &[], context.queue.lock().load().queued as f64);
        let now = Instant::now();
        for target in context.targets.retired() {
            metrics.set("spillway_target_open", &[("target", target.name())], 0.0);
        }
        for target in context.targets.all().iter() {
            let open = context.targets.operator_state(target.name()).is_none() && target.breaker().open(now).is_none();
            metrics.set("spillway_target_open", &[("target", target.name())], f64::from(u8::from(open)));
        }
    }

    /// One record. `heartbeat`: read already, because the record is ours; `None`: the record is another dispatcher's.
    async fn attend(
        &mut self,
        record: Arc<Record>,
        heartbeat: Option<LastHeartbeat>,
        owners: &mut HashMap<String, bool>,
    ) -> Result<(), BusError> {
        let id = record.egress_id.clone();
        let mine = match heartbeat {
            Some(heartbeat) => Some((record, heartbeat)),
            None if self.is_owner_gone(&record, owners).await? => {
                let heartbeat = self.context.heartbeats.last(&record.egress_id).await?;
                act::adopt(&self.context, record.as_ref().clone()).await?.map(|record| (Arc::new(record), heartbeat))
            }
            None => None,
        };
        let Some((record, heartbeat)) = mine else {
            // Another process handled its exit event: its slot here is free.
            let has_slot = {
                let queue = self.context.queue.lock();
                queue.contains(&id) && !queue.is_pending(&id)
            };
            if has_slot {
                self.context.queue.leave(&id);
            }
            return Ok(());
        };
        let observation = self.observe(&record, heartbeat).await;
        if record.state.is_over() {
            self.context.queue.leave(&record.egress_id);
        } else if record.task().is_some() {
            self.context.queue.lock().take_slot(&record.egress_id, record.dispatch.weight);
        }
        if act(&self.context, &record, diagnose(&observation, self.timeouts)).await? == ActOutcome::Reminded {
            self.stop_seen.remove(&record.egress_id);
        }
        Ok(())
    }

    async fn observe(&mut self, record: &Record, heartbeat: LastHeartbeat) -> Observation {
        let (id, dispatch) = (&record.egress_id, &record.dispatch);
        let now = Instant::now();
        let beat = heartbeat.filter(|(_, beat)| beat.attempt == record.attempt);
        let silent_for = match &beat {
            Some(_) => {
                self.silent_since.remove(id);
                Duration::ZERO
            }
            None => now - *self.silent_since.entry(id.clone()).or_insert(now),
        };
        let stop_ignored_for = match (record.stop_asked, record.phase()) {
            (true, Phase::Running) => now - *self.stop_seen.entry(id.clone()).or_insert(now),
            _ => Duration::ZERO,
        };
        let beating = beat.as_ref().is_some_and(|(age, _)| *age < HEARTBEAT_FRESH);
        let task = match (record.phase(), record.task()) {
            (Phase::Over, _) | (_, None) => None,
            // A heartbeat outweighs what the platform says.
            (Phase::Running | Phase::Ending, _) if beating => Some(TaskStatus::Alive),
            _ => self.status_poller.about(record).await,
        };
        let launched_for = (dispatch.launched_ms > 0).then(|| {
            Duration::from_millis(u64::try_from(self.context.clock.unix_ms() - dispatch.launched_ms).unwrap_or(0))
        });
        let own_start = self.context.targets.named(&dispatch.target).and_then(|target| target.config.start_deadline);
        let is_queued = self.context.is_in_flight(id) || self.context.queue.lock().is_pending(id);
        Observation {
            phase: record.phase(),
            launched_for,
            start_deadline: own_start,
            has_another: record.phase() == Phase::Launching && relaunch::has_another(&self.context, dispatch),
            lost_starts: dispatch.lost_starts,
            stop_ignored_for,
            is_queued,
            task,
            beat: beat.map(|(age, _)| age),
            silent_for,
        }
    }

    async fn is_owner_gone(&mut self, record: &Record, owners: &mut HashMap<String, bool>) -> Result<bool, BusError> {
        let owner = record.dispatcher.clone();
        let silent = match owners.get(&owner) {
            Some(silent) => *silent,
            None => act::is_owner_silent(&self.context, record).await?,
        };
        owners.insert(owner.clone(), silent);
        if !silent {
            self.owner_missing_since.remove(&owner);
            return Ok(false);
        }
        let now = Instant::now();
        Ok(now - *self.owner_missing_since.entry(owner).or_insert(now) >= TAKE_OVER_AFTER)
    }
}
