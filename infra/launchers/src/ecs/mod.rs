//! A Fargate task for each egress: RunTask with a client token, so that ECS itself sees to it that none is started twice.
//!
//! One task definition serves all sizes: CPU, memory and disk are overrides. It is made by Terraform, with the image, the
//! log driver, `stopTimeout` 120 and what the runner needs from the secret store (`secrets`; see the runner's room `container`).
//! ARM64 is a task definition of its own, spot a capacity provider: each is a launcher of its own, named by its options.

pub mod event;
mod subnets;
mod api;

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use aws_config::BehaviorVersion;
use aws_sdk_ecs::Client;
use aws_sdk_ecs::config::retry::RetryConfig;
use aws_sdk_ecs::config::timeout::TimeoutConfig;
use aws_sdk_ecs::config::{Credentials, Region, SharedCredentialsProvider};
use aws_sdk_ecs::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_ecs::operation::run_task::RunTaskError;
use aws_sdk_ecs::operation::run_task::builders::RunTaskFluentBuilder;
use aws_sdk_ecs::types::{
    AssignPublicIp, AwsVpcConfiguration, CapacityProviderStrategyItem, ContainerOverride, DesiredStatus,
    EphemeralStorage, KeyValuePair, LaunchType, NetworkConfiguration, Tag, Task, TaskField, TaskOverride,
};
use aws_smithy_http_client::{Builder, tls};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use serde::Deserialize;
use spillway_cost::{Capacity, Platform};
use spillway_process::chain;
use spillway_protocol::Secret;
use tokio::time::Instant;
use tracing::{debug, warn};

use self::api::{DescribedTask, OURS};
use self::subnets::Subnets;
use crate::exit::TaskExit;
use crate::labels;
use crate::launcher::{
    LaunchError, LaunchOrder, Launcher, OwnedTask, Quota, StopMode, StopOutcome, TaskRef, TaskStatus,
};

const NAME: &str = "ecs";
/// Event rules filter on it.
const GROUP: &str = "egress";
/// DescribeTasks takes no more.
const AT_ONCE: usize = 100;
/// RunTask answers before DescribeTasks knows the task.
const UNKNOWN_AT_FIRST: Duration = Duration::from_secs(60);
const CONNECT: Duration = Duration::from_secs(3);
const ANSWER: Duration = Duration::from_secs(12);
/// Fargate takes 20 a second with 100 at once; a tenth is left for others in the account.
const QUOTA: Quota = Quota { burst: 90, per_second: 18.0 };

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EcsOptions {
    #[serde(skip)]
    pub name: String,
    #[serde(skip)]
    pub stack: String,
    pub region: String,
    /// Name or ARN.
    pub cluster: String,
    /// Family, or family:revision.
    pub task_definition: String,
    /// The runner's container in it.
    pub container: String,
    pub subnets: Vec<String>,
    pub security_groups: Vec<String>,
    pub assign_public_ip: bool,
    #[serde(skip)]
    pub capacity: Capacity,
    /// `stopTimeout` of the task definition.
    pub stop_seconds: u64,
    /// Instead of the region's own.
    pub endpoint: Option<String>,
    /// Key id and secret, instead of the process' own identity.
    #[serde(skip)]
    pub keys: Option<(String, Secret)>,
}

impl Default for EcsOptions {
    fn default() -> Self {
        Self {
            name: NAME.to_owned(),
            stack: "spillway".to_owned(),
            region: String::new(),
            cluster: String::new(),
            task_definition: "spillway-runner".to_owned(),
            container: "runner".to_owned(),
            subnets: Vec::new(),
            security_groups: Vec::new(),
            assign_public_ip: true,
            capacity: Capacity::OnDemand,
            stop_seconds: 120,
            endpoint: None,
            keys: None,
        }
    }
}

pub struct EcsLauncher {
    options: EcsOptions,
    client: Client,
    /// Tasks that ECS did not know when it was asked, since then.
    unknown: Mutex<HashMap<String, Instant>>,
    subnets: Mutex<Subnets>,
}

impl EcsLauncher {
    pub async fn new(options: EcsOptions) -> Self {
        let region = Region::new(options.region.clone());
        let credentials = match &options.keys {
            Some((id, secret)) => {
                SharedCredentialsProvider::new(Credentials::new(id, secret.reveal(), None, None, "configuration"))
            }
            None => {
                let chain = aws_config::default_provider::credentials::DefaultCredentialsChain::builder();
                SharedCredentialsProvider::new(chain.region(region.clone()).build().await)
            }
        };
        let http =
            Builder::new().tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::AwsLc)).build_https();
        let mut config = aws_sdk_ecs::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(region)
            .credentials_provider(credentials)
            .http_client(http)
            // Whoever asks us decides about asking again: it minds the quota of all.
            .retry_config(RetryConfig::disabled())
            .timeout_config(
                TimeoutConfig::builder().connect_timeout(CONNECT).operation_attempt_timeout(ANSWER).build(),
            );
        if let Some(endpoint) = &options.endpoint {
            config = config.endpoint_url(endpoint);
        }
        let subnets = Mutex::new(Subnets::new(options.subnets.clone()));
        Self { client: Client::from_conf(config.build()), options, unknown: Mutex::default(), subnets }
    }

    fn task(&self, arn: &str) -> TaskRef {
        TaskRef { launcher: self.options.name.clone(), id: arn.to_owned() }
    }

    /// A task of our cluster: `arn:aws:ecs:<region>:<account>:task/<cluster>/<id>`.
    fn is_ours(&self, task: &TaskRef) -> bool {
        let cluster = self.options.cluster.rsplit('/').next().unwrap_or_default();
        let place = task.id.split_once(":task/").map(|(_, rest)| rest).filter(|_| task.id.starts_with("arn:"));
        task.launcher == self.options.name
            && place.and_then(|rest| rest.split_once('/')).is_some_and(|(of, id)| of == cluster && !id.is_empty())
    }

    /// The same order may become another request, with other subnets: under the same token ECS then names the task it has.
    fn request(&self, order: &LaunchOrder, subnets: &[String]) -> Result<RunTaskFluentBuilder, LaunchError> {
        let options = &self.options;
        let bad = |error: aws_sdk_ecs::error::BuildError| LaunchError::Misconfigured {
            message: "make the request to ECS".to_owned(),
            source: Some(error.into()),
        };
        let variables = order.environment(&options.stack).into_iter();
        let variables = variables.map(|(name, value)| KeyValuePair::builder().name(name).value(value).build());
        let container =
            ContainerOverride::builder().name(&options.container).set_environment(Some(variables.collect()));
        let disk = api::disk(order.shape).map(|gib| EphemeralStorage::builder().size_in_gib(gib).build());
        let overrides = TaskOverride::builder()
            .container_overrides(container.build())
            .cpu(api::cpu_units(order.shape).to_string())
            .memory(order.shape.memory_mib.to_string())
            .set_ephemeral_storage(disk)
            .build();
        let public = if options.assign_public_ip { AssignPublicIp::Enabled } else { AssignPublicIp::Disabled };
        let network = AwsVpcConfiguration::builder()
            .set_subnets(Some(subnets.to_vec()))
            .set_security_groups(Some(options.security_groups.clone()))
            .assign_public_ip(public)
            .build()
            .map_err(bad)?;
        let tags = labels::of(order, &options.stack).into_iter();
        let tags = tags.map(|(key, value)| Tag::builder().key(labels::aws(&key)).value(labels::aws(&value)).build());
        let request = self
            .client
            .run_task()
            .cluster(&options.cluster)
            .task_definition(&options.task_definition)
            .count(1)
            .client_token(token(order))
            .started_by(order.egress_id.as_str())
            .group(GROUP)
            .enable_ecs_managed_tags(true)
            .network_configuration(NetworkConfiguration::builder().awsvpc_configuration(network).build())
            .overrides(overrides)
            .set_tags(Some(tags.collect()));
        Ok(match options.capacity {
            Capacity::OnDemand => request.launch_type(LaunchType::Fargate),
            Capacity::Spot => {
                let spot = CapacityProviderStrategyItem::builder().capacity_provider(api::SPOT).weight(1).build();
                request.capacity_provider_strategy(spot.map_err(bad)?)
            }
        })
    }

    fn subnets(&self) -> MutexGuard<'_, Subnets> {
        self.subnets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where one zone is full, another may have room.
    fn elsewhere(&self, refused: LaunchError, subnets: &[String]) -> LaunchError {
        match refused {
            LaunchError::Capacity { message } if self.subnets().were_full(subnets, Instant::now()) => {
                LaunchError::ZoneCapacity { message: format!("{message} ({})", subnets.join(", ")) }
            }
            other => other,
        }
    }

    /// What is known of a task that ECS does not know: young ones are not known yet, old ones no more.
    fn unknown(&self, arn: &str, now: Instant) -> TaskStatus {
        let mut unknown = self.unknown.lock().unwrap_or_else(PoisonError::into_inner);
        unknown.retain(|_, since| now.duration_since(*since) < 10 * UNKNOWN_AT_FIRST);
        let since = *unknown.entry(arn.to_owned()).or_insert(now);
        if now.duration_since(since) < UNKNOWN_AT_FIRST {
            TaskStatus::Unknown("ECS does not know the task (yet)".to_owned())
        } else {
            TaskStatus::Gone(TaskExit::Unknown.into())
        }
    }

    /// What ECS says about these, by ARN. At most [`AT_ONCE`].
    async fn describe(&self, arns: &[&str]) -> Result<HashMap<String, TaskStatus>, String> {
        let asked = self.client.describe_tasks().cluster(&self.options.cluster);
        let asked = asked.set_tasks(Some(arns.iter().map(|arn| (*arn).to_owned()).collect()));
        let answer = asked.send().await.map_err(|error| format!("ECS did not answer: {}", chain(&error)))?;
        let seen = answer.tasks().iter().filter_map(|task| {
            Some((task.task_arn()?.to_owned(), api::task_status(&described(task, &self.options.container))))
        });
        let mut seen: HashMap<_, _> = seen.collect();
        // Not to be known later on is news again.
        self.unknown.lock().unwrap_or_else(PoisonError::into_inner).retain(|arn, _| !seen.contains_key(arn));
        let now = Instant::now();
        for failure in answer.failures() {
            let Some(arn) = failure.arn() else { continue };
            let task_status = match failure.reason() {
                Some("MISSING") => self.unknown(arn, now),
                other => TaskStatus::Unknown(other.unwrap_or("ECS does not say why").to_owned()),
            };
            seen.insert(arn.to_owned(), task_status);
        }
        Ok(seen)
    }
}

/// At most sixty-four characters; the end tells attempts apart.
fn token(order: &LaunchOrder) -> String {
    let token = format!("{}:{}", order.egress_id, order.attempt);
    token[token.len().saturating_sub(64)..].to_owned()
}

fn described(task: &Task, container: &str) -> DescribedTask {
    let containers = task.containers();
    let container = containers.iter().find(|it| it.name() == Some(container)).or(containers.first());
    let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
    let milliseconds = |at: Option<&aws_smithy_types::DateTime>| at.and_then(|at| at.to_millis().ok());
    DescribedTask {
        last_status: text(task.last_status()),
        stop_code: text(task.stop_code().map(|code| code.as_str())),
        stopped_reason: text(task.stopped_reason()),
        capacity_provider: text(task.capacity_provider_name()),
        cpu: text(task.cpu()),
        memory: text(task.memory()),
        disk_gib: task.ephemeral_storage().and_then(|disk| disk.size_in_gib().try_into().ok()),
        exit_code: container.and_then(|container| container.exit_code()),
        container_reason: text(container.and_then(|container| container.reason())),
        container_status: text(container.and_then(|container| container.last_status())),
        pull_started: milliseconds(task.pull_started_at()),
        stopped: milliseconds(task.stopped_at()),
    }
}

/// No answer at all may hide a task that was started: that passes, and the token finds it.
fn refusal<E>(error: SdkError<E, HttpResponse>) -> LaunchError
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    let status = error.raw_response().map(|response| response.status().as_u16());
    let Some(status) = status else {
        // Nobody to be: that does not pass by itself.
        let message = chain(&error).to_string();
        if message.contains("credentials") {
            // Without its source: that quotes profiles and metadata services.
            return LaunchError::Misconfigured { message: "no credentials for ECS".to_owned(), source: None };
        }
        return LaunchError::Transient { message: "ECS did not answer".to_owned(), source: Some(error.into()) };
    };
    let (code, message) = (error.code().unwrap_or_default().to_owned(), error.message().unwrap_or_default().to_owned());
    api::refused(&code, &message, status, error.into())
}

#[async_trait]
impl Launcher for EcsLauncher {
    fn name(&self) -> &str {
        &self.options.name
    }

    async fn launch(&self, order: &LaunchOrder) -> Result<TaskRef, LaunchError> {
        let subnets = self.subnets().pick(Instant::now());
        let answer = match self.request(order, &subnets)?.send().await {
            Ok(answer) => answer,
            Err(error) => {
                // The token is bound to a task whose request looked otherwise; it is our task.
                if let Some(RunTaskError::ConflictException(conflict)) = error.as_service_error()
                    && let Some(arn) = conflict.resource_ids.as_ref().and_then(|arns| arns.first())
                {
                    debug!(egress_id = %order.egress_id, arn, "task of an earlier call found");
                    return Ok(self.task(arn));
                }
                return Err(self.elsewhere(refusal(error), &subnets));
            }
        };
        if let Some(arn) = answer.tasks().first().and_then(|task| task.task_arn()) {
            return Ok(self.task(arn));
        }
        let refused = match answer.failures().first() {
            Some(failure) => api::failure(failure.reason().unwrap_or_default(), failure.detail().unwrap_or_default()),
            None => LaunchError::Transient { message: "ECS started nothing and says nothing".to_owned(), source: None },
        };
        Err(self.elsewhere(refused, &subnets))
    }

    async fn status(&self, task: &TaskRef) -> TaskStatus {
        let nothing = || TaskStatus::Unknown("ECS says nothing".to_owned());
        self.statuses(std::slice::from_ref(task)).await.pop().unwrap_or_else(nothing)
    }

    async fn statuses(&self, tasks: &[TaskRef]) -> Vec<TaskStatus> {
        let ours: Vec<&str> = tasks.iter().filter(|task| self.is_ours(task)).map(|task| task.id.as_str()).collect();
        let mut seen = HashMap::new();
        for arns in ours.chunks(AT_ONCE) {
            match self.describe(arns).await {
                Ok(some) => seen.extend(some),
                Err(message) => {
                    seen.extend(arns.iter().map(|arn| ((*arn).to_owned(), TaskStatus::Unknown(message.clone()))))
                }
            }
        }
        let of = |task: &TaskRef| match seen.get(&task.id) {
            Some(task_status) => task_status.clone(),
            None if self.is_ours(task) => TaskStatus::Unknown("ECS says nothing about the task".to_owned()),
            None => TaskStatus::Unknown("not a task of this cluster".to_owned()),
        };
        tasks.iter().map(of).collect()
    }

    /// ECS knows one way: SIGTERM, and SIGKILL after the task definition's `stopTimeout`.
    async fn end(&self, task: &TaskRef, how: StopMode) -> StopOutcome {
        if !self.is_ours(task) {
            return StopOutcome::OutOfReach;
        }
        let reason = format!("{OURS}{}", how.reason());
        let asked = self.client.stop_task().cluster(&self.options.cluster).task(&task.id).reason(reason);
        match asked.send().await {
            Ok(answer) => match answer.task().and_then(|task| task.last_status()) {
                Some("STOPPED" | "DEPROVISIONING") => StopOutcome::AlreadyGone,
                _ => StopOutcome::Requested,
            },
            Err(error) if error.message().is_some_and(|message| message.contains("not found")) => {
                // Whom ECS does not know yet may still start.
                match self.unknown(&task.id, Instant::now()) {
                    TaskStatus::Gone(_) => StopOutcome::AlreadyGone,
                    _ => StopOutcome::OutOfReach,
                }
            }
            Err(error) => {
                warn!(%task, error = %chain(&error), "task not stopped");
                StopOutcome::OutOfReach
            }
        }
    }

    async fn tasks(&self) -> Result<Vec<OwnedTask>, LaunchError> {
        let mut arns: Vec<String> = Vec::new();
        let mut more = None;
        loop {
            let asked = self.client.list_tasks().cluster(&self.options.cluster);
            let asked = asked.desired_status(DesiredStatus::Running).set_next_token(more);
            let answer = asked.send().await.map_err(refusal)?;
            arns.extend_from_slice(answer.task_arns());
            more = answer.next_token().map(str::to_owned);
            if more.is_none() {
                break;
            }
        }
        let mut owned = Vec::new();
        for arns in arns.chunks(AT_ONCE) {
            let asked = self.client.describe_tasks().cluster(&self.options.cluster).include(TaskField::Tags);
            let answer = asked.set_tasks(Some(arns.to_vec())).send().await.map_err(refusal)?;
            owned.extend(answer.tasks().iter().filter_map(|task| self.owned(task)));
        }
        Ok(owned)
    }

    /// DescribeTasks: 20 a second for the whole account, each for [`AT_ONCE`] tasks.
    fn max_status_batch(&self) -> usize {
        10 * AT_ONCE
    }

    fn platform(&self) -> Platform {
        Platform::Fargate
    }

    fn quota(&self) -> Option<Quota> {
        Some(QUOTA)
    }

    fn grace(&self) -> Option<Duration> {
        Some(Duration::from_secs(self.options.stop_seconds))
    }
}

impl EcsLauncher {
    fn owned(&self, task: &Task) -> Option<OwnedTask> {
        let label = |name: &str| task.tags().iter().find(|tag| tag.key() == Some(name)).and_then(|tag| tag.value());
        let stack = labels::aws(&self.options.stack);
        let (egress_id, attempt, installation) = labels::read(&stack, label)?;
        let gone = matches!(api::task_status(&described(task, &self.options.container)), TaskStatus::Gone(_));
        (!gone).then_some(OwnedTask {
            egress_id,
            attempt,
            task: self.task(task.task_arn()?),
            installation,
            started_ms: task.created_at().and_then(|at| at.to_millis().ok()),
        })
    }
}
