//! The launch queue: weighted fair between tenants, first in first out within one, bounded by slots. Accepted launches
//! come in, the next one that may be launched goes out. Pure: time is an argument, and nothing is launched here.
//! [`SharedQueue`] is the one of a dispatcher, whose launch loop waits for its changes.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use spillway_bus::{Dispatch, Record};
use spillway_launchers::RunMode;
use spillway_protocol::ids::EgressId;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::admission::{self, Bounds, QueueLoad};
use crate::lock::locked;

/// Launch calls at once. Platforms take seconds to answer one, and throttle callers that send too many.
const MAX_IN_FLIGHT: usize = 64;

/// A launch that waits.
#[derive(Clone, Debug)]
pub struct QueuedLaunch {
    /// Of the egress.
    pub egress_id: EgressId,
    /// Of the record; the launch itself may get the next number.
    pub attempt: u32,
    /// Records, or completes the uploads of a task that died.
    pub run_mode: RunMode,
    /// Cores it occupies.
    pub weight: f64,
    /// Whose share it counts against.
    pub tenant: Arc<str>,
    /// As the record has it.
    pub dispatch: Dispatch,
    /// A launch of this number was requested and its outcome is unknown or positive: no other target is asked before it
    /// is known.
    pub asked: bool,
    /// The next launch needs a new number, because a platform may still know this one.
    pub fresh: bool,
    /// For the wait metric.
    pub enqueued_at: Instant,
    /// A launch that still waits then is given up.
    pub deadline: Instant,
    /// This launch is skipped until then.
    pub not_before: Option<Instant>,
    /// Why it waits, for the error of a launch that is given up; empty: no slot was free.
    pub message: String,
}

/// Recordings are numbered from here; salvage runs have smaller numbers, so they go first.
const FIRST_SEQUENCE: u64 = 1 << 32;

/// All waiting launches of this dispatcher, and the slots of those that run. A launch that is requeued keeps its
/// sequence number.
#[derive(Debug)]
pub struct LaunchQueue {
    bounds: Bounds,
    last_sequence: u64,
    last_salvage_sequence: u64,
    queued: BTreeMap<u64, QueuedLaunch>,
    tenants: HashMap<Arc<str>, Share>,
    /// Virtual time of weighted fair queueing: what the tenant launched last had used. A tenant that was idle starts
    /// here, so that it gets no credit for the idle time.
    virtual_time: f64,
    /// Weight of what runs or is being launched.
    slots: HashMap<EgressId, f64>,
    /// Launch calls in progress.
    launching: HashSet<EgressId>,
    /// No launch before then.
    not_before: Option<Instant>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Share {
    /// Launches so far, each divided by the tenant's weight.
    used: f64,
    /// The tenant is at its cap: none of its launches before then.
    not_before: Option<Instant>,
}

/// Which launches a requeued one holds back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PauseScope {
    /// Every launch: the cap of the installation or a platform's throttling.
    All,
    /// Those of the same tenant.
    Tenant,
    /// Itself alone.
    Launch,
}

/// What the launch loop is to do next.
#[derive(Debug)]
pub enum QueueStep {
    /// Launch it; the number is for [`LaunchQueue::requeue`].
    Launch(u64, Box<QueuedLaunch>),
    /// Its deadline has passed.
    GiveUp(Box<QueuedLaunch>),
    /// Nothing before that time, or before the queue changes.
    Wait(Option<Instant>),
}

impl LaunchQueue {
    /// An empty queue.
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            last_sequence: FIRST_SEQUENCE,
            last_salvage_sequence: 0,
            queued: BTreeMap::new(),
            tenants: HashMap::new(),
            virtual_time: 0.0,
            slots: HashMap::new(),
            launching: HashSet::new(),
            not_before: None,
        }
    }

    /// After a reload; what runs already stays.
    pub fn set_bounds(&mut self, bounds: Bounds) {
        self.bounds = bounds;
    }

    /// Current load and its bounds.
    pub fn load_and_bounds(&self) -> (QueueLoad, Bounds) {
        (self.load(), self.bounds)
    }

    /// Current load.
    pub fn load(&self) -> QueueLoad {
        QueueLoad { running: self.slots.values().sum(), tasks: self.slots.len(), queued: self.queued.len() }
    }

    /// Waiting launches of one tenant.
    pub fn queued_of(&self, tenant: &str) -> usize {
        self.queued.values().filter(|queued| &*queued.tenant == tenant).count()
    }

    /// Nothing waits and no launch call is in progress.
    pub fn is_empty(&self) -> bool {
        self.queued.is_empty() && self.launching.is_empty()
    }

    /// False when it waits already or is being launched.
    pub fn enqueue(&mut self, queued: QueuedLaunch) -> bool {
        if self.is_pending(&queued.egress_id) {
            return false;
        }
        // Its earlier task never reported: the slot is given out anew.
        self.slots.remove(&queued.egress_id);
        let last_sequence = match queued.run_mode {
            RunMode::Record => &mut self.last_sequence,
            RunMode::Salvage => &mut self.last_salvage_sequence,
        };
        *last_sequence += 1;
        let share = self.tenants.entry(Arc::clone(&queued.tenant)).or_default();
        share.used = share.used.max(self.virtual_time);
        self.queued.insert(*last_sequence, queued);
        true
    }

    /// It has a slot or waits.
    pub fn contains(&self, egress_id: &EgressId) -> bool {
        self.slots.contains_key(egress_id) || self.queued.values().any(|queued| queued.egress_id == *egress_id)
    }

    /// It waits, or its launch call is in progress.
    pub fn is_pending(&self, egress_id: &EgressId) -> bool {
        self.launching.contains(egress_id) || self.queued.values().any(|queued| queued.egress_id == *egress_id)
    }

    /// The slot of a task that another dispatcher launched and we adopted.
    pub fn take_slot(&mut self, egress_id: &EgressId, weight: f64) {
        self.slots.entry(egress_id.clone()).or_insert(weight);
    }

    /// What has a slot and is not being launched.
    pub fn admitted(&self) -> Vec<EgressId> {
        self.slots.keys().filter(|id| !self.launching.contains(*id)).cloned().collect()
    }

    /// The egress is over or another dispatcher has it: frees its slot and its position.
    pub fn remove(&mut self, egress_id: &EgressId) {
        self.slots.remove(egress_id);
        self.queued.retain(|_, queued| queued.egress_id != *egress_id);
        // The freed slot may be what a capped tenant waits for.
        self.tenants.values_mut().for_each(|share| share.not_before = None);
        self.forget_tenants();
    }

    /// The launch call has ended; the task, if there is one, keeps its slot.
    pub fn launch_ended(&mut self, egress_id: &EgressId) {
        self.launching.remove(egress_id);
    }

    /// Back into the queue with its old sequence number, paused until then.
    pub fn requeue(&mut self, sequence: u64, queued: QueuedLaunch, until: Instant, scope: PauseScope) {
        self.launch_ended(&queued.egress_id);
        self.slots.remove(&queued.egress_id);
        let share = self.tenants.entry(Arc::clone(&queued.tenant)).or_default();
        if queued.run_mode == RunMode::Record {
            share.used -= 1.0 / queued.weight_of_tenant();
        }
        let later = |earlier: Option<Instant>| Some(earlier.map_or(until, |earlier| earlier.max(until)));
        let mut queued = queued;
        match scope {
            PauseScope::All => self.not_before = later(self.not_before),
            PauseScope::Tenant => share.not_before = later(share.not_before),
            PauseScope::Launch => queued.not_before = Some(until),
        }
        self.queued.insert(sequence, queued);
    }

    /// What to do at `now`. A launch that is returned occupies a slot until [`LaunchQueue::remove`] or
    /// [`LaunchQueue::requeue`].
    pub fn next(&mut self, now: Instant) -> QueueStep {
        if let Some(sequence) =
            self.queued.iter().find(|(_, queued)| queued.deadline <= now).map(|(sequence, _)| *sequence)
            && let Some(queued) = self.queued.remove(&sequence)
        {
            self.forget_tenants();
            return QueueStep::GiveUp(Box::new(queued));
        }
        let mut until = self.queued.values().map(|queued| queued.deadline).min();
        let mut sooner = |at: Instant| until = Some(until.map_or(at, |until| until.min(at)));
        if let Some(not_before) = self.not_before.filter(|not_before| *not_before > now) {
            sooner(not_before);
            return QueueStep::Wait(until);
        }
        self.not_before = None;
        if self.launching.len() >= MAX_IN_FLIGHT {
            return QueueStep::Wait(until);
        }
        let (load, bounds) = (self.load(), self.bounds);
        let mut seen: HashSet<&str> = HashSet::new();
        let mut best: Option<(f64, u64)> = None;
        for (sequence, queued) in &self.queued {
            if let Some(not_before) = queued.not_before.filter(|not_before| *not_before > now) {
                sooner(not_before);
                continue;
            }
            if queued.run_mode == RunMode::Salvage {
                best = Some((f64::NEG_INFINITY, *sequence));
                break;
            }
            // Of each tenant only the first that is not paused.
            if !seen.insert(&queued.tenant) {
                continue;
            }
            let share = self.tenants.get(&queued.tenant).copied().unwrap_or_default();
            if let Some(not_before) = share.not_before.filter(|not_before| *not_before > now) {
                sooner(not_before);
                continue;
            }
            if best.is_none_or(|(used, _)| share.used < used) {
                best = Some((share.used, *sequence));
            }
        }
        // The next one waits for a slot that is large enough: a smaller launch does not overtake it, or large ones
        // would starve.
        let goes = best.map(|(_, sequence)| sequence).filter(|sequence| {
            self.queued
                .get(sequence)
                .is_some_and(|next| next.run_mode == RunMode::Salvage || admission::fits(next.weight, load, bounds))
        });
        let Some((sequence, queued)) = goes.and_then(|sequence| Some((sequence, self.queued.remove(&sequence)?)))
        else {
            return QueueStep::Wait(until);
        };
        if queued.run_mode == RunMode::Record {
            let share = self.tenants.entry(Arc::clone(&queued.tenant)).or_default();
            self.virtual_time = self.virtual_time.max(share.used);
            share.used += 1.0 / queued.weight_of_tenant();
        }
        self.slots.insert(queued.egress_id.clone(), queued.weight);
        self.launching.insert(queued.egress_id.clone());
        QueueStep::Launch(sequence, Box::new(queued))
    }

    /// A tenant that does not wait is forgotten once the virtual time has reached it.
    fn forget_tenants(&mut self) {
        let queued: HashSet<Arc<str>> = self.queued.values().map(|queued| Arc::clone(&queued.tenant)).collect();
        let virtual_time = self.virtual_time;
        self.tenants.retain(|tenant, share| queued.contains(tenant) || share.used > virtual_time);
    }
}

/// The launch queue that the tasks of one dispatcher share.
#[derive(Debug)]
pub struct SharedQueue {
    queue: Mutex<LaunchQueue>,
    changed: Notify,
}

impl SharedQueue {
    /// An empty queue.
    pub fn new(bounds: Bounds) -> Self {
        Self { queue: Mutex::new(LaunchQueue::new(bounds)), changed: Notify::new() }
    }

    /// Not to be held across an `await`.
    pub fn lock(&self) -> MutexGuard<'_, LaunchQueue> {
        locked(&self.queue)
    }

    /// Puts a record's launch into the queue, unless it waits there or is being launched: one that was just accepted,
    /// taken over from another dispatcher, or has to be launched again. `now_ms`: as for [`QueuedLaunch::of`].
    pub fn enqueue(&self, record: &Record, now_ms: i64) {
        if self.lock().enqueue(QueuedLaunch::of(record, now_ms)) {
            self.notify();
        }
    }

    /// Frees the slot and the position of an egress.
    pub fn leave(&self, egress_id: &EgressId) {
        self.lock().remove(egress_id);
        self.notify();
    }

    /// Something may be launched now that could not before.
    pub fn notify(&self) {
        self.changed.notify_one();
    }

    /// Waits for that. Cancel-safe.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }
}

impl QueuedLaunch {
    /// From what a record says about its launch. `now_ms`: Unix milliseconds, the clock of the record's deadline.
    pub fn of(record: &Record, now_ms: i64) -> Self {
        let dispatch = record.dispatch.clone();
        let left_ms = u64::try_from(dispatch.deadline_ms.saturating_sub(now_ms)).unwrap_or(0);
        let now = Instant::now();
        Self {
            egress_id: record.egress_id.clone(),
            attempt: record.attempt,
            run_mode: if record.is_salvage() { RunMode::Salvage } else { RunMode::Record },
            weight: dispatch.weight,
            tenant: dispatch.tenant.as_str().into(),
            dispatch,
            asked: record.state.is_asked(),
            fresh: record.state.needs_new_number(),
            enqueued_at: now,
            deadline: now + Duration::from_millis(left_ms),
            not_before: None,
            message: String::new(),
        }
    }

    /// The next launch needs a number of its own: a platform may still know the previous one, and so may another
    /// dispatcher.
    pub fn is_fresh_at(&self, target: &str) -> bool {
        self.fresh || (!self.dispatch.target.is_empty() && self.dispatch.target != target)
    }

    /// The attempt number that its next launch at `target` has.
    pub fn next_attempt(&self, target: &str) -> u32 {
        self.attempt + u32::from(self.is_fresh_at(target))
    }

    /// Time of the last call, where its answer was a certain no.
    pub fn refused_ms(&self) -> Option<i64> {
        Some(self.dispatch.launched_ms).filter(|launched_ms| !self.asked && *launched_ms > 0)
    }

    fn weight_of_tenant(&self) -> f64 {
        if self.dispatch.share > 0.0 { self.dispatch.share } else { 1.0 }
    }
}

/// Pause for a launcher that has no capacity and does not say for how long.
pub const NO_ROOM_PAUSE: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn of(tenant: &str, share: f64, name: &str, now: Instant) -> QueuedLaunch {
        QueuedLaunch {
            egress_id: EgressId::parse(name).unwrap(),
            attempt: 1,
            run_mode: RunMode::Record,
            weight: 1.0,
            tenant: tenant.into(),
            dispatch: Dispatch { share, ..Dispatch::default() },
            asked: false,
            fresh: false,
            enqueued_at: now,
            deadline: now + 10 * SECOND,
            not_before: None,
            message: String::new(),
        }
    }

    fn queued(name: &str, now: Instant) -> QueuedLaunch {
        of("", 1.0, name, now)
    }

    fn launched(queue: &mut LaunchQueue, now: Instant) -> Option<(u64, QueuedLaunch)> {
        match queue.next(now) {
            QueueStep::Launch(sequence, queued) => Some((sequence, *queued)),
            _ => None,
        }
    }

    fn launch_order(queue: &mut LaunchQueue, now: Instant) -> Vec<String> {
        std::iter::from_fn(|| launched(queue, now)).map(|(_, it)| it.egress_id.to_string()).collect()
    }

    fn unbounded() -> LaunchQueue {
        LaunchQueue::new(Bounds { cores: None, tasks: None, queue: 9 })
    }

    #[tokio::test(start_paused = true)]
    async fn a_freed_place_goes_to_the_first() {
        let now = Instant::now();
        let mut queue = LaunchQueue::new(Bounds { cores: Some(1.0), tasks: None, queue: 9 });
        for name in ["EG_a", "EG_b", "EG_c"] {
            assert!(queue.enqueue(queued(name, now)));
        }
        assert!(!queue.enqueue(queued("EG_b", now)), "a retry does not wait twice");
        let (_, first) = launched(&mut queue, now).unwrap();
        queue.launch_ended(&first.egress_id);
        assert!(matches!(queue.next(now), QueueStep::Wait(Some(until)) if until == now + 10 * SECOND));
        queue.remove(&first.egress_id);
        assert_eq!(launched(&mut queue, now).unwrap().1.egress_id.as_str(), "EG_b");
    }

    #[tokio::test(start_paused = true)]
    async fn a_salvage_goes_first_and_needs_no_place() {
        let now = Instant::now();
        let mut queue = LaunchQueue::new(Bounds { cores: Some(1.0), tasks: Some(1), queue: 9 });
        queue.enqueue(queued("EG_a", now));
        let (_, first) = launched(&mut queue, now).unwrap();
        queue.launch_ended(&first.egress_id);
        queue.enqueue(queued("EG_b", now));
        queue.enqueue(QueuedLaunch { run_mode: RunMode::Salvage, ..queued("EG_c", now) });
        assert_eq!(launched(&mut queue, now).unwrap().1.egress_id.as_str(), "EG_c");
        assert!(launched(&mut queue, now).is_none(), "the dispatcher is full");
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_holds_its_scope_and_keeps_the_order() {
        let now = Instant::now();
        let mut queue = unbounded();
        for name in ["EG_a", "EG_b", "EG_c"] {
            queue.enqueue(queued(name, now));
        }
        let (a_sequence, a) = launched(&mut queue, now).unwrap();
        let (b_sequence, b) = launched(&mut queue, now).unwrap();
        queue.requeue(b_sequence, b, now + 2 * SECOND, PauseScope::All);
        queue.requeue(a_sequence, a, now + SECOND, PauseScope::All);
        assert!(matches!(queue.next(now + SECOND), QueueStep::Wait(Some(until)) if until == now + 2 * SECOND));
        let later = now + 2 * SECOND;
        let (a_sequence, a) = launched(&mut queue, later).unwrap();
        assert_eq!(a.egress_id.as_str(), "EG_a");
        queue.requeue(a_sequence, a, later + SECOND, PauseScope::Launch);
        assert_eq!(launch_order(&mut queue, later), ["EG_b", "EG_c"]);
        assert_eq!(launch_order(&mut queue, later + SECOND), ["EG_a"]);
    }

    #[tokio::test(start_paused = true)]
    async fn tenants_take_turns_by_weight_and_none_is_owed_the_past() {
        let now = Instant::now();
        let mut queue = unbounded();
        for n in 0..8 {
            queue.enqueue(of("many", 1.0, &format!("EG_m{n}"), now));
        }
        assert_eq!(launched(&mut queue, now).unwrap().1.egress_id.as_str(), "EG_m0");
        assert_eq!(launched(&mut queue, now).unwrap().1.egress_id.as_str(), "EG_m1");
        for n in 0..2 {
            queue.enqueue(of("few", 1.0, &format!("EG_f{n}"), now));
        }
        for n in 0..4 {
            queue.enqueue(of("heavy", 2.0, &format!("EG_h{n}"), now));
        }
        let went = launch_order(&mut queue, now);
        let before = |name: &str| went.iter().position(|it| it == name).unwrap();
        assert!(before("EG_f1") <= 6, "{went:?}");
        assert!(before("EG_h3") <= 9 && before("EG_h1") < before("EG_f1"), "{went:?}");
        assert!(before("EG_m3") < before("EG_m4") && went.len() == 12, "{went:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_tenant_whose_places_are_taken_holds_up_nobody_else() {
        let now = Instant::now();
        let mut queue = unbounded();
        for name in ["EG_a", "EG_b"] {
            queue.enqueue(of("full", 1.0, name, now));
        }
        queue.enqueue(of("free", 1.0, "EG_c", now));
        let (sequence, a) = launched(&mut queue, now).unwrap();
        queue.requeue(sequence, a, now + SECOND, PauseScope::Tenant);
        assert_eq!(launch_order(&mut queue, now), ["EG_c"]);
        queue.remove(&EgressId::parse("EG_elsewhere").unwrap());
        assert_eq!(launch_order(&mut queue, now), ["EG_a", "EG_b"], "a slot became free");
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_too_long_is_given_up_even_while_everybody_waits() {
        let now = Instant::now();
        let mut queue = unbounded();
        queue.enqueue(queued("EG_a", now));
        let (sequence, a) = launched(&mut queue, now).unwrap();
        queue.requeue(sequence, a, now + 60 * SECOND, PauseScope::All);
        assert!(matches!(queue.next(now), QueueStep::Wait(Some(until)) if until == now + 10 * SECOND));
        assert!(matches!(queue.next(now + 10 * SECOND), QueueStep::GiveUp(_)));
        assert!(queue.is_empty());
    }
}
