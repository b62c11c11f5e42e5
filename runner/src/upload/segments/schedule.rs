//! When a playlist is uploaded. One schedule for each playlist object: at most one PUT of it is under way, because two of
//! them may be stored in the wrong order, and each PUT takes the newest text when it begins. Pure: the time is passed in.

use std::time::{Duration, Instant};

/// The EVENT playlist grows by 78 bytes each segment, to 1.7 MB after a day of four seconds each. Its uploads stay within
/// this share of the media's, until after about six hours (720p) its age decides.
const MAX_PERCENT: u64 = 2;
/// A viewer of the EVENT playlist waits at most so long for what is stored.
const MAX_AGE: Duration = Duration::from_secs(60);
/// After a PUT that failed.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// How often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UploadRule {
    /// After each segment: the live playlist, which does not grow.
    EachSegment,
    /// As often as its size allows: the EVENT playlist.
    BySize,
}

/// Uploads of one playlist object, or of another small one that may have to be sent again.
#[derive(Clone, Debug)]
pub struct PlaylistSchedule {
    rule: UploadRule,
    /// The text differs from what is stored or under way.
    changed: bool,
    /// Bytes of the segments listed since the last PUT that succeeded began.
    media_bytes: u64,
    /// When the PUT under way began, and what it covers of `media_bytes`.
    in_flight: Option<(Instant, u64)>,
    /// When the last PUT that succeeded began.
    stored_at: Option<Instant>,
    retry_at: Option<Instant>,
    any: bool,
    ended: bool,
}

impl PlaylistSchedule {
    /// Nothing is listed yet.
    pub fn new(rule: UploadRule) -> Self {
        Self {
            rule,
            changed: false,
            media_bytes: 0,
            in_flight: None,
            stored_at: None,
            retry_at: None,
            any: false,
            ended: false,
        }
    }

    /// The playlist names another segment, of so many bytes.
    pub fn listed(&mut self, bytes: u64) {
        self.media_bytes += bytes;
        self.changed = true;
        self.any = true;
    }

    /// The playlist has its end. It is uploaded once more, at once, unless it is empty.
    pub fn end(&mut self) {
        self.changed = self.any;
        self.ended = true;
        self.retry_at = None;
    }

    /// Another store has taken over, and has nothing yet.
    pub fn moved(&mut self) {
        self.changed = self.any;
        self.stored_at = None;
        self.retry_at = None;
    }

    /// Whether a PUT of the newest text begins now. If so it is under way until [`Self::finished`].
    pub fn begin(&mut self, playlist_bytes: u64, now: Instant) -> bool {
        let waits = self.retry_at.is_some_and(|at| now < at);
        if self.in_flight.is_some() || !self.changed || waits {
            return false;
        }
        let due = match (self.rule, self.stored_at) {
            (UploadRule::EachSegment, _) | (UploadRule::BySize, None) => true,
            (UploadRule::BySize, Some(at)) => {
                playlist_bytes * 100 <= self.media_bytes * MAX_PERCENT || now >= at + MAX_AGE
            }
        };
        if due || self.ended {
            self.in_flight = Some((now, self.media_bytes));
            self.changed = false;
            self.retry_at = None;
            return true;
        }
        false
    }

    /// The PUT under way was answered. One that failed is tried again.
    pub fn finished(&mut self, stored: bool, now: Instant) {
        let Some((begun, media_bytes)) = self.in_flight.take() else { return };
        if stored {
            self.stored_at = Some(begun);
            self.media_bytes -= media_bytes;
        } else {
            self.changed = true;
            self.retry_at = Some(now + RETRY_AFTER);
        }
    }

    /// When to ask [`Self::begin`] again, if nothing else happens before.
    pub fn next_at(&self) -> Option<Instant> {
        if self.in_flight.is_some() || !self.changed {
            return None;
        }
        self.retry_at.or(self.stored_at.map(|at| at + MAX_AGE))
    }

    /// The newest text is stored, or there was none.
    pub fn is_stored(&self) -> bool {
        !self.changed && self.in_flight.is_none()
    }

    /// The last text, with its end, is stored, or there was none.
    pub fn is_complete(&self) -> bool {
        self.ended && self.is_stored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENT: u64 = 1_600_000;
    const ENTRY: u64 = 78;

    fn seconds(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn a_live_playlist_is_uploaded_after_each_segment_and_never_twice_at_once() {
        let now = Instant::now();
        let mut schedule = PlaylistSchedule::new(UploadRule::EachSegment);
        assert!(!schedule.begin(ENTRY, now));
        schedule.listed(SEGMENT);
        assert!(schedule.begin(ENTRY, now));
        schedule.listed(SEGMENT);
        schedule.listed(SEGMENT);
        assert!(!schedule.begin(ENTRY, now) && schedule.next_at().is_none());
        schedule.finished(true, now);
        // One PUT for both.
        assert!(schedule.begin(ENTRY, now));
        schedule.end();
        schedule.finished(true, now);
        assert!(!schedule.is_complete(), "that text had no end");
        assert!(schedule.begin(ENTRY, now));
        schedule.finished(true, now);
        assert!(schedule.is_complete() && !schedule.begin(ENTRY, now));
    }

    #[test]
    fn six_hours_of_playlists_cost_two_percent_of_their_media_and_a_day_four() {
        for (hours, expected) in [(6, 1.5..2.1), (24, 3.0..4.0)] {
            let percent = cost_percent(hours);
            assert!(expected.contains(&percent), "{hours} h: {percent} %");
        }
    }

    fn cost_percent(hours: u64) -> f64 {
        let start = Instant::now();
        let segments = hours * 900;
        let mut schedule = PlaylistSchedule::new(UploadRule::BySize);
        let (mut uploaded, mut newest, mut oldest_wait) = (0, start, Duration::ZERO);
        for index in 1..=segments {
            let now = seconds(start, index * 4);
            schedule.listed(SEGMENT);
            if schedule.begin(index * ENTRY, now) {
                uploaded += index * ENTRY;
                oldest_wait = oldest_wait.max(now - newest);
                newest = now;
                schedule.finished(true, now);
            }
        }
        assert!(oldest_wait <= MAX_AGE, "{oldest_wait:?}");
        uploaded as f64 * 100.0 / (segments * SEGMENT) as f64
    }

    /// Sound alone: playlists outgrow two percent within the first minutes, age decides.
    #[test]
    fn a_playlist_of_small_segments_is_at_most_a_minute_old() {
        let start = Instant::now();
        let mut schedule = PlaylistSchedule::new(UploadRule::BySize);
        let mut at = vec![];
        for second in (4..2400).step_by(4) {
            let now = seconds(start, second);
            schedule.listed(1000);
            let due = schedule.next_at();
            if schedule.begin(second / 4 * ENTRY, now) {
                assert!(due.is_none_or(|due| due <= now) || at.len() < 40);
                at.push(second);
                schedule.finished(true, now);
            }
        }
        assert_eq!(at[0], 4);
        assert!(at.windows(2).all(|pair| pair[1] - pair[0] <= 60));
        assert!(at.len() < 60);
    }

    #[test]
    fn what_failed_is_tried_again_with_the_newest_text() {
        let now = Instant::now();
        let mut schedule = PlaylistSchedule::new(UploadRule::BySize);
        schedule.listed(SEGMENT);
        assert!(schedule.begin(ENTRY, now));
        schedule.listed(SEGMENT);
        schedule.finished(false, now);
        assert!(!schedule.begin(ENTRY, now));
        assert_eq!(schedule.next_at(), Some(now + RETRY_AFTER));
        assert!(schedule.begin(ENTRY, now + RETRY_AFTER));
        schedule.finished(false, now + RETRY_AFTER);
        // The end does not wait for a retry.
        schedule.end();
        assert!(schedule.begin(ENTRY, now + RETRY_AFTER));
        schedule.finished(true, now + RETRY_AFTER);
        assert!(schedule.is_complete());
    }

    #[test]
    fn nothing_recorded_is_no_playlist() {
        let mut schedule = PlaylistSchedule::new(UploadRule::EachSegment);
        schedule.end();
        assert!(schedule.is_complete() && !schedule.begin(0, Instant::now()));
    }
}
