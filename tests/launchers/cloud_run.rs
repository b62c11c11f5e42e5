use std::time::Duration;

use spillway_cost::{Platform, Shape};
use spillway_launchers::cloud_run::{CloudRunLauncher, CloudRunOptions, SizedJob};
use spillway_launchers::conformance::{self, alive, exit_report, order};
use spillway_launchers::{LaunchError, LaunchOrder, Launcher, RunMode, StopMode, StopOutcome, TaskExit, TaskStatus};
use spillway_protocol::Secret;
use spillway_tests::clouds::CloudSetup;
use spillway_tests::clouds::cloud_run::{CloudRun, Location};
use spillway_tests::clouds::fault::CloudFault;
use spillway_tests::clouds::policy::Policy;

use crate::faults;
use crate::harness::{LauncherUnderTest, eventually_consistent, given, setup};

async fn on_cloud_run(setup: CloudSetup) -> LauncherUnderTest<Location, CloudRunLauncher> {
    let mark = setup.mark.clone();
    let jobs = [("egress-1".to_owned(), ("1", "512Mi")), ("egress-2".to_owned(), ("2", "4Gi"))];
    let cloud = CloudRun::start(setup, jobs.into()).await.unwrap();
    let options = CloudRunOptions {
        stack: "test stack".to_owned(),
        project: "p-1".to_owned(),
        location: "europe-west1".to_owned(),
        jobs: vec![
            SizedJob { name: "egress-2".to_owned(), cpu_milli: 2000, memory_mib: 4096, disk_gib: 0, page: false },
            SizedJob { name: "egress-1".to_owned(), cpu_milli: 1000, memory_mib: 512, disk_gib: 0, page: false },
        ],
        list_delay: Duration::from_millis(600),
        endpoint: Some(cloud.web.url()),
        token: Some(Secret::new("stage-token".to_owned())),
        ..CloudRunOptions::default()
    };
    let launchers = [options.clone(), options].map(|options| CloudRunLauncher::new(options).unwrap());
    LauncherUnderTest::new(mark, cloud, launchers)
}

#[tokio::test]
async fn cloud_run_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let subject = on_cloud_run(setup(folder.path())).await;
    faults::in_time(conformance::all(&subject)).await;
}

#[tokio::test]
async fn cloud_run_survives_its_faults() {
    let folder = tempfile::tempdir().unwrap();
    let subject = on_cloud_run(setup(folder.path())).await;
    faults::in_time(faults::all(&subject)).await;
}

#[tokio::test]
async fn cloud_run_is_eventually_consistent() {
    let folder = tempfile::tempdir().unwrap();
    let subject = on_cloud_run(eventually_consistent(folder.path())).await;
    faults::in_time(faults::of_an_eventually_consistent_platform(&subject)).await;
}

#[tokio::test]
async fn executions_are_listed_by_pages_and_a_pause_is_as_long_as_google_says() {
    let folder = tempfile::tempdir().unwrap();
    let harness = on_cloud_run(CloudSetup { provisioning: Duration::from_secs(600), ..setup(folder.path()) }).await;
    for n in 0..110 {
        harness.launcher.launch(&order(Platform::CloudRun, &format!("many{n}"), 1)).await.unwrap();
    }
    assert_eq!(harness.launcher.tasks().await.unwrap().len(), 110);
    harness.cloud.faults().script("run", [Some(CloudFault::Throttled)]);
    let error = harness.launcher.launch(&order(Platform::CloudRun, "throttled", 1)).await.unwrap_err();
    let LaunchError::Throttled { retry_after, .. } = &error else { panic!("{error:?}") };
    assert_eq!(*retry_after, Some(Duration::from_secs(2)));
}

#[tokio::test]
async fn a_size_has_its_job_and_a_run_its_names_and_its_longest_time() {
    let folder = tempfile::tempdir().unwrap();
    let harness = on_cloud_run(setup(folder.path())).await;
    let larger = LaunchOrder {
        shape: Shape { cpu_milli: 1500, memory_mib: 600, disk_gib: 0 },
        max_duration: Some(Duration::from_secs(3600)),
        run_mode: RunMode::Salvage,
        ..order(Platform::CloudRun, "given", 2)
    };
    let task = harness.launcher.launch(&larger).await.unwrap();
    assert!(task.id.contains("/jobs/egress-2/executions/"), "{task}");
    alive(&*harness.launcher, &task).await;
    let shown = harness.cloud.show(&task.id);
    assert_eq!(shown["template"]["timeout"], "3600s");
    assert!(!shown.to_string().contains("canary"), "the handover is in no call: {shown}");
    let execution = task.id.rsplit('/').next().unwrap();
    assert_eq!(
        harness.launcher.links(&task).log_url.unwrap(),
        format!(
            "https://console.cloud.google.com/run/jobs/executions/details/europe-west1/{execution}/logs?project=p-1"
        )
    );
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
    assert!(matches!(harness.launcher.launch(&huge).await, Err(LaunchError::Misconfigured { .. })));
}

#[tokio::test]
async fn memory_and_time_limits_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let harness = on_cloud_run(setup(folder.path())).await;
    let task = harness.launcher.launch(&order(Platform::CloudRun, "memory", 1)).await.unwrap();
    alive(&*harness.launcher, &task).await;
    harness.cloud.out_of_memory(&task.id);
    assert_eq!(exit_report(&*harness.launcher, &task).await.how, TaskExit::OutOfMemory { limit_mib: Some(512) });

    let short = LaunchOrder { max_duration: Some(Duration::from_secs(1)), ..order(Platform::CloudRun, "short", 1) };
    let task = harness.launcher.launch(&short).await.unwrap();
    let how = exit_report(&*harness.launcher, &task).await.how;
    assert_eq!(how, TaskExit::Other("the longest time of the task was over".to_owned()));
}

#[tokio::test]
async fn an_execution_that_only_starts_is_cancelled_and_costs_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let harness = on_cloud_run(CloudSetup { provisioning: Duration::from_secs(60), ..setup(folder.path()) }).await;
    let task = harness.launcher.launch(&order(Platform::CloudRun, "early", 1)).await.unwrap();
    assert!(matches!(harness.launcher.status(&task).await, TaskStatus::Starting(_)));
    assert_eq!(harness.launcher.end(&task, StopMode::Immediate).await, StopOutcome::Requested);
    let exit_report = exit_report(&*harness.launcher, &task).await;
    assert_eq!(exit_report.how, TaskExit::EndedByUs("egress is over".to_owned()));
    assert!(exit_report.billed.is_some_and(|billed| billed.from == billed.to), "{exit_report:?}");
}

#[tokio::test]
async fn an_image_without_a_program_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let empty = CloudSetup { program: folder.path().join("nothing"), ..setup(folder.path()) };
    let harness = on_cloud_run(empty).await;
    let task = harness.launcher.launch(&order(Platform::CloudRun, "empty", 1)).await.unwrap();
    let how = exit_report(&*harness.launcher, &task).await.how;
    assert!(matches!(how, TaskExit::ImageNotPulled(_)), "{how}");
}

#[tokio::test]
async fn what_the_role_does_not_allow_is_a_mistake_to_be_told() {
    let folder = tempfile::tempdir().unwrap();
    let policy = Policy::actions(["run.jobs.run", "run.executions.list"]);
    let harness = on_cloud_run(CloudSetup { policy: Some(policy), ..setup(folder.path()) }).await;
    let error = harness.launcher.launch(&order(Platform::CloudRun, "denied", 1)).await.unwrap_err();
    let LaunchError::Misconfigured { message, .. } = &error else { panic!("{error:?}") };
    assert!(message.contains("Permission 'run.jobs.runWithOverrides' denied"), "{message}");
}

/// Terraform's role is given on each job.
#[tokio::test]
async fn a_job_that_is_not_ours_is_not_run() {
    let folder = tempfile::tempdir().unwrap();
    let cloud = CloudRun::start(setup(folder.path()), [("egress-1".to_owned(), ("1", "512Mi"))].into()).await.unwrap();
    let options = CloudRunOptions {
        project: "p-1".to_owned(),
        location: "europe-west1".to_owned(),
        jobs: vec![SizedJob { name: "payroll".to_owned(), cpu_milli: 1000, memory_mib: 512, disk_gib: 0, page: false }],
        endpoint: Some(cloud.web.url()),
        token: Some(Secret::new("stage-token".to_owned())),
        ..CloudRunOptions::default()
    };
    let launcher = CloudRunLauncher::new(options).unwrap();
    let error = launcher.launch(&order(Platform::CloudRun, "payroll", 1)).await.unwrap_err().to_string();
    assert!(error.contains("denied on resource") && error.contains("payroll"), "{error}");
}
