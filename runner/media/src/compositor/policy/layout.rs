//! Tiles → rectangles, with the geometry of LiveKit's default template. Pure; all coordinates are even, because a
//! chroma sample covers two by two pixels.

use spillway_plan::{LayoutName, LayoutShape};

use crate::track::TrackId;

const GAP: u32 = 8;
/// More do not fit a grid of five columns; who speaks is always among the visible.
const MOST_IN_GRID: usize = 25;
const MOST_IN_CAROUSEL: usize = 3;
/// A tile smaller than this shows nothing.
const SMALLEST: u32 = 16;

/// Pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Size {
    /// Pixels of a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
}

/// A part of a canvas or of a picture, in pixels from its upper left corner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rect {
    /// Pixels from the left.
    pub x: u32,
    /// Rows from the top.
    pub y: u32,
    /// Pixels of a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
}

impl Rect {
    fn whole(canvas: Size) -> Self {
        Self { x: 0, y: 0, width: canvas.width, height: canvas.height }
    }
}

/// How a picture meets its rectangle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fit {
    /// Fills it; what sticks out is cut off.
    Cover,
    /// Is seen whole, with borders.
    Contain,
}

/// What is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrangement {
    /// One source at a time, seen whole (Participant, TrackComposite).
    Single,
    /// All participants, in this layout.
    Tiles(LayoutName),
}

impl Arrangement {
    /// The ground is white instead of black.
    pub fn is_light(self) -> bool {
        matches!(self, Self::Tiles(LayoutName { light: true, .. }))
    }
}

/// A track that has a picture now. The list of them is in a stable order: the order in which they first joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tile<'a> {
    /// The track.
    pub track: TrackId,
    /// Its participant.
    pub identity: &'a str,
    /// A screen share.
    pub screen: bool,
    /// Of its newest decoded picture, pixels. Not as published: some clients publish an upright camera as a lying one.
    pub size: Size,
    /// Its place in the order of comings: the newest track, or the one unmuted last, has the greatest.
    pub came: u64,
    /// Its last picture is not old.
    pub fresh: bool,
}

/// Where a tile goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlacedTile {
    /// The track.
    pub track: TrackId,
    /// Its place on the canvas.
    pub rect: Rect,
    /// How its picture meets that place.
    pub fit: Fit,
}

/// `speaker`: who is shown large, by identity (`focus` decides).
pub fn place(arrangement: Arrangement, canvas: Size, tiles: &[Tile<'_>], speaker: Option<&str>) -> Vec<PlacedTile> {
    let shape = match arrangement {
        Arrangement::Single => return single(canvas, tiles).into_iter().collect(),
        Arrangement::Tiles(LayoutName { shape, .. }) => shape,
    };
    let Some(stage) = on_stage(tiles, speaker) else { return Vec::new() };
    let alone = |tile: &Tile<'_>| placed(tile, Rect::whole(canvas));
    match shape {
        LayoutShape::SingleSpeaker => vec![alone(&tiles[stage])],
        _ if tiles.len() == 1 => vec![alone(&tiles[0])],
        LayoutShape::Grid if !tiles.iter().any(|tile| tile.screen) => grid(canvas, tiles, speaker),
        // A screen share in a grid is shown large, as in the template.
        LayoutShape::Grid | LayoutShape::Speaker => with_stage(canvas, tiles, stage, speaker),
    }
}

/// Size of the place that a camera or screen share will have that is the last of `tiles`; `None`: it will have none. Nobody
/// speaks.
pub fn expected_tile(arrangement: Arrangement, canvas: Size, tiles: usize, screen: bool) -> Option<Size> {
    let tile = |index: usize| Tile {
        track: TrackId(index as u32),
        identity: "",
        screen: screen && index + 1 == tiles,
        size: Size { width: 1280, height: 720 },
        came: index as u64,
        fresh: true,
    };
    let others: Vec<Tile<'_>> = (0..tiles).map(tile).collect();
    let own = others.last()?.track;
    let placed = place(arrangement, canvas, &others, None).into_iter().find(|placed| placed.track == own)?;
    Some(Size { width: placed.rect.width, height: placed.rect.height })
}

/// livekit/egress shows the track added or unmuted last, and black once that one is muted, stalled or gone, even when
/// another video of the same participant is live. Here the newest live one is shown, whichever that is at the moment.
fn single(canvas: Size, tiles: &[Tile<'_>]) -> Option<PlacedTile> {
    let chosen = tiles.iter().max_by_key(|tile| (tile.fresh, tile.came))?;
    Some(PlacedTile { track: chosen.track, rect: Rect::whole(canvas), fit: Fit::Contain })
}

fn placed(tile: &Tile<'_>, rect: Rect) -> PlacedTile {
    PlacedTile { track: tile.track, rect, fit: fit_of(tile, rect) }
}

/// A camera covers its tile unless the two stand across each other: an upright picture (720x1280) that covers a lying
/// tile of 16:9 is seen to 32 %. LiveKit's stylesheet (components-js, `_participant-media.scss`) contains what is not
/// wider than high, and so a square picture too. It always covers with a lying picture; here that is done up to a tile
/// of 3:4, which shows half of it (two people side by side), and in a higher one the picture is seen whole.
fn fit_of(tile: &Tile<'_>, rect: Rect) -> Fit {
    let Size { width, height } = tile.size;
    let across_lying = rect.width > rect.height && height >= width;
    let across_upright = rect.height * 3 > rect.width * 4 && width >= height;
    if tile.screen || across_lying || across_upright { Fit::Contain } else { Fit::Cover }
}

/// A screen share before the speaker, the speaker before the first to join.
fn on_stage(tiles: &[Tile<'_>], speaker: Option<&str>) -> Option<usize> {
    let shared = tiles.iter().position(|tile| tile.screen);
    let speaking = || speaker.and_then(|identity| tiles.iter().position(|tile| tile.identity == identity));
    shared.or_else(speaking).or(if tiles.is_empty() { None } else { Some(0) })
}

fn grid(canvas: Size, tiles: &[Tile<'_>], speaker: Option<&str>) -> Vec<PlacedTile> {
    let columns = columns(canvas, tiles.len());
    let shown = visible(tiles, most_in_grid(canvas, tiles.len()), speaker);
    let rows = (shown.len() as u32).div_ceil(columns).max(1);
    let (width, left) = cells(canvas.width, columns);
    let (height, top) = cells(canvas.height, rows);
    let (step_x, step_y) = (width + gap(canvas.width, columns), height + gap(canvas.height, rows));
    shown
        .iter()
        .zip(0u32..)
        .map(|(tile, index)| {
            let (x, y) = (left + index % columns * step_x, top + index / columns * step_y);
            placed(tile, Rect { x, y, width, height })
        })
        .collect()
}

fn most_in_grid(canvas: Size, tiles: usize) -> usize {
    let most_rows = (canvas.height / SMALLEST).max(1) as usize;
    MOST_IN_GRID.min(columns(canvas, tiles) as usize * most_rows)
}

/// How many cameras are visible, the one on the stage among them.
pub fn places(arrangement: Arrangement, canvas: Size, tiles: &[Tile<'_>]) -> usize {
    let Arrangement::Tiles(LayoutName { shape, .. }) = arrangement else { return usize::MAX };
    let has_screen = tiles.iter().any(|tile| tile.screen);
    match shape {
        // Who speaks is shown, whatever the order.
        LayoutShape::SingleSpeaker => usize::MAX,
        LayoutShape::Grid if !has_screen => most_in_grid(canvas, tiles.len()),
        LayoutShape::Grid | LayoutShape::Speaker => MOST_IN_CAROUSEL + usize::from(!has_screen),
    }
}

/// The template's breakpoints: more columns want a wider canvas. Two on a tall canvas stand one above the other.
fn columns(canvas: Size, tiles: usize) -> u32 {
    let by_count = match tiles {
        0 | 1 => 1,
        2 if canvas.height > canvas.width => 1,
        2..=4 => 2,
        5..=9 => 3,
        10..=16 => 4,
        _ => 5,
    };
    let by_width = match canvas.width {
        1100.. => 5,
        960.. => 4,
        700.. => 3,
        560.. => 2,
        // The template stacks everything here; a recording would rather show two small ones side by side.
        _ if canvas.width >= 4 * SMALLEST && canvas.width >= canvas.height => 2,
        _ => 1,
    };
    by_count.min(by_width)
}

/// No gap where it would eat the tiles of a tiny canvas.
fn gap(length: u32, cells: u32) -> u32 {
    if length >= cells * 4 * GAP { GAP } else { 0 }
}

/// Length of each of `count` equal cells, and where the first begins: what does not divide is left at both ends.
fn cells(length: u32, count: u32) -> (u32, u32) {
    let gaps = gap(length, count) * (count - 1);
    let cell = ((length - gaps) / count) & !1;
    (cell, ((length - gaps - cell * count) / 2) & !1)
}

/// The carousel is a sixth of the width, on the left; its thumbnails are 16:10.
fn with_stage(canvas: Size, tiles: &[Tile<'_>], stage: usize, speaker: Option<&str>) -> Vec<PlacedTile> {
    let others: Vec<_> = tiles.iter().enumerate().filter(|(index, _)| *index != stage).map(|(_, tile)| *tile).collect();
    let gap = gap(canvas.width, 6);
    let side = ((canvas.width - gap) / 6) & !1;
    if side < SMALLEST {
        return vec![placed(&tiles[stage], Rect::whole(canvas))];
    }
    let beside = Rect { x: side + gap, y: 0, width: canvas.width - side - gap, height: canvas.height };
    let mut all = vec![placed(&tiles[stage], beside)];
    let wanted = visible(&others, MOST_IN_CAROUSEL, speaker);
    let height = |count: u32| {
        let most = (canvas.height.saturating_sub(gap * (count - 1)) / count) & !1;
        ((side * 10 / 16) & !1).min(most)
    };
    // On a flat canvas fewer fit.
    let count = (1..=wanted.len() as u32).rev().find(|count| height(*count) >= SMALLEST).unwrap_or(0);
    for (tile, index) in wanted.iter().zip(0..count) {
        let height = height(count);
        let rect = Rect { x: 0, y: index * (height + gap), width: side, height };
        all.push(placed(tile, rect));
    }
    all
}

/// The first `most` in stable order; a speaker who is not among them takes the last place.
fn visible<'a>(tiles: &[Tile<'a>], most: usize, speaker: Option<&str>) -> Vec<Tile<'a>> {
    let mut shown = tiles[..tiles.len().min(most)].to_vec();
    let hidden = tiles.get(most..).unwrap_or_default();
    if let Some(speaking) = hidden.iter().find(|tile| Some(tile.identity) == speaker)
        && let Some(last) = shown.last_mut()
    {
        *last = *speaking;
    }
    shown
}

/// The part of the source that is seen, and where it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TileDrawing {
    /// Part of the source.
    pub crop: Rect,
    /// Place on the canvas.
    pub dest: Rect,
}

impl TileDrawing {
    /// Nothing to scale: rows can be copied.
    pub fn is_exact(&self) -> bool {
        self.crop.width == self.dest.width && self.crop.height == self.dest.height
    }

    /// Two by two samples become one.
    pub fn is_half(&self) -> bool {
        self.crop.width == 2 * self.dest.width && self.crop.height == 2 * self.dest.height
    }
}

/// `None`: the source is too small to have an even pixel.
pub fn fit(source: Size, rect: Rect, fit: Fit) -> Option<TileDrawing> {
    let (sw, sh) = (source.width & !1, source.height & !1);
    if sw < 2 || sh < 2 || rect.width < 2 || rect.height < 2 {
        return None;
    }
    let centred = |w: u32, h: u32| Rect { x: ((sw - w) / 2) & !1, y: ((sh - h) / 2) & !1, width: w, height: h };
    match fit {
        Fit::Cover => {
            // A source that is larger than its tile by a hair, or its double by a hair, is cut rather than scaled by
            // an odd factor: sharper, and a third of the work (640x360 in the 636x356 of a grid of four).
            for times in [1, 2] {
                let (w, h) = (rect.width * times, rect.height * times);
                if sw >= w && sh >= h && sw - w <= sw / 40 && sh - h <= sh / 40 {
                    return Some(TileDrawing { crop: centred(w, h), dest: rect });
                }
            }
            let (w, h) = if u64::from(sw) * u64::from(rect.height) > u64::from(sh) * u64::from(rect.width) {
                (part(sh, rect.width, rect.height).min(sw), sh)
            } else {
                (sw, part(sw, rect.height, rect.width).min(sh))
            };
            Some(TileDrawing { crop: centred(w, h), dest: rect })
        }
        Fit::Contain => {
            let (w, h) = if u64::from(sw) * u64::from(rect.height) > u64::from(sh) * u64::from(rect.width) {
                (rect.width, part(rect.width, sh, sw).min(rect.height))
            } else {
                (part(rect.height, sw, sh).min(rect.width), rect.height)
            };
            let dest = Rect {
                x: rect.x + (((rect.width - w) / 2) & !1),
                y: rect.y + (((rect.height - h) / 2) & !1),
                width: w,
                height: h,
            };
            Some(TileDrawing { crop: centred(sw, sh), dest })
        }
    }
}

/// `length · by / of`, even, at least 2.
fn part(length: u32, by: u32, of: u32) -> u32 {
    let exact = (u64::from(length) * u64::from(by) + u64::from(of) / 2) / u64::from(of.max(1));
    ((exact as u32) & !1).max(2)
}

/// What no rectangle covers, as rectangles.
pub fn background(canvas: Size, covered: &[Rect]) -> Vec<Rect> {
    let mut edges: Vec<u32> = covered.iter().flat_map(|rect| [rect.y, rect.y + rect.height]).collect();
    edges.extend([0, canvas.height]);
    edges.sort_unstable();
    edges.dedup();
    let mut free = Vec::new();
    for band in edges.windows(2) {
        let (top, bottom) = (band[0], band[1]);
        let mut across: Vec<_> =
            covered.iter().filter(|rect| rect.y <= top && bottom <= rect.y + rect.height).collect();
        across.sort_unstable_by_key(|rect| rect.x);
        let mut x = 0;
        for end in across.iter().map(|rect| (rect.x, rect.x + rect.width)).chain([(canvas.width, canvas.width)]) {
            if end.0 > x {
                free.push(Rect { x, y: top, width: end.0 - x, height: bottom - top });
            }
            x = x.max(end.1);
        }
    }
    free
}

#[cfg(test)]
#[path = "layout_tests.rs"]
mod tests;
