//! The built-in template (`runner/template`) shows a room as the compositor does: both are held to the same tables, which lie
//! beside it. To add a case, add a row with its inputs; with `SPILLWAY_WRITE_TABLES=1` these tests compute the results of all
//! rows anew instead of comparing them.

use std::collections::HashMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use spillway_plan::LayoutName;

use super::focus::Focus;
use super::layout::{self, Arrangement, Fit, PlacedTile, Rect, Size, Tile};
use super::page::PageOrder;
use crate::track::TrackId;
use crate::units::MediaTime;

/// What a layout does with these tiles.
#[derive(Debug, Serialize, Deserialize)]
struct LayoutRow {
    /// As in a request.
    layout: String,
    /// `1280x720`
    canvas: String,
    /// Identity and size of each picture, in stable order: `a 1280x720`, `b screen 1920x1080`.
    tiles: Vec<String>,
    speaker: Option<String>,
    /// So many cameras are visible; null: all of them take turns.
    #[serde(default)]
    places: Option<usize>,
    /// Size of the place of one camera more, and of one screen more.
    #[serde(default)]
    next_camera: Option<String>,
    #[serde(default)]
    next_screen: Option<String>,
    /// Identity, place on the canvas, fit, the part of the picture that is drawn, where it is drawn:
    /// `a 0,0,636,356 cover 4,4,1272,712 0,0,636,356`.
    #[serde(default)]
    placed: Vec<String>,
}

/// Who is shown as speaking, and in which order cameras have places, over a recording.
#[derive(Debug, Serialize, Deserialize)]
struct SpeakersRow {
    places: usize,
    /// Milliseconds, and who speaks (loudest first) or has a picture: `100 hears ann bob`, `120 sees ann bob cleo`.
    steps: Vec<String>,
    /// After each `sees`: the speaker, and all in their order: `ann: ann bob cleo`.
    #[serde(default)]
    shown: Vec<String>,
}

fn sized(text: &str) -> Size {
    let (width, height) = text.split_once('x').unwrap();
    Size { width: width.parse().unwrap(), height: height.parse().unwrap() }
}

fn lengths(size: Size) -> String {
    format!("{}x{}", size.width, size.height)
}

fn spelled(rect: Rect) -> String {
    format!("{},{},{},{}", rect.x, rect.y, rect.width, rect.height)
}

fn tile(index: usize, text: &str) -> Tile<'_> {
    let (identity, rest) = text.split_once(' ').unwrap();
    let (screen, size) = rest.strip_prefix("screen ").map_or((false, rest), |size| (true, size));
    Tile { track: TrackId(index as u32), identity, screen, size: sized(size), came: index as u64, fresh: true }
}

fn described(placed: &PlacedTile, tiles: &[Tile<'_>]) -> String {
    let tile = tiles.iter().find(|tile| tile.track == placed.track).unwrap();
    let fit = match placed.fit {
        Fit::Cover => "cover",
        Fit::Contain => "contain",
    };
    let drawn = layout::fit(tile.size, placed.rect, placed.fit);
    let drawn = drawn.map_or("- -".to_owned(), |drawn| format!("{} {}", spelled(drawn.crop), spelled(drawn.dest)));
    format!("{} {} {fit} {drawn}", tile.identity, spelled(placed.rect))
}

fn laid_out(row: LayoutRow) -> LayoutRow {
    let canvas = sized(&row.canvas);
    let arrangement = Arrangement::Tiles(LayoutName::parse(&row.layout).unwrap());
    let tiles: Vec<Tile<'_>> = row.tiles.iter().enumerate().map(|(index, text)| tile(index, text)).collect();
    let places = layout::places(arrangement, canvas, &tiles);
    let next = |screen| layout::expected_tile(arrangement, canvas, tiles.len() + 1, screen).map(lengths);
    let placed = layout::place(arrangement, canvas, &tiles, row.speaker.as_deref());
    let placed = placed.iter().map(|placed| described(placed, &tiles)).collect();
    let (next_camera, next_screen) = (next(false), next(true));
    LayoutRow { places: (places != usize::MAX).then_some(places), next_camera, next_screen, placed, ..row }
}

fn camera(index: usize, identity: &str) -> Tile<'_> {
    let size = Size { width: 1280, height: 720 };
    Tile { track: TrackId(index as u32), identity, screen: false, size, came: 0, fresh: true }
}

fn followed(row: SpeakersRow) -> SpeakersRow {
    let (mut focus, mut order) = (Focus::default(), PageOrder::default());
    let (mut names, mut shown) = (Vec::<&str>::new(), Vec::new());
    for step in &row.steps {
        let mut parts = step.split(' ');
        let ms: u64 = parts.next().unwrap().parse().unwrap();
        let at = MediaTime::from_ns(ms * 1_000_000);
        let verb = parts.next().unwrap();
        let identities: Vec<&str> = parts.collect();
        if verb == "hears" {
            let heard: Vec<String> = identities.iter().map(|identity| identity.to_string()).collect();
            focus.heard(at, &heard);
            continue;
        }
        for &identity in &identities {
            if !names.contains(&identity) {
                names.push(identity);
            }
        }
        let joined: HashMap<TrackId, usize> = (0..names.len()).map(|index| (TrackId(index as u32), index)).collect();
        let index_of = |identity: &str| names.iter().position(|name| *name == identity).unwrap();
        let mut tiles: Vec<Tile<'_>> = identities.iter().map(|identity| camera(index_of(identity), identity)).collect();
        let speaker = focus.at(at, |identity| identities.contains(&identity));
        order.arrange(&mut tiles, &joined, row.places, speaker, at);
        let sorted: Vec<&str> = tiles.iter().map(|tile| tile.identity).collect();
        shown.push(format!("{}: {}", speaker.unwrap_or("-"), sorted.join(" ")));
    }
    SpeakersRow { shown, ..row }
}

fn compare<Row: DeserializeOwned + Serialize>(name: &str, compute: impl Fn(Row) -> Row) {
    let path = format!("{}/../template/tables/{name}", env!("CARGO_MANIFEST_DIR"));
    let table = std::fs::read_to_string(&path).unwrap();
    let computed: Vec<String> = table
        .lines()
        .map(|line| serde_json::to_string(&compute(serde_json::from_str(line).unwrap())).unwrap())
        .collect();
    if std::env::var_os("SPILLWAY_WRITE_TABLES").is_some() {
        std::fs::write(&path, computed.join("\n") + "\n").unwrap();
        return;
    }
    assert!(computed.len() > 10, "{path} is a table");
    for (number, (written, computed)) in (1..).zip(table.lines().zip(&computed)) {
        assert_eq!(written, computed, "row {number} of {name}");
    }
}

#[test]
fn tiles_are_where_the_template_has_them() {
    compare("layouts.jsonl", laid_out);
}

#[test]
fn speakers_are_shown_as_in_the_template() {
    compare("speakers.jsonl", followed);
}
