//! Where a task may be placed: all subnets at once, as long as none is known to be full. ECS does not say in which of several
//! it found nothing, so for a while after that they are named one by one, and one that was full is left out. Pure: time is
//! an argument.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

/// A subnet, and with it its availability zone, is full for so long.
const COLD: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(super) struct Subnets {
    all: Vec<String>,
    cold_until: HashMap<String, Instant>,
    one_by_one_until: Option<Instant>,
    launch_lock: usize,
}

impl Subnets {
    pub fn new(all: Vec<String>) -> Self {
        Self { all, ..Self::default() }
    }

    /// To be named in the next request.
    pub fn pick(&mut self, now: Instant) -> Vec<String> {
        self.cold_until.retain(|_, until| *until > now);
        let warm: Vec<&String> = self.all.iter().filter(|it| !self.cold_until.contains_key(*it)).collect();
        if warm.is_empty() {
            // Whoever asks all the same shall have every chance.
            return self.all.clone();
        }
        if self.one_by_one_until.is_none_or(|until| until <= now) {
            return warm.into_iter().cloned().collect();
        }
        self.launch_lock = self.launch_lock.wrapping_add(1);
        vec![warm[self.launch_lock % warm.len()].clone()]
    }

    /// There was no room in these. True: in another there may be.
    pub fn were_full(&mut self, named: &[String], now: Instant) -> bool {
        if let [subnet] = named {
            self.cold_until.insert(subnet.clone(), now + COLD);
        } else if self.all.iter().all(|it| self.cold_until.contains_key(it)) {
            return false;
        }
        self.one_by_one_until = Some(now + COLD);
        self.all.iter().any(|it| !self.cold_until.contains_key(it))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnets(all: &[&str]) -> Subnets {
        Subnets::new(all.iter().map(|it| (*it).to_owned()).collect())
    }

    #[test]
    fn all_are_named_until_there_was_no_room_and_then_one_by_one() {
        let (mut subnets, now) = (subnets(&["a", "b", "c"]), Instant::now());
        assert_eq!(subnets.pick(now), ["a", "b", "c"]);
        assert!(subnets.were_full(&["a".to_owned(), "b".to_owned(), "c".to_owned()], now));
        let mut named: Vec<String> = (0..3).flat_map(|_| subnets.pick(now)).collect();
        named.sort();
        assert_eq!(named, ["a", "b", "c"], "each has its turn");
        assert_eq!(subnets.pick(now + COLD), ["a", "b", "c"]);
    }

    #[test]
    fn one_that_was_full_is_left_out_for_a_while() {
        let (mut subnets, now) = (subnets(&["a", "b"]), Instant::now());
        assert!(subnets.were_full(&["b".to_owned()], now));
        assert!((0..4).all(|_| subnets.pick(now) == ["a"]));
        assert_eq!(subnets.pick(now + COLD), ["a", "b"]);
    }

    #[test]
    fn nowhere_else_is_said_when_all_are_full() {
        let (mut subnets, now) = (subnets(&["a", "b"]), Instant::now());
        assert!(subnets.were_full(&["a".to_owned()], now));
        assert!(!subnets.were_full(&["b".to_owned()], now));
        assert_eq!(subnets.pick(now), ["a", "b"]);
        assert!(!subnets.were_full(&["a".to_owned(), "b".to_owned()], now));
        let mut only = self::subnets(&["a"]);
        assert!(!only.were_full(&["a".to_owned()], now));
    }
}
