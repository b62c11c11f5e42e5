//! The exit handler of the Lambda function: alone when all dispatchers are dead, and beside live ones.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use spillway_bus::Tasks;
use spillway_dispatcher::billing::entry::Entry;
use spillway_dispatcher::reconcile::task_exit::TaskExitEvent;
use spillway_dispatcher::{ExitHandler, Setup};
use spillway_launchers::simulated::SimulatedOptions;
use spillway_launchers::{Launcher, TaskStatus};
use spillway_protocol::livekit::EgressStatus;
use tokio::time::{Instant, sleep};

use crate::harness::{Harness, Play, config, is_over, until};

const SECOND: Duration = Duration::from_secs(1);

/// Each exit event is delivered `copies` times, each up to `late` later; a failed invocation is repeated.
fn function(harness: &Harness, copies: usize, late: Duration, seed: u64) {
    let mut exits = harness.runners.exits();
    let (cloud, bus, clock) = (harness.cloud.clone(), harness.broker.clone(), harness.clock.clone());
    let mut rng = StdRng::seed_from_u64(seed);
    tokio::spawn(async move {
        while let Some((order, task)) = exits.recv().await {
            for _ in 0..copies {
                let late = late.mul_f64(rng.random_range(0.0..=1.0));
                let (cloud, bus, order, task) = (cloud.clone(), bus.bus(), order.clone(), task.clone());
                let clock = clock.clone();
                tokio::spawn(async move {
                    sleep(late).await;
                    let TaskStatus::Gone(exit_report) = cloud.status(&task).await else { return };
                    let event = TaskExitEvent {
                        egress_id: order.egress_id,
                        attempt: order.attempt,
                        task: task.id,
                        exit_report,
                    };
                    for _ in 0..3 {
                        let launcher: Arc<dyn Launcher> = Arc::new(cloud.clone());
                        let setup = Setup::with(config(), bus.clone(), vec![launcher], clock.clone());
                        let exit_handler = ExitHandler::start(setup).await.unwrap();
                        let heard = exit_handler.handle(&event).await;
                        let finished = exit_handler.finish(Instant::now() + 20 * SECOND).await;
                        if heard.is_ok() && finished {
                            return;
                        }
                    }
                });
            }
        }
    });
}

/// Tasks by egress and attempt, each closed once, none open.
pub async fn ledger(harness: &Harness) -> BTreeMap<(String, u32), Entry> {
    let tasks = Tasks::new(&harness.bus());
    let lines = tasks.lines(0, i64::MAX, None, 10_000).await.unwrap();
    let mut entries = BTreeMap::new();
    for (_, line) in lines {
        let entry: Entry = serde_json::from_str(&line).unwrap();
        let key = (entry.egress_id.clone(), entry.attempt);
        assert!(entries.insert(key.clone(), entry).is_none(), "{key:?} is in the ledger twice");
    }
    assert_eq!(tasks.list().await.unwrap(), [], "open in the end");
    entries
}

const PLAYS: [Play; 8] = [
    Play::Records,
    Play::DiesBeforeItsTicket,
    Play::DiesWithItsTicket,
    Play::DiesRecording,
    Play::DiesEnding,
    Play::DiesBeforeItsLastReport,
    Play::Reclaimed,
    Play::NeverStarts,
];

#[tokio::test(start_paused = true)]
async fn with_every_dispatcher_dead_each_egress_still_ends_once_and_is_accounted_for() {
    for copies in [1, 3] {
        let options = SimulatedOptions { latency: Duration::from_millis(200), ..SimulatedOptions::default() };
        let harness = Harness::set(options).await;
        *harness.runners.boot.lock().unwrap() = 3 * SECOND;
        function(&harness, copies, 2 * SECOND, 1);
        let dispatcher = harness.dispatcher().await;
        for play in PLAYS {
            let id = format!("EG_{play:?}");
            harness.runners.play(&id, play);
            harness.livekit.start_stored(&id).await.unwrap();
        }
        sleep(SECOND).await;
        dispatcher.vanish().await;
        for play in [Play::Records, Play::DiesEnding, Play::DiesBeforeItsLastReport] {
            let id = format!("EG_{play:?}");
            until("it records", || harness.livekit.status(&id) == Some(EgressStatus::EgressActive)).await;
            harness.livekit.stop(&id).await.unwrap();
        }
        until("all are over", || {
            PLAYS.iter().all(|play| harness.livekit.shows(&format!("EG_{play:?}")).is_some_and(|info| is_over(&info)))
        })
        .await;
        sleep(60 * SECOND).await;
        harness.livekit.assert_each_ended_once();
        for (play, message) in [
            (Play::DiesRecording, "the runner died: signal 9"),
            (Play::DiesBeforeItsTicket, "the runner left before it started recording: signal 9"),
            (Play::Records, ""),
            (Play::DiesBeforeItsLastReport, ""),
        ] {
            let info = harness.livekit.shows(&format!("EG_{play:?}")).unwrap();
            assert!(info.error.starts_with(message), "{play:?}: {}", info.error);
        }
        assert_eq!(ledger(&harness).await.len(), harness.cloud.started(), "a line for each task");
    }
}

#[tokio::test(start_paused = true)]
async fn a_function_that_races_living_dispatchers_changes_nothing_but_the_time_it_takes() {
    for seed in 0..30 {
        let options = SimulatedOptions { latency: Duration::from_millis(200), ..SimulatedOptions::default() };
        let harness = Harness::set(options).await;
        let mut rng = StdRng::seed_from_u64(seed);
        function(&harness, rng.random_range(1..=3), 3 * SECOND, seed);
        let _dispatchers = [harness.dispatcher().await, harness.dispatcher().await];
        let ids: Vec<String> = (0..6).map(|n| format!("EG_{seed}_{n}")).collect();
        for id in &ids {
            harness.runners.play(id, *PLAYS.choose(&mut rng).unwrap());
            harness.livekit.start_stored(id).await.unwrap();
        }
        sleep(SECOND.mul_f64(rng.random_range(0.0..20.0))).await;
        for id in &ids {
            // Over already, some of them.
            let _ = harness.livekit.stop(id).await;
        }
        until("all are over", || ids.iter().all(|id| harness.livekit.shows(id).is_some_and(|info| is_over(&info))))
            .await;
        sleep(120 * SECOND).await;
        harness.livekit.assert_each_ended_once();
        for id in &ids {
            assert!(harness.runners.recordings(id).len() <= 1, "{id} was recorded twice");
        }
        assert_eq!(ledger(&harness).await.len(), harness.cloud.started(), "seed {seed}: a line for each task");
    }
}
