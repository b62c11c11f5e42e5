//! Every egress ends in one truth, whoever dies: a sweep over all live records, once a second. It takes over what a dead
//! dispatcher left, launches what nobody launches, settles what died mute and delivers last words.

mod act;
mod diagnosis;
mod status_poller;
pub mod task_exit;
mod relaunch;
mod salvage;
pub mod final_state;

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
pub use self::diagnosis::Timeouts;
use self::diagnosis::{Observation, diagnose};
use self::status_poller::StatusPoller;
use crate::context::{Context, Dispatch, key_of};
use crate::targets::SWITCHES;

const SWEEP: Duration = Duration::from_secs(1);
/// Our own sign of life for the other dispatchers, and how long its absence must last until they take over.
pub(crate) const OWNER_HEARTBEAT_TTL: Duration = Duration::from_secs(3);
const TAKE_OVER_AFTER: Duration = Duration::from_secs(2);

pub struct Reconciler {
    context: Arc<Context>,
    timeouts: Timeouts,
    /// Since when we have seen no heartbeat of an egress.
    silent_since: HashMap<EgressId, Instant>,
    /// Since when we have seen no sign of a dispatcher that owns something.
    owner_missing_since: HashMap<String, Instant>,
    /// Since when we have seen a stop that its runner has not begun to obey.
    stop_seen: HashMap<EgressId, Instant>,
    status_poller: StatusPoller,
    switches: Switches,
    live_index: LiveIndex,
    /// What each record of the roll says about its launch; it is the same as long as the record is.
    read: HashMap<EgressId, (Arc<Record>, Arc<Dispatch>)>,
}

fn timeouts_of(context: &Context) -> Timeouts {
    let config = context.config();
    Timeouts { start: config.start_deadline, hung: config.heartbeat_timeout, ..Timeouts::default() }
}

/// Age of the last heartbeat, and what it said.
type LastHeartbeat = Option<(Duration, Heartbeat)>;

impl Reconciler {
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
            read: HashMap::new(),
        }
    }

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
                    // Nobody could be heard meanwhile: silence before now proves nothing.
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
        self.context.heartbeats.beat(&self.context.name, 1, &Heartbeat::default(), OWNER_HEARTBEAT_TTL).await?;
        if !self.context.bus.healthy() {
            self.forget_silences();
            return Ok(());
        }
        self.context.targets.apply_switches(&self.switches.all().await?);
        self.timeouts = timeouts_of(&self.context);
        let admitted = self.context.queue().admitted();
        let live = self.context.registry.refresh_live_index(&mut self.live_index).await?;
        self.forget_all_but(&live);
        // Their runners have finished them; they had been in the list since they were accepted.
        for id in admitted.iter().filter(|id| !self.read.contains_key(*id)) {
            self.context.leave_queue(id);
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

    /// What is remembered is remembered of these; what they say about their launches is read where it is new.
    fn forget_all_but(&mut self, live: &[Arc<Record>]) {
        let mut read = HashMap::with_capacity(live.len());
        for record in live {
            let before = self.read.remove(&record.egress_id).filter(|(before, _)| Arc::ptr_eq(before, record));
            let now = before.unwrap_or_else(|| (Arc::clone(record), Arc::new(Dispatch::of(record))));
            read.insert(record.egress_id.clone(), now);
        }
        self.read = read;
        // Its task is wanted; what it costs is not yet known.
        let at_work = self.read.values().filter(|(record, dispatch)| {
            record.phase != Phase::Over && !dispatch.earlier.contains_key(&record.attempt)
        });
        self.context.set_live(at_work.map(|(record, _)| key_of(record)).collect());
        let ids: HashSet<&EgressId> = live.iter().map(|record| &record.egress_id).collect();
        let owners: HashSet<&str> = live.iter().map(|record| record.dispatcher.as_str()).collect();
        self.stop_seen.retain(|id, _| ids.contains(id));
        self.silent_since.retain(|id, _| ids.contains(id));
        self.owner_missing_since.retain(|owner, _| owners.contains(owner.as_str()));
        self.status_poller.forget_all_but(&ids);
    }

    fn measure(&self, live: &[Arc<Record>]) {
        let (context, metrics) = (&self.context, &self.context.metrics);
        let mine = live.iter().filter(|record| context.owns(record) && record.phase != Phase::Over).count();
        metrics.set("spillway_running", &[], mine as f64);
        metrics.set("spillway_queue_length", &[], context.queue().load().queued as f64);
        let now = Instant::now();
        for target in context.targets.retired() {
            metrics.set("spillway_target_open", &[("target", target.name())], 0.0);
        }
        for target in context.targets.all().iter() {
            let open = context.targets.operator_state(target.name()).is_none() && target.breaker().open(now).is_none();
            metrics.set("spillway_target_open", &[("target", target.name())], f64::from(u8::from(open)));
        }
    }

    /// `heartbeat` where the record is ours.
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
            // Moved on by one who heard of its end before us: its place here is free.
            let has_slot = {
                let queue = self.context.queue();
                queue.contains(&id) && !queue.is_pending(&id)
            };
            if has_slot {
                self.context.leave_queue(&id);
            }
            return Ok(());
        };
        let dispatch = match self.read.get(&record.egress_id) {
            Some((read, dispatch)) if Arc::ptr_eq(read, &record) => Arc::clone(dispatch),
            _ => Arc::new(Dispatch::of(&record)),
        };
        let observation = self.observe(&record, &dispatch, heartbeat).await;
        if record.phase == Phase::Over {
            self.context.leave_queue(&record.egress_id);
        } else if record.task.is_some() {
            self.context.queue().take_slot(&record.egress_id, dispatch.weight);
        }
        if act(&self.context, &record, diagnose(&observation, self.timeouts)).await? == ActOutcome::Reminded {
            self.stop_seen.remove(&record.egress_id);
        }
        Ok(())
    }

    async fn observe(&mut self, record: &Record, dispatch: &Dispatch, heartbeat: LastHeartbeat) -> Observation {
        let id = &record.egress_id;
        let now = Instant::now();
        let beat = heartbeat.filter(|(_, beat)| beat.attempt == record.attempt);
        let silent_for = match &beat {
            Some(_) => {
                self.silent_since.remove(id);
                Duration::ZERO
            }
            None => now - *self.silent_since.entry(id.clone()).or_insert(now),
        };
        let stop_ignored_for = match (record.stop_asked, record.phase) {
            (true, Phase::Running) => now - *self.stop_seen.entry(id.clone()).or_insert(now),
            _ => Duration::ZERO,
        };
        let beating = beat.as_ref().is_some_and(|(age, _)| *age < self.timeouts.heartbeat);
        let task = match (record.phase, &record.task) {
            (Phase::Over, _) | (_, None) => None,
            // It says itself that it is alive, and no platform would be believed against that.
            (Phase::Running | Phase::Ending | Phase::Lost, _) if beating => Some(TaskStatus::Alive),
            _ => self.status_poller.about(record).await,
        };
        let launched_for = (dispatch.launched_ms > 0).then(|| {
            Duration::from_millis(u64::try_from(self.context.clock.unix_ms() - dispatch.launched_ms).unwrap_or(0))
        });
        let own_start = self.context.targets.named(&dispatch.target).and_then(|target| target.config.start_deadline);
        let is_queued = self.context.is_in_flight(id) || self.context.queue().is_pending(id);
        Observation {
            phase: record.phase,
            launched_for,
            start_deadline: own_start,
            has_another: record.phase == Phase::Launching && relaunch::has_another(&self.context, dispatch),
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
        let seen = match (owners.get(&owner), EgressId::parse(&owner)) {
            (Some(seen), _) => *seen,
            (None, Ok(name)) => self.context.heartbeats.last(&name).await?.is_some(),
            (None, Err(_)) => false,
        };
        owners.insert(owner.clone(), seen);
        if seen {
            self.owner_missing_since.remove(&owner);
            return Ok(false);
        }
        let now = Instant::now();
        Ok(now - *self.owner_missing_since.entry(owner).or_insert(now) >= TAKE_OVER_AFTER)
    }
}
