//! CPU, memory, frames and delays of each kind of recording.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

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

/// Clock ticks a second of /proc/<pid>/stat: 100 on every Linux that Debian runs on.
const TICKS: f64 = 100.0;

struct BenchCase {
    name: &'static str,
    method: &'static str,
    /// Clips of the cameras of p0, p1, …
    cameras: &'static [&'static str],
    request: fn(&[(String, String)]) -> Value,
}

/// Each request gets `(video sid, audio sid)` of every person.
const BENCH_CASES: &[BenchCase] = &[
    BenchCase {
        name: "track h264",
        method: "StartTrackEgress",
        cameras: &["p0-720.h264"],
        request: |sids| json!({ "track_id": sids[0].0, "file": {} }),
    },
    BenchCase {
        name: "track opus",
        method: "StartTrackEgress",
        cameras: &["p0-720.h264"],
        request: |sids| json!({ "track_id": sids[0].1, "file": {} }),
    },
    BenchCase {
        name: "track composite, copied",
        method: "StartTrackCompositeEgress",
        cameras: &["p0-720.h264"],
        request: |sids| json!({ "video_track_id": sids[0].0, "audio_track_id": sids[0].1, "file_outputs": [{ "file_type": "MP4" }] }),
    },
    BenchCase {
        name: "participant, encoded",
        method: "StartParticipantEgress",
        cameras: &["p0-720.h264"],
        request: |_| json!({ "identity": "p0", "preset": "H264_720P_30", "file_outputs": [{ "file_type": "MP4" }] }),
    },
    BenchCase {
        name: "room, audio only, 3 people",
        method: "StartRoomCompositeEgress",
        cameras: &["p0-360.h264", "p1-360.h264", "p2-360.h264"],
        request: |_| json!({ "audio_only": true, "file_outputs": [{ "file_type": "OGG" }] }),
    },
    BenchCase {
        name: "room 720p30 of 1 x 720p",
        method: "StartRoomCompositeEgress",
        cameras: &["p0-720.h264"],
        request: |_| json!({ "layout": "grid", "file_outputs": [{ "file_type": "MP4" }] }),
    },
    BenchCase {
        name: "room 720p30 of 4 x 360p",
        method: "StartRoomCompositeEgress",
        cameras: &["p0-360.h264", "p1-360.h264", "p2-360.h264", "p3-360.h264"],
        request: |_| json!({ "layout": "grid", "file_outputs": [{ "file_type": "MP4" }] }),
    },
    BenchCase {
        name: "room 720p30 of 4 x 720p",
        method: "StartRoomCompositeEgress",
        cameras: &["p0-720.h264", "p1-720.h264", "p2-720.h264", "p3-720.h264"],
        request: |_| json!({ "layout": "grid", "file_outputs": [{ "file_type": "MP4" }] }),
    },
    BenchCase {
        name: "room 1080p30 of 4 x 720p",
        method: "StartRoomCompositeEgress",
        cameras: &["p0-720.h264", "p1-720.h264", "p2-720.h264", "p3-720.h264"],
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
        "{:<28} {:>6} {:>6} {:>6} {:>7} {:>7} {:>8} {:>8} {:>7} {:>7}",
        "kind", "cores", "MB", "fps", "freeze", "answer", "to frame", "of exec", "ACTIVE", "stop"
    );
    for kind in BENCH_CASES.iter().filter(|kind| is_selected(kind.name, only)) {
        for _ in 0..runs {
            let cost = one(kind, seconds).await.with_context(|| kind.name)?;
            println!(
                "{:<28} {:>6.3} {:>6.0} {:>6.2} {:>7.0} {:>7.0} {:>8.0} {:>8.0} {:>7.0} {:>7.0}",
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
    for (index, camera) in kind.cameras.iter().enumerate() {
        let who = format!("p{index}");
        let (picture, sound) = (clip(camera)?, clip(&format!("{who}.opus"))?);
        let person = Publisher::join(&servers.api, "bench", &who, PublisherOptions::default()).await?;
        sids.push((
            person.publish(&picture, SourceKind::Camera).await?,
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
    let asked = unix_ms();
    let egress = Egress::start(&servers.api, kind.method, request).await?;
    let active = egress.active().await?;
    let processes: Vec<i32> = servers
        .left_behind()
        .into_iter()
        .filter(|(_, command)| command.contains("spillway-runner") || command.contains("spillway-media"))
        .map(|(pid, _)| pid)
        .collect();
    let executed = processes.iter().filter_map(|pid| started_ms(*pid)).fold(f64::MAX, f64::min);
    // Steady: what starting costs is over.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (before, begun) = (cpu_seconds(&processes), std::time::Instant::now());
    tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
    let cores = (cpu_seconds(&processes) - before) / begun.elapsed().as_secs_f64();
    let peak_mb = processes.iter().filter_map(|pid| peak_mb(*pid)).sum();
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

fn unix_ms() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64() * 1000.0)
}

/// The fields of /proc/<pid>/stat after the command's name; the third of the file is the first here.
fn stat(pid: i32) -> Option<Vec<f64>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(')')?;
    Some(rest.split_whitespace().map(|field| field.parse().unwrap_or(0.0)).collect())
}

fn cpu_seconds(pids: &[i32]) -> f64 {
    pids.iter().filter_map(|pid| stat(*pid)).map(|fields| (fields[11] + fields[12]) / TICKS).sum()
}

/// Unix time at which a process was started.
fn started_ms(pid: i32) -> Option<f64> {
    let after_boot = stat(pid)?.get(19)? / TICKS;
    let uptime: f64 = std::fs::read_to_string("/proc/uptime").ok()?.split(' ').next()?.parse().ok()?;
    Some(unix_ms() - (uptime - after_boot) * 1000.0)
}

fn peak_mb(pid: i32) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<f64>().ok()? / 1024.0)
}
