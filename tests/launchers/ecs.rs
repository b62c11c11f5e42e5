use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use spillway_cost::{Capacity, Platform};
use spillway_launchers::conformance::{self, Subject, alive, departed, order};
use spillway_launchers::ecs::{EcsLauncher, EcsOptions, event};
use spillway_launchers::{Departure, EndHow, Ended, Errand, LaunchError, LaunchOrder, Launcher, Sighting, TaskRef};
use spillway_protocol::Secret;
use spillway_tests::clouds::Place;
use spillway_tests::clouds::ecs::{Ecs, REGION};
use spillway_tests::clouds::fault::Fault;
use spillway_tests::clouds::policy::Policy;

use crate::faults::{self, Faulty};
use crate::stage::{Swept, given, place};

struct OnEcs {
    cloud: Ecs,
    options: EcsOptions,
    launcher: Arc<EcsLauncher>,
    again: Arc<EcsLauncher>,
    _swept: Swept,
}

async fn options(cloud: &Ecs) -> EcsOptions {
    EcsOptions {
        stack: "test/stack".to_owned(),
        region: REGION.to_owned(),
        cluster: "egress".to_owned(),
        subnets: vec!["subnet-1".to_owned(), "subnet-2".to_owned()],
        security_groups: vec!["sg-1".to_owned()],
        endpoint: Some(cloud.web.url()),
        keys: Some(("AKIDSTAGE".to_owned(), Secret::new("stage-secret".to_owned()))),
        ..EcsOptions::default()
    }
}

impl OnEcs {
    async fn start(place: Place, change: impl FnOnce(EcsOptions) -> EcsOptions) -> Self {
        let swept = Swept(place.mark.clone());
        let cloud = Ecs::start(place, "egress").await.unwrap();
        let options = change(options(&cloud).await);
        let launcher = Arc::new(EcsLauncher::new(options.clone()).await);
        let again = Arc::new(EcsLauncher::new(options.clone()).await);
        Self { cloud, options, launcher, again, _swept: swept }
    }

    async fn in_folder(folder: &Path) -> Self {
        Self::start(place(folder), |options| options).await
    }
}

#[async_trait]
impl Subject for OnEcs {
    fn launcher(&self) -> Arc<dyn Launcher> {
        self.launcher.clone()
    }

    fn restarted(&self) -> Arc<dyn Launcher> {
        self.again.clone()
    }

    async fn strike(&self, task: &TaskRef) {
        self.cloud.strike(&task.id);
    }
}

#[async_trait]
impl Faulty for OnEcs {
    fn script_launches(&self, faults: &[Option<Fault>]) {
        self.cloud.faults().script("RunTask", faults.iter().copied());
    }

    fn script_looks(&self, faults: &[Option<Fault>]) {
        self.cloud.faults().script("DescribeTasks", faults.iter().copied());
    }

    fn made(&self, egress_id: &str) -> usize {
        self.cloud.tasks_of(egress_id).len()
    }
}

#[tokio::test]
async fn ecs_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let subject = OnEcs::in_folder(folder.path()).await;
    faults::in_time(conformance::all(&subject)).await;
}

#[tokio::test]
async fn ecs_survives_its_faults() {
    let folder = tempfile::tempdir().unwrap();
    let subject = OnEcs::in_folder(folder.path()).await;
    faults::in_time(faults::all(&subject)).await;
}

#[tokio::test]
async fn a_runner_on_ecs_gets_names_from_the_call_and_secrets_from_the_definition() {
    let folder = tempfile::tempdir().unwrap();
    let stage = OnEcs::in_folder(folder.path()).await;
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
    let stage = OnEcs::start(place(folder.path()), spot).await;
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

#[tokio::test]
async fn a_task_that_is_ended_while_it_starts_never_runs() {
    let folder = tempfile::tempdir().unwrap();
    let slow = Place { provisioning: Duration::from_secs(60), ..place(folder.path()) };
    let stage = OnEcs::start(slow, |options| options).await;
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
    let stage = OnEcs::start(empty, |options| options).await;
    let task = stage.launcher.launch(&order(Platform::Fargate, "empty", 1)).await.unwrap();
    let how = departed(&*stage.launcher, &task).await.how;
    assert!(how.never_ran() && how.to_string().starts_with("could not be started: CannotStartContainerError"), "{how}");
}

#[tokio::test]
async fn what_the_policy_does_not_allow_is_a_mistake_to_be_told() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place { policy: Policy::actions(["ecs:RunTask", "ecs:DescribeTasks"]), ..place(folder.path()) };
    let stage = OnEcs::start(place, |options| options).await;
    let error = stage.launcher.launch(&order(Platform::Fargate, "denied", 1)).await.unwrap_err();
    let LaunchError::Misconfigured { words, .. } = &error else { panic!("{error:?}") };
    assert!(words.contains("is not authorized to perform: ecs:TagResource"), "{words}");
}

#[tokio::test]
async fn many_tasks_are_seen_at_once_and_listed_by_pages() {
    let folder = tempfile::tempdir().unwrap();
    let slow = Place { provisioning: Duration::from_secs(600), ..place(folder.path()) };
    let stage = OnEcs::start(slow, |options| options).await;
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
    let other = EcsLauncher::new(EcsOptions { stack: "another".to_owned(), ..stage.options.clone() }).await;
    assert_eq!(other.tasks().await.unwrap().len(), 0, "tasks of another stack are not ours");
}
