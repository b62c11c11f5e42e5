//! An execution of a job for each egress. A run cannot change a job's size, so there is a job for each (Terraform makes
//! them), and the smallest that is large enough is taken.
//!
//! jobs:run knows no token, so the launcher sees to it that nothing is started twice: it looks for an execution with this
//! egress and attempt in its environment before it asks, asks once, and when the answer got lost it does not ask again
//! until the platform's list would surely show what was started.

mod api;

use std::time::Duration;

use async_trait::async_trait;
use google_cloud_auth::credentials::{Builder, CacheableResource, Credentials};
use http::Extensions;
use reqwest::Method;
use reqwest::header::HeaderMap;
use serde::Deserialize;
use serde_json::{Value, json};
use spillway_cost::{Platform, Shape};
use spillway_process::Clock;
use spillway_protocol::Secret;
use spillway_protocol::ids::EgressId;
use tokio::time::Instant;
use tracing::debug;

use self::api::{duration, milliseconds, text, variable};
use crate::exit::TaskExit;
use crate::labels;
use crate::launcher::{
    ATTEMPT, EGRESS_ID, INSTALLATION, LaunchError, LaunchOrder, Launcher, OwnedTask, Quota, STACK, StopMode,
    StopOutcome, TaskRef, TaskStatus,
};
use crate::memory::{LaunchKey, Memory};
use crate::rest::{self, PlatformIdentity, Rest, Token};

const NAME: &str = "cloud-run";
const ENDPOINT: &str = "https://run.googleapis.com";
const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";
/// 180 runs a minute and region.
const QUOTA: Quota = Quota { burst: 30, per_second: 2.0 };
/// From SIGTERM to SIGKILL, when an execution is cancelled or has run too long.
const GRACE: Duration = Duration::from_secs(10);
/// Labels that the console shows in the environment of an execution.
const SHOWN: [&str; 3] = ["room", "type", "tenant"];
/// Clocks of the platform's machines differ.
const SKEW_MS: i64 = 60_000;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CloudRunOptions {
    #[serde(skip)]
    pub name: String,
    #[serde(skip)]
    pub stack: String,
    pub project: String,
    pub location: String,
    pub jobs: Vec<SizedJob>,
    /// The runner's container in them.
    pub container: String,
    /// After an answer that got lost: so long until the list surely shows what was started.
    #[serde(skip)]
    pub list_delay: Duration,
    /// Instead of Google's.
    pub endpoint: Option<String>,
    /// Instead of the process' own identity.
    pub token: Option<Secret>,
    /// What the platform's stamps are compared with.
    #[serde(skip)]
    pub clock: Clock,
}

/// A job as Terraform made it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SizedJob {
    pub name: String,
    pub cpu_milli: u32,
    pub memory_mib: u32,
    /// Its file system is memory.
    #[serde(default)]
    pub disk_gib: u32,
}

impl Default for CloudRunOptions {
    fn default() -> Self {
        Self {
            name: NAME.to_owned(),
            stack: "spillway".to_owned(),
            project: String::new(),
            location: String::new(),
            jobs: Vec::new(),
            container: "runner".to_owned(),
            list_delay: Duration::from_secs(15),
            endpoint: None,
            token: None,
            clock: Clock::host(),
        }
    }
}

impl CloudRunOptions {
    pub(crate) fn on(self, clock: &Clock) -> Self {
        Self { clock: clock.clone(), ..self }
    }
}

pub struct CloudRunLauncher {
    options: CloudRunOptions,
    rest: Rest,
    memory: Memory,
}

struct Google(Credentials);

#[async_trait]
impl PlatformIdentity for Google {
    async fn headers(&self) -> Result<HeaderMap, LaunchError> {
        match self.0.headers(Extensions::new()).await {
            Ok(CacheableResource::New { data, .. }) => Ok(data),
            // Only where one was told of before, which is never.
            Ok(CacheableResource::NotModified) => Ok(HeaderMap::new()),
            // Its own text quotes what the library has read: a file, the answer of a URL.
            Err(error) => {
                let message = "no token for Cloud Run".to_owned();
                Err(if error.is_transient() {
                    LaunchError::Transient { message, source: None }
                } else {
                    LaunchError::Misconfigured { message, source: None }
                })
            }
        }
    }
}

impl CloudRunLauncher {
    pub fn new(options: CloudRunOptions) -> Result<Self, LaunchError> {
        let identity: Box<dyn PlatformIdentity> = match &options.token {
            Some(token) => Box::new(Token(token.clone())),
            None => {
                // Google's signer takes the process' provider, and finds two of them linked and none chosen.
                let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
                let credentials = Builder::default().with_scopes([SCOPE]).build();
                Box::new(Google(credentials.map_err(|_| LaunchError::Misconfigured {
                    message: "find an identity for Cloud Run".to_owned(),
                    source: None,
                })?))
            }
        };
        let rest = Rest::new("Cloud Run", options.endpoint.as_deref().unwrap_or(ENDPOINT), identity)?;
        Ok(Self { options, rest, memory: Memory::default() })
    }

    /// `projects/…/jobs/<job>`
    fn path(&self, job: &str) -> String {
        format!("projects/{}/locations/{}/jobs/{job}", self.options.project, self.options.location)
    }

    fn task(&self, execution: &str) -> TaskRef {
        TaskRef { launcher: self.options.name.clone(), id: execution.to_owned() }
    }

    /// An execution of one of our jobs.
    fn is_ours(&self, task: &TaskRef) -> bool {
        let of = |job: &String| {
            let rest = task.id.strip_prefix(&format!("{}/executions/", self.path(job)));
            rest.is_some_and(|id| !id.is_empty() && !id.contains('/'))
        };
        task.launcher == self.options.name && self.options.jobs.iter().any(|job| of(&job.name))
    }

    /// The smallest that is large enough.
    fn job(&self, shape: Shape) -> Result<&str, LaunchError> {
        let enough = |job: &&SizedJob| job.cpu_milli >= shape.cpu_milli && job.memory_mib >= shape.memory_mib;
        let fitting = self.options.jobs.iter().filter(enough);
        let min_shape = fitting.min_by_key(|job| (job.cpu_milli, job.memory_mib));
        min_shape.map(|job| job.name.as_str()).ok_or_else(|| LaunchError::Misconfigured {
            message: format!("no job has {} vCPU/1000 and {} MiB", shape.cpu_milli, shape.memory_mib),
            source: None,
        })
    }

    /// Executions of a job, newest first, page by page until `see` has seen enough.
    async fn executions(&self, job: &str, mut see: impl FnMut(&Value) -> bool) -> Result<(), LaunchError> {
        let mut page = String::new();
        loop {
            let path = format!("v2/{}/executions?pageSize=100&pageToken={page}", self.path(job));
            let answer = self.rest.ask(Method::GET, &path, None).await?;
            if !answer.is_fine() {
                return Err(api::refused(&answer));
            }
            for execution in answer.body["executions"].as_array().into_iter().flatten() {
                if see(execution) {
                    return Ok(());
                }
            }
            page = text(&answer.body["nextPageToken"]).to_owned();
            if page.is_empty() {
                return Ok(());
            }
        }
    }

    /// The execution that was started for this. `since`: an order was sent then; without one only the newest are looked
    /// through, for what a dispatcher that died has started.
    async fn find(&self, job: &str, key: &LaunchKey, since_ms: Option<i64>) -> Result<Option<String>, LaunchError> {
        let (egress_id, attempt) = (key.0.as_str(), key.1.to_string());
        let mut found = None;
        let mut seen = 0;
        self.executions(job, |execution| {
            seen += 1;
            let ours = variable(execution, EGRESS_ID) == Some(egress_id)
                && variable(execution, ATTEMPT) == Some(&attempt)
                && variable(execution, STACK) == Some(&self.options.stack);
            if ours {
                found = execution["name"].as_str().map(str::to_owned);
            }
            let old = match since_ms {
                Some(since) => milliseconds(&execution["createTime"]).is_some_and(|at| at < since - SKEW_MS),
                None => seen >= 100,
            };
            ours || old
        })
        .await?;
        Ok(found)
    }

    fn request(&self, order: &LaunchOrder) -> Value {
        let mut env: Vec<Value> = order
            .environment(&self.options.stack)
            .into_iter()
            .map(|(name, value)| json!({"name": name, "value": value}))
            .collect();
        // A run takes no labels; whoever looks at the console reads these.
        for label in SHOWN {
            if let Some(value) = order.labels.get(label) {
                let name = format!("SPILLWAY_{}", label.to_ascii_uppercase());
                env.push(json!({"name": name, "value": labels::google(value)}));
            }
        }
        let mut overrides = json!({
            "taskCount": 1,
            "containerOverrides": [{ "name": self.options.container, "env": env }],
        });
        if let Some(max_duration) = order.max_duration {
            overrides["timeout"] = duration(max_duration).into();
        }
        json!({ "overrides": overrides })
    }

    async fn seen(&self, task: &TaskRef) -> Result<TaskStatus, LaunchError> {
        let answer = self.rest.ask(Method::GET, &format!("v2/{}", task.id), None).await?;
        if answer.status == 404 {
            return Ok(if self.memory.is_forgotten(&task.id, Instant::now()) {
                TaskStatus::Gone(TaskExit::Unknown.into())
            } else {
                TaskStatus::Unknown("Cloud Run does not know the execution (yet)".to_owned())
            });
        }
        if !answer.is_fine() {
            return Ok(TaskStatus::Unknown(answer.message()));
        }
        self.memory.seen(&task.id);
        let execution = answer.body;
        let mut one = Value::Null;
        if api::needs_task(&execution) {
            let answer = self.rest.ask(Method::GET, &format!("v2/{}/tasks", task.id), None).await?;
            if !answer.is_fine() {
                return Ok(TaskStatus::Unknown(answer.message()));
            }
            one = answer.body["tasks"][0].clone();
        }
        Ok(api::task_status(&execution, &one, self.memory.ended(&task.id)))
    }
}

#[async_trait]
impl Launcher for CloudRunLauncher {
    fn name(&self) -> &str {
        &self.options.name
    }

    async fn launch(&self, order: &LaunchOrder) -> Result<TaskRef, LaunchError> {
        let key = (order.egress_id.clone(), order.attempt);
        let launch_lock = self.memory.launch_lock(&key);
        let _turn = launch_lock.lock().await;
        if let Some(execution) = self.memory.task(&key) {
            return Ok(self.task(&execution));
        }
        let job = self.job(order.shape)?;
        let sent = self.memory.sent_at(&key);
        let since_ms = sent.map(|at| self.options.clock.unix_ns_at(at) / 1_000_000);
        if let Some(execution) = self.find(job, &key, since_ms).await? {
            debug!(egress_id = %order.egress_id, execution, "execution of an earlier call found");
            self.memory.found(&key, &execution);
            return Ok(self.task(&execution));
        }
        if sent.is_some_and(|at| at.elapsed() < self.options.list_delay) {
            let message = "whether an earlier call has started it is not known yet".to_owned();
            return Err(LaunchError::Transient { message, source: None });
        }
        // From here on our future may be dropped at any point.
        self.memory.sent(&key, Instant::now());
        let path = format!("v2/{}:run", self.path(job));
        let answer = self.rest.ask(Method::POST, &path, Some(&self.request(order))).await?;
        if !answer.is_fine() {
            let refusal = api::refused(&answer);
            if !answer.is_doubtful() || matches!(refusal, LaunchError::Capacity { .. }) {
                // It surely started nothing: the next call need not wait.
                self.memory.sent(&key, long_ago(self.options.list_delay));
            }
            return Err(refusal);
        }
        match answer.body["metadata"]["name"].as_str() {
            Some(execution) => {
                self.memory.found(&key, execution);
                Ok(self.task(execution))
            }
            None => Err(LaunchError::Transient {
                message: "Cloud Run does not name the execution".to_owned(),
                source: None,
            }),
        }
    }

    async fn status(&self, task: &TaskRef) -> TaskStatus {
        if !self.is_ours(task) {
            return TaskStatus::Unknown("not an execution of our jobs".to_owned());
        }
        self.seen(task).await.unwrap_or_else(|error| TaskStatus::Unknown(self.rest.silence(&error)))
    }

    /// Cloud Run knows one way: SIGTERM, and SIGKILL ten seconds later.
    async fn end(&self, task: &TaskRef, how: StopMode) -> StopOutcome {
        if !self.is_ours(task) {
            return StopOutcome::OutOfReach;
        }
        if let TaskStatus::Gone(_) = self.status(task).await {
            return StopOutcome::AlreadyGone;
        }
        self.memory.end(&task.id, how.reason());
        let asked = self.rest.ask(Method::POST, &format!("v2/{}:cancel", task.id), Some(&json!({}))).await;
        match rest::ended(task, asked) {
            // Whom Cloud Run does not know yet may still start.
            StopOutcome::AlreadyGone if !self.memory.is_forgotten(&task.id, Instant::now()) => StopOutcome::OutOfReach,
            ended => ended,
        }
    }

    async fn tasks(&self) -> Result<Vec<OwnedTask>, LaunchError> {
        let mut owned = Vec::new();
        for job in &self.options.jobs {
            self.executions(&job.name, |execution| {
                owned.extend(self.owned(execution));
                false
            })
            .await?;
        }
        Ok(owned)
    }

    /// Reads: 3000 a minute for the whole project, each for one execution.
    fn max_status_batch(&self) -> usize {
        30
    }

    fn platform(&self) -> Platform {
        Platform::CloudRun
    }

    fn quota(&self) -> Option<Quota> {
        Some(QUOTA)
    }

    fn grace(&self) -> Option<Duration> {
        Some(GRACE)
    }
}

impl CloudRunLauncher {
    fn owned(&self, execution: &Value) -> Option<OwnedTask> {
        let running = milliseconds(&execution["completionTime"]).is_none();
        if !running || variable(execution, STACK) != Some(&self.options.stack) {
            return None;
        }
        Some(OwnedTask {
            egress_id: EgressId::parse(variable(execution, EGRESS_ID)?).ok()?,
            attempt: variable(execution, ATTEMPT)?.parse().ok()?,
            task: self.task(execution["name"].as_str()?),
            installation: variable(execution, INSTALLATION).unwrap_or_default().to_owned(),
            started_ms: milliseconds(&execution["createTime"]),
        })
    }
}

/// Further back than `list_delay`, and never before time began.
fn long_ago(list_delay: Duration) -> Instant {
    let now = Instant::now();
    now.checked_sub(list_delay + Duration::from_secs(1)).unwrap_or(now)
}
