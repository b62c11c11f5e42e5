//! Whether a server still reads: pings and their answers go in with the time of each step, how late it is and the verdict that
//! it reads no more come out. Pure.
//!
//! A server that reads too slowly drops nothing: its kernel holds seconds of sound, 6 s after half a minute at 80 % of the
//! speed (measured). Only answers to pings tell, which stand behind that sound.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::output::step_clock::StepClock;

/// Behind by so much, or a write that takes so long: wedged.
const QUIET_LIMIT: Duration = Duration::from_secs(4);
/// How often [`PingWatch::step`] is to be called.
pub const WEBSOCKET_STEP: Duration = Duration::from_millis(250);
/// Between two pings.
const PING_INTERVAL: Duration = Duration::from_secs(1);
/// Pings that are remembered. Of a server that answers, there are never so many before the verdict.
const MAX_UNANSWERED: usize = 16;

/// Watches one open websocket.
#[derive(Debug)]
pub struct PingWatch {
    clock: StepClock,
    /// Sum of the steps.
    now: Duration,
    next_ping: u32,
    pinged: Option<Duration>,
    /// Number and time of each.
    unanswered: VecDeque<(u32, Duration)>,
    /// It answered a ping: from now on an answer is always due.
    has_answered: bool,
    /// Steps since the socket took something, while a write waited.
    blocked: Duration,
}

impl PingWatch {
    /// Of a websocket that is open now.
    pub const fn new(now: Instant) -> Self {
        Self {
            clock: StepClock::new(now),
            now: Duration::ZERO,
            next_ping: 0,
            pinged: None,
            unanswered: VecDeque::new(),
            has_answered: false,
            blocked: Duration::ZERO,
        }
    }

    /// One step. `is_writing`: a write waits. The answer is for how long the server has read nothing, when that is too long.
    pub fn step(&mut self, now: Instant, is_writing: bool) -> Option<Duration> {
        let passed = self.clock.step(now);
        self.now += passed;
        self.blocked = if is_writing { self.blocked + passed } else { Duration::ZERO };
        Some(self.lag().max(self.blocked)).filter(|quiet| *quiet >= QUIET_LIMIT)
    }

    /// Number of the ping that is to be sent now, if one is due.
    pub fn ping(&mut self) -> Option<u32> {
        if self.pinged.is_some_and(|at| self.now < at + PING_INTERVAL) {
            return None;
        }
        self.pinged = Some(self.now);
        let number = self.next_ping;
        self.next_ping = self.next_ping.wrapping_add(1);
        if self.unanswered.len() >= MAX_UNANSWERED {
            self.unanswered.pop_front();
        }
        self.unanswered.push_back((number, self.now));
        Some(number)
    }

    /// The server answered this ping, and with it all before it. Others are ignored: a server may say what it likes.
    pub fn ponged(&mut self, number: u32) {
        if let Some(place) = self.unanswered.iter().position(|(asked, _)| *asked == number) {
            self.unanswered.drain(..=place);
            self.has_answered = true;
        }
    }

    /// The socket took bytes.
    pub const fn wrote(&mut self) {
        self.blocked = Duration::ZERO;
    }

    /// How late the server reads; zero for one that answers no pings.
    pub fn lag(&self) -> Duration {
        let oldest = self.unanswered.front().filter(|_| self.has_answered);
        oldest.map_or(Duration::ZERO, |(_, at)| self.now.saturating_sub(*at))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::output::step_clock::MAX_STEP;

    /// Steps from here on, with pings as they are due and without answers; the step at which it is found wedged.
    fn wedged_after(watch: &mut PingWatch, from: Instant, step: Duration, writing: bool) -> Option<u32> {
        (1..=100).find(|n| {
            let told = watch.step(from + step * *n, writing);
            watch.ping();
            told.is_some()
        })
    }

    #[test]
    fn a_server_that_answers_pings_must_go_on_answering() {
        let now = Instant::now();
        let mut watch = PingWatch::new(now);
        assert_eq!(watch.ping(), Some(0));
        assert_eq!(watch.ping(), None);
        assert_eq!(wedged_after(&mut watch, now, WEBSOCKET_STEP, false), None, "it never answered");
        let now = now + WEBSOCKET_STEP * 100;
        watch.ponged(25);
        assert_eq!(watch.lag(), Duration::ZERO);
        watch.ponged(99);
        // The next ping is due with the next steps.
        let found = wedged_after(&mut watch, now, WEBSOCKET_STEP, false).unwrap();
        assert!((16..=20).contains(&found), "{found}");
    }

    #[test]
    fn answers_that_come_ever_later_are_lag() {
        let now = Instant::now();
        let mut watch = PingWatch::new(now);
        // At 80 % of the speed: a second more of lag each five.
        let mut found = None;
        for n in 0u32..400 {
            if let Some(quiet) = watch.step(now + WEBSOCKET_STEP * n, false) {
                found = Some((n / 4, quiet));
                break;
            }
            watch.ping();
            let read = n * 4 / 5;
            if read % 4 == 0 {
                watch.ponged(read / 4);
            }
        }
        let (second, quiet) = found.unwrap();
        assert!((16..=24).contains(&second) && quiet >= QUIET_LIMIT, "{second} s: {quiet:?}");
    }

    #[test]
    fn a_write_that_waits_is_found_whatever_the_server_ever_said() {
        let now = Instant::now();
        let mut watch = PingWatch::new(now);
        assert_eq!(wedged_after(&mut watch, now, WEBSOCKET_STEP, true), Some(16));
        watch.wrote();
        assert_eq!(watch.step(now + WEBSOCKET_STEP * 17, true), None);
    }

    #[test]
    fn a_process_that_was_stopped_does_not_blame_the_server() {
        let now = Instant::now();
        let mut watch = PingWatch::new(now);
        watch.ping();
        watch.ponged(0);
        for n in 1..=4 {
            watch.step(now + Duration::from_secs(n), false);
        }
        assert_eq!(watch.ping(), Some(1));
        assert_eq!(watch.step(now + Duration::from_secs(60), true), None);
        assert!(watch.lag() <= MAX_STEP);
    }

    proptest! {
        /// Whatever a server answers.
        #[test]
        fn a_verdict_takes_four_seconds(
            steps in proptest::collection::vec((0u64..900, any::<bool>(), 0u32..30), 0..200),
        ) {
            let mut now = Instant::now();
            let begin = now;
            let mut watch = PingWatch::new(now);
            for (ms, writing, pong) in steps {
                now += Duration::from_millis(ms);
                if watch.step(now, writing).is_some() {
                    prop_assert!(now - begin >= QUIET_LIMIT);
                }
                watch.ping();
                watch.ponged(pong);
                prop_assert!(watch.unanswered.len() <= MAX_UNANSWERED);
            }
        }
    }
}
