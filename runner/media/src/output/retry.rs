//! When a stream that failed is tried again, and when it is given up; the same for every protocol. Pure: faults go in with
//! the time.
//!
//! A stream that never was accepted gets three tries, for a wrong URL must be told within seconds. One that has lived for
//! two seconds gets 30 s after each loss; nginx-rtmp accepts what it is about to refuse, so being accepted proves nothing:
//! its `publish` handler sends `NetStream.Publish.Start` before that of `deny publish` ends the session.

use std::time::{Duration, Instant};

/// Of those that were not accepted, and of connections that were and broke before they had lived.
const FIRST_ATTEMPTS: u32 = 3;
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// After a connection that was accepted: a server that refuses the stream is to be known within a second.
const ACCEPTED_WAIT: Duration = Duration::from_millis(200);
/// A server that accepts and closes so often refuses. Once it may be one that is shut down.
const MAX_DROPS: u32 = 2;
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

/// What a fault is to a stream that has not lived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstFault {
    /// It may pass: an unreachable server, a connection that broke.
    Passing,
    /// The server accepted the stream and closed the connection at once. The second time it is a refusal.
    Dropped,
    /// The stream has a publisher. One that was accepted before may be that publisher itself, as long as the server has not
    /// seen the end of its connection.
    InUse,
    /// Another try would not help, or take longer than a user waits for the reason.
    Final,
}

/// The attempts of one stream.
#[derive(Debug, Default)]
pub struct RetryBudget {
    failed: u32,
    first: FirstFaults,
    has_lived: bool,
    published_at: Option<Instant>,
    failing_since: Option<Instant>,
}

/// What failed before the stream has lived.
#[derive(Debug, Default)]
struct FirstFaults {
    /// Attempts that were not accepted.
    not_accepted: u32,
    /// Connections that were accepted and broke.
    broken: u32,
    /// Those of them that the server closed at once.
    dropped: u32,
}

impl RetryBudget {
    /// The server accepted the stream.
    pub const fn published(&mut self, now: Instant) {
        self.published_at = Some(now);
    }

    /// The connection that there is now, or has just ended, was accepted.
    pub const fn is_published(&self) -> bool {
        self.published_at.is_some()
    }

    /// An attempt failed, or an accepted stream broke. `first`: what that is to a stream that has not lived.
    pub fn failed(&mut self, now: Instant, first: FirstFault) -> RetryDecision {
        self.failed += 1;
        let published_at = self.published_at.take();
        let life = published_at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        if life >= MIN_LIFE {
            (self.has_lived, self.failing_since) = (true, None);
        }
        if !self.has_lived {
            return self.first.failed(first, published_at.is_some());
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

impl FirstFaults {
    fn failed(&mut self, fault: FirstFault, was_accepted: bool) -> RetryDecision {
        let may_be_ours = fault == FirstFault::InUse && self.broken > 0;
        if was_accepted {
            self.broken += 1;
        } else {
            self.not_accepted += 1;
        }
        let is_refusal = match fault {
            FirstFault::Passing => false,
            FirstFault::Dropped => {
                self.dropped += 1;
                self.dropped >= MAX_DROPS
            }
            FirstFault::InUse => !may_be_ours,
            FirstFault::Final => true,
        };
        if is_refusal || self.not_accepted >= FIRST_ATTEMPTS || self.broken >= FIRST_ATTEMPTS {
            return RetryDecision::GiveUp;
        }
        RetryDecision::After(if was_accepted || may_be_ours { ACCEPTED_WAIT } else { FIRST_WAIT })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNREACHABLE: FirstFault = FirstFault::Passing;
    const LOST: FirstFault = FirstFault::Passing;
    const REFUSED: FirstFault = FirstFault::Final;

    #[test]
    fn three_attempts_a_second_apart_come_before_the_first_life() {
        let (now, mut budget) = (Instant::now(), RetryBudget::default());
        assert_eq!(budget.failed(now, UNREACHABLE), RetryDecision::After(FIRST_WAIT));
        assert_eq!(budget.failed(now + Duration::from_secs(1), UNREACHABLE), RetryDecision::After(FIRST_WAIT));
        assert_eq!(budget.failed(now + Duration::from_secs(2), UNREACHABLE), RetryDecision::GiveUp);
    }

    /// A connection that was accepted and broke a moment later.
    fn accepted(budget: &mut RetryBudget, now: Instant, fault: FirstFault) -> RetryDecision {
        budget.published(now);
        budget.failed(now + Duration::from_millis(5), fault)
    }

    #[test]
    fn a_server_that_accepts_and_closes_twice_refuses() {
        let (now, mut budget) = (Instant::now(), RetryBudget::default());
        assert_eq!(accepted(&mut budget, now, FirstFault::Dropped), RetryDecision::After(ACCEPTED_WAIT));
        assert_eq!(accepted(&mut budget, now + ACCEPTED_WAIT, FirstFault::Dropped), RetryDecision::GiveUp);
    }

    #[test]
    fn one_that_closes_because_it_restarts_gets_its_three_attempts() {
        let (now, mut budget) = (Instant::now(), RetryBudget::default());
        assert_eq!(accepted(&mut budget, now, FirstFault::Dropped), RetryDecision::After(ACCEPTED_WAIT));
        assert_eq!(budget.failed(now, UNREACHABLE), RetryDecision::After(FIRST_WAIT));
        assert_eq!(budget.failed(now, UNREACHABLE), RetryDecision::After(FIRST_WAIT));
        assert_eq!(budget.failed(now, UNREACHABLE), RetryDecision::GiveUp);
    }

    #[test]
    fn a_young_stream_that_breaks_is_tried_again_soon_and_not_for_ever() {
        let (now, mut budget) = (Instant::now(), RetryBudget::default());
        assert_eq!(accepted(&mut budget, now, LOST), RetryDecision::After(ACCEPTED_WAIT));
        assert_eq!(accepted(&mut budget, now, LOST), RetryDecision::After(ACCEPTED_WAIT));
        assert_eq!(accepted(&mut budget, now, LOST), RetryDecision::GiveUp);
    }

    #[test]
    fn a_key_in_use_is_a_refusal_unless_the_stream_may_have_it_itself() {
        let now = Instant::now();
        assert_eq!(RetryBudget::default().failed(now, FirstFault::InUse), RetryDecision::GiveUp);
        let mut budget = RetryBudget::default();
        assert_eq!(accepted(&mut budget, now, LOST), RetryDecision::After(ACCEPTED_WAIT));
        assert_eq!(budget.failed(now, FirstFault::InUse), RetryDecision::After(ACCEPTED_WAIT));
        assert_eq!(budget.failed(now, FirstFault::InUse), RetryDecision::After(ACCEPTED_WAIT));
        assert_eq!(budget.failed(now, FirstFault::InUse), RetryDecision::GiveUp);
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
