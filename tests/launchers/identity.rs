//! No key in the configuration: a launcher asks who it is where the cloud says, and asks again before the answer is old.
//! The environment is a process' own, so the launcher works in a child of this test.

use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use spillway_cost::Capacity;
use spillway_launchers::{LauncherSpec, open};
use spillway_process::Clock;
use spillway_tests::clouds::CloudSetup;
use spillway_tests::clouds::arm::{self, Arm};
use spillway_tests::clouds::cloud_run::CloudRun;
use spillway_tests::clouds::ecs::{Ecs, REGION};
use spillway_tests::clouds::metadata::{APP_HEADER, ECS_TOKEN, MetadataServer};

use crate::harness::setup;

const OPENING: &str = "SPILLWAY_TEST_OPENING";
/// Of what is given out: the libraries ask anew when it is nearly over, and the clouds refuse what is over.
const LASTS: Duration = Duration::from_secs(12);
const EVERY: Duration = Duration::from_secs(1);
const CALLS: u32 = 16;

/// The child.
#[tokio::test]
#[ignore = "started by the others, with an environment"]
async fn a_launcher_lists_its_tasks_for_a_while() {
    let said: Value = serde_json::from_str(&std::env::var(OPENING).unwrap()).unwrap();
    let spec = LauncherSpec {
        launcher: said["launcher"].as_str().unwrap().to_owned(),
        name: "there".to_owned(),
        stack: "stage".to_owned(),
        capacity: Capacity::OnDemand,
        options: said["options"].clone(),
    };
    let launcher = open(&spec, &Clock::host()).await.unwrap();
    let mut pace = tokio::time::interval(EVERY);
    for _ in 0..CALLS {
        pace.tick().await;
        assert_eq!(launcher.tasks().await.unwrap(), []);
    }
}

async fn lists(launcher: &str, options: Value, environment: &[(&str, String)]) {
    let child = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "identity::a_launcher_lists_its_tasks_for_a_while", "--ignored"])
        .env_clear()
        .env(OPENING, json!({ "launcher": launcher, "options": options }).to_string())
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(Duration::from_secs(60), child).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A cloud that knows whom it let in, and the identities it gave out.
async fn knowing(folder: &tempfile::TempDir) -> (MetadataServer, CloudSetup) {
    let metadata = MetadataServer::start(LASTS).await.unwrap();
    let setup = CloudSetup { issued: Some(metadata.issued.clone()), ..setup(folder.path()) };
    (metadata, setup)
}

#[tokio::test]
async fn on_ecs_the_task_role_is_asked_for_keys_and_again_before_they_expire() {
    let folder = tempfile::tempdir().unwrap();
    let (metadata, setup) = knowing(&folder).await;
    let cloud = Ecs::start(setup, "egress").await.unwrap();
    let options = json!({ "region": REGION, "cluster": "egress", "task_definition": "egress", "subnets": ["s"],
        "endpoint": cloud.web.url() });
    let role = format!("{}/role", metadata.web.url());
    lists(
        "ecs",
        options,
        &[("AWS_CONTAINER_CREDENTIALS_FULL_URI", role), ("AWS_CONTAINER_AUTHORIZATION_TOKEN", ECS_TOKEN.to_owned())],
    )
    .await;
    assert!(metadata.issued.count() >= 2, "{}", metadata.issued.count());
}

#[tokio::test]
async fn on_google_the_metadata_server_is_asked_for_a_token_and_again_before_it_expires() {
    let folder = tempfile::tempdir().unwrap();
    let (metadata, setup) = knowing(&folder).await;
    let cloud = CloudRun::start(setup, [("egress-1".to_owned(), ("1", "512Mi"))].into()).await.unwrap();
    let options = json!({ "project": "p-1", "location": "europe-west1", "endpoint": cloud.web.url(),
        "jobs": [{ "name": "egress-1", "cpu_milli": 1000, "memory_mib": 512 }] });
    lists("cloud-run", options, &[("GCE_METADATA_HOST", metadata.web.address.to_string())]).await;
    assert!(metadata.issued.count() >= 2, "{}", metadata.issued.count());
}

/// Both ways of Azure: an app names an endpoint of its own (the dispatchers' case), a machine and a container group have
/// one address for all, which is reached through a proxy here.
#[tokio::test]
async fn on_azure_the_managed_identity_is_asked_for_a_token_and_again_before_it_expires() {
    let ways = |metadata: &MetadataServer| {
        let url = metadata.web.url();
        [
            vec![("IDENTITY_ENDPOINT", format!("{url}/msi/token")), ("IDENTITY_HEADER", APP_HEADER.to_owned())],
            vec![("http_proxy", url), ("no_proxy", "127.0.0.1".to_owned())],
        ]
    };
    for way in 0..2 {
        let folder = tempfile::tempdir().unwrap();
        let (metadata, setup) = knowing(&folder).await;
        let cloud = Arm::start(setup).await.unwrap();
        let options = json!({ "subscription": arm::SUBSCRIPTION, "resource_group": arm::RESOURCE_GROUP,
            "location": "westeurope", "image": "runner:1", "endpoint": cloud.web.url() });
        lists("aci", options, &ways(&metadata)[way]).await;
        assert!(metadata.issued.count() >= 2, "way {way}: {}", metadata.issued.count());
    }
}
