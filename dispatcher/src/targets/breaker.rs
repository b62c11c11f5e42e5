//! The circuit breaker of one target: outcomes of launch calls and times go in, whether it is worth asking comes out. Pure.

use std::time::Duration;

use tokio::time::Instant;

/// A breaker's first pause; it doubles each time the target fails again right after it.
const FIRST_PAUSE: Duration = Duration::from_secs(10);
const MAX_PAUSE: Duration = Duration::from_secs(120);

/// Outcome of a launch call, as far as it says something about the target; the text is the platform's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LaunchOutcome {
    /// Closes the breaker.
    Launched,
    /// No machine or no quota left.
    NoCapacity(String),
    /// No answer, or an error that may pass.
    Failed(String),
    /// An error that only an operator can mend.
    Impossible(String),
}

/// Circuit breaker of one target: opens after a streak of failures of one kind, for 10 s and twice as long after each
/// relapse, up to 120 s. Pure; each dispatcher has its own.
#[derive(Debug, Default)]
pub struct Breaker {
    /// Failures of each kind in a row.
    no_capacity: u32,
    failed: u32,
    impossible: u32,
    pause: Duration,
    open: Option<Open>,
}

/// An open breaker.
#[derive(Clone, Debug)]
pub struct Open {
    /// The target is not asked before then.
    pub until: Instant,
    /// The failure that opened it.
    pub message: String,
}

impl Breaker {
    /// Takes one outcome into account.
    pub fn on(&mut self, outcome: LaunchOutcome, now: Instant) {
        let (streak, bound, message) = match outcome {
            LaunchOutcome::Launched => return *self = Self::default(),
            // One machine that is not available says little about the next.
            LaunchOutcome::NoCapacity(message) => (&mut self.no_capacity, 3, message),
            LaunchOutcome::Failed(message) => (&mut self.failed, 5, message),
            LaunchOutcome::Impossible(message) => (&mut self.impossible, 2, message),
        };
        *streak += 1;
        // Calls from before it opened may still fail while it is open; they say nothing new.
        if *streak < bound || self.open.as_ref().is_some_and(|open| open.until > now) {
            return;
        }
        self.pause = (self.pause * 2).clamp(FIRST_PAUSE, MAX_PAUSE);
        self.open = Some(Open { until: now + self.pause, message });
    }

    /// `None`: ask. After the pause the first failure opens it again, for longer.
    pub fn open(&self, now: Instant) -> Option<&Open> {
        self.open.as_ref().filter(|open| open.until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn no_room() -> LaunchOutcome {
        LaunchOutcome::NoCapacity("full".to_owned())
    }

    #[tokio::test(start_paused = true)]
    async fn a_streak_opens_it_and_each_relapse_for_longer() {
        let mut now = Instant::now();
        let mut breaker = Breaker::default();
        breaker.on(no_room(), now);
        breaker.on(no_room(), now);
        breaker.on(LaunchOutcome::Launched, now);
        breaker.on(no_room(), now);
        breaker.on(no_room(), now);
        assert!(breaker.open(now).is_none(), "no streak");
        breaker.on(no_room(), now);
        for pause in [10, 20, 40, 80, 120, 120] {
            let open = breaker.open(now).unwrap();
            assert_eq!((open.until, open.message.as_str()), (now + pause * SECOND, "full"));
            breaker.on(no_room(), now + SECOND);
            now += pause * SECOND;
            assert!(breaker.open(now).is_none(), "it is tried again");
            breaker.on(no_room(), now);
        }
        now += 120 * SECOND;
        breaker.on(LaunchOutcome::Launched, now);
        breaker.on(no_room(), now);
        assert!(breaker.open(now).is_none(), "all is forgiven");
    }

    #[tokio::test(start_paused = true)]
    async fn kinds_of_failures_are_counted_apart() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        for _ in 0..2 {
            breaker.on(no_room(), now);
            breaker.on(LaunchOutcome::Failed("hiccup".to_owned()), now);
        }
        breaker.on(LaunchOutcome::Impossible("no right".to_owned()), now);
        assert!(breaker.open(now).is_none());
        breaker.on(LaunchOutcome::Impossible("no right".to_owned()), now);
        assert_eq!(breaker.open(now).unwrap().message, "no right");
    }
}
