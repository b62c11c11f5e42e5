//! Several outputs of one egress.

use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use serde_json::{Value, json};
use spillway_tests::analyser::sound::BeepSide;
use spillway_tests::assets::clip;
use spillway_tests::egress::{Egress, connected, nanos, streams_are, until};
use spillway_tests::publisher::{Publisher, PublisherOptions, SourceKind};
use spillway_tests::servers::rtmp_server::{CLOSED, LIVE, RtmpServer};

use crate::harness::{E2eHarness, case};
use crate::hls::{LIVE as LIVE_PLAYLIST, PICTURE, PLAYLIST, finished, folder, grown, of_disk, probe};
use crate::images::{as_told, each_second, images};
use crate::kinds::small;
use crate::publishers::person;
use crate::recording_probe::{RecordingProbe, one_result};
use crate::rtmp::{KEY, OTHER, ended, seen, streams};

pub fn cases() -> Vec<Trial> {
    vec![
        case("multi::mp4_ogg_and_mp4", |harness| async move { mp4_ogg_and_mp4(&harness).await }),
        case("multi::ogg_and_mp3", |harness| async move { ogg_and_mp3(&harness).await }),
        case("multi::everything_of_a_participant", |harness| async move { everything(&harness).await }),
    ]
}

/// Records p0 for some seconds into files of these types; one probe for each, in the order of the request.
async fn recorded(harness: &E2eHarness, kind: &str, types: &[&str], audio_only: bool) -> Result<Vec<RecordingProbe>> {
    let room = harness.room(kind);
    let _p0 = person(harness, &room, "p0", "p0-360.h264").await?;
    let path = |number: usize, of: &str| harness.file(&format!("{kind}-{number}-{{time}}.{}", of.to_lowercase()));
    let output = |(number, of): (usize, &&str)| json!({ "filepath": path(number, of), "file_type": of });
    let files: Vec<Value> = types.iter().enumerate().map(output).collect();
    let request = json!({ "room_name": room, "layout": "grid", "audio_only": audio_only, "file_outputs": files });
    let egress = Egress::start(harness.api(), "StartRoomCompositeEgress", request).await?;
    egress.active().await?;
    tokio::time::sleep(Duration::from_secs(8)).await;
    let info = egress.complete().await?;
    let results = info["file_results"].as_array().context("no file_results")?;
    ensure!(results.len() == types.len(), "{} files were asked for: {info}", types.len());
    results.iter().map(|result| RecordingProbe::open(&one_result(&info, result))).collect()
}

/// One sound stands at one time in all files.
fn together(probes: &[RecordingProbe]) -> Result<()> {
    let beeps =
        |probe: &RecordingProbe| anyhow::Ok(probe.beeps("p0")?.iter().map(|beep| beep.at).collect::<Vec<f64>>());
    // A beep at the beginning may be cut in one container and whole in another, whose first packet begins earlier.
    let first: Vec<f64> = beeps(&probes[0])?.into_iter().filter(|at| *at > 0.5).collect();
    ensure!(first.len() > 4, "{} beeps in {}", first.len(), probes[0].name());
    for probe in &probes[1..] {
        let others = beeps(probe)?;
        let nearest = |at: &f64| others.iter().map(|other| (other - at).abs()).fold(f64::MAX, f64::min);
        let apart = first.iter().map(nearest).fold(0.0, f64::max);
        println!("{} against {}: {:.1} ms apart", probe.name(), probes[0].name(), apart * 1000.0);
        ensure!(apart <= 0.01, "{first:.3?} in {}, {others:.3?} in {}", probes[0].name(), probe.name());
    }
    Ok(())
}

async fn mp4_ogg_and_mp4(harness: &E2eHarness) -> Result<()> {
    let probes = recorded(harness, "multi", &["MP4", "OGG", "MP4"], false).await?;
    for probe in [&probes[0], &probes[2]] {
        probe.is_h264("Main", 1280, 720)?;
        ensure!(probe.audio()?["codec_name"] == "aac", "{}", probe.audio()?);
        probe.shows("p0", &probe.whole(), &[])?;
        probe.in_sync("p0")?;
    }
    let bytes = |probe: &RecordingProbe| std::fs::read(&probe.path).context("read a file");
    ensure!(bytes(&probes[0])? == bytes(&probes[2])?, "one encoder, two files, two contents");
    probes[1].is_audio("opus", "48000", 2)?;
    ensure!(probes[1].pictures.is_none(), "a picture in an Ogg");
    probes[1].sounds("p0", BeepSide::Both, &probes[1].whole(), &[])?;
    together(&probes)
}

/// An MP4, HLS, images and two streams, one of them refused, of a participant whose camera comes late and whose microphone
/// goes early. A stream is added while all of it runs, which ListEgress tells; without streams the others go on (livekit/egress'
/// EmptyStreamBin).
async fn everything(harness: &E2eHarness) -> Result<()> {
    let server = RtmpServer::start()?;
    let (room, folder) = (harness.room("everything"), folder(harness, "everything"));
    let p0 = Publisher::join(harness.api(), &room, "p0", PublisherOptions::default()).await?;
    let audio = p0.publish(&clip("p0.opus")?, SourceKind::Microphone).await?;
    let (file, prefix) = (harness.file("everything-{time}.mp4"), folder.join("pic"));
    let [good, bad, added] = [server.url(LIVE, KEY), server.url(CLOSED, KEY), server.url(LIVE, OTHER)];
    let request = json!({
        "room_name": room, "identity": "p0", "advanced": small(),
        "file_outputs": [{ "filepath": file.to_string_lossy(), "file_type": "MP4" }],
        "segment_outputs": of_disk(&folder, 2),
        "image_outputs": [each_second(&prefix)],
        "stream_outputs": streams(&[&good, &bad]),
    });
    let egress = Egress::start(harness.api(), "StartParticipantEgress", request).await?;
    egress.active().await?;
    let info = egress.info().await?;
    has_names(&info, &folder)?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let on = SystemTime::now();
    p0.publish(&clip("p0-360.h264")?, SourceKind::Camera).await?;
    let is =
        |info: &Value| streams_are(info, &["ACTIVE", "FAILED"]) && nanos(&info["stream_results"][0]["started_at"]) > 0;
    until(&egress, "one is connected and one has failed", 20, is).await?;
    grown(&folder.join(LIVE_PLAYLIST), 2).await?;

    egress.update_streams(&[&added], &[]).await?;
    let info = connected(&egress, 3).await?;
    ensure!(info["status"] == "EGRESS_ACTIVE" && streams_are(&info, &["ACTIVE", "FAILED", "ACTIVE"]), "{info}");
    has_names(&info, &folder)?;
    let [of_file, of_segments, of_images] =
        [&info["file_results"][0], &info["segment_results"][0], &info["image_results"][0]];
    for number in [
        &of_file["size"],
        &of_segments["size"],
        &of_segments["segment_count"],
        &of_segments["duration"],
        &of_images["image_count"],
    ] {
        ensure!(nanos(number) > 0, "not told while it runs: {info}");
    }
    for result in [of_file, of_segments, of_images] {
        ensure!(nanos(&result["started_at"]) > 0 && nanos(&result["ended_at"]) == 0, "{result}");
    }
    let watched = server.watch(OTHER, 5).await?;
    let off = SystemTime::now();
    p0.unpublish(&audio);
    let info = egress.update_streams(&[], &[&good, &added]).await?;
    ensure!(info["status"] == "EGRESS_ACTIVE" && streams_are(&info, &["FINISHED", "FAILED", "FINISHED"]), "{info}");
    tokio::time::sleep(Duration::from_secs(3)).await;
    let info = egress.complete().await?;
    ended(&info, &["FINISHED", "FAILED", "FINISHED"])?;

    let stream = seen(watched, 5)?;
    stream.is_streamed_h264("Main", 640, 360)?;
    stream.is_audio("aac", "44100", 2)?;
    stream.in_sync("p0")?;
    let mp4 = RecordingProbe::open(&info)?;
    let hls = finished(&folder, &info, 2, PICTURE)?;
    hls.begins_with_key_frames()?;
    let playlist = probe(&hls, &info)?;
    for probe in [&mp4, &playlist] {
        // Its camera comes three seconds late.
        probe.is_h264_with_pauses("Main", 640, 360)?;
        probe.is_audio("aac", "44100", 2)?;
        let (on, off, end) = (probe.at(on), probe.at(off), probe.seconds());
        ensure!(end > off + 2.0, "it ended with its streams: {end:.1} s, and they were removed at {off:.1}");
        // A key frame may take a second.
        probe.shows("p0", &[(on + 2.0, end - 0.7)], &[(0.0, on - 0.2)])?;
        probe.sounds("p0", BeepSide::Both, &[(0.5, off - 0.2)], &[(off + 1.0, end)])?;
        probe.in_sync("p0")?;
    }
    ensure!((mp4.seconds() - playlist.seconds()).abs() < 0.1, "{} and {} s", mp4.seconds(), playlist.seconds());
    let images = images(&folder, "pic_", ".jpeg")?;
    ensure!((images.len() as f64 - mp4.seconds()).abs() < 2.0, "{} images in {} s", images.len(), mp4.seconds());
    as_told(&info["image_results"][0], &prefix, images.len())
}

/// Every output that makes files is named while it runs.
fn has_names(info: &Value, folder: &Path) -> Result<()> {
    let file = info["file_results"][0]["filename"].as_str().unwrap_or_default();
    ensure!(file.ends_with(".mp4") && !file.contains('{'), "{info}");
    let named = |name: &str| folder.join(name).to_string_lossy().into_owned();
    let segments = &info["segment_results"][0];
    ensure!(segments["playlist_name"] == named(PLAYLIST).as_str(), "{info}");
    ensure!(segments["live_playlist_name"] == named(LIVE_PLAYLIST).as_str(), "{info}");
    ensure!(info["image_results"][0]["filename_prefix"] == named("pic").as_str(), "{info}");
    Ok(())
}

async fn ogg_and_mp3(harness: &E2eHarness) -> Result<()> {
    let probes = recorded(harness, "multi-audio", &["OGG", "MP3"], true).await?;
    probes[0].is_audio("opus", "48000", 2)?;
    ensure!(probes[1].audio()?["codec_name"] == "mp3", "{}", probes[1].audio()?);
    for probe in &probes {
        ensure!(probe.pictures.is_none(), "a picture in {}", probe.name());
        probe.sounds("p0", BeepSide::Both, &probe.whole(), &[])?;
    }
    Ok(())
}
