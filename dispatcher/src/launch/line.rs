//! Who waits for a place, and who goes next. Pure: time comes in as an argument.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use spillway_launchers::Errand;
use spillway_protocol::ids::EgressId;
use tokio::time::Instant;

use crate::admit::{self, Bounds, Load};
use crate::house::Dispatch;

/// Launches in hand at once: waiting for their turn at a target or for a platform's API, which is slow, but not to be
/// flooded.
const MOST_IN_FLIGHT: usize = 64;

#[derive(Clone, Debug)]
pub struct Waiting {
    pub egress_id: EgressId,
    pub attempt: u32,
    pub errand: Errand,
    pub weight: f64,
    pub tenant: Arc<str>,
    /// What the record says about its launch.
    pub dispatch: Dispatch,
    pub since: Instant,
    /// Not launched by then: given up.
    pub deadline: Instant,
    /// Not before then, while others may go.
    pub not_before: Option<Instant>,
    /// Why it waits, when a launcher said so.
    pub words: String,
}

/// Turns of recordings begin here; before them go those who only save what is recorded.
const FIRST_TURN: u64 = 1 << 32;

/// Tenants take turns, in proportion to their weights; those of one tenant go in the order they came. One who is put back
/// keeps his turn.
#[derive(Debug)]
pub struct Line {
    bounds: Bounds,
    turns: u64,
    salvage_turns: u64,
    waiting: BTreeMap<u64, Waiting>,
    tenants: HashMap<Arc<str>, Share>,
    /// What the last one to go had used; nobody who comes later may have used less, or he would be owed the past.
    level: f64,
    places: HashMap<EgressId, f64>,
    /// Their launch is in hand.
    calling: HashSet<EgressId>,
    /// Nobody goes before then.
    not_before: Option<Instant>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Share {
    /// Launches, each divided by the tenant's weight.
    used: f64,
    /// All places of this tenant are taken: nobody of his before then.
    not_before: Option<Instant>,
}

/// Whom the one who is put back holds up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    Everybody,
    Tenant,
    Himself,
}

#[derive(Debug)]
pub enum Step {
    Launch(u64, Box<Waiting>),
    GiveUp(Box<Waiting>),
    /// Nothing to do before then, or before somebody comes or leaves.
    Rest(Option<Instant>),
}

impl Line {
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            turns: FIRST_TURN,
            salvage_turns: 0,
            waiting: BTreeMap::new(),
            tenants: HashMap::new(),
            level: 0.0,
            places: HashMap::new(),
            calling: HashSet::new(),
            not_before: None,
        }
    }

    pub fn set_bounds(&mut self, bounds: Bounds) {
        self.bounds = bounds;
    }

    /// What there is, and what there may be.
    pub fn standing(&self) -> (Load, Bounds) {
        (self.load(), self.bounds)
    }

    pub fn load(&self) -> Load {
        Load { running: self.places.values().sum(), tasks: self.places.len(), waiting: self.waiting.len() }
    }

    pub fn waiting_of(&self, tenant: &str) -> usize {
        self.waiting.values().filter(|waiting| &*waiting.tenant == tenant).count()
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.calling.is_empty()
    }

    /// False when it waits already, or is just being launched.
    pub fn join(&mut self, waiting: Waiting) -> bool {
        if self.is_busy_with(&waiting.egress_id) {
            return false;
        }
        // Its task was never heard of: the place is to be earned again.
        self.places.remove(&waiting.egress_id);
        let turns = match waiting.errand {
            Errand::Record => &mut self.turns,
            Errand::Salvage => &mut self.salvage_turns,
        };
        *turns += 1;
        let share = self.tenants.entry(Arc::clone(&waiting.tenant)).or_default();
        share.used = share.used.max(self.level);
        self.waiting.insert(*turns, waiting);
        true
    }

    pub fn knows(&self, egress_id: &EgressId) -> bool {
        self.places.contains_key(egress_id) || self.waiting.values().any(|waiting| waiting.egress_id == *egress_id)
    }

    /// It waits here, or its launch is in hand.
    pub fn is_busy_with(&self, egress_id: &EgressId) -> bool {
        self.calling.contains(egress_id) || self.waiting.values().any(|waiting| waiting.egress_id == *egress_id)
    }

    /// A task that runs without having been launched here (adopted) takes its place.
    pub fn occupy(&mut self, egress_id: &EgressId, weight: f64) {
        self.places.entry(egress_id.clone()).or_insert(weight);
    }

    /// Who has a place and is not just being launched.
    pub fn seated(&self) -> Vec<EgressId> {
        self.places.keys().filter(|id| !self.calling.contains(*id)).cloned().collect()
    }

    /// The egress is over, or was never to be: its place is free, its turn is gone.
    pub fn leave(&mut self, egress_id: &EgressId) {
        self.places.remove(egress_id);
        self.waiting.retain(|_, waiting| waiting.egress_id != *egress_id);
        // The place may be what some tenant waits for.
        self.tenants.values_mut().for_each(|share| share.not_before = None);
        self.forget_tenants();
    }

    /// The launch is no longer in hand; the task, if any, keeps its place.
    pub fn landed(&mut self, egress_id: &EgressId) {
        self.calling.remove(egress_id);
    }

    /// Back into the line, at the old turn.
    pub fn put_back(&mut self, turn: u64, waiting: Waiting, until: Instant, holds: Holds) {
        self.landed(&waiting.egress_id);
        self.places.remove(&waiting.egress_id);
        let share = self.tenants.entry(Arc::clone(&waiting.tenant)).or_default();
        if waiting.errand == Errand::Record {
            share.used -= 1.0 / waiting.weight_of_tenant();
        }
        let later = |earlier: Option<Instant>| Some(earlier.map_or(until, |earlier| earlier.max(until)));
        let mut waiting = waiting;
        match holds {
            Holds::Everybody => self.not_before = later(self.not_before),
            Holds::Tenant => share.not_before = later(share.not_before),
            Holds::Himself => waiting.not_before = Some(until),
        }
        self.waiting.insert(turn, waiting);
    }

    pub fn next(&mut self, now: Instant) -> Step {
        if let Some(turn) = self.waiting.iter().find(|(_, waiting)| waiting.deadline <= now).map(|(turn, _)| *turn)
            && let Some(waiting) = self.waiting.remove(&turn)
        {
            self.forget_tenants();
            return Step::GiveUp(Box::new(waiting));
        }
        let mut until = self.waiting.values().map(|waiting| waiting.deadline).min();
        let mut sooner = |at: Instant| until = Some(until.map_or(at, |until| until.min(at)));
        if let Some(not_before) = self.not_before.filter(|not_before| *not_before > now) {
            sooner(not_before);
            return Step::Rest(until);
        }
        self.not_before = None;
        if self.calling.len() >= MOST_IN_FLIGHT {
            return Step::Rest(until);
        }
        let (load, bounds) = (self.load(), self.bounds);
        let mut seen: HashSet<&str> = HashSet::new();
        let mut best: Option<(f64, u64)> = None;
        for (turn, waiting) in &self.waiting {
            if let Some(not_before) = waiting.not_before.filter(|not_before| *not_before > now) {
                sooner(not_before);
                continue;
            }
            if waiting.errand == Errand::Salvage {
                best = Some((f64::NEG_INFINITY, *turn));
                break;
            }
            // Of each tenant the first that may go.
            if !seen.insert(&waiting.tenant) {
                continue;
            }
            let share = self.tenants.get(&waiting.tenant).copied().unwrap_or_default();
            if let Some(not_before) = share.not_before.filter(|not_before| *not_before > now) {
                sooner(not_before);
                continue;
            }
            if best.is_none_or(|(used, _)| share.used < used) {
                best = Some((share.used, *turn));
            }
        }
        // Who is next waits for a place that is large enough; nobody overtakes him into a smaller one.
        let goes = best.map(|(_, turn)| turn).filter(|turn| {
            self.waiting
                .get(turn)
                .is_some_and(|next| next.errand == Errand::Salvage || admit::fits(next.weight, load, bounds))
        });
        let Some((turn, waiting)) = goes.and_then(|turn| Some((turn, self.waiting.remove(&turn)?))) else {
            return Step::Rest(until);
        };
        if waiting.errand == Errand::Record {
            let share = self.tenants.entry(Arc::clone(&waiting.tenant)).or_default();
            self.level = self.level.max(share.used);
            share.used += 1.0 / waiting.weight_of_tenant();
        }
        self.places.insert(waiting.egress_id.clone(), waiting.weight);
        self.calling.insert(waiting.egress_id.clone());
        Step::Launch(turn, Box::new(waiting))
    }

    /// Of who does not wait nothing need be remembered once the others have caught up.
    fn forget_tenants(&mut self) {
        let waiting: HashSet<Arc<str>> = self.waiting.values().map(|waiting| Arc::clone(&waiting.tenant)).collect();
        let level = self.level;
        self.tenants.retain(|tenant, share| waiting.contains(tenant) || share.used > level);
    }
}

impl Waiting {
    fn weight_of_tenant(&self) -> f64 {
        if self.dispatch.share > 0.0 { self.dispatch.share } else { 1.0 }
    }
}

/// How long to leave a launcher alone that has no room and does not say for how long.
pub const NO_ROOM_PAUSE: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn of(tenant: &str, share: f64, name: &str, now: Instant) -> Waiting {
        Waiting {
            egress_id: EgressId::parse(name).unwrap(),
            attempt: 1,
            errand: Errand::Record,
            weight: 1.0,
            tenant: tenant.into(),
            dispatch: Dispatch { share, ..Dispatch::default() },
            since: now,
            deadline: now + 10 * SECOND,
            not_before: None,
            words: String::new(),
        }
    }

    fn waiting(name: &str, now: Instant) -> Waiting {
        of("", 1.0, name, now)
    }

    fn launched(line: &mut Line, now: Instant) -> Option<(u64, Waiting)> {
        match line.next(now) {
            Step::Launch(turn, waiting) => Some((turn, *waiting)),
            _ => None,
        }
    }

    fn order(line: &mut Line, now: Instant) -> Vec<String> {
        std::iter::from_fn(|| launched(line, now)).map(|(_, it)| it.egress_id.to_string()).collect()
    }

    fn unbounded() -> Line {
        Line::new(Bounds { cores: None, tasks: None, queue: 9 })
    }

    #[tokio::test(start_paused = true)]
    async fn a_freed_place_goes_to_the_first() {
        let now = Instant::now();
        let mut line = Line::new(Bounds { cores: Some(1.0), tasks: None, queue: 9 });
        for name in ["EG_a", "EG_b", "EG_c"] {
            assert!(line.join(waiting(name, now)));
        }
        assert!(!line.join(waiting("EG_b", now)), "a retry does not wait twice");
        let (_, first) = launched(&mut line, now).unwrap();
        line.landed(&first.egress_id);
        assert!(matches!(line.next(now), Step::Rest(Some(until)) if until == now + 10 * SECOND));
        line.leave(&first.egress_id);
        assert_eq!(launched(&mut line, now).unwrap().1.egress_id.as_str(), "EG_b");
    }

    #[tokio::test(start_paused = true)]
    async fn a_salvage_goes_first_and_needs_no_place() {
        let now = Instant::now();
        let mut line = Line::new(Bounds { cores: Some(1.0), tasks: Some(1), queue: 9 });
        line.join(waiting("EG_a", now));
        let (_, first) = launched(&mut line, now).unwrap();
        line.landed(&first.egress_id);
        line.join(waiting("EG_b", now));
        line.join(Waiting { errand: Errand::Salvage, ..waiting("EG_c", now) });
        assert_eq!(launched(&mut line, now).unwrap().1.egress_id.as_str(), "EG_c");
        assert!(launched(&mut line, now).is_none(), "the house is full");
    }

    #[tokio::test(start_paused = true)]
    async fn patience_holds_whom_it_is_asked_of_and_keeps_the_order() {
        let now = Instant::now();
        let mut line = unbounded();
        for name in ["EG_a", "EG_b", "EG_c"] {
            line.join(waiting(name, now));
        }
        let (a_turn, a) = launched(&mut line, now).unwrap();
        let (b_turn, b) = launched(&mut line, now).unwrap();
        line.put_back(b_turn, b, now + 2 * SECOND, Holds::Everybody);
        line.put_back(a_turn, a, now + SECOND, Holds::Everybody);
        assert!(matches!(line.next(now + SECOND), Step::Rest(Some(until)) if until == now + 2 * SECOND));
        let later = now + 2 * SECOND;
        let (a_turn, a) = launched(&mut line, later).unwrap();
        assert_eq!(a.egress_id.as_str(), "EG_a");
        line.put_back(a_turn, a, later + SECOND, Holds::Himself);
        assert_eq!(order(&mut line, later), ["EG_b", "EG_c"]);
        assert_eq!(order(&mut line, later + SECOND), ["EG_a"]);
    }

    #[tokio::test(start_paused = true)]
    async fn tenants_take_turns_by_weight_and_none_is_owed_the_past() {
        let now = Instant::now();
        let mut line = unbounded();
        for n in 0..8 {
            line.join(of("many", 1.0, &format!("EG_m{n}"), now));
        }
        assert_eq!(launched(&mut line, now).unwrap().1.egress_id.as_str(), "EG_m0");
        assert_eq!(launched(&mut line, now).unwrap().1.egress_id.as_str(), "EG_m1");
        for n in 0..2 {
            line.join(of("few", 1.0, &format!("EG_f{n}"), now));
        }
        for n in 0..4 {
            line.join(of("heavy", 2.0, &format!("EG_h{n}"), now));
        }
        let went = order(&mut line, now);
        let before = |name: &str| went.iter().position(|it| it == name).unwrap();
        assert!(before("EG_f1") <= 6, "{went:?}");
        assert!(before("EG_h3") <= 9 && before("EG_h1") < before("EG_f1"), "{went:?}");
        assert!(before("EG_m3") < before("EG_m4") && went.len() == 12, "{went:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_tenant_whose_places_are_taken_holds_up_nobody_else() {
        let now = Instant::now();
        let mut line = unbounded();
        for name in ["EG_a", "EG_b"] {
            line.join(of("full", 1.0, name, now));
        }
        line.join(of("free", 1.0, "EG_c", now));
        let (turn, a) = launched(&mut line, now).unwrap();
        line.put_back(turn, a, now + SECOND, Holds::Tenant);
        assert_eq!(order(&mut line, now), ["EG_c"]);
        line.leave(&EgressId::parse("EG_elsewhere").unwrap());
        assert_eq!(order(&mut line, now), ["EG_a", "EG_b"], "a place became free");
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_too_long_is_given_up_even_while_everybody_waits() {
        let now = Instant::now();
        let mut line = unbounded();
        line.join(waiting("EG_a", now));
        let (turn, a) = launched(&mut line, now).unwrap();
        line.put_back(turn, a, now + 60 * SECOND, Holds::Everybody);
        assert!(matches!(line.next(now), Step::Rest(Some(until)) if until == now + 10 * SECOND));
        assert!(matches!(line.next(now + 10 * SECOND), Step::GiveUp(_)));
        assert!(line.is_empty());
    }
}
