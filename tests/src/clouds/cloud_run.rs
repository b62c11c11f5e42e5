//! Cloud Run jobs: run; executions and their one task got, listed and cancelled.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Result;
use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use super::endpoint::{ApiCall, ApiEndpoint, CloudApi, FakeCloud};
use super::fault::{CallQuota, CloudFault};
use super::policy::Permission;
use super::task_process::{Exit, TaskProcess};
use super::web::{HttpReply, HttpRequest};
use super::{CloudSetup, Vendor};
use crate::grants;

/// Jobs by name: vCPU and memory of their template.
pub type Jobs = BTreeMap<String, (&'static str, &'static str)>;

/// The fake.
pub type CloudRun = FakeCloud<Location>;

/// State of the jobs of one project and location.
pub struct Location {
    endpoint: ApiEndpoint,
    jobs: Jobs,
    state: Mutex<LocationState>,
}

struct LocationState {
    bucket: CallQuota,
    /// In the order they were made.
    executions: Vec<Execution>,
    /// Who hears of ends.
    listeners: Vec<mpsc::UnboundedSender<Value>>,
}

struct Execution {
    name: String,
    job: String,
    env: BTreeMap<String, String>,
    timeout: Duration,
    created: DateTime<Utc>,
    started: Option<DateTime<Utc>>,
    completed: Option<DateTime<Utc>>,
    task_process: Option<TaskProcess>,
    /// Why it is to end.
    stop: watch::Sender<Option<StopCause>>,
    end: Option<ExecutionEnd>,
    oom: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StopCause {
    Cancelled,
    TimedOut,
}

#[derive(Clone, Debug)]
enum ExecutionEnd {
    Exit(Exit),
    Cancelled,
    TimedOut,
    /// A reason and a message.
    NeverRan(String, String),
}

impl CloudRun {
    /// Starts with these jobs and no executions.
    pub async fn start(setup: CloudSetup, jobs: Jobs) -> Result<Self> {
        let state = LocationState { bucket: CallQuota::new(180, 3.0), executions: Vec::new(), listeners: Vec::new() };
        // Given on each job, and so on what it runs.
        let on = |job: &String| {
            let job = format!("projects/*/locations/*/jobs/{job}");
            [format!("{job}/*"), job]
        };
        let endpoint = ApiEndpoint::new(setup, || grants::google_on("dispatcher", jobs.keys().flat_map(on)))?;
        Self::open(Location { endpoint, jobs, state: Mutex::new(state) }).await
    }

    /// The kernel kills the task of an execution because memory is exhausted.
    pub fn out_of_memory(&self, name: &str) {
        self.cloud.change(name, |execution| execution.oom = true);
        self.strike(name);
    }

    /// Executions that were created for an egress.
    pub fn executions_of(&self, egress_id: &str) -> Vec<String> {
        let state = self.cloud.state();
        let of = |it: &&Execution| it.env.get("SPILLWAY_EGRESS_ID").is_some_and(|id| id == egress_id);
        state.executions.iter().filter(of).map(|it| it.name.clone()).collect()
    }

    /// Log entry for the end of every execution from now on.
    pub fn entries(&self) -> mpsc::UnboundedReceiver<Value> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.cloud.state().listeners.push(sender);
        receiver
    }

    /// The log entry for the end of an execution, also before it.
    pub fn entry(&self, name: &str) -> Value {
        entry(name)
    }

    /// An execution as GET shows it.
    pub fn show(&self, name: &str) -> Value {
        let state = self.cloud.state();
        state.executions.iter().find(|it| it.name == name).map_or(Value::Null, |it| self.cloud.shown(it))
    }
}

impl Vendor for CloudRun {
    const LAUNCH: &str = "run";
    const STATUS: &str = "get";

    fn strike(&self, task: &str) {
        self.cloud.task_process(task).inspect(TaskProcess::kill);
    }

    fn task_count(&self, egress_id: &str) -> usize {
        self.executions_of(egress_id).len()
    }
}

impl CloudApi for Location {
    fn endpoint(&self) -> &ApiEndpoint {
        &self.endpoint
    }

    fn read(&self, request: &HttpRequest) -> Result<ApiCall, HttpReply> {
        if !request.header("authorization").starts_with("Bearer ") {
            let message = "Request is missing required authentication credential.";
            return Err(refused(401, "UNAUTHENTICATED", message));
        }
        if self.endpoint.setup.issued.as_ref().is_some_and(|issued| !issued.accepts(request.header("authorization"))) {
            return Err(refused(401, "UNAUTHENTICATED", "Request had invalid authentication credentials."));
        }
        let nowhere = || refused(404, "NOT_FOUND", "no such method");
        let path = request.path.strip_prefix("/v2/").ok_or_else(nowhere)?;
        let (path, verb) = path.split_once(':').unwrap_or((path, ""));
        let (operation, permissions): (&str, &[&str]) = match (request.method.as_str(), verb) {
            ("POST", "run") => ("run", &["run.jobs.run", "run.jobs.runWithOverrides"]),
            ("POST", "cancel") => ("cancel", &["run.executions.cancel"]),
            ("GET", "") if path.ends_with("/executions") => ("list", &["run.executions.list"]),
            ("GET", "") if path.ends_with("/tasks") => ("tasks", &["run.tasks.list"]),
            ("GET", "") => ("get", &["run.executions.get"]),
            _ => return Err(nowhere()),
        };
        let needs = permissions.iter().map(|permission| Permission::new(*permission, path)).collect();
        Ok(ApiCall { operation, subject: path.to_owned(), needs })
    }

    fn denied(&self, Permission { action, resource, .. }: &Permission) -> HttpReply {
        let message = format!("Permission '{action}' denied on resource '{resource}' (or resource may not exist).");
        refused(403, "PERMISSION_DENIED", &message)
    }

    fn fault_reply(&self, fault: CloudFault) -> Option<HttpReply> {
        Some(match fault {
            CloudFault::Throttled => refused(429, "RESOURCE_EXHAUSTED", "Quota exceeded for quota metric 'Job runs'")
                .with("retry-after", "2"),
            CloudFault::QuotaReached => {
                refused(429, "RESOURCE_EXHAUSTED", "The number of instances of running executions is exhausted")
            }
            CloudFault::NoCapacity => refused(503, "UNAVAILABLE", "There is no capacity in this region right now."),
            CloudFault::Busy => {
                refused(409, "ABORTED", "Conflict for resource: version was specified but current is another.")
            }
            CloudFault::Expired | CloudFault::Skewed => {
                refused(401, "UNAUTHENTICATED", "Request had invalid authentication credentials.")
            }
            _ => refused(503, "UNAVAILABLE", "The service is currently unavailable."),
        })
    }

    fn execute(
        self: &Arc<Self>,
        ApiCall { operation, subject, .. }: &ApiCall,
        request: &HttpRequest,
        fault: Option<CloudFault>,
    ) -> HttpReply {
        match *operation {
            "run" => self.run(subject, &request.json(), fault == Some(CloudFault::Doubled)),
            "cancel" => self.cancel(subject),
            "list" => self.list(subject.trim_end_matches("/executions"), &request.query),
            "tasks" => self.tasks(subject.trim_end_matches("/tasks")),
            _ => self.get(subject),
        }
    }
}

impl Location {
    fn state(&self) -> MutexGuard<'_, LocationState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, name: &str, change: impl FnOnce(&mut Execution)) {
        if let Some(execution) = self.state().executions.iter_mut().find(|it| it.name == name) {
            change(execution);
        }
    }

    fn task_process(&self, name: &str) -> Option<TaskProcess> {
        self.state().executions.iter().find(|it| it.name == name)?.task_process.clone()
    }

    /// To every call but the one that made it.
    fn knows(&self, execution: &Execution) -> bool {
        let age = (Utc::now() - execution.created).to_std().unwrap_or_default();
        age >= self.endpoint.setup.unseen
    }

    fn run(self: &Arc<Self>, path: &str, body: &Value, twice: bool) -> HttpReply {
        let job = path.rsplit('/').next().unwrap_or_default();
        if !self.jobs.contains_key(job) {
            return refused(404, "NOT_FOUND", &format!("Resource '{job}' of kind 'JOB' in region does not exist."));
        }
        let overrides = &body["overrides"];
        let container = &overrides["containerOverrides"][0];
        if container["name"] != "runner" || overrides["taskCount"] != 1 {
            return refused(400, "INVALID_ARGUMENT", "overrides name no container of the job");
        }
        let given = container["env"].as_array().into_iter().flatten();
        let env: BTreeMap<String, String> = given.map(|it| (text(&it["name"]), text(&it["value"]))).collect();
        if env.iter().any(|(name, value)| name.len() + value.len() > 32768) {
            return refused(400, "INVALID_ARGUMENT", "environment variable is too long");
        }
        let timeout = match overrides["timeout"].as_str() {
            None => Some(Duration::from_secs(600)),
            Some(text) => text.strip_suffix('s').and_then(|s| s.parse().ok()).map(Duration::from_secs_f64),
        };
        let Some(timeout) = timeout.filter(|timeout| *timeout <= Duration::from_secs(168 * 3600)) else {
            return refused(400, "INVALID_ARGUMENT", "timeout is no duration that is allowed");
        };
        if let Err(wait) = self.state().bucket.take() {
            return refused(429, "RESOURCE_EXHAUSTED", "Quota exceeded for quota metric 'Job runs'")
                .with("retry-after", wait.as_secs().max(1).to_string());
        }
        let name = self.make(path, job, &env, timeout);
        if twice {
            self.make(path, job, &env, timeout);
        }
        let state = self.state();
        let execution = state.executions.iter().find(|it| it.name == name);
        let mut metadata = execution.map_or(Value::Null, |it| self.shown(it));
        metadata["@type"] = "type.googleapis.com/google.cloud.run.v2.Execution".into();
        let operation = name.replace("/jobs/", "/operations/").replace("/executions/", "-");
        HttpReply::json(200, json!({"name": operation, "metadata": metadata, "done": false}))
    }

    fn make(self: &Arc<Self>, path: &str, job: &str, env: &BTreeMap<String, String>, timeout: Duration) -> String {
        let id = format!("{job}-{:05x}", rand::random::<u64>() & 0xf_ffff_ffff);
        let name = format!("{path}/executions/{id}");
        let stop = watch::Sender::new(None);
        let mut all = self.endpoint.setup.environment.clone();
        all.extend(env.clone());
        for (variable, value) in [
            ("CLOUD_RUN_JOB", job),
            ("CLOUD_RUN_EXECUTION", &id),
            ("CLOUD_RUN_TASK_INDEX", "0"),
            ("CLOUD_RUN_TASK_ATTEMPT", "0"),
            ("CLOUD_RUN_TASK_COUNT", "1"),
        ] {
            all.insert(variable.to_owned(), value.to_owned());
        }
        self.state().executions.push(Execution {
            name: name.clone(),
            job: job.to_owned(),
            env: env.clone(),
            timeout,
            created: Utc::now(),
            started: None,
            completed: None,
            task_process: None,
            stop: stop.clone(),
            end: None,
            oom: false,
        });
        let (cloud, of, stop) = (Arc::clone(self), name.clone(), stop.subscribe());
        tokio::spawn(async move { cloud.live(&of, &id, all, timeout, stop).await });
        name
    }

    async fn live(
        self: Arc<Self>,
        name: &str,
        id: &str,
        env: BTreeMap<String, String>,
        timeout: Duration,
        mut stop: watch::Receiver<Option<StopCause>>,
    ) {
        let early = tokio::select! {
            () = tokio::time::sleep(self.endpoint.setup.takes(self.endpoint.setup.provisioning + self.endpoint.setup.pulling)) => false,
            _ = stop.wait_for(Option::is_some) => true,
        };
        let end = if early {
            ExecutionEnd::Cancelled
        } else {
            let started = match self.endpoint.start_failure() {
                Some(message) => Err(message),
                None => TaskProcess::start(&self.endpoint.setup, &format!("run-{id}"), &env, &[])
                    .map_err(|error| format!("CONTAINER_MISSING: {error}")),
            };
            match started {
                Err(message) => {
                    let (reason, message) = message.split_once(": ").unwrap_or(("", message.as_str()));
                    ExecutionEnd::NeverRan(reason.to_owned(), message.to_owned())
                }
                Ok(task_process) => {
                    self.change(name, |execution| {
                        execution.task_process = Some(task_process.clone());
                        execution.started = Some(Utc::now());
                    });
                    self.watch(&task_process, timeout, &mut stop).await
                }
            }
        };
        self.change(name, |execution| {
            execution.completed = Some(Utc::now());
            execution.end = Some(end);
        });
        self.state().listeners.retain(|listener| listener.send(entry(name)).is_ok());
    }

    async fn watch(
        &self,
        task_process: &TaskProcess,
        timeout: Duration,
        stop: &mut watch::Receiver<Option<StopCause>>,
    ) -> ExecutionEnd {
        let why = tokio::select! {
            exit = task_process.exit() => return ExecutionEnd::Exit(exit),
            why = stop.wait_for(Option::is_some) => why.ok().and_then(|why| *why).unwrap_or(StopCause::Cancelled),
            () = tokio::time::sleep(timeout) => StopCause::TimedOut,
        };
        task_process.stop(self.endpoint.setup.grace).await;
        match why {
            StopCause::Cancelled => ExecutionEnd::Cancelled,
            StopCause::TimedOut => ExecutionEnd::TimedOut,
        }
    }

    fn cancel(&self, path: &str) -> HttpReply {
        let state = self.state();
        let known = state.executions.iter().find(|it| it.name == path && self.knows(it));
        let Some(execution) = known else { return missing(path) };
        if execution.completed.is_some() {
            return refused(400, "FAILED_PRECONDITION", "Execution is already completed.");
        }
        execution.stop.send_replace(Some(StopCause::Cancelled));
        HttpReply::json(200, json!({"name": "operations/cancel", "metadata": self.shown(execution), "done": false}))
    }

    fn get(&self, path: &str) -> HttpReply {
        let state = self.state();
        let found = state.executions.iter().find(|it| it.name == path && self.knows(it));
        found.map_or_else(|| missing(path), |it| HttpReply::json(200, self.shown(it)))
    }

    fn tasks(&self, path: &str) -> HttpReply {
        let state = self.state();
        let Some(execution) = state.executions.iter().find(|it| it.name == path) else { return missing(path) };
        let limit = self.jobs.get(&execution.job).map_or("", |(_, memory)| memory).trim_end_matches("Mi");
        let result = match &execution.end {
            Some(ExecutionEnd::Exit(_)) if execution.oom => {
                json!({"termSignal": 9, "status": {"code": 13, "message": format!("Memory limit of {limit} MiB exceeded with {limit} MiB used.")}})
            }
            Some(ExecutionEnd::Exit(Exit::Signal(signal))) => json!({"termSignal": signal}),
            // Zeros are left out.
            Some(ExecutionEnd::Exit(Exit::Status(0))) => json!({}),
            Some(ExecutionEnd::Exit(Exit::Status(status))) => {
                json!({"exitCode": status, "status": {"code": 2, "message": format!("Container called exit({status}).")}})
            }
            Some(ExecutionEnd::TimedOut) => {
                json!({"status": {"code": 4, "message": "The configured timeout was reached."}})
            }
            _ => json!({}),
        };
        HttpReply::json(200, json!({"tasks": [{"name": format!("{path}/tasks/0"), "lastAttemptResult": result}]}))
    }

    fn list(&self, job: &str, query: &str) -> HttpReply {
        let request = |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        let size: usize = request("pageSize").and_then(|size| size.parse().ok()).unwrap_or(100).min(100);
        let from: usize = request("pageToken").and_then(|from| from.parse().ok()).unwrap_or(0);
        let state = self.state();
        let ours = |it: &&Execution| it.name.starts_with(&format!("{job}/executions/")) && self.knows(it);
        let of_job: Vec<_> = state.executions.iter().rev().filter(ours).collect();
        let page: Vec<Value> = of_job.iter().skip(from).take(size).map(|it| self.shown(it)).collect();
        let next = if from + size < of_job.len() { (from + size).to_string() } else { String::new() };
        HttpReply::json(200, json!({"executions": page, "nextPageToken": next}))
    }

    fn shown(&self, execution: &Execution) -> Value {
        let (cpu, memory) = self.jobs.get(&execution.job).copied().unwrap_or_default();
        let env: Vec<Value> = execution.env.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
        let (state, message, counts) = match &execution.end {
            None if execution.task_process.is_some() => ("CONDITION_RECONCILING", "", json!({"runningCount": 1})),
            None => ("CONDITION_PENDING", "Waiting for execution to complete.", json!({})),
            Some(ExecutionEnd::Exit(Exit::Status(0))) => ("CONDITION_SUCCEEDED", "", json!({"succeededCount": 1})),
            Some(ExecutionEnd::Cancelled) => {
                ("CONDITION_FAILED", "Execution was cancelled.", json!({"cancelledCount": 1}))
            }
            Some(ExecutionEnd::NeverRan(_, message)) => {
                ("CONDITION_FAILED", message.as_str(), json!({"failedCount": 1}))
            }
            Some(_) => ("CONDITION_FAILED", "Task failed with message.", json!({"failedCount": 1})),
        };
        let mut completed = json!({"type": "Completed", "state": state, "message": message});
        if matches!(execution.end, Some(ExecutionEnd::Cancelled)) {
            completed["executionReason"] = "CANCELLED".into();
        }
        if let Some(ExecutionEnd::NeverRan(reason, _)) = &execution.end {
            completed["reason"] = reason.as_str().into();
        }
        let mut shown = json!({
            "name": execution.name, "job": execution.job, "taskCount": 1, "parallelism": 1,
            "createTime": iso(execution.created), "conditions": [completed],
            "template": {
                "containers": [{"name": "runner", "env": env, "resources": {"limits": {"cpu": cpu, "memory": memory}}}],
                "timeout": format!("{}s", execution.timeout.as_secs()), "executionEnvironment": "EXECUTION_ENVIRONMENT_GEN2",
            },
        });
        for (name, at) in [("startTime", execution.started), ("completionTime", execution.completed)] {
            if let Some(at) = at {
                shown[name] = iso(at).into();
            }
        }
        for (name, count) in counts.as_object().into_iter().flatten() {
            shown[name.as_str()] = count.clone();
        }
        shown
    }
}

/// As Cloud Logging writes it down: the execution without its job and region.
fn entry(execution: &str) -> Value {
    let part = |at: usize| execution.split('/').nth(at).unwrap_or_default();
    let (project, location, job, name) = (part(1), part(3), part(5), part(7));
    json!({
        "insertId": "1a2b3c", "logName": format!("projects/{project}/logs/cloudaudit.googleapis.com%2Fsystem_event"),
        "severity": "ERROR", "timestamp": iso(Utc::now()),
        "resource": {"type": "cloud_run_job", "labels": {"job_name": job, "location": location, "project_id": project}},
        "protoPayload": {
            "@type": "type.googleapis.com/google.cloud.audit.AuditLog", "serviceName": "run.googleapis.com",
            "methodName": "/Jobs.RunJob", "resourceName": format!("namespaces/{project}/executions/{name}"),
            "status": {"code": 10, "message": format!("Execution {name} has failed to complete.")},
            "response": {"metadata": {"name": name}, "status": {"failedCount": 1}},
        },
    })
}

fn missing(path: &str) -> HttpReply {
    refused(404, "NOT_FOUND", &format!("Resource '{path}' of kind 'EXECUTION' does not exist."))
}

fn refused(code: u16, status: &str, message: &str) -> HttpReply {
    HttpReply::json(code, json!({"error": {"code": code, "message": message, "status": status}}))
}

fn iso(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Micros, true)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
