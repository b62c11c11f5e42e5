use std::time::Duration;

use spillway_cost::{Platform, Shape};
use spillway_launchers::cloud_run::{CloudRunLauncher, CloudRunOptions, Job};
use spillway_launchers::conformance::{self, alive, departed, order};
use spillway_launchers::{Departure, EndHow, Ended, Errand, LaunchError, LaunchOrder, Launcher, Sighting};
use spillway_protocol::Secret;
use spillway_tests::clouds::fault::Fault;
use spillway_tests::clouds::policy::Policy;
use spillway_tests::clouds::run::{CloudRun, Location};
use spillway_tests::clouds::{Place, Vendor};

use crate::faults;
use crate::stage::{On, given, place, slow_of_mind};

async fn on_cloud_run(place: Place) -> On<Location, CloudRunLauncher> {
    let mark = place.mark.clone();
    let jobs = [("egress-1".to_owned(), ("1", "512Mi")), ("egress-2".to_owned(), ("2", "4Gi"))];
    let cloud = CloudRun::start(place, jobs.into()).await.unwrap();
    let options = CloudRunOptions {
        stack: "test stack".to_owned(),
        project: "p-1".to_owned(),
        location: "europe-west1".to_owned(),
        jobs: vec![
            Job { name: "egress-2".to_owned(), cpu_milli: 2000, memory_mib: 4096, disk_gib: 0 },
            Job { name: "egress-1".to_owned(), cpu_milli: 1000, memory_mib: 512, disk_gib: 0 },
        ],
        settle: Duration::from_millis(600),
        endpoint: Some(cloud.web.url()),
        token: Some(Secret::new("stage-token".to_owned())),
        ..CloudRunOptions::default()
    };
    let launchers = [options.clone(), options].map(|options| CloudRunLauncher::new(options).unwrap());
    On::new(mark, cloud, launchers)
}

#[tokio::test]
async fn cloud_run_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let subject = on_cloud_run(place(folder.path())).await;
    faults::in_time(conformance::all(&subject)).await;
}

#[tokio::test]
async fn cloud_run_survives_its_faults() {
    let folder = tempfile::tempdir().unwrap();
    let subject = on_cloud_run(place(folder.path())).await;
    faults::in_time(faults::all(&subject)).await;
}

#[tokio::test]
async fn cloud_run_learns_late() {
    let folder = tempfile::tempdir().unwrap();
    let subject = on_cloud_run(slow_of_mind(folder.path())).await;
    faults::in_time(faults::of_a_platform_that_learns_late(&subject)).await;
}

#[tokio::test]
async fn executions_are_listed_by_pages_and_a_pause_is_as_long_as_google_says() {
    let folder = tempfile::tempdir().unwrap();
    let stage = on_cloud_run(Place { provisioning: Duration::from_secs(600), ..place(folder.path()) }).await;
    for n in 0..110 {
        stage.launcher.launch(&order(Platform::CloudRun, &format!("many{n}"), 1)).await.unwrap();
    }
    assert_eq!(stage.launcher.tasks().await.unwrap().len(), 110);
    stage.cloud.script("run", &[Some(Fault::Throttled)]);
    let error = stage.launcher.launch(&order(Platform::CloudRun, "throttled", 1)).await.unwrap_err();
    let LaunchError::Throttled { retry_after, .. } = &error else { panic!("{error:?}") };
    assert_eq!(*retry_after, Some(Duration::from_secs(2)));
}

#[tokio::test]
async fn a_size_has_its_job_and_a_run_its_names_and_its_longest_time() {
    let folder = tempfile::tempdir().unwrap();
    let stage = on_cloud_run(place(folder.path())).await;
    let larger = LaunchOrder {
        shape: Shape { cpu_milli: 1500, memory_mib: 600, disk_gib: 0 },
        longest: Some(Duration::from_secs(3600)),
        errand: Errand::Salvage,
        ..order(Platform::CloudRun, "given", 2)
    };
    let task = stage.launcher.launch(&larger).await.unwrap();
    assert!(task.id.contains("/jobs/egress-2/executions/"), "{task}");
    alive(&*stage.launcher, &task).await;
    let shown = stage.cloud.show(&task.id);
    assert_eq!(shown["template"]["timeout"], "3600s");
    assert!(!shown.to_string().contains("canary"), "the handover is in no call: {shown}");
    let given = given(folder.path(), "EG_given").await;
    for line in [
        "SPILLWAY_ATTEMPT=2",
        "SPILLWAY_SALVAGE=true",
        "SPILLWAY_TICKET_KEY=from-the-secret-store",
        "CLOUD_RUN_TASK_INDEX=0",
    ] {
        assert!(given.lines().any(|given| given == line), "{line} in {given}");
    }

    let huge = LaunchOrder { shape: Shape { cpu_milli: 9000, memory_mib: 600, disk_gib: 0 }, attempt: 3, ..larger };
    assert!(matches!(stage.launcher.launch(&huge).await, Err(LaunchError::Misconfigured { .. })));
}

#[tokio::test]
async fn memory_and_time_have_their_words() {
    let folder = tempfile::tempdir().unwrap();
    let stage = on_cloud_run(place(folder.path())).await;
    let task = stage.launcher.launch(&order(Platform::CloudRun, "memory", 1)).await.unwrap();
    alive(&*stage.launcher, &task).await;
    stage.cloud.out_of_memory(&task.id);
    assert_eq!(departed(&*stage.launcher, &task).await.how, Departure::OutOfMemory { limit_mib: Some(512) });

    let short = LaunchOrder { longest: Some(Duration::from_secs(1)), ..order(Platform::CloudRun, "short", 1) };
    let task = stage.launcher.launch(&short).await.unwrap();
    let how = departed(&*stage.launcher, &task).await.how;
    assert_eq!(how, Departure::Said("the longest time of the task was over".to_owned()));
}

#[tokio::test]
async fn an_execution_that_only_starts_is_cancelled_and_costs_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let stage = on_cloud_run(Place { provisioning: Duration::from_secs(60), ..place(folder.path()) }).await;
    let task = stage.launcher.launch(&order(Platform::CloudRun, "early", 1)).await.unwrap();
    assert!(matches!(stage.launcher.look(&task).await, Sighting::Starting(_)));
    assert_eq!(stage.launcher.end(&task, EndHow::Now).await, Ended::Told);
    let departed = departed(&*stage.launcher, &task).await;
    assert_eq!(departed.how, Departure::EndedByUs("egress is over".to_owned()));
    assert!(departed.billed.is_some_and(|billed| billed.from == billed.to), "{departed:?}");
}

#[tokio::test]
async fn an_image_without_a_program_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let empty = Place { program: folder.path().join("nothing"), ..place(folder.path()) };
    let stage = on_cloud_run(empty).await;
    let task = stage.launcher.launch(&order(Platform::CloudRun, "empty", 1)).await.unwrap();
    let how = departed(&*stage.launcher, &task).await.how;
    assert!(matches!(how, Departure::ImageNotPulled(_)), "{how}");
}

#[tokio::test]
async fn what_the_role_does_not_allow_is_a_mistake_to_be_told() {
    let folder = tempfile::tempdir().unwrap();
    let policy = Policy::actions(["run.jobs.run", "run.executions.list"]);
    let stage = on_cloud_run(Place { policy: Some(policy), ..place(folder.path()) }).await;
    let error = stage.launcher.launch(&order(Platform::CloudRun, "denied", 1)).await.unwrap_err();
    let LaunchError::Misconfigured { words, .. } = &error else { panic!("{error:?}") };
    assert!(words.contains("Permission 'run.jobs.runWithOverrides' denied"), "{words}");
}

/// Terraform's role is given on each job.
#[tokio::test]
async fn a_job_that_is_not_ours_is_not_run() {
    let folder = tempfile::tempdir().unwrap();
    let cloud = CloudRun::start(place(folder.path()), [("egress-1".to_owned(), ("1", "512Mi"))].into()).await.unwrap();
    let options = CloudRunOptions {
        project: "p-1".to_owned(),
        location: "europe-west1".to_owned(),
        jobs: vec![Job { name: "payroll".to_owned(), cpu_milli: 1000, memory_mib: 512, disk_gib: 0 }],
        endpoint: Some(cloud.web.url()),
        token: Some(Secret::new("stage-token".to_owned())),
        ..CloudRunOptions::default()
    };
    let launcher = CloudRunLauncher::new(options).unwrap();
    let error = launcher.launch(&order(Platform::CloudRun, "payroll", 1)).await.unwrap_err().to_string();
    assert!(error.contains("denied on resource") && error.contains("payroll"), "{error}");
}
