//! An execution of a job for each egress. A run cannot change a job's size, so Terraform creates a job for each, and the
//! smallest that is large enough is run.
//!
//! jobs:run takes no idempotency token, so the launcher prevents a second start: it looks for an execution with this egress
//! and attempt in its environment, sends one order, and when the answer is lost it sends no other until the list of
//! executions surely shows what was started. Everything runs in the caller's task.

mod api;
mod links;
mod options;

use std::time::Duration;

use async_trait::async_trait;
use google_cloud_auth::credentials::{Builder, CacheableResource, Credentials};
use http::Extensions;
use reqwest::Method;
use reqwest::header::HeaderMap;
use serde_json::{Value, json};
use spillway_cost::Platform;
use spillway_protocol::ids::EgressId;
use tokio::time::Instant;

use self::api::{duration, variable};
pub use self::options::{CloudRunOptions, SizedJob};
use crate::labels;
use crate::launcher::{
    ATTEMPT, EGRESS_ID, INSTALLATION, LaunchError, LaunchOrder, Launcher, OwnedTask, Quota, STACK, StopMode,
    StopOutcome, TaskLog, TaskRef, TaskStatus,
};
use crate::links::TaskLinks;
use crate::memory::{LaunchKey, Memory};
use crate::rest::{self, PlatformIdentity, Rest, Token, milliseconds, text};

const ENDPOINT: &str = "https://run.googleapis.com";
const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";
/// Google allows 180 runs a minute and region.
const QUOTA: Quota = Quota { burst: 30, per_second: 2.0 };
/// From SIGTERM to SIGKILL, when an execution is cancelled or reaches its timeout.
const GRACE: Duration = Duration::from_secs(10);
/// Labels that are repeated in an execution's environment, where the console shows them.
const SHOWN: [&str; 3] = ["room", "type", "tenant"];
/// Difference allowed between our clock and the platform's.
const SKEW_MS: i64 = 60_000;

/// One target on Cloud Run.
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
            // Answered only to a request with an entity tag, and none is sent.
            Ok(CacheableResource::NotModified) => Ok(HeaderMap::new()),
            // The library's own text quotes what it has read: a file, the answer of a URL.
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
    /// Makes no request.
    ///
    /// # Errors
    /// `Misconfigured`: the process has no identity, or no HTTP client could be made.
    pub fn new(options: CloudRunOptions) -> Result<Self, LaunchError> {
        let identity: Box<dyn PlatformIdentity> = match &options.token {
            Some(token) => Box::new(Token(token.clone())),
            None => {
                // Google's signer uses the process' default provider; two are linked, so none is chosen automatically.
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

    /// Whether the task is an execution of one of our jobs.
    fn is_ours(&self, task: &TaskRef) -> bool {
        let of = |job: &String| {
            let rest = task.id.strip_prefix(&format!("{}/executions/", self.path(job)));
            rest.is_some_and(|id| !id.is_empty() && !id.contains('/'))
        };
        task.launcher == self.options.name && self.options.jobs.iter().any(|job| of(&job.name))
    }

    /// The smallest with the image for this order that is large enough.
    fn job(&self, order: &LaunchOrder) -> Result<&str, LaunchError> {
        let LaunchOrder { shape, page, .. } = order;
        let enough = |job: &&SizedJob| {
            job.page == *page && job.cpu_milli >= shape.cpu_milli && job.memory_mib >= shape.memory_mib
        };
        let fitting = self.options.jobs.iter().filter(enough);
        let min_shape = fitting.min_by_key(|job| (job.cpu_milli, job.memory_mib));
        min_shape.map(|job| job.name.as_str()).ok_or_else(|| LaunchError::Misconfigured {
            message: format!("no job has {} vCPU/1000 and {} MiB", shape.cpu_milli, shape.memory_mib),
            source: None,
        })
    }

    /// Gives the executions of a job to `see`, newest first, page by page, until it returns true.
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

    /// The execution that was started for this key. `since_ms`: when an order was sent; without one only the newest hundred are
    /// looked through, for what an earlier dispatcher has started.
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
        // A run takes no labels, so the console's readers find them here.
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

    fn absent(&self, task: &TaskRef) -> TaskStatus {
        self.memory.absent(&task.id, Instant::now(), "Cloud Run does not know the execution (yet)")
    }

    /// Sends an order, unless an earlier one without answer may still turn up in the list. Returns the execution's name.
    async fn start(&self, key: &LaunchKey, order: &LaunchOrder) -> Result<String, LaunchError> {
        if self.memory.sent_at(key).is_some_and(|at| at.elapsed() < self.options.list_delay) {
            let message = "whether an earlier call has started it is not known yet".to_owned();
            return Err(LaunchError::Transient { message, source: None });
        }
        let path = format!("v2/{}:run", self.path(self.job(order)?));
        // From here on our future may be dropped at any point.
        self.memory.sent(key, Instant::now());
        let answer = self.rest.ask(Method::POST, &path, Some(&self.request(order))).await?;
        if !answer.is_fine() {
            let refusal = api::refused(&answer);
            if !answer.is_doubtful() || matches!(refusal, LaunchError::Capacity { .. }) {
                // It surely started nothing: the next call need not wait.
                self.memory.sent(key, long_ago(self.options.list_delay));
            }
            return Err(refusal);
        }
        answer.body["metadata"]["name"].as_str().map(str::to_owned).ok_or_else(|| LaunchError::Transient {
            message: "Cloud Run does not name the execution".to_owned(),
            source: None,
        })
    }

    async fn seen(&self, task: &TaskRef) -> Result<TaskStatus, LaunchError> {
        let answer = self.rest.ask(Method::GET, &format!("v2/{}", task.id), None).await?;
        if answer.status == 404 {
            return Ok(self.absent(task));
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
        let find = async {
            let since_ms = self.memory.sent_at(&key).map(|at| self.options.clock.unix_ns_at(at) / 1_000_000);
            self.find(self.job(order)?, &key, since_ms).await
        };
        let execution = self.memory.launch(&key, find, self.start(&key, order)).await?;
        Ok(self.task(&execution))
    }

    async fn status(&self, task: &TaskRef) -> TaskStatus {
        if !self.is_ours(task) {
            return TaskStatus::Unknown("not an execution of our jobs".to_owned());
        }
        rest::status(self.seen(task).await)
    }

    /// Cloud Run has one kind of stop: SIGTERM, and SIGKILL ten seconds later.
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
            // An execution that is not listed yet may still start.
            StopOutcome::AlreadyGone if !matches!(self.absent(task), TaskStatus::Gone(_)) => StopOutcome::OutOfReach,
            ended => ended,
        }
    }

    async fn log(&self, task: &TaskRef) -> TaskLog {
        TaskLog::At(links::log_of(&task.id, &self.options))
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

    /// Google allows 3000 reads a minute for the whole project, one execution each.
    fn max_status_batch(&self) -> usize {
        30
    }

    fn platform(&self) -> Platform {
        Platform::CloudRun
    }

    fn takes_pages(&self) -> bool {
        self.options.jobs.iter().any(|job| job.page)
    }

    fn quota(&self) -> Option<Quota> {
        Some(QUOTA)
    }

    fn grace(&self) -> Option<Duration> {
        Some(GRACE)
    }

    fn links(&self, task: &TaskRef) -> TaskLinks {
        if self.is_ours(task) { links::of(&task.id, &self.options) } else { TaskLinks::default() }
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

/// Longer ago than `list_delay`; now, where the monotonic clock does not reach back so far.
fn long_ago(list_delay: Duration) -> Instant {
    let now = Instant::now();
    now.checked_sub(list_delay + Duration::from_secs(1)).unwrap_or(now)
}
