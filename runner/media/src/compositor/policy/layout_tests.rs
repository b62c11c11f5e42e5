//! Geometry of the layouts: nothing overlaps, nothing is outside, everything is even.

use proptest::prelude::*;

use super::*;

const HD: Size = Size { width: 1280, height: 720 };
const GRID: Arrangement = Arrangement::Tiles(LayoutName { shape: LayoutShape::Grid, light: false });
const SPEAKER: Arrangement = Arrangement::Tiles(LayoutName { shape: LayoutShape::Speaker, light: false });
const SINGLE_SPEAKER: Arrangement = Arrangement::Tiles(LayoutName { shape: LayoutShape::SingleSpeaker, light: true });

const NAMES: [&str; 30] = [
    "a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p", "q", "r", "s", "t", "u", "v", "w",
    "x", "y", "z", "1", "2", "3", "4",
];

fn cameras(count: usize) -> Vec<Tile<'static>> {
    (0..count)
        .map(|n| Tile {
            track: TrackId(n as u32),
            identity: NAMES[n],
            screen: false,
            size: HD,
            came: n as u64,
            fresh: true,
        })
        .collect()
}

fn sized(width: u32, height: u32, count: usize) -> Vec<Tile<'static>> {
    let size = Size { width, height };
    cameras(count).into_iter().map(|tile| Tile { size, ..tile }).collect()
}

/// How much of each camera's picture is to be seen, percent.
fn seen(arrangement: Arrangement, canvas: Size, tiles: &[Tile<'_>]) -> Vec<u64> {
    let area = |rect: Rect| u64::from(rect.width) * u64::from(rect.height);
    place(arrangement, canvas, tiles, None)
        .into_iter()
        .map(|placed| {
            let size = tiles.iter().find(|tile| tile.track == placed.track).unwrap().size;
            let drawn = fit(size, placed.rect, placed.fit).unwrap();
            area(drawn.crop) * 100 / (u64::from(size.width) * u64::from(size.height))
        })
        .collect()
}

fn rects(arrangement: Arrangement, canvas: Size, tiles: &[Tile<'_>], speaker: Option<&str>) -> Vec<(u32, Rect)> {
    place(arrangement, canvas, tiles, speaker).into_iter().map(|placed| (placed.track.0, placed.rect)).collect()
}

fn rect(x: u32, y: u32, width: u32, height: u32) -> Rect {
    Rect { x, y, width, height }
}

#[test]
fn one_track_alone_fills_the_frame_in_every_layout() {
    for arrangement in [GRID, SPEAKER, SINGLE_SPEAKER, Arrangement::Single] {
        assert_eq!(rects(arrangement, HD, &cameras(1), None), [(0, rect(0, 0, 1280, 720))]);
    }
}

#[test]
fn a_grid_of_four_has_two_columns_and_an_eight_pixel_gap() {
    let four = rects(GRID, HD, &cameras(4), None);
    assert_eq!(
        four,
        [
            (0, rect(0, 0, 636, 356)),
            (1, rect(644, 0, 636, 356)),
            (2, rect(0, 364, 636, 356)),
            (3, rect(644, 364, 636, 356))
        ]
    );
}

#[test]
fn columns_grow_with_the_tiles_and_are_bounded_by_the_width() {
    let of = |width, tiles| columns(Size { width, height: width * 9 / 16 }, tiles);
    assert_eq!([1, 2, 4, 5, 9, 10, 16, 17, 25].map(|tiles| of(1280, tiles)), [1, 2, 2, 3, 3, 4, 4, 5, 5]);
    assert_eq!([1099, 959, 699].map(|width| of(width, 25)), [4, 3, 2]);
    assert_eq!(columns(Size { width: 720, height: 1280 }, 2), 1);
}

#[test]
fn the_speaker_has_the_stage_and_is_not_repeated() {
    let tiles = cameras(6);
    let placed = rects(SPEAKER, HD, &tiles, Some("c"));
    assert_eq!(placed[0], (2, rect(220, 0, 1060, 720)));
    assert_eq!(placed[1..], [(0, rect(0, 0, 212, 132)), (1, rect(0, 140, 212, 132)), (3, rect(0, 280, 212, 132))]);
}

#[test]
fn a_screen_share_takes_the_stage_of_grid_and_speaker_and_is_seen_whole() {
    let mut tiles = cameras(3);
    tiles[1].screen = true;
    for arrangement in [GRID, SPEAKER] {
        let placed = place(arrangement, HD, &tiles, Some("a"));
        assert_eq!((placed[0].track, placed[0].fit), (TrackId(1), Fit::Contain));
        assert_eq!(placed.len(), 3);
        assert!(placed[1..].iter().all(|other| other.fit == Fit::Cover));
    }
}

#[test]
fn a_speaker_out_of_sight_comes_into_sight() {
    let tiles = cameras(30);
    let placed = rects(GRID, HD, &tiles, Some("4"));
    assert_eq!(placed.len(), 25);
    assert_eq!(placed[24].0, 29);
    assert!(placed[..24].iter().zip(0..).all(|((track, _), n)| *track == n));
}

#[test]
fn single_falls_back_to_another_live_video() {
    let mut tiles = cameras(3);
    tiles[0].came = 9; // unmuted last
    assert_eq!(rects(Arrangement::Single, HD, &tiles, None)[0].0, 0);
    tiles[0].fresh = false; // stalled
    assert_eq!(rects(Arrangement::Single, HD, &tiles, None)[0].0, 2);
    assert_eq!(rects(Arrangement::Single, HD, &tiles[..1], None)[0].0, 0, "a stalled one is better than none");
}

#[test]
fn a_source_a_hair_too_large_is_cut_not_scaled() {
    let cell = rect(644, 364, 636, 356);
    let exact = fit(Size { width: 640, height: 360 }, cell, Fit::Cover).unwrap();
    assert_eq!(exact, TileDrawing { crop: rect(2, 2, 636, 356), dest: cell });
    assert!(exact.is_exact());
    let half = fit(HD, cell, Fit::Cover).unwrap();
    assert_eq!(half.crop, rect(4, 4, 1272, 712));
}

#[test]
fn a_contained_picture_is_letterboxed_and_a_covering_one_is_cut() {
    let portrait = Size { width: 720, height: 1280 };
    let whole = rect(0, 0, 1280, 720);
    assert_eq!(fit(portrait, whole, Fit::Contain).unwrap().dest, rect(438, 0, 404, 720));
    assert_eq!(fit(portrait, whole, Fit::Cover).unwrap().crop, rect(0, 438, 720, 404));
}

#[test]
fn an_upright_camera_is_seen_whole_in_every_layout() {
    for (width, height) in [(720, 1280), (480, 640), (360, 640), (1080, 1920)] {
        for arrangement in [GRID, SPEAKER, SINGLE_SPEAKER, Arrangement::Single] {
            assert_eq!(seen(arrangement, HD, &sized(width, height, 1)), [100], "{arrangement:?}");
        }
        assert_eq!(seen(GRID, HD, &sized(width, height, 3)), [100; 3]);
        assert_eq!(seen(SPEAKER, HD, &sized(width, height, 2)), [100; 2], "the strip too");
        assert_eq!(seen(SPEAKER, HD, &sized(width, height, 3)), [100; 3]);
        assert_eq!(seen(SINGLE_SPEAKER, HD, &sized(width, height, 3)), [100]);
    }
}

#[test]
fn a_camera_that_lies_or_stands_as_its_tile_does_covers_it() {
    for (arrangement, count) in [(GRID, 1), (GRID, 3), (SPEAKER, 3), (SINGLE_SPEAKER, 3)] {
        let lying = place(arrangement, HD, &sized(640, 480, count), None);
        assert!(lying.iter().all(|placed| placed.fit == Fit::Cover), "{lying:?}");
        let turned = Size { width: 720, height: 1280 };
        let standing = place(arrangement, turned, &sized(480, 640, count), None);
        let upright = |placed: &&PlacedTile| placed.rect.height > placed.rect.width;
        assert!(standing.iter().filter(upright).all(|placed| placed.fit == Fit::Cover), "{standing:?}");
    }
    // Two people stand in tiles of 636x720.
    let two = place(GRID, HD, &sized(720, 1280, 2), None);
    assert!(two.iter().all(|placed| placed.fit == Fit::Cover), "{two:?}");
}

#[test]
fn two_lying_cameras_side_by_side_fill_their_tiles_as_in_the_template() {
    assert!(place(GRID, HD, &cameras(2), None).iter().all(|placed| placed.fit == Fit::Cover));
    let turned = Size { width: 720, height: 1280 };
    assert_eq!(seen(GRID, turned, &cameras(1)), [100], "but a canvas of 9:16 would show a third of one");
    assert_eq!(seen(GRID, turned, &cameras(3)), [100; 3]);
}

#[test]
fn a_square_camera_covers_only_what_is_about_square() {
    assert_eq!(seen(GRID, HD, &sized(480, 480, 1)), [100]);
    assert_eq!(seen(SPEAKER, HD, &sized(480, 480, 3)), [100; 3]);
    assert_eq!(seen(GRID, Size { width: 720, height: 1280 }, &sized(480, 480, 1)), [100]);
    let square = Size { width: 720, height: 720 };
    assert_eq!(place(GRID, square, &sized(480, 480, 1), None)[0].fit, Fit::Cover);
    assert!(seen(GRID, HD, &sized(480, 480, 2)).iter().all(|seen| *seen >= 85));
}

#[test]
fn each_tile_is_fitted_by_its_own_picture() {
    let mut tiles = cameras(4);
    tiles[1].size = Size { width: 720, height: 1280 };
    tiles[3].screen = true;
    tiles[3].size = Size { width: 1920, height: 1080 };
    let fits = |arrangement| -> Vec<(u32, Fit)> {
        place(arrangement, HD, &tiles, None).into_iter().map(|placed| (placed.track.0, placed.fit)).collect()
    };
    let expected = [(3, Fit::Contain), (0, Fit::Cover), (1, Fit::Contain), (2, Fit::Cover)];
    assert_eq!(fits(GRID), expected);
    assert_eq!(fits(SPEAKER), expected);
}

fn even(rect: Rect) -> bool {
    [rect.x, rect.y, rect.width, rect.height].iter().all(|length| length % 2 == 0)
}

fn inside(rect: Rect, within: Size) -> bool {
    rect.width > 0 && rect.height > 0 && rect.x + rect.width <= within.width && rect.y + rect.height <= within.height
}

fn overlap(a: Rect, b: Rect) -> bool {
    a.x < b.x + b.width && b.x < a.x + a.width && a.y < b.y + b.height && b.y < a.y + a.height
}

prop_compose! {
    fn sizes(least: u32, most: u32)(w in least / 2..=most / 2, h in least / 2..=most / 2) -> Size {
        Size { width: w * 2, height: h * 2 }
    }
}

proptest! {
    #[test]
    fn tiles_lie_inside_do_not_overlap_and_are_even(
        canvas in sizes(16, 4000),
        count in 0usize..30,
        screens in prop::collection::vec(any::<bool>(), 30),
        speaker in prop::option::of(0usize..30),
        shape in 0usize..4,
    ) {
        let mut tiles = cameras(count);
        for (tile, screen) in tiles.iter_mut().zip(&screens) {
            tile.screen = *screen;
        }
        let arrangement = [GRID, SPEAKER, SINGLE_SPEAKER, Arrangement::Single][shape];
        let placed = place(arrangement, canvas, &tiles, speaker.map(|n| NAMES[n]));
        prop_assert_eq!(placed.is_empty(), count == 0);
        for (n, one) in placed.iter().enumerate() {
            prop_assert!(inside(one.rect, canvas) && even(one.rect), "{:?} in {:?}", one, canvas);
            for other in &placed[n + 1..] {
                prop_assert!(!overlap(one.rect, other.rect), "{:?} and {:?}", one, other);
                prop_assert_ne!(one.track, other.track);
            }
        }
    }

    #[test]
    fn no_layout_shows_less_than_two_fifths_of_a_camera(
        canvas in sizes(200, 2000),
        count in 1usize..26,
        source in (9u32..=16, 9u32..=16),
        shape in 0usize..4,
    ) {
        let tiles = sized(source.0 * 60, source.1 * 60, count);
        let arrangement = [GRID, SPEAKER, SINGLE_SPEAKER, Arrangement::Single][shape];
        for placed in place(arrangement, canvas, &tiles, None) {
            // Of a lying picture in a strip of 3:1, or in a few pixels, no rule shows much.
            let (long, short) = (placed.rect.width.max(placed.rect.height), placed.rect.width.min(placed.rect.height));
            if long > short * 2 || short < 64 {
                continue;
            }
            let drawn = fit(tiles[0].size, placed.rect, placed.fit).unwrap();
            let area = |w: u32, h: u32| f64::from(w) * f64::from(h);
            let seen = area(drawn.crop.width, drawn.crop.height) / area(tiles[0].size.width, tiles[0].size.height);
            prop_assert!(seen >= 0.4, "{seen:.2} of {:?} in {:?}", tiles[0].size, placed);
        }
    }

    #[test]
    fn what_is_drawn_lies_in_source_and_tile(
        source in sizes(2, 4000),
        odd in any::<bool>(),
        cell in sizes(2, 2000),
        covers in any::<bool>(),
    ) {
        let source = if odd { Size { width: source.width + 1, height: source.height + 1 } } else { source };
        let rect = Rect { x: 10, y: 20, width: cell.width, height: cell.height };
        let drawn = fit(source, rect, if covers { Fit::Cover } else { Fit::Contain }).unwrap();
        prop_assert!(even(drawn.crop) && even(drawn.dest));
        prop_assert!(inside(drawn.crop, source), "{:?}", drawn);
        prop_assert!(drawn.dest.x >= 10 && drawn.dest.x + drawn.dest.width <= 10 + cell.width, "{:?}", drawn);
        prop_assert!(drawn.dest.y >= 20 && drawn.dest.y + drawn.dest.height <= 20 + cell.height, "{:?}", drawn);
        if covers {
            prop_assert_eq!(drawn.dest, rect);
        }
    }

    #[test]
    fn tiles_and_background_together_are_the_canvas(canvas in sizes(16, 4000), count in 0usize..30, shape in 0usize..3) {
        let placed = place([GRID, SPEAKER, SINGLE_SPEAKER][shape], canvas, &cameras(count), None);
        let covered: Vec<_> = placed.iter().map(|placed| placed.rect).collect();
        let free = background(canvas, &covered);
        let area = |rects: &[Rect]| rects.iter().map(|r| u64::from(r.width) * u64::from(r.height)).sum::<u64>();
        prop_assert_eq!(area(&covered) + area(&free), u64::from(canvas.width) * u64::from(canvas.height));
        for one in &free {
            prop_assert!(inside(*one, canvas) && even(*one));
            prop_assert!(!covered.iter().any(|tile| overlap(*tile, *one)));
        }
    }
}

#[test]
fn the_place_that_a_new_track_will_have_is_known_before_it_has_a_picture() {
    let expected = |arrangement, tiles, screen| {
        expected_tile(arrangement, HD, tiles, screen).map(|size| (size.width, size.height))
    };
    assert_eq!(expected(GRID, 1, false), Some((1280, 720)));
    let four = rects(GRID, HD, &cameras(4), None)[3].1;
    assert_eq!(expected(GRID, 4, false), Some((four.width, four.height)));
    assert!(expected(GRID, 25, false).is_some_and(|(width, _)| width < 300));
    assert_eq!(expected(GRID, 26, false), None);
    let stage = rects(SPEAKER, HD, &cameras(3), None)[0].1;
    assert_eq!(expected(SPEAKER, 3, true), Some((stage.width, stage.height)), "a screen share is shown large");
    assert!(expected(SPEAKER, 3, false).is_some_and(|(width, _)| width < 300));
    assert_eq!(expected(SPEAKER, 9, false), None);
    assert_eq!(expected(SINGLE_SPEAKER, 2, false), None);
    assert_eq!(expected(GRID, 0, false), None);
}
