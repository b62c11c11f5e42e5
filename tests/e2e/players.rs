//! HLS in the players of others: hls.js in Chromium, from another origin, while a recording runs and when it is over; and
//! GStreamer's `hlsdemux`. Errors of hls.js count, also those that it recovers from.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use serde_json::{Value, json};
use spillway_tests::analyser::hls::{HlsFolder, HlsPlaylist};
use spillway_tests::analyser::hlsdemux;
use spillway_tests::egress::{Egress, nanos};
use spillway_tests::hls_player::{HlsPlayback, HlsView, watch_hls};
use spillway_tests::process::eventually;
use spillway_tests::servers::bucket::TestBucket;
use spillway_tests::servers::fault_proxy::{FaultProxy, StoreFault};
use spillway_tests::servers::file_server::FileServer;

use crate::harness::{E2eHarness, SharedRun, alone, block_on, case, harness, tidy};
use crate::hls::{FOLDER, HlsScenario, LIVE, PICTURE, PLAYLIST, SOUND, finished, folder, grown, of_disk, recorded};
use crate::publishers::person;

/// Length of a segment.
const SECONDS: u64 = 2;
/// For a player that began while the recording ran to come to its end.
const LIMIT_S: f64 = 50.0;

pub fn cases() -> Vec<Trial> {
    vec![
        alone("players::hls_js_plays_the_event_playlist_while_it_grows", || from_the_beginning(&*watched()?)),
        alone("players::hls_js_plays_the_live_playlist", || live(&*watched()?)),
        alone("players::hls_js_plays_what_is_finished", || block_on(after_the_end(&*watched()?))),
        alone("players::gstreamer_plays_what_is_finished", || block_on(in_gstreamer(&*watched()?))),
        case("players::hls_js_plays_sound_alone", |harness| async move { sound_alone(&harness).await }),
        alone("players::hls_js_plays_over_segments_that_a_store_refused", || block_on(with_a_hole())),
        alone("players::hls_js_plays_what_a_store_took_before_it_refused_segments", || block_on(without_the_end())),
    ]
}

/// One recording that was watched in two ways while it ran.
struct WatchedRecording {
    folder: PathBuf,
    /// What the EVENT playlist says at the end.
    playlist: HlsPlaylist,
    event: HlsPlayback,
    live: HlsPlayback,
}

/// The first case that asks waits for it.
fn watched() -> Result<Arc<WatchedRecording>> {
    static WATCHED: SharedRun<WatchedRecording> = SharedRun::new();
    WATCHED.get(|| {
        let harness = harness()?;
        block_on(record_and_watch(&harness))
    })
}

async fn record_and_watch(harness: &E2eHarness) -> Result<WatchedRecording> {
    let (room, folder) = (harness.room("players"), folder(harness, "players"));
    let _p0 = person(harness, &room, "p0", "p0-360.h264").await?;
    let request = json!({ "room_name": room, "layout": "grid", "segment_outputs": of_disk(&folder, SECONDS) });
    let egress = Egress::start(harness.api(), "StartRoomCompositeEgress", request).await?;
    egress.active().await?;
    grown(&folder.join(LIVE), 3).await?;
    let server = FileServer::start(&folder).await?;
    let views = [HlsView::from_the_beginning(server.url(PLAYLIST), LIMIT_S), HlsView::live(server.url(LIVE), LIMIT_S)];
    // The browser needs some of it to start.
    let recording = async {
        tokio::time::sleep(Duration::from_secs(18)).await;
        egress.complete().await
    };
    let (seen, info) = tokio::try_join!(watch_hls(&views), recording)?;
    let hls = finished(&folder, &info, SECONDS, PICTURE)?;
    let [event, live] = <[HlsPlayback; 2]>::try_from(seen).ok().context("two playlists were played")?;
    Ok(WatchedRecording { folder, playlist: hls.playlist, event, live })
}

fn told(what: &str, playback: &HlsPlayback) {
    println!(
        "{what}: first frame after {:.2} s at {:.2} s, played to {:.2} of {:.2} s, stood for {:.2} s at most, {} ranges with \
         {:.3} s between them, {:.1} s behind the end at most, {} of {} pictures dropped",
        playback.first_frame_s,
        playback.first_s,
        playback.position_s,
        playback.length_s,
        playback.longest_stand_s,
        playback.ranges,
        playback.gap_s,
        playback.latency_s,
        playback.dropped,
        playback.pictures
    );
}

fn from_the_beginning(run: &WatchedRecording) -> Result<()> {
    told("EVENT", &run.event);
    ensure!(run.event.was_live, "the recording was over before the player began: {:?}", run.event);
    ensure!(run.event.first_s < 0.5, "it began at {:.2} s", run.event.first_s);
    ensure!(run.event.width == 1280, "{:?}", run.event);
    ensure!(run.event.fragments as usize >= run.playlist.segments.len(), "{:?}", run.event);
    run.event.ended_after(run.playlist.seconds())
}

fn live(run: &WatchedRecording) -> Result<()> {
    told("live", &run.live);
    run.live.is_fine()?;
    ensure!(run.live.was_live && run.live.ended, "{:?}", run.live);
    ensure!(run.live.position_s - run.live.first_s > 8.0, "it has played too little: {:?}", run.live);
    // Three target durations are hls.js' own rule, and a segment is listed at its end.
    ensure!(run.live.latency_s < 6.0 * SECONDS as f64, "{:.1} s behind", run.live.latency_s);
    Ok(())
}

async fn after_the_end(run: &WatchedRecording) -> Result<()> {
    let text = std::fs::read_to_string(run.folder.join(LIVE)).context("no live playlist")?;
    let last = HlsPlaylist::read(&text)?;
    let [whole, tail] = played(&run.folder, [(PLAYLIST, run.playlist.seconds()), (LIVE, last.seconds())]).await?;
    for playback in [&whole, &tail] {
        ensure!(!playback.was_live && playback.discontinuities == 0, "{playback:?}");
    }
    Ok(())
}

/// Plays finished playlists of these lengths in a folder to their ends.
async fn played<const COUNT: usize>(folder: &Path, lists: [(&str, f64); COUNT]) -> Result<[HlsPlayback; COUNT]> {
    let server = FileServer::start(folder).await?;
    let views = lists.map(|(name, seconds)| HlsView::finished(server.url(name), seconds));
    let seen = watch_hls(&views).await?;
    for ((name, seconds), playback) in lists.iter().zip(&seen) {
        told(name, playback);
        playback.ended_after(*seconds).with_context(|| (*name).to_owned())?;
    }
    <[HlsPlayback; COUNT]>::try_from(seen).ok().context("one answer for each playlist")
}

async fn in_gstreamer(run: &WatchedRecording) -> Result<()> {
    let server = FileServer::start(&run.folder).await?;
    let url = server.url(PLAYLIST);
    let seen = tokio::task::spawn_blocking(move || hlsdemux::decoded(&url)).await.context("the player panicked")??;
    println!("{seen:?}");
    let seconds = run.playlist.seconds();
    for stream in [seen.pictures, seen.sound] {
        ensure!((stream.seconds - seconds).abs() < 0.2, "{:.2} of {seconds:.2} s: {seen:?}", stream.seconds);
        ensure!(stream.gap < 2.0 * PICTURE, "a hole of {:.3} s: {seen:?}", stream.gap);
    }
    ensure!(seen.warnings.is_empty(), "{:?}", seen.warnings);
    let pictures = (seconds / PICTURE).round();
    ensure!((seen.pictures.buffers as f64 - pictures).abs() <= 2.0, "{pictures} pictures are named: {seen:?}");
    Ok(())
}

async fn sound_alone(harness: &E2eHarness) -> Result<()> {
    let (room, folder) = (harness.room("players-sound"), folder(harness, "players-sound"));
    let _p0 = person(harness, &room, "p0", "p0-360.h264").await?;
    let request = json!({ "room_name": room, "audio_only": true, "segment_outputs": of_disk(&folder, SECONDS) });
    let info = recorded(harness, "StartRoomCompositeEgress", request, 8).await?;
    let hls = finished(&folder, &info, SECONDS, SOUND)?;
    let [playback] = played(&folder, [(PLAYLIST, hls.playlist.seconds())]).await?;
    ensure!(playback.width == 0, "a picture in an output of sound: {playback:?}");
    Ok(())
}

/// A playlist as the store has it.
async fn stored(bucket: &TestBucket, name: &str) -> Result<Option<HlsPlaylist>> {
    let Some(text) = bucket.read(&format!("{FOLDER}/{name}")).await? else { return Ok(None) };
    HlsPlaylist::read(&String::from_utf8_lossy(&text)).map(Some)
}

/// Waits until the live playlist in the store names this segment.
async fn listed(bucket: &TestBucket, segment: &str) -> Result<HlsPlaylist> {
    eventually(&format!("{segment} is listed"), Duration::from_secs(40), || async {
        let live = stored(bucket, LIVE).await?;
        Ok(live.filter(|live| live.segments.iter().any(|named| named.name == segment)))
    })
    .await
}

/// An egress with segments in a bucket behind a proxy.
async fn behind_a_proxy() -> Result<(HlsScenario, FaultProxy)> {
    let mut bucket = TestBucket::s3().await?;
    let proxy = FaultProxy::start(&bucket.address(), 12).await?;
    bucket.reached_through(&proxy);
    Ok((HlsScenario::recording_to(Some(bucket), ", outage: 4s", "").await?, proxy))
}

/// Lengths and counts of what is listed; a hole is in no sum.
fn counted(hls: &HlsFolder, info: &Value) -> Result<()> {
    let told = &info["segment_results"][0];
    ensure!(nanos(&told["segment_count"]) as usize == hls.playlist.segments.len(), "{told}");
    ensure!(nanos(&told["size"]) as u64 == hls.bytes()?, "{} bytes, said was {told}", hls.bytes()?);
    ensure!(told["playlist_location"].as_str().is_some_and(|told| told.ends_with(PLAYLIST)), "{told}");
    Ok(())
}

/// The store answers 400 to two segments: the next one is a discontinuity, `details` say so, and players see no hole.
async fn with_a_hole() -> Result<()> {
    let (scenario, proxy) = behind_a_proxy().await?;
    let bucket = scenario.bucket.as_ref().context("a bucket")?;
    for segment in ["part_00002.ts", "part_00003.ts"] {
        proxy.fail_named(segment, Some(StoreFault::Refused));
    }
    let live = listed(bucket, "part_00009.ts").await?;
    // Five of eight are left; the first of the others begins a new time.
    ensure!((live.sequence, live.discontinuities) == (3, 1), "{live:?}");
    let (info, _) = scenario.egress.stop().await?;
    ensure!(info["status"] == "EGRESS_COMPLETE", "{info}");
    let details = info["details"].as_str().unwrap_or_default();
    let missing = format!("2 segments are missing in {FOLDER}/{PLAYLIST}");
    ensure!(details.contains(&missing) && details.contains("InvalidArgument"), "{details}");
    let folder = scenario.folder().await?;
    let hls = HlsFolder::open(&folder.join(PLAYLIST))?;
    let anew = hls.playlist.segments.iter().filter(|segment| segment.discontinuity);
    ensure!(anew.map(|segment| segment.name.as_str()).eq(["part_00004.ts"]), "{:?}", hls.playlist);
    hls.counters_go_on()?;
    hls.begins_with_key_frames()?;
    counted(&hls, &info)?;
    let [playback] = played(&folder, [(PLAYLIST, hls.playlist.seconds())]).await?;
    ensure!(playback.discontinuities == 1, "{playback:?}");
    tidy(&scenario.servers, scenario.bucket.as_ref()).await
}

/// Keys for segments are revoked, those for playlists are not: the egress fails with the store's message, and what is stored
/// plays to its end.
async fn without_the_end() -> Result<()> {
    let (scenario, proxy) = behind_a_proxy().await?;
    let bucket = scenario.bucket.as_ref().context("a bucket")?;
    let before = listed(bucket, "part_00003.ts").await?;
    proxy.fail_named(".ts", Some(StoreFault::Denied));
    tokio::time::sleep(Duration::from_secs(5)).await;
    let asked = Instant::now();
    let (info, _) = scenario.egress.stop().await?;
    println!("{} {:.2?} after the stop: {}; {}", info["status"], asked.elapsed(), info["error"], info["details"]);
    ensure!(info["status"] == "EGRESS_FAILED", "{info}");
    ensure!(info["error"].as_str().is_some_and(|error| error.contains("AccessDenied")), "{info}");
    let details = info["details"].as_str().unwrap_or_default();
    ensure!(details.contains("are missing in") && details.contains("lies on the recorder's disk"), "{details}");
    let folder = scenario.folder().await?;
    let hls = HlsFolder::open(&folder.join(PLAYLIST))?;
    ensure!(hls.playlist.segments.len() >= before.segments.len(), "{:?}", hls.playlist);
    hls.plays()?;
    counted(&hls, &info)?;
    played(&folder, [(PLAYLIST, hls.playlist.seconds())]).await?;
    let kept = std::fs::read_dir(scenario.spool().join(&scenario.egress.id)).context("nothing is kept")?.count();
    ensure!(kept >= 2, "{kept} files are kept");
    Ok(())
}
