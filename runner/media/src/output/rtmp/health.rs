//! Whether a server still works. What it sends and what the socket takes go in, with the time of each step; out comes
//! the verdict that it does not. Pure.
//!
//! A server whose process hangs keeps its connection: its kernel goes on acknowledging. `TCP_USER_TIMEOUT` alone finds it
//! after the buffers are full (4.7 s at 3 Mbit/s in nginx-rtmp), RTMP's own acknowledgements and pings after 4.1 s.

use std::time::{Duration, Instant};

use crate::output::step_clock::StepClock;

/// Nothing came for so long while something was due: wedged.
const QUIET_LIMIT: Duration = Duration::from_secs(4);
/// How often [`HealthWatch::step`] is to be called.
pub const HEALTH_STEP: Duration = Duration::from_millis(250);
/// Unacknowledged windows above which an acknowledgement is due.
const MAX_OPEN_WINDOWS: u64 = 2;

/// Watches one accepted connection.
#[derive(Debug)]
pub struct HealthWatch {
    window: u64,
    clock: StepClock,
    /// Steps since something was heard.
    quiet: Duration,
    /// Steps since the socket took something, while a write waited.
    blocked: Duration,
    pinged: bool,
    acked: Option<u64>,
}

impl HealthWatch {
    /// `window`: bytes after which the server was asked to acknowledge.
    pub const fn new(window: u64, now: Instant) -> Self {
        let (quiet, blocked) = (Duration::ZERO, Duration::ZERO);
        Self { window, clock: StepClock::new(now), quiet, blocked, pinged: false, acked: None }
    }

    /// Bytes came from the server.
    pub const fn heard(&mut self) {
        self.quiet = Duration::ZERO;
    }

    /// It answered a ping: from now on an answer is always due, as it is pinged every second.
    pub const fn ponged(&mut self) {
        self.pinged = true;
    }

    /// It acknowledged so many bytes.
    pub fn acked(&mut self, bytes: u64) {
        self.acked = Some(self.acked.unwrap_or(0).max(bytes));
    }

    /// The socket took bytes.
    pub const fn wrote(&mut self) {
        self.blocked = Duration::ZERO;
    }

    /// Bytes the server has not acknowledged; `None` when it never does.
    pub fn unacked(&self, sent: u64) -> Option<u64> {
        self.acked.map(|acked| sent.saturating_sub(acked))
    }

    /// One step. `sent`: bytes sent so far; `is_writing`: more wait. The answer is for how long the server has been
    /// wedged.
    pub fn step(&mut self, now: Instant, sent: u64, is_writing: bool) -> Option<Duration> {
        let passed = self.clock.step(now);
        self.quiet += passed;
        self.blocked = if is_writing { self.blocked + passed } else { Duration::ZERO };
        let ack_due = self.unacked(sent).is_some_and(|open| open > MAX_OPEN_WINDOWS * self.window);
        let quiet = if self.pinged || ack_due { self.quiet } else { Duration::ZERO };
        Some(quiet.max(self.blocked)).filter(|since| *since >= QUIET_LIMIT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: u64 = 64 << 10;

    /// The step at which it is found wedged, of so many.
    fn wedged_after(
        watch: &mut HealthWatch,
        from: Instant,
        step: Duration,
        steps: u32,
        sent: u64,
        writing: bool,
    ) -> Option<u32> {
        (1..=steps).find(|n| watch.step(from + step * *n, sent, writing).is_some())
    }

    #[test]
    fn a_server_that_answers_pings_must_go_on_answering() {
        let now = Instant::now();
        let mut watch = HealthWatch::new(WINDOW, now);
        assert_eq!(wedged_after(&mut watch, now, HEALTH_STEP, 100, 0, false), None);
        watch.heard();
        watch.ponged();
        let now = now + HEALTH_STEP * 100;
        assert_eq!(wedged_after(&mut watch, now, HEALTH_STEP, 100, 0, false), Some(16));
    }

    #[test]
    fn a_server_that_acknowledges_must_when_two_windows_are_open() {
        let now = Instant::now();
        let mut watch = HealthWatch::new(WINDOW, now);
        watch.acked(1000);
        assert_eq!(wedged_after(&mut watch, now, HEALTH_STEP, 100, 1000 + 2 * WINDOW, false), None);
        watch.heard();
        let now = now + HEALTH_STEP * 100;
        assert_eq!(wedged_after(&mut watch, now, HEALTH_STEP, 100, 1001 + 2 * WINDOW, false), Some(16));
        assert_eq!((watch.unacked(5000), HealthWatch::new(WINDOW, now).unacked(5000)), (Some(4000), None));
    }

    #[test]
    fn a_socket_that_takes_nothing_is_wedged_whatever_the_server_ever_said() {
        let now = Instant::now();
        let mut watch = HealthWatch::new(WINDOW, now);
        assert_eq!(wedged_after(&mut watch, now, HEALTH_STEP, 15, 1 << 20, true), None);
        watch.wrote();
        let now = now + HEALTH_STEP * 15;
        assert_eq!(wedged_after(&mut watch, now, HEALTH_STEP, 100, 1 << 20, true), Some(16));
    }

    #[test]
    fn a_process_that_was_stopped_does_not_blame_the_server() {
        let now = Instant::now();
        let mut watch = HealthWatch::new(WINDOW, now);
        watch.ponged();
        // Six seconds in one step.
        assert_eq!(watch.step(now + Duration::from_secs(6), 0, true), None);
        watch.heard();
        watch.wrote();
        assert_eq!(watch.step(now + Duration::from_secs(7), 0, true), None);
        // Starved: steps of a second count 300 ms each.
        let now = now + Duration::from_secs(7);
        assert_eq!(wedged_after(&mut watch, now, Duration::from_secs(1), 100, 0, false), Some(13));
    }
}
