use std::path::Path;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use spillway_cost::{Capacity, Platform};
use spillway_launchers::conformance::{self, alive, exit_report, order};
use spillway_launchers::ecs::{EcsLauncher, EcsOptions, event};
use spillway_launchers::{LaunchError, LaunchOrder, Launcher, RunMode, StopMode, StopOutcome, TaskExit, TaskStatus};
use spillway_protocol::Secret;
use spillway_tests::clouds::CloudSetup;
use spillway_tests::clouds::ecs::{Ecs, REGION, Region};
use spillway_tests::clouds::policy::Policy;
use spillway_tests::process::eventually;

use crate::faults;
use crate::harness::{LauncherUnderTest, eventually_consistent, given, setup};

fn options(endpoint: String) -> EcsOptions {
    EcsOptions {
        stack: "test/stack".to_owned(),
        region: REGION.to_owned(),
        cluster: "egress".to_owned(),
        subnets: vec!["subnet-1".to_owned(), "subnet-2".to_owned()],
        security_groups: vec!["sg-1".to_owned()],
        endpoint: Some(endpoint),
        keys: Some(("AKIDSTAGE".to_owned(), Secret::new("stage-secret".to_owned()))),
        ..EcsOptions::default()
    }
}

async fn on_ecs(
    setup: CloudSetup,
    change: impl FnOnce(EcsOptions) -> EcsOptions,
) -> LauncherUnderTest<Region, EcsLauncher> {
    let mark = setup.mark.clone();
    let cloud = Ecs::start(setup, "egress").await.unwrap();
    let options = change(options(cloud.web.url()));
    let launchers = [EcsLauncher::new(options.clone()).await, EcsLauncher::new(options).await];
    LauncherUnderTest::new(mark, cloud, launchers)
}

async fn in_folder(folder: &Path) -> LauncherUnderTest<Region, EcsLauncher> {
    on_ecs(setup(folder), |options| options).await
}

#[tokio::test]
async fn ecs_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let subject = in_folder(folder.path()).await;
    faults::in_time(conformance::all(&subject)).await;
}

#[tokio::test]
async fn ecs_survives_its_faults() {
    let folder = tempfile::tempdir().unwrap();
    let subject = in_folder(folder.path()).await;
    faults::in_time(faults::all(&subject)).await;
}

#[tokio::test]
async fn ecs_is_eventually_consistent() {
    let folder = tempfile::tempdir().unwrap();
    let subject = on_ecs(eventually_consistent(folder.path()), |options| options).await;
    faults::in_time(faults::of_an_eventually_consistent_platform(&subject)).await;
}

/// A stopped task is known for an hour; then ECS says neither how it left nor that it lives.
#[tokio::test]
async fn a_task_of_long_ago_is_not_called_alive() {
    let folder = tempfile::tempdir().unwrap();
    let harness =
        on_ecs(CloudSetup { kept: Duration::from_millis(200), ..setup(folder.path()) }, |options| options).await;
    let task = harness.launcher.launch(&order(Platform::Fargate, "past", 1)).await.unwrap();
    let id = task.id.rsplit('/').next().unwrap();
    let page = harness.launcher.links(&task).task_url.unwrap();
    assert!(page.contains(&format!("/ecs/v2/clusters/egress/tasks/{id}/")), "{page}");
    alive(&*harness.launcher, &task).await;
    harness.launcher.end(&task, StopMode::Immediate).await;
    let forgotten = || async {
        let seen = harness.again.status(&task).await;
        Ok(matches!(seen, TaskStatus::Unknown(_)).then_some(()))
    };
    eventually("ECS forgets the task", Duration::from_secs(20), forgotten).await.unwrap();
    assert!(harness.launcher.tasks().await.unwrap().is_empty());
}

/// As EventBridge delivers them: late, twice, in any order. The number in each tells old news.
#[tokio::test]
async fn events_in_any_order_end_with_the_same_exit() {
    let folder = tempfile::tempdir().unwrap();
    let harness = in_folder(folder.path()).await;
    let mut coming = harness.cloud.events();
    let task = harness.launcher.launch(&order(Platform::Fargate, "shuffled", 1)).await.unwrap();
    alive(&*harness.launcher, &task).await;
    harness.cloud.retire(&task.id);
    let mut events = Vec::new();
    let ended =
        |event: &event::TaskStateEvent| matches!(&event.task_status, TaskStatus::Gone(gone) if gone.billed.is_some());
    while !events.last().is_some_and(ended) {
        let next = tokio::time::timeout(Duration::from_secs(10), coming.recv()).await;
        events.push(event::read(&next.expect("events come").unwrap()).expect("an event of ours"));
    }
    let last = events.last().unwrap().task_status.clone();
    let (seed, mut rng) = (20_261_122, StdRng::seed_from_u64(20_261_122));
    for round in 0..50 {
        let mut delivered = [events.clone(), events.clone()].concat();
        delivered.shuffle(&mut rng);
        let mut known: Option<event::TaskStateEvent> = None;
        for event in delivered {
            if known.as_ref().is_none_or(|known| event.version > known.version) {
                known = Some(event);
            }
        }
        assert_eq!(known.unwrap().task_status, last, "seed {seed}, round {round}");
    }
}

#[tokio::test]
async fn a_runner_on_ecs_gets_names_from_the_call_and_secrets_from_the_definition() {
    let folder = tempfile::tempdir().unwrap();
    let harness = in_folder(folder.path()).await;
    let salvage = LaunchOrder { run_mode: RunMode::Salvage, ..order(Platform::Fargate, "given", 2) };
    let task = harness.launcher.launch(&salvage).await.unwrap();
    alive(&*harness.launcher, &task).await;
    let shown = harness.cloud.show(&task.id);
    assert!(!shown.to_string().contains("canary"), "the handover is in no call: {shown}");
    assert_eq!(shown["group"], "egress");
    assert_eq!((&shown["cpu"], &shown["memory"]), (&"256".into(), &"512".into()));

    let given = given(folder.path(), "EG_given").await;
    for line in [
        "SPILLWAY_EGRESS_ID=EG_given",
        "SPILLWAY_ATTEMPT=2",
        "SPILLWAY_CLAIM=claim",
        "SPILLWAY_STACK=test/stack",
        "SPILLWAY_SALVAGE=true",
        "SPILLWAY_TICKET_KEY=from-the-secret-store",
    ] {
        assert!(given.lines().any(|given| given == line), "{line} in {given}");
    }
}

#[tokio::test]
async fn spot_memory_and_hosts_are_named_and_events_say_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let spot = |options| EcsOptions { name: "aws/spot".to_owned(), capacity: Capacity::Spot, ..options };
    let harness = on_ecs(setup(folder.path()), spot).await;
    let mut events = harness.cloud.events();
    type Act = fn(&Ecs, &str);
    let table: [(&str, Act, TaskExit); 3] = [
        ("spot", |cloud, arn| cloud.reclaim(arn), TaskExit::CapacityReclaimed),
        ("memory", |cloud, arn| cloud.out_of_memory(arn), TaskExit::OutOfMemory { limit_mib: Some(512) }),
        (
            "host",
            |cloud, arn| cloud.retire(arn),
            TaskExit::HostRetired(
                "ECS is performing maintenance on the underlying infrastructure hosting the task.".to_owned(),
            ),
        ),
    ];
    for (name, act, expected) in table {
        let task = harness.launcher.launch(&order(Platform::Fargate, name, 1)).await.unwrap();
        assert_eq!(task.launcher, "aws/spot");
        alive(&*harness.launcher, &task).await;
        act(&harness.cloud, &task.id);
        assert_eq!(exit_report(&*harness.launcher, &task).await.how, expected);

        // Until the one that closes the bill.
        let mut warned = false;
        let last = loop {
            let next = tokio::time::timeout(Duration::from_secs(10), events.recv()).await;
            let event = event::read(&next.expect("events come").unwrap()).expect("an event of ours");
            assert_eq!((event.task.egress_id.as_str(), event.task.attempt), (format!("EG_{name}").as_str(), 1));
            assert_eq!((event.task.task.id.as_str(), event.stack.as_str()), (task.id.as_str(), "test/stack"));
            warned |= event.warned;
            match event.task_status {
                TaskStatus::Gone(exit_report) if exit_report.billed.is_some() => break exit_report,
                _ => {}
            }
        };
        assert_eq!(last.how, expected);
        assert_eq!(last.machine.unwrap().capacity, Capacity::Spot);
        assert_eq!(warned, name != "memory", "{name}");
    }
}

/// Two of three zones have nothing free: hardly anybody is sent there, and who is goes on to the next with a new attempt.
#[tokio::test]
async fn tasks_go_where_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let slow = CloudSetup { provisioning: Duration::from_secs(600), ..setup(folder.path()) };
    let three = |options| EcsOptions { subnets: ["a", "b", "c"].map(str::to_owned).to_vec(), ..options };
    let harness = on_ecs(slow, three).await;
    harness.cloud.fill(&["a", "b"]);
    let mut full = 0;
    for n in 0..30 {
        let mut attempt = 1;
        let task = loop {
            match harness.launcher.launch(&order(Platform::Fargate, &format!("n{n}"), attempt)).await {
                Ok(task) => break task,
                Err(LaunchError::ZoneCapacity { message }) => {
                    assert!(message.contains("Capacity is unavailable"), "{message}");
                    (full, attempt) = (full + 1, attempt + 1);
                }
                Err(error) => panic!("{error:?}"),
            }
        };
        let shown = harness.cloud.show(&task.id);
        assert_eq!(shown["attachments"][0]["details"][0]["value"], "c");
    }
    // Once for all three, and once for each that is full.
    assert!((1..=3).contains(&full), "{full} launches found nothing");

    harness.cloud.fill(&["a", "b", "c"]);
    let error = harness.launcher.launch(&order(Platform::Fargate, "late", 1)).await.unwrap_err();
    assert!(matches!(error, LaunchError::Capacity { .. }), "nowhere else: {error:?}");
    assert_eq!(harness.cloud.runs(), 30 + full + 1);
}

#[tokio::test]
async fn a_task_that_is_ended_while_it_starts_never_runs() {
    let folder = tempfile::tempdir().unwrap();
    let slow = CloudSetup { provisioning: Duration::from_secs(60), ..setup(folder.path()) };
    let harness = on_ecs(slow, |options| options).await;
    let task = harness.launcher.launch(&order(Platform::Fargate, "early", 1)).await.unwrap();
    assert!(matches!(harness.launcher.status(&task).await, TaskStatus::Starting(_)));
    assert_eq!(harness.launcher.end(&task, StopMode::Immediate).await, StopOutcome::Requested);
    let exit_report = exit_report(&*harness.launcher, &task).await;
    assert_eq!(exit_report.how, TaskExit::EndedByUs("egress is over".to_owned()));
    assert_eq!(harness.cloud.started(), 0);
}

#[tokio::test]
async fn an_image_without_a_program_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let empty = CloudSetup { program: folder.path().join("nothing"), ..setup(folder.path()) };
    let harness = on_ecs(empty, |options| options).await;
    let task = harness.launcher.launch(&order(Platform::Fargate, "empty", 1)).await.unwrap();
    let how = exit_report(&*harness.launcher, &task).await.how;
    assert!(how.never_ran() && how.to_string().starts_with("could not be started: CannotStartContainerError"), "{how}");
}

#[tokio::test]
async fn what_the_policy_does_not_allow_is_a_mistake_to_be_told() {
    let folder = tempfile::tempdir().unwrap();
    let setup = CloudSetup {
        policy: Some(Policy::actions(["ecs:RunTask", "ecs:DescribeTasks", "iam:PassRole"])),
        ..setup(folder.path())
    };
    let harness = on_ecs(setup, |options| options).await;
    let error = harness.launcher.launch(&order(Platform::Fargate, "denied", 1)).await.unwrap_err();
    let LaunchError::Misconfigured { message, .. } = &error else { panic!("{error:?}") };
    assert!(message.contains("is not authorized to perform: ecs:TagResource"), "{message}");
}

/// Terraform's policy: this definition in this cluster, with these roles.
#[tokio::test]
async fn another_definition_is_not_run_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let other = |options| EcsOptions { task_definition: "payroll:3".to_owned(), ..options };
    let harness = on_ecs(setup(folder.path()), other).await;
    let error = harness.launcher.launch(&order(Platform::Fargate, "payroll", 1)).await.unwrap_err();
    let LaunchError::Misconfigured { message, .. } = &error else { panic!("{error:?}") };
    assert!(message.contains("ecs:RunTask") && message.contains("task-definition/payroll:3"), "{message}");
    assert!(harness.cloud.tasks_of("EG_payroll").is_empty());
}

#[tokio::test]
async fn many_tasks_are_seen_at_once_and_listed_by_pages() {
    let folder = tempfile::tempdir().unwrap();
    let slow = CloudSetup { provisioning: Duration::from_secs(600), ..setup(folder.path()) };
    let harness = on_ecs(slow, |options| options).await;
    let mut tasks = Vec::new();
    for n in 0..130 {
        let order = order(Platform::Fargate, &format!("many{n}"), 1);
        tasks.push(loop {
            match harness.launcher.launch(&order).await {
                Ok(task) => break task,
                Err(LaunchError::Throttled { .. }) => tokio::time::sleep(Duration::from_millis(60)).await,
                Err(error) => panic!("{error:?}"),
            }
        });
    }
    let seen = harness.launcher.statuses(&tasks).await;
    assert_eq!(seen.len(), 130);
    assert!(seen.iter().all(|seen| matches!(seen, TaskStatus::Starting(_))));
    assert_eq!(harness.launcher.tasks().await.unwrap().len(), 130);
    let other = EcsOptions { stack: "another".to_owned(), ..options(harness.cloud.web.url()) };
    let other = EcsLauncher::new(other).await;
    assert_eq!(other.tasks().await.unwrap().len(), 0, "tasks of another stack are not ours");
}
