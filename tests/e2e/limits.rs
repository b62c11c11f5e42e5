//! Limits of the installation, by kind of output: the egress ends with what it has, LIMIT_REACHED, and what it has is whole.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use libtest_mimic::Trial;
use serde_json::{Value, json};
use spillway_tests::egress::{Egress, nanos};
use spillway_tests::every_output::TestRoom;
use spillway_tests::servers::TestServers;
use spillway_tests::servers::rtmp_server::{LIVE, RtmpServer};

use crate::harness::{alone, block_on, tidy};
use crate::hls::{PICTURE, SOUND, finished, of_disk};
use crate::kinds::small;
use crate::recording_probe::RecordingProbe;
use crate::rtmp::{KEY, ended, streams};

/// Seconds since the runner has begun, of which the first ones go into joining.
const STREAM_S: u64 = 8;
const SEGMENTS_S: u64 = 7;
const FILE_BYTES: u64 = 300_000;
/// More than seven seconds of sound alone, less than two segments with a picture.
const SEGMENTS_BYTES: u64 = 100_000;

pub fn cases() -> Vec<Trial> {
    vec![alone("limits::of_files_streams_and_hls", || block_on(limits()))]
}

async fn limits() -> Result<()> {
    let server = RtmpServer::start()?;
    let servers = TestServers::start("").await?;
    let limits = format!(
        "file_output_max_size: {FILE_BYTES}, stream_output_max_duration: {STREAM_S}s, \
         segment_output_max_duration: {SEGMENTS_S}s, segment_output_max_size: {SEGMENTS_BYTES}"
    );
    let _dispatcher = servers.dispatcher("dispatcher", &format!("session_limits: {{ {limits} }}\n")).await?;
    let _room = TestRoom::open(&servers.api, "limits").await?;
    let files = servers.folder().join("files");
    let (picture, sound) = (files.join("picture"), files.join("sound"));
    let requests = [
        json!({
            "layout": "speaker", "advanced": small(),
            "file_outputs": [{ "filepath": files.join("limit.mp4").to_string_lossy(), "file_type": "MP4" }],
        }),
        json!({
            "layout": "speaker", "advanced": small(), "stream_outputs": streams(&[&server.url(LIVE, KEY)]),
        }),
        json!({ "layout": "speaker", "advanced": small(), "segment_outputs": of_disk(&picture, 2) }),
        json!({
            "audio_only": true, "advanced": { "audio_bitrate": 32 }, "segment_outputs": of_disk(&sound, 2),
        }),
    ];
    let mut egresses = vec![];
    for mut request in requests {
        request["room_name"] = json!("limits");
        egresses.push(Egress::start(&servers.api, "StartRoomCompositeEgress", request).await?);
    }
    let mut infos = vec![];
    for egress in &egresses {
        let info = egress.over(Duration::from_secs(45)).await?;
        is_limited(&info)?;
        infos.push(info);
    }
    let [of_file, of_stream, of_picture, of_sound] = &infos[..] else { bail!("four were started") };

    let size = nanos(&of_file["file_results"][0]["size"]) as u64;
    ensure!((FILE_BYTES..4 * FILE_BYTES).contains(&size), "{size} bytes: {of_file}");
    let mp4 = RecordingProbe::open(of_file)?;
    // It lasts three seconds: sound that goes on for a frame longer counts in a rate by its length.
    mp4.is_streamed_h264("Main", 640, 360)?;
    mp4.shows("p0", &mp4.whole(), &[])?;

    ended(of_stream, &["FINISHED"])?;
    let lasted = nanos(&of_stream["stream_results"][0]["duration"]) as f64 / 1e9;
    ensure!((4.0..STREAM_S as f64 + 0.5).contains(&lasted), "the stream lasted {lasted:.1} s: {of_stream}");

    let hls = finished(&picture, of_picture, 2, PICTURE)?;
    let bytes = hls.bytes()?;
    println!("{bytes} bytes in {} segments", hls.playlist.segments.len());
    ensure!(bytes >= SEGMENTS_BYTES, "{bytes} bytes: {of_picture}");
    ensure!(hls.playlist.seconds() < SEGMENTS_S as f64 - 1.0, "ended by its length: {of_picture}");

    let hls = finished(&sound, of_sound, 2, SOUND)?;
    let (bytes, seconds) = (hls.bytes()?, hls.playlist.seconds());
    ensure!(bytes < SEGMENTS_BYTES, "{bytes} bytes: {of_sound}");
    ensure!((SEGMENTS_S as f64 - 4.0..SEGMENTS_S as f64 + 0.5).contains(&seconds), "{seconds:.1} s: {of_sound}");
    tidy(&servers, None).await
}

fn is_limited(info: &Value) -> Result<()> {
    ensure!(info["status"] == "EGRESS_LIMIT_REACHED" && info["error_code"] == 413, "{info}");
    ensure!(info["error"] == "Session limit reached", "{info}");
    let details = info["details"].as_str().unwrap_or_default();
    ensure!(details.starts_with("End reason: Session limit reached"), "{info}");
    Ok(())
}
