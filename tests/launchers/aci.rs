use std::collections::BTreeMap;
use std::time::Duration;

use spillway_cost::Platform;
use spillway_launchers::aci::{AciLauncher, AciOptions};
use spillway_launchers::conformance::{self, alive, exit_report, order};
use spillway_launchers::{LaunchError, Launcher, StopMode, StopOutcome, TaskExit, TaskStatus};
use spillway_protocol::Secret;
use spillway_tests::clouds::arm::{Arm, Group, IDENTITY, RESOURCE_GROUP, SUBNET, SUBSCRIPTION};
use spillway_tests::clouds::fault::CloudFault;
use spillway_tests::clouds::policy::Policy;
use spillway_tests::clouds::{CloudSetup, Vendor};

use crate::faults;
use crate::harness::{LauncherUnderTest, eventually_consistent, given, setup};

/// Its stop is a kill.
async fn on_aci(setup: CloudSetup) -> LauncherUnderTest<Group, AciLauncher> {
    let mark = setup.mark.clone();
    let cloud = Arm::start(CloudSetup { environment: BTreeMap::new(), grace: Duration::ZERO, ..setup }).await.unwrap();
    let options = AciOptions {
        stack: "test stack".to_owned(),
        subscription: SUBSCRIPTION.to_owned(),
        resource_group: RESOURCE_GROUP.to_owned(),
        location: "westeurope".to_owned(),
        image: "example.azurecr.io/spillway-runner:1".to_owned(),
        registry: Some("example.azurecr.io".to_owned()),
        identities: vec![IDENTITY.to_owned()],
        subnet: Some(SUBNET.to_owned()),
        environment: BTreeMap::from([("SPILLWAY_LOG_FORMAT".to_owned(), "json".to_owned())]),
        endpoint: Some(cloud.web.url()),
        token: Some(Secret::new("stage-token".to_owned())),
        ..AciOptions::default()
    };
    let launchers = [options.clone(), options].map(|options| AciLauncher::new(options).unwrap());
    LauncherUnderTest::new(mark, cloud, launchers)
}

#[tokio::test]
async fn aci_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let subject = on_aci(setup(folder.path())).await;
    faults::in_time(conformance::all(&subject)).await;
}

#[tokio::test]
async fn aci_survives_its_faults() {
    let folder = tempfile::tempdir().unwrap();
    let subject = on_aci(setup(folder.path())).await;
    faults::in_time(faults::all(&subject)).await;
}

#[tokio::test]
async fn aci_is_eventually_consistent() {
    let folder = tempfile::tempdir().unwrap();
    let subject = on_aci(eventually_consistent(folder.path())).await;
    faults::in_time(faults::of_an_eventually_consistent_platform(&subject)).await;
}

#[tokio::test]
async fn groups_are_listed_by_pages_and_a_pause_is_as_long_as_azure_says() {
    let folder = tempfile::tempdir().unwrap();
    let harness = on_aci(CloudSetup { provisioning: Duration::from_secs(600), ..setup(folder.path()) }).await;
    for n in 0..45 {
        harness.launcher.launch(&order(Platform::Aci, &format!("many{n}"), 1)).await.unwrap();
    }
    assert_eq!(harness.launcher.tasks().await.unwrap().len(), 45);
    harness.cloud.faults().script("put", [Some(CloudFault::Throttled)]);
    let error = harness.launcher.launch(&order(Platform::Aci, "throttled", 1)).await.unwrap_err();
    let LaunchError::Throttled { retry_after, .. } = &error else { panic!("{error:?}") };
    assert_eq!(*retry_after, Some(Duration::from_secs(2)));
}

#[tokio::test]
async fn secrets_are_written_to_aci_and_never_shown() {
    let folder = tempfile::tempdir().unwrap();
    let harness = on_aci(setup(folder.path())).await;
    let task = harness.launcher.launch(&order(Platform::Aci, "given", 2)).await.unwrap();
    alive(&*harness.launcher, &task).await;
    let shown = harness.cloud.show(&task.id);
    assert!(!shown.to_string().contains("canary"), "{shown}");
    assert_eq!(shown["tags"]["room"], "Ünsere Küche / 1 <&>");
    let page = harness.launcher.links(&task).task_url.unwrap();
    let group = task.id.rsplit('/').next().unwrap();
    assert_eq!(
        page,
        format!(
            "https://portal.azure.com/#resource/subscriptions/{SUBSCRIPTION}/resourceGroups/{RESOURCE_GROUP}/providers/\
             Microsoft.ContainerInstance/containerGroups/{group}/overview"
        )
    );
    // A group in a network takes no name server over from it, and Redis has its name in a private zone.
    assert_eq!(shown["properties"]["dnsConfig"]["nameServers"], serde_json::json!(["168.63.129.16"]));
    let given = given(folder.path(), "EG_given").await;
    for line in [
        "SPILLWAY_ATTEMPT=2",
        "SPILLWAY_CLAIM=claim",
        "SPILLWAY_LOG_FORMAT=json",
        r#"SPILLWAY_HANDOVER={"ticket_key":"canary"}"#,
    ] {
        assert!(given.lines().any(|given| given == line), "{line} in {given}");
    }
}

#[tokio::test]
async fn a_memory_kill_is_named_and_a_kill_is_ours() {
    let folder = tempfile::tempdir().unwrap();
    let harness = on_aci(setup(folder.path())).await;
    let task = harness.launcher.launch(&order(Platform::Aci, "memory", 1)).await.unwrap();
    alive(&*harness.launcher, &task).await;
    harness.cloud.out_of_memory(&task.id);
    assert_eq!(exit_report(&*harness.launcher, &task).await.how, TaskExit::OutOfMemory { limit_mib: Some(512) });

    let task = harness.launcher.launch(&order(Platform::Aci, "killed", 1)).await.unwrap();
    alive(&*harness.launcher, &task).await;
    assert_eq!(harness.launcher.end(&task, StopMode::Graceful).await, StopOutcome::Requested);
    let how = exit_report(&*harness.launcher, &task).await.how;
    assert_eq!(how, TaskExit::EndedByUs("asked to finish".to_owned()));
    // One who remembers nothing tells what the platform shows.
    let how = exit_report(&*harness.again, &task).await.how;
    assert_eq!(how, TaskExit::Signalled(9));
}

#[tokio::test]
async fn a_group_that_only_starts_is_deleted_and_so_is_one_that_cannot() {
    let folder = tempfile::tempdir().unwrap();
    let harness = on_aci(CloudSetup { provisioning: Duration::from_secs(60), ..setup(folder.path()) }).await;
    let task = harness.launcher.launch(&order(Platform::Aci, "early", 1)).await.unwrap();
    assert!(matches!(harness.launcher.status(&task).await, TaskStatus::Starting(_)));
    assert_eq!(harness.launcher.end(&task, StopMode::Immediate).await, StopOutcome::Requested);
    let how = exit_report(&*harness.launcher, &task).await.how;
    assert_eq!(how, TaskExit::EndedByUs("egress is over".to_owned()));
    assert_eq!(harness.cloud.show(&task.id), serde_json::Value::Null);

    let folder = tempfile::tempdir().unwrap();
    let harness = on_aci(CloudSetup { program: folder.path().join("nothing"), ..setup(folder.path()) }).await;
    let task = harness.launcher.launch(&order(Platform::Aci, "empty", 1)).await.unwrap();
    let how = exit_report(&*harness.launcher, &task).await.how;
    assert!(matches!(&how, TaskExit::ImageNotPulled(message) if message.starts_with("Failed to pull image")), "{how}");
    assert_eq!(harness.cloud.show(&task.id), serde_json::Value::Null, "it might have started later");
    assert_eq!(harness.launcher.launch(&order(Platform::Aci, "empty", 1)).await.unwrap(), task);
    assert_eq!(harness.cloud.task_count("EG_empty"), 1);
}

#[tokio::test]
async fn what_the_role_does_not_allow_is_a_mistake_to_be_told() {
    let folder = tempfile::tempdir().unwrap();
    let policy = Policy::actions(["Microsoft.ContainerInstance/containerGroups/read"]);
    let harness = on_aci(CloudSetup { policy: Some(policy), ..setup(folder.path()) }).await;
    let error = harness.launcher.launch(&order(Platform::Aci, "denied", 1)).await.unwrap_err();
    let LaunchError::Misconfigured { message, .. } = &error else { panic!("{error:?}") };
    assert!(message.contains("containerGroups/write"), "{message}");
}

/// Terraform's role: the runners' own identity, and no other.
#[tokio::test]
async fn a_group_gets_no_identity_but_the_runners() {
    let folder = tempfile::tempdir().unwrap();
    let cloud = Arm::start(setup(folder.path())).await.unwrap();
    let options = AciOptions {
        subscription: SUBSCRIPTION.to_owned(),
        resource_group: RESOURCE_GROUP.to_owned(),
        location: "westeurope".to_owned(),
        image: "runner:1".to_owned(),
        identities: vec![IDENTITY.replace("/runner", "/owner")],
        endpoint: Some(cloud.web.url()),
        token: Some(Secret::new("stage-token".to_owned())),
        ..AciOptions::default()
    };
    let launcher = AciLauncher::new(options).unwrap();
    let error = launcher.launch(&order(Platform::Aci, "owner", 1)).await.unwrap_err().to_string();
    assert!(error.contains("userAssignedIdentities/assign/action") && error.contains("/owner"), "{error}");
    assert_eq!(cloud.task_count("EG_owner"), 0);
}
