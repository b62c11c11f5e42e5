//! A second opinion on what the ECS launcher asks for: moto's, which knows neither tokens nor failures nor events.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use spillway_cost::Platform;
use spillway_launchers::conformance::order;
use spillway_launchers::ecs::{EcsLauncher, EcsOptions};
use spillway_launchers::{Launcher, StopMode, StopOutcome, TaskStatus};
use spillway_protocol::Secret;
use spillway_tests::clouds::ecs::REGION;
use spillway_tests::servers::emulators::Emulator;

struct MotoEcs {
    emulator: Emulator,
    http: reqwest::Client,
}

impl MotoEcs {
    async fn asked(&self, service: &str, kind: &str, target: &str, body: String) -> Result<String> {
        // Any signature opens its doors; the service is read out of it.
        let scope = format!(
            "AWS4-HMAC-SHA256 Credential=AKIDSTAGE/20261122/{REGION}/{service}/aws4_request, SignedHeaders=host, Signature=0"
        );
        let asked = self.http.post(self.emulator.url()).header("authorization", scope).header("content-type", kind);
        let answer = asked.header("x-amz-target", target).body(body).send().await.context("ask moto")?;
        let status = answer.status();
        let text = answer.text().await.context("hear moto")?;
        ensure!(status.is_success(), "{target}: {status} {text}");
        Ok(text)
    }

    async fn ecs(&self, operation: &str, body: Value) -> Result<()> {
        let target = format!("AmazonEC2ContainerServiceV20141113.{operation}");
        self.asked("ecs", "application/x-amz-json-1.1", &target, body.to_string()).await.map(|_| ())
    }

    async fn subnet(&self) -> Result<String> {
        let form = "Action=DescribeSubnets&Version=2016-11-15".to_owned();
        let text = self.asked("ec2", "application/x-www-form-urlencoded", "", form).await?;
        let found = text.split_once("<subnetId>").and_then(|(_, rest)| rest.split_once("</subnetId>"));
        found.map(|(id, _)| id.to_owned()).context("no subnet")
    }
}

#[tokio::test]
async fn moto_takes_what_the_launcher_asks_for() {
    let moto = MotoEcs { emulator: Emulator::moto().unwrap(), http: reqwest::Client::new() };
    moto.ecs("CreateCluster", json!({ "clusterName": "egress" })).await.unwrap();
    let container = json!({ "name": "runner", "image": "runner:1", "memory": 512, "essential": true });
    let definition = json!({ "family": "spillway-runner", "networkMode": "awsvpc", "requiresCompatibilities": ["FARGATE"],
        "cpu": "256", "memory": "512", "containerDefinitions": [container] });
    moto.ecs("RegisterTaskDefinition", definition).await.unwrap();
    // Otherwise every look moves a task on.
    let still = json!({ "model_name": "ecs::task", "transition": { "progression": "manual", "times": 1000 } });
    let url = format!("{}/moto-api/state-manager/set-transition", moto.emulator.url());
    let told = moto.http.post(url).header("content-type", "application/json").body(still.to_string()).send().await;
    assert!(told.unwrap().status().is_success());

    let launcher = EcsLauncher::new(EcsOptions {
        stack: "test/stack".to_owned(),
        region: REGION.to_owned(),
        cluster: "egress".to_owned(),
        subnets: vec![moto.subnet().await.unwrap()],
        endpoint: Some(moto.emulator.url()),
        keys: Some(("AKIDSTAGE".to_owned(), Secret::new("stage-secret".to_owned()))),
        ..EcsOptions::default()
    })
    .await;
    let task = launcher.launch(&order(Platform::Fargate, "moto", 2)).await.unwrap();
    assert!(task.id.contains(":task/egress/"), "{task}");
    assert!(matches!(launcher.status(&task).await, TaskStatus::Alive | TaskStatus::Starting(_)));
    let listed = launcher.tasks().await.unwrap();
    let [ours] = &listed[..] else { panic!("{listed:?}") };
    assert_eq!((ours.egress_id.as_str(), ours.attempt, &ours.task), ("EG_moto", 2, &task));
    // Over at once, there.
    assert_ne!(launcher.end(&task, StopMode::Immediate).await, StopOutcome::OutOfReach);
    assert!(matches!(launcher.status(&task).await, TaskStatus::Gone(_)));
    assert!(launcher.tasks().await.unwrap().is_empty());
}
