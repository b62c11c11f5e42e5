//! Where recordings may run, in the operator's order, and which targets are worth asking now: circuit breaker, pacing, and
//! what the operator switched off. Holds the launchers; which target gets a launch is decided by the launch tasks.

mod breaker;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use spillway_bus::{Pace, Record};
use spillway_cost::{Capacity, Load, Platform, Shape, shape_for};
use spillway_launchers::{Launcher, Quota, StopMode, TaskLinks, TaskRef, TaskStatus};
use spillway_plan::EgressKind;
use tokio::time::Instant;

pub use self::breaker::{Breaker, LaunchOutcome, Open};
use crate::config::targets::{LauncherConfig, TargetConfig};
use crate::lock::locked;

/// A launch token further away than this is not waited for: the next target may have one.
const MAX_PACE_WAIT: Duration = Duration::from_secs(2);
/// Launchers have shorter timeouts of their own.
const STATUS_TIMEOUT: Duration = Duration::from_secs(60);

/// One target at work.
pub struct Target {
    /// Its section of the configuration.
    pub config: TargetConfig,
    /// Starts, watches and ends its tasks.
    pub launcher: Arc<dyn Launcher>,
    /// Launch rate, enforced in Redis for all dispatchers; `None`: unlimited.
    pub pace: Option<Pace>,
    breaker: Mutex<Breaker>,
    recent: Mutex<RecentLaunches>,
}

impl Target {
    /// With a closed breaker.
    pub fn new(config: TargetConfig, launcher: Arc<dyn Launcher>) -> Self {
        let quota = config.launches.or_else(|| launcher.quota());
        let pace = quota.map(|Quota { burst, per_second }| Pace { burst, per_second, max_wait: MAX_PACE_WAIT });
        Self { config, launcher, pace, breaker: Mutex::default(), recent: Mutex::default() }
    }

    /// As configured.
    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// What the platform says about each of these tasks; `None`: it does not answer.
    pub async fn statuses(&self, tasks: &[TaskRef]) -> Option<Vec<TaskStatus>> {
        tokio::time::timeout(STATUS_TIMEOUT, self.launcher.statuses(tasks)).await.ok()
    }

    /// Counts a launch call.
    pub fn launch_requested(&self) {
        let mut recent = locked(&self.recent);
        recent.asked += 1;
        // Older calls count half.
        if recent.asked >= 64 {
            *recent = RecentLaunches { asked: recent.asked / 2, throttles: recent.throttles / 2 };
        }
    }

    /// Counts a throttled launch call; true when there are too many to be chance.
    pub fn throttled(&self) -> bool {
        let mut recent = locked(&self.recent);
        recent.throttles += 1;
        let too_fast = recent.throttles >= 2 && recent.throttles * 10 > recent.asked;
        if too_fast {
            *recent = RecentLaunches::default();
        }
        too_fast
    }

    /// Tells the breaker.
    pub fn record_outcome(&self, outcome: LaunchOutcome) {
        self.breaker().on(outcome, Instant::now());
    }

    /// Not to be held across an `await`.
    pub fn breaker(&self) -> MutexGuard<'_, Breaker> {
        locked(&self.breaker)
    }

    /// Where one of its tasks dies another one goes on. On machines of the operator's and on spot capacity such a death is
    /// to be expected, and another task starts within seconds.
    pub fn is_resumable(&self) -> bool {
        let simulated = matches!(self.config.launcher, LauncherConfig::Simulated { .. });
        self.config.capacity == Capacity::Spot || (self.launcher.platform() == Platform::Host && !simulated)
    }

    /// Why a request of this kind can never run here.
    fn refuses(&self, kind: EgressKind, load: &Load) -> Option<String> {
        let TargetConfig { kinds, takes_uploads, takes_local_files, .. } = &self.config;
        if !kinds.is_empty() && !kinds.contains(&kind) {
            return Some(format!("takes no {}", kind.name()));
        }
        if load.page && !self.launcher.takes_pages() {
            return Some("has no image with a browser, which a web page needs".to_owned());
        }
        match (takes_uploads, takes_local_files) {
            (false, _) if load.stored => Some("takes no uploads".to_owned()),
            (_, false) if load.is_local() => Some("takes no files without an upload".to_owned()),
            _ => None,
        }
    }
}

#[derive(Debug, Default)]
struct RecentLaunches {
    asked: u32,
    throttles: u32,
}

/// What an operator has switched a target to, with `spillway-dispatcher target`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperatorState {
    /// Nothing is launched there; requests that no other target takes wait.
    Paused,
    /// Nothing is launched there, as if it were not configured; what runs there goes on.
    Draining,
}

impl OperatorState {
    /// From the text in Redis; `None`: a newer version's.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "paused" => Some(Self::Paused),
            "draining" => Some(Self::Draining),
            _ => None,
        }
    }

    /// As stored in Redis.
    pub fn text(self) -> &'static str {
        match self {
            Self::Paused => "paused",
            Self::Draining => "draining",
        }
    }
}

/// Name of the switches in Redis: target → state.
pub const SWITCHES: &str = "targets";

/// All targets. The list changes on a reload, the switches with each reconcile.
#[derive(Default)]
pub struct Targets {
    list: Mutex<Arc<[Arc<Target>]>>,
    /// No longer configured; tasks there are watched and billed until they end.
    retired: Mutex<Vec<Arc<Target>>>,
    states: Mutex<BTreeMap<String, OperatorState>>,
}

/// Which targets to ask, in order, and what is known about the others.
pub struct TargetChoice {
    /// Worth asking, in the operator's order.
    pub open: Vec<Arc<Target>>,
    /// The first of the others to open again, if that is known, and why it is closed.
    pub closed: Option<(Option<Instant>, String)>,
}

impl Targets {
    /// In the operator's order.
    pub fn new(list: Vec<Target>) -> Self {
        let list: Vec<Arc<Target>> = list.into_iter().map(Arc::new).collect();
        Self { list: Mutex::new(list.into()), ..Self::default() }
    }

    /// Replaces the list; targets that are not in it are retired.
    pub fn replace(&self, new: Vec<Arc<Target>>) {
        let mut retired = locked(&self.retired);
        let before = std::mem::replace(&mut *locked(&self.list), new.iter().map(Arc::clone).collect());
        retired.extend(before.iter().cloned());
        retired.retain(|old| new.iter().all(|new| new.name() != old.name()));
    }

    /// The configured ones, where something may be launched.
    pub fn all(&self) -> Arc<[Arc<Target>]> {
        Arc::clone(&locked(&self.list))
    }

    /// No longer configured.
    pub fn retired(&self) -> Vec<Arc<Target>> {
        locked(&self.retired).clone()
    }

    /// Configured and retired: wherever something may be running.
    pub fn known(&self) -> Vec<Arc<Target>> {
        self.all().iter().cloned().chain(self.retired()).collect()
    }

    /// Configured or retired.
    pub fn named(&self, name: &str) -> Option<Arc<Target>> {
        self.known().into_iter().find(|target| target.name() == name)
    }

    /// Takes over the operator's switches as Redis has them.
    pub fn apply_switches(&self, states: &BTreeMap<String, String>) {
        *locked(&self.states) = states
            .iter()
            .filter_map(|(name, operator_state)| Some((name.clone(), OperatorState::parse(operator_state)?)))
            .collect();
    }

    /// `None`: launches are allowed.
    pub fn operator_state(&self, name: &str) -> Option<OperatorState> {
        locked(&self.states).get(name).copied()
    }

    /// The machine at each target that takes such a recording.
    ///
    /// # Errors
    /// When no target does: the reasons of all of them. A retry is right only after the configuration has changed.
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

    /// Of the targets in `shapes` one is [resumable](Target::is_resumable).
    pub fn any_is_resumable(&self, shapes: &BTreeMap<String, Shape>) -> bool {
        self.all().iter().any(|target| shapes.contains_key(target.name()) && target.is_resumable())
    }

    /// Sorts the targets in `shapes`: those to ask, without `tried`, and when a closed one opens again.
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

    /// A target other than `than` could be asked now.
    pub fn has_another(&self, shapes: &BTreeMap<String, Shape>, tried: &BTreeSet<String>, than: &str) -> bool {
        let choice = self.choose(shapes, tried, Instant::now());
        choice.open.iter().any(|target| target.name() != than)
    }

    /// The target of the record's task; `None`: not configured here.
    pub fn of(&self, record: &Record) -> Option<Arc<Target>> {
        let launcher = record.task().map(|task| task.launcher.as_str());
        let by_launcher = || self.known().into_iter().find(|target| Some(target.launcher.name()) == launcher);
        self.named(&record.dispatch.target).or_else(by_launcher)
    }

    /// Pages of a task in its platform's console; none where its target is not known here.
    pub fn links(&self, task: &TaskRef) -> TaskLinks {
        let target = self.known().into_iter().find(|target| target.launcher.name() == task.launcher);
        target.map(|target| target.launcher.links(task)).unwrap_or_default()
    }

    /// What the platform says about the record's task; `None` when the record names none.
    pub async fn status(&self, record: &Record) -> Option<TaskStatus> {
        let task = record.task()?;
        Some(match self.of(record) {
            Some(target) => target.launcher.status(task).await,
            None => TaskStatus::Unknown(format!("{} is not configured here", task.launcher)),
        })
    }

    /// Ends the record's task, if it names one and its target is known.
    pub async fn end(&self, record: &Record, how: StopMode) {
        if let (Some(task), Some(target)) = (record.task(), self.of(record)) {
            target.launcher.end(task, how).await;
        }
    }

    /// The task's files, if any, are on this machine's disk.
    pub fn is_here(&self, record: &Record) -> bool {
        match self.of(record) {
            Some(target) => target.launcher.is_this_machine(),
            None => self.all_are_here(),
        }
    }

    /// Every target runs its tasks on this machine.
    pub fn all_are_here(&self) -> bool {
        self.all().iter().all(|target| target.launcher.is_this_machine())
    }
}

#[cfg(test)]
mod tests {
    use spillway_launchers::SimulatedLauncher;
    use spillway_launchers::simulated::SimulatedOptions;

    use super::*;

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
        let both = Load { local: true, ..stored };
        assert_eq!(names(&targets.shapes(EgressKind::Track, &both).unwrap()), "far near");
        let streams = Load { files: 0, streamed: 1.0, ..load };
        assert_eq!(names(&targets.shapes(EgressKind::Track, &streams).unwrap()), "far near picky");
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
