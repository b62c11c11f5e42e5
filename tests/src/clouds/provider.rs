//! A fake cloud with a store of the same vendor: configuration for a dispatcher, and what the console of the vendor
//! would show.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use crate::assets::runner_image;
use crate::clouds::arm::{self, Arm};
use crate::clouds::cloud_run::CloudRun;
use crate::clouds::dockerd::Dockerd;
use crate::clouds::ecs::{self, Ecs};
use crate::clouds::fault::FaultScript;
use crate::clouds::metadata::{APP_HEADER, ECS_TOKEN, MetadataServer};
use crate::clouds::web::HttpReply;
use crate::clouds::{CloudSetup, Vendor};
use crate::grants;
use crate::servers::bucket::{self, TestBucket};
use crate::servers::policy_proxy::{self, AcceptedIdentities, PolicyProxy};
use crate::servers::{TestServers, built};
use anyhow::{Context, Result, ensure};
use chrono::DateTime;
use serde_json::{Value, json};

/// A platform and its store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloudKind {
    /// ECS on Fargate Spot with S3.
    Ecs,
    /// Cloud Run jobs with Google Cloud Storage.
    Run,
    /// Container Instances with Azure Blob Storage.
    Aci,
    /// A Docker daemon with S3.
    Docker,
}

impl CloudKind {
    /// Why this machine cannot run it, whatever is installed; cases that need it are skipped then.
    pub fn left_out(self) -> Option<String> {
        match self {
            Self::Docker => Dockerd::left_out(),
            Self::Ecs | Self::Run | Self::Aci => None,
        }
    }
}

/// How long a task takes to start.
#[derive(Clone, Copy, Debug)]
pub struct StartupDelay {
    /// [`CloudSetup::provisioning`].
    pub provisioning: Duration,
    /// [`CloudSetup::pulling`].
    pub pulling: Duration,
    /// [`CloudSetup::varies`].
    pub varies: f64,
}

impl StartupDelay {
    /// The shortest: 80 ms.
    pub const AT_ONCE: Self =
        Self { provisioning: Duration::from_millis(40), pulling: Duration::from_millis(40), varies: 0.0 };
}

/// Key of the tickets: every runner has it, and it must appear nowhere else.
pub const KEY: &str = "7373737373737373737373737373737373737373737373737373737373737373";
/// Runners may write below it only.
pub const PREFIX: &str = "calls/";
const IMAGE: &str = "spillway-runner";

/// A running platform with its store.
pub struct CloudProvider {
    /// Which.
    pub cloud: CloudKind,
    /// Its entry in the dispatcher's `targets`.
    pub target: Value,
    /// Its store.
    pub bucket: TestBucket,
    /// In front of the bucket.
    pub policy_proxy: PolicyProxy,
    platform: FakePlatform,
}

enum FakePlatform {
    Ecs(Ecs),
    Run(CloudRun),
    Aci(Arm),
    Docker(Dockerd),
}

impl CloudProvider {
    /// Starts platform and store; runners get credentials from configuration or request.
    ///
    /// # Errors
    ///
    /// This machine cannot run it ([`CloudKind::left_out`] tells beforehand), or is too busy.
    pub async fn start(cloud: CloudKind, servers: &mut TestServers, delay: StartupDelay) -> Result<Self> {
        Self::start_as(cloud, servers, delay, None).await
    }

    /// As [`start`](Self::start). With `identity`, runners use the identity of their machine and get no credentials.
    ///
    /// # Errors
    ///
    /// As [`Self::start`].
    pub async fn start_as(
        cloud: CloudKind,
        servers: &mut TestServers,
        delay: StartupDelay,
        identity: Option<&MetadataServer>,
    ) -> Result<Self> {
        let ca = servers.folder().join("ca.pem");
        // Azure's library sends no token in the clear.
        let tls = identity.filter(|_| cloud == CloudKind::Aci).map(|_| policy_proxy::certificate(&ca)).transpose()?;
        let known = identity.map(|identity| AcceptedIdentities { issued: identity.issued.clone(), tls });
        let asks = identity.map(|identity| asks(cloud, identity, &ca)).unwrap_or_default();
        let (platform, target) = platform(cloud, servers, delay, asks).await?;
        let mut bucket = match cloud {
            CloudKind::Ecs | CloudKind::Docker => TestBucket::s3().await?,
            CloudKind::Run => TestBucket::google().await?,
            CloudKind::Aci => TestBucket::azure().await?,
        };
        let objects = [bucket.objects(PREFIX)];
        let policy = match cloud {
            CloudKind::Ecs | CloudKind::Docker => grants::aws_runner(bucket::NAME, PREFIX)?,
            CloudKind::Run => grants::google_on("runner", objects)?,
            CloudKind::Aci => grants::azure_on("runner", objects)?,
        };
        let policy_proxy = bucket.behind_policy(policy, known).await?;
        Ok(Self { cloud, target, bucket, policy_proxy, platform })
    }

    /// Every task of an egress that the platform still shows.
    pub fn tasks_of(&self, egress_id: &str) -> Result<Vec<String>> {
        Ok(match &self.platform {
            FakePlatform::Ecs(cloud) => cloud.tasks_of(egress_id),
            FakePlatform::Run(cloud) => cloud.executions_of(egress_id),
            FakePlatform::Aci(cloud) => cloud.groups_of(egress_id),
            FakePlatform::Docker(dockerd) => {
                let labelled = format!("label=egress_id={egress_id}");
                let docker_output = docker_output(dockerd, &["ps", "-aq", "--no-trunc", "--filter", &labelled])?;
                docker_output.split_whitespace().map(str::to_owned).collect()
            }
        })
    }

    /// The next task is taken and never runs, for this reason in the vendor's words; Docker has no such.
    pub fn fail_start(&self, message: &str) {
        match &self.platform {
            FakePlatform::Ecs(cloud) => cloud.fail_start(message),
            FakePlatform::Run(cloud) => cloud.fail_start(message),
            FakePlatform::Aci(cloud) => cloud.fail_start(message),
            FakePlatform::Docker(_) => {}
        }
    }

    /// The next call of this operation is answered so, and not executed; Docker has no such.
    pub fn refuse(&self, operation: &str, reply: HttpReply) {
        match &self.platform {
            FakePlatform::Ecs(cloud) => cloud.refuse(operation, reply),
            FakePlatform::Run(cloud) => cloud.refuse(operation, reply),
            FakePlatform::Aci(cloud) => cloud.refuse(operation, reply),
            FakePlatform::Docker(_) => {}
        }
    }

    /// Faults of the platform's calls; `None` for Docker.
    pub fn faults(&self) -> Option<&FaultScript> {
        match &self.platform {
            FakePlatform::Ecs(cloud) => Some(cloud.faults()),
            FakePlatform::Run(cloud) => Some(cloud.faults()),
            FakePlatform::Aci(cloud) => Some(cloud.faults()),
            FakePlatform::Docker(_) => None,
        }
    }

    /// A task as the console shows it.
    pub fn shown(&self, task: &str) -> Result<Value> {
        Ok(match &self.platform {
            FakePlatform::Ecs(cloud) => cloud.show(task),
            FakePlatform::Run(cloud) => cloud.show(task),
            FakePlatform::Aci(cloud) => cloud.show(task),
            FakePlatform::Docker(dockerd) => {
                let docker_output = docker_output(dockerd, &["inspect", task])?;
                serde_json::from_str::<Value>(&docker_output).context("read docker inspect")?[0].clone()
            }
        })
    }

    /// Tags or labels of a shown task; for Cloud Run, which has none, the variables that stand for them.
    pub fn labels(&self, shown: &Value) -> BTreeMap<String, String> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let map = |value: &Value| {
            let all = value.as_object().into_iter().flatten();
            all.map(|(name, value)| (name.clone(), text(value))).collect::<BTreeMap<_, _>>()
        };
        let pairs = |value: &Value, name: &str| {
            let all = value.as_array().into_iter().flatten();
            all.map(|pair| (text(&pair[name]), text(&pair["value"]))).collect::<BTreeMap<_, _>>()
        };
        match self.cloud {
            CloudKind::Ecs => pairs(&shown["tags"], "key"),
            CloudKind::Aci => map(&shown["tags"]),
            CloudKind::Docker => map(&shown["Config"]["Labels"]),
            CloudKind::Run => {
                let all = pairs(&shown["template"]["containers"][0]["env"], "name");
                let ours = all.into_iter().filter_map(|(name, value)| {
                    let label = name.strip_prefix("SPILLWAY_")?.to_lowercase();
                    (label != "claim").then_some((label, value))
                });
                ours.collect()
            }
        }
    }

    /// Begin and end of the time that the vendor bills, Unix milliseconds; `None` for Docker.
    pub fn billed(&self, shown: &Value) -> Result<Option<(i64, i64)>> {
        let text = |value: &Value| -> Result<i64> {
            let text = value.as_str().with_context(|| format!("no time in {shown}"))?;
            Ok(DateTime::parse_from_rfc3339(text)?.timestamp_millis())
        };
        let seconds = |value: &Value| -> Result<i64> {
            Ok((value.as_f64().with_context(|| format!("no time in {shown}"))? * 1000.0).round() as i64)
        };
        Ok(Some(match self.cloud {
            CloudKind::Ecs => (seconds(&shown["pullStartedAt"])?, seconds(&shown["stoppedAt"])?),
            CloudKind::Run => (text(&shown["startTime"])?, text(&shown["completionTime"])?),
            CloudKind::Aci => {
                let view = &shown["properties"]["containers"][0]["properties"]["instanceView"];
                let mut events = view["events"].as_array().into_iter().flatten();
                let pulling = events.find(|event| event["name"] == "Pulling").unwrap_or(&Value::Null);
                (text(&pulling["firstTimestamp"])?, text(&view["currentState"]["finishTime"])?)
            }
            CloudKind::Docker => return Ok(None),
        }))
    }

    /// The vendor stops a task, with its own grace.
    pub async fn take(&self, task: &str) -> Result<()> {
        match &self.platform {
            FakePlatform::Ecs(cloud) => cloud.reclaim(task),
            // As a user of the console would.
            FakePlatform::Run(cloud) => {
                let url = format!("{}/v2/{task}:cancel", cloud.web.url());
                let request = reqwest::Client::new().post(url).header("authorization", "Bearer stage-token").body("{}");
                let status = request.send().await.context("cancel an execution")?.status();
                ensure!(status.is_success(), "cancel: {status}");
            }
            FakePlatform::Aci(cloud) => cloud.strike(task),
            FakePlatform::Docker(dockerd) => {
                docker_output(dockerd, &["kill", "--signal", "KILL", task])?;
            }
        }
        Ok(())
    }
}

const ROLE_URI: &str = "AWS_CONTAINER_CREDENTIALS_FULL_URI";
const ROLE_TOKEN: &str = "AWS_CONTAINER_AUTHORIZATION_TOKEN";

/// Variables that the platform adds so that a program finds its identity.
fn asks(cloud: CloudKind, identity: &MetadataServer, ca: &Path) -> BTreeMap<String, String> {
    let named = |name: &str, value: String| (name.to_owned(), value);
    let all = match cloud {
        CloudKind::Ecs => {
            vec![named(ROLE_URI, format!("{}/role", identity.web.url())), named(ROLE_TOKEN, ECS_TOKEN.to_owned())]
        }
        CloudKind::Run => vec![named("GCE_METADATA_HOST", identity.web.address.to_string())],
        CloudKind::Aci => vec![
            named("IDENTITY_ENDPOINT", format!("{}/msi/token", identity.web.url())),
            named("IDENTITY_HEADER", APP_HEADER.to_owned()),
            named("SSL_CERT_FILE", ca.display().to_string()),
        ],
        CloudKind::Docker => vec![],
    };
    all.into_iter().collect()
}

async fn platform(
    cloud: CloudKind,
    servers: &mut TestServers,
    delay: StartupDelay,
    asks: BTreeMap<String, String>,
) -> Result<(FakePlatform, Value)> {
    let tasks = servers.folder().join("tasks");
    std::fs::create_dir_all(&tasks).context("make a folder for tasks")?;
    let redis = json!({ "address": servers.redis_address }).to_string();
    let secrets = [("SPILLWAY_TICKET_KEY".to_owned(), KEY.to_owned()), ("SPILLWAY_REDIS".to_owned(), redis)];
    let setup = CloudSetup {
        environment: asks.clone().into_iter().chain(secrets).collect(),
        mark: servers.mark().to_owned(),
        provisioning: delay.provisioning,
        pulling: delay.pulling,
        varies: delay.varies,
        ..CloudSetup::new(built("spillway-runner")?, tasks)
    };
    let token = "stage-token";
    Ok(match cloud {
        CloudKind::Ecs => {
            let cloud = Ecs::start(CloudSetup { grace: Duration::from_secs(120), ..setup }, "egress").await?;
            // Without a metadata server, static keys stand for the role of the task.
            let usual = [("AWS_ACCESS_KEY_ID", "AKIDSTAGE"), ("AWS_SECRET_ACCESS_KEY", "stage-secret")];
            for (name, value) in usual.iter().filter(|_| asks.is_empty()) {
                servers.set(name, *value);
            }
            for name in [ROLE_URI, ROLE_TOKEN] {
                asks.get(name).into_iter().for_each(|value| servers.set(name, value));
            }
            let target = json!({ "name": "aws/spot", "launcher": "ecs", "capacity": "spot", "region": "us-east-1",
                "options": { "region": ecs::REGION, "cluster": "egress", "task_definition": "spillway-runner",
                    "subnets": ["subnet-1"], "endpoint": cloud.web.url() } });
            (FakePlatform::Ecs(cloud), target)
        }
        CloudKind::Run => {
            let jobs = [("egress-s".to_owned(), ("1", "512Mi")), ("egress-m".to_owned(), ("1", "1Gi"))];
            let cloud = CloudRun::start(CloudSetup { grace: Duration::from_secs(10), ..setup }, jobs.into()).await?;
            let jobs = json!([
                { "name": "egress-m", "cpu_milli": 1000, "memory_mib": 1024, "disk_gib": 0 },
                { "name": "egress-s", "cpu_milli": 1000, "memory_mib": 512, "disk_gib": 0 },
            ]);
            let target = json!({ "name": "gcp", "launcher": "cloud-run", "region": "us-central1", "options": {
                "project": "p-1", "location": "europe-west1", "jobs": jobs, "endpoint": cloud.web.url(), "token": token } });
            (FakePlatform::Run(cloud), target)
        }
        CloudKind::Aci => {
            // No secret store: what the definition says comes with the call.
            let cloud = Arm::start(CloudSetup { environment: asks, grace: Duration::ZERO, ..setup }).await?;
            let target = json!({ "name": "azure", "launcher": "aci", "region": "eastus", "options": {
                "subscription": arm::SUBSCRIPTION, "resource_group": arm::RESOURCE_GROUP, "location": "eastus",
                "image": "example.azurecr.io/spillway-runner:1", "identities": [arm::IDENTITY], "subnet": arm::SUBNET,
                "environment": { "AZURE_CLIENT_ID": arm::CLIENT_ID }, "endpoint": cloud.web.url(), "token": token } });
            (FakePlatform::Aci(cloud), target)
        }
        CloudKind::Docker => {
            let archive = runner_image()?;
            let dockerd = Dockerd::start()?;
            dockerd.load(&archive)?;
            let target = json!({ "name": "docker", "launcher": "docker", "options": {
                "image": IMAGE, "network": "host", "socket": dockerd.socket() } });
            (FakePlatform::Docker(dockerd), target)
        }
    })
}

fn docker_output(dockerd: &Dockerd, arguments: &[&str]) -> Result<String> {
    let out = dockerd.docker().args(arguments).output().context("start docker")?;
    ensure!(out.status.success(), "docker {arguments:?}: {}", String::from_utf8_lossy(&out.stderr));
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}
