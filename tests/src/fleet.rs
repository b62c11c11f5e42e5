//! Many recordings at once: two real dispatchers, a fake Fargate with its quota and faults, a real runner for each
//! egress.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, watch};

use crate::analyser::percentile;
use crate::assets::clip;
use crate::clouds::CloudSetup;
use crate::clouds::ecs::{self, Ecs};
use crate::clouds::fault::CloudFault;
use crate::egress::{Egress, is_over, nanos};
use crate::process::children_core_s;
use crate::publisher::{Publisher, PublisherOptions, SourceKind};
use crate::servers::{DispatcherProcess, TestServers, built};
use crate::twirp::{TwirpError, get};

/// What a platform's secret store would hand to a runner.
const KEY: &str = "6161616161616161616161616161616161616161616161616161616161616161";
const ROOMS: usize = 4;

/// Load and platform of one run.
#[derive(Clone, Debug)]
pub struct FleetScenario {
    /// StartEgress calls.
    pub egresses: usize,
    /// They are spread evenly over this time.
    pub within: Duration,
    /// RunTask calls that the platform takes at once.
    pub burst: u32,
    /// RunTask calls a second that the platform takes beyond the burst.
    pub per_second: f64,
    /// Probability that a RunTask call is throttled although the quota is not used up.
    pub throttled: f64,
    /// Probability that a RunTask call finds no capacity.
    pub no_capacity: f64,
    /// Of the faults.
    pub seed: u64,
    /// From RunTask until the image is pulled.
    pub provisioning: Duration,
    /// Duration of the pull.
    pub pulling: Duration,
    /// Images that are pulled at once: as many runners as this machine can start in that time.
    pub pulls: usize,
    /// Shortest duration of each recording.
    pub records: Duration,
}

/// Outcome of a run.
#[derive(Debug, Serialize)]
pub struct FleetReport {
    /// Calls.
    pub asked: usize,
    /// Egresses that are COMPLETE.
    pub recorded: usize,
    /// Reasons of the egresses that StartEgress or the deadline of the queue refused.
    pub refused: Vec<String>,
    /// EgressInfo of those that ended otherwise than COMPLETE.
    pub failed: Vec<String>,
    /// Egresses that were recorded by more than one task or into more than one file.
    pub doubles: usize,
    /// Runners started.
    pub started: usize,
    /// From the StartEgress call to the platform's task.
    pub wait_p50_s: f64,
    /// As `wait_p50_s`.
    pub wait_p99_s: f64,
    /// From the StartEgress call to ACTIVE; includes what this machine can start at once.
    pub active_p50_s: f64,
    /// As `active_p50_s`.
    pub active_p99_s: f64,
    /// Launch calls in the dispatchers' own histogram.
    pub launch_calls: f64,
    /// Of them, after at most 6 s in the queue.
    pub launch_calls_within_6_s: f64,
    /// Duration of the StartEgress call.
    pub start_answer_p99_ms: f64,
    /// Faults of this kind injected.
    pub throttled: u64,
    /// Faults of this kind injected.
    pub no_capacity: u64,
    /// CPU seconds of all runners and their media processes.
    pub runner_core_s: f64,
    /// Recorded seconds of all files.
    pub recorded_s: f64,
}

struct Fleet {
    // Dropped in this order: nothing is started any more, then everything ends.
    dispatchers: Vec<DispatcherProcess>,
    cloud: Ecs,
    _people: Vec<Publisher>,
    /// Rooms with the microphone in each.
    tracks: Vec<(String, String)>,
    egress_infos: watch::Sender<BTreeMap<String, Value>>,
    servers: TestServers,
}

fn unix_s() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

impl Fleet {
    async fn start(scenario: &FleetScenario) -> Result<Self> {
        let mut servers = TestServers::start("").await?;
        servers.set("AWS_ACCESS_KEY_ID", "AKIDSTAGE");
        servers.set("AWS_SECRET_ACCESS_KEY", "stage-secret");
        let tasks = servers.folder().join("tasks");
        std::fs::create_dir_all(&tasks).context("make a folder for tasks")?;
        let setup = CloudSetup {
            environment: BTreeMap::from([
                ("SPILLWAY_TICKET_KEY".to_owned(), KEY.to_owned()),
                ("SPILLWAY_REDIS".to_owned(), json!({ "address": servers.redis_address }).to_string()),
            ]),
            mark: servers.mark().to_owned(),
            grace: Duration::from_secs(10),
            provisioning: scenario.provisioning,
            pulling: scenario.pulling,
            pulls: Some(Arc::new(Semaphore::new(scenario.pulls))),
            ..CloudSetup::new(built("spillway-runner")?, tasks)
        };
        let cloud = Ecs::start(setup, "egress").await?;
        cloud.limit(scenario.burst, scenario.per_second);
        let odds = [(CloudFault::Throttled, scenario.throttled), (CloudFault::NoCapacity, scenario.no_capacity)];
        let odds = odds.map(|(fault, odds)| ("RunTask".to_owned(), fault, odds));
        cloud.faults().by_chance(scenario.seed, odds.to_vec());

        // A tenth below the platform's own, as the launcher's own guess is below Fargate's.
        let target = json!({
            "name": "cloud", "launcher": "ecs", "outputs": ["upload", "disk"], "start_deadline": "10m",
            "burst": scenario.burst * 9 / 10, "launches_per_second": scenario.per_second * 0.9,
            "options": { "region": ecs::REGION, "cluster": "egress", "task_definition": ecs::FAMILY,
                "subnets": ["subnet-1"], "endpoint": cloud.web.url() },
        });
        let config = format!(
            "{}cores: 1000\nstack: stage\nticket_key: \"{KEY}\"\ntargets: [{target}]\n",
            servers.connections(),
        );
        let mut dispatchers = Vec::new();
        for name in ["one", "two"] {
            dispatchers.push(servers.dispatcher_from(name, &config).await?);
        }
        let (mut people, mut tracks) = (Vec::new(), Vec::new());
        for n in 0..ROOMS {
            let room = format!("fleet-{n}");
            let person = Publisher::join(&servers.api, &room, "p0", PublisherOptions::default()).await?;
            let track = person.publish(&clip("p0.opus")?, SourceKind::Microphone).await?;
            people.push(person);
            tracks.push((room, track));
        }
        // Tracks are live and known to the server before anything is asked.
        tokio::time::sleep(Duration::from_secs(1)).await;
        Ok(Self { dispatchers, cloud, _people: people, tracks, egress_infos: watch::Sender::default(), servers })
    }

    fn request(&self, n: usize) -> Value {
        let (room, track) = &self.tracks[n % self.tracks.len()];
        let path = self.servers.folder().join(format!("files/{n}.ogg"));
        json!({ "room_name": room, "track_id": track, "file": { "filepath": path.to_string_lossy() } })
    }

    /// Waits until the EgressInfo of `id` fits. All calls share one poll of ListEgress: two hundred pollers would be
    /// the load that is measured.
    async fn shown(&self, id: &str, limit: Duration, fits: impl Fn(&Value) -> bool) -> Result<Value> {
        let mut egress_infos = self.egress_infos.subscribe();
        let seen = egress_infos.wait_for(|egress_infos| egress_infos.get(id).is_some_and(&fits));
        let seen = tokio::time::timeout(limit, seen).await.with_context(|| format!("{id}: not after {limit:?}"))?;
        Ok(seen.context("the poll of ListEgress has ended")?[id].clone())
    }

    async fn poll_egresses(&self) -> Result<()> {
        loop {
            tokio::time::sleep(Duration::from_millis(500)).await;
            // livekit-server's Redis pool starves while hundreds of runners start; every waiting call has a timeout.
            let Ok(answer) = self.servers.api.egress("ListEgress", json!({})).await else { continue };
            let items = answer["items"].as_array().cloned().unwrap_or_default();
            let egress_infos =
                items.into_iter().filter_map(|info| Some((info["egress_id"].as_str()?.to_owned(), info)));
            self.egress_infos.send_replace(egress_infos.collect());
        }
    }

    /// Sums over the dispatchers of every series that begins so.
    async fn metric(&self, series: &str) -> Result<f64> {
        let mut sum = 0.0;
        for dispatcher in &self.dispatchers {
            let (_, text) = get(&dispatcher.health, "/metrics").await?;
            let values = text.lines().filter_map(|line| line.strip_prefix(series)?.trim().parse::<f64>().ok());
            sum += values.sum::<f64>();
        }
        Ok(sum)
    }
}

/// Outcome of one StartEgress call.
enum CallOutcome {
    Rejected(String),
    /// EgressInfo of one that ended before it recorded.
    Ended(Value),
    Recorded(Box<RecordedCall>),
}

struct RecordedCall {
    egress: Egress,
    /// Unix seconds.
    asked: f64,
    active_s: f64,
    /// EgressInfo after the end.
    info: Value,
}

/// Runs a scenario: every call, every recording, and the platform empty at the end.
pub async fn play(scenario: &FleetScenario) -> Result<FleetReport> {
    let fleet = Fleet::start(scenario).await?;
    tokio::select! {
        report = fleet.play(scenario) => report,
        polled = fleet.poll_egresses() => polled.and_then(|()| bail!("the poll of ListEgress has ended")),
    }
}

impl Fleet {
    async fn play(&self, scenario: &FleetScenario) -> Result<FleetReport> {
        let fleet = self;
        let begun = tokio::time::Instant::now();
        let gap = scenario.within / u32::try_from(scenario.egresses.max(1))?;
        let calls = (0..scenario.egresses).map(|n| {
            let (fleet, at) = (&fleet, begun + gap * u32::try_from(n).unwrap_or_default());
            async move {
                tokio::time::sleep_until(at).await;
                one(fleet, n, scenario.records).await
            }
        });
        let outcomes = futures_util::future::join_all(calls).await;
        let (mut refused, mut failed, mut recorded_calls, mut answers) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for outcome in outcomes {
            match outcome? {
                CallOutcome::Rejected(message) => refused.push(message),
                CallOutcome::Ended(info) if info["error_code"] == 429 => refused.push(info["error"].to_string()),
                CallOutcome::Ended(info) => failed.push(info.to_string()),
                CallOutcome::Recorded(call) => {
                    answers.push(call.egress.answered_in.as_secs_f64() * 1000.0);
                    recorded_calls.push(call);
                }
            }
        }
        let (mut waits, mut actives, mut doubles, mut recorded_s, mut recorded) = (vec![], vec![], 0, 0.0, 0);
        for call in &recorded_calls {
            let info = &call.info;
            let files = info["file_results"].as_array().map(Vec::as_slice).unwrap_or_default();
            let seconds = files.iter().map(|file| nanos(&file["duration"]) as f64 / 1e9).sum::<f64>();
            if info["status"] == "EGRESS_COMPLETE" && seconds > 0.0 {
                recorded += 1;
            } else {
                failed.push(info.to_string());
            }
            recorded_s += seconds;
            doubles += usize::from(files.len() != 1);
        }
        for call in &recorded_calls {
            let tasks = fleet.cloud.tasks_of(&call.egress.id);
            let ran = tasks.iter().filter(|arn| fleet.cloud.show(arn)["startedAt"].is_number()).count();
            doubles += usize::from(ran != 1);
            let created = tasks.iter().filter_map(|arn| fleet.cloud.show(arn)["createdAt"].as_f64());
            waits.push(created.fold(f64::INFINITY, f64::min) - call.asked);
            actives.push(call.active_s);
        }
        let injected = fleet.cloud.faults().injected();
        let of = |fault| injected.get(&fault).copied().unwrap_or_default();
        let report = FleetReport {
            asked: scenario.egresses,
            recorded,
            refused,
            failed,
            doubles,
            started: fleet.cloud.started(),
            wait_p50_s: percentile(&waits, 0.5),
            wait_p99_s: percentile(&waits, 0.99),
            active_p50_s: percentile(&actives, 0.5),
            active_p99_s: percentile(&actives, 0.99),
            launch_calls: fleet.metric("spillway_queue_wait_seconds_count ").await?,
            launch_calls_within_6_s: fleet.metric("spillway_queue_wait_seconds_bucket{le=\"6\"} ").await?,
            start_answer_p99_ms: percentile(&answers, 0.99),
            throttled: of(CloudFault::Throttled),
            no_capacity: of(CloudFault::NoCapacity),
            runner_core_s: children_core_s(),
            recorded_s,
        };
        fleet.servers.nothing_runs(Duration::from_secs(20)).await?;
        Ok(report)
    }
}

async fn one(fleet: &Fleet, n: usize, records: Duration) -> Result<CallOutcome> {
    let asked = unix_s();
    let begun = Instant::now();
    let egress = match Egress::start(&fleet.servers.api, "StartTrackEgress", fleet.request(n)).await {
        Ok(egress) => egress,
        Err(error) => match error.downcast_ref::<TwirpError>() {
            Some(refused) if !refused.message.is_empty() => return Ok(CallOutcome::Rejected(refused.to_string())),
            _ => return Err(error),
        },
    };
    let info = fleet.shown(&egress.id, Duration::from_secs(300), |info| info["status"] != "EGRESS_STARTING").await?;
    match info["status"].as_str() {
        Some("EGRESS_ACTIVE") => {
            let active_s = begun.elapsed().as_secs_f64();
            tokio::time::sleep(records).await;
            // One that ended by itself meanwhile cannot be stopped; what it became is told below.
            let stopped = egress.ask_to_stop().await;
            let info = fleet.shown(&egress.id, Duration::from_secs(120), is_over).await;
            let info = info.with_context(|| format!("stopped: {stopped:?}"))?;
            Ok(CallOutcome::Recorded(Box::new(RecordedCall { egress, asked, active_s, info })))
        }
        Some(_) if info["error"].as_str().is_some_and(|error| !error.is_empty()) => Ok(CallOutcome::Ended(info)),
        _ => bail!("it ended without a reason: {info}"),
    }
}
