//! The end of a Cloud Run execution is pushed to a dispatcher, which is not the one that owns the egress: that one stands
//! still.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use rustix::process::Signal;
use serde_json::{Value, json};
use spillway_bus::{Bus, RedisConfig, Tasks};
use spillway_tests::analyser::played;
use spillway_tests::clouds::cloud_run::CloudRun;
use spillway_tests::clouds::pubsub::{Issuer, PushOptions, PushSubscription};
use spillway_tests::clouds::web::{HttpReply, HttpServer};
use spillway_tests::clouds::{CloudSetup, Vendor};
use spillway_tests::egress::Egress;
use spillway_tests::every_output::TestRoom;
use spillway_tests::guard::loopback_yaml;
use spillway_tests::process::eventually;
use spillway_tests::servers::bucket::TestBucket;
use spillway_tests::servers::{TestServers, built};

use crate::harness::{alone, block_on};

pub fn cases() -> Vec<Trial> {
    vec![alone("pushed::another_dispatcher_hears_of_the_end", || block_on(another_hears()))]
}

const KEY: &str = "7575757575757575757575757575757575757575757575757575757575757575";
const AUDIENCE: &str = "https://spillway-dispatcher.example";
const ACCOUNT: &str = "events@p-1.iam.gserviceaccount.com";

async fn another_hears() -> Result<()> {
    let hooks = Arc::new(Mutex::new(Vec::<Value>::new()));
    let heard = Arc::clone(&hooks);
    let hooked = HttpServer::start(move |asked| {
        heard.lock().unwrap_or_else(PoisonError::into_inner).push(asked.json());
        async { HttpReply::json(200, Value::Null) }
    })
    .await?;
    let servers =
        TestServers::start(&format!("webhook: {{ api_key: stagekey, urls: [\"{}\"] }}", hooked.url())).await?;
    let bucket = TestBucket::s3().await?;
    let tasks = servers.folder().join("tasks");
    std::fs::create_dir_all(&tasks).context("make a folder for tasks")?;
    let setup = CloudSetup {
        environment: BTreeMap::from([
            ("SPILLWAY_TICKET_KEY".to_owned(), KEY.to_owned()),
            ("SPILLWAY_REDIS".to_owned(), json!({ "address": servers.redis_address }).to_string()),
        ]),
        mark: servers.mark().to_owned(),
        grace: Duration::from_secs(10),
        ..CloudSetup::new(built("spillway-runner")?, tasks)
    };
    let cloud = CloudRun::start(setup, [("egress-1".to_owned(), ("1", "512Mi"))].into()).await?;
    let issuer = Issuer::start().await?;
    let target = json!({ "name": "run", "launcher": "cloud-run", "options": {
        "project": "p-1", "location": "europe-west1", "endpoint": cloud.web.url(), "token": "stage-token",
        "jobs": [{ "name": "egress-1", "cpu_milli": 1000, "memory_mib": 512, "disk_gib": 0 }] } });
    let config = format!(
        "{}{}cores: 100\nstack: stage\nticket_key: \"{KEY}\"\n\
         runner: {{ checkpoint: 2s }}\npush: {{ audience: \"{AUDIENCE}\", service_account: {ACCOUNT}, keys: \"{}\" }}\ntargets: [{target}]\n",
        servers.connections(),
        loopback_yaml(),
        issuer.keys(),
    );
    let owner = servers.dispatcher_from("owner", &config).await?;
    let room = TestRoom::open(&servers.api, "pushed").await?;
    let request = room.track_request(|name| {
        let (provider, upload) = bucket.upload().unwrap_or_default();
        json!({ "filepath": format!("calls/{name}"), provider: upload })
    });
    let egress = Egress::start(&servers.api, "StartTrackEgress", request).await?;
    egress.active().await?;
    let other = servers.dispatcher_from("other", &config).await?;
    tokio::time::sleep(Duration::from_secs(6)).await;

    let subscription = PushSubscription::new(format!("http://{}/events/cloudrun", other.health));
    let token = issuer.token(AUDIENCE, ACCOUNT)?;
    let strangers = [
        None,
        Some("x.y.z".to_owned()),
        Some(issuer.token("https://else", ACCOUNT)?),
        Some(issuer.token(AUDIENCE, "a@b")?),
    ];
    let executions = cloud.executions_of(&egress.id);
    let [execution] = &executions[..] else { anyhow::bail!("{executions:?}") };
    let entry = cloud.entry(execution);
    for stranger in &strangers {
        ensure!(subscription.push(&entry, stranger.as_deref()).await? == 401, "{stranger:?} was let in");
    }
    // It says that its end is near, and it is not: the platform is asked, and the message is to come again.
    ensure!(subscription.push(&entry, Some(&token)).await? == 503, "a living execution was taken for ended");
    ensure!(subscription.push(&json!({ "textPayload": "hello" }), Some(&token)).await? == 204, "not ours");
    ensure!(egress.info().await?["status"] == "EGRESS_ACTIVE", "{}", egress.info().await?);

    subscription
        .deliver(cloud.entries(), PushOptions { copies: 2, late: Duration::from_millis(300), token: Some(token) });
    owner.process.signal(Signal::STOP)?;
    let struck = Instant::now();
    cloud.strike(execution);
    let info = egress.over(Duration::from_secs(30)).await?;
    let took = struck.elapsed();
    let log = std::fs::read_to_string(&other.process.log).context("read its log")?;
    let salvaged =
        log.lines().filter(|line| line.contains("a task's end was told") && line.contains("Salvage")).count();
    owner.process.signal(Signal::CONT)?;
    ensure!(
        info["status"] == "EGRESS_FAILED" && info["error"].as_str().is_some_and(|message| message.contains("signal 9")),
        "{info}"
    );
    ensure!(salvaged == 1, "salvaged {salvaged} times at the push:\n{log}");

    let bytes = bucket.read("calls/track.mp4").await?.context("nothing stored")?;
    let path = servers.folder().join("track.mp4");
    std::fs::write(&path, &bytes).context("write what was fetched")?;
    let seconds = played(&path)?;
    let redis = RedisConfig { address: servers.redis_address.clone(), ..RedisConfig::default() };
    let book = Tasks::new(&Bus::connect(&redis).await.context("reach Redis")?);
    let lines = eventually("both tasks are in the ledger", Duration::from_secs(30), || async {
        let lines = book.lines(0, i64::MAX, None, 100).await?;
        Ok((lines.len() >= 2 && book.list().await?.is_empty()).then_some(lines))
    })
    .await?;
    let ends = {
        let hooks = hooks.lock().unwrap_or_else(PoisonError::into_inner);
        hooks
            .iter()
            .filter(|hook| hook["event"] == "egress_ended" && hook["egressInfo"]["egressId"] == egress.id.as_str())
            .count()
    };
    println!("over {took:.2?} after the kill, {seconds:.2} s kept, pushes answered {:?}", subscription.answers());
    ensure!(lines.len() == 2 && ends == 1, "{} lines, its end was told {ends} times", lines.len());
    ensure!(subscription.answers().iter().all(|status| [204, 503].contains(status)), "{:?}", subscription.answers());
    ensure!(seconds > 2.0, "{seconds:.2} s");
    Ok(())
}
