//! ECS with Fargate: RunTask, DescribeTasks, ListTasks, StopTask, and the events of EventBridge.

mod api;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use self::api::{event, is_cluster, lawful, no_capacity, now, placed, refused, shown, text, texts};
use super::endpoint::{ApiCall, ApiEndpoint, CloudApi, FakeCloud};
use super::fault::{CallQuota, CloudFault};
use super::policy::Permission;
use super::task_process::{Exit, TaskProcess};
use super::web::{HttpReply, HttpRequest};
use super::{CloudSetup, Vendor};
use crate::grants;

/// Of the cluster.
pub const REGION: &str = "eu-central-1";
/// Of the cluster.
pub const ACCOUNT: &str = "111122223333";
/// Family of the task definition that Terraform registers.
pub const FAMILY: &str = "spillway-runner";
const OPERATIONS: [&str; 4] = ["RunTask", "DescribeTasks", "ListTasks", "StopTask"];
const TARGET: &str = "AmazonEC2ContainerServiceV20141113.";
/// From the end of the containers until their network is gone.
const DEPROVISIONING: Duration = Duration::from_millis(60);

/// The fake.
pub type Ecs = FakeCloud<Region>;

/// State of one cluster.
pub struct Region {
    endpoint: ApiEndpoint,
    cluster: String,
    state: Mutex<RegionState>,
}

struct RegionState {
    bucket: CallQuota,
    tasks: BTreeMap<String, EcsTask>,
    /// Token to the request it came with and the task.
    tokens: HashMap<String, (String, String)>,
    events: Vec<mpsc::UnboundedSender<Value>>,
    /// Subnets whose zone has nothing free.
    full: HashSet<String>,
    /// RunTask calls that were let in.
    runs: u64,
    /// Calls of any kind.
    calls: u64,
}

struct EcsTask {
    /// As DescribeTasks shows it, but for the times.
    shown: Value,
    times: BTreeMap<&'static str, f64>,
    task_process: Option<TaskProcess>,
    /// Why it is to stop: code and words.
    stop: watch::Sender<Option<(String, String)>>,
    oom: bool,
}

impl Ecs {
    /// Starts an empty cluster.
    pub async fn start(setup: CloudSetup, cluster: &str) -> Result<Self> {
        let state = RegionState {
            bucket: CallQuota::new(100, 20.0),
            tasks: BTreeMap::new(),
            tokens: HashMap::new(),
            events: Vec::new(),
            full: HashSet::new(),
            runs: 0,
            calls: 0,
        };
        let cluster = format!("arn:aws:ecs:{REGION}:{ACCOUNT}:cluster/{cluster}");
        let definition = format!("arn:aws:ecs:{REGION}:{ACCOUNT}:task-definition/{FAMILY}");
        let endpoint = ApiEndpoint::new(setup, || grants::aws_dispatcher(&cluster, &definition))?;
        Self::open(Region { endpoint, cluster, state: Mutex::new(state) }).await
    }

    /// Replaces the quota of RunTask; the bucket is full.
    pub fn limit(&self, burst: u32, per_second: f64) {
        self.cloud.state().bucket = CallQuota::new(burst, per_second);
    }

    /// The zones of these subnets have no capacity from now on, all others have.
    pub fn fill(&self, subnets: &[&str]) {
        self.cloud.state().full = subnets.iter().map(|it| (*it).to_owned()).collect();
    }

    /// RunTask calls that the quota has let through.
    pub fn runs(&self) -> u64 {
        self.cloud.state().runs
    }

    /// Every change of a task from now on, as EventBridge delivers it.
    pub fn events(&self) -> mpsc::UnboundedReceiver<Value> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.cloud.state().events.push(sender);
        receiver
    }

    /// The kernel kills the task because memory is exhausted.
    pub fn out_of_memory(&self, arn: &str) {
        if let Some(task) = self.cloud.state().tasks.get_mut(arn) {
            task.oom = true;
        }
        self.strike(arn);
    }

    /// Spot capacity is reclaimed: a warning and SIGTERM, SIGKILL after the grace.
    pub fn reclaim(&self, arn: &str) {
        self.cloud.stop(arn, "SpotInterruption", "Your Spot Task was interrupted.");
    }

    /// The host is taken out of service.
    pub fn retire(&self, arn: &str) {
        self.cloud.stop(
            arn,
            "ServiceSchedulerInitiated",
            "ECS is performing maintenance on the underlying infrastructure hosting the task.",
        );
    }

    /// Programs started so far.
    pub fn started(&self) -> usize {
        self.cloud.state().tasks.values().filter(|task| task.times.contains_key("startedAt")).count()
    }

    /// Calls of any kind so far.
    pub fn calls(&self) -> u64 {
        self.cloud.state().calls
    }

    /// Tasks that were created for an egress.
    pub fn tasks_of(&self, egress_id: &str) -> Vec<String> {
        let state = self.cloud.state();
        let of = state.tasks.iter().filter(|(_, task)| task.shown["startedBy"] == egress_id);
        of.map(|(arn, _)| arn.clone()).collect()
    }

    /// A task as DescribeTasks shows it, with tags.
    pub fn show(&self, arn: &str) -> Value {
        self.cloud.state().tasks.get(arn).map_or(Value::Null, |task| shown(task, true))
    }
}

impl Vendor for Ecs {
    const LAUNCH: &str = "RunTask";
    const STATUS: &str = "DescribeTasks";

    fn strike(&self, task: &str) {
        self.cloud.task_process(task).inspect(TaskProcess::kill);
    }

    fn task_count(&self, egress_id: &str) -> usize {
        self.tasks_of(egress_id).len()
    }

    fn error_kind(fault: CloudFault) -> Option<&'static str> {
        match fault {
            CloudFault::Throttled => Some("throttled"),
            CloudFault::NoCapacity => Some("capacity"),
            CloudFault::QuotaReached => Some("quota"),
            CloudFault::Busy => None,
            _ => Some("passing"),
        }
    }
}

impl CloudApi for Region {
    fn endpoint(&self) -> &ApiEndpoint {
        &self.endpoint
    }

    fn read(&self, request: &HttpRequest) -> Result<ApiCall, HttpReply> {
        self.state().calls += 1;
        let scope = format!("/{REGION}/ecs/aws4_request");
        let signed =
            request.header("authorization").split_once("Credential=").is_some_and(|(_, rest)| rest.contains(&scope));
        if request.path != "/" || request.method != "POST" || !signed {
            return Err(refused(400, "MissingAuthenticationTokenException", "Missing Authentication Token"));
        }
        if let Some(issued) = &self.endpoint.setup.issued {
            let key = request.header("authorization").split_once("Credential=").map_or("", |(_, rest)| rest);
            let key = key.split('/').next().unwrap_or_default();
            if !issued.holds(key) || request.header("x-amz-security-token") != format!("session-of-{key}") {
                let message = "The security token included in the request is invalid.";
                return Err(refused(400, "UnrecognizedClientException", message));
            }
        }
        let named = request.header("x-amz-target").strip_prefix(TARGET).unwrap_or_default();
        let Some(operation) = OPERATIONS.into_iter().find(|operation| *operation == named) else {
            return Err(refused(400, "UnknownOperationException", named));
        };
        let body = request.json();
        if !is_cluster(&self.cluster, text(&body["cluster"])) {
            return Err(refused(400, "ClusterNotFoundException", "Cluster not found."));
        }
        Ok(ApiCall { operation, subject: String::new(), needs: self.needed(operation, &body) })
    }

    fn denied(&self, Permission { action, resource, .. }: &Permission) -> HttpReply {
        let message = format!(
            "User: arn:aws:sts::{ACCOUNT}:assumed-role/dispatcher/task is not authorized to perform: {action} on \
             resource: {resource} because no identity-based policy allows the {action} action"
        );
        refused(400, "AccessDeniedException", &message)
    }

    fn fault_reply(&self, fault: CloudFault) -> Option<HttpReply> {
        Some(match fault {
            CloudFault::Throttled => refused(400, "ThrottlingException", "Rate exceeded"),
            CloudFault::Broken => refused(500, "ServerException", "Service Unavailable. Please try again later."),
            CloudFault::Expired => {
                refused(400, "ExpiredTokenException", "The security token included in the request is expired")
            }
            CloudFault::Skewed => {
                let message = "Signature expired: 20261122T100000Z is now earlier than 20261122T100500Z (20261122T101000Z - 5 min.)";
                refused(400, "InvalidSignatureException", message)
            }
            // An answer that is otherwise fine says so.
            _ => return None,
        })
    }

    fn execute(self: &Arc<Self>, call: &ApiCall, request: &HttpRequest, fault: Option<CloudFault>) -> HttpReply {
        let body = request.json();
        match call.operation {
            "RunTask" => self.run_task(&body, fault),
            "DescribeTasks" => self.describe(&body),
            "ListTasks" => self.list(&body),
            _ => self.stop_task(&body),
        }
    }
}

impl Region {
    fn state(&self) -> MutexGuard<'_, RegionState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn task_process(&self, arn: &str) -> Option<TaskProcess> {
        self.state().tasks.get(arn)?.task_process.clone()
    }

    fn needed(&self, operation: &str, body: &Value) -> Vec<Permission> {
        let here = |action: &str, resource: String| {
            Permission::new(format!("ecs:{action}"), resource).with("ecs:cluster", &self.cluster)
        };
        match operation {
            "RunTask" => {
                let mut needed = vec![here(operation, self.definition(text(&body["taskDefinition"])))];
                // Of the definition, unless the call names others.
                let overrides = &body["overrides"];
                for (named, usual) in
                    [("taskRoleArn", grants::RUNNER_ROLE), ("executionRoleArn", grants::RUNNER_EXECUTION_ROLE)]
                {
                    let role = overrides[named].as_str().unwrap_or(usual);
                    needed.push(
                        Permission::new("iam:PassRole", role).with("iam:PassedToService", "ecs-tasks.amazonaws.com"),
                    );
                }
                if body["tags"].as_array().is_some_and(|tags| !tags.is_empty()) {
                    let tagged = Permission::new("ecs:TagResource", self.task_arn("any"));
                    needed.push(tagged.with("ecs:CreateAction", "RunTask"));
                }
                needed
            }
            "DescribeTasks" => texts(&body["tasks"]).into_iter().map(|arn| here(operation, arn)).collect(),
            "StopTask" => vec![here(operation, text(&body["task"]).to_owned())],
            other => vec![here(other, "*".to_owned())],
        }
    }

    fn definition(&self, named: &str) -> String {
        let revision = if named.contains(':') { named.to_owned() } else { format!("{named}:1") };
        if named.starts_with("arn:") {
            named.to_owned()
        } else {
            format!("arn:aws:ecs:{REGION}:{ACCOUNT}:task-definition/{revision}")
        }
    }

    fn task_arn(&self, id: &str) -> String {
        let cluster = self.cluster.rsplit('/').next().unwrap_or_default();
        format!("arn:aws:ecs:{REGION}:{ACCOUNT}:task/{cluster}/{id}")
    }

    fn run_task(self: &Arc<Self>, body: &Value, fault: Option<CloudFault>) -> HttpReply {
        if let Err(message) = lawful(body) {
            return refused(400, "InvalidParameterException", &message);
        }
        let token = text(&body["clientToken"]).to_owned();
        let request = body.to_string();
        let mut state = self.state();
        if let Err(_wait) = state.bucket.take() {
            return refused(400, "ThrottlingException", "Rate exceeded");
        }
        if let Some((before, arn)) = state.tokens.get(&token) {
            if *before != request {
                let message = "The provided client token was used with other parameters.";
                return HttpReply::json(
                    400,
                    json!({"__type": "ConflictException", "message": message, "resourceIds": [arn]}),
                );
            }
            let task = state.tasks.get(arn).map(|task| shown(task, true));
            return HttpReply::json(200, json!({"tasks": [task], "failures": []}));
        }
        state.runs += 1;
        let subnet = placed(body);
        match fault {
            Some(CloudFault::NoCapacity) => return no_capacity(),
            None if state.full.contains(&subnet) => return no_capacity(),
            Some(CloudFault::QuotaReached) => {
                let reason = "You've reached the limit on the number of vCPUs you can run concurrently";
                return HttpReply::json(200, json!({"tasks": [], "failures": [{"reason": reason}]}));
            }
            _ => {}
        }
        let arn = self.make(&mut state, body, &subnet);
        if fault == Some(CloudFault::Doubled) {
            self.make(&mut state, body, &subnet);
        }
        state.tokens.insert(token, (request, arn.clone()));
        let task = state.tasks.get(&arn).map(|task| shown(task, true));
        HttpReply::json(200, json!({"tasks": [task], "failures": []}))
    }

    fn make(self: &Arc<Self>, state: &mut RegionState, body: &Value, subnet: &str) -> String {
        let arn = self.task_arn(&format!("{:032x}", rand::random::<u128>()));
        let spot = body["capacityProviderStrategy"][0]["capacityProvider"].as_str();
        let overrides = &body["overrides"];
        let mut task = json!({
            "taskArn": arn, "clusterArn": self.cluster, "taskDefinitionArn": self.definition(text(&body["taskDefinition"])),
            "group": body["group"], "startedBy": body["startedBy"], "launchType": "FARGATE", "platformVersion": "1.4.0",
            "cpu": overrides["cpu"], "memory": overrides["memory"], "overrides": overrides, "tags": body["tags"],
            "lastStatus": "PROVISIONING", "desiredStatus": "RUNNING", "availabilityZone": format!("{REGION}a"), "version": 1,
            "ephemeralStorage": {"sizeInGiB": overrides["ephemeralStorage"]["sizeInGiB"].as_u64().unwrap_or(20)},
            "containers": [{"name": "runner", "lastStatus": "PENDING", "taskArn": arn}],
            "attachments": [{"type": "ElasticNetworkInterface", "status": "PRECREATED",
                "details": [{"name": "subnetId", "value": subnet}]}],
        });
        if let Some(provider) = spot {
            task["capacityProviderName"] = provider.into();
        }
        let stop = watch::Sender::new(None);
        let times = BTreeMap::from([("createdAt", now())]);
        state
            .tasks
            .insert(arn.clone(), EcsTask { shown: task, times, task_process: None, stop: stop.clone(), oom: false });
        let cloud = Arc::clone(self);
        let (of, stop) = (arn.clone(), stop.subscribe());
        tokio::spawn(async move { cloud.live(&of, stop).await });
        arn
    }

    /// From the order to the end of the bill.
    async fn live(self: Arc<Self>, arn: &str, mut stop: watch::Receiver<Option<(String, String)>>) {
        let stopped_early = tokio::select! {
            () = self.begin(arn) => false,
            _ = stop.wait_for(Option::is_some) => true,
        };
        let mut exit = None;
        if !stopped_early {
            let given = self.environment(arn);
            let name = format!("ecs-{}", arn.rsplit('/').next().unwrap_or_default());
            let started = match self.endpoint.start_failure() {
                Some(message) => Err(message),
                None => TaskProcess::start(&self.endpoint.setup, &name, &given, &[])
                    .map_err(|error| format!("CannotStartContainerError: {error}")),
            };
            match started {
                Ok(task_process) => {
                    self.change(arn, |task| {
                        task.task_process = Some(task_process.clone());
                        task.times.insert("startedAt", now());
                        task.shown["lastStatus"] = "RUNNING".into();
                        task.shown["containers"][0]["lastStatus"] = "RUNNING".into();
                    });
                    exit = Some(tokio::select! {
                        exit = task_process.exit() => exit,
                        () = self.stopping(&mut stop) => task_process.stop(self.endpoint.setup.grace).await,
                    });
                }
                Err(message) => {
                    stop_with(&mut self.state(), arn, "TaskFailedToStart", &message);
                }
            }
        }
        self.close(arn, exit).await;
    }

    async fn begin(&self, arn: &str) {
        tokio::time::sleep(self.endpoint.setup.takes(self.endpoint.setup.provisioning)).await;
        self.change(arn, |task| {
            task.shown["lastStatus"] = "PENDING".into();
            task.times.insert("pullStartedAt", now());
        });
        let _pull = match &self.endpoint.setup.pulls {
            Some(pulls) => pulls.acquire().await.ok(),
            None => None,
        };
        tokio::time::sleep(self.endpoint.setup.takes(self.endpoint.setup.pulling)).await;
        self.change(arn, |task| {
            task.times.insert("pullStoppedAt", now());
        });
    }

    async fn stopping(&self, stop: &mut watch::Receiver<Option<(String, String)>>) {
        if stop.wait_for(Option::is_some).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    async fn close(&self, arn: &str, exit: Option<Exit>) {
        self.change(arn, |task| {
            let (code, message) = task.stop.borrow().clone().unwrap_or_else(|| {
                ("EssentialContainerExited".to_owned(), "Essential container in task exited".to_owned())
            });
            task.times.insert("stoppingAt", now());
            task.times.insert("executionStoppedAt", now());
            task.shown["desiredStatus"] = "STOPPED".into();
            task.shown["lastStatus"] = "DEPROVISIONING".into();
            task.shown["stopCode"] = code.into();
            task.shown["stoppedReason"] = message.into();
            let container = &mut task.shown["containers"][0];
            container["lastStatus"] = "STOPPED".into();
            if let Some(exit) = exit {
                container["exitCode"] = exit.code().into();
            }
            if task.oom {
                container["reason"] = "OutOfMemoryError: Container killed due to memory usage".into();
            }
        });
        tokio::time::sleep(DEPROVISIONING).await;
        self.change(arn, |task| {
            task.times.insert("stoppedAt", now());
            task.shown["lastStatus"] = "STOPPED".into();
        });
    }

    /// To every call but the one that made it: not at once, and not for ever.
    fn knows(&self, task: &EcsTask) -> bool {
        let CloudSetup { unseen, kept, .. } = &self.endpoint.setup;
        let at = |name: &str| task.times.get(name).copied();
        let now = now();
        at("createdAt").is_some_and(|at| now - at >= unseen.as_secs_f64())
            && at("stoppedAt").is_none_or(|at| now - at < kept.as_secs_f64())
    }

    fn environment(&self, arn: &str) -> BTreeMap<String, String> {
        let state = self.state();
        let Some(task) = state.tasks.get(arn) else { return BTreeMap::new() };
        let variables =
            task.shown["overrides"]["containerOverrides"][0]["environment"].as_array().into_iter().flatten();
        variables.map(|it| (text(&it["name"]).to_owned(), text(&it["value"]).to_owned())).collect()
    }

    fn change(&self, arn: &str, change: impl FnOnce(&mut EcsTask)) {
        let mut state = self.state();
        let Some(task) = state.tasks.get_mut(arn) else { return };
        change(task);
        task.shown["version"] = (task.shown["version"].as_i64().unwrap_or(0) + 1).into();
        let event = event(task, &self.cluster);
        state.events.retain(|listener| listener.send(event.clone()).is_ok());
    }

    fn stop(&self, arn: &str, code: &str, message: &str) -> bool {
        let known = stop_with(&mut self.state(), arn, code, message);
        if known {
            // The warning: it is to be stopped, and runs.
            self.change(arn, |task| {
                task.shown["desiredStatus"] = "STOPPED".into();
                let warned = if code == "SpotInterruption" { "TerminationNotice" } else { code };
                task.shown["stopCode"] = warned.into();
                task.shown["stoppedReason"] = message.into();
            });
        }
        known
    }

    fn stop_task(&self, body: &Value) -> HttpReply {
        let arn = text(&body["task"]);
        if !self.state().tasks.get(arn).is_some_and(|task| self.knows(task)) {
            return refused(400, "InvalidParameterException", "The referenced task was not found.");
        }
        self.stop(arn, "UserInitiated", text(&body["reason"]));
        HttpReply::json(200, json!({"task": self.state().tasks.get(arn).map(|task| shown(task, false))}))
    }

    fn describe(&self, body: &Value) -> HttpReply {
        let request = texts(&body["tasks"]);
        if request.is_empty() || request.len() > 100 {
            return refused(400, "InvalidParameterException", "Tasks cannot be empty, and no more than 100.");
        }
        let tags = texts(&body["include"]).iter().any(|it| it == "TAGS");
        let state = self.state();
        let known = |arn: &&String| state.tasks.get(*arn).is_some_and(|task| self.knows(task));
        let (known, unknown): (Vec<_>, Vec<_>) = request.iter().partition(known);
        let tasks: Vec<Value> = known.iter().filter_map(|arn| Some(shown(state.tasks.get(*arn)?, tags))).collect();
        let failures: Vec<Value> = unknown.iter().map(|arn| json!({"arn": arn, "reason": "MISSING"})).collect();
        HttpReply::json(200, json!({"tasks": tasks, "failures": failures}))
    }

    fn list(&self, body: &Value) -> HttpReply {
        let wanted = body["desiredStatus"].as_str().unwrap_or("RUNNING");
        let from = text(&body["nextToken"]);
        let state = self.state();
        let matching = state.tasks.iter().filter(|(arn, task)| {
            arn.as_str() > from
                && self.knows(task)
                && task.shown["desiredStatus"] == wanted
                && (body["startedBy"].is_null() || task.shown["startedBy"] == body["startedBy"])
        });
        let mut arns: Vec<&String> = matching.map(|(arn, _)| arn).collect();
        let more = arns.len() > 100;
        arns.truncate(100);
        let next = more.then(|| arns.last().map(|arn| (*arn).clone())).flatten();
        HttpReply::json(200, json!({"taskArns": arns, "nextToken": next}))
    }
}

/// The first reason stays.
fn stop_with(state: &mut RegionState, arn: &str, code: &str, message: &str) -> bool {
    let Some(task) = state.tasks.get(arn).filter(|task| !task.times.contains_key("executionStoppedAt")) else {
        return false;
    };
    task.stop.send_if_modified(|stop| {
        let first = stop.is_none();
        if first {
            *stop = Some((code.to_owned(), message.to_owned()));
        }
        first
    });
    true
}
