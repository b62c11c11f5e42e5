//! Tasks that no record wants: which are ended, and which never.

use std::sync::Arc;
use std::time::Duration;

use spillway_bus::{Installation, MemoryBroker};
use spillway_cost::Platform;
use spillway_dispatcher::billing::orphan_tracker::{Fate, Finding};
use spillway_dispatcher::{Dispatcher, Setup, sweep};
use spillway_launchers::{LaunchOrder, Launcher, StopMode, TaskRef, TaskStatus, conformance};
use spillway_protocol::livekit::EgressStatus;
use tokio::time::sleep;

use crate::harness::{Harness, Play, config, until};
use crate::{SECOND, slow};

const MINUTE: Duration = Duration::from_secs(60);

async fn records(harness: &Harness, ids: &[&str]) {
    for id in ids {
        harness.livekit.start_composite(id).await.unwrap();
    }
    let active = |id: &&str| harness.livekit.status(id) == Some(EgressStatus::EgressActive);
    until("all record", || ids.iter().all(active)).await;
}

async fn living(harness: &Harness) -> usize {
    harness.cloud.tasks().await.unwrap().len()
}

/// A task of this stack without a record, which does nothing and never exits.
async fn lost_task(harness: &Harness, name: &str, installation: &str) -> TaskRef {
    harness.runners.play(&format!("EG_{name}"), Play::Sleeps);
    let order = conformance::order(Platform::Host, name, 1);
    harness.cloud.launch(&LaunchOrder { installation: installation.to_owned(), ..order }).await.unwrap()
}

async fn is_gone(harness: &Harness, task: &TaskRef) -> bool {
    matches!(harness.cloud.status(task).await, TaskStatus::Gone(_))
}

/// A failover that flaps onto an empty replica: records come and go, and the recordings are alive all the time.
#[tokio::test(start_paused = true)]
async fn a_redis_that_forgets_everything_again_and_again_costs_no_recording() {
    let harness = Harness::set(slow()).await;
    let _dispatcher = harness.dispatcher().await;
    let ids = ["EG_a", "EG_b", "EG_c", "EG_d"];
    records(&harness, &ids).await;
    // Older than any grace.
    sleep(5 * MINUTE).await;
    for _ in 0..1000 {
        harness.broker.flush();
        sleep(Duration::from_millis(370)).await;
    }
    assert_eq!(living(&harness).await, 4);
    sleep(10 * MINUTE).await;
    assert_eq!(living(&harness).await, 4);
    for id in ids {
        harness.livekit.stop(id).await.unwrap();
    }
    until("all are complete", || ids.iter().all(|id| harness.livekit.status(id) == Some(EgressStatus::EgressComplete)))
        .await;
    harness.livekit.assert_each_ended_once();
}

/// Redis loses everything, once: runners write their records again, and their tasks carry an id that Redis no longer has.
#[tokio::test(start_paused = true)]
async fn tasks_from_before_redis_was_emptied_are_left_alone() {
    let harness = Harness::set(slow()).await;
    let _dispatcher = harness.dispatcher().await;
    records(&harness, &["EG_a"]).await;
    let before = Installation::new(&harness.bus()).find().await.unwrap().unwrap();
    let lost = lost_task(&harness, "lost", &before).await;
    harness.broker.flush();
    sleep(20 * MINUTE).await;
    let after = Installation::new(&harness.bus()).find().await.unwrap().unwrap();
    assert_ne!(before, after);
    assert!(!is_gone(&harness, &lost).await, "whose it was cannot be known any more");
    records(&harness, &["EG_b"]).await;
    let tasks = harness.cloud.tasks().await.unwrap();
    let of = |id: &str| tasks.iter().find(|task| task.egress_id.as_str() == id).unwrap().installation.clone();
    assert_eq!((of("EG_a"), of("EG_b")), (before, after));
}

#[tokio::test(start_paused = true)]
async fn two_installations_on_one_platform_leave_each_other_alone() {
    let harness = Harness::set(slow()).await;
    let _production = harness.dispatcher().await;
    records(&harness, &["EG_one", "EG_two"]).await;
    // With the same stack, and a Redis of its own.
    let other = MemoryBroker::new();
    let cloud: Arc<dyn Launcher> = Arc::new(harness.cloud.clone());
    let setup = Setup::with(config(), other.bus(), vec![cloud], harness.clock.clone());
    let _staging = Dispatcher::start(setup).await.unwrap();
    sleep(30 * MINUTE).await;
    assert_eq!(living(&harness).await, 2);
    for id in ["EG_one", "EG_two"] {
        assert_eq!(harness.livekit.status(id), Some(EgressStatus::EgressActive));
    }
}

#[tokio::test(start_paused = true)]
async fn an_orphan_of_ours_is_ended_after_the_grace_and_not_when_most_are_unknown() {
    let harness = Harness::set(slow()).await;
    let _dispatcher = harness.dispatcher().await;
    records(&harness, &["EG_a", "EG_b", "EG_c"]).await;
    let ours = Installation::new(&harness.bus()).find().await.unwrap().unwrap();
    let older = lost_task(&harness, "older", "").await;
    let lost = lost_task(&harness, "lost", &ours).await;
    // At the latest one observation after the grace.
    sleep(2 * MINUTE - SECOND).await;
    assert!(!is_gone(&harness, &lost).await);
    sleep(MINUTE + SECOND).await;
    assert!(is_gone(&harness, &lost).await);
    assert!(!is_gone(&harness, &older).await, "no id: an older dispatcher has started it");

    let mut many = Vec::new();
    for number in 0..4 {
        many.push(lost_task(&harness, &format!("many{number}"), &ours).await);
    }
    sleep(20 * MINUTE).await;
    for task in &many {
        assert!(!is_gone(&harness, task).await, "4 of 7 are unknown");
    }
    harness.cloud.end(&many[0], StopMode::Immediate).await;
    sleep(MINUTE).await;
    assert!(is_gone(&harness, &many[1]).await && is_gone(&harness, &many[3]).await, "3 of 6 are not most");
    assert_eq!(living(&harness).await, 4, "three recordings and what an older dispatcher has started");
}

#[tokio::test(start_paused = true)]
async fn a_sweep_by_hand_follows_the_same_rules_and_says_why() {
    let harness = Harness::set(slow()).await;
    let _dispatcher = harness.dispatcher().await;
    records(&harness, &["EG_a", "EG_b", "EG_c"]).await;
    let ours = Installation::new(&harness.bus()).find().await.unwrap().unwrap();
    let lost = lost_task(&harness, "lost", &ours).await;
    let swept = async |broker: &MemoryBroker, dry_run: bool| {
        let cloud: Arc<dyn Launcher> = Arc::new(harness.cloud.clone());
        let bus = broker.bus();
        let clock = bus.clock().clone();
        sweep(Setup::with(config(), bus, vec![cloud], clock), dry_run).await.unwrap()
    };
    let fates = |findings: &[Finding]| -> Vec<Fate> {
        let fate = |finding: &Finding| match finding {
            Finding::Task { fate, .. } => Some(fate.clone()),
            Finding::Egress { .. } => None,
        };
        findings.iter().filter_map(fate).collect()
    };
    // A laptop with the production targets and another Redis, empty or with another installation in it.
    let laptop = MemoryBroker::new();
    for _ in 0..2 {
        let found = swept(&laptop, false).await;
        assert_eq!(found.len(), 4);
        assert!(fates(&found).iter().all(|fate| matches!(fate, Fate::Foreign { .. })), "{found:?}");
        assert_eq!(living(&harness).await, 4);
        Installation::new(&laptop.bus()).get_or_make().await.unwrap();
    }
    let found = swept(&harness.broker, true).await;
    assert!(matches!(fates(&found)[..], [Fate::End { .. }]), "{found:?}");
    assert!(found[0].to_string().contains("its egress is not known; to be ended, seen so"), "{}", found[0]);
    // The dispatcher ends it in its next round, or the sweep does.
    swept(&harness.broker, false).await;
    assert!(is_gone(&harness, &lost).await);
    assert_eq!(living(&harness).await, 3);
}
