//! What the scene asks of the source: the layer that fits the tile is worth as much as the encoder's preset. Pure.

use std::collections::HashMap;

use super::ladder::Rung;
use super::layout::Placed;
use crate::track::{SessionTime, TrackId};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// The layer nearest to this size, in pixels.
    Prefer {
        track: TrackId,
        width: u32,
        height: u32,
    },
    KeyFrame {
        track: TrackId,
    },
}

/// A layer switch costs a key frame: a layout that changes twice in a moment asks once.
const SETTLED_NS: u64 = 500_000_000;
/// Of a track that has no tile. It is still decoded, so that it can come at once.
const UNSEEN: (u32, u32) = (320, 180);

#[derive(Debug, Default)]
pub struct Wishes {
    tracks: HashMap<TrackId, Told>,
}

#[derive(Debug)]
struct Told {
    told: Option<(u32, u32)>,
    wanted: (u32, u32),
    since: SessionTime,
}

impl Wishes {
    /// `live`: the tracks that have a picture.
    pub fn on(&mut self, at: SessionTime, live: &[TrackId], placed: &[Placed], rung: Rung) -> Vec<Wish> {
        let mut wishes = Vec::new();
        for track in live {
            let tile = placed.iter().find(|placed| placed.track == *track);
            let (width, height) = tile.map_or(UNSEEN, |placed| (placed.rect.width, placed.rect.height));
            let wanted = if rung == Rung::LowerLayers { (width / 2, height / 2) } else { (width, height) };
            let known = self.tracks.entry(*track).or_insert(Told { told: None, wanted, since: at });
            if known.wanted != wanted {
                known.wanted = wanted;
                known.since = at;
            }
            let settled = known.told.is_none() || at.0.saturating_sub(known.since.0) >= SETTLED_NS;
            if known.told != Some(wanted) && settled {
                known.told = Some(wanted);
                wishes.push(Wish::Prefer { track: *track, width: wanted.0, height: wanted.1 });
            }
        }
        wishes
    }
}

#[cfg(test)]
mod tests {
    use super::super::layout::{Fit, Rect};
    use super::*;

    const MS: u64 = 1_000_000;
    const TRACK: TrackId = TrackId(3);

    fn tile(width: u32, height: u32) -> Placed {
        Placed { track: TRACK, rect: Rect { x: 0, y: 0, width, height }, fit: Fit::Cover }
    }

    fn prefer(width: u32, height: u32) -> Vec<Wish> {
        vec![Wish::Prefer { track: TRACK, width, height }]
    }

    #[test]
    fn a_size_is_asked_for_once_and_a_change_when_it_has_settled() {
        let mut wishes = Wishes::default();
        let mut on = |ms: u64, tile: Placed, rung| wishes.on(SessionTime(ms * MS), &[TRACK], &[tile], rung);
        assert_eq!(on(0, tile(1280, 720), Rung::Nothing), prefer(1280, 720));
        assert_eq!(on(33, tile(1280, 720), Rung::Nothing), []);
        assert_eq!(on(66, tile(636, 356), Rung::Nothing), []);
        assert_eq!(on(300, tile(1280, 720), Rung::Nothing), []);
        assert_eq!(on(1000, tile(636, 356), Rung::Nothing), []);
        assert_eq!(on(1500, tile(636, 356), Rung::Nothing), prefer(636, 356));
        assert_eq!(on(2000, tile(636, 356), Rung::LowerLayers), []);
        assert_eq!(on(2500, tile(636, 356), Rung::LowerLayers), prefer(318, 178));
    }

    #[test]
    fn a_track_without_a_tile_needs_little() {
        let mut wishes = Wishes::default();
        assert_eq!(wishes.on(SessionTime(0), &[TRACK], &[], Rung::Nothing), prefer(320, 180));
    }
}
