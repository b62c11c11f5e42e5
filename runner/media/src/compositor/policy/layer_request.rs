//! What the compositor asks of the room: the simulcast layer that fits a tile saves as much as the encoder's preset.
//! In: where each track is drawn. Out: requests, each once, after a change has lasted half a second. Pure.

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
    /// A key frame as soon as possible.
    KeyFrame {
        /// The track.
        track: TrackId,
    },
}

/// A layer switch costs a key frame: a layout that changes twice in a moment asks once.
const SETTLED_NS: u64 = 500_000_000;
/// Of a track that has no tile. It is still decoded, so that it can come at once.
const UNSEEN: (u32, u32) = (320, 180);

/// What was asked for of each track, so that nothing is asked twice.
#[derive(Debug, Default)]
pub struct LayerRequests {
    tracks: HashMap<TrackId, LastRequest>,
}

#[derive(Debug)]
struct LastRequest {
    sent: Option<(u32, u32)>,
    wanted: (u32, u32),
    since: MediaTime,
}

impl LayerRequests {
    /// `live`: the tracks that have a picture.
    pub fn on(
        &mut self,
        at: MediaTime,
        live: &[TrackId],
        placed: &[PlacedTile],
        level: DegradationLevel,
    ) -> Vec<LayerRequest> {
        let mut requests = Vec::new();
        for track in live {
            let tile = placed.iter().find(|placed| placed.track == *track);
            let (width, height) = tile.map_or(UNSEEN, |placed| (placed.rect.width, placed.rect.height));
            let wanted = if level >= DegradationLevel::LowerLayers { (width / 2, height / 2) } else { (width, height) };
            let known = self.tracks.entry(*track).or_insert(LastRequest { sent: None, wanted, since: at });
            if known.wanted != wanted {
                known.wanted = wanted;
                known.since = at;
            }
            let settled = known.sent.is_none() || at.ns_since(known.since) >= SETTLED_NS;
            if known.sent != Some(wanted) && settled {
                known.sent = Some(wanted);
                requests.push(LayerRequest::Prefer { track: *track, width: wanted.0, height: wanted.1 });
            }
        }
        requests
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
            |ms: u64, tile: PlacedTile, level| requests.on(MediaTime::from_ns(ms * MS), &[TRACK], &[tile], level);
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
        assert_eq!(requests.on(MediaTime::ZERO, &[TRACK], &[], DegradationLevel::Nothing), prefer(320, 180));
    }
}
