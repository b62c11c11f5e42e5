//! When a stream that failed is tried again, and when it is given up; the same for every protocol. Pure: faults go in with
//! the time.
//!
//! A stream that never was accepted gets three tries, for a wrong URL must be told within seconds. One that has lived for
//! two seconds gets 30 s after each loss; nginx-rtmp accepts what it is about to refuse, so being accepted proves nothing.

use std::time::{Duration, Instant};

const FIRST_ATTEMPTS: u32 = 3;
const FIRST_WAIT: Duration = Duration::from_secs(1);
const MIN_WAIT: Duration = Duration::from_millis(50);
const MAX_WAIT: Duration = Duration::from_secs(2);
/// After the loss of a stream that lived.
const GIVE_UP_AFTER: Duration = Duration::from_secs(30);
/// So long a connection has to live to count.
const MIN_LIFE: Duration = Duration::from_secs(2);

/// What follows a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryDecision {
    /// Another attempt, so much later.
    After(Duration),
    /// The fault is final.
    GiveUp,
}

/// The attempts of one stream.
#[derive(Debug, Default)]
pub struct RetryBudget {
    failed: u32,
    has_lived: bool,
    published_at: Option<Instant>,
    failing_since: Option<Instant>,
}

impl RetryBudget {
    /// The server accepted the stream.
    pub const fn published(&mut self, now: Instant) {
        self.published_at = Some(now);
    }

    /// An attempt failed, or an accepted stream broke. `is_final`: it ends a stream that has not lived, because the server
    /// has refused it or a second try would take longer than a user waits for the reason.
    pub fn failed(&mut self, now: Instant, is_final: bool) -> RetryDecision {
        self.failed += 1;
        let life = self.published_at.take().map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        if life >= MIN_LIFE {
            (self.has_lived, self.failing_since) = (true, None);
        }
        if !self.has_lived {
            let is_over = is_final || self.failed >= FIRST_ATTEMPTS;
            return if is_over { RetryDecision::GiveUp } else { RetryDecision::After(FIRST_WAIT) };
        }
        let failing = now.saturating_duration_since(*self.failing_since.get_or_insert(now));
        match GIVE_UP_AFTER.checked_sub(failing) {
            None | Some(Duration::ZERO) => RetryDecision::GiveUp,
            // As long again as it has failed already.
            Some(left) => RetryDecision::After(failing.clamp(MIN_WAIT, MAX_WAIT).min(left)),
        }
    }

    /// Attempts and connections that failed so far.
    pub const fn failures(&self) -> u32 {
        self.failed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNREACHABLE: bool = false;
    const LOST: bool = false;
    const REFUSED: bool = true;

    #[test]
    fn three_attempts_a_second_apart_come_before_the_first_life() {
        let (now, mut budget) = (Instant::now(), RetryBudget::default());
        assert_eq!(budget.failed(now, UNREACHABLE), RetryDecision::After(FIRST_WAIT));
        // Accepted for a moment.
        budget.published(now);
        assert_eq!(budget.failed(now + Duration::from_secs(1), LOST), RetryDecision::After(FIRST_WAIT));
        assert_eq!(budget.failed(now + Duration::from_secs(2), UNREACHABLE), RetryDecision::GiveUp);
    }

    #[test]
    fn a_refusal_at_first_is_final() {
        let mut budget = RetryBudget::default();
        assert_eq!(budget.failed(Instant::now(), REFUSED), RetryDecision::GiveUp);
        assert!(!budget.has_lived);
    }

    /// Waits and their sum until it is given up, when each attempt takes so long.
    fn waits(budget: &mut RetryBudget, from: Instant, attempt: Duration) -> (Vec<Duration>, Duration) {
        let (mut now, mut waits) = (from, vec![]);
        while let RetryDecision::After(wait) = budget.failed(now, REFUSED) {
            waits.push(wait);
            now += wait + attempt;
        }
        (waits, now - from)
    }

    #[test]
    fn a_stream_that_lived_has_thirty_seconds_even_when_it_is_refused() {
        let (now, mut budget) = (Instant::now(), RetryBudget::default());
        budget.published(now);
        let (waits, sum) = waits(&mut budget, now + MIN_LIFE, Duration::from_millis(10));
        assert!(budget.has_lived);
        assert_eq!(waits[..3], [50, 60, 130].map(Duration::from_millis));
        assert!(waits.iter().all(|wait| *wait <= MAX_WAIT) && waits.len() > 15, "{waits:?}");
        assert!(sum >= GIVE_UP_AFTER && sum < GIVE_UP_AFTER + Duration::from_secs(1), "{sum:?}");
    }

    #[test]
    fn only_a_life_of_two_seconds_refills_the_budget() {
        let (now, mut budget) = (Instant::now(), RetryBudget::default());
        budget.published(now);
        let lost_at = now + MIN_LIFE;
        assert_eq!(budget.failed(lost_at, LOST), RetryDecision::After(MIN_WAIT));
        budget.published(lost_at + Duration::from_secs(25));
        assert_eq!(budget.failed(lost_at + Duration::from_secs(26), LOST), RetryDecision::After(MAX_WAIT));
        budget.published(lost_at + Duration::from_secs(28));
        assert_eq!(budget.failed(lost_at + Duration::from_secs(30), LOST), RetryDecision::After(MIN_WAIT));
        assert_eq!(budget.failed(lost_at + Duration::from_secs(60), LOST), RetryDecision::GiveUp);
        assert_eq!(budget.failures(), 4);
    }
}
