//! What was really made: counted where it is made, read from anywhere.

use std::sync::Mutex;

use super::lock;
use super::spill::BacklogStats;
use crate::track::SessionTime;

/// Times in nanoseconds of media.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SceneStats {
    pub started: Option<SessionTime>,
    /// Made so far, since the start.
    pub picture_ns: u64,
    pub sound_ns: u64,
    /// Between what is known of the session and what is made of it.
    pub lag_ns: u64,
    pub longest_lag_ns: u64,
    pub backlog: BacklogStats,
    pub pictures: u64,
    /// Pictures that differ from the one before: a source showed a new one, or the layout changed.
    pub different_pictures: u64,
    pub pictures_skipped: u64,
    /// Longest time without a different picture while a camera was to be seen.
    pub longest_freeze_ns: u64,
    /// Sound made in which nobody was heard.
    pub silence_ns: u64,
    /// Frames a decoder refused.
    pub broken_frames: u64,
}

#[derive(Default)]
pub struct Tally {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    stats: SceneStats,
    picture_at: Option<SessionTime>,
    sound_at: Option<SessionTime>,
    /// Since when the same camera picture is shown.
    still_since: Option<SessionTime>,
}

impl Tally {
    pub fn on_picture_time(&self, at: SessionTime, lag_ns: u64) {
        let mut state = lock(&self.state);
        state.picture_at = Some(at);
        state.stats.longest_lag_ns = state.stats.longest_lag_ns.max(lag_ns);
    }

    pub fn on_picture(&self, at: SessionTime, different: bool, moving: bool) {
        let mut state = lock(&self.state);
        state.stats.pictures += 1;
        state.stats.different_pictures += u64::from(different);
        if let Some(since) = state.still_since {
            state.stats.longest_freeze_ns = state.stats.longest_freeze_ns.max(at.0.saturating_sub(since.0));
        }
        if !moving {
            state.still_since = None;
        } else if different || state.still_since.is_none() {
            state.still_since = Some(at);
        }
    }

    pub fn on_skipped(&self) {
        lock(&self.state).stats.pictures_skipped += 1;
    }

    pub fn on_sound(&self, at: SessionTime, length_ns: u64, heard: bool, lag_ns: u64) {
        let mut state = lock(&self.state);
        state.sound_at = Some(at);
        state.stats.sound_ns += length_ns;
        state.stats.longest_lag_ns = state.stats.longest_lag_ns.max(lag_ns);
        if !heard {
            state.stats.silence_ns += length_ns;
        }
    }

    /// The counters, and where the mixer that is behind the other stands.
    pub fn read(&self) -> (SceneStats, Option<SessionTime>, Option<SessionTime>) {
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
        let tally = Tally::default();
        let on = |ms: u64, different, moving| tally.on_picture(SessionTime(ms * MS), different, moving);
        on(0, true, true);
        on(100, false, true);
        on(200, false, true);
        on(300, true, true);
        on(400, true, false); // the camera left; a screen share may stand still
        on(9000, false, false);
        on(9100, true, true);
        on(9200, true, true);
        let (stats, ..) = tally.read();
        assert_eq!((stats.pictures, stats.different_pictures), (8, 5));
        assert_eq!(stats.longest_freeze_ns, 300 * MS);
    }
}
