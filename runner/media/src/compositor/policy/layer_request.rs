//! What the compositor asks of the room: the simulcast layer that fits a tile saves as much as the encoder's preset, and a
//! track that has none is not received. In: where each track is drawn. Out: requests, each once, after a change has lasted.
//! Pure.

use std::collections::HashMap;

use super::degradation::DegradationLevel;
use super::layout::PlacedTile;
use crate::track::TrackId;
use crate::units::MediaTime;

/// A request of the compositor to the room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerRequest {
    /// The layer nearest to this size, in pixels.
    Prefer {
        /// The track.
        track: TrackId,
        /// Of its tile.
        width: u32,
        /// Of its tile.
        height: u32,
    },
    /// No pictures, until a size is asked for.
    Pause {
        /// The track.
        track: TrackId,
    },
    /// A key frame as soon as possible.
    KeyFrame {
        /// The track.
        track: TrackId,
    },
}

/// A layer switch costs a key frame: a layout that changes twice in a moment asks once.
const SETTLED_NS: u64 = 500_000_000;
/// Of a track that has no tile yet, or only where another one of its participant is shown.
const UNSEEN: LayerDemand = LayerDemand::Size(320, 180);
/// Without a tile for so long, a track is not received any more.
const UNSEEN_NS: u64 = 5_000_000_000;

/// What was asked for of each track, so that nothing is asked twice.
#[derive(Debug, Default)]
pub struct LayerRequests {
    tracks: HashMap<TrackId, LastRequest>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LayerDemand {
    Size(u32, u32),
    Nothing,
}

impl LayerDemand {
    fn request(self, track: TrackId) -> LayerRequest {
        match self {
            Self::Size(width, height) => LayerRequest::Prefer { track, width, height },
            Self::Nothing => LayerRequest::Pause { track },
        }
    }
}

#[derive(Debug)]
struct LastRequest {
    sent: Option<LayerDemand>,
    wanted: LayerDemand,
    since: MediaTime,
}

impl LayerRequests {
    /// `live`: the tracks that have a picture. `pauses`: those without a tile need not be received.
    pub fn on(
        &mut self,
        at: MediaTime,
        live: &[TrackId],
        placed: &[PlacedTile],
        pauses: bool,
        level: DegradationLevel,
    ) -> Vec<LayerRequest> {
        let mut requests = self.forget_all_but(live);
        for track in live {
            let tile = placed.iter().find(|placed| placed.track == *track);
            let wanted = match tile {
                Some(tile) => LayerDemand::Size(tile.rect.width, tile.rect.height),
                None if pauses => LayerDemand::Nothing,
                None => UNSEEN,
            };
            let wanted = match wanted {
                LayerDemand::Size(width, height) if level >= DegradationLevel::LowerLayers => {
                    LayerDemand::Size(width / 2, height / 2)
                }
                wanted => wanted,
            };
            let new = LastRequest { sent: None, wanted, since: at };
            let known = self.tracks.entry(*track).or_insert(new);
            if known.wanted != wanted {
                known.wanted = wanted;
                known.since = at;
            }
            let lasts = at.ns_since(known.since);
            let next = match (known.sent, wanted) {
                // It may get a tile in a moment.
                (None, LayerDemand::Nothing) => Some(UNSEEN),
                (Some(sent), _) if sent == wanted => None,
                (None | Some(LayerDemand::Nothing), _) => Some(wanted),
                (Some(_), LayerDemand::Nothing) => (lasts >= UNSEEN_NS).then_some(wanted),
                (Some(_), LayerDemand::Size(..)) => (lasts >= SETTLED_NS).then_some(wanted),
            };
            if let Some(next) = next {
                known.sent = Some(next);
                requests.push(next.request(*track));
            }
        }
        requests
    }

    /// A track that was muted or has left is asked for as a new one when it is there again; one that is not received would
    /// never be.
    fn forget_all_but(&mut self, live: &[TrackId]) -> Vec<LayerRequest> {
        let mut gone: Vec<TrackId> = self.tracks.keys().filter(|track| !live.contains(track)).copied().collect();
        gone.sort_unstable_by_key(|track| track.0);
        let known = gone.into_iter().filter_map(|track| Some((track, self.tracks.remove(&track)?)));
        let paused = known.filter(|(_, known)| known.sent == Some(LayerDemand::Nothing));
        paused.map(|(track, _)| UNSEEN.request(track)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::layout::{Fit, Rect};
    use super::*;

    const MS: u64 = 1_000_000;
    const TRACK: TrackId = TrackId(3);

    fn tile(width: u32, height: u32) -> PlacedTile {
        PlacedTile { track: TRACK, rect: Rect { x: 0, y: 0, width, height }, fit: Fit::Cover }
    }

    fn prefer(width: u32, height: u32) -> Vec<LayerRequest> {
        vec![LayerRequest::Prefer { track: TRACK, width, height }]
    }

    #[test]
    fn a_size_is_asked_for_once_and_a_change_when_it_has_settled() {
        let mut requests = LayerRequests::default();
        let mut on =
            |ms: u64, tile: PlacedTile, level| requests.on(MediaTime::from_ns(ms * MS), &[TRACK], &[tile], true, level);
        assert_eq!(on(0, tile(1280, 720), DegradationLevel::Nothing), prefer(1280, 720));
        assert_eq!(on(33, tile(1280, 720), DegradationLevel::Nothing), []);
        assert_eq!(on(66, tile(636, 356), DegradationLevel::Nothing), []);
        assert_eq!(on(300, tile(1280, 720), DegradationLevel::Nothing), []);
        assert_eq!(on(1000, tile(636, 356), DegradationLevel::Nothing), []);
        assert_eq!(on(1500, tile(636, 356), DegradationLevel::Nothing), prefer(636, 356));
        assert_eq!(on(2000, tile(636, 356), DegradationLevel::LowerLayers), []);
        assert_eq!(on(2500, tile(636, 356), DegradationLevel::LowerLayers), prefer(318, 178));
        assert_eq!(on(3500, tile(636, 356), DegradationLevel::QuarterOfThePictures), []);
        assert_eq!(on(4000, tile(636, 356), DegradationLevel::Nothing), []);
        assert_eq!(on(4500, tile(636, 356), DegradationLevel::Nothing), prefer(636, 356));
    }

    #[test]
    fn a_track_without_a_tile_needs_little() {
        let mut requests = LayerRequests::default();
        let mut on =
            |ms: u64| requests.on(MediaTime::from_ns(ms * MS), &[TRACK], &[], false, DegradationLevel::Nothing);
        assert_eq!(on(0), prefer(320, 180));
        assert_eq!(on(60_000), []);
    }

    #[test]
    fn and_nothing_after_five_seconds_until_it_has_one() {
        let mut requests = LayerRequests::default();
        let at = |ms: u64| MediaTime::from_ns(ms * MS);
        let shown = tile(636, 356);
        let mut on =
            |ms: u64, placed: &[PlacedTile]| requests.on(at(ms), &[TRACK], placed, true, DegradationLevel::Nothing);
        assert_eq!(on(0, &[]), prefer(320, 180));
        assert_eq!(on(4900, &[]), []);
        assert_eq!(on(5000, &[]), [LayerRequest::Pause { track: TRACK }]);
        assert_eq!(on(60_000, &[]), []);
        assert_eq!(on(60_033, &[shown]), prefer(636, 356), "at once");
        assert_eq!(on(61_000, &[]), []);
        assert_eq!(on(64_000, &[shown]), [], "a moment is nothing");
        assert_eq!(on(66_000, &[]), []);
        assert_eq!(on(71_000, &[]), [LayerRequest::Pause { track: TRACK }]);
    }

    #[test]
    fn one_that_is_muted_while_it_is_paused_can_come_again() {
        let mut requests = LayerRequests::default();
        let mut on = |ms: u64, live: &[TrackId]| {
            requests.on(MediaTime::from_ns(ms * MS), live, &[], true, DegradationLevel::Nothing)
        };
        on(0, &[TRACK]);
        assert_eq!(on(5000, &[TRACK]), [LayerRequest::Pause { track: TRACK }]);
        assert_eq!(on(8000, &[]), prefer(320, 180));
        assert_eq!(on(8033, &[]), []);
        assert_eq!(on(20_000, &[TRACK]), prefer(320, 180), "it is new");
        assert_eq!(on(25_000, &[TRACK]), [LayerRequest::Pause { track: TRACK }]);
    }
}
