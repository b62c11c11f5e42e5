//! Tasks that no record wants: which are ended, and which never.

use std::sync::Arc;
use std::time::Duration;

use spillway_bus::{Installation, MemoryBroker};
use spillway_cost::Platform;
use spillway_dispatcher::account::orphans::{Fate, Finding};
use spillway_dispatcher::{Dispatcher, sweep_on};
use spillway_launchers::{EndHow, LaunchOrder, Launcher, Sighting, TaskRef, conformance};
use spillway_protocol::livekit::EgressStatus;
use tokio::time::sleep;

use crate::stage::{Play, Stage, config, until};
use crate::{SECOND, slow};

const MINUTE: Duration = Duration::from_secs(60);

async fn records(stage: &Stage, ids: &[&str]) {
    for id in ids {
        stage.livekit.start_composite(id).await.unwrap();
    }
    let active = |id: &&str| stage.livekit.status(id) == Some(EgressStatus::EgressActive);
    until("all record", || ids.iter().all(active)).await;
}

async fn living(stage: &Stage) -> usize {
    stage.cloud.tasks().await.unwrap().len()
}

/// A task of this stack that no record knows, which does nothing and never leaves.
async fn lost_task(stage: &Stage, name: &str, installation: &str) -> TaskRef {
    stage.runners.play(&format!("EG_{name}"), Play::Sleeps);
    let order = conformance::order(Platform::Host, name, 1);
    stage.cloud.launch(&LaunchOrder { installation: installation.to_owned(), ..order }).await.unwrap()
}

async fn is_gone(stage: &Stage, task: &TaskRef) -> bool {
    matches!(stage.cloud.look(task).await, Sighting::Gone(_))
}

/// A failover that flaps onto an empty replica: records come and go, and the recordings are alive all the time.
#[tokio::test(start_paused = true)]
async fn a_redis_that_forgets_everything_again_and_again_costs_no_recording() {
    let stage = Stage::set(slow()).await;
    let _dispatcher = stage.dispatcher().await;
    let ids = ["EG_a", "EG_b", "EG_c", "EG_d"];
    records(&stage, &ids).await;
    // Older than any grace.
    sleep(5 * MINUTE).await;
    for _ in 0..1000 {
        stage.broker.flush();
        sleep(Duration::from_millis(370)).await;
    }
    assert_eq!(living(&stage).await, 4);
    sleep(10 * MINUTE).await;
    assert_eq!(living(&stage).await, 4);
    for id in ids {
        stage.livekit.stop(id).await.unwrap();
    }
    until("all are complete", || ids.iter().all(|id| stage.livekit.status(id) == Some(EgressStatus::EgressComplete)))
        .await;
    stage.livekit.assert_each_ended_once();
}

/// Once, and for good: runners write their records again, and the id in their tasks is one that Redis no longer has.
#[tokio::test(start_paused = true)]
async fn tasks_from_before_redis_was_emptied_are_left_alone() {
    let stage = Stage::set(slow()).await;
    let _dispatcher = stage.dispatcher().await;
    records(&stage, &["EG_a"]).await;
    let before = Installation::new(&stage.bus()).find().await.unwrap().unwrap();
    let lost = lost_task(&stage, "lost", &before).await;
    stage.broker.flush();
    sleep(20 * MINUTE).await;
    let after = Installation::new(&stage.bus()).find().await.unwrap().unwrap();
    assert_ne!(before, after);
    assert!(!is_gone(&stage, &lost).await, "whose it was cannot be known any more");
    records(&stage, &["EG_b"]).await;
    let tasks = stage.cloud.tasks().await.unwrap();
    let of = |id: &str| tasks.iter().find(|task| task.egress_id.as_str() == id).unwrap().installation.clone();
    assert_eq!((of("EG_a"), of("EG_b")), (before, after));
}

#[tokio::test(start_paused = true)]
async fn two_installations_on_one_platform_leave_each_other_alone() {
    let stage = Stage::set(slow()).await;
    let _production = stage.dispatcher().await;
    records(&stage, &["EG_one", "EG_two"]).await;
    // With the same stack, and a Redis of its own.
    let other = MemoryBroker::new();
    let cloud: Arc<dyn Launcher> = Arc::new(stage.cloud.clone());
    let _staging = Dispatcher::with(config(), other.bus(), cloud, stage.clock.clone()).await.unwrap();
    sleep(30 * MINUTE).await;
    assert_eq!(living(&stage).await, 2);
    for id in ["EG_one", "EG_two"] {
        assert_eq!(stage.livekit.status(id), Some(EgressStatus::EgressActive));
    }
}

#[tokio::test(start_paused = true)]
async fn an_orphan_of_ours_is_ended_after_the_grace_and_not_when_most_are_unknown() {
    let stage = Stage::set(slow()).await;
    let _dispatcher = stage.dispatcher().await;
    records(&stage, &["EG_a", "EG_b", "EG_c"]).await;
    let ours = Installation::new(&stage.bus()).find().await.unwrap().unwrap();
    let older = lost_task(&stage, "older", "").await;
    let lost = lost_task(&stage, "lost", &ours).await;
    // The look after it was seen first for the whole grace, at the latest.
    sleep(2 * MINUTE - SECOND).await;
    assert!(!is_gone(&stage, &lost).await);
    sleep(MINUTE + SECOND).await;
    assert!(is_gone(&stage, &lost).await);
    assert!(!is_gone(&stage, &older).await, "no id: an older dispatcher has started it");

    let mut many = Vec::new();
    for number in 0..4 {
        many.push(lost_task(&stage, &format!("many{number}"), &ours).await);
    }
    sleep(20 * MINUTE).await;
    for task in &many {
        assert!(!is_gone(&stage, task).await, "4 of 7 are unknown");
    }
    stage.cloud.end(&many[0], EndHow::Now).await;
    sleep(MINUTE).await;
    assert!(is_gone(&stage, &many[1]).await && is_gone(&stage, &many[3]).await, "3 of 6 are not most");
    assert_eq!(living(&stage).await, 4, "three recordings and what an older dispatcher has started");
}

#[tokio::test(start_paused = true)]
async fn a_sweep_by_hand_follows_the_same_rules_and_says_why() {
    let stage = Stage::set(slow()).await;
    let _dispatcher = stage.dispatcher().await;
    records(&stage, &["EG_a", "EG_b", "EG_c"]).await;
    let ours = Installation::new(&stage.bus()).find().await.unwrap().unwrap();
    let lost = lost_task(&stage, "lost", &ours).await;
    let swept = async |broker: &MemoryBroker, dry_run: bool| {
        let cloud: Arc<dyn Launcher> = Arc::new(stage.cloud.clone());
        sweep_on(config(), broker.bus(), vec![cloud], dry_run).await.unwrap()
    };
    let fates = |findings: &[Finding]| -> Vec<Fate> {
        let fate = |finding: &Finding| match finding {
            Finding::Task { fate, .. } => Some(fate.clone()),
            Finding::Egress { .. } => None,
        };
        findings.iter().filter_map(fate).collect()
    };
    // A laptop with the production targets and a Redis of its own, empty or with another installation in it.
    let laptop = MemoryBroker::new();
    for _ in 0..2 {
        let found = swept(&laptop, false).await;
        assert_eq!(found.len(), 4);
        assert!(fates(&found).iter().all(|fate| matches!(fate, Fate::Foreign { .. })), "{found:?}");
        assert_eq!(living(&stage).await, 4);
        Installation::new(&laptop.bus()).get_or_make().await.unwrap();
    }
    let found = swept(&stage.broker, true).await;
    assert!(matches!(fates(&found)[..], [Fate::End { .. }]), "{found:?}");
    assert!(found[0].to_string().contains("its egress is not known; to be ended, seen so"), "{}", found[0]);
    // The dispatcher itself ends it at its next look, or the sweep does.
    swept(&stage.broker, false).await;
    assert!(is_gone(&stage, &lost).await);
    assert_eq!(living(&stage).await, 3);
}
