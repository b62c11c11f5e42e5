//! CPU, memory, frames and delays of each kind of recording.

use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::{Value, json};
use spillway_commands::bench::is_selected;
use spillway_tests::analyser::picture::{self, FrameContinuity};
use spillway_tests::analyser::{probe, stream};
use spillway_tests::assets::{clip, person};
use spillway_tests::egress::{Egress, file_of, nanos};
use spillway_tests::publisher::{Publisher, PublisherOptions, SourceKind};
use spillway_tests::servers::TestServers;

use crate::processes;

struct BenchCase {
    name: &'static str,
    method: &'static str,
    /// Clips of the cameras of p0, p1, …; several clips are layers of one, the largest last.
    cameras: &'static [&'static [&'static str]],
    request: fn(&[(String, String)]) -> Value,
}

/// Each request gets `(video sid, audio sid)` of every person.
const BENCH_CASES: &[BenchCase] = &[
    BenchCase {
        name: "track h264",
        method: "StartTrackEgress",
        cameras: &[&["p0-720.h264"]],
        request: |sids| json!({ "track_id": sids[0].0, "file": {} }),
    },
    BenchCase {
        name: "track opus",
        method: "StartTrackEgress",
        cameras: &[&["p0-720.h264"]],
        request: |sids| json!({ "track_id": sids[0].1, "file": {} }),
    },
    BenchCase {
        name: "track composite, copied",
        method: "StartTrackCompositeEgress",
        cameras: &[&["p0-720.h264"]],
        request: |sids| json!({ "video_track_id": sids[0].0, "audio_track_id": sids[0].1, "file_outputs": [{ "file_type": "MP4" }] }),
    },
    BenchCase {
        name: "participant, encoded",
        method: "StartParticipantEgress",
        cameras: &[&["p0-720.h264"]],
        request: |_| json!({ "identity": "p0", "preset": "H264_720P_30", "file_outputs": [{ "file_type": "MP4" }] }),
    },
    BenchCase {
        name: "room, audio only, 3 people",
        method: "StartRoomCompositeEgress",
        cameras: &[&["p0-360.h264"], &["p1-360.h264"], &["p2-360.h264"]],
        request: |_| json!({ "audio_only": true, "file_outputs": [{ "file_type": "OGG" }] }),
    },
    BenchCase {
        name: "room 720p30 of 1 x 720p",
        method: "StartRoomCompositeEgress",
        cameras: &[&["p0-720.h264"]],
        request: |_| json!({ "layout": "grid", "file_outputs": [{ "file_type": "MP4" }] }),
    },
    BenchCase {
        name: "room 720p30 of 4 x 360p",
        method: "StartRoomCompositeEgress",
        cameras: &[&["p0-360.h264"], &["p1-360.h264"], &["p2-360.h264"], &["p3-360.h264"]],
        request: |_| json!({ "layout": "grid", "file_outputs": [{ "file_type": "MP4" }] }),
    },
    BenchCase {
        name: "room 720p30 of 4 x 720p",
        method: "StartRoomCompositeEgress",
        cameras: &[&["p0-720.h264"], &["p1-720.h264"], &["p2-720.h264"], &["p3-720.h264"]],
        request: |_| json!({ "layout": "grid", "file_outputs": [{ "file_type": "MP4" }] }),
    },
    BenchCase {
        name: "room 720p30 of 4 x 720p with layers",
        method: "StartRoomCompositeEgress",
        cameras: &[
            &["p0-360.h264", "p0-720.h264"],
            &["p1-360.h264", "p1-720.h264"],
            &["p2-360.h264", "p2-720.h264"],
            &["p3-360.h264", "p3-720.h264"],
        ],
        request: |_| json!({ "layout": "grid", "file_outputs": [{ "file_type": "MP4" }] }),
    },
    // Sent 30 times a second, and always the same picture.
    BenchCase {
        name: "room 720p30 of 4 x 720p, still",
        method: "StartRoomCompositeEgress",
        cameras: &[&["p0-720-still.h264"], &["p1-720-still.h264"], &["p2-720-still.h264"], &["p3-720-still.h264"]],
        request: |_| json!({ "layout": "grid", "file_outputs": [{ "file_type": "MP4" }] }),
    },
    BenchCase {
        name: "room 720p30 of 1 x 720p, 15 a second",
        method: "StartRoomCompositeEgress",
        cameras: &[&["p0-720-15fps.h264"]],
        request: |_| json!({ "layout": "grid", "file_outputs": [{ "file_type": "MP4" }] }),
    },
    BenchCase {
        name: "room 1080p30 of 4 x 720p",
        method: "StartRoomCompositeEgress",
        cameras: &[&["p0-720.h264"], &["p1-720.h264"], &["p2-720.h264"], &["p3-720.h264"]],
        request: |_| json!({ "layout": "grid", "preset": "H264_1080P_30", "file_outputs": [{ "file_type": "MP4" }] }),
    },
];

/// Figures of one recording.
#[derive(Debug, Serialize)]
pub struct Cost {
    /// Name of the measurement.
    pub kind: String,
    /// CPU seconds of runner and media process per second, in the steady state.
    pub cores: f64,
    /// Sum of both processes' peaks.
    pub peak_mb: f64,
    /// Frames with a new number per second; `None`: no video.
    pub different_fps: Option<f64>,
    /// Longest time without a new frame; `None`: no video.
    pub longest_freeze_ms: Option<f64>,
    /// Duration of the Start call.
    pub start_answer_ms: f64,
    /// From the Start call to the first recorded media.
    pub start_to_first_frame_ms: f64,
    /// From the start of the runner to the first recorded media.
    pub exec_to_first_frame_ms: f64,
    /// From the Start call to ACTIVE.
    pub start_to_active_ms: f64,
    /// From the Stop call to COMPLETE.
    pub stop_to_complete_ms: f64,
}

/// Names of all kinds.
#[cfg(test)]
pub fn names() -> Vec<&'static str> {
    BENCH_CASES.iter().map(|kind| kind.name).collect()
}

/// Records each selected kind `runs` times for `seconds`.
pub async fn measure(only: &str, seconds: f64, runs: usize) -> Result<Vec<Cost>> {
    let mut costs = Vec::new();
    println!(
        "{:<36} {:>6} {:>6} {:>6} {:>7} {:>7} {:>8} {:>8} {:>7} {:>7}",
        "kind", "cores", "MB", "fps", "freeze", "answer", "to frame", "of exec", "ACTIVE", "stop"
    );
    for kind in BENCH_CASES.iter().filter(|kind| is_selected(kind.name, only)) {
        for _ in 0..runs {
            let cost = one(kind, seconds).await.with_context(|| kind.name)?;
            println!(
                "{:<36} {:>6.3} {:>6.0} {:>6.2} {:>7.0} {:>7.0} {:>8.0} {:>8.0} {:>7.0} {:>7.0}",
                cost.kind,
                cost.cores,
                cost.peak_mb,
                cost.different_fps.unwrap_or(0.0),
                cost.longest_freeze_ms.unwrap_or(0.0),
                cost.start_answer_ms,
                cost.start_to_first_frame_ms,
                cost.exec_to_first_frame_ms,
                cost.start_to_active_ms,
                cost.stop_to_complete_ms
            );
            costs.push(cost);
        }
    }
    Ok(costs)
}

async fn one(kind: &BenchCase, seconds: f64) -> Result<Cost> {
    let servers = TestServers::start("").await?;
    let _dispatcher = servers.dispatcher("dispatcher", "").await?;
    let (mut people, mut sids) = (Vec::new(), Vec::new());
    for (index, layers) in kind.cameras.iter().enumerate() {
        let who = format!("p{index}");
        let layers = layers.iter().map(|layer| clip(layer)).collect::<Result<Vec<_>>>()?;
        let sound = clip(&format!("{who}.opus"))?;
        let person = Publisher::join(&servers.api, "bench", &who, PublisherOptions::default()).await?;
        sids.push((
            person.publish_layers(&layers, SourceKind::Camera).await?,
            person.publish(&sound, SourceKind::Microphone).await?,
        ));
        people.push(person);
    }
    // Tracks are live and known to the server before anything is asked.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut request = (kind.request)(&sids);
    request["room_name"] = json!("bench");
    let path = servers.folder().join("files/bench-{time}").to_string_lossy().into_owned();
    match request.get_mut("file") {
        Some(file) => file["filepath"] = json!(path),
        None => request["file_outputs"][0]["filepath"] = json!(path),
    }
    let asked = processes::unix_ms();
    let egress = Egress::start(&servers.api, kind.method, request).await?;
    let active = egress.active().await?;
    let pids = processes::of_recordings(&servers);
    let executed = pids.iter().filter_map(|pid| processes::started_ms(*pid)).fold(f64::MAX, f64::min);
    // Steady: what starting costs is over.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let cores = processes::cores(&pids, Duration::from_secs_f64(seconds)).await;
    let peak_mb = pids.iter().filter_map(|pid| processes::peak_mb(*pid)).sum();
    let (info, stopped) = egress.stop().await?;
    let file = file_of(&info)?;
    let first = nanos(&info["file_results"][0]["started_at"]) as f64 / 1e6;
    let identity: Option<FrameContinuity> = stream(&probe(&file)?, "video")
        .map(|_| picture::analyse(&file).map(|pictures| pictures.identity(person("p0"))))
        .transpose()?;
    Ok(Cost {
        kind: kind.name.to_owned(),
        cores,
        peak_mb,
        different_fps: identity.as_ref().map(|identity| identity.different_per_second),
        longest_freeze_ms: identity.as_ref().map(|identity| identity.longest_freeze * 1000.0),
        start_answer_ms: egress.answered_in.as_secs_f64() * 1000.0,
        start_to_first_frame_ms: first - asked,
        exec_to_first_frame_ms: first - executed,
        start_to_active_ms: active.as_secs_f64() * 1000.0,
        stop_to_complete_ms: stopped.as_secs_f64() * 1000.0,
    })
}
