//! A Redis that comes back empty, and one that comes back without its last writes, with recordings in progress: none is
//! ended, doubled or told wrongly.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use spillway_protocol::code::Code;
use spillway_protocol::livekit::EgressStatus;
use tokio::time::sleep;

use crate::harness::{Harness, Play, until};
use crate::{SECOND, slow};

const EGRESSES: u64 = 6;

fn ids(seed: u64) -> Vec<String> {
    (0..EGRESSES).map(|n| format!("EG_l{seed}n{n}")).collect()
}

async fn start_all(harness: &Harness, ids: &[String], dice: &mut StdRng) {
    for id in ids {
        if dice.random_bool(0.3) {
            harness.runners.play(id, Play::Ends(Duration::from_millis(dice.random_range(4_000..30_000))));
        }
        if dice.random_bool(0.5) {
            harness.livekit.start_stored(id).await.unwrap();
        } else {
            harness.livekit.start_composite(id).await.unwrap();
        }
    }
}

/// A stop in the moment of the loss may go unanswered; callers ask again.
async fn stop(harness: &Harness, id: &str) {
    let mut last = None;
    for _ in 0..20 {
        match harness.livekit.stop(id).await {
            Ok(_) => return,
            Err(error) if error.code == Code::FailedPrecondition => return,
            // It had ended by itself, and Redis has lost that: nobody is left to answer. livekit-server looks at its own
            // record then.
            Err(_) if harness.livekit.book().ends.contains_key(id) => return,
            Err(error) => last = Some(error),
        }
        sleep(SECOND).await;
    }
    let (info, recordings) = (harness.livekit.status(id), harness.runners.recordings(id));
    panic!("{id} cannot be stopped: {last:?}, {info:?}, recordings {recordings:?}");
}

async fn all_end_well(harness: &Harness, ids: &[String], seed: u64) {
    futures_util::future::join_all(ids.iter().map(|id| stop(harness, id))).await;
    let over = |id: &String| harness.livekit.book().ends.contains_key(id);
    until(&format!("seed {seed}: all are over"), || ids.iter().all(over)).await;
    sleep(180 * SECOND).await;
    let book = harness.livekit.book();
    assert!(book.violations.is_empty(), "seed {seed}: {:?}", book.violations);
    assert!(harness.runners.violations().is_empty(), "seed {seed}: {:?}", harness.runners.violations());
    for id in ids {
        let info = &book.infos[id];
        assert_eq!(info.status(), EgressStatus::EgressComplete, "seed {seed}: {id}: {}", info.error);
        assert_eq!(harness.runners.recordings(id), [1], "seed {seed}: {id}");
        assert_eq!(harness.runners.salvages(id), 0, "seed {seed}: {id}");
    }
}

async fn nothing_runs(harness: &Harness, seed: u64) {
    use spillway_launchers::Launcher;
    let left = harness.cloud.tasks().await.unwrap();
    assert!(left.is_empty(), "seed {seed}: tasks left: {left:?}");
}

#[tokio::test(start_paused = true)]
async fn recordings_outlive_a_redis_that_comes_back_empty() {
    for seed in 0..20 {
        let mut dice = StdRng::seed_from_u64(seed);
        let harness = Harness::set(slow()).await;
        let _dispatchers = (harness.dispatcher().await, harness.dispatcher().await);
        let ids = ids(seed);
        start_all(&harness, &ids, &mut dice).await;
        let active = |id: &String| harness.livekit.status(id) == Some(EgressStatus::EgressActive);
        until("all record", || ids.iter().all(active)).await;
        for _ in 0..dice.random_range(1..4) {
            sleep(Duration::from_millis(dice.random_range(0..9_000))).await;
            // Down for a while, and empty afterwards.
            if dice.random_bool(0.5) {
                harness.broker.cut();
                sleep(Duration::from_millis(dice.random_range(100..20_000))).await;
                harness.broker.flush();
                harness.broker.mend();
            } else {
                harness.broker.flush();
            }
        }
        // Each runner has written its record again.
        sleep(5 * SECOND).await;
        all_end_well(&harness, &ids, seed).await;
        nothing_runs(&harness, seed).await;
    }
}

/// Asynchronous replication: a failover loses what was written in the last seconds, at any moment of an egress.
#[tokio::test(start_paused = true)]
async fn recordings_outlive_a_redis_that_lost_its_last_writes() {
    for seed in 0..40 {
        let mut dice = StdRng::seed_from_u64(seed);
        let harness = Harness::set(slow()).await;
        let _dispatchers = (harness.dispatcher().await, harness.dispatcher().await);
        let ids = ids(seed);
        start_all(&harness, &ids, &mut dice).await;
        // While they are launched, while they record, and around their ends.
        for quiet_ms in [0, dice.random_range(0..6_000), dice.random_range(5_000..20_000)] {
            sleep(Duration::from_millis(quiet_ms)).await;
            let before = harness.broker.snapshot();
            sleep(Duration::from_millis(dice.random_range(0..2_500))).await;
            harness.broker.restore(&before);
        }
        sleep(5 * SECOND).await;
        all_end_well(&harness, &ids, seed).await;
        nothing_runs(&harness, seed).await;
    }
}
