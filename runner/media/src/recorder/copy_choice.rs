//! Which of several tracks of one source is copied: the newest that sends, as the compositor shows it. In: who joins, sends,
//! is muted and leaves. Out: whether a frame's track takes over. Pure.

use crate::track::TrackId;

/// The tracks of one source and codec.
#[derive(Debug, Default)]
pub struct CopyChoice {
    /// In order of joining, and whether they send.
    tracks: Vec<(TrackId, bool)>,
}

impl CopyChoice {
    /// It is published, and sends.
    pub fn joined(&mut self, track: TrackId) {
        self.tracks.retain(|(known, _)| *known != track);
        self.tracks.push((track, true));
    }

    /// A frame of it came that a decoder can begin with: whether it is copied from here on instead of `copied`.
    pub fn takes_over(&self, track: TrackId, copied: TrackId) -> bool {
        let place = |of: TrackId| self.tracks.iter().position(|(known, _)| *known == of);
        let sends = |of: TrackId| self.tracks.contains(&(of, true));
        track != copied && place(track).is_some() && (place(track) > place(copied) || !sends(copied))
    }

    /// A frame of it came.
    pub fn sends(&mut self, track: TrackId) {
        self.set(track, true);
    }

    /// It is muted, or its packets stopped. The newest of those that send.
    pub fn stops(&mut self, track: TrackId) -> Option<TrackId> {
        self.set(track, false);
        self.newest()
    }

    /// It is over. The newest of those that send.
    pub fn left(&mut self, track: TrackId) -> Option<TrackId> {
        self.tracks.retain(|(known, _)| *known != track);
        self.newest()
    }

    fn newest(&self) -> Option<TrackId> {
        self.tracks.iter().rev().find(|(_, sends)| *sends).map(|(track, _)| *track)
    }

    fn set(&mut self, track: TrackId, sends: bool) {
        if let Some(known) = self.tracks.iter_mut().find(|(known, _)| *known == track) {
            known.1 = sends;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_camera_is_copied_and_the_older_one_when_that_leaves_or_is_muted() {
        let (first, second) = (TrackId(1), TrackId(2));
        let mut choice = CopyChoice::default();
        choice.joined(first);
        assert!(!choice.takes_over(first, first) && !choice.takes_over(second, first), "not known yet");
        choice.joined(second);
        assert!(choice.takes_over(second, first) && !choice.takes_over(first, second));
        // Before, the copy stayed with it, black.
        assert_eq!(choice.stops(second), Some(first));
        assert!(choice.takes_over(first, second));
        choice.sends(second);
        assert!(choice.takes_over(second, first), "it is back");
        assert_eq!(choice.left(second), Some(first));
        assert!(choice.takes_over(first, second));
        assert_eq!(choice.left(first), None);
    }
}
