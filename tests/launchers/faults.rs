//! What goes wrong with a call, for every launcher: whatever happens, asking again ends with one task, or with a word that
//! says what to do.

use std::time::{Duration, Instant};

use spillway_launchers::conformance::{LauncherSubject, alive, exit_report, order};
use spillway_launchers::{LaunchError, Launcher, StopMode, StopOutcome, TaskRef, TaskStatus};
use spillway_tests::clouds::fault::{ALL, CloudFault};

/// A launcher whose platform can be made to fail.
pub trait FaultyLauncher: LauncherSubject {
    /// Faults of the next launch calls, in order; `None`: the call succeeds.
    fn script_launches(&self, faults: &[Option<CloudFault>]);

    /// As `script_launches`, of the next status calls.
    fn script_status_calls(&self, faults: &[Option<CloudFault>]);

    /// How many tasks there ever were for this egress.
    fn task_count(&self, egress_id: &str) -> usize;

    /// As [`spillway_tests::clouds::Vendor::error_kind`].
    fn error_kind(&self, fault: CloudFault) -> Option<&'static str>;
}

fn kind(error: &LaunchError) -> &'static str {
    match error {
        LaunchError::Capacity { .. } | LaunchError::ZoneCapacity { .. } => "capacity",
        LaunchError::Quota { .. } => "quota",
        LaunchError::Throttled { .. } => "throttled",
        LaunchError::Misconfigured { .. } => "misconfigured",
        LaunchError::Transient { .. } => "passing",
    }
}

/// Asks until there is a task, as a dispatcher does.
pub async fn launch_with_retries(launcher: &dyn Launcher, name: &str) -> (TaskRef, Vec<&'static str>) {
    let mut said = Vec::new();
    for _ in 0..100 {
        match launcher.launch(&order(launcher.platform(), name, 1)).await {
            Ok(task) => return (task, said),
            Err(error) => {
                assert!(!matches!(error, LaunchError::Misconfigured { .. }), "{name}: {error:?}");
                if said.last() != Some(&kind(&error)) {
                    said.push(kind(&error));
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
    panic!("{name}: no task after {said:?}");
}

pub async fn all(subject: &dyn FaultyLauncher) {
    each_fault_alone(subject).await;
    two_in_a_row(subject).await;
    an_answer_lost_and_a_dispatcher_too(subject).await;
    what_the_platform_started_twice_is_found(subject).await;
    a_platform_that_does_not_answer_hides_nothing(subject).await;
}

async fn each_fault_alone(subject: &dyn FaultyLauncher) {
    let launcher = subject.launcher();
    for fault in ALL.into_iter().filter(|fault| fault.before()) {
        let Some(expected) = subject.error_kind(fault) else { continue };
        let name = format!("{fault:?}");
        subject.script_launches(&[Some(fault)]);
        let (task, said) = launch_with_retries(&*launcher, &name).await;
        assert_eq!(said.concat(), expected, "{name}");
        alive(&*launcher, &task).await;
        assert_eq!(subject.task_count(&format!("EG_{name}")), 1, "{name}");
        launcher.end(&task, StopMode::Immediate).await;
    }
    // Done, and not said so: the launcher may find out by itself or ask to be asked again.
    for fault in [CloudFault::BrokenAfter, CloudFault::LostAfter, CloudFault::Late] {
        let name = format!("{fault:?}");
        subject.script_launches(&[Some(fault)]);
        let (task, said) = launch_with_retries(&*launcher, &name).await;
        assert!(said.is_empty() || said == ["passing"], "{name}: {said:?}");
        alive(&*launcher, &task).await;
        assert_eq!(subject.task_count(&format!("EG_{name}")), 1, "{name}");
        launcher.end(&task, StopMode::Immediate).await;
    }
}

async fn two_in_a_row(subject: &dyn FaultyLauncher) {
    let launcher = subject.launcher();
    let pairs = [
        [CloudFault::LostAfter, CloudFault::Throttled],
        [CloudFault::BrokenAfter, CloudFault::LostAfter],
        [CloudFault::Lost, CloudFault::LostAfter],
        [CloudFault::NoCapacity, CloudFault::BrokenAfter],
        [CloudFault::Busy, CloudFault::LostAfter],
        [CloudFault::Expired, CloudFault::BrokenAfter],
    ];
    for pair in pairs {
        if pair.iter().any(|fault| fault.before() && subject.error_kind(*fault).is_none()) {
            continue;
        }
        let name = format!("{:?}-{:?}", pair[0], pair[1]);
        subject.script_launches(&pair.map(Some));
        let (task, _) = launch_with_retries(&*launcher, &name).await;
        alive(&*launcher, &task).await;
        assert_eq!(subject.task_count(&format!("EG_{name}")), 1, "{name}");
        launcher.end(&task, StopMode::Immediate).await;
        // What the script has left over must not strike the next one.
        subject.script_launches(&[]);
    }
}

/// The order is taken, the answer is lost, and the dispatcher that asked dies.
async fn an_answer_lost_and_a_dispatcher_too(subject: &dyn FaultyLauncher) {
    subject.script_launches(&[Some(CloudFault::LostAfter)]);
    let name = "both-lost";
    let first = subject.launcher();
    let _ = first.launch(&order(first.platform(), name, 1)).await;
    let second = subject.restarted();
    let (task, _) = launch_with_retries(&*second, name).await;
    alive(&*second, &task).await;
    assert_eq!(subject.task_count("EG_both-lost"), 1);
    second.end(&task, StopMode::Immediate).await;
    exit_report(&*second, &task).await;
}

/// The runner's claim decides which of them records; the search for orphans sees both.
async fn what_the_platform_started_twice_is_found(subject: &dyn FaultyLauncher) {
    let launcher = subject.launcher();
    subject.script_launches(&[Some(CloudFault::Doubled)]);
    let (task, _) = launch_with_retries(&*launcher, "doubled").await;
    alive(&*launcher, &task).await;
    if subject.task_count("EG_doubled") == 1 {
        // Names make it impossible there.
        launcher.end(&task, StopMode::Immediate).await;
        return;
    }
    let listed = launcher.tasks().await.expect("the platform answers");
    let both: Vec<_> = listed.iter().filter(|owned| owned.egress_id.as_str() == "EG_doubled").collect();
    assert_eq!(both.len(), 2, "{listed:?}");
    assert!(both.iter().any(|owned| owned.task == task));
    for owned in both {
        launcher.end(&owned.task, StopMode::Immediate).await;
        exit_report(&*launcher, &owned.task).await;
    }
}

async fn a_platform_that_does_not_answer_hides_nothing(subject: &dyn FaultyLauncher) {
    let launcher = subject.launcher();
    let (task, _) = launch_with_retries(&*launcher, "hidden").await;
    alive(&*launcher, &task).await;
    for fault in [
        CloudFault::Throttled,
        CloudFault::Broken,
        CloudFault::Lost,
        CloudFault::Expired,
        CloudFault::Busy,
        CloudFault::LostAfter,
    ] {
        subject.script_status_calls(&[Some(fault)]);
        let seen = launcher.status(&task).await;
        assert!(matches!(seen, TaskStatus::Unknown(_) | TaskStatus::Alive), "{fault:?}: {seen:?}");
    }
    alive(&*launcher, &task).await;
    launcher.end(&task, StopMode::Immediate).await;
    exit_report(&*launcher, &task).await;
}

/// Its lists and looks know of a task only a while after the launch was answered, or was not.
pub async fn of_an_eventually_consistent_platform(subject: &dyn FaultyLauncher) {
    let launcher = subject.launcher();
    for (name, fault) in
        [("young", None), ("young-lost", Some(CloudFault::LostAfter)), ("young-500", Some(CloudFault::BrokenAfter))]
    {
        subject.script_launches(&[fault]);
        let (task, _) = launch_with_retries(&*launcher, name).await;
        known(&*launcher, &task).await;
        assert_eq!(launch_with_retries(&*subject.restarted(), name).await.0, task);
        assert_eq!(subject.task_count(&format!("EG_{name}")), 1, "{name}");
        launcher.end(&task, StopMode::Immediate).await;
        exit_report(&*launcher, &task).await;
    }
    // Ended right after its launch: a task that is not known yet is not gone.
    let (task, _) = launch_with_retries(&*launcher, "too-young").await;
    let ended = launcher.end(&task, StopMode::Immediate).await;
    assert_ne!(ended, StopOutcome::AlreadyGone);
    if ended == StopOutcome::OutOfReach {
        known(&*launcher, &task).await;
        assert_eq!(launcher.end(&task, StopMode::Immediate).await, StopOutcome::Requested);
    }
    exit_report(&*launcher, &task).await;
}

/// Seen alive, and never gone before that.
async fn known(launcher: &dyn Launcher, task: &TaskRef) {
    let begun = Instant::now();
    loop {
        match launcher.status(task).await {
            TaskStatus::Alive => return,
            TaskStatus::Gone(exit_report) => panic!("{task} was to run and is gone: {exit_report}"),
            TaskStatus::Starting(_) | TaskStatus::Unknown(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "{task} is never seen");
    }
}

/// So that a test that hangs says where.
pub async fn in_time(work: impl Future<Output = ()>) {
    tokio::time::timeout(Duration::from_secs(180), work).await.expect("the suite ends");
}
