//! Counters of what was really made. Both mixers write them where they make something; any thread reads them. Times are
//! nanoseconds of media, never of a clock.

use std::sync::Mutex;

use super::sync::backlog::BacklogStats;
use super::sync::lock::lock;
use crate::cadence::{GAP_NS, is_gap};
use crate::units::MediaTime;

/// Times in nanoseconds of media.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CompositorStats {
    /// Media time of output time 0.
    pub started: Option<MediaTime>,
    /// Made so far, since the start.
    pub picture_ns: u64,
    /// Sound made so far, since the start.
    pub sound_ns: u64,
    /// Between what is known of the recording and what is made of it.
    pub lag_ns: u64,
    /// The largest `lag_ns` so far.
    pub longest_lag_ns: u64,
    /// Encoded frames that wait.
    pub backlog: BacklogStats,
    /// Pictures made.
    pub pictures: u64,
    /// Pictures that differ from the one before: a source showed a new one, or the layout changed.
    pub distinct_frames: u64,
    /// Output times without a picture, given up because of lag.
    pub frames_skipped: u64,
    /// Longest time without a different picture while a camera was to be seen, unless that is its pace.
    pub longest_freeze_ns: u64,
    /// Sound made that was silent.
    pub silence_ns: u64,
    /// Frames a decoder refused.
    pub broken_frames: u64,
}

/// The counters under a lock; both mixers write, anyone reads.
#[derive(Default)]
pub struct StatsCounter {
    state: Mutex<CounterState>,
}

#[derive(Default)]
struct CounterState {
    stats: CompositorStats,
    picture_at: Option<MediaTime>,
    sound_at: Option<MediaTime>,
    /// Since when the same camera picture is shown.
    still_since: Option<MediaTime>,
}

impl StatsCounter {
    /// The picture mixer has reached this output time.
    pub fn on_picture_time(&self, at: MediaTime, lag_ns: u64) {
        let mut state = lock(&self.state);
        state.picture_at = Some(at);
        state.stats.longest_lag_ns = state.stats.longest_lag_ns.max(lag_ns);
    }

    /// `usual_ns`: the usual distance of the pictures of the fastest camera that is to be seen; `None` as long as each
    /// of them has shown one picture only.
    pub fn on_picture(&self, at: MediaTime, different: bool, moving: bool, usual_ns: Option<u64>) {
        let mut state = lock(&self.state);
        state.stats.pictures += 1;
        state.stats.distinct_frames += u64::from(different);
        if let Some(since) = state.still_since {
            let still_ns = at.ns_since(since);
            if still_ns <= GAP_NS || usual_ns.is_some_and(|usual| is_gap(still_ns, Some(usual))) {
                state.stats.longest_freeze_ns = state.stats.longest_freeze_ns.max(still_ns);
            }
        }
        if !moving {
            state.still_since = None;
        } else if different || state.still_since.is_none() {
            state.still_since = Some(at);
        }
    }

    /// The picture of an output time was given up.
    pub fn on_skipped(&self) {
        lock(&self.state).stats.frames_skipped += 1;
    }

    /// A block of sound was made; `heard`: it was not silent.
    pub fn on_sound(&self, at: MediaTime, length_ns: u64, heard: bool, lag_ns: u64) {
        let mut state = lock(&self.state);
        state.sound_at = Some(at);
        state.stats.sound_ns += length_ns;
        state.stats.longest_lag_ns = state.stats.longest_lag_ns.max(lag_ns);
        if !heard {
            state.stats.silence_ns += length_ns;
        }
    }

    /// The counters, and how far the picture mixer and the sound mixer have come.
    pub fn read(&self) -> (CompositorStats, Option<MediaTime>, Option<MediaTime>) {
        let state = lock(&self.state);
        (state.stats, state.picture_at, state.sound_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn a_freeze_is_the_time_without_a_different_picture_of_a_camera() {
        let stats_counter = StatsCounter::default();
        let on = |ms: u64, different, moving| {
            stats_counter.on_picture(MediaTime::from_ns(ms * MS), different, moving, Some(33 * MS))
        };
        on(0, true, true);
        on(100, false, true);
        on(200, false, true);
        on(300, true, true);
        on(400, true, false); // the camera left; a screen share may stand still
        on(9000, false, false);
        on(9100, true, true);
        on(9200, true, true);
        let (stats, ..) = stats_counter.read();
        assert_eq!((stats.pictures, stats.distinct_frames), (8, 5));
        assert_eq!(stats.longest_freeze_ns, 300 * MS);
    }

    #[test]
    fn the_pace_of_a_slow_camera_is_no_freeze() {
        let freeze = |usual_ns: Option<u64>| {
            let stats_counter = StatsCounter::default();
            for n in 0..=7000 / 33 {
                stats_counter.on_picture(MediaTime::from_ns(n * 33 * MS), n == 0, true, usual_ns);
            }
            stats_counter.read().0.longest_freeze_ns / MS
        };
        assert!(freeze(Some(33 * MS)) > 6900);
        assert!(freeze(Some(2000 * MS)) > 6900, "late for itself");
        assert!(freeze(Some(3000 * MS)) <= 1000);
        assert!(freeze(None) <= 1000, "one picture has no pace yet");
    }
}
