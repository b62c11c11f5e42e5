//! Which cameras have a place when there are more than places, in the stable order of LiveKit's template: who speaks takes
//! the place of the visible one that has been silent longest, and nobody else moves. In: tiles and who is shown as speaking.
//! Out: their order. Pure.

use std::cmp::Reverse;
use std::collections::HashMap;

use super::layout::Tile;
use crate::track::TrackId;
use crate::units::MediaTime;

/// Order of the tiles over a recording.
#[derive(Debug, Default)]
pub struct PageOrder {
    /// Tracks that have changed places: their rank instead of the order of first joining.
    moved: HashMap<TrackId, usize>,
    /// By identity: when each was last shown as speaking.
    spoke: HashMap<String, MediaTime>,
}

impl PageOrder {
    /// Sorts the tiles. `joined`: each track's place in the order of first joining; `places`: so many cameras are visible.
    pub fn arrange(
        &mut self,
        tiles: &mut [Tile<'_>],
        joined: &HashMap<TrackId, usize>,
        places: usize,
        speaker: Option<&str>,
        at: MediaTime,
    ) {
        tiles.sort_by_key(|tile| self.rank(tile.track, joined));
        let Some(speaker) = speaker else { return };
        match self.spoke.get_mut(speaker) {
            Some(spoke) => *spoke = at,
            None => {
                self.spoke.insert(speaker.to_owned(), at);
            }
        }
        let cameras: Vec<Tile<'_>> = tiles.iter().filter(|tile| !tile.screen).copied().collect();
        let hidden = cameras.get(places..).unwrap_or_default();
        let Some(comes) = hidden.iter().find(|tile| tile.identity == speaker) else { return };
        let visible = cameras[..places].iter().enumerate().filter(|(_, tile)| tile.identity != speaker);
        let goes = visible.min_by_key(|(index, tile)| (self.spoke.get(tile.identity).copied(), Reverse(*index)));
        let Some((_, goes)) = goes else { return };
        let (to, from) = (self.rank(goes.track, joined), self.rank(comes.track, joined));
        self.moved.insert(comes.track, to);
        self.moved.insert(goes.track, from);
        tiles.sort_by_key(|tile| self.rank(tile.track, joined));
    }

    fn rank(&self, track: TrackId, joined: &HashMap<TrackId, usize>) -> usize {
        self.moved.get(&track).or_else(|| joined.get(&track)).copied().unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::super::layout::Size;
    use super::*;

    const NAMES: [&str; 6] = ["ann", "bob", "cleo", "dan", "eve", "fay"];

    fn tile(index: usize) -> Tile<'static> {
        let size = Size { width: 1280, height: 720 };
        Tile { track: TrackId(index as u32), identity: NAMES[index], screen: false, size, came: 0, fresh: true }
    }

    fn joined() -> HashMap<TrackId, usize> {
        (0..NAMES.len()).map(|index| (TrackId(index as u32), index)).collect()
    }

    /// Identities in order, three of them visible.
    fn page(order: &mut PageOrder, tiles: &[Tile<'static>], second: u64, speaker: Option<&str>) -> Vec<&'static str> {
        let mut tiles = tiles.to_vec();
        order.arrange(&mut tiles, &joined(), 3, speaker, MediaTime::from_ns(second * 1_000_000_000));
        tiles.iter().map(|tile| tile.identity).collect()
    }

    #[test]
    fn who_speaks_takes_the_place_of_the_longest_silent_and_keeps_it() {
        let mut order = PageOrder::default();
        let all: Vec<_> = (0..6).map(tile).collect();
        assert_eq!(page(&mut order, &all, 0, None), NAMES);
        assert_eq!(page(&mut order, &all, 1, Some("cleo")), NAMES);
        // Nobody else has spoken: the last one that has not.
        assert_eq!(page(&mut order, &all, 2, Some("eve")), ["ann", "eve", "cleo", "dan", "bob", "fay"]);
        assert_eq!(page(&mut order, &all, 3, None), ["ann", "eve", "cleo", "dan", "bob", "fay"]);
        assert_eq!(page(&mut order, &all, 4, Some("fay")), ["fay", "eve", "cleo", "dan", "bob", "ann"]);
        // All visible have spoken, cleo first of them.
        assert_eq!(page(&mut order, &all, 5, Some("ann")), ["fay", "eve", "ann", "dan", "bob", "cleo"]);
        assert_eq!(page(&mut order, &all, 6, Some("eve")), ["fay", "eve", "ann", "dan", "bob", "cleo"]);
    }

    #[test]
    fn who_goes_makes_room_and_finds_its_place_again() {
        let mut order = PageOrder::default();
        let all: Vec<_> = (0..6).map(tile).collect();
        page(&mut order, &all, 1, Some("eve"));
        let without_ann: Vec<_> = (1..6).map(tile).collect();
        assert_eq!(page(&mut order, &without_ann, 2, None), ["bob", "eve", "dan", "cleo", "fay"]);
        assert_eq!(page(&mut order, &all, 3, None), ["ann", "bob", "eve", "dan", "cleo", "fay"]);
    }

    #[test]
    fn a_shared_screen_takes_no_camera_s_place() {
        let mut order = PageOrder::default();
        let mut all: Vec<_> = (0..4).map(tile).collect();
        all[0].screen = true;
        assert_eq!(page(&mut order, &all, 1, Some("dan")), ["ann", "bob", "cleo", "dan"]);
        all.push(tile(4));
        assert_eq!(page(&mut order, &all, 2, Some("eve")), ["ann", "bob", "eve", "dan", "cleo"]);
    }
}
