//! What every launcher has to pass, real or on paper. A launcher's own tests bring a [`Subject`] and call [`all`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use spillway_protocol::Secret;
use spillway_protocol::ids::EgressId;

use crate::launcher::{Departure, EndHow, Ended, Errand, LaunchOrder, Launcher, Sighting, TaskRef};

/// A launcher under test, with runners that stay until they are told to leave and leave with status 0 when asked.
#[async_trait]
pub trait Subject: Send + Sync {
    fn launcher(&self) -> Arc<dyn Launcher>;

    /// The same place seen by a dispatcher that has just been started again and remembers nothing.
    fn restarted(&self) -> Arc<dyn Launcher>;

    /// Something beyond us kills this task with signal 9.
    async fn strike(&self, task: &TaskRef);
}

/// How long a state may take to be seen.
const PATIENCE: Duration = Duration::from_secs(20);

pub async fn all(subject: &dyn Subject) {
    a_launched_task_is_seen_alive(subject).await;
    launching_again_starts_nothing(subject).await;
    overlapping_launches_start_one_task(subject).await;
    an_attempt_that_died_is_not_started_again(subject).await;
    another_attempt_is_another_task(subject).await;
    a_task_that_is_asked_leaves_by_itself(subject).await;
    ending_is_idempotent(subject).await;
    how_a_task_died_is_known(subject).await;
    a_stranger_is_never_called_gone(subject).await;
    a_restarted_dispatcher_finds_its_tasks(subject).await;
}

fn order(name: &str, attempt: u32) -> LaunchOrder {
    LaunchOrder {
        egress_id: EgressId::parse(&format!("EG_{name}")).expect("a name of ours"),
        attempt,
        errand: Errand::Record,
        claim: "claim".to_owned(),
        handover: Secret::new(r#"{"ticket_key":"canary"}"#.to_owned()),
        labels: BTreeMap::new(),
    }
}

async fn launch(launcher: &dyn Launcher, order: &LaunchOrder) -> TaskRef {
    launcher.launch(order).await.expect("the subject has room")
}

async fn departure(launcher: &dyn Launcher, task: &TaskRef) -> Departure {
    let gone = async {
        loop {
            if let Sighting::Gone(departure) = launcher.look(task).await {
                return departure;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("the task leaves in time")
}

async fn a_launched_task_is_seen_alive(subject: &dyn Subject) {
    let launcher = subject.launcher();
    let task = launch(&*launcher, &order("alive", 1)).await;
    assert_eq!(launcher.look(&task).await, Sighting::Alive);
    launcher.end(&task, EndHow::Now).await;
}

async fn launching_again_starts_nothing(subject: &dyn Subject) {
    let launcher = subject.launcher();
    let first = launch(&*launcher, &order("twice", 1)).await;
    let again = launch(&*launcher, &order("twice", 1)).await;
    assert_eq!(first, again);
    launcher.end(&first, EndHow::Now).await;
}

async fn overlapping_launches_start_one_task(subject: &dyn Subject) {
    let launcher = subject.launcher();
    let order = order("overlap", 1);
    let (a, b, c) = tokio::join!(launch(&*launcher, &order), launch(&*launcher, &order), launch(&*launcher, &order));
    assert!(a == b && b == c, "{a} {b} {c}");
    launcher.end(&a, EndHow::Now).await;
}

async fn an_attempt_that_died_is_not_started_again(subject: &dyn Subject) {
    let launcher = subject.launcher();
    let task = launch(&*launcher, &order("dead", 1)).await;
    subject.strike(&task).await;
    departure(&*launcher, &task).await;
    assert_eq!(launch(&*launcher, &order("dead", 1)).await, task);
    assert!(matches!(launcher.look(&task).await, Sighting::Gone(_)));
}

async fn another_attempt_is_another_task(subject: &dyn Subject) {
    let launcher = subject.launcher();
    let first = launch(&*launcher, &order("attempts", 1)).await;
    let second = launch(&*launcher, &order("attempts", 2)).await;
    assert_ne!(first, second);
    launcher.end(&first, EndHow::Now).await;
    departure(&*launcher, &first).await;
    assert_eq!(launcher.look(&second).await, Sighting::Alive);
    launcher.end(&second, EndHow::Now).await;
}

async fn a_task_that_is_asked_leaves_by_itself(subject: &dyn Subject) {
    let launcher = subject.launcher();
    let task = launch(&*launcher, &order("asked", 1)).await;
    assert_eq!(launcher.end(&task, EndHow::Ask).await, Ended::Told);
    let how = departure(&*launcher, &task).await;
    // A runner that was asked before it could listen dies of the signal.
    assert!(matches!(how, Departure::Exited(0) | Departure::Signalled(15)), "{how}");
}

async fn ending_is_idempotent(subject: &dyn Subject) {
    let launcher = subject.launcher();
    let task = launch(&*launcher, &order("ended", 1)).await;
    assert_eq!(launcher.end(&task, EndHow::Now).await, Ended::Told);
    departure(&*launcher, &task).await;
    assert_eq!(launcher.end(&task, EndHow::Now).await, Ended::AlreadyGone);
    assert_eq!(launcher.end(&task, EndHow::Ask).await, Ended::AlreadyGone);
}

async fn how_a_task_died_is_known(subject: &dyn Subject) {
    let launcher = subject.launcher();
    let task = launch(&*launcher, &order("struck", 1)).await;
    subject.strike(&task).await;
    assert_eq!(departure(&*launcher, &task).await, Departure::Signalled(9));
}

async fn a_stranger_is_never_called_gone(subject: &dyn Subject) {
    let launcher = subject.launcher();
    let nonsense = TaskRef { launcher: launcher.name().to_owned(), id: "nonsense".to_owned() };
    let foreign = TaskRef { launcher: "another".to_owned(), id: "1".to_owned() };
    for stranger in [nonsense, foreign] {
        assert!(matches!(launcher.look(&stranger).await, Sighting::Unknown(_)), "{stranger}");
        assert_eq!(launcher.end(&stranger, EndHow::Now).await, Ended::OutOfReach, "{stranger}");
    }
}

async fn a_restarted_dispatcher_finds_its_tasks(subject: &dyn Subject) {
    let task = launch(&*subject.launcher(), &order("adopted", 1)).await;
    // As it lies in the registry.
    let kept: TaskRef =
        serde_json::to_string(&task).and_then(|text| serde_json::from_str(&text)).expect("a task is plain JSON");
    let restarted = subject.restarted();
    assert_eq!(restarted.look(&kept).await, Sighting::Alive);
    assert_eq!(launch(&*restarted, &order("adopted", 1)).await, task);
    assert_eq!(restarted.end(&kept, EndHow::Now).await, Ended::Told);
    departure(&*restarted, &kept).await;
}
