//! Faults of real servers, seen from a runner that is a process of this machine.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use serde_json::json;
use spillway_tests::grants;
use spillway_tests::guard::loopback_yaml;
use spillway_tests::servers::bucket::{self, TestBucket};
use spillway_tests::servers::clock_proxy::ClockProxy;
use spillway_tests::servers::turn_server::{TurnServer, TurnTransport};
use spillway_tests::servers::{HIDDEN, TestServers};

use super::{Probed, probe};
use crate::harness::{alone, block_on, waiting};

pub fn cases() -> Vec<Trial> {
    vec![
        alone("probe::a_machine_that_works_is_said_to_work", || block_on(works())),
        alone("probe::media_over_tcp_alone_is_a_warning_with_its_consequence", || block_on(no_udp())),
        waiting("probe::no_way_for_media_is_named", || block_on(no_media())),
        alone("probe::a_relay_is_a_warning_and_is_named", || block_on(relayed())),
        alone("probe::a_store_that_refuses_is_named", || block_on(stores())),
        alone("probe::wrong_names_keys_and_clocks_are_named", || block_on(settings())),
    ]
}

const FOLDER: &str = "calls/probes";

fn config(connections: &str, more: &str) -> String {
    format!("{connections}{}targets: [{{ name: here, launcher: process }}]\n{more}", loopback_yaml())
}

/// `storage` of a bucket in moto, at this address.
fn storage(address: &str, name: &str, prefix: &str) -> String {
    format!(
        "storage: {{ prefix: \"{prefix}\", s3: {{ region: us-east-1, access_key: probe-key, secret: canary-of-the-probe, \
         bucket: {name}, endpoint: \"http://{address}\", force_path_style: true }} }}\n"
    )
}

async fn run(servers: &TestServers, name: &str, config: &str) -> Result<Probed> {
    let probed = probe(servers, name, config, &["--folder", FOLDER]).await?;
    servers.nothing_runs(Duration::from_secs(10)).await?;
    Ok(probed)
}

async fn works() -> Result<()> {
    let servers = TestServers::start("").await?;
    let bucket = TestBucket::s3().await?;
    let store = storage(&bucket.address(), bucket::NAME, "");
    let probed = run(&servers, "works", &config(&servers.connections(), &store)).await?;
    ensure!(probed.ok, "{}\n{}", probed.summary, probed.log);
    for check in ["launch", "start", "redis", "clock", "signal", "media", "store S3", "machine", "spool"] {
        let line = probed.line(check)?;
        ensure!(line["outcome"] == "passed", "{line}");
        println!("{check}: {} ({} ms)", line["message"], line["took_ms"]);
    }
    let id = probed.summary["probe"].as_str().context("a probe has an id")?;
    ensure!(bucket.read(&format!("{FOLDER}/{id}.txt")).await?.is_none(), "its object is removed");
    let rooms = servers.api.rooms("ListRooms", json!({})).await?;
    ensure!(!rooms.to_string().contains("spillway-probe"), "its room is removed: {rooms}");
    let dump = servers.redis_dump()?;
    for secret in ["canary-of-the-probe", servers.api.secret.as_str()] {
        ensure!(!dump.windows(secret.len()).any(|window| window == secret.as_bytes()), "{secret} is in Redis");
    }
    ensure!(!probed.log.contains("canary"), "{}", probed.log);
    Ok(())
}

/// livekit-server gathers no candidates for datagrams.
async fn no_udp() -> Result<()> {
    let servers = TestServers::start("  force_tcp: true").await?;
    let probed = run(&servers, "no-udp", &config(&servers.connections(), "")).await?;
    probed.names("no UDP", &["no_udp"], "Open UDP")?;
    let media = probed.line("media")?;
    let message = media["message"].as_str().unwrap_or_default();
    ensure!(
        message.starts_with("tcp ") && message.contains("streams lag") && message.contains("files stay whole"),
        "{media}"
    );
    Ok(())
}

async fn no_media() -> Result<()> {
    let servers = TestServers::without_media().await?;
    let probed = run(&servers, "no-media", &config(&servers.connections(), "")).await?;
    probed.names("no media", &["no_media"], "rtc.node_ip")?;
    ensure!(probed.line("signal")?["outcome"] == "passed", "{}", probed.summary);
    let media = probed.line("media")?;
    ensure!(media["message"].as_str().is_some_and(|message| message.contains(HIDDEN)), "{media}");
    Ok(())
}

async fn relayed() -> Result<()> {
    let turn = TurnServer::start(TurnTransport::Udp, HIDDEN.parse()?).await?;
    let servers = TestServers::hidden_but_for(&turn.yaml()).await?;
    let probed = run(&servers, "relayed", &config(&servers.connections(), "")).await?;
    probed.names("relay", &["no_udp"], "Open UDP")?;
    let media = probed.line("media")?;
    ensure!(media["message"].as_str().is_some_and(|message| message.contains("through turn ")), "{media}");
    Ok(())
}

async fn stores() -> Result<()> {
    let servers = TestServers::start("").await?;
    let mut bucket = TestBucket::s3().await?;
    let connections = servers.connections();
    let missing = storage(&bucket.address(), "no-such-bucket", "");
    let probed = run(&servers, "missing", &config(&connections, &missing)).await?;
    probed.names("bucket", &["bucket_not_found"], "Make the bucket")?;

    let nobody = storage("127.0.0.1:1", bucket::NAME, "");
    let probed = run(&servers, "nobody", &config(&connections, &nobody)).await?;
    probed.names("route to the store", &["store_unreachable"], "endpoint")?;

    let policy_proxy = bucket.behind_policy(grants::aws_runner(bucket::NAME, "calls/")?, None).await?;
    let address = policy_proxy.url().trim_start_matches("http://").to_owned();
    let denied = storage(&address, bucket::NAME, "elsewhere/");
    let probed = run(&servers, "denied", &config(&connections, &denied)).await?;
    probed.names("bucket right", &["store_denied"], "storage.prefix")?;

    let allowed = storage(&address, bucket::NAME, "");
    let probed = run(&servers, "write-only", &config(&connections, &allowed)).await?;
    ensure!(probed.ok, "keys that do not delete are a note: {}", probed.summary);
    let line = probed.line("store S3")?;
    ensure!(
        line["outcome"] == "noted" && line["message"].as_str().is_some_and(|text| text.contains("may not be removed")),
        "{line}"
    );
    let id = probed.summary["probe"].as_str().context("a probe has an id")?;
    ensure!(bucket.read(&format!("{FOLDER}/{id}.txt")).await?.is_some(), "what stays is where it is said to be");
    Ok(())
}

async fn settings() -> Result<()> {
    let servers = TestServers::start("").await?;
    let connections = servers.connections();
    let changed = |from: &str, to: &str| config(&connections.replace(from, to), "");

    let secret = changed(&servers.api.secret, "another-secret-another-secret-another");
    run(&servers, "secret", &secret).await?.names("API secret", &["token_refused"], "api_secret")?;

    let port = servers.api.address.rsplit(':').next().context("an address has a port")?;
    let name = changed(&servers.api.ws_url(), &format!("ws://livekit.invalid:{port}"));
    let probed = run(&servers, "name", &name).await?;
    // A machine without a name server cannot tell one from the other.
    probed.names("DNS", &["name_not_found", "name_server_silent"], "name")?;
    ensure!(probed.line("dns livekit-server")?["outcome"] == "failed", "{}", probed.summary);

    let nobody = changed(&servers.api.ws_url(), "ws://127.0.0.1:1");
    run(&servers, "nobody", &nobody).await?.names("ws_url", &["server_unreachable"], "ws_url")?;

    let tls = changed(&servers.api.ws_url(), &servers.api.ws_url().replace("ws://", "wss://"));
    run(&servers, "tls", &tls).await?.names("TLS of livekit-server", &["server_tls"], "wss://")?;

    let clock = ClockProxy::start(&servers.redis_address, 1200).await?;
    let late = changed(&servers.redis_address, &clock.address.to_string());
    let probed = run(&servers, "clock", &late).await?;
    probed.names("clock", &["clock_wrong"], "NTP")?;
    ensure!(clock.changed() > 0, "no answer to TIME was changed");

    let redis_tls =
        format!("redis: {{ address: \"{}\", dial_timeout: 1500, tls: {{ enabled: true }} }}", servers.redis_address);
    let plain = format!("redis: {{ address: \"{}\" }}", servers.redis_address);
    run(&servers, "redis", &changed(&plain, &redis_tls)).await?.names(
        "Redis TLS",
        &["redis_tls"],
        "redis.tls.enabled",
    )?;

    let bucket = TestBucket::s3().await?;
    let store = storage(&bucket.address(), bucket::NAME, "");
    let spool = config(&connections, &format!("runner: {{ spool_dir: /proc/spool }}\n{store}"));
    run(&servers, "spool", &spool).await?.names("spool", &["spool_unusable"], "spool_dir")
}
