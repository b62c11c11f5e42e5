//! Arrival of reports minus the publisher's clock: the way's delay with the clocks' difference in it.

use std::time::Duration;

/// How much of a shorter and of a longer delay is believed per report: queues only ever make it longer.
const FALL: f64 = 0.9;
const RISE: f64 = 0.1;
/// A rise that is no noise: this long, and twice what is usual.
const SPIKE: f64 = 10e6;
const SPIKE_LASTS: Duration = Duration::from_secs(10);
/// Beyond it the publisher's clock was set: it is followed at once.
const CLOCK_SET: f64 = 1e9;

#[derive(Debug, Default)]
pub(super) struct Delay {
    nanoseconds: Option<f64>,
    usual_change: f64,
    spike: Option<(Duration, u32, f64)>,
}

impl Delay {
    pub(super) fn nanoseconds(&self) -> Option<i64> {
        self.nanoseconds.map(|it| it as i64)
    }

    pub(super) fn sample(&mut self, ntp: i64, at: Duration) {
        let sample = at.as_nanos() as f64 - ntp as f64;
        let Some(known) = self.nanoseconds else {
            self.nanoseconds = Some(sample);
            return;
        };
        let change = sample - known;
        if change.abs() > CLOCK_SET {
            *self = Self { nanoseconds: Some(sample), ..Self::default() };
            return;
        }
        if change <= SPIKE || change <= 2.0 * self.usual_change {
            self.spike = None;
            self.usual_change += (change.abs().min(50e6) - self.usual_change) * 0.1;
            self.nanoseconds = Some(known + change * if change < 0.0 { FALL } else { RISE });
            return;
        }
        let (since, reports, level) = self
            .spike
            .map_or((at, 1, sample), |(since, reports, level)| (since, reports + 1, level + (sample - level) * 0.5));
        self.spike = Some((since, reports, level));
        if reports >= 2 && at.saturating_sub(since) >= SPIKE_LASTS {
            *self = Self { nanoseconds: Some(level), ..Self::default() };
        }
    }
}
