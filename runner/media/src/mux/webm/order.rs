//! Units of all tracks in the order of their times, as WebM wants its blocks (WebM container guidelines; Chromium's
//! Media Source refuses a block that is earlier than the one before it). Pure.
//!
//! A unit waits until every other track has come as far, but only up to a bound: a picture that stands still must not hold
//! back the sound, which a kill would lose. What comes later than that is given as it comes.

use std::collections::VecDeque;

use super::unit::WebmUnit;

/// Sound beside a picture is mixed, and complete only where the pictures are: it is never ahead of those that come.
const SOUND_WAIT_NS: u64 = 500_000_000;
/// Sound always comes, behind the pictures by what a room waits for lost packets: 2 s.
const PICTURE_WAIT_NS: u64 = 3_000_000_000;

/// What waits of all tracks.
#[derive(Debug)]
pub struct UnitOrder {
    tracks: Vec<WaitingUnits>,
}

#[derive(Debug)]
struct WaitingUnits {
    units: VecDeque<WebmUnit>,
    /// Time of its newest unit.
    newest_ns: Option<u64>,
    max_wait_ns: u64,
}

impl UnitOrder {
    /// `are_video`: of each track, whether it has pictures.
    pub fn new(are_video: impl Iterator<Item = bool>) -> Self {
        let waiting = |is_video| WaitingUnits {
            units: VecDeque::new(),
            newest_ns: None,
            max_wait_ns: if is_video { PICTURE_WAIT_NS } else { SOUND_WAIT_NS },
        };
        Self { tracks: are_video.map(waiting).collect() }
    }

    /// Units of one track come in the order of their times.
    pub fn push(&mut self, track: usize, unit: WebmUnit) {
        if let Some(waiting) = self.tracks.get_mut(track) {
            waiting.newest_ns = waiting.newest_ns.max(Some(unit.at_ns));
            waiting.units.push_back(unit);
        }
    }

    /// The earliest unit and its track, if it need not wait. At equal times the first track comes first.
    pub fn pop_due(&mut self) -> Option<(usize, WebmUnit)> {
        let (track, at_ns) = self.earliest()?;
        let max_wait_ns = self.tracks.get(track)?.max_wait_ns;
        let newest_ns = self.tracks.iter().filter_map(|waiting| waiting.newest_ns).max()?;
        let is_due = newest_ns.saturating_sub(at_ns) >= max_wait_ns
            || self.tracks.iter().all(|waiting| waiting.newest_ns >= Some(at_ns));
        if is_due { self.pop_from(track) } else { None }
    }

    /// The earliest unit and its track: nothing more comes.
    pub fn pop(&mut self) -> Option<(usize, WebmUnit)> {
        let (track, _) = self.earliest()?;
        self.pop_from(track)
    }

    fn earliest(&self) -> Option<(usize, u64)> {
        let waiting = self.tracks.iter().enumerate();
        let first = waiting.filter_map(|(track, waiting)| Some((track, waiting.units.front()?.at_ns)));
        first.min_by_key(|(_, at_ns)| *at_ns)
    }

    fn pop_from(&mut self, track: usize) -> Option<(usize, WebmUnit)> {
        Some((track, self.tracks.get_mut(track)?.units.pop_front()?))
    }
}
