//! Whether a server still takes what it is sent: counts of acknowledgements go in with the time of each step, the verdict that
//! they stand still comes out. Pure.

use std::time::{Duration, Instant};

use crate::output::step_clock::StepClock;

/// Without an acknowledgement for so long, while something was sent: the server is gone. libsrt itself waits 5 s.
const QUIET_LIMIT: Duration = Duration::from_secs(3);
/// How often [`AckWatch::step`] is to be called.
pub const SRT_STEP: Duration = Duration::from_millis(100);

/// Watches one connection from its first acknowledgement on.
#[derive(Debug)]
pub struct AckWatch {
    clock: StepClock,
    acks: u64,
    sent_at_ack: u64,
    /// Steps since the newest acknowledgement while one was due.
    quiet: Duration,
}

impl AckWatch {
    /// So many acknowledgements have come for so many bytes.
    pub const fn new(now: Instant, acks: u64, sent_bytes: u64) -> Self {
        Self { clock: StepClock::new(now), acks, sent_at_ack: sent_bytes, quiet: Duration::ZERO }
    }

    /// One step. `acks`: as counted by libsrt; `None`: it knows no connection. `sent_bytes`: given to it so far; `is_waiting`: it
    /// has not taken all of them. The answer is for how long the server has been quiet, when that is too long.
    pub fn step(&mut self, now: Instant, acks: Option<u64>, sent_bytes: u64, is_waiting: bool) -> Option<Duration> {
        let passed = self.clock.step(now);
        match acks {
            Some(acks) if acks != self.acks => {
                (self.acks, self.sent_at_ack, self.quiet) = (acks, sent_bytes, Duration::ZERO);
            }
            Some(_) if sent_bytes == self.sent_at_ack && !is_waiting => self.quiet = Duration::ZERO,
            Some(_) | None => self.quiet += passed,
        }
        Some(self.quiet).filter(|quiet| *quiet >= QUIET_LIMIT)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The step at which the server is found gone, of so many.
    fn gone_after(watch: &mut AckWatch, from: Instant, step: Duration, acks: Option<u64>, sent: u64) -> Option<u32> {
        (1..=100).find(|n| watch.step(from + step * *n, acks, sent, false).is_some())
    }

    #[test]
    fn acknowledgements_that_stand_still_are_found_after_three_seconds() {
        let now = Instant::now();
        let mut watch = AckWatch::new(now, 7, 1000);
        assert_eq!(gone_after(&mut watch, now, SRT_STEP, Some(7), 1000), None, "nothing was sent");
        let now = now + SRT_STEP * 100;
        assert_eq!(gone_after(&mut watch, now, SRT_STEP, Some(7), 1001), Some(30));
        let mut watch = AckWatch::new(now, 7, 1000);
        assert_eq!(gone_after(&mut watch, now, SRT_STEP, None, 1000), Some(30), "no connection is known");
        let mut acks = 7;
        let mut watch = AckWatch::new(now, acks, 0);
        for n in 1..200 {
            acks += u64::from(n % 25 == 0);
            assert_eq!(watch.step(now + SRT_STEP * n, Some(acks), u64::from(n), false), None);
        }
    }

    #[test]
    fn what_waits_is_due_though_nothing_more_is_sent() {
        let now = Instant::now();
        let mut watch = AckWatch::new(now, 7, 1000);
        let found = (1..=100).find(|n| watch.step(now + SRT_STEP * *n, Some(7), 1000, true).is_some());
        assert_eq!(found, Some(30));
    }

    #[test]
    fn a_process_that_was_stopped_does_not_blame_the_server() {
        let now = Instant::now();
        let mut watch = AckWatch::new(now, 7, 0);
        assert_eq!(watch.step(now + Duration::from_secs(6), Some(7), 10, false), None);
        assert_eq!(watch.step(now + Duration::from_secs(7), Some(8), 20, false), None);
        assert_eq!(gone_after(&mut watch, now + Duration::from_secs(7), Duration::from_secs(1), Some(8), 30), Some(10));
    }

    proptest! {
        /// Whatever libsrt counts, also backwards.
        #[test]
        fn a_verdict_takes_three_seconds_and_comes(
            steps in proptest::collection::vec((0u64..900, proptest::option::of(0u64..4), 0u64..3), 1..200),
        ) {
            let mut now = Instant::now();
            let (mut watch, mut sent) = (AckWatch::new(now, 0, 0), 0);
            // Since the last change, the longest and the shortest that may have been counted.
            let (mut acks_before, mut elapsed) = (0, Duration::ZERO);
            for (ms, acks, bytes) in steps {
                now += Duration::from_millis(ms);
                sent += bytes;
                let told = watch.step(now, acks, sent, false);
                match acks {
                    Some(acks) if acks != acks_before => (acks_before, elapsed) = (acks, Duration::ZERO),
                    _ => elapsed += Duration::from_millis(ms),
                }
                if let Some(quiet) = told {
                    prop_assert!(elapsed >= QUIET_LIMIT && quiet >= QUIET_LIMIT, "{elapsed:?}");
                    return Ok(());
                }
            }
            // Nothing is acknowledged any more, and it is found.
            let found = (1..=40).find(|n| watch.step(now + SRT_STEP * *n, Some(acks_before), sent + 1, false).is_some());
            prop_assert!(found.is_some());
        }
    }
}
