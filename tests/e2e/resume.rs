//! Recordings that go on after the death of a process: how long until something is recorded again, what is kept, what the
//! EgressInfo says. Each case has servers of its own.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use rustix::process::Signal;
use serde_json::{Value, json};
use spillway_tests::analyser::hls::HlsFolder;
use spillway_tests::analyser::played;
use spillway_tests::egress::{Egress, nanos};
use spillway_tests::every_output::TestRoom;
use spillway_tests::process::eventually;
use spillway_tests::servers::{DispatcherProcess, TestServers};

use crate::harness::{alone, block_on, signal, tidy};
use crate::hls::{HlsScenario, PLAYLIST, Place};

/// From the death of a media process until another one records.
const MEDIA_AGAIN: f64 = 2.0;
/// From the death of a task, or from the signal to it.
const TASK_AGAIN: f64 = 5.0;

pub fn cases() -> Vec<Trial> {
    vec![
        alone("resume::media_process_killed", || block_on(media_process_killed())),
        alone("resume::media_process_killed_again_and_again", || block_on(crash_loop())),
        alone("resume::media_process_killed_with_hls", || block_on(hls("spillway-media", Place::Disk))),
        alone("resume::media_process_killed_with_hls_on_s3", || block_on(hls("spillway-media", Place::Bucket))),
        alone("resume::room_closed_in_the_gap", || block_on(room_closed())),
        alone("resume::task_killed", || block_on(task(Signal::KILL, "the runner died: signal 9"))),
        alone("resume::task_killed_with_hls", || block_on(hls("spillway-runner", Place::Disk))),
        alone("resume::task_killed_with_hls_on_s3", || block_on(hls("spillway-runner", Place::Bucket))),
        alone("resume::task_terminated", || block_on(task(Signal::TERM, "the platform stopped the recording task"))),
        alone("resume::task_terminated_and_none_goes_on", || block_on(aborted())),
        alone("resume::stopped_while_no_task_is_there", || block_on(stopped())),
    ]
}

/// One recording of each container on the disk.
struct ResumeScenario {
    servers: TestServers,
    _dispatcher: DispatcherProcess,
    _room: TestRoom,
    egresses: Vec<(Egress, PathBuf)>,
}

impl ResumeScenario {
    async fn recording(more: &str) -> Result<Self> {
        let servers = TestServers::start("").await?;
        let dispatcher = servers.dispatcher("dispatcher", more).await?;
        let room = TestRoom::open(&servers.api, "resumed").await?;
        let file = |name: &str| servers.folder().join("files").join(name);
        let running = room.record(&servers.api, |name| json!({ "filepath": file(name).to_string_lossy() })).await?;
        let egresses = running.into_iter().map(|(egress, name)| (egress, file(name))).collect();
        Ok(Self { servers, _dispatcher: dispatcher, _room: room, egresses })
    }

    /// Kills all processes of this name; Unix seconds of the death.
    fn kill(&self, name: &str) -> Result<f64> {
        self.signal(name, Signal::KILL)
    }

    /// Unix seconds of the signal.
    fn signal(&self, name: &str, kind: Signal) -> Result<f64> {
        let pids = self.servers.pids(name);
        ensure!(pids.len() >= self.egresses.len(), "{} processes called {name}", pids.len());
        pids.into_iter().try_for_each(|pid| signal(pid, kind))?;
        Ok(unix_now())
    }

    /// Stops all, and checks that each goes on within `again` seconds of `killed`, in a second file.
    async fn went_on(&self, killed: f64, again: f64, why: &str) -> Result<()> {
        for (egress, path) in &self.egresses {
            let info = egress.complete().await?;
            let gap = went_on(&info, killed, again, why)?;
            let (first, second) = (played(path)?, played(&second(path))?);
            println!("{}: {first:.2} s, a gap of {gap:.2} s, {second:.2} s", path.display());
            for (file, seconds) in info["file_results"].as_array().into_iter().flatten().zip([first, second]) {
                let told = nanos(&file["duration"]) as f64 / 1e9;
                // What waits for its place in a WebM is not in a killed one.
                ensure!((told - seconds).abs() < 2.0, "{seconds:.2} s play: {file}");
            }
            ensure!(first > 1.8 && second > 2.5, "{info}");
        }
        self.servers.nothing_runs_but("spillway-dispatcher", Duration::from_secs(10)).await
    }
}

fn unix_now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// `a-2.mp4` of `a.mp4`.
fn second(path: &Path) -> PathBuf {
    let name = |part: Option<&std::ffi::OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
    path.with_file_name(format!("{}-2.{}", name(path.file_stem()), name(path.extension())))
}

fn seconds(value: &Value) -> f64 {
    nanos(value) as f64 / 1e9
}

/// Two files with a gap between them, which is named; how long it is.
fn went_on(info: &Value, killed: f64, again: f64, why: &str) -> Result<f64> {
    let files = info["file_results"].as_array().context("no files")?;
    ensure!(files.len() == 2, "{info}");
    let (ended, began) = (seconds(&files[0]["ended_at"]), seconds(&files[1]["started_at"]));
    ensure!(began - killed < again, "recording again after {:.2} s: {info}", began - killed);
    ensure!(ended < began && killed - ended < 2.0, "{:.2} s of the first file are lost: {info}", killed - ended);
    let details = info["details"].as_str().unwrap_or_default();
    ensure!(details.contains(why) && details.contains("the recording goes on after a gap of"), "{details}");
    let manifest = std::fs::read(info["manifest_location"].as_str().unwrap_or_default()).context("no manifest")?;
    let manifest: Value = serde_json::from_slice(&manifest)?;
    let quality = &manifest["quality"];
    ensure!(quality["gaps"].as_u64() >= Some(1) && quality["gaps_ms"].as_u64() > Some(0), "{quality}");
    ensure!(manifest["files"].as_array().is_some_and(|files| files.len() == 2), "{manifest}");
    Ok(began - ended)
}

/// In every container, at one random moment.
async fn media_process_killed() -> Result<()> {
    let scenario = ResumeScenario::recording("").await?;
    tokio::time::sleep(Duration::from_secs_f64(rand::random_range(4.0..5.5))).await;
    let killed = scenario.kill("spillway-media")?;
    tokio::time::sleep(Duration::from_secs(6)).await;
    scenario.went_on(killed, MEDIA_AGAIN, "signal 9 (SIGKILL)").await
}

/// The fourth death is the end, with everything that was kept.
async fn crash_loop() -> Result<()> {
    let scenario = ResumeScenario::recording("").await?;
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_secs(4)).await;
        scenario.kill("spillway-media")?;
    }
    for (egress, path) in &scenario.egresses {
        let info = egress.over(Duration::from_secs(5)).await?;
        let names = info["file_results"].as_array().map_or(0, Vec::len);
        println!("{}: {names} files, {}", path.display(), info["error"]);
        ensure!(info["status"] == "EGRESS_FAILED" && names == 4, "{info}");
        for file in info["file_results"].as_array().into_iter().flatten() {
            let location = file["location"].as_str().unwrap_or_default();
            ensure!(played(Path::new(location))? > 0.5, "{file}");
        }
    }
    scenario.servers.nothing_runs_but("spillway-dispatcher", Duration::from_secs(10)).await
}

/// The runners of all containers at one random moment.
async fn task(kind: Signal, why: &str) -> Result<()> {
    let scenario = ResumeScenario::recording("").await?;
    tokio::time::sleep(Duration::from_secs_f64(rand::random_range(4.0..5.5))).await;
    let killed = scenario.signal("spillway-runner", kind)?;
    tokio::time::sleep(Duration::from_secs(10)).await;
    scenario.went_on(killed, TASK_AGAIN, why).await
}

/// `resume: off`: what is recorded is kept, and the reason is told.
async fn aborted() -> Result<()> {
    let scenario = ResumeScenario::recording("resume: off\n").await?;
    tokio::time::sleep(Duration::from_secs(4)).await;
    scenario.signal("spillway-runner", Signal::TERM)?;
    for (egress, path) in &scenario.egresses {
        let info = egress.over(Duration::from_secs(15)).await?;
        println!("{}: {} {}", path.display(), info["status"], info["error"]);
        let told = info["error"].as_str().is_some_and(|error| error.contains("the platform stopped"));
        ensure!(info["status"] == "EGRESS_ABORTED" && told, "{info}");
        ensure!(played(path)? > 2.0, "{info}");
    }
    scenario.servers.nothing_runs_but("spillway-dispatcher", Duration::from_secs(10)).await
}

/// The stop comes right after the death: the task that goes on has nothing to record any more.
async fn stopped() -> Result<()> {
    let scenario = ResumeScenario::recording("").await?;
    tokio::time::sleep(Duration::from_secs(4)).await;
    scenario.kill("spillway-runner")?;
    for (egress, path) in &scenario.egresses {
        // Between the death and the first heartbeat that is missing nobody answers for the dead runner.
        let answered = eventually("the stop is answered", Duration::from_secs(10), || async {
            let stopped = scenario.servers.api.egress("StopEgress", json!({ "egress_id": egress.id })).await;
            Ok(stopped.ok())
        });
        answered.await?;
        let info = egress.over(Duration::from_secs(30)).await?;
        println!("{}: {} {}", path.display(), info["status"], info["details"]);
        ensure!(info["status"] == "EGRESS_COMPLETE", "{info}");
        ensure!(played(path)? > 1.8, "{info}");
    }
    scenario.servers.nothing_runs_but("spillway-dispatcher", Duration::from_secs(10)).await
}

/// One playlist from the beginning to the end, with one discontinuity.
async fn hls(name: &str, place: Place) -> Result<()> {
    let scenario = HlsScenario::recording(place).await?;
    tokio::time::sleep(Duration::from_secs_f64(rand::random_range(5.0..7.0))).await;
    scenario.kill(name, Signal::KILL)?;
    tokio::time::sleep(Duration::from_secs(12)).await;
    let info = scenario.egress.complete().await?;
    let details = info["details"].as_str().unwrap_or_default();
    ensure!(details.contains("the recording goes on after a gap of"), "{details}");
    let folder = scenario.folder().await?;
    let hls = HlsFolder::open(&folder.join(PLAYLIST))?;
    hls.counters_go_on()?;
    hls.begins_with_key_frames()?;
    let segments = &hls.playlist.segments;
    let count = segments.iter().filter(|segment| segment.discontinuity).count();
    ensure!(hls.playlist.ended && count == 1, "{count} discontinuities: {:?}", hls.playlist);
    ensure!(nanos(&info["segment_results"][0]["segment_count"]) as usize == segments.len(), "{info}");
    println!("{} segments, {:.2} s, {details}", segments.len(), hls.playlist.seconds());
    ensure!(hls.playlist.seconds() > 10.0, "{info}");
    tidy(&scenario.servers, scenario.bucket.as_ref()).await
}

/// The next media process finds another room, or none: the recording was whole until then.
async fn room_closed() -> Result<()> {
    let scenario = ResumeScenario::recording("").await?;
    tokio::time::sleep(Duration::from_secs(4)).await;
    scenario.kill("spillway-media")?;
    scenario.servers.api.delete_room("resumed").await?;
    for (egress, path) in &scenario.egresses {
        let info = egress.over(Duration::from_secs(45)).await?;
        println!("{}: {} {}", path.display(), info["status"], info["details"]);
        ensure!(info["status"] == "EGRESS_COMPLETE", "{info}");
        ensure!(played(path)? > 1.8, "{info}");
    }
    scenario.servers.nothing_runs_but("spillway-dispatcher", Duration::from_secs(10)).await
}
