//! When a stream that failed is tried again, and when it is given up. Pure: faults go in with the time.
//!
//! A stream that never was accepted gets three tries, for a wrong URL must be told within seconds. One that has lived for
//! two seconds gets 30 s after each loss; nginx-rtmp accepts what it is about to refuse, so being accepted proves nothing.

use std::time::{Duration, Instant};

use super::fault::RtmpFault;

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

    /// An attempt failed, or an accepted stream broke.
    pub fn failed(&mut self, now: Instant, fault: &RtmpFault) -> RetryDecision {
        self.failed += 1;
        let life = self.published_at.take().map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        if life >= MIN_LIFE {
            (self.has_lived, self.failing_since) = (true, None);
        }
        if !self.has_lived {
            let is_final = fault.is_final_at_first() || self.failed >= FIRST_ATTEMPTS;
            return if is_final { RetryDecision::GiveUp } else { RetryDecision::After(FIRST_WAIT) };
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

    fn unreachable() -> RtmpFault {
        RtmpFault::Connect { message: "refused".into() }
    }

    fn lost() -> RtmpFault {
        RtmpFault::Lost { message: "reset".into() }
    }

    fn refused() -> RtmpFault {
        RtmpFault::Refused { code: "NetStream.Publish.BadName".into(), description: String::new() }
    }

    #[test]
    fn three_attempts_a_second_apart_come_before_the_first_life() {
        let (now, mut budget) = (Instant::now(), RetryBudget::default());
        assert_eq!(budget.failed(now, &unreachable()), RetryDecision::After(FIRST_WAIT));
        // Accepted for a moment.
        budget.published(now);
        assert_eq!(budget.failed(now + Duration::from_secs(1), &lost()), RetryDecision::After(FIRST_WAIT));
        assert_eq!(budget.failed(now + Duration::from_secs(2), &unreachable()), RetryDecision::GiveUp);
    }

    #[test]
    fn a_refusal_or_silence_at_first_is_final() {
        let now = Instant::now();
        for fault in [refused(), RtmpFault::Closed { step: "publish" }, RtmpFault::Silent { step: "connect" }] {
            assert_eq!(RetryBudget::default().failed(now, &fault), RetryDecision::GiveUp, "{fault}");
        }
    }

    /// Waits and their sum until it is given up, when each attempt takes so long.
    fn waits(budget: &mut RetryBudget, from: Instant, attempt: Duration) -> (Vec<Duration>, Duration) {
        let (mut now, mut waits) = (from, vec![]);
        while let RetryDecision::After(wait) = budget.failed(now, &refused()) {
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
        assert_eq!(waits[..3], [50, 60, 130].map(Duration::from_millis));
        assert!(waits.iter().all(|wait| *wait <= MAX_WAIT) && waits.len() > 15, "{waits:?}");
        assert!(sum >= GIVE_UP_AFTER && sum < GIVE_UP_AFTER + Duration::from_secs(1), "{sum:?}");
    }

    #[test]
    fn only_a_life_of_two_seconds_refills_the_budget() {
        let (now, mut budget) = (Instant::now(), RetryBudget::default());
        budget.published(now);
        let lost_at = now + MIN_LIFE;
        assert_eq!(budget.failed(lost_at, &lost()), RetryDecision::After(MIN_WAIT));
        budget.published(lost_at + Duration::from_secs(25));
        assert_eq!(budget.failed(lost_at + Duration::from_secs(26), &lost()), RetryDecision::After(MAX_WAIT));
        budget.published(lost_at + Duration::from_secs(28));
        assert_eq!(budget.failed(lost_at + Duration::from_secs(30), &lost()), RetryDecision::After(MIN_WAIT));
        assert_eq!(budget.failed(lost_at + Duration::from_secs(60), &lost()), RetryDecision::GiveUp);
        assert_eq!(budget.failures(), 4);
    }
}
