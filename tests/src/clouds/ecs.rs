//! ECS with Fargate: RunTask, DescribeTasks, ListTasks, StopTask, and the events of EventBridge.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use super::Place;
use super::fault::{Bucket, Fault, Faults};
use super::guest::{Exit, Guest};
use super::web::{Asked, Reply, Web};

pub const REGION: &str = "eu-central-1";
pub const ACCOUNT: &str = "111122223333";
const TARGET: &str = "AmazonEC2ContainerServiceV20141113.";
/// Of the overrides of one RunTask, JSON punctuation included.
const LONGEST_OVERRIDES: usize = 8192;
/// From the end of the containers until their network is gone.
const DEPROVISIONING: Duration = Duration::from_millis(60);

pub struct Ecs {
    // Dropped first: nothing comes in any more.
    pub web: Web,
    cloud: Arc<Cloud>,
}

struct Cloud {
    place: Place,
    cluster: String,
    faults: Faults,
    state: Mutex<State>,
}

struct State {
    bucket: Bucket,
    tasks: BTreeMap<String, Task>,
    /// Token to the request it came with and the task.
    tokens: HashMap<String, (String, String)>,
    events: Vec<mpsc::UnboundedSender<Value>>,
    /// RunTask calls that were let in.
    runs: u64,
}

struct Task {
    /// As DescribeTasks shows it, but for the times.
    shown: Value,
    times: BTreeMap<&'static str, f64>,
    guest: Option<Guest>,
    /// Why it is to stop: code and words.
    stop: watch::Sender<Option<(String, String)>>,
    oom: bool,
}

impl Ecs {
    pub async fn start(place: Place, cluster: &str) -> Result<Self> {
        let state = State {
            bucket: Bucket::new(100, 20.0),
            tasks: BTreeMap::new(),
            tokens: HashMap::new(),
            events: Vec::new(),
            runs: 0,
        };
        let cluster = format!("arn:aws:ecs:{REGION}:{ACCOUNT}:cluster/{cluster}");
        let cloud = Arc::new(Cloud { place, cluster, faults: Faults::default(), state: Mutex::new(state) });
        let serving = Arc::clone(&cloud);
        let web = Web::start(move |asked| {
            let cloud = Arc::clone(&serving);
            async move { cloud.answer(&asked) }
        });
        Ok(Self { web: web.await?, cloud })
    }

    pub fn faults(&self) -> &Faults {
        &self.cloud.faults
    }

    /// Every change of a task from now on, as the event bus delivers it.
    pub fn events(&self) -> mpsc::UnboundedReceiver<Value> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.cloud.state().events.push(sender);
        receiver
    }

    /// Something in the machine kills it with signal 9.
    pub fn strike(&self, arn: &str) {
        self.cloud.guest(arn).inspect(Guest::kill);
    }

    /// The kernel kills it because memory ran out.
    pub fn out_of_memory(&self, arn: &str) {
        if let Some(task) = self.cloud.state().tasks.get_mut(arn) {
            task.oom = true;
        }
        self.strike(arn);
    }

    /// Spot capacity is taken back: a warning and SIGTERM, SIGKILL after the grace.
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

    /// Programs that were started, all in all.
    pub fn started(&self) -> usize {
        self.cloud.state().tasks.values().filter(|task| task.times.contains_key("startedAt")).count()
    }

    /// Tasks that were made for this egress.
    pub fn tasks_of(&self, egress_id: &str) -> Vec<String> {
        let state = self.cloud.state();
        let of = state.tasks.iter().filter(|(_, task)| task.shown["startedBy"] == egress_id);
        of.map(|(arn, _)| arn.clone()).collect()
    }

    /// As DescribeTasks shows it.
    pub fn show(&self, arn: &str) -> Value {
        self.cloud.state().tasks.get(arn).map_or(Value::Null, |task| shown(task, false))
    }
}

impl Cloud {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn guest(&self, arn: &str) -> Option<Guest> {
        self.state().tasks.get(arn)?.guest.clone()
    }

    fn answer(self: &Arc<Self>, asked: &Asked) -> Reply {
        let Some(operation) = asked.header("x-amz-target").strip_prefix(TARGET) else {
            return refused(400, "UnknownOperationException", "");
        };
        let scope = format!("/{REGION}/ecs/aws4_request");
        let signed =
            asked.header("authorization").split_once("Credential=").is_some_and(|(_, rest)| rest.contains(&scope));
        if asked.path != "/" || asked.method != "POST" || !signed {
            return refused(400, "MissingAuthenticationTokenException", "Missing Authentication Token");
        }
        if let Some(issued) = &self.place.issued {
            let key = asked.header("authorization").split_once("Credential=").map_or("", |(_, rest)| rest);
            let key = key.split('/').next().unwrap_or_default();
            if !issued.holds(key) || asked.header("x-amz-security-token") != format!("session-of-{key}") {
                let words = "The security token included in the request is invalid.";
                return refused(400, "UnrecognizedClientException", words);
            }
        }
        let body = asked.json();
        if let Err(reply) = self.permitted(operation, &body) {
            return reply;
        }
        let fault = self.faults.next(operation);
        match fault {
            Some(Fault::Throttled) => return refused(400, "ThrottlingException", "Rate exceeded"),
            Some(Fault::Broken) => {
                return refused(500, "ServerException", "Service Unavailable. Please try again later.");
            }
            Some(Fault::Lost) => return Reply::HangUp,
            _ => {}
        }
        let reply = match operation {
            "RunTask" => self.run_task(&body, fault),
            "DescribeTasks" => self.describe(&body),
            "ListTasks" => self.list(&body),
            "StopTask" => self.stop_task(&body),
            _ => refused(400, "UnknownOperationException", operation),
        };
        match fault {
            Some(Fault::BrokenAfter) => refused(500, "ServerException", "Service Unavailable. Please try again later."),
            Some(Fault::LostAfter) => Reply::HangUp,
            _ => reply,
        }
    }

    fn permitted(&self, operation: &str, body: &Value) -> Result<(), Reply> {
        if !is_cluster(&self.cluster, text(&body["cluster"])) {
            return Err(refused(400, "ClusterNotFoundException", "Cluster not found."));
        }
        let context = [
            ("ecs:cluster", self.cluster.as_str()),
            ("ecs:CreateAction", "RunTask"),
            ("iam:PassedToService", "ecs-tasks.amazonaws.com"),
        ];
        let mut needed = vec![];
        match operation {
            "RunTask" => {
                needed.push(("ecs:RunTask", self.definition(text(&body["taskDefinition"]))));
                if body["tags"].as_array().is_some_and(|tags| !tags.is_empty()) {
                    needed.push(("ecs:TagResource", self.task_arn("any")));
                }
            }
            "DescribeTasks" => needed.extend(texts(&body["tasks"]).into_iter().map(|arn| ("ecs:DescribeTasks", arn))),
            "StopTask" => needed.push(("ecs:StopTask", text(&body["task"]).to_owned())),
            _ => needed.push(("ecs:ListTasks", "*".to_owned())),
        }
        for (action, resource) in needed {
            if !self.place.policy.allows(action, &resource, &context) {
                let words = format!(
                    "User: arn:aws:sts::{ACCOUNT}:assumed-role/dispatcher/task is not authorized to perform: {action} on \
                     resource: {resource} because no identity-based policy allows the {action} action"
                );
                return Err(refused(400, "AccessDeniedException", &words));
            }
        }
        Ok(())
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

    fn run_task(self: &Arc<Self>, body: &Value, fault: Option<Fault>) -> Reply {
        if let Err(words) = lawful(body) {
            return refused(400, "InvalidParameterException", &words);
        }
        let token = text(&body["clientToken"]).to_owned();
        let request = body.to_string();
        let mut state = self.state();
        if let Err(_wait) = state.bucket.take() {
            return refused(400, "ThrottlingException", "Rate exceeded");
        }
        if let Some((before, arn)) = state.tokens.get(&token) {
            if *before != request {
                let words = "The provided client token was used with other parameters.";
                return Reply::json(
                    400,
                    json!({"__type": "ConflictException", "message": words, "resourceIds": [arn]}),
                );
            }
            let task = state.tasks.get(arn).map(|task| shown(task, true));
            return Reply::json(200, json!({"tasks": [task], "failures": []}));
        }
        state.runs += 1;
        match fault {
            Some(Fault::NoCapacity) => {
                let reason =
                    "Capacity is unavailable at this time. Please try again later or in a different availability zone";
                return Reply::json(200, json!({"tasks": [], "failures": [{"reason": reason}]}));
            }
            Some(Fault::QuotaReached) => {
                let reason = "You've reached the limit on the number of vCPUs you can run concurrently";
                return Reply::json(200, json!({"tasks": [], "failures": [{"reason": reason}]}));
            }
            _ => {}
        }
        let arn = self.make(&mut state, body);
        if fault == Some(Fault::Doubled) {
            self.make(&mut state, body);
        }
        state.tokens.insert(token, (request, arn.clone()));
        let task = state.tasks.get(&arn).map(|task| shown(task, true));
        Reply::json(200, json!({"tasks": [task], "failures": []}))
    }

    fn make(self: &Arc<Self>, state: &mut State, body: &Value) -> String {
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
        });
        if let Some(provider) = spot {
            task["capacityProviderName"] = provider.into();
        }
        let stop = watch::Sender::new(None);
        let times = BTreeMap::from([("createdAt", now())]);
        state.tasks.insert(arn.clone(), Task { shown: task, times, guest: None, stop: stop.clone(), oom: false });
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
            match Guest::start(&self.place, &name, &given, &[]) {
                Ok(guest) => {
                    self.change(arn, |task| {
                        task.guest = Some(guest.clone());
                        task.times.insert("startedAt", now());
                        task.shown["lastStatus"] = "RUNNING".into();
                        task.shown["containers"][0]["lastStatus"] = "RUNNING".into();
                    });
                    exit = Some(tokio::select! {
                        exit = guest.exit() => exit,
                        () = self.stopping(&mut stop) => guest.stop(self.place.grace).await,
                    });
                }
                Err(error) => {
                    let words = format!("CannotStartContainerError: {error}");
                    stop_with(&mut self.state(), arn, "TaskFailedToStart", &words);
                }
            }
        }
        self.close(arn, exit).await;
    }

    async fn begin(&self, arn: &str) {
        tokio::time::sleep(self.place.provisioning).await;
        self.change(arn, |task| {
            task.shown["lastStatus"] = "PENDING".into();
            task.times.insert("pullStartedAt", now());
        });
        tokio::time::sleep(self.place.pulling).await;
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
            let (code, words) = task.stop.borrow().clone().unwrap_or_else(|| {
                ("EssentialContainerExited".to_owned(), "Essential container in task exited".to_owned())
            });
            task.times.insert("stoppingAt", now());
            task.times.insert("executionStoppedAt", now());
            task.shown["desiredStatus"] = "STOPPED".into();
            task.shown["lastStatus"] = "DEPROVISIONING".into();
            task.shown["stopCode"] = code.into();
            task.shown["stoppedReason"] = words.into();
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

    fn environment(&self, arn: &str) -> BTreeMap<String, String> {
        let state = self.state();
        let Some(task) = state.tasks.get(arn) else { return BTreeMap::new() };
        let variables =
            task.shown["overrides"]["containerOverrides"][0]["environment"].as_array().into_iter().flatten();
        variables.map(|it| (text(&it["name"]).to_owned(), text(&it["value"]).to_owned())).collect()
    }

    fn change(&self, arn: &str, change: impl FnOnce(&mut Task)) {
        let mut state = self.state();
        let Some(task) = state.tasks.get_mut(arn) else { return };
        change(task);
        task.shown["version"] = (task.shown["version"].as_i64().unwrap_or(0) + 1).into();
        let event = event(task, &self.cluster);
        state.events.retain(|listener| listener.send(event.clone()).is_ok());
    }

    fn stop(&self, arn: &str, code: &str, words: &str) -> bool {
        let known = stop_with(&mut self.state(), arn, code, words);
        if known {
            // The warning: it is to be stopped, and runs.
            self.change(arn, |task| {
                task.shown["desiredStatus"] = "STOPPED".into();
                let warned = if code == "SpotInterruption" { "TerminationNotice" } else { code };
                task.shown["stopCode"] = warned.into();
                task.shown["stoppedReason"] = words.into();
            });
        }
        known
    }

    fn stop_task(&self, body: &Value) -> Reply {
        let arn = text(&body["task"]);
        if !self.state().tasks.contains_key(arn) {
            return refused(400, "InvalidParameterException", "The referenced task was not found.");
        }
        self.stop(arn, "UserInitiated", text(&body["reason"]));
        Reply::json(200, json!({"task": self.state().tasks.get(arn).map(|task| shown(task, false))}))
    }

    fn describe(&self, body: &Value) -> Reply {
        let asked = texts(&body["tasks"]);
        if asked.is_empty() || asked.len() > 100 {
            return refused(400, "InvalidParameterException", "Tasks cannot be empty, and no more than 100.");
        }
        let tags = texts(&body["include"]).iter().any(|it| it == "TAGS");
        let state = self.state();
        let (known, unknown): (Vec<_>, Vec<_>) = asked.iter().partition(|arn| state.tasks.contains_key(*arn));
        let tasks: Vec<Value> = known.iter().filter_map(|arn| Some(shown(state.tasks.get(*arn)?, tags))).collect();
        let failures: Vec<Value> = unknown.iter().map(|arn| json!({"arn": arn, "reason": "MISSING"})).collect();
        Reply::json(200, json!({"tasks": tasks, "failures": failures}))
    }

    fn list(&self, body: &Value) -> Reply {
        let wanted = body["desiredStatus"].as_str().unwrap_or("RUNNING");
        let from = text(&body["nextToken"]);
        let state = self.state();
        let matching = state.tasks.iter().filter(|(arn, task)| {
            arn.as_str() > from
                && task.shown["desiredStatus"] == wanted
                && (body["startedBy"].is_null() || task.shown["startedBy"] == body["startedBy"])
        });
        let mut arns: Vec<&String> = matching.map(|(arn, _)| arn).collect();
        let more = arns.len() > 100;
        arns.truncate(100);
        let next = more.then(|| arns.last().map(|arn| (*arn).clone())).flatten();
        Reply::json(200, json!({"taskArns": arns, "nextToken": next}))
    }
}

/// The first reason stays.
fn stop_with(state: &mut State, arn: &str, code: &str, words: &str) -> bool {
    let Some(task) = state.tasks.get(arn).filter(|task| !task.times.contains_key("executionStoppedAt")) else {
        return false;
    };
    task.stop.send_if_modified(|stop| {
        let first = stop.is_none();
        if first {
            *stop = Some((code.to_owned(), words.to_owned()));
        }
        first
    });
    true
}

fn shown(task: &Task, tags: bool) -> Value {
    let mut shown = task.shown.clone();
    for (name, at) in &task.times {
        shown[*name] = json!(at);
    }
    if !tags && let Some(shown) = shown.as_object_mut() {
        shown.remove("tags");
    }
    shown
}

fn event(task: &Task, cluster: &str) -> Value {
    let mut detail = task.shown.clone();
    if let Some(detail) = detail.as_object_mut() {
        detail.remove("tags");
    }
    for (name, at) in &task.times {
        detail[*name] = iso(*at).into();
    }
    detail["updatedAt"] = iso(now()).into();
    detail["clusterArn"] = cluster.into();
    json!({
        "version": "0", "id": format!("{:032x}", rand::random::<u128>()), "detail-type": "ECS Task State Change",
        "source": "aws.ecs", "account": ACCOUNT, "time": iso(now()), "region": REGION, "resources": [detail["taskArn"]],
        "detail": detail,
    })
}

fn iso(at: f64) -> String {
    let at = chrono::DateTime::from_timestamp_millis((at * 1000.0) as i64).unwrap_or_default();
    at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
}

pub(super) fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_millis() as f64 / 1000.0)
}

fn refused(status: u16, kind: &str, message: &str) -> Reply {
    Reply::json(status, json!({"__type": kind, "message": message})).with("x-amzn-errortype", kind)
}

fn is_cluster(arn: &str, named: &str) -> bool {
    named == arn || arn.rsplit('/').next() == Some(named)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// (cpu, least and most memory, step), as the crate's documentation of `Task.memory` gives them.
const SIZES: &[(u64, u64, u64, u64)] = &[
    (256, 512, 2048, 512),
    (512, 1024, 4096, 1024),
    (1024, 2048, 8192, 1024),
    (2048, 4096, 16384, 1024),
    (4096, 8192, 30720, 1024),
    (8192, 16384, 61440, 4096),
    (16384, 32768, 122_880, 8192),
];

fn lawful(body: &Value) -> Result<(), String> {
    let overrides = &body["overrides"];
    if overrides.to_string().chars().count() > LONGEST_OVERRIDES {
        return Err("Container Overrides length must be at most 8192".into());
    }
    let number = |value: &Value| text(value).parse::<u64>().unwrap_or(0);
    let (cpu, memory) = (number(&overrides["cpu"]), number(&overrides["memory"]));
    let sold = SIZES.iter().any(|(size, least, most, step)| {
        // 256 also comes with 1024, which is a multiple of its step.
        *size == cpu && (*least..=*most).contains(&memory) && memory.is_multiple_of(*step)
    });
    if !sold {
        return Err("No Fargate configuration exists for given values.".into());
    }
    if let Some(disk) = overrides["ephemeralStorage"]["sizeInGiB"].as_u64()
        && !(21..=200).contains(&disk)
    {
        return Err("EphemeralStorage size must be between 21 and 200".into());
    }
    if overrides["containerOverrides"][0]["name"] != "runner" {
        return Err("Override for container that is not in the TaskDefinition.".into());
    }
    if body["launchType"].is_null() == body["capacityProviderStrategy"].is_null() {
        return Err("Specifying both a launch type and capacity provider strategy is not supported.".into());
    }
    if texts(&body["networkConfiguration"]["awsvpcConfiguration"]["subnets"]).is_empty() {
        return Err("Network Configuration must be provided when networkMode 'awsvpc' is specified.".into());
    }
    if body["count"].as_u64().is_some_and(|count| count > 10) {
        return Err("count must be at most 10".into());
    }
    let started_by = text(&body["startedBy"]);
    if started_by.len() > 128 || !started_by.chars().all(|c| c.is_ascii_alphanumeric() || "-/_".contains(c)) {
        return Err("startedBy is not valid".into());
    }
    let token = text(&body["clientToken"]);
    if token.is_empty() || token.len() > 64 || !token.bytes().all(|byte| (33..=126).contains(&byte)) {
        return Err("clientToken is not valid".into());
    }
    let tags = body["tags"].as_array().map(Vec::as_slice).unwrap_or_default();
    let fine = |c: char| c.is_alphanumeric() || c == ' ' || "+-=._:/@".contains(c);
    for tag in tags {
        let (key, value) = (text(&tag["key"]), text(&tag["value"]));
        let lengths = (1..=128).contains(&key.chars().count()) && value.chars().count() <= 256;
        if !lengths || !key.chars().all(fine) || !value.chars().all(fine) || key.starts_with("aws:") || tags.len() > 50
        {
            return Err(format!("Tag {key} is not valid"));
        }
    }
    Ok(())
}
