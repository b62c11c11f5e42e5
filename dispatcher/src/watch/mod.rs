//! Every egress ends in one truth, whoever dies: a sweep over all live records, once a second. It takes over what a dead
//! dispatcher left, launches what nobody launches, settles what died mute and delivers last words.

mod act;
mod judge;
mod lookout;
pub mod news;
mod relaunch;
mod salvage;
pub mod settle;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use spillway_bus::{Beat, BusError, Phase, Record, Roll, Switches};
use spillway_launchers::Sighting;
use spillway_process::chain;
use spillway_protocol::ids::EgressId;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{Instrument, info, info_span, warn};

use self::act::{Done, act};
pub use self::judge::Patience;
use self::judge::{Scene, judge};
use self::lookout::Lookout;
use crate::house::{Dispatch, House, key_of};
use crate::targets::SWITCHES;

const SWEEP: Duration = Duration::from_secs(1);
/// Our own sign of life for the other dispatchers, and how long its absence must last until they take over.
pub(crate) const OUR_BEAT: Duration = Duration::from_secs(3);
const TAKE_OVER_AFTER: Duration = Duration::from_secs(2);

pub struct Watch {
    house: Arc<House>,
    patience: Patience,
    /// Since when we have seen no heartbeat of an egress.
    silent_since: HashMap<EgressId, Instant>,
    /// Since when we have seen no sign of a dispatcher that owns something.
    owner_missing_since: HashMap<String, Instant>,
    /// Since when we have seen a stop that its runner has not begun to obey.
    stop_seen: HashMap<EgressId, Instant>,
    lookout: Lookout,
    switches: Switches,
    roll: Roll,
    /// What each record of the roll says about its launch; it is the same as long as the record is.
    read: HashMap<EgressId, (Arc<Record>, Arc<Dispatch>)>,
}

fn patience_of(house: &House) -> Patience {
    let config = house.config();
    Patience { start: config.start_deadline, hung: config.heartbeat_timeout, ..Patience::default() }
}

/// Age of the last heartbeat, and what it said.
type Heard = Option<(Duration, Beat)>;

impl Watch {
    pub fn new(house: Arc<House>) -> Self {
        let patience = patience_of(&house);
        let switches = Switches::new(&house.bus, SWITCHES);
        Self {
            lookout: Lookout::new(Arc::clone(&house)),
            house,
            patience,
            silent_since: HashMap::new(),
            owner_missing_since: HashMap::new(),
            stop_seen: HashMap::new(),
            switches,
            roll: Roll::default(),
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
                () = self.house.stop.asked() => return,
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
        self.house.beats.beat(&self.house.name, 1, &Beat::default(), OUR_BEAT).await?;
        if !self.house.bus.healthy() {
            self.forget_silences();
            return Ok(());
        }
        self.house.targets.listen_to(&self.switches.all().await?);
        self.patience = patience_of(&self.house);
        let seated = self.house.line().seated();
        let live = self.house.registry.list_live_again(&mut self.roll).await?;
        self.forget_all_but(&live);
        // Their runners have finished them; they had been in the list since they were accepted.
        for id in seated.iter().filter(|id| !self.read.contains_key(*id)) {
            self.house.leave_line(id);
        }
        self.measure(&live);
        let mine: Vec<EgressId> =
            live.iter().filter(|record| self.house.owns(record)).map(|record| record.egress_id.clone()).collect();
        let beats = self.house.beats.last_of(&mine).await?;
        let mut beats: HashMap<EgressId, Heard> = mine.into_iter().zip(beats).collect();
        let mut owners = HashMap::new();
        for record in live {
            let heard = beats.remove(&record.egress_id);
            let span = info_span!("egress", egress_id = %record.egress_id);
            self.attend(record, heard, &mut owners).instrument(span).await?;
        }
        self.lookout.ask();
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
        self.house.set_live(at_work.map(|(record, _)| key_of(record)).collect());
        let ids: HashSet<&EgressId> = live.iter().map(|record| &record.egress_id).collect();
        let owners: HashSet<&str> = live.iter().map(|record| record.dispatcher.as_str()).collect();
        self.stop_seen.retain(|id, _| ids.contains(id));
        self.silent_since.retain(|id, _| ids.contains(id));
        self.owner_missing_since.retain(|owner, _| owners.contains(owner.as_str()));
        self.lookout.forget_all_but(&ids);
    }

    fn measure(&self, live: &[Arc<Record>]) {
        let (house, meter) = (&self.house, &self.house.meter);
        let mine = live.iter().filter(|record| house.owns(record) && record.phase != Phase::Over).count();
        meter.set("spillway_running", &[], mine as f64);
        meter.set("spillway_queue_length", &[], house.line().load().waiting as f64);
        let now = Instant::now();
        for target in house.targets.retired() {
            meter.set("spillway_target_open", &[("target", target.name())], 0.0);
        }
        for target in house.targets.all().iter() {
            let open = house.targets.word(target.name()).is_none() && target.breaker().open(now).is_none();
            meter.set("spillway_target_open", &[("target", target.name())], f64::from(u8::from(open)));
        }
    }

    /// `heard` where the record is ours.
    async fn attend(
        &mut self,
        record: Arc<Record>,
        heard: Option<Heard>,
        owners: &mut HashMap<String, bool>,
    ) -> Result<(), BusError> {
        let id = record.egress_id.clone();
        let mine = match heard {
            Some(heard) => Some((record, heard)),
            None if self.is_owner_gone(&record, owners).await? => {
                let heard = self.house.beats.last(&record.egress_id).await?;
                act::adopt(&self.house, record.as_ref().clone()).await?.map(|record| (Arc::new(record), heard))
            }
            None => None,
        };
        let Some((record, heard)) = mine else {
            // Moved on by one who heard of its end before us: its place here is free.
            let is_seated = {
                let line = self.house.line();
                line.knows(&id) && !line.is_busy_with(&id)
            };
            if is_seated {
                self.house.leave_line(&id);
            }
            return Ok(());
        };
        let dispatch = match self.read.get(&record.egress_id) {
            Some((read, dispatch)) if Arc::ptr_eq(read, &record) => Arc::clone(dispatch),
            _ => Arc::new(Dispatch::of(&record)),
        };
        let scene = self.look(&record, &dispatch, heard).await;
        if record.phase == Phase::Over {
            self.house.leave_line(&record.egress_id);
        } else if record.task.is_some() {
            self.house.line().occupy(&record.egress_id, dispatch.weight);
        }
        if act(&self.house, &record, judge(&scene, self.patience)).await? == Done::Reminded {
            self.stop_seen.remove(&record.egress_id);
        }
        Ok(())
    }

    async fn look(&mut self, record: &Record, dispatch: &Dispatch, heard: Heard) -> Scene {
        let id = &record.egress_id;
        let now = Instant::now();
        let beat = heard.filter(|(_, beat)| beat.attempt == record.attempt);
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
        let beating = beat.as_ref().is_some_and(|(age, _)| *age < self.patience.beat);
        let task = match (record.phase, &record.task) {
            (Phase::Over, _) | (_, None) => None,
            // It says itself that it is alive, and no platform would be believed against that.
            (Phase::Running | Phase::Ending | Phase::Lost, _) if beating => Some(Sighting::Alive),
            _ => self.lookout.about(record).await,
        };
        let launched_for = (dispatch.launched_ms > 0).then(|| {
            Duration::from_millis(u64::try_from(self.house.clock.unix_ms() - dispatch.launched_ms).unwrap_or(0))
        });
        let own_start = self.house.targets.named(&dispatch.target).and_then(|target| target.config.start_deadline);
        let in_line = self.house.is_in_hand(id) || self.house.line().is_busy_with(id);
        Scene {
            phase: record.phase,
            launched_for,
            start_deadline: own_start,
            has_another: record.phase == Phase::Launching && relaunch::has_another(&self.house, dispatch),
            lost_starts: dispatch.lost_starts,
            stop_ignored_for,
            in_line,
            task,
            beat: beat.map(|(age, _)| age),
            silent_for,
        }
    }

    async fn is_owner_gone(&mut self, record: &Record, owners: &mut HashMap<String, bool>) -> Result<bool, BusError> {
        let owner = record.dispatcher.clone();
        let seen = match (owners.get(&owner), EgressId::parse(&owner)) {
            (Some(seen), _) => *seen,
            (None, Ok(name)) => self.house.beats.last(&name).await?.is_some(),
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
