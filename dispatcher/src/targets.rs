//! The places where recordings may run, in order, and which of them are worth asking now.

pub mod breaker;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use spillway_bus::{Pace, Record};
use spillway_cost::{Load, Shape, shape_for};
use spillway_launchers::{Launcher, Quota, StopMode, TaskStatus};
use spillway_plan::EgressKind;
use tokio::time::Instant;

use self::breaker::{Breaker, LaunchOutcome};
use crate::config::targets::TargetConfig;
use crate::context::{Dispatch, task_of};

/// A turn further away than this is left to others; the next target may have one.
const MAX_PACE_WAIT: Duration = Duration::from_secs(2);

pub struct Target {
    pub config: TargetConfig,
    pub launcher: Arc<dyn Launcher>,
    pub pace: Option<Pace>,
    breaker: Mutex<Breaker>,
    recent: Mutex<RecentLaunches>,
}

impl Target {
    pub fn new(config: TargetConfig, launcher: Arc<dyn Launcher>) -> Self {
        let quota = config.launches.or_else(|| launcher.quota());
        let pace = quota.map(|Quota { burst, per_second }| Pace { burst, per_second, max_wait: MAX_PACE_WAIT });
        Self { config, launcher, pace, breaker: Mutex::default(), recent: Mutex::default() }
    }

    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// The platform was asked for a launch.
    pub fn launch_requested(&self) {
        let mut recent = locked(&self.recent);
        recent.asked += 1;
        // What was long ago counts half.
        if recent.asked >= 64 {
            *recent = RecentLaunches { asked: recent.asked / 2, throttles: recent.throttles / 2 };
        }
    }

    /// The platform complained about our pace: true when that is more than chance.
    pub fn throttled(&self) -> bool {
        let mut recent = locked(&self.recent);
        recent.throttles += 1;
        let too_fast = recent.throttles >= 2 && recent.throttles * 10 > recent.asked;
        if too_fast {
            *recent = RecentLaunches::default();
        }
        too_fast
    }

    pub fn record_outcome(&self, outcome: LaunchOutcome) {
        self.breaker().on(outcome, Instant::now());
    }

    pub fn breaker(&self) -> MutexGuard<'_, Breaker> {
        locked(&self.breaker)
    }

    /// Why a request of this kind can never run here.
    fn refuses(&self, kind: EgressKind, load: &Load) -> Option<String> {
        let TargetConfig { kinds, takes_uploads, takes_local_files, .. } = &self.config;
        if !kinds.is_empty() && !kinds.contains(&kind) {
            return Some(format!("takes no {}", kind.name()));
        }
        match (load.stored, takes_uploads, takes_local_files) {
            (true, false, _) => Some("takes no uploads".to_owned()),
            (false, _, false) => Some("takes no files without an upload".to_owned()),
            _ => None,
        }
    }
}

#[derive(Debug, Default)]
struct RecentLaunches {
    asked: u32,
    throttles: u32,
}

/// What an operator has said about a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperatorState {
    /// Nothing is launched there; who has nowhere else to go waits.
    Paused,
    /// Nothing is launched there, as if it were not configured; what runs there goes on.
    Draining,
}

impl OperatorState {
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "paused" => Some(Self::Paused),
            "draining" => Some(Self::Draining),
            _ => None,
        }
    }

    pub fn text(self) -> &'static str {
        match self {
            Self::Paused => "paused",
            Self::Draining => "draining",
        }
    }
}

/// Under this name the operator's words lie on the bus.
pub const SWITCHES: &str = "targets";

/// They may change while we run.
#[derive(Default)]
pub struct Targets {
    list: Mutex<Arc<[Arc<Target>]>>,
    /// No longer configured; what runs there is watched and billed to its end.
    retired: Mutex<Vec<Arc<Target>>>,
    states: Mutex<BTreeMap<String, OperatorState>>,
}

/// Which targets to ask, in order, and what is known about the others.
pub struct TargetChoice {
    pub open: Vec<Arc<Target>>,
    /// The first of the others to open again, if that is known, and why it is closed.
    pub closed: Option<(Option<Instant>, String)>,
}

impl Targets {
    pub fn new(list: Vec<Target>) -> Self {
        let list: Vec<Arc<Target>> = list.into_iter().map(Arc::new).collect();
        Self { list: Mutex::new(list.into()), ..Self::default() }
    }

    /// From now on these, in this order. Those that are not among them are asked for nothing new.
    pub fn replace(&self, new: Vec<Arc<Target>>) {
        let mut retired = locked(&self.retired);
        let before = std::mem::replace(&mut *locked(&self.list), new.iter().map(Arc::clone).collect());
        retired.extend(before.iter().cloned());
        retired.retain(|old| new.iter().all(|new| new.name() != old.name()));
    }

    /// Where something may be launched.
    pub fn all(&self) -> Arc<[Arc<Target>]> {
        Arc::clone(&locked(&self.list))
    }

    pub fn retired(&self) -> Vec<Arc<Target>> {
        locked(&self.retired).clone()
    }

    /// Wherever something may be running.
    pub fn known(&self) -> Vec<Arc<Target>> {
        self.all().iter().cloned().chain(self.retired()).collect()
    }

    pub fn named(&self, name: &str) -> Option<Arc<Target>> {
        self.known().into_iter().find(|target| target.name() == name)
    }

    pub fn apply_switches(&self, states: &BTreeMap<String, String>) {
        *locked(&self.states) = states
            .iter()
            .filter_map(|(name, operator_state)| Some((name.clone(), OperatorState::parse(operator_state)?)))
            .collect();
    }

    pub fn operator_state(&self, name: &str) -> Option<OperatorState> {
        locked(&self.states).get(name).copied()
    }

    /// The machine each target would give, or what each says against it.
    pub fn shapes(&self, kind: EgressKind, load: &Load) -> Result<BTreeMap<String, Shape>, String> {
        let mut shapes = BTreeMap::new();
        let mut against = Vec::new();
        for target in self.all().iter() {
            let refusal = target.refuses(kind, load).or_else(|| match shape_for(load, target.launcher.platform()) {
                Ok(shape) => {
                    shapes.insert(target.name().to_owned(), shape);
                    None
                }
                Err(error) => Some(error.to_string()),
            });
            against.extend(refusal.map(|message| format!("{} {message}", target.name())));
        }
        if shapes.is_empty() { Err(against.join("; ")) } else { Ok(shapes) }
    }

    /// Of those that have a machine for it.
    pub fn choose(&self, shapes: &BTreeMap<String, Shape>, tried: &BTreeSet<String>, now: Instant) -> TargetChoice {
        let mut choice = TargetChoice { open: Vec::new(), closed: None };
        let mut close = |until: Option<Instant>, message: String| {
            let sooner = match &choice.closed {
                None => true,
                Some((before, _)) => until.is_some_and(|until| before.is_none_or(|before| until < before)),
            };
            if sooner {
                choice.closed = Some((until, message));
            }
        };
        for target in self.all().iter().filter(|target| shapes.contains_key(target.name())) {
            match (self.operator_state(target.name()), target.breaker().open(now)) {
                (Some(OperatorState::Draining), _) => {}
                (Some(OperatorState::Paused), _) => close(None, format!("{} is paused", target.name())),
                (None, Some(open)) => close(Some(open.until), format!("{}: {}", target.name(), open.message)),
                (None, None) if tried.contains(target.name()) => {}
                (None, None) => choice.open.push(Arc::clone(target)),
            }
        }
        choice
    }

    /// Another than this one could be asked.
    pub fn has_another(&self, shapes: &BTreeMap<String, Shape>, tried: &BTreeSet<String>, than: &str) -> bool {
        let choice = self.choose(shapes, tried, Instant::now());
        choice.open.iter().any(|target| target.name() != than)
    }

    /// Where the task of this record is, if it is anywhere.
    pub fn of(&self, record: &Record) -> Option<Arc<Target>> {
        let launcher = task_of(record).map(|task| task.launcher);
        let by_launcher =
            || self.known().into_iter().find(|target| Some(target.launcher.name()) == launcher.as_deref());
        self.named(&Dispatch::of(record).target).or_else(by_launcher)
    }

    /// `None` when the record names no task.
    pub async fn status(&self, record: &Record) -> Option<TaskStatus> {
        let task = task_of(record)?;
        Some(match self.of(record) {
            Some(target) => target.launcher.status(&task).await,
            None => TaskStatus::Unknown(format!("{} is not configured here", task.launcher)),
        })
    }

    pub async fn end(&self, record: &Record, how: StopMode) {
        if let (Some(task), Some(target)) = (task_of(record), self.of(record)) {
            target.launcher.end(&task, how).await;
        }
    }

    /// Its files, if it wrote any, are on this machine's disk.
    pub fn is_here(&self, record: &Record) -> bool {
        match self.of(record) {
            Some(target) => target.launcher.is_this_machine(),
            None => self.all_are_here(),
        }
    }

    pub fn all_are_here(&self) -> bool {
        self.all().iter().all(|target| target.launcher.is_this_machine())
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change is one statement, so a panic elsewhere leaves nothing half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use spillway_launchers::SimulatedLauncher;
    use spillway_launchers::simulated::SimulatedOptions;

    use super::*;
    use crate::config::LauncherConfig;

    fn target(name: &str) -> Target {
        let launcher = LauncherConfig::Simulated { latency: Duration::ZERO, quota: None };
        Target::new(TargetConfig::of(name, launcher), Arc::new(SimulatedLauncher::new(SimulatedOptions::default())))
    }

    #[test]
    fn a_target_that_is_taken_away_is_asked_for_nothing_new_and_still_known() {
        let targets = Targets::new(vec![target("near"), target("far")]);
        let names = |all: &[Arc<Target>]| all.iter().map(|it| it.name().to_owned()).collect::<Vec<_>>().join(" ");
        let far = targets.named("far").unwrap();
        targets.replace(vec![Arc::new(target("new")), Arc::clone(&far)]);
        assert_eq!((names(&targets.all()), names(&targets.retired())), ("new far".to_owned(), "near".to_owned()));
        assert!(targets.named("near").is_some() && Arc::ptr_eq(&far, &targets.named("far").unwrap()));
        let load = Load { cores: 1.0, memory_mib: 512.0, files: 1, ..Load::default() };
        let shapes = targets.shapes(EgressKind::Track, &load).unwrap();
        assert_eq!(shapes.keys().cloned().collect::<Vec<_>>(), ["far", "new"]);
        targets.replace(vec![Arc::new(target("near"))]);
        assert_eq!((names(&targets.all()), names(&targets.retired())), ("near".to_owned(), "new far".to_owned()));
    }

    #[tokio::test]
    async fn a_complaint_now_and_then_is_chance_and_several_of_few_are_not() {
        let target = target("near");
        for _ in 0..300 {
            target.launch_requested();
        }
        assert!(!target.throttled() && !target.throttled());
        let fresh = self::target("far");
        for _ in 0..5 {
            fresh.launch_requested();
        }
        assert!(!fresh.throttled() && fresh.throttled());
        assert!(!fresh.throttled(), "it has been slowed down for that");
    }

    #[tokio::test(start_paused = true)]
    async fn targets_are_asked_in_order_but_for_those_that_are_closed() {
        let mut picky = target("picky");
        picky.config.kinds = vec![EgressKind::Track];
        picky.config.takes_local_files = false;
        let targets = Targets::new(vec![picky, target("near"), target("far")]);
        let load = Load { cores: 1.0, memory_mib: 512.0, files: 1, ..Load::default() };
        let stored = Load { stored: true, ..load };
        let names = |shapes: &BTreeMap<String, Shape>| shapes.keys().cloned().collect::<Vec<_>>().join(" ");
        assert_eq!(names(&targets.shapes(EgressKind::Track, &stored).unwrap()), "far near picky");
        assert_eq!(names(&targets.shapes(EgressKind::Track, &load).unwrap()), "far near");
        let shapes = targets.shapes(EgressKind::RoomComposite, &stored).unwrap();
        assert_eq!(names(&shapes), "far near");

        let now = Instant::now();
        let open = |tried: &[&str], now| {
            let tried = tried.iter().map(|name| (*name).to_owned()).collect();
            let choice = targets.choose(&shapes, &tried, now);
            let names: Vec<String> = choice.open.iter().map(|target| target.name().to_owned()).collect();
            (names.join(" "), choice.closed.map(|(_, message)| message).unwrap_or_default())
        };
        assert_eq!(open(&[], now), ("near far".to_owned(), String::new()));
        assert_eq!(open(&["near"], now).0, "far");
        for _ in 0..3 {
            targets.named("near").unwrap().record_outcome(LaunchOutcome::NoCapacity("full".to_owned()));
        }
        assert_eq!(open(&[], now), ("far".to_owned(), "near: full".to_owned()));
        targets.apply_switches(&[("far".to_owned(), "paused".to_owned())].into());
        assert_eq!(open(&[], now), (String::new(), "near: full".to_owned()));
        assert_eq!(open(&[], now + Duration::from_secs(11)).0, "near");
        targets.apply_switches(
            &[("near".to_owned(), "draining".to_owned()), ("far".to_owned(), "draining".to_owned())].into(),
        );
        assert_eq!(open(&[], now), (String::new(), String::new()));
        let mut only = self::target("only");
        only.config.takes_uploads = false;
        let message = Targets::new(vec![only]).shapes(EgressKind::Track, &stored).unwrap_err();
        assert_eq!(message, "only takes no uploads");
    }
}
