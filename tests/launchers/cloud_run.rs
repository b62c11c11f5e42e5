use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use spillway_cost::{Platform, Shape};
use spillway_launchers::cloud_run::{CloudRunLauncher, CloudRunOptions, Job};
use spillway_launchers::conformance::{self, Subject, alive, departed, order};
use spillway_launchers::{Departure, Errand, LaunchError, LaunchOrder, Launcher, TaskRef};
use spillway_protocol::Secret;
use spillway_tests::clouds::Place;
use spillway_tests::clouds::fault::Fault;
use spillway_tests::clouds::policy::Policy;
use spillway_tests::clouds::run::CloudRun;

use crate::faults::{self, Faulty};
use crate::stage::{Swept, given, place};

struct OnCloudRun {
    cloud: CloudRun,
    launcher: Arc<CloudRunLauncher>,
    again: Arc<CloudRunLauncher>,
    _swept: Swept,
}

impl OnCloudRun {
    async fn start(place: Place) -> Self {
        let swept = Swept(place.mark.clone());
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
            settle: Duration::from_millis(300),
            endpoint: Some(cloud.web.url()),
            token: Some(Secret::new("stage-token".to_owned())),
            ..CloudRunOptions::default()
        };
        let launcher = Arc::new(CloudRunLauncher::new(options.clone()).unwrap());
        let again = Arc::new(CloudRunLauncher::new(options).unwrap());
        Self { cloud, launcher, again, _swept: swept }
    }

    async fn in_folder(folder: &Path) -> Self {
        Self::start(place(folder)).await
    }
}

#[async_trait]
impl Subject for OnCloudRun {
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
impl Faulty for OnCloudRun {
    fn script_launches(&self, faults: &[Option<Fault>]) {
        self.cloud.faults().script("run", faults.iter().copied());
    }

    fn script_looks(&self, faults: &[Option<Fault>]) {
        self.cloud.faults().script("get", faults.iter().copied());
    }

    fn made(&self, egress_id: &str) -> usize {
        self.cloud.executions_of(egress_id).len()
    }
}

#[tokio::test]
async fn cloud_run_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let subject = OnCloudRun::in_folder(folder.path()).await;
    faults::in_time(conformance::all(&subject)).await;
}

#[tokio::test]
async fn cloud_run_survives_its_faults() {
    let folder = tempfile::tempdir().unwrap();
    let subject = OnCloudRun::in_folder(folder.path()).await;
    faults::in_time(faults::all(&subject)).await;
}

#[tokio::test]
async fn a_size_has_its_job_and_a_run_its_names_and_its_longest_time() {
    let folder = tempfile::tempdir().unwrap();
    let stage = OnCloudRun::in_folder(folder.path()).await;
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
    let stage = OnCloudRun::in_folder(folder.path()).await;
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
async fn an_image_without_a_program_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let empty = Place { program: folder.path().join("nothing"), ..place(folder.path()) };
    let stage = OnCloudRun::start(empty).await;
    let task = stage.launcher.launch(&order(Platform::CloudRun, "empty", 1)).await.unwrap();
    let how = departed(&*stage.launcher, &task).await.how;
    assert!(matches!(how, Departure::ImageNotPulled(_)), "{how}");
}

#[tokio::test]
async fn what_the_role_does_not_allow_is_a_mistake_to_be_told() {
    let folder = tempfile::tempdir().unwrap();
    let policy = Policy::actions(["run.jobs.run", "run.executions.list"]);
    let stage = OnCloudRun::start(Place { policy, ..place(folder.path()) }).await;
    let error = stage.launcher.launch(&order(Platform::CloudRun, "denied", 1)).await.unwrap_err();
    let LaunchError::Misconfigured { words, .. } = &error else { panic!("{error:?}") };
    assert!(words.contains("Permission 'run.jobs.runWithOverrides' denied"), "{words}");
}
