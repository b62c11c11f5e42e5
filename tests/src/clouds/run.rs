//! Cloud Run jobs: run, and executions and their one task as they are seen, listed and cancelled.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Result;
use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use super::door::{Call, Cloud, Desk, Fake};
use super::fault::{Bucket, Fault};
use super::guest::{Exit, Guest};
use super::policy::Need;
use super::web::{Asked, Reply};
use super::{Place, Vendor};
use crate::grants;

/// Jobs by name: vCPU and memory as their template says.
pub type Jobs = BTreeMap<String, (&'static str, &'static str)>;

pub type CloudRun = Fake<Location>;

/// The jobs of a project in one place.
pub struct Location {
    desk: Desk,
    jobs: Jobs,
    state: Mutex<State>,
}

struct State {
    bucket: Bucket,
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
    guest: Option<Guest>,
    /// Why it is to end.
    stop: watch::Sender<Option<Stop>>,
    end: Option<End>,
    oom: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    Cancelled,
    TimedOut,
}

#[derive(Clone, Debug)]
enum End {
    Exit(Exit),
    Cancelled,
    TimedOut,
    NeverRan(String),
}

impl CloudRun {
    pub async fn start(place: Place, jobs: Jobs) -> Result<Self> {
        let state = State { bucket: Bucket::new(180, 3.0), executions: Vec::new(), listeners: Vec::new() };
        // Given on each job, and so on what it runs.
        let on = |job: &String| {
            let job = format!("projects/*/locations/*/jobs/{job}");
            [format!("{job}/*"), job]
        };
        let desk = Desk::new(place, || grants::google_on("dispatcher", jobs.keys().flat_map(on)))?;
        Self::open(Location { desk, jobs, state: Mutex::new(state) }).await
    }

    pub fn out_of_memory(&self, name: &str) {
        self.cloud.change(name, |execution| execution.oom = true);
        self.strike(name);
    }

    /// Executions that were made for this egress.
    pub fn executions_of(&self, egress_id: &str) -> Vec<String> {
        let state = self.cloud.state();
        let of = |it: &&Execution| it.env.get("SPILLWAY_EGRESS_ID").is_some_and(|id| id == egress_id);
        state.executions.iter().filter(of).map(|it| it.name.clone()).collect()
    }

    /// The log's entry for the end of every execution from now on.
    pub fn entries(&self) -> mpsc::UnboundedReceiver<Value> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.cloud.state().listeners.push(sender);
        receiver
    }

    /// The entry that an execution's end has, or will have.
    pub fn entry(&self, name: &str) -> Value {
        entry(name)
    }

    pub fn show(&self, name: &str) -> Value {
        let state = self.cloud.state();
        state.executions.iter().find(|it| it.name == name).map_or(Value::Null, |it| self.cloud.shown(it))
    }
}

impl Vendor for CloudRun {
    const LAUNCH: &str = "run";
    const LOOK: &str = "get";

    fn strike(&self, task: &str) {
        self.cloud.guest(task).inspect(Guest::kill);
    }

    fn made(&self, egress_id: &str) -> usize {
        self.executions_of(egress_id).len()
    }

    fn script(&self, operation: &str, faults: &[Option<Fault>]) {
        self.faults().script(operation, faults.iter().copied());
    }
}

impl Cloud for Location {
    fn desk(&self) -> &Desk {
        &self.desk
    }

    fn read(&self, asked: &Asked) -> Result<Call, Reply> {
        if !asked.header("authorization").starts_with("Bearer ") {
            let words = "Request is missing required authentication credential.";
            return Err(refused(401, "UNAUTHENTICATED", words));
        }
        if self.desk.place.issued.as_ref().is_some_and(|issued| !issued.let_in(asked.header("authorization"))) {
            return Err(refused(401, "UNAUTHENTICATED", "Request had invalid authentication credentials."));
        }
        let nowhere = || refused(404, "NOT_FOUND", "no such method");
        let path = asked.path.strip_prefix("/v2/").ok_or_else(nowhere)?;
        let (path, verb) = path.split_once(':').unwrap_or((path, ""));
        let (operation, permissions): (&str, &[&str]) = match (asked.method.as_str(), verb) {
            ("POST", "run") => ("run", &["run.jobs.run", "run.jobs.runWithOverrides"]),
            ("POST", "cancel") => ("cancel", &["run.executions.cancel"]),
            ("GET", "") if path.ends_with("/executions") => ("list", &["run.executions.list"]),
            ("GET", "") if path.ends_with("/tasks") => ("tasks", &["run.tasks.list"]),
            ("GET", "") => ("get", &["run.executions.get"]),
            _ => return Err(nowhere()),
        };
        let needs = permissions.iter().map(|permission| Need::new(*permission, path)).collect();
        Ok(Call { operation, subject: path.to_owned(), needs })
    }

    fn denied(&self, Need { action, resource, .. }: &Need) -> Reply {
        let words = format!("Permission '{action}' denied on resource '{resource}' (or resource may not exist).");
        refused(403, "PERMISSION_DENIED", &words)
    }

    fn fails(&self, fault: Fault) -> Option<Reply> {
        Some(match fault {
            Fault::Throttled => refused(429, "RESOURCE_EXHAUSTED", "Quota exceeded for quota metric 'Job runs'")
                .with("retry-after", "2"),
            Fault::QuotaReached => {
                refused(429, "RESOURCE_EXHAUSTED", "The number of instances of running executions is exhausted")
            }
            Fault::NoCapacity => refused(503, "UNAVAILABLE", "There is no capacity in this region right now."),
            Fault::Busy => {
                refused(409, "ABORTED", "Conflict for resource: version was specified but current is another.")
            }
            Fault::Expired | Fault::Skewed => {
                refused(401, "UNAUTHENTICATED", "Request had invalid authentication credentials.")
            }
            _ => refused(503, "UNAVAILABLE", "The service is currently unavailable."),
        })
    }

    fn obey(self: &Arc<Self>, Call { operation, subject, .. }: &Call, asked: &Asked, fault: Option<Fault>) -> Reply {
        match *operation {
            "run" => self.run(subject, &asked.json(), fault == Some(Fault::Doubled)),
            "cancel" => self.cancel(subject),
            "list" => self.list(subject.trim_end_matches("/executions"), &asked.query),
            "tasks" => self.tasks(subject.trim_end_matches("/tasks")),
            _ => self.get(subject),
        }
    }
}

impl Location {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, name: &str, change: impl FnOnce(&mut Execution)) {
        if let Some(execution) = self.state().executions.iter_mut().find(|it| it.name == name) {
            change(execution);
        }
    }

    fn guest(&self, name: &str) -> Option<Guest> {
        self.state().executions.iter().find(|it| it.name == name)?.guest.clone()
    }

    /// To every call but the one that made it.
    fn knows(&self, execution: &Execution) -> bool {
        let age = (Utc::now() - execution.created).to_std().unwrap_or_default();
        age >= self.desk.place.unseen
    }

    fn run(self: &Arc<Self>, path: &str, body: &Value, twice: bool) -> Reply {
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
        Reply::json(200, json!({"name": operation, "metadata": metadata, "done": false}))
    }

    fn make(self: &Arc<Self>, path: &str, job: &str, env: &BTreeMap<String, String>, timeout: Duration) -> String {
        let id = format!("{job}-{:05x}", rand::random::<u64>() & 0xf_ffff_ffff);
        let name = format!("{path}/executions/{id}");
        let stop = watch::Sender::new(None);
        let mut all = self.desk.place.environment.clone();
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
            guest: None,
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
        mut stop: watch::Receiver<Option<Stop>>,
    ) {
        let early = tokio::select! {
            () = tokio::time::sleep(self.desk.place.takes(self.desk.place.provisioning + self.desk.place.pulling)) => false,
            _ = stop.wait_for(Option::is_some) => true,
        };
        let end = if early {
            End::Cancelled
        } else {
            match Guest::start(&self.desk.place, &format!("run-{id}"), &env, &[]) {
                Err(error) => End::NeverRan(error.to_string()),
                Ok(guest) => {
                    self.change(name, |execution| {
                        execution.guest = Some(guest.clone());
                        execution.started = Some(Utc::now());
                    });
                    self.watch(&guest, timeout, &mut stop).await
                }
            }
        };
        self.change(name, |execution| {
            execution.completed = Some(Utc::now());
            execution.end = Some(end);
        });
        self.state().listeners.retain(|listener| listener.send(entry(name)).is_ok());
    }

    async fn watch(&self, guest: &Guest, timeout: Duration, stop: &mut watch::Receiver<Option<Stop>>) -> End {
        let why = tokio::select! {
            exit = guest.exit() => return End::Exit(exit),
            why = stop.wait_for(Option::is_some) => why.ok().and_then(|why| *why).unwrap_or(Stop::Cancelled),
            () = tokio::time::sleep(timeout) => Stop::TimedOut,
        };
        guest.stop(self.desk.place.grace).await;
        match why {
            Stop::Cancelled => End::Cancelled,
            Stop::TimedOut => End::TimedOut,
        }
    }

    fn cancel(&self, path: &str) -> Reply {
        let state = self.state();
        let known = state.executions.iter().find(|it| it.name == path && self.knows(it));
        let Some(execution) = known else { return missing(path) };
        if execution.completed.is_some() {
            return refused(400, "FAILED_PRECONDITION", "Execution is already completed.");
        }
        execution.stop.send_replace(Some(Stop::Cancelled));
        Reply::json(200, json!({"name": "operations/cancel", "metadata": self.shown(execution), "done": false}))
    }

    fn get(&self, path: &str) -> Reply {
        let state = self.state();
        let found = state.executions.iter().find(|it| it.name == path && self.knows(it));
        found.map_or_else(|| missing(path), |it| Reply::json(200, self.shown(it)))
    }

    fn tasks(&self, path: &str) -> Reply {
        let state = self.state();
        let Some(execution) = state.executions.iter().find(|it| it.name == path) else { return missing(path) };
        let limit = self.jobs.get(&execution.job).map_or("", |(_, memory)| memory).trim_end_matches("Mi");
        let result = match &execution.end {
            Some(End::Exit(_)) if execution.oom => {
                json!({"termSignal": 9, "status": {"code": 13, "message": format!("Memory limit of {limit} MiB exceeded with {limit} MiB used.")}})
            }
            Some(End::Exit(Exit::Signal(signal))) => json!({"termSignal": signal}),
            // Zeros are left out.
            Some(End::Exit(Exit::Status(0))) => json!({}),
            Some(End::Exit(Exit::Status(status))) => {
                json!({"exitCode": status, "status": {"code": 2, "message": format!("Container called exit({status}).")}})
            }
            Some(End::TimedOut) => json!({"status": {"code": 4, "message": "The configured timeout was reached."}}),
            _ => json!({}),
        };
        Reply::json(200, json!({"tasks": [{"name": format!("{path}/tasks/0"), "lastAttemptResult": result}]}))
    }

    fn list(&self, job: &str, query: &str) -> Reply {
        let asked = |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        let size: usize = asked("pageSize").and_then(|size| size.parse().ok()).unwrap_or(100).min(100);
        let from: usize = asked("pageToken").and_then(|from| from.parse().ok()).unwrap_or(0);
        let state = self.state();
        let ours = |it: &&Execution| it.name.starts_with(&format!("{job}/executions/")) && self.knows(it);
        let of_job: Vec<_> = state.executions.iter().rev().filter(ours).collect();
        let page: Vec<Value> = of_job.iter().skip(from).take(size).map(|it| self.shown(it)).collect();
        let next = if from + size < of_job.len() { (from + size).to_string() } else { String::new() };
        Reply::json(200, json!({"executions": page, "nextPageToken": next}))
    }

    fn shown(&self, execution: &Execution) -> Value {
        let (cpu, memory) = self.jobs.get(&execution.job).copied().unwrap_or_default();
        let env: Vec<Value> = execution.env.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
        let (state, message, counts) = match &execution.end {
            None if execution.guest.is_some() => ("CONDITION_RECONCILING", "", json!({"runningCount": 1})),
            None => ("CONDITION_PENDING", "Waiting for execution to complete.", json!({})),
            Some(End::Exit(Exit::Status(0))) => ("CONDITION_SUCCEEDED", "", json!({"succeededCount": 1})),
            Some(End::Cancelled) => ("CONDITION_FAILED", "Execution was cancelled.", json!({"cancelledCount": 1})),
            Some(End::NeverRan(words)) => ("CONDITION_FAILED", words.as_str(), json!({"failedCount": 1})),
            Some(_) => ("CONDITION_FAILED", "Task failed with message.", json!({"failedCount": 1})),
        };
        let mut completed = json!({"type": "Completed", "state": state, "message": message});
        if matches!(execution.end, Some(End::Cancelled)) {
            completed["executionReason"] = "CANCELLED".into();
        }
        if matches!(execution.end, Some(End::NeverRan(_))) {
            completed["reason"] = "CONTAINER_MISSING".into();
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

fn missing(path: &str) -> Reply {
    refused(404, "NOT_FOUND", &format!("Resource '{path}' of kind 'EXECUTION' does not exist."))
}

fn refused(code: u16, status: &str, message: &str) -> Reply {
    Reply::json(code, json!({"error": {"code": code, "message": message, "status": status}}))
}

fn iso(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Micros, true)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
