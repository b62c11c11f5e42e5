//! What goes wrong with a call, for every launcher: whatever happens, asking again ends with one task, or with a word that
//! says what to do.

use std::time::{Duration, Instant};

use spillway_launchers::conformance::{Subject, alive, departed, order};
use spillway_launchers::{EndHow, Ended, LaunchError, Launcher, Sighting, TaskRef};
use spillway_tests::clouds::fault::{ALL, Fault};

/// A launcher whose platform can be made to fail.
pub trait Faulty: Subject {
    /// The next launch calls fare so.
    fn script_launches(&self, faults: &[Option<Fault>]);

    /// The next looks fare so.
    fn script_looks(&self, faults: &[Option<Fault>]);

    /// How many tasks there ever were for this egress.
    fn made(&self, egress_id: &str) -> usize;

    /// As [`spillway_tests::clouds::Vendor::called`].
    fn called(&self, fault: Fault) -> Option<&'static str>;
}

fn kind(error: &LaunchError) -> &'static str {
    match error {
        LaunchError::Capacity { .. } | LaunchError::PlaceFull { .. } => "capacity",
        LaunchError::Quota { .. } => "quota",
        LaunchError::Throttled { .. } => "throttled",
        LaunchError::Misconfigured { .. } => "misconfigured",
        LaunchError::Passing { .. } => "passing",
    }
}

/// Asks until there is a task, as a dispatcher does.
pub async fn insistently(launcher: &dyn Launcher, name: &str) -> (TaskRef, Vec<&'static str>) {
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

pub async fn all(subject: &dyn Faulty) {
    each_fault_alone(subject).await;
    two_in_a_row(subject).await;
    an_answer_lost_and_a_dispatcher_too(subject).await;
    what_the_platform_started_twice_is_found(subject).await;
    a_platform_that_does_not_answer_hides_nothing(subject).await;
}

async fn each_fault_alone(subject: &dyn Faulty) {
    let launcher = subject.launcher();
    for fault in ALL.into_iter().filter(|fault| fault.before()) {
        let Some(expected) = subject.called(fault) else { continue };
        let name = format!("{fault:?}");
        subject.script_launches(&[Some(fault)]);
        let (task, said) = insistently(&*launcher, &name).await;
        assert_eq!(said.concat(), expected, "{name}");
        alive(&*launcher, &task).await;
        assert_eq!(subject.made(&format!("EG_{name}")), 1, "{name}");
        launcher.end(&task, EndHow::Now).await;
    }
    // Done, and not said so: the launcher may find out by itself or ask to be asked again.
    for fault in [Fault::BrokenAfter, Fault::LostAfter, Fault::Late] {
        let name = format!("{fault:?}");
        subject.script_launches(&[Some(fault)]);
        let (task, said) = insistently(&*launcher, &name).await;
        assert!(said.is_empty() || said == ["passing"], "{name}: {said:?}");
        alive(&*launcher, &task).await;
        assert_eq!(subject.made(&format!("EG_{name}")), 1, "{name}");
        launcher.end(&task, EndHow::Now).await;
    }
}

async fn two_in_a_row(subject: &dyn Faulty) {
    let launcher = subject.launcher();
    let pairs = [
        [Fault::LostAfter, Fault::Throttled],
        [Fault::BrokenAfter, Fault::LostAfter],
        [Fault::Lost, Fault::LostAfter],
        [Fault::NoCapacity, Fault::BrokenAfter],
        [Fault::Busy, Fault::LostAfter],
        [Fault::Expired, Fault::BrokenAfter],
    ];
    for pair in pairs {
        if pair.iter().any(|fault| fault.before() && subject.called(*fault).is_none()) {
            continue;
        }
        let name = format!("{:?}-{:?}", pair[0], pair[1]);
        subject.script_launches(&pair.map(Some));
        let (task, _) = insistently(&*launcher, &name).await;
        alive(&*launcher, &task).await;
        assert_eq!(subject.made(&format!("EG_{name}")), 1, "{name}");
        launcher.end(&task, EndHow::Now).await;
        // What the script has left over must not strike the next one.
        subject.script_launches(&[]);
    }
}

/// The order is taken, nobody hears it, and the one who asked dies.
async fn an_answer_lost_and_a_dispatcher_too(subject: &dyn Faulty) {
    subject.script_launches(&[Some(Fault::LostAfter)]);
    let name = "both-lost";
    let first = subject.launcher();
    let _ = first.launch(&order(first.platform(), name, 1)).await;
    let second = subject.restarted();
    let (task, _) = insistently(&*second, name).await;
    alive(&*second, &task).await;
    assert_eq!(subject.made("EG_both-lost"), 1);
    second.end(&task, EndHow::Now).await;
    departed(&*second, &task).await;
}

/// The runner's claim decides which of them records; whoever looks for orphans sees both.
async fn what_the_platform_started_twice_is_found(subject: &dyn Faulty) {
    let launcher = subject.launcher();
    subject.script_launches(&[Some(Fault::Doubled)]);
    let (task, _) = insistently(&*launcher, "doubled").await;
    alive(&*launcher, &task).await;
    if subject.made("EG_doubled") == 1 {
        // Names make it impossible there.
        launcher.end(&task, EndHow::Now).await;
        return;
    }
    let listed = launcher.tasks().await.expect("the platform answers");
    let both: Vec<_> = listed.iter().filter(|owned| owned.egress_id.as_str() == "EG_doubled").collect();
    assert_eq!(both.len(), 2, "{listed:?}");
    assert!(both.iter().any(|owned| owned.task == task));
    for owned in both {
        launcher.end(&owned.task, EndHow::Now).await;
        departed(&*launcher, &owned.task).await;
    }
}

async fn a_platform_that_does_not_answer_hides_nothing(subject: &dyn Faulty) {
    let launcher = subject.launcher();
    let (task, _) = insistently(&*launcher, "hidden").await;
    alive(&*launcher, &task).await;
    for fault in [Fault::Throttled, Fault::Broken, Fault::Lost, Fault::Expired, Fault::Busy, Fault::LostAfter] {
        subject.script_looks(&[Some(fault)]);
        let seen = launcher.look(&task).await;
        assert!(matches!(seen, Sighting::Unknown(_) | Sighting::Alive), "{fault:?}: {seen:?}");
    }
    alive(&*launcher, &task).await;
    launcher.end(&task, EndHow::Now).await;
    departed(&*launcher, &task).await;
}

/// Its lists and looks know of a task only a while after the launch was answered, or was not.
pub async fn of_a_platform_that_learns_late(subject: &dyn Faulty) {
    let launcher = subject.launcher();
    for (name, fault) in
        [("young", None), ("young-lost", Some(Fault::LostAfter)), ("young-500", Some(Fault::BrokenAfter))]
    {
        subject.script_launches(&[fault]);
        let (task, _) = insistently(&*launcher, name).await;
        known(&*launcher, &task).await;
        assert_eq!(insistently(&*subject.restarted(), name).await.0, task);
        assert_eq!(subject.made(&format!("EG_{name}")), 1, "{name}");
        launcher.end(&task, EndHow::Now).await;
        departed(&*launcher, &task).await;
    }
    // Somebody changes his mind at once: who is not known yet is not gone.
    let (task, _) = insistently(&*launcher, "too-young").await;
    let ended = launcher.end(&task, EndHow::Now).await;
    assert_ne!(ended, Ended::AlreadyGone);
    if ended == Ended::OutOfReach {
        known(&*launcher, &task).await;
        assert_eq!(launcher.end(&task, EndHow::Now).await, Ended::Told);
    }
    departed(&*launcher, &task).await;
}

/// Seen alive, and never gone before that.
async fn known(launcher: &dyn Launcher, task: &TaskRef) {
    let begun = Instant::now();
    loop {
        match launcher.look(task).await {
            Sighting::Alive => return,
            Sighting::Gone(departed) => panic!("{task} was to run and is gone: {departed}"),
            Sighting::Starting(_) | Sighting::Unknown(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "{task} is never seen");
    }
}

/// So that a test that hangs says where.
pub async fn in_time(work: impl Future<Output = ()>) {
    tokio::time::timeout(Duration::from_secs(180), work).await.expect("the suite ends");
}
