//! The built-in template in Chromium, in real rooms: its tiles are where the compositor puts them, it says when it can be
//! recorded and when that is over, and its SDK does what LiveKit's does. Nothing is recorded here.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use livekit_token::VideoGrants;
use serde::Deserialize;
use serde_json::json;
use spillway_media::template_server::TemplateServer;
use spillway_tests::assets::{built_template, clip};
use spillway_tests::devtools::BrowserPage;
use spillway_tests::publisher::{Publisher, PublisherOptions, SourceKind};
use spillway_tests::twirp::Api;
use url::Url;

use crate::harness::{E2eHarness, alone, case};

const TABLE: &str = include_str!("../../runner/template/tables/layouts.jsonl");
const CANVAS: (u32, u32) = (1280, 720);
/// Identity of the recorder, which is an egress id.
const RECORDER: &str = "EG_template";
/// For joining, a first picture, a layer: on a busy machine.
const LIMIT: Duration = Duration::from_secs(20);
/// Chromium rounds to whole pixels, and so does the table.
const TOLERANCE: f64 = 1.0;

/// Places of the tiles that are shown, in no order.
const TILES: &str = "[...document.querySelectorAll('.tile.shown')].map((tile) => {
  const list = ({ x, y, width, height }) => [x, y, width, height];
  const video = tile.querySelector('video');
  return {
    identity: tile.dataset.identity,
    place: list(tile.getBoundingClientRect()),
    picture: list(video.getBoundingClientRect()),
    source: [video.videoWidth, video.videoHeight],
  };
})";

pub fn cases() -> Vec<Trial> {
    vec![
        alone("template::its_own_tests_pass", own_tests),
        case("template::tiles_are_where_the_compositor_has_them", |harness| async move { tiles(&harness).await }),
        case("template::layers_fit_their_tiles", |harness| async move { layers(&harness).await }),
        case("template::an_empty_room_waits_and_sound_alone_begins", |harness| async move { sound(&harness).await }),
        case("template::what_it_cannot_show_it_says", |harness| async move { errors(&harness).await }),
        case("template::the_sdk_does_what_livekit_s_does", |harness| async move { sdk(&harness).await }),
    ]
}

/// What the page shows of a track. Lengths are pixels.
#[derive(Clone, Debug, Deserialize)]
struct ShownTile {
    identity: String,
    /// Left, top, width, height of what is seen.
    place: [f64; 4],
    /// Of the whole picture, parts of which are cut off.
    picture: [f64; 4],
    /// Width and height as decoded.
    source: [u32; 2],
}

/// A row of the table.
#[derive(Deserialize)]
struct LayoutRow {
    layout: String,
    canvas: String,
    tiles: Vec<String>,
    speaker: Option<String>,
    placed: Vec<String>,
}

/// node's tests of layouts, speakers and the start.
fn own_tests() -> Result<()> {
    let folder = built_template()?.join("tests");
    let entries = std::fs::read_dir(&folder).with_context(|| format!("read {}", folder.display()))?;
    let files: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    ensure!(files.len() >= 3, "the tests are built: {files:?}");
    let out = Command::new("node").arg("--test").args(files).output().context("start node")?;
    let text = String::from_utf8_lossy(&out.stdout);
    ensure!(out.status.success(), "{text}\n{}", String::from_utf8_lossy(&out.stderr));
    ensure!(text.contains("pass ") && !text.contains("pass 0"), "no test has run: {text}");
    Ok(())
}

/// The page's server, and a page of it that has been opened for a room.
struct OpenPage {
    page: BrowserPage,
    token: String,
    _server: TemplateServer,
}

impl OpenPage {
    /// `folder` below what is built; `identity` of the participant that the page will be.
    async fn of(folder: &str, api: &Api, room: &str, identity: &str, layout: &str) -> Result<Self> {
        let server = TemplateServer::start(&built_template()?.join(folder), 0).await?;
        let token = recorder_token(api, room, identity)?;
        let url = page_url(&server, &[("layout", layout), ("token", &token), ("url", &api.ws_url())])?;
        Ok(Self { page: BrowserPage::open(&url, CANVAS).await?, token, _server: server })
    }

    /// Waits until the tiles are those of the table: so many pictures of 640x360, from p0 on, without a speaker.
    async fn shows(&mut self, layout: &str, count: usize) -> Result<Vec<ShownTile>> {
        let expected = expected(layout, count)?;
        let seen = self.page.becomes(TILES, LIMIT, |tiles: &Vec<ShownTile>| are_at(tiles, &expected)).await;
        seen.with_context(|| format!("{count} tiles of {layout} are expected: {expected:?}"))
    }
}

fn recorder_token(api: &Api, room: &str, identity: &str) -> Result<String> {
    let grants = VideoGrants {
        room_join: true,
        room: room.to_owned(),
        can_publish: Some(false),
        can_subscribe: Some(true),
        can_publish_data: Some(false),
        hidden: true,
        recorder: true,
        ..VideoGrants::default()
    };
    api.token(identity, Some("egress"), grants)
}

fn page_url(server: &TemplateServer, query: &[(&str, &str)]) -> Result<String> {
    Ok(Url::parse_with_params(&server.url(), query).context("make the page's URL")?.into())
}

/// As UpdateLayout does it.
async fn set_layout(api: &Api, room: &str, identity: &str, layout: &str) -> Result<()> {
    let metadata = json!({ "layout": layout }).to_string();
    api.rooms("UpdateParticipant", json!({ "room": room, "identity": identity, "metadata": metadata })).await.map(drop)
}

/// Identity, place and place of the whole picture.
type ExpectedTile = (String, [f64; 4], [f64; 4]);

fn expected(layout: &str, count: usize) -> Result<Vec<ExpectedTile>> {
    let names: Vec<String> = ('a'..).take(count).map(|name| format!("{name} 640x360")).collect();
    let rows = TABLE.lines().map(serde_json::from_str::<LayoutRow>).collect::<Result<Vec<_>, _>>()?;
    let row = rows
        .iter()
        .find(|row| row.layout == layout && row.canvas == "1280x720" && row.tiles == names && row.speaker.is_none());
    let row = row.with_context(|| format!("the table has no {layout} with {names:?}"))?;
    row.placed.iter().map(|placed| parse(placed).with_context(|| format!("read {placed}"))).collect()
}

/// `b 644,0,636,356 cover 2,2,636,356 644,0,636,356` of a picture of 640x360.
fn parse(placed: &str) -> Option<ExpectedTile> {
    let fields: Vec<&str> = placed.split(' ').collect();
    let [name, _, _, crop, dest] = fields[..] else { return None };
    let numbers = |text: &str| -> Option<[f64; 4]> {
        let numbers: Vec<f64> = text.split(',').map(str::parse::<f64>).collect::<Result<_, _>>().ok()?;
        numbers.try_into().ok()
    };
    let (crop, dest) = (numbers(crop)?, numbers(dest)?);
    let (across, down) = (dest[2] / crop[2], dest[3] / crop[3]);
    let picture = [dest[0] - crop[0] * across, dest[1] - crop[1] * down, 640.0 * across, 360.0 * down];
    let number = u32::from(name.chars().next()?) - u32::from('a');
    Some((format!("p{number}"), dest, picture))
}

fn are_at(tiles: &[ShownTile], expected: &[ExpectedTile]) -> bool {
    let near = |one: &[f64; 4], other: &[f64; 4]| one.iter().zip(other).all(|(a, b)| (a - b).abs() <= TOLERANCE);
    tiles.len() == expected.len()
        && expected.iter().all(|(identity, place, picture)| {
            let tile = tiles.iter().find(|tile| tile.identity == *identity);
            tile.is_some_and(|tile| near(&tile.place, place) && near(&tile.picture, picture))
        })
}

/// Joins with a camera and no microphone: the active speaker would choose the stage.
async fn camera(harness: &E2eHarness, room: &str, who: &str) -> Result<(Publisher, String)> {
    let publisher = Publisher::join(harness.api(), room, who, PublisherOptions::default()).await?;
    let video = publisher.publish(&clip(&format!("{who}-360.h264"))?, SourceKind::Camera).await?;
    Ok((publisher, video))
}

async fn tiles(harness: &E2eHarness) -> Result<()> {
    let (api, room) = (harness.api(), harness.room("template"));
    let mut people = vec![camera(harness, &room, "p0").await?];
    let mut open = OpenPage::of("site", api, &room, RECORDER, "grid").await?;
    open.page.says("START_RECORDING", LIMIT).await?;
    open.shows("grid", 1).await?;
    for who in ["p1", "p2", "p3"] {
        // One after the other, so that the order of the tiles is known.
        people.push(camera(harness, &room, who).await?);
        open.shows("grid", people.len()).await?;
    }
    looks_like_a_grid(&mut open.page).await?;

    set_layout(api, &room, RECORDER, "speaker-light").await?;
    open.shows("speaker-light", 4).await?;
    let below_the_thumbnails = open.page.picture().await?.at(100, 700)?;
    ensure!(below_the_thumbnails == [255; 3], "the ground is white, not {below_the_thumbnails:?}");
    // p3 has the last place in either layout.
    let (last, video) = &people[3];
    last.mute(video, true);
    open.shows("speaker-light", 3).await?;
    last.mute(video, false);
    open.shows("speaker-light", 4).await?;
    set_layout(api, &room, RECORDER, "nosuch").await?;
    open.page.says("the layout stays as it is: there is no layout \"nosuch\"", LIMIT).await?;
    open.shows("speaker-light", 4).await?;
    set_layout(api, &room, RECORDER, "grid").await?;
    open.shows("grid", 4).await?;

    let count = |console: &[String], text: &str| console.iter().filter(|line| line.as_str() == text).count();
    ensure!(count(open.page.console().await?, "END_RECORDING") == 0, "the room is not over");
    api.delete_room(&room).await?;
    open.page.says("END_RECORDING", LIMIT).await?;
    let console = open.page.console().await?;
    let (begun, ended) = (count(console, "START_RECORDING"), count(console, "END_RECORDING"));
    ensure!(begun == 1 && ended == 1, "each is said once: {console:?}");
    let wrong = |line: &String| line.starts_with("exception:") || line.contains("Content Security Policy");
    ensure!(!console.iter().any(wrong), "{console:?}");
    ensure!(console.iter().all(|line| !line.contains(&open.token)), "the token is on the console");
    Ok(())
}

/// Colours of the four people, and black between them.
async fn looks_like_a_grid(page: &mut BrowserPage) -> Result<()> {
    let picture = page.picture().await?;
    let near = |pixel: [u8; 3], colour: [u8; 3]| pixel.iter().zip(colour).all(|(is, was)| is.abs_diff(was) <= 24);
    let people = [[0x90, 0x20, 0x20], [0x20, 0x90, 0x20], [0x20, 0x20, 0x90], [0x90, 0x80, 0x20]];
    let corners = [(0, 0), (644, 0), (0, 364), (644, 364)];
    for (colour, (left, top)) in people.into_iter().zip(corners) {
        // Two pixels inside of each edge: what is shown reaches them, and flash and bar code do not.
        for (x, y) in [(left + 2, top + 2), (left + 633, top + 2), (left + 2, top + 353), (left + 633, top + 353)] {
            let pixel = picture.at(x, y)?;
            ensure!(near(pixel, colour), "{pixel:?} instead of {colour:?} at {x},{y}");
        }
    }
    for (x, y) in [(640, 100), (640, 500), (100, 360), (1000, 360), (640, 360)] {
        let pixel = picture.at(x, y)?;
        ensure!(near(pixel, [0; 3]), "{pixel:?} instead of the ground at {x},{y}");
    }
    Ok(())
}

/// The server sends the layer that fits: the large one to who is alone, the middle one into a grid of four.
async fn layers(harness: &E2eHarness) -> Result<()> {
    let (api, room) = (harness.api(), harness.room("template-layers"));
    let sizes = ["p0-180.h264", "p0-360.h264", "p0-720.h264"].map(clip).into_iter().collect::<Result<Vec<_>>>()?;
    let p0 = Publisher::join(api, &room, "p0", PublisherOptions::default()).await?;
    p0.publish_layers(&sizes, SourceKind::Camera).await?;
    let mut open = OpenPage::of("site", api, &room, RECORDER, "grid").await?;
    let comes = |width: u32, count: usize| {
        move |tiles: &Vec<ShownTile>| {
            let of_p0 = tiles.iter().find(|tile| tile.identity == "p0");
            tiles.len() == count && of_p0.is_some_and(|tile| tile.source[0] == width)
        }
    };
    open.page.becomes(TILES, LIMIT, comes(1280, 1)).await.context("alone it has the large layer")?;
    let mut others = Vec::new();
    for who in ["p1", "p2", "p3"] {
        others.push(camera(harness, &room, who).await?);
    }
    open.page.becomes(TILES, LIMIT, comes(640, 4)).await.context("in a grid of four it has the middle layer")?;
    // As a thumbnail of a carousel, 212 wide, the small one is enough.
    let screen = Publisher::join(api, &room, "screen", PublisherOptions::default()).await?;
    screen.publish(&clip("p1-720.h264")?, SourceKind::ScreenShare).await?;
    open.page.becomes(TILES, LIMIT, comes(320, 4)).await.context("beside a shared screen it has the small layer")?;
    Ok(())
}

/// Nothing is published: it never begins. No camera is published: it begins with the sound.
async fn sound(harness: &E2eHarness) -> Result<()> {
    let (api, room) = (harness.api(), harness.room("template-sound"));
    let p0 = Publisher::join(api, &room, "p0", PublisherOptions::default()).await?;
    let mut open = OpenPage::of("site", api, &room, RECORDER, "").await?;
    tokio::time::sleep(Duration::from_secs(4)).await;
    let console = open.page.console().await?;
    ensure!(console.iter().all(|line| line != "START_RECORDING"), "it begins in an empty room: {console:?}");
    p0.publish(&clip("p0.opus")?, SourceKind::Microphone).await?;
    open.page.says("START_RECORDING", LIMIT).await?;
    let heard = "[...document.querySelectorAll('audio')].map((audio) => !audio.paused && !audio.muted)";
    open.page.becomes(heard, LIMIT, |all: &Vec<bool>| all == &[true]).await.context("it plays what it hears")?;
    Ok(())
}

async fn errors(harness: &E2eHarness) -> Result<()> {
    let site = built_template()?.join("site");
    let server = TemplateServer::start(&site, 0).await?;
    let error = "document.querySelector('div.error')?.textContent ?? ''";
    let mut page = BrowserPage::open(&server.url(), CANVAS).await?;
    let said: String = page.becomes(error, LIMIT, |text: &String| !text.is_empty()).await?;
    ensure!(said == "missing required params url and token", "{said}");

    let url = page_url(&server, &[("token", "no-token-at-all"), ("url", &harness.api().ws_url())])?;
    let mut page = BrowserPage::open(&url, CANVAS).await?;
    let said: String = page.becomes(error, LIMIT, |text: &String| !text.is_empty()).await?;
    ensure!(!said.contains("no-token-at-all"), "{said}");
    let console = page.console().await?;
    ensure!(console.iter().all(|line| line != "START_RECORDING"), "{console:?}");
    Ok(())
}

/// One page, built with either SDK.
async fn sdk(harness: &E2eHarness) -> Result<()> {
    let livekit = seen_with(harness, "livekit").await?;
    let ours = seen_with(harness, "spillway").await?;
    let expected = [
        "given what is in the query: true",
        "layout: speaker-dark",
        "console: START_RECORDING",
        "layout changes: grid-light, asked: grid-light",
        "layout changes: single-speaker, asked: single-speaker",
        "console: END_RECORDING",
    ];
    ensure!(livekit == expected, "LiveKit's SDK does something else than these tests expect: {livekit:?}");
    ensure!(ours == livekit, "{ours:?} instead of {livekit:?}");

    let thrown = [thrown_with("livekit").await?, thrown_with("spillway").await?];
    ensure!(thrown[0] == thrown[1], "{thrown:?}");
    ensure!(thrown[0].iter().all(|text| text.starts_with("throws: ")), "{thrown:?}");
    Ok(())
}

/// What the page says first where something is missing in its query.
async fn thrown_with(name: &str) -> Result<Vec<String>> {
    let server = TemplateServer::start(&built_template()?.join("pages").join(name), 0).await?;
    let queries: [&[(&str, &str)]; 2] = [&[], &[("url", "ws://127.0.0.1:1")]];
    let mut thrown = Vec::new();
    for query in queries {
        let mut page = BrowserPage::open(&page_url(&server, query)?, CANVAS).await?;
        thrown.push(page.becomes("(window.seen ?? [])[0] ?? ''", LIMIT, |seen: &String| !seen.is_empty()).await?);
    }
    Ok(thrown)
}

/// What the page has seen from its start to the room's end.
async fn seen_with(harness: &E2eHarness, name: &str) -> Result<Vec<String>> {
    let (api, room) = (harness.api(), harness.room("template-sdk"));
    let _p0 = camera(harness, &room, "p0").await?;
    let mut open = OpenPage::of(&format!("pages/{name}"), api, &room, RECORDER, "speaker-dark").await?;
    open.page.says("START_RECORDING", LIMIT).await.with_context(|| format!("on the SDK of {name}"))?;
    for (layout, seen) in [("grid-light", 4), ("grid-light", 4), ("single-speaker", 5)] {
        set_layout(api, &room, RECORDER, layout).await?;
        open.page.becomes("window.seen.length", LIMIT, |length: &usize| *length >= seen).await?;
    }
    api.delete_room(&room).await?;
    open.page.says("END_RECORDING", LIMIT).await?;
    open.page.evaluate("window.seen").await
}
