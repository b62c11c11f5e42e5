//! Processes that die in the middle. Each case has servers of its own.

use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use rustix::process::Signal;
use serde_json::json;
use spillway_tests::analyser::sync::{Marks, presence};
use spillway_tests::analyser::{duration, played, probe};
use spillway_tests::assets::person;
use spillway_tests::every_output::TestRoom;
use spillway_tests::foreign::ForeignPublisher;
use spillway_tests::servers::TestServers;

use crate::harness::{alone, block_on, signal};
use crate::recording_probe::RecordingProbe;
use spillway_tests::egress::{Egress, nanos};

pub fn cases() -> Vec<Trial> {
    vec![
        alone("faults::kill_of_the_media_process", || block_on(kill("spillway-media", Duration::from_secs(1)))),
        alone("faults::kill_of_the_runner", || block_on(kill("spillway-runner", Duration::from_secs(15)))),
        alone("faults::kill_of_the_dispatcher", || block_on(kill_of_the_dispatcher())),
        alone("faults::redis_restarts", || block_on(redis_restarts())),
        alone("faults::livekit_restarts", || block_on(livekit_restarts())),
        alone("faults::a_room_that_is_lost_for_good", || block_on(room_lost())),
        alone("faults::a_frozen_runner_loses_no_frame", || block_on(frozen())),
        alone("faults::a_task_that_is_moved_to_another_machine_goes_on", || block_on(moved())),
        alone("faults::a_frozen_runner_loses_nothing_over_tcp", || block_on(frozen_over_tcp())),
        alone("faults::a_starved_runner_loses_no_frame", || block_on(starved())),
    ]
}

struct FaultScenario {
    servers: TestServers,
    dispatcher: spillway_tests::servers::DispatcherProcess,
    _room: Option<TestRoom>,
    egresses: Vec<(Egress, PathBuf)>,
}

/// One recording of each container, running for `seconds`.
async fn recording(seconds: f64) -> Result<FaultScenario> {
    recording_with("", seconds).await
}

/// `more`: of the dispatcher's YAML.
async fn recording_with(more: &str, seconds: f64) -> Result<FaultScenario> {
    let servers = TestServers::start("").await?;
    let dispatcher = servers.dispatcher("dispatcher", more).await?;
    let room = TestRoom::open(&servers.api, "fault").await?;
    let file = |name: &str| servers.folder().join("files").join(name);
    let running = room.record(&servers.api, |name| json!({ "filepath": file(name).to_string_lossy() })).await?;
    let egresses = running.into_iter().map(|(egress, name)| (egress, file(name))).collect();
    tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
    Ok(FaultScenario { servers, dispatcher, _room: Some(room), egresses })
}

impl FaultScenario {
    /// The composite is completed and shows every picture that p0 sent, in sync with its sound. p0 is never silent, and
    /// neither is the composite, nor the one of sound alone.
    async fn lost_nothing(&self, least: usize) -> Result<RecordingProbe> {
        let (egress, alone) = (&self.egresses[0].0, &self.egresses[4].0);
        let (composite, sound) = (egress.complete().await?, alone.complete().await?);
        let probe = RecordingProbe::open(&composite)?;
        let identity = probe.pictures.as_ref().context("a picture")?.identity(person("p0"));
        let manifest = probe.has_manifest()?;
        let quality = &manifest["quality"];
        println!("{identity:?} {quality}");
        let whole = identity.read > least && identity.missing == 0 && identity.backwards == 0;
        ensure!(whole, "{identity:?} {quality}");
        probe.shows("p0", &probe.whole(), &[])?;
        probe.in_sync("p0")?;
        let alone = RecordingProbe::open(&sound)?.has_manifest()?;
        for quality in [quality, &alone["quality"]] {
            ensure!(quality["silence_ms"].as_u64().is_some_and(|silence| silence < 500), "{quality}");
        }
        Ok(probe)
    }

    /// All processes of every task stand still.
    async fn freeze(&self, time: Duration) -> Result<()> {
        let pids: Vec<i32> = [self.servers.pids("spillway-media"), self.servers.pids("spillway-runner")].concat();
        pids.iter().try_for_each(|pid| signal(*pid, Signal::STOP))?;
        tokio::time::sleep(time).await;
        pids.iter().try_for_each(|pid| signal(*pid, Signal::CONT))
    }
}

fn unix_now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// All recordings are killed at one random moment, and nothing goes on: files are playable, at most 2 s are lost, one terminal
/// state in time.
async fn kill(name: &str, limit: Duration) -> Result<()> {
    let extra = rand::random_range(0.0..1.5);
    println!("{name} is killed {extra:.3} s after the fourth second");
    let scenario = recording_with("resume: off\n", 4.0 + extra).await?;
    let pids = scenario.servers.pids(name);
    ensure!(
        pids.len() >= scenario.egresses.len(),
        "{} processes called {name}: {:?}",
        pids.len(),
        scenario.servers.left_behind()
    );
    let (killed, killed_at) = (Instant::now(), unix_now());
    for pid in pids {
        signal(pid, Signal::KILL)?;
    }
    for (egress, path) in &scenario.egresses {
        // The state is polled over HTTP, one after the other: a little more than the promise.
        let info = egress.over(limit + Duration::from_secs(2)).await?;
        let took = killed.elapsed();
        ensure!(info["status"] == "EGRESS_FAILED", "{info}");
        let begun = nanos(&info["started_at"]) as f64 / 1e9;
        let has = played(path)?;
        println!(
            "{} {has:.2} s kept of at most {:.2}, terminal after {took:.2?}: {}",
            path.display(),
            killed_at - begun,
            info["error"]
        );
        ensure!(has >= 4.0 - 2.0, "{} has {has:.2} s", path.display());
    }
    scenario.servers.nothing_runs_but("spillway-dispatcher", Duration::from_secs(10)).await
}

/// Recordings go on without their dispatcher; a new one takes them over, stops and lists them.
async fn kill_of_the_dispatcher() -> Result<()> {
    let mut scenario = recording(1.0).await?;
    scenario.dispatcher.process.kill()?;
    let (first, path) = &scenario.egresses[1];
    let info = first.complete().await?;
    println!("{} stopped without a dispatcher: {}", path.display(), info["status"]);
    let _second = scenario.servers.dispatcher("second", "").await?;
    for (egress, path) in scenario.egresses.iter().filter(|(egress, _)| egress.id != first.id) {
        let info = egress.complete().await.with_context(|| format!("{}", path.display()))?;
        ensure!(duration(&probe(path)?) > 1.0, "{info}");
    }
    scenario.servers.nothing_runs_but("spillway-dispatcher", Duration::from_secs(10)).await
}

/// Redis forgets everything; recordings go on and end in their files.
async fn redis_restarts() -> Result<()> {
    let mut scenario = recording(1.0).await?;
    scenario.servers.kill_redis();
    scenario.servers.start_redis()?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let room = scenario.servers.api.delete_room("fault").await;
    println!("DeleteRoom after the restart: {room:?}");
    for (egress, path) in &scenario.egresses {
        let stopped = scenario.servers.api.egress("StopEgress", json!({ "egress_id": egress.id })).await;
        println!("{}: {:?}", path.display(), stopped.map(|info| info["status"].clone()));
    }
    spillway_tests::process::eventually("recordings are over", Duration::from_secs(40), || async {
        Ok(scenario.servers.pids("spillway-runner").is_empty().then_some(()))
    })
    .await?;
    for (_, path) in &scenario.egresses {
        ensure!(duration(&probe(path)?) > 1.0, "{} is too short", path.display());
    }
    Ok(())
}

/// The server dies and comes back without the room: recordings end in their files, nothing hangs.
async fn livekit_restarts() -> Result<()> {
    let mut scenario = recording(2.0).await?;
    scenario.servers.kill_livekit();
    scenario.servers.start_livekit().await?;
    for (egress, path) in &scenario.egresses {
        let info = match egress.over(Duration::from_secs(3)).await {
            Ok(info) => info,
            Err(_) => egress.stop().await?.0,
        };
        println!("{} {} {} {}", path.display(), info["status"], info["error"], info["details"]);
        ensure!(duration(&probe(path)?) > 1.5, "{} is too short", path.display());
    }
    scenario.servers.nothing_runs_but("spillway-dispatcher", Duration::from_secs(10)).await
}

/// The server comes back and takes our tokens no more: the file is kept, and the reason is told in livekit/egress' words.
async fn room_lost() -> Result<()> {
    let mut servers = TestServers::start("").await?;
    let _dispatcher = servers.dispatcher("dispatcher", "").await?;
    let room = TestRoom::open(&servers.api, "lost").await?;
    let path = servers.folder().join("files/lost.mp4");
    let request = room.track_request(|_| json!({ "filepath": path.to_string_lossy() }));
    let egress = Egress::start(&servers.api, "StartTrackEgress", request).await?;
    egress.active().await?;
    tokio::time::sleep(Duration::from_secs(4)).await;
    servers.kill_livekit();
    servers.api.secret = servers.api.secret.chars().rev().collect();
    servers.start_livekit().await?;
    let egress = Egress::of(&servers.api, &egress.id);
    let info = egress.over(Duration::from_secs(60)).await?;
    println!("{} {} {}", info["status"], info["error_code"], info["error"]);
    ensure!(info["status"] == "EGRESS_FAILED", "{info}");
    ensure!(info["error"].as_str().is_some_and(|error| error.contains("connection to room failed")), "{info}");
    let probe = RecordingProbe::open(&info)?;
    probe.shows("p0", &[(0.5, 2.5)], &[])?;
    servers.nothing_runs_but("spillway-dispatcher", Duration::from_secs(10)).await
}

/// 5 s of SIGSTOP for the whole task of a composite: it lags and loses nothing.
async fn frozen() -> Result<()> {
    let scenario = recording(2.0).await?;
    scenario.freeze(Duration::from_secs(5)).await?;
    tokio::time::sleep(Duration::from_secs(4)).await;
    scenario.lost_nothing(300).await.map(drop)
}

/// As Cloud Run moves a task: SIGTSTP, which stops no process, and SIGCONT. The connections live on here, so nothing may
/// be lost.
async fn moved() -> Result<()> {
    let scenario = recording(2.0).await?;
    let pids: Vec<i32> = [scenario.servers.pids("spillway-media"), scenario.servers.pids("spillway-runner")].concat();
    ensure!(pids.len() >= 2, "{} processes", pids.len());
    pids.iter().try_for_each(|pid| signal(*pid, Signal::TSTP))?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    for pid in &pids {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).context("a process is gone")?;
        let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        ensure!(state != Some('T'), "{pid} was stopped");
    }
    pids.iter().try_for_each(|pid| signal(*pid, Signal::CONT))?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let details = scenario.egresses[0].0.info().await?["details"].as_str().unwrap_or_default().to_owned();
    ensure!(details.contains("moved to another machine"), "{details}");
    scenario.lost_nothing(300).await.map(drop)
}

/// Where only TCP leads to the server, what it sent meanwhile waits in the connection. The publisher is a stranger: ours
/// speaks UDP only.
async fn frozen_over_tcp() -> Result<()> {
    let servers = TestServers::start("  force_tcp: true").await?;
    let dispatcher = servers.dispatcher("dispatcher", "").await?;
    let stranger = ForeignPublisher::wheel(&servers.api, "tcp", "p2", "h264", &[]).await?;
    let file = |name: &str| json!({ "filepath": servers.folder().join("files").join(name).to_string_lossy() });
    let composed = json!({
        "room_name": "tcp", "layout": "grid", "advanced": { "width": 640, "height": 360 },
        "file_outputs": [file("room.mp4")],
    });
    let track = json!({ "room_name": "tcp", "track_id": stranger.video, "file": file("track.mp4") });
    let room = Egress::start(&servers.api, "StartRoomCompositeEgress", composed).await?;
    let track = Egress::start(&servers.api, "StartTrackEgress", track).await?;
    for egress in [&room, &track] {
        egress.active().await?;
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    let scenario = FaultScenario { servers, dispatcher, _room: None, egresses: vec![] };
    scenario.freeze(Duration::from_secs(5)).await?;
    tokio::time::sleep(Duration::from_secs(6)).await;
    for egress in [&room, &track] {
        let probe = RecordingProbe::open(&egress.complete().await?)?;
        let quality = &probe.has_manifest()?["quality"];
        let flashes = probe.flashes("p2")?;
        let presence = presence(Marks { seen: &flashes, wanted: &[(1.0, probe.seconds() - 1.0)], forbidden: &[] });
        println!("{} {presence} {quality}", probe.name());
        ensure!(presence.good_but(0), "{}: {presence}, at {flashes:.2?}: {quality}", probe.name());
    }
    Ok(())
}

/// A competing load leaves each process of the task a seventh of a processor for 10 s, in slices as a scheduler's: the
/// composite needs several times as much, lags, and loses nothing.
async fn starved() -> Result<()> {
    const SLICE: Duration = Duration::from_millis(15);
    const OTHERS: Duration = Duration::from_millis(90);
    let scenario = recording(2.0).await?;
    let pids: Vec<i32> = [scenario.servers.pids("spillway-media"), scenario.servers.pids("spillway-runner")].concat();
    let all = |kind| pids.iter().try_for_each(|pid| signal(*pid, kind));
    let until = Instant::now() + Duration::from_secs(10);
    while Instant::now() < until {
        all(Signal::STOP)?;
        tokio::time::sleep(OTHERS).await;
        all(Signal::CONT)?;
        tokio::time::sleep(SLICE).await;
    }
    tokio::time::sleep(Duration::from_secs(4)).await;
    let probe = scenario.lost_nothing(450).await?;
    let manifest = probe.has_manifest()?;
    let quality = &manifest["quality"];
    ensure!(quality["max_lag_ms"].as_u64().is_some_and(|lag| lag > 1000), "it was not starved: {quality}");
    ensure!(quality["frames_skipped"].as_u64().unwrap_or_default() == 0, "{quality}");
    Ok(())
}
