//! A dispatcher whose launcher is a cloud's, and the cloud on this machine: it starts the real runner with what the call
//! and the definition give, and kills it as the vendor would.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use spillway_bus::Bus;
use spillway_cost::Capacity;
use spillway_dispatcher::{Clock, Config, Dispatcher};
use spillway_launchers::aci::{AciLauncher, AciOptions};
use spillway_launchers::cloud_run::{CloudRunLauncher, CloudRunOptions, Job};
use spillway_launchers::conformance::smallest;
use spillway_launchers::ecs::{EcsLauncher, EcsOptions};
use spillway_launchers::{Departed, EndHow, Launcher, OwnedTask, Sighting, TaskRef};
use spillway_protocol::Secret;
use spillway_tests::analyser::played;
use spillway_tests::clouds::Place;
use spillway_tests::clouds::arm::{self, Arm};
use spillway_tests::clouds::ecs::{self, Ecs};
use spillway_tests::clouds::run::CloudRun;
use spillway_tests::each::Room;
use spillway_tests::egress::{Egress, nanos};
use spillway_tests::process::eventually;
use spillway_tests::servers::bucket::Bucket;
use spillway_tests::servers::{Ground, built};

use crate::stage::{alone, block_on};

pub fn cases() -> Vec<Trial> {
    let case = |name: &str, cloud: Cloud, end: End| {
        alone(&format!("clouds::{name}"), move || block_on(async move { recorded(cloud, end).await }))
    };
    vec![
        case("ecs_records_a_track", Cloud::Ecs, End::Asked),
        case("cloud_run_records_a_track", Cloud::Run, End::Asked),
        case("aci_records_a_track", Cloud::Aci, End::Asked),
        case("spot_is_reclaimed_while_it_records", Cloud::Ecs, End::Taken),
        case("cloud_run_cancels_while_it_records", Cloud::Run, End::Taken),
        case("aci_kills_while_it_records", Cloud::Aci, End::Taken),
    ]
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cloud {
    Ecs,
    Run,
    Aci,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// By its caller.
    Asked,
    /// The vendor takes the machine away, with the grace it gives.
    Taken,
}

const KEY: &str = "7373737373737373737373737373737373737373737373737373737373737373";
const CHECKPOINT: f64 = 2.0;
/// Checkpoint, fragment and 2 s for the request.
const LOST_WITH_THE_TASK: f64 = CHECKPOINT + 1.0 + 2.0;

/// One cloud with its launcher.
struct Provider {
    launcher: Arc<dyn Launcher>,
    /// What a configuration would say; the way to it and its keys are ours.
    target: Value,
    held: Held,
}

enum Held {
    Ecs(Ecs),
    CloudRun(CloudRun),
    Aci(Arm),
}

impl Provider {
    async fn start(cloud: Cloud, place: Place) -> Result<Self> {
        let token = Some(Secret::new("stage-token".to_owned()));
        Ok(match cloud {
            Cloud::Ecs => {
                let cloud = Ecs::start(place, "egress").await?;
                let launcher = EcsLauncher::new(EcsOptions {
                    region: ecs::REGION.to_owned(),
                    cluster: "egress".to_owned(),
                    subnets: vec!["subnet-1".to_owned()],
                    capacity: Capacity::Spot,
                    endpoint: Some(cloud.web.url()),
                    keys: Some(("AKIDSTAGE".to_owned(), Secret::new("stage-secret".to_owned()))),
                    ..EcsOptions::default()
                });
                let target = json!({ "name": "cloud", "launcher": "ecs", "capacity": "spot", "options": {
                    "region": ecs::REGION, "cluster": "egress", "task_definition": "egress", "subnets": ["subnet-1"] } });
                Self { launcher: Arc::new(launcher.await), target, held: Held::Ecs(cloud) }
            }
            Cloud::Run => {
                let cloud = CloudRun::start(place, [("egress-1".to_owned(), ("1", "512Mi"))].into()).await?;
                let launcher = CloudRunLauncher::new(CloudRunOptions {
                    project: "p-1".to_owned(),
                    location: "europe-west1".to_owned(),
                    jobs: vec![Job { name: "egress-1".to_owned(), cpu_milli: 1000, memory_mib: 512, disk_gib: 0 }],
                    endpoint: Some(cloud.web.url()),
                    token,
                    ..CloudRunOptions::default()
                });
                let jobs = json!([{ "name": "egress-1", "cpu_milli": 1000, "memory_mib": 512, "disk_gib": 0 }]);
                let target = json!({ "name": "cloud", "launcher": "cloud-run", "options": {
                    "project": "p-1", "location": "europe-west1", "jobs": jobs } });
                Self { launcher: Arc::new(launcher?), target, held: Held::CloudRun(cloud) }
            }
            Cloud::Aci => {
                // No secret store: what the definition says comes with the call.
                let cloud = Arm::start(Place { environment: BTreeMap::new(), grace: Duration::ZERO, ..place }).await?;
                let launcher = AciLauncher::new(AciOptions {
                    subscription: arm::SUBSCRIPTION.to_owned(),
                    resource_group: arm::RESOURCE_GROUP.to_owned(),
                    location: "westeurope".to_owned(),
                    image: "example.azurecr.io/spillway-runner:1".to_owned(),
                    endpoint: Some(cloud.web.url()),
                    token,
                    ..AciOptions::default()
                });
                let target = json!({ "name": "cloud", "launcher": "aci", "options": {
                    "subscription": arm::SUBSCRIPTION, "resource_group": arm::RESOURCE_GROUP,
                    "location": "westeurope", "image": "example.azurecr.io/spillway-runner:1" } });
                Self { launcher: Arc::new(launcher?), target, held: Held::Aci(cloud) }
            }
        })
    }

    /// As its console shows it.
    fn shown(&self, task: &TaskRef) -> Value {
        match &self.held {
            Held::Ecs(cloud) => cloud.show(&task.id),
            Held::CloudRun(cloud) => cloud.show(&task.id),
            Held::Aci(cloud) => cloud.show(&task.id),
        }
    }

    /// Not on our word.
    async fn take(&self, task: &TaskRef) {
        match &self.held {
            Held::Ecs(cloud) => cloud.reclaim(&task.id),
            // Somebody at a console does what we would.
            Held::CloudRun(_) => {
                self.launcher.end(task, EndHow::Now).await;
            }
            Held::Aci(cloud) => cloud.strike(&task.id),
        }
    }
}

struct Scene {
    provider: Provider,
    dispatcher: Dispatcher,
    bucket: Bucket,
    room: Room,
    ground: Ground,
}

impl Scene {
    async fn start(cloud: Cloud) -> Result<Self> {
        let ground = Ground::start("").await?;
        let bucket = Bucket::s3().await?;
        let tasks = ground.folder().join("tasks");
        std::fs::create_dir_all(&tasks).context("make a folder for tasks")?;
        let place = Place {
            environment: BTreeMap::from([
                ("SPILLWAY_TICKET_KEY".to_owned(), KEY.to_owned()),
                ("SPILLWAY_REDIS".to_owned(), json!({ "address": ground.redis_address }).to_string()),
            ]),
            mark: ground.mark().to_owned(),
            grace: Duration::from_secs(10),
            ..Place::new(built("spillway-runner")?, tasks)
        };
        let provider = Provider::start(cloud, place).await?;
        let config = Config::from_yaml(&format!(
            "redis: {{ address: \"{}\" }}\napi_key: {}\napi_secret: {}\nws_url: {}\ncores: 100\nticket_key: \"{KEY}\"\n\
             runner: {{ checkpoint: {CHECKPOINT}s }}\ntargets: [{}]\n",
            ground.redis_address,
            ground.api.key,
            ground.api.secret,
            ground.api.ws_url(),
            provider.target,
        ))?;
        let bus = Bus::connect(&config.redis).await.context("reach Redis")?;
        let launcher = provider.launcher.clone();
        let dispatcher = Dispatcher::with(config, bus, launcher, Clock::Wall).await.context("start a dispatcher")?;
        let room = Room::open(&ground.api, "cloud").await?;
        Ok(Self { provider, dispatcher, bucket, room, ground })
    }

    /// A track on its way into the bucket, and the task that records it.
    async fn recording(&self) -> Result<(Egress, OwnedTask)> {
        let request = self.room.track_request(|name| {
            let (provider, upload) = self.bucket.upload().unwrap_or_default();
            json!({ "filepath": format!("calls/{name}"), provider: upload })
        });
        let egress = Egress::start(&self.ground.api, "StartTrackEgress", request).await?;
        let took = egress.active().await?;
        println!("ACTIVE after {took:.2?}");
        let tasks = self.provider.launcher.tasks().await.context("list tasks")?;
        let [task] = &tasks[..] else { anyhow::bail!("{} tasks: {tasks:?}", tasks.len()) };
        ensure!(task.egress_id.as_str() == egress.id && task.attempt == 1, "{task:?}");
        Ok((egress, task.clone()))
    }

    /// How much of the stored file plays.
    async fn fetched(&self, info: &Value) -> Result<f64> {
        let file = &info["file_results"][0];
        let bytes = self.bucket.read("calls/track.mp4").await?.with_context(|| format!("nothing stored: {info}"))?;
        ensure!(nanos(&file["size"]) as usize == bytes.len(), "{} bytes, said was {file}", bytes.len());
        let path = self.ground.folder().join("track.mp4");
        std::fs::write(&path, &bytes).context("write what was fetched")?;
        played(&path)
    }

    async fn departed(&self, task: &TaskRef) -> Result<Departed> {
        eventually("the bill is closed", Duration::from_secs(20), || async {
            Ok(match self.provider.launcher.look(task).await {
                Sighting::Gone(departed) if departed.billed.is_some() => Some(departed),
                _ => None,
            })
        })
        .await
    }

    /// The ticket key is in no environment but that of the first moment, and in nothing the console shows.
    fn hidden(&self, task: &TaskRef) -> Result<()> {
        let holds = |bytes: &[u8]| bytes.windows(KEY.len()).any(|window| window == KEY.as_bytes());
        let shown = self.provider.shown(task).to_string();
        ensure!(!holds(shown.as_bytes()), "the console shows the ticket key");
        let mut runners = 0;
        for (pid, command) in self.ground.left_behind() {
            runners += usize::from(command.contains("spillway-"));
            for file in ["cmdline", "environ"] {
                let bytes = std::fs::read(Path::new("/proc").join(pid.to_string()).join(file)).unwrap_or_default();
                ensure!(!holds(&bytes), "{file} of {command}");
            }
        }
        ensure!(runners == 2, "runner and media were to be looked at, {runners} were found");
        Ok(())
    }

    async fn leave(self) -> Result<()> {
        self.ground.nothing_runs(Duration::from_secs(10)).await?;
        self.dispatcher.drained().await;
        self.dispatcher.leave().await;
        Ok(())
    }
}

async fn recorded(cloud: Cloud, end: End) -> Result<()> {
    let scene = Scene::start(cloud).await?;
    let (egress, task) = scene.recording().await?;
    let since = Instant::now();
    scene.hidden(&task.task)?;
    tokio::time::sleep(Duration::from_secs(7)).await;
    let recorded = since.elapsed().as_secs_f64();

    let info = match end {
        End::Asked => egress.stop().await?.0,
        End::Taken => {
            scene.provider.take(&task.task).await;
            if cloud == Cloud::Aci {
                // As a kill of a container is: nobody in it lives on for a moment.
                for (pid, _) in scene.ground.left_behind() {
                    if let Some(pid) = Pid::from_raw(pid) {
                        let _ = kill_process(pid, Signal::KILL);
                    }
                }
            }
            egress.over(Duration::from_secs(45)).await?
        }
    };
    let seconds = scene.fetched(&info).await?;
    let departed = scene.departed(&task.task).await?;
    let billed = departed.billed.context("a bill")?;
    let billed_s = (billed.to - billed.from) as f64 / 1000.0;
    println!(
        "{cloud:?} {end:?}: {} {}; {seconds:.2} of {recorded:.2} s kept; left: {departed}; billed {billed_s:.2} s",
        info["status"], info["error"]
    );
    let complete = info["status"] == "EGRESS_COMPLETE";
    match end {
        End::Asked => {
            ensure!(complete && departed.to_string() == "exit status 0", "{info}, left: {departed}");
            ensure!(seconds > recorded - 1.0, "{seconds:.2} s");
        }
        End::Taken => {
            let lost = if cloud == Cloud::Aci { LOST_WITH_THE_TASK } else { 1.0 };
            ensure!(recorded - seconds < lost, "{:.2} s lost", recorded - seconds);
            ensure!(complete == (cloud != Cloud::Aci), "{info}");
        }
    }
    ensure!(billed_s > seconds && billed_s < recorded + 30.0, "billed {billed_s:.2} s for {seconds:.2} s");
    let machine = departed.machine.context("a machine")?;
    ensure!(machine.shape == smallest(scene.provider.launcher.platform()), "{machine:?}");
    ensure!((machine.capacity == Capacity::Spot) == (cloud == Cloud::Ecs), "{machine:?}");
    scene.leave().await
}
