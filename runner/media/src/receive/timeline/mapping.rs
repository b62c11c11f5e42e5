//! One stream's sender reports → the publisher's own clock at any RTP time. The median of the last reports, because
//! single ones of a busy publisher are off by its stalls. Pure.

use std::collections::VecDeque;
use std::time::Duration;

/// Reports whose median is the mapping. Odd; at one report per 3 s and 200 ppm between the sound card and the
/// publisher's clock their middle lags by 1.2 ms.
const REMEMBERED: usize = 5;
/// A starved publisher sends single reports that are off by its stall: a step is believed when a second one agrees.
pub(super) const STEP: i64 = 50_000_000;
/// No reports come while a track is muted, and what was learned before is stale after it.
const STALE_AFTER: Duration = Duration::from_millis(7500);

/// The slope is the nominal clock rate: lines fitted over sound reports of a busy publisher ran off by thousands of ppm
/// (up to 5600, livekit-server 1.13.5), and a real clock's error is below a millisecond over the few seconds between
/// reports.
#[derive(Debug, Default)]
pub(super) struct NtpMapping {
    /// Publisher's clock minus media time, nanoseconds.
    offsets: VecDeque<i64>,
    last_report: Option<Duration>,
    last_media: Option<i64>,
    doubted: Option<i64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReportOutcome {
    /// The first report ever of this stream.
    First,
    Accepted,
    /// The clock is elsewhere by so much, and two reports say so.
    Stepped(i64),
    Doubted,
    Repeated,
}

impl NtpMapping {
    /// `media`: RTP time of the report as nanoseconds since the stream's first frame. `ntp`: the publisher's clock.
    pub(super) fn report(&mut self, media: i64, ntp: i64, at: Duration) -> ReportOutcome {
        if self.last_media == Some(media) {
            return ReportOutcome::Repeated;
        }
        self.last_media = Some(media);
        let stale = self.last_report.is_some_and(|last| at.saturating_sub(last) > STALE_AFTER);
        self.last_report = Some(at);
        let offset = ntp - media;
        let Some(known) = self.offset() else {
            self.offsets.push_back(offset);
            return ReportOutcome::First;
        };
        let is_far = |from: i64| offset.saturating_sub(from).saturating_abs() > STEP;
        let far = is_far(known);
        if far && !stale && self.doubted.is_none_or(is_far) {
            self.doubted = Some(offset);
            return ReportOutcome::Doubted;
        }
        if far || stale {
            self.offsets.clear();
        }
        self.doubted = None;
        self.offsets.push_back(offset);
        if self.offsets.len() > REMEMBERED {
            self.offsets.pop_front();
        }
        if far { ReportOutcome::Stepped(offset.saturating_sub(known)) } else { ReportOutcome::Accepted }
    }

    /// Media time, or the publisher's clock, has moved against the other by so much.
    pub(super) fn shift(&mut self, by: i64) {
        self.offsets.iter_mut().for_each(|offset| *offset = offset.saturating_add(by));
        self.doubted = None;
    }

    /// What was known before is over.
    pub(super) fn restart(&mut self, offset: i64) {
        self.offsets.clear();
        self.offsets.push_back(offset);
        self.doubted = None;
    }

    /// Publisher's clock minus media time; `None` before the first report.
    pub(super) fn offset(&self) -> Option<i64> {
        let mut sorted: Vec<i64> = self.offsets.iter().copied().collect();
        sorted.sort_unstable();
        let middle = sorted.len() / 2;
        match sorted.len() {
            0 => None,
            even if even % 2 == 0 => Some(sorted[middle - 1] + (sorted[middle] - sorted[middle - 1]) / 2),
            _ => Some(sorted[middle]),
        }
    }
}
