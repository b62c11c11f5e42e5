//! Faults of the platform: a launch is refused, or a task is taken and never runs. In the vendor's own words.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures_util::future::try_join_all;
use libtest_mimic::Trial;
use serde_json::json;
use spillway_tests::clouds::arm;
use spillway_tests::clouds::fault::CloudFault;
use spillway_tests::clouds::metadata::{ECS_ROLE, GOOGLE_ACCOUNT, MetadataServer};
use spillway_tests::clouds::provider::{CloudKind, CloudProvider, KEY, PREFIX, StartupDelay};
use spillway_tests::clouds::web::HttpReply;
use spillway_tests::grants;
use spillway_tests::guard::loopback_yaml;
use spillway_tests::servers::policy_proxy::{self, AcceptedIdentities};
use spillway_tests::servers::{TestServers, bucket};

use super::{Probed, probe};
use crate::harness::{block_on, waiting};

const CLOUDS: [CloudKind; 3] = [CloudKind::Ecs, CloudKind::Run, CloudKind::Aci];
/// Of a machine's keys; a probe is shorter.
const GIVEN_FOR: Duration = Duration::from_secs(120);

pub fn cases() -> Vec<Trial> {
    vec![
        waiting("probe::a_cloud_that_works_is_said_to_work", || {
            block_on(async {
                let each = CLOUDS.map(|cloud| async move { works(cloud).await.with_context(|| format!("{cloud:?}")) });
                try_join_all(each).await.map(drop)
            })
        }),
        waiting("probe::what_a_platform_refuses_is_named", || {
            block_on(async {
                let each =
                    CLOUDS.map(|cloud| async move { refusals(cloud).await.with_context(|| format!("{cloud:?}")) });
                try_join_all(each).await.map(drop)
            })
        }),
        waiting("probe::an_identity_that_the_store_does_not_know_is_named", || {
            block_on(async {
                let each =
                    CLOUDS.map(|cloud| async move { stranger(cloud).await.with_context(|| format!("{cloud:?}")) });
                try_join_all(each).await.map(drop)
            })
        }),
    ]
}

struct ProbedCloud {
    provider: CloudProvider,
    servers: TestServers,
}

impl ProbedCloud {
    async fn start(cloud: CloudKind, identity: &MetadataServer) -> Result<Self> {
        let mut servers = TestServers::start("").await?;
        let provider = CloudProvider::start_as(cloud, &mut servers, StartupDelay::AT_ONCE, Some(identity)).await?;
        Ok(Self { provider, servers })
    }

    async fn probe(&self, name: &str) -> Result<Probed> {
        let config = format!(
            "{}{}stack: prod\nticket_key: \"{KEY}\"\ntargets: [{}]\n{}",
            self.servers.connections(),
            loopback_yaml(),
            self.provider.target,
            self.provider.bucket.configuration()
        );
        // Where Terraform lets runners write.
        let folder = format!("{PREFIX}probes");
        probe(&self.servers, name, &config, &["--folder", &folder, "--timeout", "60"]).await
    }

    /// Nothing runs, and the platform shows no task that is not over.
    async fn is_left_alone(&self, probed: &Probed) -> Result<()> {
        self.servers.nothing_runs(Duration::from_secs(10)).await?;
        let id = probed.summary["probe"].as_str().context("a probe has an id")?;
        if self.provider.cloud == CloudKind::Aci {
            let left = self.provider.tasks_of(id)?;
            ensure!(left.is_empty(), "groups count against the quota until they are deleted: {left:?}");
        }
        Ok(())
    }
}

async fn works(cloud: CloudKind) -> Result<()> {
    let identity = MetadataServer::start_user_assigned(GIVEN_FOR, arm::CLIENT_ID).await?;
    let probed_cloud = ProbedCloud::start(cloud, &identity).await?;
    let probed = probed_cloud.probe("works").await?;
    ensure!(probed.ok, "{}\n{}", probed.summary, probed.log);
    for check in ["redis (here)", "launch", "start", "redis", "clock", "signal", "media", "identity", "machine"] {
        let line = probed.line(check)?;
        ensure!(line["outcome"] == "passed", "{line}");
        println!("{cloud:?} {check}: {} ({} ms)", line["message"], line["took_ms"]);
    }
    let name = match cloud {
        CloudKind::Ecs => ECS_ROLE,
        CloudKind::Run => GOOGLE_ACCOUNT,
        CloudKind::Aci => "an identity",
        CloudKind::Docker => bail!("it has no identity"),
    };
    let identity = probed.line("identity")?;
    ensure!(identity["message"].as_str().is_some_and(|message| message.contains(name)), "{identity}");
    let media = probed.line("media")?;
    ensure!(media["message"].as_str().is_some_and(|message| message.starts_with("udp 127.0.0.1:")), "{media}");
    let store = probed.findings().find(|line| line["check"].as_str().is_some_and(|check| check.starts_with("store")));
    let store = store.context("the store was checked")?;
    // Terraform's role on AWS writes and does not delete.
    ensure!(store["outcome"] == if cloud == CloudKind::Ecs { "noted" } else { "passed" }, "{store}");
    ensure!(probed.log.contains(probed.summary["probe"].as_str().unwrap_or("?")), "the log names it: {}", probed.log);
    probed_cloud.is_left_alone(&probed).await?;
    let unfinished = probed_cloud.provider.bucket.unfinished().await?;
    ensure!(unfinished.is_empty(), "{unfinished:?}");
    let egresses = probed_cloud.servers.api.egress("ListEgress", json!({})).await?;
    ensure!(egresses["items"].as_array().is_none_or(Vec::is_empty), "a probe is no egress: {egresses}");
    Ok(())
}

/// A fault, the cause that must be named, and a part of what to change.
struct PlatformFault {
    name: &'static str,
    inject: Box<dyn Fn(&CloudProvider) + Send>,
    causes: &'static [&'static str],
    advice: &'static str,
}

fn fault(
    name: &'static str,
    causes: &'static [&'static str],
    advice: &'static str,
    inject: impl Fn(&CloudProvider) + Send + 'static,
) -> PlatformFault {
    PlatformFault { name, inject: Box::new(inject), causes, advice }
}

async fn refusals(cloud: CloudKind) -> Result<()> {
    let identity = MetadataServer::start_user_assigned(GIVEN_FOR, arm::CLIENT_ID).await?;
    let probed_cloud = ProbedCloud::start(cloud, &identity).await?;
    for PlatformFault { name, inject, causes, advice } in faults(cloud)? {
        inject(&probed_cloud.provider);
        let probed = probed_cloud.probe("refused").await?;
        probed.names(&format!("{cloud:?} {name}"), causes, advice)?;
        probed_cloud.is_left_alone(&probed).await?;
    }
    // The faults are used up: nothing of them is left.
    let probed = probed_cloud.probe("after").await?;
    ensure!(probed.ok, "{}\n{}", probed.summary, probed.log);
    Ok(())
}

fn scripted(operation: &'static str, cloud_fault: CloudFault) -> impl Fn(&CloudProvider) + Send + 'static {
    move |provider| {
        if let Some(faults) = provider.faults() {
            faults.script(operation, [Some(cloud_fault)]);
        }
    }
}

fn refused(operation: &'static str, reply: HttpReply) -> impl Fn(&CloudProvider) + Send + 'static {
    move |provider| provider.refuse(operation, reply.clone())
}

fn never_starts(message: &'static str) -> impl Fn(&CloudProvider) + Send + 'static {
    move |provider| provider.fail_start(message)
}

fn ecs_error(kind: &'static str, message: &str) -> HttpReply {
    HttpReply::json(400, json!({"__type": kind, "message": message})).with("x-amzn-errortype", kind)
}

fn google_error(code: u16, status: &str, message: &str) -> HttpReply {
    HttpReply::json(code, json!({"error": {"code": code, "message": message, "status": status}}))
}

fn azure_error(status: u16, code: &str, message: &str) -> HttpReply {
    HttpReply::json(status, json!({"error": {"code": code, "message": message}}))
}

fn faults(cloud: CloudKind) -> Result<Vec<PlatformFault>> {
    let run = match cloud {
        CloudKind::Ecs => "RunTask",
        CloudKind::Run => "run",
        CloudKind::Aci => "put",
        CloudKind::Docker => bail!("it has no vendor"),
    };
    let mut faults = vec![
        fault("quota", &["quota_reached"], "Ask the vendor for more", scripted(run, CloudFault::QuotaReached)),
        fault("capacity", &["no_capacity"], "second target", scripted(run, CloudFault::NoCapacity)),
    ];
    faults.extend(match cloud {
        CloudKind::Ecs => ecs_faults(),
        CloudKind::Run => cloud_run_faults(),
        _ => aci_faults(),
    });
    Ok(faults)
}

fn ecs_faults() -> Vec<PlatformFault> {
    let who = "User: arn:aws:sts::111122223333:assumed-role/dispatcher/x is not authorized to perform";
    let denied = |what: &str| refused("RunTask", ecs_error("AccessDeniedException", &format!("{who}: {what}")));
    let no_subnet =
        ecs_error("InvalidParameterException", "Error retrieving subnet information for [subnet-1]: does not exist");
    let no_definition = ecs_error("ClientException", "TaskDefinition not found.");
    vec![
        fault("role", &["launch_denied"], "ecs:RunTask", denied("ecs:RunTask on resource: *")),
        fault("pass role", &["pass_role_denied"], "iam:PassRole", denied("iam:PassRole on resource: role/runner")),
        fault("subnet", &["subnet_unusable"], "security_groups", refused("RunTask", no_subnet)),
        fault("task definition", &["target_not_found"], "task_definition", refused("RunTask", no_definition)),
        fault(
            "image",
            &["image_not_pulled"],
            "ecr:BatchGetImage",
            never_starts(
                "CannotPullContainerError: pull image manifest has been retried 1 time(s): failed to resolve ref \
                 111122223333.dkr.ecr.eu-central-1.amazonaws.com/runner:1: not found",
            ),
        ),
        fault(
            "NAT",
            &["no_way_out"],
            "assign_public_ip",
            never_starts(
                "ResourceInitializationError: unable to pull secrets or registry auth: There is a connection issue between \
                 the task and AWS Secrets Manager. Check your task network configuration.",
            ),
        ),
        fault(
            "secret",
            &["secret_denied"],
            "secretsmanager:GetSecretValue",
            never_starts(
                "ResourceInitializationError: unable to pull secrets or registry auth: unable to retrieve secret from asm: \
                 AccessDeniedException: not authorized to perform: secretsmanager:GetSecretValue",
            ),
        ),
        fault(
            "log",
            &["log_denied"],
            "logs:CreateLogStream",
            never_starts(
                "ResourceInitializationError: failed to validate logger args: create stream has been retried 1 times: \
                 failed to create Cloudwatch log stream: ResourceNotFoundException",
            ),
        ),
        fault(
            "architecture",
            &["wrong_architecture"],
            "runtimePlatform",
            never_starts("CannotStartContainerError: exec /usr/bin/spillway-runner: exec format error"),
        ),
    ]
}

fn cloud_run_faults() -> Vec<PlatformFault> {
    let denied = |what: &str| {
        let message = format!("Permission '{what}' denied on resource (or resource may not exist).");
        refused("run", google_error(403, "PERMISSION_DENIED", &message))
    };
    let no_job = google_error(404, "NOT_FOUND", "Resource 'egress-s' of kind 'JOB' in region 'x' does not exist.");
    let no_token = google_error(401, "UNAUTHENTICATED", "Request had invalid authentication credentials.");
    vec![
        fault("role", &["launch_denied"], "run.jobs.run", denied("run.jobs.run")),
        fault("act as", &["pass_role_denied"], "iam.serviceAccountUser", denied("iam.serviceaccounts.actAs")),
        fault("job", &["target_not_found"], "one must be large enough", refused("run", no_job)),
        fault("credentials", &["credentials_missing"], "service account", {
            // It is asked twice: the token may just have expired.
            move |provider: &CloudProvider| {
                provider.refuse("run", no_token.clone());
                provider.refuse("run", no_token.clone());
            }
        }),
        fault(
            "image",
            &["image_not_pulled"],
            "artifactregistry.reader",
            never_starts("CONTAINER_MISSING: Image 'europe-docker.pkg.dev/p/r/runner:1' not found."),
        ),
        fault(
            "secret",
            &["secret_denied"],
            "secretmanager.secretAccessor",
            never_starts(
                "SECRETS_ACCESS_CHECK_FAILED: Permission denied on secret: projects/1/secrets/ticket-key/versions/latest for \
                 Revision service account runner@p.",
            ),
        ),
        fault(
            "subnet",
            &["subnet_unusable"],
            "direct VPC egress",
            never_starts("VPC_NETWORK_NOT_FOUND: VPC network projects/p/global/networks/n does not exist."),
        ),
        fault(
            "architecture",
            &["wrong_architecture"],
            "amd64",
            never_starts(
                "CONTAINER_FAILED: Application failed to start: failed to load /usr/bin/spillway-runner: exec format error",
            ),
        ),
    ]
}

fn aci_faults() -> Vec<PlatformFault> {
    let denied = |action: &str| {
        let message = format!("The client does not have authorization to perform action '{action}' over scope '/x'.");
        refused("put", azure_error(403, "AuthorizationFailed", &message))
    };
    let delegated = "Subnet 'runners' is not delegated to Microsoft.ContainerInstance/containerGroups.";
    let no_image = "The image 'example.azurecr.io/spillway-runner:1' in container group 'x' is not accessible.";
    vec![
        fault(
            "role",
            &["launch_denied"],
            "containerGroups/write",
            denied("Microsoft.ContainerInstance/containerGroups/write"),
        ),
        fault(
            "identity of the runner",
            &["pass_role_denied"],
            "assign/action",
            denied("Microsoft.ManagedIdentity/userAssignedIdentities/assign/action"),
        ),
        fault(
            "subnet",
            &["subnet_unusable"],
            "delegated",
            refused("put", azure_error(400, "SubnetDelegationsCannotChange", delegated)),
        ),
        fault(
            "image",
            &["image_not_pulled"],
            "AcrPull",
            refused("put", azure_error(400, "InaccessibleImage", no_image)),
        ),
        fault(
            "NAT",
            &["no_way_out"],
            "NAT gateway",
            never_starts(
                "Failed to pull image \"example.azurecr.io/spillway-runner:1\": dial tcp 20.1.2.3:443: i/o timeout",
            ),
        ),
        fault(
            "registry",
            &["image_not_pulled"],
            "AcrPull",
            never_starts("Failed to pull image \"example.azurecr.io/spillway-runner:1\": 401 Unauthorized"),
        ),
    ]
}

/// The task is somebody, and the store has been told of somebody else.
async fn stranger(cloud: CloudKind) -> Result<()> {
    let identity = MetadataServer::start_user_assigned(GIVEN_FOR, arm::CLIENT_ID).await?;
    let another = MetadataServer::start_user_assigned(GIVEN_FOR, arm::CLIENT_ID).await?;
    let mut probed_cloud = ProbedCloud::start(cloud, &identity).await?;
    let bucket = &mut probed_cloud.provider.bucket;
    let objects = [bucket.objects(PREFIX)];
    let policy = match cloud {
        CloudKind::Ecs | CloudKind::Docker => grants::aws_runner(bucket::NAME, PREFIX)?,
        CloudKind::Run => grants::google_on("runner", objects)?,
        CloudKind::Aci => grants::azure_on("runner", objects)?,
    };
    // Azure's library sends no token in the clear; the certificate must be the one that the task trusts.
    let ca = probed_cloud.servers.folder().join("ca.pem");
    let is_azure = cloud == CloudKind::Aci;
    let tls = is_azure.then(|| policy_proxy::certificate(&ca)).transpose()?;
    let known = AcceptedIdentities { issued: another.issued.clone(), tls };
    probed_cloud.provider.policy_proxy = bucket.behind_policy(policy, Some(known)).await?;
    let probed = probed_cloud.probe("stranger").await?;
    let advice = match cloud {
        CloudKind::Ecs => "taskRoleArn",
        CloudKind::Run => "service account",
        _ => "AZURE_CLIENT_ID",
    };
    probed.names(&format!("{cloud:?} identity"), &["store_credentials"], advice)?;
    ensure!(probed.line("identity")?["outcome"] == "passed", "who it is is shown: {}", probed.summary);
    probed_cloud.is_left_alone(&probed).await
}
