//! Arrival of reports minus the publisher's clock: the delay of the network, with the difference of the
//! clocks in it. Pure.

use std::time::Duration;

/// How much of a shorter and of a longer delay is believed per report: queues only ever make it longer.
const FALL: f64 = 0.9;
const RISE: f64 = 0.1;
/// A rise that is no noise: this long, and twice what is usual.
const SPIKE: f64 = 10e6;
const SPIKE_LASTS: Duration = Duration::from_secs(10);
/// Beyond it the publisher's clock was set, or we were stopped and read late.
const CLOCK_SET: f64 = 1e9;
/// What was read late was all read at once; a clock that was set stays so.
const SET_LASTS: Duration = Duration::from_secs(1);
const SET_ALIKE: f64 = 100e6;
/// Jitter of one report.
const ALIKE: f64 = 50e6;

#[derive(Debug, Default)]
pub(super) struct DelayEstimate {
    nanoseconds: Option<f64>,
    usual_change: f64,
    spike: Option<(Duration, u32, f64)>,
    /// A clock that seems to have been set back.
    set: Option<(Duration, f64)>,
}

impl DelayEstimate {
    pub(super) fn nanoseconds(&self) -> Option<i64> {
        self.nanoseconds.map(|it| it as i64)
    }

    /// This report took as long as those before.
    pub(super) fn is_near(&self, ntp: i64, at: Duration) -> bool {
        self.change(ntp, at).is_some_and(|change| change.abs() < ALIKE)
    }

    /// This report seems to have come as much faster as the publisher's clock went ahead.
    pub(super) fn fell_by(&self, by: i64, ntp: i64, at: Duration) -> bool {
        self.change(ntp, at).is_some_and(|change| (change + by as f64).abs() < ALIKE.min(by.abs() as f64 / 2.0))
    }

    pub(super) fn shift(&mut self, by: i64) {
        self.nanoseconds = self.nanoseconds.map(|known| known + by as f64);
        (self.spike, self.set) = (None, None);
    }

    fn change(&self, ntp: i64, at: Duration) -> Option<f64> {
        Some(at.as_nanos() as f64 - ntp as f64 - self.nanoseconds?)
    }

    pub(super) fn sample(&mut self, ntp: i64, at: Duration) {
        let sample = at.as_nanos() as f64 - ntp as f64;
        let Some(known) = self.nanoseconds else {
            self.nanoseconds = Some(sample);
            return;
        };
        let change = sample - known;
        if change > CLOCK_SET {
            // A process that was stopped for seconds finds the reports of those seconds waiting, all with its own late
            // time of arrival. Believed, they would drag every picture of this publisher behind its sound.
            match self.set {
                Some((since, level)) if (sample - level).abs() < SET_ALIKE => {
                    if at.saturating_sub(since) >= SET_LASTS {
                        *self = Self { nanoseconds: Some(sample), ..Self::default() };
                    }
                }
                _ => self.set = Some((at, sample)),
            }
            return;
        }
        self.set = None;
        if change < -CLOCK_SET {
            // Nothing arrives before it was sent: only a clock does that.
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

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    /// Reports `(sent by the publisher's clock, read by ours)`, seconds; what the delay is after them.
    fn after(reports: &[(i64, i64)]) -> i64 {
        let mut delay = DelayEstimate::default();
        for (sent, read) in reports {
            delay.sample(sent * SECOND, Duration::from_secs(*read as u64));
        }
        delay.nanoseconds().unwrap() / SECOND
    }

    #[test]
    fn reports_that_waited_while_we_were_stopped_are_not_believed() {
        // Sound's and picture's reports of 15 and 18 s are read at 20 s.
        assert_eq!(after(&[(10, 10), (10, 10), (15, 20), (15, 20), (18, 20), (18, 20), (21, 21), (24, 24)]), 0);
    }

    #[test]
    fn a_clock_that_was_set_is_followed() {
        assert_eq!(after(&[(1000, 10), (1003, 13), (6, 16), (9, 19), (12, 22)]), 10, "back");
        assert_eq!(after(&[(10, 10), (13, 13), (1016, 16)]), -1000, "ahead");
    }
}
