use std::path::Path;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use spillway_cost::{Capacity, Platform};
use spillway_launchers::conformance::{self, alive, departed, order};
use spillway_launchers::ecs::{EcsLauncher, EcsOptions, event};
use spillway_launchers::{Departure, EndHow, Ended, Errand, LaunchError, LaunchOrder, Launcher, Sighting};
use spillway_protocol::Secret;
use spillway_tests::clouds::Place;
use spillway_tests::clouds::ecs::{Ecs, REGION, Region};
use spillway_tests::clouds::policy::Policy;
use spillway_tests::process::eventually;

use crate::faults;
use crate::stage::{On, given, place, slow_of_mind};

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

async fn on_ecs(place: Place, change: impl FnOnce(EcsOptions) -> EcsOptions) -> On<Region, EcsLauncher> {
    let mark = place.mark.clone();
    let cloud = Ecs::start(place, "egress").await.unwrap();
    let options = change(options(cloud.web.url()));
    let launchers = [EcsLauncher::new(options.clone()).await, EcsLauncher::new(options).await];
    On::new(mark, cloud, launchers)
}

async fn in_folder(folder: &Path) -> On<Region, EcsLauncher> {
    on_ecs(place(folder), |options| options).await
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
async fn ecs_learns_late() {
    let folder = tempfile::tempdir().unwrap();
    let subject = on_ecs(slow_of_mind(folder.path()), |options| options).await;
    faults::in_time(faults::of_a_platform_that_learns_late(&subject)).await;
}

/// A stopped task is known for an hour; then nobody says any more how it left, and nobody says that it lives.
#[tokio::test]
async fn a_task_of_long_ago_is_not_called_alive() {
    let folder = tempfile::tempdir().unwrap();
    let stage = on_ecs(Place { kept: Duration::from_millis(200), ..place(folder.path()) }, |options| options).await;
    let task = stage.launcher.launch(&order(Platform::Fargate, "past", 1)).await.unwrap();
    alive(&*stage.launcher, &task).await;
    stage.launcher.end(&task, EndHow::Now).await;
    let forgotten = || async {
        let seen = stage.again.look(&task).await;
        Ok(matches!(seen, Sighting::Unknown(_)).then_some(()))
    };
    eventually("ECS forgets the task", Duration::from_secs(20), forgotten).await.unwrap();
    assert!(stage.launcher.tasks().await.unwrap().is_empty());
}

/// As EventBridge delivers them: late, twice, in any order. The number in each tells old news.
#[tokio::test]
async fn events_in_any_order_end_with_the_same_word() {
    let folder = tempfile::tempdir().unwrap();
    let stage = in_folder(folder.path()).await;
    let mut coming = stage.cloud.events();
    let task = stage.launcher.launch(&order(Platform::Fargate, "shuffled", 1)).await.unwrap();
    alive(&*stage.launcher, &task).await;
    stage.cloud.retire(&task.id);
    let mut events = Vec::new();
    let ended = |event: &event::Event| matches!(&event.sighting, Sighting::Gone(gone) if gone.billed.is_some());
    while !events.last().is_some_and(ended) {
        let next = tokio::time::timeout(Duration::from_secs(10), coming.recv()).await;
        events.push(event::read(&next.expect("events come").unwrap()).expect("an event of ours"));
    }
    let last = events.last().unwrap().sighting.clone();
    let (seed, mut rng) = (20_261_122, StdRng::seed_from_u64(20_261_122));
    for round in 0..50 {
        let mut delivered = [events.clone(), events.clone()].concat();
        delivered.shuffle(&mut rng);
        let mut known: Option<event::Event> = None;
        for event in delivered {
            if known.as_ref().is_none_or(|known| event.version > known.version) {
                known = Some(event);
            }
        }
        assert_eq!(known.unwrap().sighting, last, "seed {seed}, round {round}");
    }
}

#[tokio::test]
async fn a_runner_on_ecs_gets_names_from_the_call_and_secrets_from_the_definition() {
    let folder = tempfile::tempdir().unwrap();
    let stage = in_folder(folder.path()).await;
    let salvage = LaunchOrder { errand: Errand::Salvage, ..order(Platform::Fargate, "given", 2) };
    let task = stage.launcher.launch(&salvage).await.unwrap();
    alive(&*stage.launcher, &task).await;
    let shown = stage.cloud.show(&task.id);
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
async fn spot_memory_and_hosts_have_their_words_and_events_say_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let spot = |options| EcsOptions { name: "aws/spot".to_owned(), capacity: Capacity::Spot, ..options };
    let stage = on_ecs(place(folder.path()), spot).await;
    let mut events = stage.cloud.events();
    type Act = fn(&Ecs, &str);
    let table: [(&str, Act, Departure); 3] = [
        ("spot", |cloud, arn| cloud.reclaim(arn), Departure::CapacityReclaimed),
        ("memory", |cloud, arn| cloud.out_of_memory(arn), Departure::OutOfMemory { limit_mib: Some(512) }),
        (
            "host",
            |cloud, arn| cloud.retire(arn),
            Departure::HostRetired(
                "ECS is performing maintenance on the underlying infrastructure hosting the task.".to_owned(),
            ),
        ),
    ];
    for (name, act, expected) in table {
        let task = stage.launcher.launch(&order(Platform::Fargate, name, 1)).await.unwrap();
        assert_eq!(task.launcher, "aws/spot");
        alive(&*stage.launcher, &task).await;
        act(&stage.cloud, &task.id);
        assert_eq!(departed(&*stage.launcher, &task).await.how, expected);

        // Until the one that closes the bill.
        let mut warned = false;
        let last = loop {
            let next = tokio::time::timeout(Duration::from_secs(10), events.recv()).await;
            let event = event::read(&next.expect("events come").unwrap()).expect("an event of ours");
            assert_eq!((event.task.egress_id.as_str(), event.task.attempt), (format!("EG_{name}").as_str(), 1));
            assert_eq!((event.task.task.id.as_str(), event.stack.as_str()), (task.id.as_str(), "test/stack"));
            warned |= event.warned;
            match event.sighting {
                Sighting::Gone(departed) if departed.billed.is_some() => break departed,
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
    let slow = Place { provisioning: Duration::from_secs(600), ..place(folder.path()) };
    let three = |options| EcsOptions { subnets: ["a", "b", "c"].map(str::to_owned).to_vec(), ..options };
    let stage = on_ecs(slow, three).await;
    stage.cloud.fill(&["a", "b"]);
    let mut full = 0;
    for n in 0..30 {
        let mut attempt = 1;
        let task = loop {
            match stage.launcher.launch(&order(Platform::Fargate, &format!("n{n}"), attempt)).await {
                Ok(task) => break task,
                Err(LaunchError::PlaceFull { words }) => {
                    assert!(words.contains("Capacity is unavailable"), "{words}");
                    (full, attempt) = (full + 1, attempt + 1);
                }
                Err(error) => panic!("{error:?}"),
            }
        };
        let shown = stage.cloud.show(&task.id);
        assert_eq!(shown["attachments"][0]["details"][0]["value"], "c");
    }
    // Once for all three, and once for each that is full.
    assert!((1..=3).contains(&full), "{full} launches found nothing");

    stage.cloud.fill(&["a", "b", "c"]);
    let error = stage.launcher.launch(&order(Platform::Fargate, "late", 1)).await.unwrap_err();
    assert!(matches!(error, LaunchError::Capacity { .. }), "nowhere else: {error:?}");
    assert_eq!(stage.cloud.runs(), 30 + full + 1);
}

#[tokio::test]
async fn a_task_that_is_ended_while_it_starts_never_runs() {
    let folder = tempfile::tempdir().unwrap();
    let slow = Place { provisioning: Duration::from_secs(60), ..place(folder.path()) };
    let stage = on_ecs(slow, |options| options).await;
    let task = stage.launcher.launch(&order(Platform::Fargate, "early", 1)).await.unwrap();
    assert!(matches!(stage.launcher.look(&task).await, Sighting::Starting(_)));
    assert_eq!(stage.launcher.end(&task, EndHow::Now).await, Ended::Told);
    let departed = departed(&*stage.launcher, &task).await;
    assert_eq!(departed.how, Departure::EndedByUs("egress is over".to_owned()));
    assert_eq!(stage.cloud.started(), 0);
}

#[tokio::test]
async fn an_image_without_a_program_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let empty = Place { program: folder.path().join("nothing"), ..place(folder.path()) };
    let stage = on_ecs(empty, |options| options).await;
    let task = stage.launcher.launch(&order(Platform::Fargate, "empty", 1)).await.unwrap();
    let how = departed(&*stage.launcher, &task).await.how;
    assert!(how.never_ran() && how.to_string().starts_with("could not be started: CannotStartContainerError"), "{how}");
}

#[tokio::test]
async fn what_the_policy_does_not_allow_is_a_mistake_to_be_told() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place {
        policy: Some(Policy::actions(["ecs:RunTask", "ecs:DescribeTasks", "iam:PassRole"])),
        ..place(folder.path())
    };
    let stage = on_ecs(place, |options| options).await;
    let error = stage.launcher.launch(&order(Platform::Fargate, "denied", 1)).await.unwrap_err();
    let LaunchError::Misconfigured { words, .. } = &error else { panic!("{error:?}") };
    assert!(words.contains("is not authorized to perform: ecs:TagResource"), "{words}");
}

/// Terraform's policy: this definition in this cluster, with these roles.
#[tokio::test]
async fn another_definition_is_not_run_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let other = |options| EcsOptions { task_definition: "payroll:3".to_owned(), ..options };
    let stage = on_ecs(place(folder.path()), other).await;
    let error = stage.launcher.launch(&order(Platform::Fargate, "payroll", 1)).await.unwrap_err();
    let LaunchError::Misconfigured { words, .. } = &error else { panic!("{error:?}") };
    assert!(words.contains("ecs:RunTask") && words.contains("task-definition/payroll:3"), "{words}");
    assert!(stage.cloud.tasks_of("EG_payroll").is_empty());
}

#[tokio::test]
async fn many_tasks_are_seen_at_once_and_listed_by_pages() {
    let folder = tempfile::tempdir().unwrap();
    let slow = Place { provisioning: Duration::from_secs(600), ..place(folder.path()) };
    let stage = on_ecs(slow, |options| options).await;
    let mut tasks = Vec::new();
    for n in 0..130 {
        let order = order(Platform::Fargate, &format!("many{n}"), 1);
        tasks.push(loop {
            match stage.launcher.launch(&order).await {
                Ok(task) => break task,
                Err(LaunchError::Throttled { .. }) => tokio::time::sleep(Duration::from_millis(60)).await,
                Err(error) => panic!("{error:?}"),
            }
        });
    }
    let seen = stage.launcher.look_at(&tasks).await;
    assert_eq!(seen.len(), 130);
    assert!(seen.iter().all(|seen| matches!(seen, Sighting::Starting(_))));
    assert_eq!(stage.launcher.tasks().await.unwrap().len(), 130);
    let other = EcsOptions { stack: "another".to_owned(), ..options(stage.cloud.web.url()) };
    let other = EcsLauncher::new(other).await;
    assert_eq!(other.tasks().await.unwrap().len(), 0, "tasks of another stack are not ours");
}
