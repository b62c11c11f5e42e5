//! Estimated against billed cost of recordings on three clouds.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures_util::future::{join_all, try_join_all};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::Serialize;
use serde_json::{Value, json};
use spillway_tests::assets::clip;
use spillway_tests::clouds::billing_audit::{self, KnownTask};
use spillway_tests::clouds::provider::{CloudKind, CloudProvider, KEY, PREFIX, StartupDelay};
use spillway_tests::egress::{Egress, nanos};
use spillway_tests::process::eventually;
use spillway_tests::publisher::{Publisher, PublisherOptions, SourceKind};
use spillway_tests::servers::{DispatcherProcess, TestServers};

const ROOM: &str = "acme/weekly";
const TENANT: &str = "acme";
/// As for an image of a hundred megabytes on a new machine. Two of the three vendors do not bill the seconds before the
/// pull.
const STARTUP_DELAY: StartupDelay =
    StartupDelay { provisioning: Duration::from_secs(6), pulling: Duration::from_secs(5), varies: 0.2 };
/// Recordings until the overhead of a target is known.
const FIRST: usize = 1;

/// One recording.
#[derive(Debug, Serialize)]
pub struct Guess {
    /// Target.
    pub cloud: String,
    /// Length of the file.
    pub recorded_s: f64,
    /// Time that the vendor bills.
    pub billed_s: f64,
    /// Dollars, estimated before the launch for the recorded length.
    pub estimate: f64,
    /// Dollars, in the ledger.
    pub amount: f64,
    /// Difference, in percent of the amount.
    pub off_percent: f64,
    /// The ledger had no task of this target yet.
    pub early: bool,
}

/// Recordings of a minute and up to `longest_s` on each cloud, each audited against the vendor.
pub async fn measure(runs: usize, longest_s: f64, seed: u64) -> Result<Vec<Guess>> {
    let clouds = [CloudKind::Ecs, CloudKind::Run, CloudKind::Aci];
    let some = clouds.iter().enumerate().map(|(nth, cloud)| {
        let many = (runs + clouds.len() - 1 - nth) / clouds.len();
        async move {
            let guessed = on(*cloud, many, longest_s, seed + nth as u64).await;
            guessed.with_context(|| format!("{cloud:?}"))
        }
    });
    let guesses: Vec<Guess> = try_join_all(some).await?.into_iter().flatten().collect();
    let known = || guesses.iter().filter(|guess| !guess.early);
    let worst = known().map(|guess| guess.off_percent.abs()).fold(0.0, f64::max);
    let sum = |of: fn(&Guess) -> f64| known().map(of).sum::<f64>();
    println!(
        "estimates: {} runs, {} of them before the targets' overheads were known; the others at most {worst:.2} % off, all \
         together {:+.2} %",
        guesses.len(),
        guesses.iter().filter(|guess| guess.early).count(),
        (sum(|guess| guess.estimate) / sum(|guess| guess.amount) - 1.0) * 100.0,
    );
    Ok(guesses)
}

async fn on(cloud: CloudKind, runs: usize, longest_s: f64, seed: u64) -> Result<Vec<Guess>> {
    let mut servers = TestServers::start("").await?;
    let provider = CloudProvider::start(cloud, &mut servers, STARTUP_DELAY).await?;
    let more = format!(
        "ticket_key: \"{KEY}\"\ntenants: {{ by: room_prefix }}\nstack: stage\ntargets: [{}]\n{}",
        provider.target,
        provider.bucket.configuration()
    );
    let dispatcher = servers.dispatcher("dispatcher", &more).await?;
    let person = Publisher::join(&servers.api, ROOM, "p0", PublisherOptions::default()).await?;
    let track = person.publish(&clip("p0-360.h264")?, SourceKind::Camera).await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut dice = StdRng::seed_from_u64(seed);
    let lives: Vec<_> = (0..runs)
        .map(|n| {
            let seconds = if n < FIRST { 60.0 } else { dice.random_range(60.0..longest_s.max(61.0)) };
            // A few at first; later ones a little apart, as people come.
            let after = if n < FIRST { 0.0 } else { 90.0 + 2.0 * n as f64 };
            (n, Duration::from_secs_f64(after), Duration::from_secs_f64(seconds))
        })
        .collect();
    let lives = lives.into_iter().map(|(n, after, long)| {
        let (servers, provider, dispatcher, track) = (&servers, &provider, &dispatcher, &track);
        async move {
            tokio::time::sleep(after).await;
            one(servers, provider, dispatcher, track, n, long).await.with_context(|| format!("run {n}"))
        }
    });
    let guesses = join_all(lives).await.into_iter().collect::<Result<Vec<_>>>()?;
    servers.nothing_runs(Duration::from_secs(20)).await?;
    Ok(guesses)
}

async fn one(
    servers: &TestServers,
    provider: &CloudProvider,
    dispatcher: &DispatcherProcess,
    track: &str,
    n: usize,
    long: Duration,
) -> Result<Guess> {
    let key = format!("{PREFIX}{n}.mp4");
    let mut output = json!({ "filepath": key });
    if let Some((vendor, upload)) = provider.bucket.upload() {
        output[vendor] = upload;
    }
    let request = json!({ "room_name": ROOM, "track_id": track, "file": output });
    let egress = Egress::start(&servers.api, "StartTrackEgress", request).await?;
    egress.active().await?;
    let tasks = provider.tasks_of(&egress.id)?;
    ensure!(tasks.len() == 1, "{} tasks: {tasks:?}", tasks.len());
    tokio::time::sleep(long).await;
    let info = egress.complete().await?;
    let line = line(dispatcher, &egress.id).await?;
    let billed = provider.billed(&provider.shown(&tasks[0])?)?.context("the platform bills")?;
    let file = &info["file_results"][0];
    let stored = (nanos(&file["size"]) as u64, nanos(&file["duration"]) as f64 / 1e9);
    let known = KnownTask {
        cloud: provider.cloud,
        room: ROOM,
        tenant: TENANT,
        kind: "track",
        info: &info,
        stored: Some(stored),
        billed: Some(billed),
    };
    // Reckoned from the vendor's published prices and the fake's own window.
    let amount = billing_audit::audit(&line, &known)?;
    let estimate = line["estimate"].as_f64().context("an estimate")?;
    let guess = Guess {
        cloud: format!("{:?}", provider.cloud),
        recorded_s: stored.1,
        billed_s: (billed.1 - billed.0) as f64 / 1000.0,
        estimate,
        amount,
        off_percent: (estimate / amount - 1.0) * 100.0,
        early: n < FIRST,
    };
    println!(
        "{} {:>5.1} s recorded, {:>5.1} s billed: {:.6} dollars, expected were {:.6} ({:+.2} %){}",
        guess.cloud,
        guess.recorded_s,
        guess.billed_s,
        guess.amount,
        guess.estimate,
        guess.off_percent,
        if guess.early { ", early" } else { "" }
    );
    Ok(guess)
}

async fn line(dispatcher: &DispatcherProcess, egress_id: &str) -> Result<Value> {
    let look = || async {
        let said = std::fs::read_to_string(&dispatcher.process.log).context("read what the dispatcher said")?;
        let lines = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        Ok(lines.into_iter().find(|line| line["egress_id"] == egress_id && line["amount"].is_number()))
    };
    eventually("the bill is written", Duration::from_secs(90), look).await
}
