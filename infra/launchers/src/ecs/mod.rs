//! A Fargate task for each egress: RunTask with a client token, so that ECS itself starts no task twice. Everything runs in the
//! caller's task.
//!
//! One task definition serves all sizes, and a second one web pages: CPU, memory and disk are overrides. Terraform creates it,
//! with the image, the log driver, `stopTimeout` 120 and the runner's secrets from the secret store (`secrets`; the names are in
//! the runner's module `container`). ARM64 needs another task definition and spot a capacity provider: each is a launcher of its
//! own.

mod api;
pub mod event;
mod links;
mod options;
mod sdk;
mod subnets;

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use aws_config::BehaviorVersion;
use aws_sdk_ecs::Client;
use aws_sdk_ecs::config::retry::RetryConfig;
use aws_sdk_ecs::config::timeout::TimeoutConfig;
use aws_sdk_ecs::config::{Credentials, Region, SharedCredentialsProvider};
use aws_sdk_ecs::error::ProvideErrorMetadata;
use aws_sdk_ecs::operation::run_task::RunTaskError;
use aws_sdk_ecs::operation::run_task::builders::RunTaskFluentBuilder;
use aws_sdk_ecs::types::{
    AssignPublicIp, AwsVpcConfiguration, CapacityProviderStrategyItem, ContainerOverride, DesiredStatus,
    EphemeralStorage, KeyValuePair, LaunchType, NetworkConfiguration, Tag, Task, TaskField, TaskOverride,
};
use aws_smithy_http_client::{Builder, tls};
use spillway_cost::{Capacity, Platform};
use spillway_process::chain;
use tokio::time::Instant;
use tracing::{debug, warn};

use self::api::OURS;
pub use self::options::EcsOptions;
use self::sdk::{described, refusal};
use self::subnets::Subnets;
use crate::labels;
use crate::launcher::{
    LaunchError, LaunchOrder, Launcher, OwnedTask, Quota, StopMode, StopOutcome, TaskLog, TaskRef, TaskStatus,
};
use crate::links::TaskLinks;
use crate::memory::Memory;

/// Task group of every runner; EventBridge rules filter on it.
const GROUP: &str = "egress";
/// Most tasks in one DescribeTasks.
const AT_ONCE: usize = 100;
const CONNECT: Duration = Duration::from_secs(3);
const ANSWER: Duration = Duration::from_secs(12);
/// Fargate allows 20 a second and bursts of 100; a tenth is left for others in the account.
const QUOTA: Quota = Quota { burst: 90, per_second: 18.0 };

/// One target on Fargate.
pub struct EcsLauncher {
    options: EcsOptions,
    client: Client,
    /// For tasks that ECS does not know; RunTask answers before DescribeTasks knows the task.
    memory: Memory,
    subnets: Mutex<Subnets>,
}

impl EcsLauncher {
    /// Reads the configured or the machine's own credentials. Makes no request to ECS.
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
            // The caller retries: it keeps the quota of all launches.
            .retry_config(RetryConfig::disabled())
            .timeout_config(
                TimeoutConfig::builder().connect_timeout(CONNECT).operation_attempt_timeout(ANSWER).build(),
            );
        if let Some(endpoint) = &options.endpoint {
            config = config.endpoint_url(endpoint);
        }
        let subnets = Mutex::new(Subnets::new(options.subnets.clone()));
        Self { client: Client::from_conf(config.build()), options, memory: Memory::default(), subnets }
    }

    fn task(&self, arn: &str) -> TaskRef {
        TaskRef { launcher: self.options.name.clone(), id: arn.to_owned() }
    }

    /// Whether this is a task of our cluster: `arn:aws:ecs:<region>:<account>:task/<cluster>/<id>`.
    fn is_ours(&self, task: &TaskRef) -> bool {
        let cluster = self.options.cluster.rsplit('/').next().unwrap_or_default();
        let place = task.id.split_once(":task/").map(|(_, rest)| rest).filter(|_| task.id.starts_with("arn:"));
        task.launcher == self.options.name
            && place.and_then(|rest| rest.split_once('/')).is_some_and(|(of, id)| of == cluster && !id.is_empty())
    }

    /// A repeated order may become another request, with other subnets: then ECS answers the same token with a conflict that
    /// names the task it has.
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
        let task_definition = order.image(&options.task_definition, options.page_task_definition.as_deref());
        let tags = labels::of(order, &options.stack).into_iter();
        let tags = tags.map(|(key, value)| Tag::builder().key(labels::aws(&key)).value(labels::aws(&value)).build());
        let request = self
            .client
            .run_task()
            .cluster(&options.cluster)
            .task_definition(task_definition)
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

    /// A refusal for capacity, as one of the zone where other zones may have room.
    fn elsewhere(&self, refused: LaunchError, subnets: &[String]) -> LaunchError {
        match refused {
            LaunchError::Capacity { message } if self.subnets().were_full(subnets, Instant::now()) => {
                LaunchError::ZoneCapacity { message: format!("{message} ({})", subnets.join(", ")) }
            }
            other => other,
        }
    }

    fn absent(&self, arn: &str) -> TaskStatus {
        self.memory.absent(arn, Instant::now(), "ECS does not know the task (yet)")
    }

    /// Statuses by ARN, of at most [`AT_ONCE`] tasks.
    async fn describe(&self, arns: &[&str]) -> Result<HashMap<String, TaskStatus>, String> {
        let asked = self.client.describe_tasks().cluster(&self.options.cluster);
        let asked = asked.set_tasks(Some(arns.iter().map(|arn| (*arn).to_owned()).collect()));
        let answer = asked.send().await.map_err(|error| format!("ECS did not answer: {}", chain(&error)))?;
        let seen = answer.tasks().iter().filter_map(|task| {
            Some((task.task_arn()?.to_owned(), api::task_status(&described(task, &self.options.container))))
        });
        let mut seen: HashMap<_, _> = seen.collect();
        seen.keys().for_each(|arn| self.memory.seen(arn));
        for failure in answer.failures() {
            let Some(arn) = failure.arn() else { continue };
            let task_status = match failure.reason() {
                Some("MISSING") => self.absent(arn),
                other => TaskStatus::Unknown(other.unwrap_or("ECS does not say why").to_owned()),
            };
            seen.insert(arn.to_owned(), task_status);
        }
        Ok(seen)
    }
}

/// Client token of an order: at most sixty-four characters; attempts differ at its end.
fn token(order: &LaunchOrder) -> String {
    let token = format!("{}:{}", order.egress_id, order.attempt);
    token[token.len().saturating_sub(64)..].to_owned()
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
                // The token belongs to a task whose request had other subnets; it is this order's task.
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

    /// ECS has one kind of stop: SIGTERM, and SIGKILL after the task definition's `stopTimeout`.
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
                // A task that ECS does not know yet may still start.
                match self.absent(&task.id) {
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

    async fn log(&self, task: &TaskRef) -> TaskLog {
        TaskLog::At(links::log_of(&task.id, &self.options))
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

    /// AWS allows 20 DescribeTasks a second for the whole account, [`AT_ONCE`] tasks each.
    fn max_status_batch(&self) -> usize {
        10 * AT_ONCE
    }

    fn platform(&self) -> Platform {
        Platform::Fargate
    }

    fn takes_pages(&self) -> bool {
        self.options.page_task_definition.is_some()
    }

    fn quota(&self) -> Option<Quota> {
        Some(QUOTA)
    }

    fn grace(&self) -> Option<Duration> {
        Some(Duration::from_secs(self.options.stop_seconds))
    }

    fn links(&self, task: &TaskRef) -> TaskLinks {
        if self.is_ours(task) { links::of(&task.id, &self.options).unwrap_or_default() } else { TaskLinks::default() }
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
