//! The dispatcher is dead and stays dead: what happens to a recording whose task ends is up to the function that AWS calls.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use serde_json::{Value, json};
use spillway_bus::{Bus, RedisConfig, Tasks};
use spillway_tests::analyser::played;
use spillway_tests::clouds::ecs::{ACCOUNT, Ecs, REGION};
use spillway_tests::clouds::fault::CloudFault;
use spillway_tests::clouds::lambda::{EventDelivery, FakeSecretsManager, Lambda};
use spillway_tests::clouds::policy::Policy;
use spillway_tests::clouds::web::{HttpReply, HttpServer};
use spillway_tests::clouds::{CloudSetup, Vendor};
use spillway_tests::egress::{Egress, nanos};
use spillway_tests::every_output::TestRoom;
use spillway_tests::grants;
use spillway_tests::guard::loopback_yaml;
use spillway_tests::process::eventually;
use spillway_tests::servers::bucket::TestBucket;
use spillway_tests::servers::{DispatcherProcess, TestServers, built};
use tokio::sync::mpsc;

use crate::harness::{alone, block_on};

pub fn cases() -> Vec<Trial> {
    let case = |name: &str, case: LambdaCase| {
        alone(&format!("lambda::{name}"), move || block_on(async move { died(case).await }))
    };
    let calm = LambdaCase { delivery: EventDelivery::PROMPT, ..LambdaCase::default() };
    vec![
        case("settles_and_salvages_when_no_dispatcher_lives", calm.clone()),
        case("events_come_thrice_and_in_any_order", LambdaCase { delivery: WILD, ..LambdaCase::default() }),
        case(
            "dies_itself_in_the_midst",
            LambdaCase { strikes: vec![Duration::from_millis(400), Duration::from_millis(1100)], ..calm.clone() },
        ),
        case("secrets_cannot_be_read_at_first", LambdaCase { no_secrets: 4, ..calm.clone() }),
        case("races_a_dispatcher_that_lives", LambdaCase { dispatcher_lives: true, ..calm }),
        alone("lambda::a_task_that_ends_well_and_one_that_lives_are_left_alone", || block_on(ended_well())),
    ]
}

const WILD: EventDelivery = EventDelivery { copies: 3, within: Duration::from_secs(4), everything: true, seed: 7 };

#[derive(Clone)]
struct LambdaCase {
    delivery: EventDelivery,
    /// Instances that take the first events are killed so long after.
    strikes: Vec<Duration>,
    /// So many calls for secrets fail.
    no_secrets: usize,
    dispatcher_lives: bool,
}

impl Default for LambdaCase {
    fn default() -> Self {
        Self { delivery: EventDelivery::PROMPT, strikes: vec![], no_secrets: 0, dispatcher_lives: false }
    }
}

const KEY: &str = "7474747474747474747474747474747474747474747474747474747474747474";
const CHECKPOINT: f64 = 2.0;
/// Checkpoint, fragment and 2 s for the request.
const LOST_WITH_THE_TASK: f64 = CHECKPOINT + 1.0 + 2.0;

struct LambdaScenario {
    dispatcher: DispatcherProcess,
    lambda: Lambda,
    cloud: Ecs,
    secrets_manager: FakeSecretsManager,
    events: Mutex<mpsc::UnboundedReceiver<Value>>,
    hooks: Arc<Mutex<Vec<Value>>>,
    _hooked: HttpServer,
    bus: Bus,
    bucket: TestBucket,
    room: TestRoom,
    spool: PathBuf,
    servers: TestServers,
}

fn arn(what: &str) -> String {
    format!("arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:stage/{what}-a1b2c3")
}

impl LambdaScenario {
    async fn start() -> Result<Self> {
        let hooks = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&hooks);
        let hooked = HttpServer::start(move |asked| {
            heard.lock().unwrap_or_else(PoisonError::into_inner).push(asked.json());
            async { HttpReply::json(200, Value::Null) }
        })
        .await?;
        let mut servers =
            TestServers::start(&format!("webhook: {{ api_key: stagekey, urls: [\"{}\"] }}", hooked.url())).await?;
        let bucket = TestBucket::s3().await?;
        let folder = |name: &str| {
            let folder = servers.folder().join(name);
            std::fs::create_dir_all(&folder).map(|()| folder).context("make a folder")
        };
        let (tasks, functions, spool) = (folder("tasks")?, folder("functions")?, folder("spool")?);
        let cluster = format!("arn:aws:ecs:{REGION}:{ACCOUNT}:cluster/egress");
        let definition = format!("arn:aws:ecs:{REGION}:{ACCOUNT}:task-definition/egress");
        let setup = CloudSetup {
            environment: BTreeMap::from([
                ("SPILLWAY_TICKET_KEY".to_owned(), KEY.to_owned()),
                ("SPILLWAY_REDIS".to_owned(), json!({ "address": servers.redis_address }).to_string()),
            ]),
            mark: servers.mark().to_owned(),
            grace: Duration::from_secs(10),
            policy: Some(grants::aws_dispatcher(&cluster, &definition)?),
            ..CloudSetup::new(built("spillway-runner")?, tasks)
        };
        let cloud = Ecs::start(setup, "egress").await?;
        let target = json!({ "name": "fargate", "launcher": "ecs", "options": {
            "region": REGION, "cluster": "egress", "task_definition": "egress", "subnets": ["subnet-1"],
            "endpoint": cloud.web.url() } });
        let config = format!(
            "redis: {{ address: \"{}\" }}\nws_url: {}\n{}cores: 100\nstack: night\n\
             runner: {{ checkpoint: {CHECKPOINT}s, spool_dir: \"{}\" }}\ntargets: [{target}]\n",
            servers.redis_address,
            servers.api.ws_url(),
            loopback_yaml(),
            spool.display(),
        );
        let secrets = [
            ("LIVEKIT_API_KEY", servers.api.key.clone()),
            ("LIVEKIT_API_SECRET", servers.api.secret.clone()),
            ("SPILLWAY_TICKET_KEY", KEY.to_owned()),
        ];
        let arns: BTreeMap<&str, String> = secrets.iter().map(|(name, _)| (*name, arn(name))).collect();
        let values = secrets.iter().map(|(name, value)| (arn(name), value.clone())).collect();
        let policy = Policy::iam(
            &grants::aws(
                "settle",
                &[
                    ("log_group_arn", "arn:logs"),
                    ("secret_arns", &json!(arns.values().collect::<Vec<_>>()).to_string()),
                    ("queue_arn", "arn:queue"),
                ],
            )?
            .to_string(),
        )?;
        let secrets_manager = FakeSecretsManager::start(values, policy).await?;
        let function = CloudSetup {
            environment: BTreeMap::from([
                ("EGRESS_CONFIG_BODY".to_owned(), config.clone()),
                ("SPILLWAY_SECRETS".to_owned(), json!(arns).to_string()),
                ("AWS_ENDPOINT_URL_SECRETS_MANAGER".to_owned(), secrets_manager.web.url()),
            ]),
            mark: servers.mark().to_owned(),
            grace: Duration::from_secs(60),
            ..CloudSetup::new(built("spillway-lambda")?, functions)
        };
        let lambda = Lambda::new(function, Duration::from_secs(1));
        for (name, value) in secrets {
            servers.set(name, value);
        }
        servers.set("AWS_ACCESS_KEY_ID", "AKIDSTAGE");
        servers.set("AWS_SECRET_ACCESS_KEY", "stage-secret");
        let dispatcher = servers.dispatcher_from("dispatcher", &config).await?;
        let redis = RedisConfig { address: servers.redis_address.clone(), ..RedisConfig::default() };
        let bus = Bus::connect(&redis).await.context("reach Redis")?;
        let room = TestRoom::open(&servers.api, "night").await?;
        let events = Mutex::new(cloud.events());
        Ok(Self {
            dispatcher,
            lambda,
            cloud,
            secrets_manager,
            events,
            hooks,
            _hooked: hooked,
            bus,
            bucket,
            room,
            spool,
            servers,
        })
    }

    /// A track on its way into the bucket, for some seconds; its task, and since when.
    async fn recording(&self) -> Result<(Egress, String, Instant)> {
        let request = self.room.track_request(|name| {
            let (provider, upload) = self.bucket.upload().unwrap_or_default();
            json!({ "filepath": format!("calls/{name}"), provider: upload })
        });
        let egress = Egress::start(&self.servers.api, "StartTrackEgress", request).await?;
        egress.active().await?;
        let since = Instant::now();
        let tasks = self.cloud.tasks_of(&egress.id);
        let [task] = &tasks[..] else { anyhow::bail!("{} tasks", tasks.len()) };
        tokio::time::sleep(Duration::from_secs(7)).await;
        Ok((egress, task.clone(), since))
    }

    async fn ledger(&self, wanted: usize) -> Result<Vec<Value>> {
        let tasks = Tasks::new(&self.bus);
        eventually(&format!("{wanted} lines in the ledger"), Duration::from_secs(30), || async {
            let lines = tasks.lines(0, i64::MAX, None, 100).await?;
            let lines: Vec<Value> = lines.iter().filter_map(|(_, line)| serde_json::from_str(line).ok()).collect();
            Ok((lines.len() >= wanted && tasks.list().await?.is_empty()).then_some(lines))
        })
        .await
    }

    /// livekit-server's callers were told of the end so often.
    fn ends_told(&self, id: &str) -> usize {
        let hooks = self.hooks.lock().unwrap_or_else(PoisonError::into_inner);
        let of = |hook: &&Value| hook["event"] == "egress_ended" && hook["egressInfo"]["egressId"] == id;
        hooks.iter().filter(of).count()
    }

    /// Every event has been dealt with, and nothing more comes of it.
    async fn quiet(&self) -> Result<()> {
        eventually("the function has nothing more to do", Duration::from_secs(120), || async {
            Ok(self.lambda.is_idle().then_some(()))
        })
        .await?;
        for done in self.lambda.done() {
            ensure!(done.result.is_ok(), "{done:?}");
        }
        Ok(())
    }

    fn event_of(&self, task: &str) -> Result<Value> {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        let mut last = None;
        while let Ok(event) = events.try_recv() {
            last = (event["detail"]["taskArn"] == task).then_some(event).or(last);
        }
        last.context("no event of the task")
    }
}

async fn died(case: LambdaCase) -> Result<()> {
    let mut scenario = LambdaScenario::start().await?;
    scenario.lambda.listen_to(scenario.cloud.events(), case.delivery);
    let (egress, task, since) = scenario.recording().await?;
    if !case.dispatcher_lives {
        scenario.dispatcher.process.kill()?;
    }
    scenario.lambda.strike(case.strikes.clone());
    scenario.secrets_manager.faults().script("GetSecretValue", vec![Some(CloudFault::Broken); case.no_secrets]);
    let recorded = since.elapsed().as_secs_f64();
    scenario.cloud.strike(&task);
    std::fs::remove_dir_all(&scenario.spool).context("take its disk away")?;
    std::fs::create_dir_all(&scenario.spool).context("another disk")?;
    let struck = Instant::now();

    let info = egress.over(Duration::from_secs(60)).await?;
    let took = struck.elapsed();
    let message = info["error"].as_str().unwrap_or_default();
    ensure!(info["status"] == "EGRESS_FAILED" && message.contains("the runner died: signal 9"), "{info}");
    let bytes = scenario.bucket.read("calls/track.mp4").await?.with_context(|| format!("nothing stored: {info}"))?;
    ensure!(nanos(&info["file_results"][0]["size"]) as usize == bytes.len(), "{} bytes: {info}", bytes.len());
    let path = scenario.servers.folder().join("track.mp4");
    std::fs::write(&path, &bytes).context("write what was fetched")?;
    let seconds = played(&path)?;

    let lines = scenario.ledger(2).await?;
    scenario.quiet().await?;
    let again = scenario.ledger(2).await?;
    println!(
        "over {took:.2?} after the kill: {message}; {seconds:.2} of {recorded:.2} s kept; {} tries failed, {} events; billed {:?}",
        scenario.lambda.failures().len(),
        scenario.lambda.done().len(),
        again.iter().map(|line| line["amount"].as_f64()).collect::<Vec<_>>()
    );
    ensure!(lines == again && again.len() == 2, "{again:?}");
    let told =
        |attempt: u64| again.iter().filter(|line| line["attempt"] == attempt && line["window"] == "vendor").count();
    ensure!(told(1) == 1 && told(2) == 1 && again.iter().any(|line| line["salvage"] == true), "{again:?}");
    ensure!(recorded - seconds < LOST_WITH_THE_TASK, "{:.2} s lost", recorded - seconds);
    ensure!(scenario.cloud.tasks_of(&egress.id).len() == 2, "{:?}", scenario.cloud.tasks_of(&egress.id));
    ensure!(scenario.ends_told(&egress.id) == 1, "its end was told {} times", scenario.ends_told(&egress.id));
    let failures = scenario.lambda.failures();
    ensure!(failures.is_empty() == (case.strikes.is_empty() && case.no_secrets == 0), "{failures:?}");
    Ok(())
}

async fn ended_well() -> Result<()> {
    let mut scenario = LambdaScenario::start().await?;
    scenario.lambda.listen_to(scenario.cloud.events(), WILD);
    let (egress, task, since) = scenario.recording().await?;
    scenario.dispatcher.process.kill()?;

    // Ends of tasks that never were, of an attempt to come, and of this very task while its runner lives.
    let mut end = scenario.event_of(&task)?;
    end["detail"]["lastStatus"] = "STOPPED".into();
    end["detail"]["stopCode"] = "EssentialContainerExited".into();
    end["detail"]["containers"][0]["exitCode"] = 137.into();
    let mut twin = end.clone();
    twin["detail"]["taskArn"] = format!("{task}0").into();
    let mut ahead = twin.clone();
    let variables = &mut ahead["detail"]["overrides"]["containerOverrides"][0]["environment"];
    for variable in variables.as_array_mut().context("variables")? {
        if variable["name"] == "SPILLWAY_ATTEMPT" {
            variable["value"] = "7".into();
        }
    }
    let mut stranger = end.clone();
    stranger["detail"]["overrides"]["containerOverrides"][0]["environment"] = json!([]);
    for event in [end, twin, ahead, stranger] {
        scenario.lambda.invoke(event);
    }
    scenario.quiet().await?;
    ensure!(egress.info().await?["status"] == "EGRESS_ACTIVE", "{}", egress.info().await?);

    let recorded = since.elapsed().as_secs_f64();
    let info = egress.complete().await?;
    let lines = scenario.ledger(1).await?;
    scenario.quiet().await?;
    println!("{recorded:.2} s recorded; {}", lines[0]["outcome"]);
    ensure!(lines.len() == 1 && lines[0]["outcome"] == "egress_complete" && lines[0]["attempt"] == 1, "{lines:?}");
    ensure!(nanos(&info["file_results"][0]["duration"]) as f64 / 1e9 > recorded - 1.0, "{info}");
    ensure!(scenario.ends_told(&egress.id) == 1, "its end was told {} times", scenario.ends_told(&egress.id));
    ensure!(scenario.lambda.failures().is_empty(), "{:?}", scenario.lambda.failures());
    Ok(())
}
