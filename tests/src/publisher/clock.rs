//! A participant's clock. Pure.

use std::time::{Duration, Instant};

/// A clock ahead of this machine's and too fast. The participant's WebRTC stack runs on it, so sender reports carry the
/// error as those of a real machine would.
#[derive(Clone, Copy, Debug)]
pub struct SkewedClock {
    /// Machine time at which the participant's media timeline begins.
    epoch: Instant,
    ahead: f64,
    rate: f64,
}

impl SkewedClock {
    /// `ahead` in seconds, `ppm` in parts per million.
    pub fn new(epoch: Instant, ahead: f64, ppm: f64) -> Self {
        Self { epoch, ahead, rate: 1.0 + ppm * 1e-6 }
    }

    /// The clock is set ahead by so much; the media timeline stays where it is.
    pub fn step(&mut self, ahead: Duration) {
        self.ahead += ahead.as_secs_f64();
    }

    /// What the clock shows at a machine time.
    pub fn local(&self, machine: Instant) -> Instant {
        shift(self.epoch, self.ahead + machine.saturating_duration_since(self.epoch).as_secs_f64() * self.rate)
    }

    /// Machine time at which the clock shows `local`.
    pub fn machine(&self, local: Instant) -> Instant {
        let begun = shift(self.epoch, self.ahead);
        self.epoch + Duration::from_secs_f64(local.saturating_duration_since(begun).as_secs_f64() / self.rate)
    }

    /// Local time of a position on the media timeline.
    pub fn at(&self, position: Duration) -> Instant {
        shift(self.epoch, self.ahead) + position
    }

    /// Position on the media timeline that is due at a machine time.
    pub fn position(&self, machine: Instant) -> Duration {
        machine.saturating_duration_since(self.epoch).mul_f64(self.rate)
    }
}

fn shift(from: Instant, seconds: f64) -> Instant {
    if seconds < 0.0 { from - Duration::from_secs_f64(-seconds) } else { from + Duration::from_secs_f64(seconds) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back_is_the_same_moment() {
        let epoch = Instant::now();
        let clock = SkewedClock::new(epoch, 3.0, 200.0);
        let machine = epoch + Duration::from_secs(100);
        let back = clock.machine(clock.local(machine));
        assert!(back.max(machine) - back.min(machine) < Duration::from_micros(1));
        let ahead = clock.local(machine) - machine;
        assert!((ahead.as_secs_f64() - 3.02).abs() < 1e-6, "{ahead:?}");
    }

    #[test]
    fn a_clock_that_is_set_keeps_the_timeline() {
        let epoch = Instant::now();
        let mut clock = SkewedClock::new(epoch, 0.0, 0.0);
        let machine = epoch + Duration::from_secs(10);
        clock.step(Duration::from_millis(400));
        assert_eq!(clock.position(machine), Duration::from_secs(10));
        assert_eq!(clock.local(machine) - machine, Duration::from_millis(400));
        assert_eq!(clock.machine(clock.at(Duration::from_secs(10))), machine);
    }
}
