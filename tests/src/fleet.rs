//! Many recordings at once: real dispatchers, a Fargate on this machine with its quota and its moods, a real runner for each
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
use crate::clouds::Place;
use crate::clouds::ecs::{self, Ecs};
use crate::clouds::fault::Fault;
use crate::egress::{Egress, is_over, nanos};
use crate::process::children_core_s;
use crate::publisher::{From, Manners, Publisher};
use crate::servers::{Dispatcher, Ground, built};
use crate::twirp::{Refused, get};

/// What a platform's secret store would hand to a runner.
const KEY: &str = "6161616161616161616161616161616161616161616161616161616161616161";
const ROOMS: usize = 4;

#[derive(Clone, Debug)]
pub struct Scene {
    pub egresses: usize,
    pub within: Duration,
    /// The platform's own bucket.
    pub burst: u32,
    pub per_second: f64,
    pub throttled: f64,
    pub no_capacity: f64,
    pub seed: u64,
    /// Until the image is asked for, and how long it takes to come.
    pub provisioning: Duration,
    pub pulling: Duration,
    /// Images that come at once: as many runners as this machine can start in that time.
    pub pulls: usize,
    /// Each recording, at least.
    pub records: Duration,
}

#[derive(Debug, Serialize)]
pub struct Story {
    pub asked: usize,
    pub recorded: usize,
    /// With the reason, by StartEgress or by the queue's deadline.
    pub refused: Vec<String>,
    /// Ended otherwise than complete.
    pub failed: Vec<String>,
    /// Recorded by more than one task, or with more than one file.
    pub doubles: usize,
    /// Runners that were started.
    pub started: usize,
    /// From the call of StartEgress to the platform's task.
    pub wait_p50_s: f64,
    pub wait_p99_s: f64,
    /// From the call to ACTIVE; what this machine can start at once is in it.
    pub active_p50_s: f64,
    pub active_p99_s: f64,
    /// Of the dispatchers' own histogram: launch calls, and those that had waited for at most 6 s.
    pub launch_calls: f64,
    pub launch_calls_within_6_s: f64,
    pub start_answer_p99_ms: f64,
    pub throttled: u64,
    pub no_capacity: u64,
    /// Processor seconds of a runner and its media process together, all in all.
    pub runner_core_s: f64,
    pub recorded_s: f64,
}

struct Fleet {
    // Dropped in this order: nothing is started any more, then everything ends.
    dispatchers: Vec<Dispatcher>,
    cloud: Ecs,
    _people: Vec<Publisher>,
    /// Rooms with the microphone in each.
    tracks: Vec<(String, String)>,
    board: watch::Sender<BTreeMap<String, Value>>,
    ground: Ground,
}

fn unix_s() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

impl Fleet {
    async fn gather(scene: &Scene) -> Result<Self> {
        let mut ground = Ground::start("").await?;
        ground.set("AWS_ACCESS_KEY_ID", "AKIDSTAGE");
        ground.set("AWS_SECRET_ACCESS_KEY", "stage-secret");
        let tasks = ground.folder().join("tasks");
        std::fs::create_dir_all(&tasks).context("make a folder for tasks")?;
        let place = Place {
            environment: BTreeMap::from([
                ("SPILLWAY_TICKET_KEY".to_owned(), KEY.to_owned()),
                ("SPILLWAY_REDIS".to_owned(), json!({ "address": ground.redis_address }).to_string()),
            ]),
            mark: ground.mark().to_owned(),
            grace: Duration::from_secs(10),
            provisioning: scene.provisioning,
            pulling: scene.pulling,
            pulls: Some(Arc::new(Semaphore::new(scene.pulls))),
            ..Place::new(built("spillway-runner")?, tasks)
        };
        let cloud = Ecs::start(place, "egress").await?;
        cloud.limit(scene.burst, scene.per_second);
        let odds = [(Fault::Throttled, scene.throttled), (Fault::NoCapacity, scene.no_capacity)];
        let odds = odds.map(|(fault, odds)| ("RunTask".to_owned(), fault, odds));
        cloud.faults().by_chance(scene.seed, odds.to_vec());

        // A tenth below the platform's own, as the launcher's own guess is below Fargate's.
        let target = json!({
            "name": "cloud", "launcher": "ecs", "outputs": ["upload", "disk"], "start_deadline": "10m",
            "burst": scene.burst * 9 / 10, "launches_per_second": scene.per_second * 0.9,
            "options": { "region": ecs::REGION, "cluster": "egress", "task_definition": ecs::FAMILY,
                "subnets": ["subnet-1"], "endpoint": cloud.web.url() },
        });
        let config = format!(
            "redis: {{ address: \"{}\" }}\napi_key: {}\napi_secret: {}\nws_url: {}\ncores: 1000\nstack: stage\nticket_key: \"{KEY}\"\n\
             targets: [{target}]\n",
            ground.redis_address,
            ground.api.key,
            ground.api.secret,
            ground.api.ws_url(),
        );
        let mut dispatchers = Vec::new();
        for name in ["one", "two"] {
            dispatchers.push(ground.dispatcher_from(name, &config).await?);
        }
        let (mut people, mut tracks) = (Vec::new(), Vec::new());
        for n in 0..ROOMS {
            let room = format!("fleet-{n}");
            let person = Publisher::join(&ground.api, &room, "p0", Manners::default()).await?;
            let track = person.publish(&clip("p0.opus")?, From::Microphone).await?;
            people.push(person);
            tracks.push((room, track));
        }
        // Tracks are live and known to the server before anything is asked.
        tokio::time::sleep(Duration::from_secs(1)).await;
        Ok(Self { dispatchers, cloud, _people: people, tracks, board: watch::Sender::default(), ground })
    }

    fn request(&self, n: usize) -> Value {
        let (room, track) = &self.tracks[n % self.tracks.len()];
        let path = self.ground.folder().join(format!("files/{n}.ogg"));
        json!({ "room_name": room, "track_id": track, "file": { "filepath": path.to_string_lossy() } })
    }

    /// What ListEgress says of this one once it `fits`. Everybody looks at the same answers: two hundred who ask for
    /// themselves would be the load that is measured.
    async fn shown(&self, id: &str, patience: Duration, fits: impl Fn(&Value) -> bool) -> Result<Value> {
        let mut board = self.board.subscribe();
        let seen = board.wait_for(|board| board.get(id).is_some_and(&fits));
        let seen =
            tokio::time::timeout(patience, seen).await.with_context(|| format!("{id}: not after {patience:?}"))?;
        Ok(seen.context("nobody looks any more")?[id].clone())
    }

    async fn look(&self) -> Result<()> {
        loop {
            tokio::time::sleep(Duration::from_millis(500)).await;
            // livekit-server's Redis pool is short of processors while hundreds of runners start; whoever waits has a bound.
            let Ok(answer) = self.ground.api.egress("ListEgress", json!({})).await else { continue };
            let items = answer["items"].as_array().cloned().unwrap_or_default();
            let board = items.into_iter().filter_map(|info| Some((info["egress_id"].as_str()?.to_owned(), info)));
            self.board.send_replace(board.collect());
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

/// What became of one call.
enum Fate {
    Refused(String),
    /// Over before it recorded: what ListEgress says.
    Ended(Value),
    Recorded(Box<Life>),
}

struct Life {
    egress: Egress,
    /// Unix seconds.
    asked: f64,
    active_s: f64,
    /// What ListEgress says after the end.
    info: Value,
}

pub async fn play(scene: &Scene) -> Result<Story> {
    let fleet = Fleet::gather(scene).await?;
    tokio::select! {
        story = fleet.play(scene) => story,
        looked = fleet.look() => looked.and_then(|()| bail!("nobody looks any more")),
    }
}

impl Fleet {
    async fn play(&self, scene: &Scene) -> Result<Story> {
        let fleet = self;
        let begun = tokio::time::Instant::now();
        let gap = scene.within / u32::try_from(scene.egresses.max(1))?;
        let calls = (0..scene.egresses).map(|n| {
            let (fleet, at) = (&fleet, begun + gap * u32::try_from(n).unwrap_or_default());
            async move {
                tokio::time::sleep_until(at).await;
                one(fleet, n, scene.records).await
            }
        });
        let fates = futures_util::future::join_all(calls).await;
        let (mut refused, mut failed, mut lives, mut answers) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for fate in fates {
            match fate? {
                Fate::Refused(words) => refused.push(words),
                Fate::Ended(info) if info["error_code"] == 429 => refused.push(info["error"].to_string()),
                Fate::Ended(info) => failed.push(info.to_string()),
                Fate::Recorded(life) => {
                    answers.push(life.egress.answered_in.as_secs_f64() * 1000.0);
                    lives.push(life);
                }
            }
        }
        let (mut waits, mut actives, mut doubles, mut recorded_s, mut recorded) = (vec![], vec![], 0, 0.0, 0);
        for life in &lives {
            let info = &life.info;
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
        for life in &lives {
            let tasks = fleet.cloud.tasks_of(&life.egress.id);
            let ran = tasks.iter().filter(|arn| fleet.cloud.show(arn)["startedAt"].is_number()).count();
            doubles += usize::from(ran != 1);
            let created = tasks.iter().filter_map(|arn| fleet.cloud.show(arn)["createdAt"].as_f64());
            waits.push(created.fold(f64::INFINITY, f64::min) - life.asked);
            actives.push(life.active_s);
        }
        let struck = fleet.cloud.faults().struck();
        let of = |fault| struck.get(&fault).copied().unwrap_or_default();
        let story = Story {
            asked: scene.egresses,
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
            throttled: of(Fault::Throttled),
            no_capacity: of(Fault::NoCapacity),
            runner_core_s: children_core_s(),
            recorded_s,
        };
        fleet.ground.nothing_runs(Duration::from_secs(20)).await?;
        Ok(story)
    }
}

async fn one(fleet: &Fleet, n: usize, records: Duration) -> Result<Fate> {
    let asked = unix_s();
    let begun = Instant::now();
    let egress = match Egress::start(&fleet.ground.api, "StartTrackEgress", fleet.request(n)).await {
        Ok(egress) => egress,
        Err(error) => match error.downcast_ref::<Refused>() {
            Some(refused) if !refused.message.is_empty() => return Ok(Fate::Refused(refused.to_string())),
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
            Ok(Fate::Recorded(Box::new(Life { egress, asked, active_s, info })))
        }
        Some(_) if info["error"].as_str().is_some_and(|error| !error.is_empty()) => Ok(Fate::Ended(info)),
        _ => bail!("it ended without a reason: {info}"),
    }
}
