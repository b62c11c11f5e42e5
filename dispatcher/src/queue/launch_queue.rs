//! The waiting launches of one dispatcher and the slots of those that run. Pure: time is an argument.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use spillway_protocol::code::RpcError;
use spillway_protocol::ids::EgressId;
use tokio::time::Instant;

use super::order;
use super::queued_launch::QueuedLaunch;
use crate::admission::{self, Admission, Bounds, QueueLoad};

/// Launch calls at once. Platforms take seconds to answer one, and throttle callers that send too many.
const MAX_IN_FLIGHT: usize = 64;

/// New recordings are numbered from here; what a task before has left has smaller numbers, so it goes first.
const FIRST_SEQUENCE: u64 = 1 << 32;

/// All waiting launches of this dispatcher, and the slots of those that run. A launch that is requeued keeps its
/// sequence number.
#[derive(Debug)]
pub struct LaunchQueue {
    bounds: Bounds,
    last_sequence: u64,
    last_urgent_sequence: u64,
    queued: BTreeMap<u64, QueuedLaunch>,
    tenants: HashMap<Arc<str>, Share>,
    /// Virtual time of weighted fair queueing: what the tenant launched last had used. A tenant that was idle starts
    /// here, so that it gets no credit for the idle time.
    virtual_time: f64,
    /// Weight of what runs or is being launched.
    slots: HashMap<EgressId, f64>,
    /// Launch calls in progress.
    launching: HashSet<EgressId>,
    /// Requests that were admitted and are not enqueued yet: their records are being written.
    reserved: HashMap<EgressId, Reserved>,
    /// No launch before then.
    not_before: Option<Instant>,
}

/// What an admitted request will take.
#[derive(Clone, Debug)]
struct Reserved {
    tenant: Arc<str>,
    weight: f64,
    /// A position, not a slot.
    queued: bool,
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
            last_urgent_sequence: 0,
            queued: BTreeMap::new(),
            tenants: HashMap::new(),
            virtual_time: 0.0,
            slots: HashMap::new(),
            launching: HashSet::new(),
            reserved: HashMap::new(),
            not_before: None,
        }
    }

    /// After a reload; what runs already stays.
    pub fn set_bounds(&mut self, bounds: Bounds) {
        self.bounds = bounds;
    }

    /// Load and bounds that the next request meets: requests that were admitted and are not enqueued yet are counted.
    pub fn load_and_bounds(&self) -> (QueueLoad, Bounds) {
        let mut load = self.load();
        for reserved in self.reserved.values() {
            if reserved.queued {
                load.queued += 1;
            } else {
                load.tasks += 1;
                load.running += reserved.weight;
            }
        }
        (load, self.bounds)
    }

    /// Load of what is in the queue and in its slots.
    pub fn load(&self) -> QueueLoad {
        QueueLoad { running: self.slots.values().sum(), tasks: self.slots.len(), queued: self.queued.len() }
    }

    /// Slot, position or refusal for a request; what it gets is reserved until [`LaunchQueue::enqueue`] or
    /// [`LaunchQueue::release`]. `max_waiting`: the tenant's bound.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED: the tenant or the queue is at its bound; a retry later is right.
    pub fn admit(
        &mut self,
        egress_id: &EgressId,
        tenant: &str,
        weight: f64,
        max_waiting: Option<usize>,
    ) -> Result<Admission, RpcError> {
        let waiting = self.queued.values().filter(|queued| &*queued.tenant == tenant).count();
        let reserved = self.reserved.values().filter(|reserved| reserved.queued && &*reserved.tenant == tenant).count();
        admission::tenant(tenant, waiting + reserved, max_waiting)?;
        let (load, bounds) = self.load_and_bounds();
        let admission = admission::admit(weight, load, bounds)?;
        let queued = matches!(admission, Admission::Queued { .. });
        self.reserved.insert(egress_id.clone(), Reserved { tenant: tenant.into(), weight, queued });
        Ok(admission)
    }

    /// An admitted request that is not enqueued after all.
    pub fn release(&mut self, egress_id: &EgressId) {
        self.reserved.remove(egress_id);
    }

    /// Nothing waits and no launch call is in progress.
    pub fn is_empty(&self) -> bool {
        self.queued.is_empty() && self.launching.is_empty()
    }

    /// False when it waits already or is being launched.
    pub fn enqueue(&mut self, queued: QueuedLaunch) -> bool {
        self.reserved.remove(&queued.egress_id);
        if self.is_pending(&queued.egress_id) {
            return false;
        }
        // Its earlier task never reported: the slot is given out anew.
        self.slots.remove(&queued.egress_id);
        let last_sequence = if queued.is_urgent() { &mut self.last_urgent_sequence } else { &mut self.last_sequence };
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

    /// What waits, in the order in which it goes if nothing holds one back; at most a thousand.
    pub fn order(&self) -> Vec<EgressId> {
        let used = |tenant: &str| self.tenants.get(tenant).map_or(self.virtual_time, |share| share.used);
        order::order(self.queued.values(), used)
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
        if !queued.is_urgent() {
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
            if queued.is_urgent() {
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
            self.queued.get(sequence).is_some_and(|next| next.is_urgent() || admission::fits(next.weight, load, bounds))
        });
        let Some((sequence, queued)) = goes.and_then(|sequence| Some((sequence, self.queued.remove(&sequence)?)))
        else {
            return QueueStep::Wait(until);
        };
        if !queued.is_urgent() {
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
