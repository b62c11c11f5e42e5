//! The control loop: once a second a sweep compares every live record of this dispatcher (desired state) with its
//! heartbeat and the status of its task (observed state). `diagnosis` says what that means, `act` carries it out:
//! launch, relaunch, salvage, end, deliver. The sweep also adopts the records of dispatchers whose heartbeat is missing.
//! `task_exit` does the same for one egress when its platform reports the end of the task.
//!
//! A sweep waits for Redis alone; platforms are asked and tasks ended in the background. While Redis is unreachable
//! nothing is concluded from missing heartbeats. What cannot be read is reported once, and the other records go on.

mod diagnosis;
mod status_poller;
mod act;
pub mod task_exit;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use spillway_bus::{BusError, ClaimToken, Heartbeat, LiveIndex, Phase, Record, Switches, TaskKey};
use spillway_launchers::TaskStatus;
use spillway_process::chain;
use spillway_protocol::ids::EgressId;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{Instrument, error, info, info_span, warn};

use self::act::ActOutcome;
pub use self::act::Actions;
use self::diagnosis::{Observation, Timeouts, diagnose};
use self::status_poller::StatusPoller;
use crate::config::settings::SPARE_TICKET_TTL;
use crate::instance::Instance;
use crate::records::HEARTBEAT_FRESH;

const SWEEP: Duration = Duration::from_secs(1);
/// How long a dispatcher's heartbeat must be missing until its records are adopted.
const TAKE_OVER_AFTER: Duration = Duration::from_secs(2);
/// Adoptions at once: each is three round trips to Redis, and a dispatcher may leave thousands of records.
const ADOPTIONS: usize = 32;

/// Before a spare ticket is renewed again, and how many are renewed in one sweep: each is a command to Redis.
const RENEW_AFTER: Duration = Duration::from_secs(24 * 3600);
const RENEWALS: usize = 100;

/// The actor that compares records with what is observed: its handles, and what a sweep remembers for the next one.
pub struct Reconciler {
    actions: Actions,
    switches: Switches,
    /// Launches that the records were at in the last sweep, for the accountant.
    wanted: watch::Sender<HashSet<TaskKey>>,
    timeouts: Timeouts,
    /// Since when an egress has had no heartbeat.
    silent_since: HashMap<EgressId, Instant>,
    /// Since when a dispatcher that owns records has had no heartbeat.
    owner_missing_since: HashMap<String, Instant>,
    /// Since when a record has had a stop that its runner has not followed.
    stop_seen: HashMap<EgressId, Instant>,
    /// Versions of records with something that could not be read: reported, and left alone until they change.
    unreadable: HashMap<EgressId, u64>,
    /// The operator's switches could not be read, and that was reported.
    switches_unreadable: bool,
    /// When the spare ticket of a recording was renewed.
    renewed: HashMap<EgressId, Instant>,
    status_poller: StatusPoller,
    live_index: LiveIndex,
    /// Egresses that were live in the last sweep.
    live: HashSet<EgressId>,
}

fn timeouts_of(instance: &Instance) -> Timeouts {
    let config = instance.config();
    Timeouts { start: config.start_deadline, hung: config.heartbeat_timeout }
}

/// Age of the last heartbeat, and its content.
type LastHeartbeat = Option<(Duration, Heartbeat)>;

impl Reconciler {
    /// Remembers nothing yet.
    pub fn new(actions: Actions, switches: Switches, wanted: watch::Sender<HashSet<TaskKey>>) -> Self {
        let targets = Arc::clone(&actions.launcher.targets);
        Self {
            timeouts: timeouts_of(&actions.instance),
            status_poller: StatusPoller::new(Arc::clone(&actions.instance), targets),
            actions,
            switches,
            wanted,
            silent_since: HashMap::new(),
            owner_missing_since: HashMap::new(),
            stop_seen: HashMap::new(),
            unreadable: HashMap::new(),
            switches_unreadable: false,
            renewed: HashMap::new(),
            live_index: LiveIndex::default(),
            live: HashSet::new(),
        }
    }

    /// Sweeps until the dispatcher stops.
    pub async fn run(mut self) {
        let instance = Arc::clone(&self.actions.instance);
        let mut ticks = interval(SWEEP);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut failing = false;
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = instance.shutdown.triggered() => return,
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
        if !self.actions.instance.reaches_redis() {
            self.forget_silences();
            return Ok(());
        }
        self.apply_switches().await?;
        self.timeouts = timeouts_of(&self.actions.instance);
        let admitted = self.actions.launcher.queue.lock().admitted();
        let live = self.actions.records.registry.refresh_live_index(&mut self.live_index).await?;
        self.forget_all_but(&live);
        // Live records include these since they were accepted, so their runners have finished them.
        for id in admitted.iter().filter(|id| !self.live.contains(*id)) {
            self.actions.launcher.queue.leave(id);
        }
        self.measure(&live);
        let mut mine = Vec::new();
        let mut of_others = Vec::new();
        let mut owners = HashMap::new();
        for record in live {
            if self.actions.records.owns(&record) {
                mine.push(record);
            } else if self.is_owner_gone(&record, &mut owners).await? {
                of_others.push(record);
            } else {
                self.free_slot(&record.egress_id);
            }
        }
        mine.extend(self.adopt_all(of_others).await?);
        self.renew_spares(&mine).await?;
        let ids: Vec<EgressId> = mine.iter().map(|record| record.egress_id.clone()).collect();
        let heartbeats = self.actions.records.heartbeats.last_of(&ids).await?;
        for (record, heartbeat) in mine.into_iter().zip(heartbeats) {
            let span = info_span!("egress", egress_id = %record.egress_id);
            self.attend(&record, heartbeat).instrument(span).await?;
        }
        self.status_poller.ask();
        Ok(())
    }

    async fn apply_switches(&mut self) -> Result<(), BusError> {
        match self.switches.all().await {
            Ok(switches) => {
                self.switches_unreadable = false;
                self.actions.launcher.targets.apply_switches(&switches);
            }
            Err(error) if error.is_transient() => return Err(error),
            // Those read before stay.
            Err(error) if !std::mem::replace(&mut self.switches_unreadable, true) => {
                error!(error = %chain(&error), "the targets' switches cannot be read");
            }
            Err(_) => {}
        }
        Ok(())
    }

    /// Drops what is remembered about other egresses.
    fn forget_all_but(&mut self, live: &[Arc<Record>]) {
        self.live = live.iter().map(|record| record.egress_id.clone()).collect();
        // Their tasks are wanted, so billing leaves them open.
        let at_work = live.iter().filter(|record| record.wants(record.attempt));
        self.wanted.send_replace(at_work.map(|record| record.key()).collect());
        let ids: HashSet<&EgressId> = live.iter().map(|record| &record.egress_id).collect();
        let owners: HashSet<&str> = live.iter().map(|record| record.dispatcher.as_str()).collect();
        self.stop_seen.retain(|id, _| ids.contains(id));
        self.silent_since.retain(|id, _| ids.contains(id));
        self.unreadable.retain(|id, _| ids.contains(id));
        self.renewed.retain(|id, _| ids.contains(id));
        self.owner_missing_since.retain(|owner, _| owners.contains(owner.as_str()));
        self.status_poller.forget_all_but(&ids);
    }

    fn measure(&self, live: &[Arc<Record>]) {
        let (launcher, metrics) = (&self.actions.launcher, &self.actions.instance.metrics);
        let mine = live.iter().filter(|record| self.actions.records.owns(record) && !record.state.is_over()).count();
        metrics.set("spillway_running", &[], mine as f64);
        metrics.set("spillway_queue_length", &[], launcher.queue.lock().load().queued as f64);
        let now = Instant::now();
        for target in launcher.targets.retired() {
            metrics.set("spillway_target_open", &[("target", target.name())], 0.0);
        }
        for target in launcher.targets.all().iter() {
            let paused = launcher.targets.operator_state(target.name()).is_some();
            let open = !paused && target.breaker().open(now).is_none();
            metrics.set("spillway_target_open", &[("target", target.name())], f64::from(u8::from(open)));
        }
    }

    /// The record is another dispatcher's: another process handled its exit event, and its slot here is free.
    fn free_slot(&self, id: &EgressId) {
        let has_slot = {
            let queue = self.actions.launcher.queue.lock();
            queue.contains(id) && !queue.is_pending(id)
        };
        if has_slot {
            self.actions.launcher.queue.leave(id);
        }
    }

    /// Of these records those that are ours from now on.
    async fn adopt_all(&mut self, records: Vec<Arc<Record>>) -> Result<Vec<Arc<Record>>, BusError> {
        let mut ours = Vec::new();
        for some in records.chunks(ADOPTIONS) {
            let adoptions = some.iter().map(|record| self.actions.records.adopt(record));
            let adopted = join_all(adoptions).await;
            for (record, adopted) in some.iter().zip(adopted) {
                match self.unless_unreadable(record, adopted)?.flatten() {
                    Some(adopted) => ours.push(Arc::new(adopted)),
                    None => self.free_slot(&record.egress_id),
                }
            }
        }
        Ok(ours)
    }

    /// A recording may last longer than its spare ticket.
    async fn renew_spares(&mut self, mine: &[Arc<Record>]) -> Result<(), BusError> {
        let now = Instant::now();
        let due = |record: &&Arc<Record>| {
            let last = self.renewed.get(&record.egress_id);
            let is_due = last.is_none_or(|last| now - *last >= RENEW_AFTER);
            is_due && record.state.has_runner() && !record.spare.is_empty()
        };
        let due: Vec<&Arc<Record>> = mine.iter().filter(due).take(RENEWALS).collect();
        for record in due {
            let spare = ClaimToken::from_text(&record.spare);
            self.actions.tickets.renew(&record.egress_id, &spare, SPARE_TICKET_TTL).await?;
            self.renewed.insert(record.egress_id.clone(), now);
        }
        Ok(())
    }

    /// The answer; `None`: something of this record cannot be read, which is reported. The others go on.
    fn unless_unreadable<T>(&mut self, record: &Record, answer: Result<T, BusError>) -> Result<Option<T>, BusError> {
        match answer {
            Ok(answer) => Ok(Some(answer)),
            Err(error) if error.is_transient() => Err(error),
            Err(error) => {
                let id = &record.egress_id;
                if self.unreadable.insert(id.clone(), record.version) != Some(record.version) {
                    error!(egress_id = %id, error = %chain(&error), "egress left alone");
                }
                Ok(None)
            }
        }
    }

    /// One record of ours.
    async fn attend(&mut self, record: &Record, heartbeat: LastHeartbeat) -> Result<(), BusError> {
        if self.unreadable.get(&record.egress_id) == Some(&record.version) {
            return Ok(());
        }
        let observation = self.observe(record, heartbeat).await;
        if record.state.is_over() {
            self.actions.launcher.queue.leave(&record.egress_id);
        } else if record.task().is_some() {
            self.actions.launcher.queue.lock().take_slot(&record.egress_id, record.dispatch.weight);
        }
        let acted = self.actions.act(record, diagnose(&observation, self.timeouts)).await;
        if self.unless_unreadable(record, acted)? == Some(ActOutcome::Reminded) {
            self.stop_seen.remove(&record.egress_id);
        }
        Ok(())
    }

    async fn observe(&mut self, record: &Record, heartbeat: LastHeartbeat) -> Observation {
        let (id, dispatch) = (&record.egress_id, &record.dispatch);
        let now = Instant::now();
        // A later attempt than the record's: the record has lost its last writes, and the runner writes it again.
        let beat = heartbeat.filter(|(_, beat)| record.is_beat_of(beat.attempt));
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
        let target = self.actions.launcher.targets.of(record);
        let is_watched = target.is_some_and(|target| target.launcher.is_this_machine());
        let task = match (record.phase(), record.task()) {
            (Phase::Over, _) | (_, None) => None,
            // A heartbeat outweighs what a platform says, but not the exit that a parent has seen.
            (Phase::Running | Phase::Ending, _) if beating && !is_watched => Some(TaskStatus::Alive),
            _ => self.status_poller.about(record).await,
        };
        let Actions { instance, launcher, intake, .. } = &self.actions;
        let launched_for = (dispatch.launched_ms > 0).then(|| {
            Duration::from_millis(u64::try_from(instance.clock.unix_ms() - dispatch.launched_ms).unwrap_or(0))
        });
        let own_start = launcher.targets.named(&dispatch.target).and_then(|target| target.config.start_deadline);
        Observation {
            phase: record.phase(),
            launched_for,
            start_deadline: own_start,
            has_another: record.phase() == Phase::Launching && self.actions.has_another(record),
            lost_starts: dispatch.lost_starts,
            stop_ignored_for,
            is_queued: intake.in_flight.contains(id) || launcher.queue.lock().is_pending(id),
            task,
            is_watched,
            beat: beat.map(|(age, _)| age),
            silent_for,
        }
    }

    async fn is_owner_gone(&mut self, record: &Record, owners: &mut HashMap<String, bool>) -> Result<bool, BusError> {
        let owner = record.dispatcher.clone();
        let silent = match owners.get(&owner) {
            Some(silent) => *silent,
            None => self.actions.records.is_owner_silent(record).await?,
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
