//! Figures of the control plane that need no cloud, with many egresses in virtual time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::harness::{FaultRates, FaultyPlatform, Harness, config, target, until};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use spillway_bus::{FaultyLink, LinkFaults, Registry, Tasks};
use spillway_cost::Platform;
use spillway_dispatcher::billing::bill;
use spillway_dispatcher::billing::entry::Entry;
use spillway_dispatcher::{Config, Dispatcher, Setup};
use spillway_launchers::simulated::SimulatedOptions;
use spillway_launchers::{Launcher, Quota};
use spillway_protocol::livekit::EgressStatus;
use tokio::time::{Instant, sleep};

const SECOND: Duration = Duration::from_secs(1);

pub fn targets(names: &[&str]) -> Config {
    Config { targets: names.iter().map(|name| target(name)).collect(), ..config() }
}

/// Wait until a recording starts, with Fargate's quota.
#[tokio::test(start_paused = true)]
async fn two_hundred_starts_in_two_seconds_are_all_recorded_within_six_seconds_of_waiting() {
    let options = SimulatedOptions {
        quota: Some(Quota::FARGATE),
        latency: Duration::from_millis(400),
        ..SimulatedOptions::default()
    };
    for seed in 0..5 {
        let harness = Harness::set(options.clone()).await;
        let rates = FaultRates { throttled: 0.01, no_capacity: 0.01, ..FaultRates::default() };
        let platform: Arc<dyn Launcher> = Arc::new(FaultyPlatform::new("near", &harness.cloud, rates, seed));
        let mut config = targets(&["near"]);
        // A tenth below the platform's own.
        config.targets[0].launches = Some(Quota { burst: 90, per_second: 18.0 });
        let mut dispatchers = Vec::new();
        for _ in 0..2 {
            let launchers = vec![Arc::clone(&platform)];
            let setup = Setup::with(config.clone(), harness.bus(), launchers, harness.clock.clone());
            dispatchers.push(Dispatcher::start(setup).await.unwrap());
        }
        let starts = (0..200u32).map(|n| {
            let (harness, id) = (&harness, format!("EG_{n}"));
            async move {
                sleep(Duration::from_millis(10) * n).await;
                let asked = Instant::now();
                harness.livekit.start_composite(&id).await.unwrap();
                assert!(asked.elapsed() < SECOND, "answered after {:?}", asked.elapsed());
                while harness.runners.started_at(&id).is_none() {
                    sleep(Duration::from_millis(10)).await;
                }
                harness.runners.started_at(&id).unwrap() - asked
            }
        });
        let mut waits = futures_util::future::join_all(starts).await;
        waits.sort();
        let p99 = waits[197];
        println!("seed {seed}: wait p50 {:?} p99 {p99:?} max {:?}", waits[100], waits[199]);
        assert!(p99 <= 6 * SECOND, "{p99:?}");
        until("all record", || {
            (0..200).all(|n| harness.livekit.status(&format!("EG_{n}")) == Some(EgressStatus::EgressActive))
        })
        .await;
        assert_eq!(harness.cloud.started(), 200);
        for n in 0..200 {
            assert_eq!(harness.runners.recordings(&format!("EG_{n}")).len(), 1);
        }
    }
}

/// The estimate for a recording of that length against the bill of the platform's window.
#[tokio::test(start_paused = true)]
async fn estimates_are_within_two_percent_of_the_bill() {
    let provisioning = 40 * SECOND;
    let harness = Harness::set(SimulatedOptions { provisioning, ..SimulatedOptions::default() }).await;
    *harness.runners.boot.lock().unwrap() = provisioning;
    let clock = harness.clock.clone();
    let platform = FaultyPlatform::new("near", &harness.cloud, FaultRates::default(), 1)
        .selling(Platform::Fargate, move || clock.unix_ms());
    let launchers: Vec<Arc<dyn Launcher>> = vec![Arc::new(platform)];
    let setup = Setup::with(targets(&["near"]), harness.bus(), launchers, harness.clock.clone());
    let _dispatcher = Dispatcher::start(setup).await.unwrap();
    let mut dice = StdRng::seed_from_u64(9);
    let lives = (0..50).map(|n| {
        let (id, minutes) = (format!("EG_{n}"), dice.random_range(10..180));
        let livekit = &harness.livekit;
        async move {
            livekit.start_composite(&id).await.unwrap();
            sleep(60 * SECOND * minutes).await;
            livekit.stop(&id).await.unwrap();
        }
    });
    futures_util::future::join_all(lives).await;
    sleep(120 * SECOND).await;
    let entries: Vec<Entry> = bill::read(&Tasks::new(&harness.bus()), 0, i64::MAX / 2).await.unwrap();
    assert_eq!(entries.len(), 50);
    let off = |entry: &Entry| (entry.estimate / entry.amount - 1.0).abs();
    let worst = entries.iter().map(off).fold(0.0, f64::max);
    let sum = |of: fn(&Entry) -> f64| entries.iter().map(of).sum::<f64>();
    println!("worst {:.3} %, all together {:.4} for {:.4}", worst * 100.0, sum(|it| it.estimate), sum(|it| it.amount));
    assert!(entries.iter().all(|entry| entry.window == "vendor" && entry.amount > 0.0), "{:?}", entries[0]);
    assert!(worst < 0.02, "{worst}");
}

/// Who sees to each live egress.
async fn owners(harness: &Harness) -> BTreeMap<String, String> {
    let live = Registry::new(&harness.bus()).list_live().await.unwrap();
    live.iter().map(|record| (record.egress_id.to_string(), record.dispatcher.clone())).collect()
}

/// Hundreds of records to adopt over a slow Redis do not keep a dispatcher from its own heartbeat.
#[tokio::test(start_paused = true)]
async fn of_three_dispatchers_only_the_records_of_the_dead_one_are_adopted() {
    const EGRESSES: u32 = 900;
    let harness = Harness::set(SimulatedOptions::default()).await;
    let mut dispatchers = Vec::new();
    for seed in 0..3 {
        let link = FaultyLink::new(LinkFaults { seed, slow: Duration::from_millis(5), ..LinkFaults::default() });
        let launchers: Vec<Arc<dyn Launcher>> = vec![Arc::new(harness.cloud.clone())];
        let setup = Setup::with(config(), link.to(&harness.bus()), launchers, harness.clock.clone());
        dispatchers.push(Dispatcher::start(setup).await.unwrap());
    }
    let ids: Vec<String> = (0..EGRESSES).map(|n| format!("EG_{n}")).collect();
    for some in ids.chunks(30) {
        let starts = some.iter().map(|id| harness.livekit.start_composite(id));
        for started in futures_util::future::join_all(starts).await {
            started.unwrap();
        }
    }
    let active = |id: &String| harness.livekit.status(id) == Some(EgressStatus::EgressActive);
    until("all record", || ids.iter().all(active)).await;
    sleep(10 * SECOND).await;
    let before = owners(&harness).await;
    let names: BTreeSet<&String> = before.values().collect();
    assert_eq!((before.len(), names.len()), (ids.len(), 3), "each has some");

    dispatchers.remove(0).vanish().await;
    let begun = Instant::now();
    let adopted_from = |after: &BTreeMap<String, String>| -> BTreeSet<String> {
        before.iter().filter(|(id, owner)| after.get(*id) != Some(*owner)).map(|(_, owner)| owner.clone()).collect()
    };
    let dead = loop {
        let after = owners(&harness).await;
        let from = adopted_from(&after);
        assert!(from.len() <= 1, "the living lost records: {from:?}");
        if let Some(dead) = from.first().filter(|dead| !after.values().any(|owner| owner == *dead)) {
            break dead.clone();
        }
        assert!(begun.elapsed() < 15 * SECOND, "not adopted: {:?}", begun.elapsed());
        sleep(SECOND / 4).await;
    };
    println!("{} records adopted after {:?}", before.values().filter(|owner| **owner == dead).count(), begun.elapsed());
    sleep(120 * SECOND).await;
    assert_eq!(adopted_from(&owners(&harness).await), BTreeSet::from([dead]));
    assert!(ids.iter().all(active), "no recording was touched");
}
