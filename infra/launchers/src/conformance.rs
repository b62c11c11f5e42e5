//! The suite that every launcher has to pass (cargo feature `testing`). A launcher's own tests implement [`LauncherSubject`] and
//! call [`all`]; a failed check panics with the difference.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use spillway_cost::{Platform, Shape};
use spillway_protocol::Secret;
use spillway_protocol::ids::EgressId;

use crate::exit::{ExitReport, TaskExit};
use crate::launcher::{LaunchOrder, Launcher, RunMode, StopMode, StopOutcome, TaskLog, TaskRef, TaskStatus};
use crate::links::TaskLinks;

/// A launcher under test, on a platform without other tasks. Its runners run until they are stopped and exit with status 0 on
/// SIGTERM.
#[async_trait]
pub trait LauncherSubject: Send + Sync {
    /// The launcher.
    fn launcher(&self) -> Arc<dyn Launcher>;

    /// A new launcher on the same platform, as after a restart of the dispatcher.
    fn restarted(&self) -> Arc<dyn Launcher>;

    /// Kills this task with signal 9, as something outside of the launcher would.
    async fn strike(&self, task: &TaskRef);
}

/// An installation's id in the registry's form.
pub const INSTALLATION: &str = "0fk3x9qz7m1bw8ty";

/// How long a status may take to be seen.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Every check.
pub async fn all(subject: &dyn LauncherSubject) {
    a_launched_task_is_seen_alive(subject).await;
    launching_again_starts_nothing(subject).await;
    overlapping_launches_start_one_task(subject).await;
    an_attempt_that_exited_is_not_started_again(subject).await;
    another_attempt_is_another_task(subject).await;
    a_task_that_is_stopped_gracefully_exits_by_itself(subject).await;
    ending_is_idempotent(subject).await;
    the_signal_that_killed_a_task_is_known(subject).await;
    a_foreign_task_is_never_gone(subject).await;
    a_restarted_dispatcher_finds_its_tasks(subject).await;
    what_runs_is_listed_and_what_is_gone_is_not(subject).await;
    every_task_names_its_installation(subject).await;
    a_bill_has_a_start_and_an_end(subject).await;
    a_discarded_task_is_gone(subject).await;
}

/// The smallest machine that `platform` sells.
pub fn min_shape(platform: Platform) -> Shape {
    match platform {
        Platform::Fargate => Shape { cpu_milli: 250, memory_mib: 512, disk_gib: 20 },
        Platform::CloudRun => Shape { cpu_milli: 1000, memory_mib: 512, disk_gib: 0 },
        Platform::Aci => Shape { cpu_milli: 500, memory_mib: 512, disk_gib: 50 },
        Platform::Host => Shape { cpu_milli: 500, memory_mib: 256, disk_gib: 0 },
    }
}

/// An order for the smallest machine, with labels that no platform takes unchanged.
pub fn order(platform: Platform, name: &str, attempt: u32) -> LaunchOrder {
    LaunchOrder {
        egress_id: EgressId::parse(&format!("EG_{name}")).expect("a name of ours"),
        attempt,
        run_mode: RunMode::Record,
        installation: INSTALLATION.to_owned(),
        claim: "claim".to_owned(),
        handover: Secret::new(r#"{"ticket_key":"canary"}"#.to_owned()),
        labels: BTreeMap::from([("room".to_owned(), "Ünsere Küche / 1 <&>".to_owned())]),
        shape: min_shape(platform),
        page: false,
        max_duration: None,
    }
}

async fn launch(launcher: &dyn Launcher, name: &str, attempt: u32) -> TaskRef {
    launcher.launch(&order(launcher.platform(), name, attempt)).await.expect("the subject has room")
}

/// Waits until the task runs; panics when it is gone before.
pub async fn alive(launcher: &dyn Launcher, task: &TaskRef) {
    let alive = async {
        loop {
            match launcher.status(task).await {
                TaskStatus::Alive => return,
                TaskStatus::Starting(_) => tokio::time::sleep(Duration::from_millis(5)).await,
                other => panic!("{task} should run and is {other:?}"),
            }
        }
    };
    tokio::time::timeout(TIMEOUT, alive).await.expect("the task starts in time");
}

/// Waits until the task is gone.
pub async fn exit_report(launcher: &dyn Launcher, task: &TaskRef) -> ExitReport {
    let gone = async {
        loop {
            if let TaskStatus::Gone(exit_report) = launcher.status(task).await {
                return exit_report;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(TIMEOUT, gone).await.expect("the task leaves in time")
}

async fn a_launched_task_is_seen_alive(subject: &dyn LauncherSubject) {
    let launcher = subject.launcher();
    let task = launch(&*launcher, "alive", 1).await;
    alive(&*launcher, &task).await;
    assert_eq!(launcher.statuses(&[task.clone(), task.clone()]).await, [TaskStatus::Alive, TaskStatus::Alive]);
    launcher.end(&task, StopMode::Immediate).await;
}

async fn a_discarded_task_is_gone(subject: &dyn LauncherSubject) {
    let launcher = subject.launcher();
    launcher.check().await.expect("the platform answers and knows us");
    let task = launch(&*launcher, "discarded", 1).await;
    alive(&*launcher, &task).await;
    match launcher.log(&task).await {
        TaskLog::Tail(_) => {}
        TaskLog::At(place) => assert!(!place.is_empty()),
    }
    assert_eq!(launcher.discard(&task).await, StopOutcome::Requested);
    exit_report(&*launcher, &task).await;
    // What is left of it goes too, and it stays gone.
    launcher.discard(&task).await;
    assert!(matches!(launcher.status(&task).await, TaskStatus::Gone(_)));
}

async fn launching_again_starts_nothing(subject: &dyn LauncherSubject) {
    let launcher = subject.launcher();
    let first = launch(&*launcher, "twice", 1).await;
    let again = launch(&*launcher, "twice", 1).await;
    assert_eq!(first, again);
    launcher.end(&first, StopMode::Immediate).await;
}

async fn overlapping_launches_start_one_task(subject: &dyn LauncherSubject) {
    let launcher = subject.launcher();
    let one = || launch(&*launcher, "overlap", 1);
    let (a, b, c) = tokio::join!(one(), one(), one());
    assert!(a == b && b == c, "{a} {b} {c}");
    launcher.end(&a, StopMode::Immediate).await;
}

async fn an_attempt_that_exited_is_not_started_again(subject: &dyn LauncherSubject) {
    let launcher = subject.launcher();
    let task = launch(&*launcher, "dead", 1).await;
    alive(&*launcher, &task).await;
    subject.strike(&task).await;
    exit_report(&*launcher, &task).await;
    assert_eq!(launch(&*launcher, "dead", 1).await, task);
    assert!(matches!(launcher.status(&task).await, TaskStatus::Gone(_)));
}

async fn another_attempt_is_another_task(subject: &dyn LauncherSubject) {
    let launcher = subject.launcher();
    let first = launch(&*launcher, "attempts", 1).await;
    let second = launch(&*launcher, "attempts", 2).await;
    assert_ne!(first, second);
    launcher.end(&first, StopMode::Immediate).await;
    exit_report(&*launcher, &first).await;
    alive(&*launcher, &second).await;
    launcher.end(&second, StopMode::Immediate).await;
}

async fn a_task_that_is_stopped_gracefully_exits_by_itself(subject: &dyn LauncherSubject) {
    let launcher = subject.launcher();
    let task = launch(&*launcher, "asked", 1).await;
    alive(&*launcher, &task).await;
    assert_eq!(launcher.end(&task, StopMode::Graceful).await, StopOutcome::Requested);
    let how = exit_report(&*launcher, &task).await.how;
    // A runner that is stopped before it handles signals is killed by it; some platforms only tell who stopped it.
    assert!(matches!(how, TaskExit::Exited(0) | TaskExit::Signalled(15) | TaskExit::EndedByUs(_)), "{how}");
}

/// A task that we stopped never looks as if something else had killed it (out of memory, an operator).
async fn ending_is_idempotent(subject: &dyn LauncherSubject) {
    let launcher = subject.launcher();
    let task = launch(&*launcher, "ended", 1).await;
    alive(&*launcher, &task).await;
    assert_eq!(launcher.end(&task, StopMode::Immediate).await, StopOutcome::Requested);
    let how = exit_report(&*launcher, &task).await.how;
    assert_eq!(how, TaskExit::EndedByUs(StopMode::Immediate.reason().to_owned()));
    assert_eq!(launcher.end(&task, StopMode::Immediate).await, StopOutcome::AlreadyGone);
    assert_eq!(launcher.end(&task, StopMode::Graceful).await, StopOutcome::AlreadyGone);
}

async fn the_signal_that_killed_a_task_is_known(subject: &dyn LauncherSubject) {
    let launcher = subject.launcher();
    let task = launch(&*launcher, "struck", 1).await;
    alive(&*launcher, &task).await;
    subject.strike(&task).await;
    assert_eq!(exit_report(&*launcher, &task).await.how, TaskExit::Signalled(9));
}

async fn a_foreign_task_is_never_gone(subject: &dyn LauncherSubject) {
    let launcher = subject.launcher();
    let nonsense = TaskRef { launcher: launcher.name().to_owned(), id: "nonsense".to_owned() };
    let foreign = TaskRef { launcher: "another".to_owned(), id: "1".to_owned() };
    for task in [nonsense, foreign] {
        assert!(matches!(launcher.status(&task).await, TaskStatus::Unknown(_)), "{task}");
        assert_eq!(launcher.end(&task, StopMode::Immediate).await, StopOutcome::OutOfReach, "{task}");
        assert_eq!(launcher.links(&task), TaskLinks::default(), "{task}");
    }
}

async fn a_restarted_dispatcher_finds_its_tasks(subject: &dyn LauncherSubject) {
    let task = launch(&*subject.launcher(), "adopted", 1).await;
    // As it is stored in the registry.
    let kept: TaskRef =
        serde_json::to_string(&task).and_then(|text| serde_json::from_str(&text)).expect("a task is plain JSON");
    let restarted = subject.restarted();
    alive(&*restarted, &kept).await;
    assert_eq!(launch(&*restarted, "adopted", 1).await, task);
    assert_eq!(restarted.end(&kept, StopMode::Immediate).await, StopOutcome::Requested);
    exit_report(&*restarted, &kept).await;
}

async fn what_runs_is_listed_and_what_is_gone_is_not(subject: &dyn LauncherSubject) {
    let launcher = subject.launcher();
    let (stays, leaves) = (launch(&*launcher, "stays", 3).await, launch(&*launcher, "leaves", 1).await);
    alive(&*launcher, &stays).await;
    alive(&*launcher, &leaves).await;
    launcher.end(&leaves, StopMode::Immediate).await;
    exit_report(&*launcher, &leaves).await;

    let listed = launcher.tasks().await.expect("the platform answers");
    let ours: Vec<_> = listed.iter().filter(|owned| owned.task == stays).collect();
    let [ours] = ours[..] else { panic!("{stays} is not listed once: {listed:?}") };
    assert_eq!((ours.egress_id.as_str(), ours.attempt), ("EG_stays", 3));
    assert!(listed.iter().all(|owned| owned.task != leaves), "{leaves} is gone and listed: {listed:?}");
    launcher.end(&stays, StopMode::Immediate).await;
    exit_report(&*launcher, &stays).await;
}

/// Unchanged, also after a restart of the dispatcher, and beside the tasks of other installations.
async fn every_task_names_its_installation(subject: &dyn LauncherSubject) {
    let launcher = subject.launcher();
    let ours = launch(&*launcher, "ours", 1).await;
    let another =
        LaunchOrder { installation: "zz00zz00zz00zz00".to_owned(), ..order(launcher.platform(), "theirs", 1) };
    let theirs = launcher.launch(&another).await.expect("the subject has room");
    alive(&*launcher, &ours).await;
    alive(&*launcher, &theirs).await;
    for seen_by in [subject.launcher(), subject.restarted()] {
        let listed = seen_by.tasks().await.expect("the platform answers");
        let of = |task: &TaskRef| {
            let owned = listed.iter().find(|owned| owned.task == *task);
            owned.map(|owned| owned.installation.clone()).unwrap_or_else(|| panic!("{task} is not listed: {listed:?}"))
        };
        assert_eq!((of(&ours), of(&theirs)), (INSTALLATION.to_owned(), another.installation.clone()));
    }
    for task in [ours, theirs] {
        launcher.end(&task, StopMode::Immediate).await;
        exit_report(&*launcher, &task).await;
    }
}

/// Only where the platform bills.
async fn a_bill_has_a_start_and_an_end(subject: &dyn LauncherSubject) {
    let launcher = subject.launcher();
    if launcher.platform() == Platform::Host {
        return;
    }
    let task = launch(&*launcher, "billed", 1).await;
    alive(&*launcher, &task).await;
    launcher.end(&task, StopMode::Immediate).await;
    // The exit is known before the bill is closed.
    let billed = async {
        loop {
            let exit_report = exit_report(&*launcher, &task).await;
            if let Some(billed) = exit_report.billed {
                return (exit_report, billed);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let (exit_report, billed) = tokio::time::timeout(TIMEOUT, billed).await.expect("the platform closes the bill");
    assert!(billed.from > 1_600_000_000_000 && billed.from <= billed.to, "{billed:?}");
    let machine = exit_report.machine.expect("the platform says what it ran on");
    assert_eq!(machine.shape, min_shape(launcher.platform()));
}
