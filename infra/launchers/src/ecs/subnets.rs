//! The subnets that a request names: all of them, as long as none is known to be full. ECS does not say in which of several it
//! found no capacity, so for a minute after a refusal they are named one by one, and a full one is left out. Pure: the time
//! is an argument.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

/// How long a subnet, and with it its availability zone, counts as full.
const COLD: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(super) struct Subnets {
    all: Vec<String>,
    cold_until: HashMap<String, Instant>,
    one_by_one_until: Option<Instant>,
    next: usize,
}

impl Subnets {
    /// None is full.
    pub fn new(all: Vec<String>) -> Self {
        Self { all, ..Self::default() }
    }

    /// Subnets for the next request.
    pub fn pick(&mut self, now: Instant) -> Vec<String> {
        self.cold_until.retain(|_, until| *until > now);
        let warm: Vec<&String> = self.all.iter().filter(|it| !self.cold_until.contains_key(*it)).collect();
        if warm.is_empty() {
            // All are full: the request has the best chance with all of them.
            return self.all.clone();
        }
        if self.one_by_one_until.is_none_or(|until| until <= now) {
            return warm.into_iter().cloned().collect();
        }
        self.next = self.next.wrapping_add(1);
        vec![warm[self.next % warm.len()].clone()]
    }

    /// Notes that these had no capacity. True: another subnet may have some.
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
    fn all_are_named_until_one_is_full_and_then_one_by_one() {
        let (mut subnets, now) = (subnets(&["a", "b", "c"]), Instant::now());
        assert_eq!(subnets.pick(now), ["a", "b", "c"]);
        assert!(subnets.were_full(&["a".to_owned(), "b".to_owned(), "c".to_owned()], now));
        let mut named: Vec<String> = (0..3).flat_map(|_| subnets.pick(now)).collect();
        named.sort();
        assert_eq!(named, ["a", "b", "c"], "each is named once");
        assert_eq!(subnets.pick(now + COLD), ["a", "b", "c"]);
    }

    #[test]
    fn a_full_one_is_left_out_for_a_minute() {
        let (mut subnets, now) = (subnets(&["a", "b"]), Instant::now());
        assert!(subnets.were_full(&["b".to_owned()], now));
        assert!((0..4).all(|_| subnets.pick(now) == ["a"]));
        assert_eq!(subnets.pick(now + COLD), ["a", "b"]);
    }

    #[test]
    fn no_other_is_left_when_all_are_full() {
        let (mut subnets, now) = (subnets(&["a", "b"]), Instant::now());
        assert!(subnets.were_full(&["a".to_owned()], now));
        assert!(!subnets.were_full(&["b".to_owned()], now));
        assert_eq!(subnets.pick(now), ["a", "b"]);
        assert!(!subnets.were_full(&["a".to_owned(), "b".to_owned()], now));
        let mut only = self::subnets(&["a"]);
        assert!(!only.were_full(&["a".to_owned()], now));
    }
}
