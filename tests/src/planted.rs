//! A ledger that an installation has filled in a year, and live egresses that nobody records: for what shows them.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use futures_util::future::join_all;
use prost::Message;
use serde_json::json;
use spillway_bus::{Bus, Created, Heartbeat, Heartbeats, LaunchState, Record, Registry, TaskRef};
use spillway_cost::{Load, Shape};
use spillway_protocol::ids::EgressId;
use spillway_protocol::ledger::{EgressLedger, Fact};
use spillway_protocol::rpc::StartEgressRequest;
use tokio::task::JoinHandle;

/// What a page must not take for markup, and other names that rooms have.
pub const ROOMS: [&str; 5] = [
    "<script>document.title = 'broken'</script>",
    "\"><img src=x onerror=\"document.title = 'broken'\">",
    "daily stand-up",
    "acme/a-room-with-a-name-that-is-longer-than-any-column-of-a-table-would-like",
    "Küche & Café",
];
/// Between two lines.
const LINE_MS: u64 = 300_000;
/// As the runner's.
const HEARTBEAT_TTL: Duration = Duration::from_secs(6);

/// Writes so many finished tasks into Redis' ledger, one each five minutes up to now.
///
/// # Errors
///
/// When `redis-cli` cannot be run, or Redis refuses a line.
pub fn fill(redis_address: &str, lines: u64) -> Result<()> {
    let port = redis_address.rsplit(':').next().context("a port")?;
    let mut cli = Command::new("redis-cli")
        .args(["-p", port, "--pipe"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("start redis-cli")?;
    let mut input = std::io::BufWriter::new(cli.stdin.take().context("its standard input")?);
    let now_ms = unix_ms()?;
    for n in 0..lines {
        let at_ms = now_ms - (lines - n) * LINE_MS;
        let text = line(n, at_ms);
        let (key, id) = ("spillway:ledger", format!("{at_ms}-0"));
        write!(input, "*5\r\n$4\r\nXADD\r\n${}\r\n{key}\r\n", key.len()).context("write a line")?;
        write!(input, "${}\r\n{id}\r\n$1\r\nl\r\n${}\r\n{text}\r\n", id.len(), text.len()).context("write a line")?;
    }
    input.flush().context("write the last lines")?;
    drop(input);
    let told = cli.wait_with_output().context("wait for redis-cli")?;
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    ensure!(told.contains(&format!("errors: 0, replies: {lines}")), "{told}");
    Ok(())
}

fn line(n: u64, at_ms: u64) -> String {
    let failed = n.is_multiple_of(50);
    json!({
        "egress_id": format!("EG_past{n}"), "attempt": 1, "room": ROOMS[n as usize % ROOMS.len()],
        "type": if n.is_multiple_of(3) { "track" } else { "room_composite" }, "tenant": format!("tenant-{}", n % 7),
        "target": "cloud", "platform": "fargate", "region": "eu-central-1", "arch": "arm64", "capacity": "spot",
        "cpu_milli": 1000, "memory_mib": 2048, "disk_gib": 20, "from_ms": at_ms - 3_700_000, "to_ms": at_ms - 60_000,
        "seconds": 3640.0, "recorded_s": 3600.0, "window": "vendor", "bytes": 1_350_000_000_u64, "puts": 400.0, "amount": 0.0234,
        "parts": { "compute": 0.0234, "memory": 0.0, "disk": 0.0, "address": 0.0, "nat": 0.0, "requests": 0.0,
            "launches": 0.0, "total": 0.0234, "seconds": 3640.0 },
        "estimate": 0.0233, "currency": "USD", "price_version": "2026-08-27",
        "outcome": if failed { "the runner died" } else { "egress_complete" },
        "task_url": "https://console.example/task",
    })
    .to_string()
}

fn unix_ms() -> Result<u64> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).context("a clock after 1970")?;
    u64::try_from(since.as_millis()).context("a clock of this age")
}

/// Egresses whose records say that they are recorded, and heartbeats of runners that are not there. Dispatchers see to them as
/// to any other.
pub struct PlantedEgresses {
    bus: Bus,
    ids: Vec<EgressId>,
    beats: JoinHandle<()>,
}

impl PlantedEgresses {
    /// So many, in the rooms of [`ROOMS`], every second of them at the ECS target `cloud` and the others at `near`; each has
    /// a heartbeat a second from now on.
    ///
    /// # Errors
    ///
    /// When Redis does not answer.
    pub async fn plant(bus: &Bus, count: usize) -> Result<Self> {
        let ids = (0..count).map(|n| EgressId::parse(&format!("EG_live{n}")).context("an id"));
        let ids: Vec<EgressId> = ids.collect::<Result<_>>()?;
        let begun = tokio::time::Instant::now();
        beat_all(bus, &ids, begun).await?;
        let registry = Registry::new(bus);
        for (n, id) in ids.iter().enumerate() {
            let record = record(n, id, bus.clock().unix_ms())?;
            ensure!(registry.create(&record).await.context("write a record")? == Created::Yes, "{id} was there");
        }
        let (shared, all) = (bus.clone(), ids.clone());
        let beats = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(Duration::from_secs(1));
            loop {
                ticks.tick().await;
                // A Redis that is away gets the next one.
                let _ = beat_all(&shared, &all, begun).await;
            }
        });
        Ok(Self { bus: bus.clone(), ids, beats })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.ids.len()
    }

    /// Removes all of them.
    ///
    /// # Errors
    ///
    /// When Redis does not answer.
    pub async fn remove(self) -> Result<()> {
        self.beats.abort();
        let registry = Registry::new(&self.bus);
        for id in &self.ids {
            registry.forget(id).await.context("remove a record")?;
        }
        Ok(())
    }
}

impl Drop for PlantedEgresses {
    fn drop(&mut self) {
        self.beats.abort();
    }
}

fn record(n: usize, id: &EgressId, now_ms: i64) -> Result<Record> {
    let accepted_ms = now_ms - (n as i64 + 1) * 7000;
    let start = StartEgressRequest { egress_id: id.to_string(), ..StartEgressRequest::default() };
    let mut ledger = EgressLedger::accept(&start, accepted_ms * 1_000_000);
    ledger.on(Fact::Active { started_at: (accepted_ms + 1000) * 1_000_000 }, (accepted_ms + 1000) * 1_000_000);
    let at_cloud = n.is_multiple_of(2);
    let task = match at_cloud {
        true => ("cloud", format!("arn:aws:ecs:eu-central-1:111122223333:task/egress/{n:032x}")),
        false => ("simulated", n.to_string()),
    };
    let task = TaskRef { launcher: task.0.to_owned(), id: task.1 };
    let mut record = Record::new(id.clone(), accepted_ms);
    record.state = LaunchState::Running { task: Some(task), ending: false };
    record.attempt = 1;
    record.dispatcher = "gone".to_owned();
    record.info = ledger.info().encode_to_vec();
    record.ledger = serde_json::to_string(&ledger).context("a ledger")?;
    let dispatch = &mut record.dispatch;
    dispatch.weight = 0.5;
    dispatch.launched_ms = accepted_ms + 200;
    dispatch.room = ROOMS[n % ROOMS.len()].to_owned();
    dispatch.kind = "room_composite".to_owned();
    dispatch.tenant = format!("tenant-{}", n % 7);
    dispatch.target = if at_cloud { "cloud" } else { "near" }.to_owned();
    dispatch.load = Load { cores: 0.5, files: 1, stored: true, written: 375_000.0, ..Load::default() };
    let shape = Shape { cpu_milli: 1000, memory_mib: 2048, disk_gib: 20 };
    dispatch.shapes = [("cloud".to_owned(), shape), ("near".to_owned(), shape)].into();
    Ok(record)
}

async fn beat_all(bus: &Bus, ids: &[EgressId], begun: tokio::time::Instant) -> Result<()> {
    let heartbeats = Heartbeats::new(bus);
    let seconds = begun.elapsed().as_secs_f64();
    for (chunk, some) in ids.chunks(50).enumerate() {
        let beats = some.iter().enumerate().map(|(nth, id)| {
            let so_far = seconds + ((chunk * 50 + nth + 1) * 7) as f64;
            // All of them below 1 GB, where a second is to be seen.
            let bytes = (so_far * 0.5e6) as u64;
            let beat = Heartbeat {
                media_ns: (so_far * 1e9) as u64,
                lag_ms: 120,
                files: [("/spool/a.mp4".to_owned(), bytes)].into(),
                extra: [
                    ("stored_bytes".to_owned(), json!(bytes - bytes / 20)),
                    ("upload_behind_ms".to_owned(), json!(4000)),
                ]
                .into(),
                ..Heartbeat::default()
            };
            let heartbeats = &heartbeats;
            async move { heartbeats.beat(id, 1, &beat, HEARTBEAT_TTL).await }
        });
        for beat in join_all(beats).await {
            beat.context("send a heartbeat")?;
        }
    }
    Ok(())
}
