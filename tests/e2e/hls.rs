//! HLS: playlists and segments on a disk and in a store, while they grow, when they are finished, and when a process dies.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use chrono::NaiveDateTime;
use libtest_mimic::Trial;
use rustix::process::Signal;
use serde_json::{Value, json};
use spillway_tests::analyser::hls::{HlsFolder, HlsPlaylist};
use spillway_tests::analyser::sound::BeepSide;
use spillway_tests::egress::{Egress, nanos};
use spillway_tests::every_output::TestRoom;
use spillway_tests::process::eventually;
use spillway_tests::servers::TestServers;
use spillway_tests::servers::bucket::TestBucket;

use crate::harness::{E2eHarness, alone, block_on, case, signal, tidy};
use crate::publishers::person;
use crate::recording_probe::{RecordingProbe, one_result};

/// One at 30 pictures a second.
pub const PICTURE: f64 = 1.0 / 30.0;
/// One of AAC at 44.1 kHz.
pub const SOUND: f64 = 1024.0 / 44_100.0;
/// Names in every case.
pub const PLAYLIST: &str = "index.m3u8";
pub const LIVE: &str = "live.m3u8";

pub fn cases() -> Vec<Trial> {
    vec![
        case("hls::room_composite", |harness| async move { room_composite(&harness).await }),
        case("hls::track_composite", |harness| async move { track_composite(&harness).await }),
        case("hls::beside_an_mp4", |harness| async move { beside_an_mp4(&harness).await }),
        case("hls::sound_alone", |harness| async move { sound_alone(&harness).await }),
        alone("hls::on_s3", || block_on(on_s3())),
        alone("hls::kill_of_the_media_process", || block_on(killed("spillway-media", Place::Disk))),
        alone("hls::kill_of_the_media_process_on_s3", || block_on(killed("spillway-media", Place::Bucket))),
        alone("hls::kill_of_the_task", || block_on(killed("spillway-runner", Place::Disk))),
        alone("hls::kill_of_the_task_with_its_disk_on_s3", || block_on(killed("spillway-runner", Place::Bucket))),
    ]
}

/// The segment output of a request; playlists and segments lie in `folder`.
fn segments(folder: &str, seconds: u64) -> Value {
    json!({
        "filename_prefix": format!("{folder}/part"), "playlist_name": PLAYLIST, "live_playlist_name": LIVE,
        "segment_duration": seconds,
    })
}

/// A folder of the shared servers for a case's output.
pub fn folder(harness: &E2eHarness, kind: &str) -> PathBuf {
    harness.file(&format!("hls-{kind}"))
}

pub fn of_disk(folder: &Path, seconds: u64) -> Value {
    json!([segments(&folder.to_string_lossy(), seconds)])
}

/// The finished output of an egress in `folder`: all of it is there, plays, goes on from segment to segment and is what the
/// EgressInfo says.
pub fn finished(folder: &Path, info: &Value, seconds: u64, frame: f64) -> Result<HlsFolder> {
    let hls = HlsFolder::open(&folder.join(PLAYLIST))?;
    hls.playlist.is_on_grid(seconds as f64, frame)?;
    ensure!(hls.playlist.is_event && hls.playlist.sequence == 0, "{:?}", hls.playlist);
    ensure!(hls.playlist.segments.iter().all(|segment| !segment.discontinuity), "{:?}", hls.playlist);
    let packets = hls.counters_go_on()?;
    hls.plays()?;
    let live = std::fs::read_to_string(folder.join(LIVE)).context("no live playlist")?;
    let live = HlsPlaylist::read(&live)?;
    let all = &hls.playlist.segments;
    ensure!(live.ended && !live.is_event, "{live:?}");
    ensure!(live.segments.len() <= 5 && all.ends_with(&live.segments), "{live:?} is no end of {all:?}");
    ensure!(live.sequence as usize == all.len() - live.segments.len(), "{live:?}");
    println!("{}: {} segments, {packets} packets, {:.3} s", folder.display(), all.len(), hls.playlist.seconds());
    as_told(&hls, info)?;
    Ok(hls)
}

/// Counts, sizes and times of `segment_results` are those of the files.
pub fn as_told(hls: &HlsFolder, info: &Value) -> Result<()> {
    let results = info["segment_results"].as_array().context("no segment_results")?;
    ensure!(results.len() == 1, "one output was asked for: {info}");
    let told = &results[0];
    ensure!(nanos(&told["segment_count"]) as usize == hls.playlist.segments.len(), "{told}");
    ensure!(nanos(&told["size"]) as u64 == hls.bytes()?, "{} bytes, said was {told}", hls.bytes()?);
    let (begins, ends) = (nanos(&told["started_at"]) as f64 / 1e9, nanos(&told["ended_at"]) as f64 / 1e9);
    let duration = nanos(&told["duration"]) as f64 / 1e9;
    let seconds = hls.playlist.seconds();
    ensure!((duration - seconds).abs() < 0.01 && (ends - begins - seconds).abs() < 0.01, "{seconds} s: {told}");
    let first = hls.playlist.segments[0].begins;
    ensure!((first - begins).abs() < 0.002, "the first segment begins at {first}: {told}");
    for (field, name) in [
        ("playlist_name", PLAYLIST),
        ("live_playlist_name", LIVE),
        ("playlist_location", PLAYLIST),
        ("live_playlist_location", LIVE),
    ] {
        ensure!(told[field].as_str().is_some_and(|told| told.ends_with(name)), "{field}: {told}");
    }
    Ok(())
}

/// All of it as one recording, from the playlist on.
pub fn probe(hls: &HlsFolder, info: &Value) -> Result<RecordingProbe> {
    let probe = RecordingProbe::fetched(&one_result(info, &info["segment_results"][0]), hls.as_mp4()?)?;
    let (has, said) = (probe.seconds(), hls.playlist.seconds());
    ensure!((has - said).abs() < 0.1, "{said:.3} s are named and {has:.3} s are there");
    Ok(probe)
}

/// Names are the dates of the playlist, whatever the time zone.
fn named_by_time(hls: &HlsFolder) -> Result<()> {
    const QUARTER_S: f64 = 900.0;
    for segment in &hls.playlist.segments {
        let time = segment.name.strip_prefix("part_").and_then(|name| name.strip_suffix(".ts"));
        let time = time.with_context(|| format!("named {}", segment.name))?;
        let named = NaiveDateTime::parse_from_str(time.get(..14).unwrap_or_default(), "%Y%m%d%H%M%S")
            .with_context(|| format!("named {}", segment.name))?;
        let millis = time.get(14..).and_then(|millis| millis.parse::<u32>().ok()).context("no milliseconds")?;
        let named = named.and_utc().timestamp() as f64 + f64::from(millis) / 1e3;
        let apart = (named - segment.begins).rem_euclid(QUARTER_S);
        ensure!(time.len() == 17 && apart.min(QUARTER_S - apart) < 0.0025, "{apart} s: {segment:?}");
    }
    Ok(())
}

/// Starts an egress, lets it record, and gives its final info.
pub async fn recorded(harness: &E2eHarness, method: &str, request: Value, seconds: u64) -> Result<Value> {
    let egress = Egress::start(harness.api(), method, request).await?;
    egress.active().await?;
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    egress.complete().await
}

async fn room_composite(harness: &E2eHarness) -> Result<()> {
    const SECONDS: u64 = 6;
    let (room, folder) = (harness.room("hls"), folder(harness, "room"));
    let _p0 = person(harness, &room, "p0", "p0-360.h264").await?;
    let request = json!({ "room_name": room, "layout": "grid", "segment_outputs": of_disk(&folder, SECONDS) });
    let egress = Egress::start(harness.api(), "StartRoomCompositeEgress", request).await?;
    egress.active().await?;
    let info = egress.info().await?;
    let told = &info["segment_results"][0];
    let named = folder.join(PLAYLIST);
    ensure!(told["playlist_name"] == *named.to_string_lossy(), "at ACTIVE: {info}");
    let live = grown(&folder.join(LIVE), 2).await?;
    ensure!(!live.ended, "it ends while it grows: {live:?}");
    for segment in &live.segments {
        ensure!(folder.join(&segment.name).exists(), "{segment:?} is named and not there");
    }
    let growing = egress.info().await?;
    let event = std::fs::read_to_string(&named).context("no playlist while it grows")?;
    let event = HlsPlaylist::read(&event)?;
    ensure!(event.is_event && !event.ended && !event.segments.is_empty(), "{event:?}");
    ensure!(nanos(&growing["segment_results"][0]["ended_at"]) == 0, "{growing}");
    tokio::time::sleep(Duration::from_secs(2)).await;
    let info = egress.complete().await?;
    let hls = finished(&folder, &info, SECONDS, PICTURE)?;
    ensure!(hls.playlist.segments.len() >= 3, "{:?}", hls.playlist);
    ensure!(hls.playlist.segments[0].name == "part_00000.ts", "{:?}", hls.playlist);
    hls.begins_with_key_frames()?;
    let manifest = info["manifest_location"].as_str().unwrap_or_default();
    ensure!(manifest == folder.join(format!("{}.json", egress.id)).to_string_lossy(), "{info}");
    let manifest: Value = serde_json::from_slice(&std::fs::read(manifest)?).context("read the manifest")?;
    let listed = manifest["playlists"][0]["segments"].as_array().map_or(0, Vec::len);
    ensure!(listed == hls.playlist.segments.len() && manifest["quality"].is_object(), "{manifest}");
    let probe = probe(&hls, &info)?;
    probe.is_h264("Main", 1280, 720)?;
    probe.is_audio("aac", "44100", 2)?;
    probe.shows("p0", &probe.whole(), &[])?;
    probe.sounds("p0", BeepSide::Both, &probe.whole(), &[])?;
    probe.moves("p0", 29.0)?;
    probe.in_sync("p0").map(drop)
}

/// Waits until a playlist names so many segments.
pub async fn grown(path: &Path, segments: usize) -> Result<HlsPlaylist> {
    eventually(&format!("{} has {segments} segments", path.display()), Duration::from_secs(30), || async {
        let Ok(text) = std::fs::read_to_string(path) else { return Ok(None) };
        let playlist = HlsPlaylist::read(&text)?;
        Ok((playlist.segments.len() >= segments).then_some(playlist))
    })
    .await
}

async fn track_composite(harness: &E2eHarness) -> Result<()> {
    let (room, folder) = (harness.room("hls-tracks"), folder(harness, "tracks"));
    let (_p0, video, audio) = person(harness, &room, "p0", "p0-360.h264").await?;
    let mut output = segments(&folder.to_string_lossy(), 3);
    output["filename_suffix"] = json!("TIMESTAMP");
    let request = json!({
        "room_name": room, "video_track_id": video, "audio_track_id": audio, "segment_outputs": [output],
    });
    let info = recorded(harness, "StartTrackCompositeEgress", request, 8).await?;
    let hls = finished(&folder, &info, 3, PICTURE)?;
    hls.begins_with_key_frames()?;
    named_by_time(&hls)?;
    let probe = probe(&hls, &info)?;
    probe.shows("p0", &probe.whole(), &[])?;
    probe.in_sync("p0").map(drop)
}

/// One encoder: the file is what it always was, and the playlist shows the same pictures.
async fn beside_an_mp4(harness: &E2eHarness) -> Result<()> {
    let (room, folder) = (harness.room("hls-file"), folder(harness, "file"));
    let _p0 = person(harness, &room, "p0", "p0-360.h264").await?;
    let file = harness.file("hls-file-{time}.mp4");
    let request = json!({
        "room_name": room, "layout": "grid", "segment_outputs": of_disk(&folder, 2),
        "file_outputs": [{ "filepath": file.to_string_lossy(), "file_type": "MP4" }],
    });
    let info = recorded(harness, "StartRoomCompositeEgress", request, 8).await?;
    let mp4 = RecordingProbe::open(&info)?;
    mp4.is_h264("Main", 1280, 720)?;
    mp4.is_audio("aac", "44100", 2)?;
    mp4.shows("p0", &mp4.whole(), &[])?;
    mp4.in_sync("p0")?;
    let manifest = mp4.has_manifest()?;
    ensure!(manifest["playlists"][0]["location"] == *folder.join(PLAYLIST).to_string_lossy(), "{manifest}");
    let beside = folder.join(format!("{}.json", info["egress_id"].as_str().unwrap_or_default()));
    ensure!(
        std::fs::read(&beside).context("no manifest beside the playlist")? == manifest_bytes(&mp4)?,
        "two manifests"
    );
    let hls = finished(&folder, &info, 2, PICTURE)?;
    hls.begins_with_key_frames()?;
    let playlist = probe(&hls, &info)?;
    playlist.shows("p0", &playlist.whole(), &[])?;
    let pictures = |probe: &RecordingProbe| probe.pictures.as_ref().map_or(0, |pictures| pictures.all.len());
    ensure!(pictures(&mp4) == pictures(&playlist), "{} and {} pictures", pictures(&mp4), pictures(&playlist));
    ensure!((mp4.seconds() - playlist.seconds()).abs() < 0.1, "{} and {} s", mp4.seconds(), playlist.seconds());
    Ok(())
}

fn manifest_bytes(probe: &RecordingProbe) -> Result<Vec<u8>> {
    let id = probe.info["egress_id"].as_str().unwrap_or_default();
    std::fs::read(probe.path.with_file_name(format!("{id}.json"))).context("read the manifest")
}

async fn sound_alone(harness: &E2eHarness) -> Result<()> {
    let (room, folder) = (harness.room("hls-sound"), folder(harness, "sound"));
    let _p0 = person(harness, &room, "p0", "p0-360.h264").await?;
    let mut output = segments(&folder.to_string_lossy(), 2);
    output["filename_suffix"] = json!("TIMESTAMP");
    let request = json!({ "room_name": room, "audio_only": true, "segment_outputs": [output] });
    let info = recorded(harness, "StartRoomCompositeEgress", request, 8).await?;
    let hls = finished(&folder, &info, 2, SOUND)?;
    named_by_time(&hls)?;
    let probe = probe(&hls, &info)?;
    probe.is_audio("aac", "44100", 2)?;
    ensure!(probe.pictures.is_none(), "a picture in an output of sound");
    probe.sounds("p0", BeepSide::Both, &probe.whole(), &[])
}

/// Where the output of a case with servers of its own goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Disk,
    Bucket,
}

/// Servers, a room and one egress with segments of two seconds, for some seconds.
pub struct HlsScenario {
    pub servers: TestServers,
    _dispatcher: spillway_tests::servers::DispatcherProcess,
    pub bucket: Option<TestBucket>,
    _room: TestRoom,
    pub egress: Egress,
    /// ACTIVE was seen then.
    since: Instant,
}

pub const FOLDER: &str = "calls/hls";

impl HlsScenario {
    pub async fn recording(place: Place) -> Result<Self> {
        let bucket = if place == Place::Bucket { Some(TestBucket::s3().await?) } else { None };
        Self::recording_to(bucket, "", "").await
    }

    /// To the disk without a bucket. `settings`: more of the runner's, each with a comma before it; `more`: of the dispatcher's
    /// YAML.
    pub async fn recording_to(bucket: Option<TestBucket>, settings: &str, more: &str) -> Result<Self> {
        let servers = TestServers::start("").await?;
        let spool = servers.folder().join("spool");
        let more = format!("runner: {{ checkpoint: 2s, spool_dir: {}{settings} }}\n{more}", spool.display());
        let dispatcher = servers.dispatcher("dispatcher", &more).await?;
        let room = TestRoom::open(&servers.api, "hls").await?;
        let mut output = match bucket {
            None => segments(&servers.folder().join(FOLDER).to_string_lossy(), 2),
            Some(_) => segments(FOLDER, 2),
        };
        if let Some((provider, upload)) = bucket.as_ref().and_then(TestBucket::upload) {
            output[provider] = upload;
        }
        let request = json!({ "room_name": "hls", "layout": "speaker", "segment_outputs": [output] });
        let egress = Egress::start(&servers.api, "StartRoomCompositeEgress", request).await?;
        egress.active().await?;
        Ok(Self { servers, _dispatcher: dispatcher, bucket, _room: room, egress, since: Instant::now() })
    }

    pub fn spool(&self) -> PathBuf {
        self.servers.folder().join("spool")
    }

    /// The output on this machine's disk; of a bucket, fetched from there.
    pub async fn folder(&self) -> Result<PathBuf> {
        let folder = self.servers.folder().join(FOLDER);
        let Some(bucket) = &self.bucket else { return Ok(folder) };
        std::fs::create_dir_all(&folder).context("make a folder")?;
        for playlist in [PLAYLIST, LIVE] {
            let text = bucket.read(&format!("{FOLDER}/{playlist}")).await?.context("no playlist")?;
            std::fs::write(folder.join(playlist), &text)?;
            for segment in HlsPlaylist::read(&String::from_utf8_lossy(&text))?.segments {
                let key = format!("{FOLDER}/{}", segment.name);
                let bytes = bucket.read(&key).await?.with_context(|| format!("{key} is named and not there"))?;
                std::fs::write(folder.join(&segment.name), &bytes)?;
            }
        }
        Ok(folder)
    }

    pub fn kill(&self, name: &str, kind: Signal) -> Result<()> {
        let pids = self.servers.pids(name);
        ensure!(pids.len() == 1, "{} processes called {name}", pids.len());
        signal(pids[0], kind)
    }
}

/// At no moment a playlist names what the store has not got.
async fn on_s3() -> Result<()> {
    let scenario = HlsScenario::recording(Place::Bucket).await?;
    let bucket = scenario.bucket.as_ref().context("a bucket")?;
    let (mut most, mut looks) = (0usize, 0u32);
    while scenario.since.elapsed() < Duration::from_secs(11) {
        for playlist in [LIVE, PLAYLIST] {
            let Some(text) = bucket.read(&format!("{FOLDER}/{playlist}")).await? else { continue };
            let read = HlsPlaylist::read(&String::from_utf8_lossy(&text))?;
            ensure!(!read.ended, "{playlist} ends while it grows: {read:?}");
            for segment in &read.segments {
                let key = format!("{FOLDER}/{}", segment.name);
                ensure!(bucket.read(&key).await?.is_some(), "{key} is in {playlist} and not in the store");
            }
            (most, looks) = (most.max(read.segments.len()), looks + 1);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    println!("{looks} looks at playlists, up to {most} segments");
    ensure!(most >= 3, "{most} segments in 11 s");
    let (info, took) = scenario.egress.stop().await?;
    ensure!(info["status"] == "EGRESS_COMPLETE" && info["backup_storage_used"] == false, "{info}");
    println!("COMPLETE {took:.2?} after the stop");
    let folder = scenario.folder().await?;
    let hls = finished(&folder, &info, 2, PICTURE)?;
    hls.begins_with_key_frames()?;
    let told = &info["segment_results"][0];
    let store = bucket.store().await?;
    for (field, name) in [("playlist_location", PLAYLIST), ("live_playlist_location", LIVE)] {
        ensure!(told[field] == store.location(&format!("{FOLDER}/{name}")).as_str(), "{field}: {told}");
    }
    let key = format!("{FOLDER}/{}.json", scenario.egress.id);
    ensure!(info["manifest_location"] == store.location(&key).as_str(), "{info}");
    let manifest = bucket.read(&key).await?.context("no manifest")?;
    let manifest: Value = serde_json::from_slice(&manifest).context("read the manifest")?;
    for (segment, named) in manifest["playlists"][0]["segments"].as_array().into_iter().flatten().zip(hls.files()) {
        let name = named.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        ensure!(segment["filename"] == format!("{FOLDER}/{name}").as_str(), "{segment}");
    }
    let probe = probe(&hls, &info)?;
    probe.shows("p0", &probe.whole(), &[])?;
    probe.in_sync("p0")?;
    tidy(&scenario.servers, scenario.bucket.as_ref()).await
}

/// After the death of a process, where nothing goes on, the playlist plays to its end, and only what no other process had is
/// lost.
async fn killed(name: &str, place: Place) -> Result<()> {
    let whole_task = name == "spillway-runner";
    let bucket = if place == Place::Bucket { Some(TestBucket::s3().await?) } else { None };
    let scenario = HlsScenario::recording_to(bucket, "", "resume: off\n").await?;
    tokio::time::sleep(Duration::from_secs_f64(rand::random_range(6.0..8.0))).await;
    let with_its_disk = whole_task && place == Place::Bucket;
    if with_its_disk {
        // It sees its pipe close; it must not find time to write on.
        scenario.kill("spillway-media", Signal::STOP)?;
    }
    scenario.kill(name, Signal::KILL)?;
    let (dead, recorded) = (Instant::now(), scenario.since.elapsed().as_secs_f64());
    if with_its_disk {
        // It is gone already where the dispatcher was faster.
        let _ = scenario.kill("spillway-media", Signal::KILL);
        std::fs::remove_dir_all(scenario.spool()).context("remove the task's disk")?;
    }
    let info = scenario.egress.over(Duration::from_secs(30)).await?;
    let took = dead.elapsed().as_secs_f64();
    ensure!(info["status"] == "EGRESS_FAILED", "{info}");
    let hls = HlsFolder::open(&scenario.folder().await?.join(PLAYLIST))?;
    hls.counters_go_on()?;
    hls.begins_with_key_frames()?;
    hls.plays()?;
    as_told(&hls, &info)?;
    let seconds = hls.playlist.seconds();
    println!("{seconds:.2} of {recorded:.2} s kept, terminal after {took:.2} s: {}", info["error"]);
    // Where the disk is gone: the segment that was open, and those on their way.
    let (limit, most_lost) = (if whole_task { 15.0 } else { 2.0 }, if with_its_disk { 5.0 } else { 2.0 });
    ensure!(recorded - seconds < most_lost, "{:.2} s lost", recorded - seconds);
    ensure!(took < limit + 2.0, "terminal after {took:.1} s");
    let probe = probe(&hls, &info)?;
    probe.shows("p0", &[(0.5, seconds - 0.7)], &[])?;
    tidy(&scenario.servers, scenario.bucket.as_ref()).await
}
