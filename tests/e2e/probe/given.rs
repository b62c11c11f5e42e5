//! Faults of what a task is given by its platform: the way to Redis and the key of the tickets. It cannot report them through
//! Redis: its exit status names them, and the platform does not show its log.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use serde_json::{Value, json};
use spillway_tests::clouds::CloudSetup;
use spillway_tests::clouds::ecs::{self, Ecs};
use spillway_tests::clouds::provider::KEY;
use spillway_tests::guard::loopback_yaml;
use spillway_tests::servers::{TestServers, built};

use super::probe;
use crate::harness::{block_on, waiting};

pub fn cases() -> Vec<Trial> {
    vec![waiting("probe::what_a_task_is_given_wrong_is_named_by_its_exit_status", || block_on(wrongly_given()))]
}

/// What is wrong, `SPILLWAY_REDIS`, `SPILLWAY_TICKET_KEY`; the cause, and a part of what to change.
type GivenFault = (&'static str, Value, Option<&'static str>, &'static [&'static str], &'static str);

async fn wrongly_given() -> Result<()> {
    let mut servers = TestServers::start("").await?;
    for (name, value) in [("AWS_ACCESS_KEY_ID", "AKIDSTAGE"), ("AWS_SECRET_ACCESS_KEY", "stage-secret")] {
        servers.set(name, value);
    }
    let redis = servers.redis_address.clone();
    let port = redis.rsplit(':').next().context("an address has a port")?.to_owned();
    const OTHER_KEY: &str = "8484848484848484848484848484848484848484848484848484848484848484";
    let faults: Vec<GivenFault> = vec![
        (
            "Redis TLS",
            json!({ "address": redis, "tls": { "enabled": true, "insecure": true }, "dial_timeout": 1500 }),
            Some(KEY),
            &["redis_tls"],
            "redis.tls.enabled",
        ),
        (
            "DNS",
            json!({ "address": format!("redis.invalid:{port}") }),
            Some(KEY),
            // A machine without a name server cannot tell one from the other.
            &["name_not_found", "name_server_silent"],
            "name",
        ),
        ("route to Redis", json!({ "address": "127.0.0.1:1" }), Some(KEY), &["redis_unreachable"], "security group"),
        ("database of Redis", json!({ "address": redis, "db": 5 }), Some(KEY), &["another_redis"], "redis.db"),
        ("ticket key", json!({ "address": redis }), Some(OTHER_KEY), &["another_ticket_key"], "ticket_key"),
        ("secrets", json!({ "address": redis }), None, &["handover_missing"], "SPILLWAY_TICKET_KEY"),
    ];
    for (name, redis, key, causes, advice) in faults {
        let (cloud, target) = ecs(&servers, &redis, key).await?;
        let config = format!(
            "{}{}stack: prod\nticket_key: \"{KEY}\"\ntargets: [{target}]\n",
            servers.connections(),
            loopback_yaml()
        );
        let probed = probe(&servers, "given", &config, &["--timeout", "45"]).await?;
        probed.names(name, causes, advice)?;
        let line = probed.line("start")?;
        ensure!(line["message"].as_str().is_some_and(|message| message.contains("CloudWatch")), "its log: {line}");
        drop(cloud);
        servers.nothing_runs(Duration::from_secs(10)).await?;
    }
    Ok(())
}

async fn ecs(servers: &TestServers, redis: &Value, key: Option<&str>) -> Result<(Ecs, Value)> {
    let folder = servers.folder().join("tasks");
    std::fs::create_dir_all(&folder).context("make a folder for tasks")?;
    let key = key.map(|key| ("SPILLWAY_TICKET_KEY".to_owned(), key.to_owned()));
    let setup = CloudSetup {
        environment: [("SPILLWAY_REDIS".to_owned(), redis.to_string())].into_iter().chain(key).collect(),
        mark: servers.mark().to_owned(),
        ..CloudSetup::new(built("spillway-runner")?, folder)
    };
    let cloud = Ecs::start(setup, "egress").await?;
    let target = json!({ "name": "aws", "launcher": "ecs", "region": "us-east-1", "options": { "region": ecs::REGION,
        "cluster": "egress", "task_definition": "spillway-runner", "subnets": ["subnet-1"], "endpoint": cloud.web.url() } });
    Ok((cloud, target))
}
