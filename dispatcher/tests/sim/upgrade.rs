//! A rolling upgrade: what the version before has written is gone on with, and what a newer one has written is left alone.

use std::time::Duration;

use spillway_dispatcher::Config;
use spillway_protocol::livekit::EgressStatus;
use tokio::time::sleep;

use crate::harness::{ForeignValues, Harness, config, rewrite_as_before, until};
use crate::{SECOND, slow};

#[tokio::test(start_paused = true)]
async fn recordings_in_progress_outlive_the_upgrade_of_their_dispatcher() {
    for after_ms in (0..=4_000).step_by(250) {
        let harness = Harness::set(slow()).await;
        let before = harness.dispatcher_with(Config { bid: 1.0, ..config() }).await;
        let ids: Vec<String> = (0..4).map(|n| format!("EG_u{after_ms}n{n}")).collect();
        for (n, id) in ids.iter().enumerate() {
            if n % 2 == 0 {
                harness.livekit.start_stored(id).await.unwrap();
            } else {
                harness.livekit.start_composite(id).await.unwrap();
            }
        }
        // Until it is replaced, each record is as the version before writes it.
        for _ in 0..after_ms / 50 {
            sleep(Duration::from_millis(50)).await;
            for id in &ids {
                rewrite_as_before(&harness.bus(), id).await;
            }
        }
        before.vanish().await;
        for id in &ids {
            rewrite_as_before(&harness.bus(), id).await;
        }
        let _after = harness.dispatcher().await;
        let active = |id: &String| harness.livekit.status(id) == Some(EgressStatus::EgressActive);
        until(&format!("all record, after {after_ms} ms"), || ids.iter().all(active)).await;
        for id in &ids {
            harness.livekit.stop(id).await.unwrap();
        }
        let complete = |id: &String| harness.livekit.status(id) == Some(EgressStatus::EgressComplete);
        until("all are complete", || ids.iter().all(complete)).await;
        sleep(30 * SECOND).await;
        harness.livekit.assert_each_ended_once();
        assert_eq!(harness.cloud.started(), ids.len(), "after {after_ms} ms: nothing was started twice");
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_newer_version_has_stored_stays_and_holds_up_nothing() {
    let harness = Harness::set(slow()).await;
    let foreign = ForeignValues::plant(&harness.bus()).await;
    let _dispatchers = (harness.dispatcher().await, harness.dispatcher().await);
    let ids = ["EG_a", "EG_b"];
    for id in ids {
        harness.livekit.start_stored(id).await.unwrap();
    }
    let all = |status| ids.iter().all(|id| harness.livekit.status(id) == Some(status));
    until("both record", || all(EgressStatus::EgressActive)).await;
    // Time for sweeps, billing rounds and searches for orphans.
    sleep(600 * SECOND).await;
    for id in ids {
        harness.livekit.stop(id).await.unwrap();
    }
    until("both are complete", || all(EgressStatus::EgressComplete)).await;
    sleep(120 * SECOND).await;
    harness.livekit.assert_each_ended_once();
    foreign.assert_untouched().await;
}
