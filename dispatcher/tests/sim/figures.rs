//! Many lives at once, in virtual time: the figures of issue 5 that need no cloud.

use std::sync::Arc;
use std::time::Duration;

use crate::stage::{Odds, Play, Stage, Weather, config, target, until};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use spillway_bus::Tasks;
use spillway_cost::Platform;
use spillway_dispatcher::account::entry::Entry;
use spillway_dispatcher::account::statement;
use spillway_dispatcher::config::targets::{Tenant, TenantBy, Tenants};
use spillway_dispatcher::{Config, Dispatcher};
use spillway_launchers::Launcher;
use spillway_launchers::paper::{PaperOptions, Quota};
use spillway_protocol::livekit::EgressStatus;
use tokio::time::{Instant, sleep};

const SECOND: Duration = Duration::from_secs(1);

/// Seeds of the part that runs always; `SPILLWAY_SIM_SEEDS=1000` for the figure.
fn seeds() -> u64 {
    std::env::var("SPILLWAY_SIM_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(40)
}

fn targets(names: &[&str]) -> Config {
    Config { targets: names.iter().map(|name| target(name)).collect(), ..config() }
}

/// Figure 2, on paper.
#[tokio::test(start_paused = true)]
async fn two_hundred_starts_in_two_seconds_are_all_recorded_within_six_seconds_of_waiting() {
    let options =
        PaperOptions { quota: Some(Quota::FARGATE), latency: Duration::from_millis(400), ..PaperOptions::default() };
    for seed in 0..5 {
        let stage = Stage::set(options.clone()).await;
        let odds = Odds { throttled: 0.01, no_capacity: 0.01, ..Odds::default() };
        let weather: Arc<dyn Launcher> = Arc::new(Weather::new("near", &stage.cloud, odds, seed));
        let mut config = targets(&["near"]);
        // A tenth below the platform's own.
        config.targets[0].launches = Some(Quota { burst: 90, per_second: 18.0 });
        let mut dispatchers = Vec::new();
        for _ in 0..2 {
            dispatchers.push(
                Dispatcher::on(config.clone(), stage.bus(), vec![Arc::clone(&weather)], stage.clock).await.unwrap(),
            );
        }
        let starts = (0..200u32).map(|n| {
            let (stage, id) = (&stage, format!("EG_{n}"));
            async move {
                sleep(Duration::from_millis(10) * n).await;
                let asked = Instant::now();
                stage.livekit.start_composite(&id).await.unwrap();
                assert!(asked.elapsed() < SECOND, "answered after {:?}", asked.elapsed());
                while stage.runners.born(&id).is_none() {
                    sleep(Duration::from_millis(10)).await;
                }
                stage.runners.born(&id).unwrap() - asked
            }
        });
        let mut waits = futures_util::future::join_all(starts).await;
        waits.sort();
        let p99 = waits[197];
        println!("seed {seed}: wait p50 {:?} p99 {p99:?} max {:?}", waits[100], waits[199]);
        assert!(p99 <= 6 * SECOND, "{p99:?}");
        until("all record", || {
            (0..200).all(|n| stage.livekit.status(&format!("EG_{n}")) == Some(EgressStatus::EgressActive))
        })
        .await;
        assert_eq!(stage.cloud.started(), 200);
        for n in 0..200 {
            assert_eq!(stage.runners.recordings(&format!("EG_{n}")).len(), 1);
        }
    }
}

/// Figure 4.
#[tokio::test(start_paused = true)]
async fn whatever_happens_each_egress_is_recorded_once_at_most_and_ends_once_and_no_task_is_left() {
    let mut tally = Tally::default();
    let only = std::env::var("SPILLWAY_SIM_SEED").ok().and_then(|text| text.parse::<u64>().ok());
    let range = only.map_or(0..seeds(), |seed| seed..seed + 1);
    for seed in range {
        run(seed, &mut tally).await;
    }
    println!("{tally:?}");
    assert!(tally.recorded > 0 && tally.replaced > 0 && tally.deaths > 0 || only.is_some(), "{tally:?}");
}

#[derive(Debug, Default)]
struct Tally {
    runs: u32,
    egresses: u32,
    recorded: u32,
    replaced: u32,
    deaths: u32,
    told_again: u32,
    tasks: usize,
}

const PLAYS: &[Play] = &[
    Play::Records,
    Play::Records,
    Play::Records,
    Play::DiesBeforeItsTicket,
    Play::DiesWithItsTicket,
    Play::DiesRecording,
    Play::DiesEnding,
    Play::DiesBeforeItsLastWord,
    Play::FallsSilent,
    Play::Sleeps,
    Play::Reclaimed,
    Play::NeverStarts,
];

async fn run(seed: u64, tally: &mut Tally) {
    let mut dice = StdRng::seed_from_u64(seed);
    let latency = Duration::from_millis(dice.random_range(0..1500));
    let stage = Stage::set(PaperOptions { latency, ..PaperOptions::default() }).await;
    let odds = Odds {
        throttled: 0.1,
        no_capacity: 0.1,
        fails: 0.05,
        answer_lost: 0.1,
        hangs: 0.03,
        misconfigured: 0.02,
        tells_late: Duration::from_millis(dice.random_range(0..8000)),
    };
    let names = ["near/spot", "near", "far"];
    let launchers: Vec<Arc<dyn Launcher>> = names
        .iter()
        .zip(0u64..)
        .map(|(name, n)| Arc::new(Weather::new(name, &stage.cloud, odds, seed * 7 + n)) as Arc<dyn Launcher>)
        .collect();
    let mut config = targets(&names);
    config.most_tasks = Some(6);
    config.targets[0].most_tasks = Some(3);
    config.orphan_grace = 20 * SECOND;
    let usual = Tenant { most_recordings: Some(4), ..Tenant::default() };
    config.tenants = Tenants { by: TenantBy::RoomPrefix("/".to_owned()), usual, ..Tenants::default() };
    let open = async || Dispatcher::on(config.clone(), stage.bus(), launchers.clone(), stage.clock).await.unwrap();
    let mut dispatchers = vec![open().await, open().await];

    let ids: Vec<String> = (0..8).map(|n| format!("EG_s{seed}n{n}")).collect();
    for id in &ids {
        stage.runners.play(id, *PLAYS.choose(&mut dice).unwrap());
        if dice.random_bool(0.2) {
            stage.runners.play_salvage(id, Play::DiesRecording);
        }
        if dice.random_bool(0.15) {
            stage.runners.start_twice(id);
        }
    }
    let lives = ids.iter().map(|id| {
        let (start, stop) = (dice.random_range(0..6000), dice.random_range(0..40_000));
        let stored = dice.random_bool(0.4);
        let livekit = &stage.livekit;
        async move {
            sleep(Duration::from_millis(start)).await;
            let _ = if stored { livekit.start_stored(id).await } else { livekit.start_composite(id).await };
            sleep(Duration::from_millis(stop)).await;
            // A runner that is silent, or a Redis that is away, may cost the answer, not the wish; people ask again.
            for _ in 0..20 {
                match livekit.stop(id).await {
                    Ok(_) => break,
                    Err(error) if error.code == spillway_protocol::code::Code::FailedPrecondition => break,
                    Err(_) => sleep(3 * SECOND).await,
                }
            }
        }
    });
    let lives = futures_util::future::join_all(lives);
    let disasters: Vec<(u64, bool)> = (0..3).map(|_| (dice.random_range(500..15_000), dice.random_bool(0.6))).collect();
    let disasters = async {
        for (after, death) in disasters {
            sleep(Duration::from_millis(after)).await;
            if death {
                tally.deaths += 1;
                dispatchers.remove(0).vanish().await;
                dispatchers.push(open().await);
            } else {
                stage.broker.cut();
                sleep(Duration::from_millis(1500)).await;
                stage.broker.mend();
            }
        }
    };
    let (_, ()) = tokio::join!(lives, disasters);

    let what = format!("every egress of seed {seed} is over");
    until(&what, || {
        let book = stage.livekit.book();
        book.infos.values().all(crate::stage::is_over) && book.infos.keys().all(|id| book.ends.contains_key(id))
    })
    .await;
    // Late events, orphans, and a runner that was only away.
    sleep(240 * SECOND).await;
    count(seed, &ids, &stage, tally);
    let left = stage.cloud.tasks().await.unwrap();
    assert!(left.is_empty(), "seed {seed}: tasks left: {left:?}");
    let tasks = Tasks::new(&stage.bus());
    let open = tasks.list().await.unwrap();
    assert!(open.is_empty(), "seed {seed}: accounts left open: {open:?}");
    // Each task that was started has exactly one line.
    let entries = statement::read(&tasks, 0, i64::MAX / 2).await.unwrap();
    let mut keys: Vec<(&str, u32)> = entries.iter().map(|it| (it.egress_id.as_str(), it.attempt)).collect();
    keys.sort_unstable();
    let lines = keys.len();
    keys.dedup();
    assert_eq!(keys.len(), lines, "seed {seed}: a task was billed twice");
    assert!(lines >= stage.cloud.started(), "seed {seed}: {lines} lines for {} tasks", stage.cloud.started());
    tally.tasks += stage.cloud.started();
    tally.runs += 1;
}

fn count(seed: u64, ids: &[String], stage: &Stage, tally: &mut Tally) {
    let book = stage.livekit.book();
    assert!(book.wrongs.is_empty(), "seed {seed}: {:?}", book.wrongs);
    for id in ids {
        let recordings = stage.runners.recordings(id);
        assert!(recordings.len() <= 1, "seed {seed}: {id} was recorded by attempts {recordings:?}");
        tally.recorded += recordings.len() as u32;
        tally.replaced += u32::from(recordings.iter().any(|attempt| *attempt > 1));
    }
    tally.told_again += book.ends.values().filter(|times| **times > 1).count() as u32;
    tally.egresses += book.infos.len() as u32;
}

/// Figure 9: what was estimated for a recording of that length, against the platform's own window.
#[tokio::test(start_paused = true)]
async fn estimates_are_within_two_percent_of_the_bill() {
    let provisioning = 40 * SECOND;
    let stage = Stage::set(PaperOptions { provisioning, ..PaperOptions::default() }).await;
    *stage.runners.boot.lock().unwrap() = provisioning;
    let clock = stage.clock;
    let weather =
        Weather::new("near", &stage.cloud, Odds::default(), 1).selling(Platform::Fargate, move || clock.unix_ms());
    let launchers: Vec<Arc<dyn Launcher>> = vec![Arc::new(weather)];
    let _dispatcher = Dispatcher::on(targets(&["near"]), stage.bus(), launchers, stage.clock).await.unwrap();
    let mut dice = StdRng::seed_from_u64(9);
    let lives = (0..50).map(|n| {
        let (id, minutes) = (format!("EG_{n}"), dice.random_range(10..180));
        let livekit = &stage.livekit;
        async move {
            livekit.start_composite(&id).await.unwrap();
            sleep(60 * SECOND * minutes).await;
            livekit.stop(&id).await.unwrap();
        }
    });
    futures_util::future::join_all(lives).await;
    sleep(120 * SECOND).await;
    let entries: Vec<Entry> = statement::read(&Tasks::new(&stage.bus()), 0, i64::MAX / 2).await.unwrap();
    assert_eq!(entries.len(), 50);
    let off = |entry: &Entry| (entry.estimate / entry.amount - 1.0).abs();
    let worst = entries.iter().map(off).fold(0.0, f64::max);
    let sum = |of: fn(&Entry) -> f64| entries.iter().map(of).sum::<f64>();
    println!("worst {:.3} %, all together {:.4} for {:.4}", worst * 100.0, sum(|it| it.estimate), sum(|it| it.amount));
    assert!(entries.iter().all(|entry| entry.window == "vendor" && entry.amount > 0.0), "{:?}", entries[0]);
    assert!(worst < 0.02, "{worst}");
}
