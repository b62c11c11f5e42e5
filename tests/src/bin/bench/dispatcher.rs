//! CPU and memory of a dispatcher, idle and with many live recordings.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures_util::future::join_all;
use prost::Message;
use serde::Serialize;
use serde_json::json;
use spillway_bus::lifecycle::{LaunchEvent, RunnerStage};
use spillway_bus::{Bus, Heartbeat, Heartbeats, RedisConfig, Registry};
use spillway_protocol::ids::EgressId;
use spillway_protocol::ledger::{EgressLedger, Fact};
use spillway_tests::clouds::CloudSetup;
use spillway_tests::clouds::ecs::{self, Ecs};
use spillway_tests::process::eventually;
use spillway_tests::servers::{DispatcherProcess, TestServers};

const SECONDS: f64 = 20.0;
const KEY: &str = "6262626262626262626262626262626262626262626262626262626262626262";

/// Figures of one run.
#[derive(Debug, Serialize)]
pub struct Watching {
    /// Profile of this build.
    pub build: &'static str,
    /// From the start of the process to ready.
    pub start_ms: f64,
    /// Resident memory without recordings.
    pub idle_mb: f64,
    /// Of one core, without recordings.
    pub idle_percent: f64,
    /// Recordings.
    pub live: usize,
    /// Resident memory with them.
    pub live_mb: f64,
    /// Highest resident memory.
    pub peak_mb: f64,
    /// Of one core, with them.
    pub live_percent: f64,
    /// CPU of Redis, of one core, with them.
    pub redis_live_percent: f64,
    /// Calls to the platform while they ran.
    pub platform_calls: u64,
}

/// The recordings are accepted and launched by the dispatcher itself; their tasks run nothing, and this program writes
/// their heartbeats.
pub async fn measure(live: usize) -> Result<Watching> {
    let mut servers = TestServers::start("").await?;
    servers.set("AWS_ACCESS_KEY_ID", "AKIDSTAGE");
    servers.set("AWS_SECRET_ACCESS_KEY", "stage-secret");
    let tasks = servers.folder().join("tasks");
    std::fs::create_dir_all(&tasks).context("make a folder for tasks")?;
    let setup = CloudSetup {
        arguments: vec!["3600".to_owned()],
        mark: servers.mark().to_owned(),
        ..CloudSetup::new("/usr/bin/sleep".into(), tasks)
    };
    let cloud = Ecs::start(setup, "egress").await?;
    cloud.limit(2000, 1000.0);
    let target = json!({
        "name": "cloud", "launcher": "ecs", "burst": 2000, "launches_per_second": 1000, "start_deadline": "10m",
        "options": { "region": ecs::REGION, "cluster": "egress", "task_definition": ecs::FAMILY,
            "subnets": ["subnet-1"], "endpoint": cloud.web.url() },
    });
    let storage = "storage: { s3: { bucket: b, region: r, access_key: k, secret: s } }";
    let config = format!(
        "{}cores: 100000\nqueue: 2000\nstack: stage\nticket_key: \"{KEY}\"\n{storage}\ntargets: [{target}]\n",
        servers.connections(),
    );
    let begun = Instant::now();
    let dispatcher = servers.dispatcher_from("dispatcher", &config).await?;
    let start_ms = begun.elapsed().as_secs_f64() * 1000.0;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let (idle_percent, _) = busy(&dispatcher, &servers).await?;
    let idle_mb = memory(&dispatcher, "VmRSS:")?;
    println!("dispatcher, nothing live: ready after {start_ms:.0} ms, {idle_mb:.1} MB, {idle_percent:.2} % of a core");

    let room = servers.api.create_room("watched", 3600).await;
    room.context("make a room")?;
    let mut ids = Vec::new();
    for some in (0..live).collect::<Vec<_>>().chunks(20) {
        let calls = some.iter().map(|n| {
            let output = json!({ "filepath": format!("{n}.mp4"), "file_type": "MP4" });
            let request = json!({ "room_name": "watched", "layout": "grid", "file_outputs": [output] });
            servers.api.egress("StartRoomCompositeEgress", request)
        });
        for info in join_all(calls).await {
            ids.push(EgressId::parse(info?["egress_id"].as_str().unwrap_or_default()).context("an id")?);
        }
    }
    let redis = RedisConfig { address: servers.redis_address.clone(), ..RedisConfig::default() };
    let bus = Bus::connect(&redis).await.context("reach Redis")?;
    eventually("all have a task", Duration::from_secs(120), || async { Ok((cloud.started() >= live).then_some(())) })
        .await?;
    let registry = Registry::new(&bus);
    for id in &ids {
        eventually("it is noted", Duration::from_secs(30), || async {
            Ok(registry.get(id).await?.and_then(|record| record.task().cloned()))
        })
        .await?;
        beat(&bus, id).await?;
        begin_recording(&registry, id).await?;
    }
    let hearts = tokio::spawn(async move {
        let mut ticks = tokio::time::interval(Duration::from_secs(1));
        loop {
            ticks.tick().await;
            for some in ids.chunks(50) {
                join_all(some.iter().map(|id| beat(&bus, id))).await;
            }
        }
    });
    tokio::time::sleep(Duration::from_secs(6)).await;
    let before = cloud.calls();
    let (live_percent, redis_live_percent) = busy(&dispatcher, &servers).await?;
    let platform_calls = cloud.calls() - before;
    let (live_mb, peak_mb) = (memory(&dispatcher, "VmRSS:")?, memory(&dispatcher, "VmHWM:")?);
    hearts.abort();
    println!(
        "dispatcher, {live} live: {live_mb:.1} MB (at most {peak_mb:.1}), {live_percent:.2} % of a core (Redis \
         {redis_live_percent:.2} %), {platform_calls} calls to the platform in {SECONDS} s"
    );
    ensure!(live_mb > 0.0, "nothing was measured");
    let build = if cfg!(debug_assertions) { "dev" } else { "release" };
    Ok(Watching {
        build,
        start_ms,
        idle_mb,
        idle_percent,
        live,
        live_mb,
        peak_mb,
        live_percent,
        redis_live_percent,
        platform_calls,
    })
}

async fn beat(bus: &Bus, id: &EgressId) -> Result<()> {
    let said = Heartbeat {
        media_ns: 5_000_000_000,
        files: [("/var/spool/spillway/recording.mp4".to_owned(), 1_234_567)].into(),
        ..Heartbeat::default()
    };
    Heartbeats::new(bus).beat(id, 1, &said, Duration::from_secs(6)).await.context("beat")?;
    Ok(())
}

/// What a runner does when it has its ticket.
async fn begin_recording(registry: &Registry, id: &EgressId) -> Result<()> {
    registry.apply(id, &LaunchEvent::TookOver { attempt: 1 }).await.context("take over")?;
    let record = registry.get(id).await?.context("a record")?;
    let mut ledger: EgressLedger = serde_json::from_str(&record.ledger).context("a ledger")?;
    let at = record.accepted_at * 1_000_000 + 1_000_000_000;
    ledger.on(Fact::Active { started_at: at }, at);
    let (info, ledger) = (ledger.info().encode_to_vec(), serde_json::to_string(&ledger)?);
    let report = LaunchEvent::Reported { attempt: 1, info, ledger, stage: RunnerStage::Going };
    registry.apply(id, &report).await.context("report")?;
    Ok(())
}

/// Percent of a core over some time: the dispatcher's and Redis'.
async fn busy(dispatcher: &DispatcherProcess, servers: &TestServers) -> Result<(f64, f64)> {
    let pids = [dispatcher.process.id(), servers.redis_pid().context("Redis runs")?];
    let begun = Instant::now();
    let before = [core_s(pids[0])?, core_s(pids[1])?];
    tokio::time::sleep(Duration::from_secs_f64(SECONDS)).await;
    let time = begun.elapsed().as_secs_f64();
    let percent = |n: usize| Ok::<_, anyhow::Error>((core_s(pids[n])? - before[n]) / time * 100.0);
    Ok((percent(0)?, percent(1)?))
}

fn core_s(pid: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).context("look at a process")?;
    let rest = stat.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default();
    let ticks: f64 = rest.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
    Ok(ticks / 100.0)
}

fn memory(dispatcher: &DispatcherProcess, line: &str) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", dispatcher.process.id())).context("look at it")?;
    let found = status.lines().find_map(|text| text.strip_prefix(line)).context("no such line")?;
    Ok(found.trim().trim_end_matches(" kB").parse::<f64>()? / 1000.0)
}
