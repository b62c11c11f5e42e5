//! Who waits for a place, and who goes next. Pure: time comes in as an argument.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use spillway_launchers::Errand;
use spillway_protocol::ids::EgressId;
use tokio::time::Instant;

use crate::admit::{self, Bounds, Load};

/// Launch calls in the air at once; a platform's API is slow, but not to be flooded.
const MOST_IN_FLIGHT: usize = 32;

#[derive(Clone, Debug)]
pub struct Waiting {
    pub egress_id: EgressId,
    pub attempt: u32,
    pub errand: Errand,
    pub claim: String,
    pub weight: f64,
    /// Not launched by then: given up.
    pub deadline: Instant,
    /// Why it waits, when the launcher said so.
    pub words: String,
}

/// Turns of recordings begin here; before them go those who only save what is recorded.
const FIRST_TURN: u64 = 1 << 32;

/// First come, first served; one who is put back keeps his turn.
#[derive(Debug)]
pub struct Line {
    bounds: Bounds,
    turns: u64,
    salvage_turns: u64,
    waiting: BTreeMap<u64, Waiting>,
    places: HashMap<EgressId, f64>,
    /// Their launch call is in the air.
    calling: HashSet<EgressId>,
    /// The launcher asked for patience until then.
    not_before: Option<Instant>,
}

#[derive(Debug)]
pub enum Step {
    Launch(u64, Waiting),
    GiveUp(Waiting),
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
            places: HashMap::new(),
            calling: HashSet::new(),
            not_before: None,
        }
    }

    pub fn load(&self) -> Load {
        Load { running: self.places.values().sum(), tasks: self.places.len(), waiting: self.waiting.len() }
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
        self.waiting.insert(*turns, waiting);
        true
    }

    pub fn knows(&self, egress_id: &EgressId) -> bool {
        self.places.contains_key(egress_id) || self.waiting.values().any(|waiting| waiting.egress_id == *egress_id)
    }

    /// It waits here, or its launch call is in the air.
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
    }

    /// The call is back and the task, if any, keeps its place.
    pub fn landed(&mut self, egress_id: &EgressId) {
        self.calling.remove(egress_id);
    }

    /// The launcher wants patience: back into the line, at the old turn, and nobody else before then.
    pub fn put_back(&mut self, turn: u64, waiting: Waiting, not_before: Instant) {
        self.landed(&waiting.egress_id);
        self.places.remove(&waiting.egress_id);
        self.waiting.insert(turn, waiting);
        self.not_before = Some(self.not_before.map_or(not_before, |earlier| earlier.max(not_before)));
    }

    pub fn next(&mut self, now: Instant) -> Step {
        if let Some(turn) = self.waiting.iter().find(|(_, waiting)| waiting.deadline <= now).map(|(turn, _)| *turn)
            && let Some(waiting) = self.waiting.remove(&turn)
        {
            return Step::GiveUp(waiting);
        }
        let first_deadline = self.waiting.values().map(|waiting| waiting.deadline).min();
        if let Some(not_before) = self.not_before.filter(|not_before| *not_before > now) {
            let until = first_deadline.map_or(not_before, |deadline| deadline.min(not_before));
            return Step::Rest(Some(until));
        }
        self.not_before = None;
        let load = self.load();
        match self.waiting.first_entry() {
            Some(first)
                if self.calling.len() < MOST_IN_FLIGHT
                    && (first.get().errand == Errand::Salvage
                        || admit::fits(first.get().weight, load, self.bounds)) =>
            {
                let (turn, waiting) = first.remove_entry();
                self.places.insert(waiting.egress_id.clone(), waiting.weight);
                self.calling.insert(waiting.egress_id.clone());
                Step::Launch(turn, waiting)
            }
            _ => Step::Rest(first_deadline),
        }
    }
}

/// How long to leave a launcher alone that has no room and does not say for how long.
pub const NO_ROOM_PAUSE: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn waiting(name: &str, now: Instant) -> Waiting {
        Waiting {
            egress_id: EgressId::parse(name).unwrap(),
            attempt: 1,
            errand: Errand::Record,
            claim: String::new(),
            weight: 1.0,
            deadline: now + 10 * SECOND,
            words: String::new(),
        }
    }

    fn launched(line: &mut Line, now: Instant) -> Option<(u64, Waiting)> {
        match line.next(now) {
            Step::Launch(turn, waiting) => Some((turn, waiting)),
            _ => None,
        }
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
    async fn patience_asked_by_the_launcher_holds_everybody_and_keeps_the_order() {
        let now = Instant::now();
        let mut line = Line::new(Bounds { cores: None, tasks: None, queue: 9 });
        for name in ["EG_a", "EG_b", "EG_c"] {
            line.join(waiting(name, now));
        }
        let (a_turn, a) = launched(&mut line, now).unwrap();
        let (b_turn, b) = launched(&mut line, now).unwrap();
        line.put_back(b_turn, b, now + 2 * SECOND);
        line.put_back(a_turn, a, now + SECOND);
        assert!(matches!(line.next(now + SECOND), Step::Rest(Some(until)) if until == now + 2 * SECOND));
        let later = now + 2 * SECOND;
        let order: Vec<String> =
            std::iter::from_fn(|| launched(&mut line, later)).map(|(_, it)| it.egress_id.to_string()).collect();
        assert_eq!(order, ["EG_a", "EG_b", "EG_c"]);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_too_long_is_given_up_even_while_everybody_waits() {
        let now = Instant::now();
        let mut line = Line::new(Bounds { cores: None, tasks: None, queue: 9 });
        line.join(waiting("EG_a", now));
        let (turn, a) = launched(&mut line, now).unwrap();
        line.put_back(turn, a, now + 60 * SECOND);
        assert!(matches!(line.next(now), Step::Rest(Some(until)) if until == now + 10 * SECOND));
        assert!(matches!(line.next(now + 10 * SECOND), Step::GiveUp(_)));
        assert!(line.is_empty());
    }
}
