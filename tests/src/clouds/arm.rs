//! Azure Resource Manager with Container Instances: container groups put, got, listed, stopped and deleted.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use anyhow::Result;
use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::endpoint::{ApiCall, ApiEndpoint, CloudApi, FakeCloud};
use super::fault::{CallQuota, CloudFault};
use super::policy::Permission;
use super::task_process::{Exit, TaskProcess};
use super::web::{HttpReply, HttpRequest};
use super::{CloudSetup, Vendor};
use crate::grants;

/// Of all groups.
pub const SUBSCRIPTION: &str = "00000000-1111-2222-3333-444444444444";
/// Of all groups.
pub const RESOURCE_GROUP: &str = "egress";
/// The user-assigned identity of runners.
pub const IDENTITY: &str = "/subscriptions/00000000-1111-2222-3333-444444444444/resourceGroups/egress/providers/\
                            Microsoft.ManagedIdentity/userAssignedIdentities/runner";
/// Client id of that identity, by which a runner asks for its token.
pub const CLIENT_ID: &str = "22222222-3333-4444-5555-666666666666";
/// The subnet of runners.
pub const SUBNET: &str = "/subscriptions/00000000-1111-2222-3333-444444444444/resourceGroups/net/providers/\
                          Microsoft.Network/virtualNetworks/net/subnets/runners";
const VERSION: &str = "api-version=2023-05-01";
const GROUPS_OF: &str = "/subscriptions/00000000-1111-2222-3333-444444444444/resourceGroups/egress/providers/\
                         Microsoft.ContainerInstance/containerGroups";
const MAX_GROUPS: usize = 100;

/// Of one answer to a list, so that there are pages.
const PAGE: usize = 20;

/// The fake.
pub type Arm = FakeCloud<Group>;

/// State of one resource group.
pub struct Group {
    endpoint: ApiEndpoint,
    state: Mutex<GroupState>,
}

struct GroupState {
    bucket: CallQuota,
    groups: BTreeMap<String, ContainerGroup>,
    /// Egress of every group that was ever made.
    made: Vec<String>,
}

struct ContainerGroup {
    /// As it was put.
    put: Value,
    made: Instant,
    events: Vec<Value>,
    started: Option<DateTime<Utc>>,
    finished: Option<DateTime<Utc>>,
    task_process: Option<TaskProcess>,
    exit: Option<Exit>,
    /// It was stopped or deleted.
    stop: watch::Sender<bool>,
    oom: bool,
    /// Provisioning was given up.
    failed: bool,
}

impl Arm {
    /// Starts an empty resource group.
    pub async fn start(setup: CloudSetup) -> Result<Self> {
        let state =
            GroupState { bucket: CallQuota::new(100, 300.0 / 3600.0), groups: BTreeMap::new(), made: Vec::new() };
        let rendered = || {
            let groups = grants::azure_on("dispatcher", [format!("{GROUPS_OF}/*"), GROUPS_OF.to_owned()])?;
            Ok(groups.and(grants::azure_on("attach", [IDENTITY.to_owned(), SUBNET.to_owned()])?))
        };
        Self::open(Group { endpoint: ApiEndpoint::new(setup, rendered)?, state: Mutex::new(state) }).await
    }

    /// The kernel kills the container because memory is exhausted.
    pub fn out_of_memory(&self, id: &str) {
        if let Some(group) = self.cloud.state().groups.get_mut(name_of(id)) {
            group.oom = true;
        }
        self.strike(id);
    }

    /// Groups of an egress that exist, running or ended.
    pub fn groups_of(&self, egress_id: &str) -> Vec<String> {
        let state = self.cloud.state();
        let of = state.groups.iter().filter(|(_, group)| group.put["tags"]["egress_id"] == egress_id);
        of.map(|(name, _)| format!("{GROUPS_OF}/{name}")).collect()
    }

    /// A group as GET shows it.
    pub fn show(&self, id: &str) -> Value {
        let state = self.cloud.state();
        state.groups.get(name_of(id)).map_or(Value::Null, |group| shown(name_of(id), group, true))
    }
}

fn name_of(id: &str) -> &str {
    id.rsplit('/').next().unwrap_or_default()
}

impl Vendor for Arm {
    const LAUNCH: &str = "put";
    const STATUS: &str = "get";

    fn strike(&self, task: &str) {
        self.cloud.task_process(task).inspect(TaskProcess::kill);
    }

    fn task_count(&self, egress_id: &str) -> usize {
        self.cloud.state().made.iter().filter(|made| *made == egress_id).count()
    }
}

impl CloudApi for Group {
    fn endpoint(&self) -> &ApiEndpoint {
        &self.endpoint
    }

    fn read(&self, request: &HttpRequest) -> Result<ApiCall, HttpReply> {
        if !request.header("authorization").starts_with("Bearer ") {
            let message = "Authentication failed. The 'Authorization' header is missing.";
            return Err(refused(401, "AuthenticationFailed", message));
        }
        if self.endpoint.setup.issued.as_ref().is_some_and(|issued| !issued.accepts(request.header("authorization"))) {
            return Err(refused(401, "ExpiredAuthenticationToken", "The access token expiry is in the past."));
        }
        if !request.query.split('&').any(|pair| pair == VERSION) {
            let message = "The api-version query parameter (?api-version=) is required.";
            return Err(refused(400, "MissingApiVersionParameter", message));
        }
        let Some(rest) = request.path.strip_prefix(GROUPS_OF) else {
            return Err(refused(404, "ResourceGroupNotFound", "Resource group could not be found."));
        };
        let rest = rest.trim_start_matches('/');
        let (name, verb) = rest.split_once('/').unwrap_or((rest, ""));
        let (operation, action) = match (request.method.as_str(), verb) {
            ("GET", "") if name.is_empty() => ("list", "read"),
            ("GET", "") => ("get", "read"),
            ("GET", "containers/runner/logs") => ("logs", "containers/logs/read"),
            ("PUT", "") => ("put", "write"),
            ("DELETE", "") => ("delete", "delete"),
            ("POST", "stop") => ("stop", "stop/action"),
            _ => return Err(refused(405, "HttpMethodNotAllowed", "not this way")),
        };
        let mut needs =
            vec![Permission::new(format!("Microsoft.ContainerInstance/containerGroups/{action}"), &request.path)];
        if operation == "put" {
            needs.extend(attached(&request.json()));
        }
        Ok(ApiCall { operation, subject: name.to_owned(), needs })
    }

    fn denied(&self, Permission { action, resource, .. }: &Permission) -> HttpReply {
        let message =
            format!("The client does not have authorization to perform action '{action}' over scope '{resource}'.");
        refused(403, "AuthorizationFailed", &message)
    }

    fn fault_reply(&self, fault: CloudFault) -> Option<HttpReply> {
        Some(match fault {
            CloudFault::Throttled => {
                refused(429, "TooManyRequests", "The request is being throttled.").with("retry-after", "2")
            }
            CloudFault::NoCapacity => {
                let message = "The requested resource with '0.5' CPU and '0.5' GB memory is not available in the location \
                             'westeurope' at this moment. Please retry with a different resource request or in another location.";
                refused(409, "ServiceUnavailable", message)
            }
            CloudFault::QuotaReached => {
                let message = "Resource type 'Microsoft.ContainerInstance/containerGroups' container group quota 'StandardCores' exceeded.";
                refused(409, "ContainerGroupQuotaReached", message)
            }
            CloudFault::Busy => refused(
                409,
                "AnotherOperationInProgress",
                "Another operation on this or dependent resource is in progress.",
            ),
            CloudFault::Expired | CloudFault::Skewed => refused(
                401,
                "ExpiredAuthenticationToken",
                "The access token expiry UTC time is earlier than current UTC time.",
            ),
            _ => refused(500, "InternalServerError", "Encountered internal server error."),
        })
    }

    fn execute(
        self: &Arc<Self>,
        ApiCall { operation, subject, .. }: &ApiCall,
        request: &HttpRequest,
        _: Option<CloudFault>,
    ) -> HttpReply {
        match *operation {
            "list" => self.list(&request.query),
            "get" => self.get(subject),
            "logs" => self.logs(subject),
            // A second one under the same name there cannot be.
            "put" => self.put(subject, request.json()),
            "delete" => self.delete(subject),
            _ => self.stop(subject),
        }
    }
}

impl Group {
    fn state(&self) -> MutexGuard<'_, GroupState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn task_process(&self, id: &str) -> Option<TaskProcess> {
        self.state().groups.get(name_of(id))?.task_process.clone()
    }

    fn change(&self, name: &str, change: impl FnOnce(&mut ContainerGroup)) {
        if let Some(group) = self.state().groups.get_mut(name) {
            change(group);
        }
    }

    /// To every call but the one that made it.
    fn knows(&self, group: &ContainerGroup) -> bool {
        group.made.elapsed() >= self.endpoint.setup.unseen
    }

    fn list(&self, query: &str) -> HttpReply {
        let from = query.split('&').find_map(|pair| pair.strip_prefix("$skiptoken=")).unwrap_or_default();
        let state = self.state();
        let mut rest = state.groups.iter().filter(|(name, group)| name.as_str() > from && self.knows(group));
        let page: Vec<_> = rest.by_ref().take(PAGE).collect();
        let all: Vec<Value> = page.iter().map(|(name, group)| shown(name, group, false)).collect();
        let mut answer = json!({"value": all});
        if let (Some((last, _)), true) = (page.last(), rest.next().is_some()) {
            answer["nextLink"] = format!("https://management.azure.com{GROUPS_OF}?{VERSION}&$skiptoken={last}").into();
        }
        HttpReply::json(200, answer)
    }

    fn get(&self, name: &str) -> HttpReply {
        let state = self.state();
        let found = state.groups.get(name).filter(|group| self.knows(group));
        found.map_or_else(|| missing(name), |group| HttpReply::json(200, shown(name, group, true)))
    }

    /// What the container has written.
    fn logs(&self, name: &str) -> HttpReply {
        if !self.state().groups.contains_key(name) {
            return missing(name);
        }
        let written = std::fs::read_to_string(self.endpoint.setup.folder.join(format!("aci-{name}.log")));
        HttpReply::json(200, json!({"content": written.unwrap_or_default()}))
    }

    fn put(self: &Arc<Self>, name: &str, body: Value) -> HttpReply {
        if let Err(message) = lawful(name, &body) {
            return refused(400, "InvalidRequestContent", &message);
        }
        let mut state = self.state();
        if let Some(group) = state.groups.get(name) {
            if group.put == body {
                return HttpReply::json(200, shown(name, group, true));
            }
            return refused(400, "InvalidContainerGroupUpdate", "The updates on container group are invalid.");
        }
        if let Err(wait) = state.bucket.take() {
            return refused(429, "TooManyRequests", "The request is being throttled.")
                .with("retry-after", wait.as_secs().max(1).to_string());
        }
        if state.groups.len() >= MAX_GROUPS {
            return refused(409, "ContainerGroupQuotaReached", "container group quota 'ContainerGroups' exceeded");
        }
        state.made.push(body["tags"]["egress_id"].as_str().unwrap_or_default().to_owned());
        let stop = watch::Sender::new(false);
        let listening = stop.subscribe();
        let group = ContainerGroup {
            put: body,
            made: Instant::now(),
            events: Vec::new(),
            started: None,
            finished: None,
            task_process: None,
            exit: None,
            stop,
            oom: false,
            failed: false,
        };
        let reply = HttpReply::json(201, shown(name, &group, true));
        state.groups.insert(name.to_owned(), group);
        let (cloud, of) = (Arc::clone(self), name.to_owned());
        tokio::spawn(async move { cloud.live(&of, listening).await });
        reply
    }

    async fn live(self: Arc<Self>, name: &str, mut stop: watch::Receiver<bool>) {
        let starting = async {
            tokio::time::sleep(self.endpoint.setup.takes(self.endpoint.setup.provisioning)).await;
            self.change(name, |group| group.events.push(event("Pulling", "Normal", "pulling image \"runner\"")));
            tokio::time::sleep(self.endpoint.setup.takes(self.endpoint.setup.pulling)).await;
        };
        tokio::select! {
            () = starting => {}
            () = stopped(&mut stop) => return,
        }
        let mut environment = BTreeMap::new();
        self.change(name, |group| {
            let variables = &group.put["properties"]["containers"][0]["properties"]["environmentVariables"];
            for variable in variables.as_array().into_iter().flatten() {
                let value = variable["secureValue"].as_str().or(variable["value"].as_str()).unwrap_or_default();
                environment.insert(variable["name"].as_str().unwrap_or_default().to_owned(), value.to_owned());
            }
        });
        let started = match self.endpoint.start_failure() {
            Some(message) => Err(message),
            None => TaskProcess::start(&self.endpoint.setup, &format!("aci-{name}"), &environment, &[])
                .map_err(|error| format!("Failed to pull image \"runner\": {error}")),
        };
        let task_process = match started {
            Ok(task_process) => task_process,
            Err(message) => {
                self.change(name, |group| {
                    group.failed = true;
                    group.events.push(event("Failed", "Warning", &message));
                });
                return;
            }
        };
        self.change(name, |group| {
            group.task_process = Some(task_process.clone());
            group.started = Some(Utc::now());
            group.events.push(event("Started", "Normal", "Started container"));
        });
        let exit = tokio::select! {
            exit = task_process.exit() => exit,
            // The vendor's grace, which is none.
            () = stopped(&mut stop) => task_process.stop(self.endpoint.setup.grace).await,
        };
        self.change(name, |group| {
            group.exit = Some(exit);
            group.finished = Some(Utc::now());
        });
    }

    fn stop(&self, name: &str) -> HttpReply {
        let state = self.state();
        let Some(group) = state.groups.get(name) else { return missing(name) };
        if group.task_process.is_none() {
            return refused(
                409,
                "ContainerGroupTransitioning",
                "The container group is still transitioning, please retry later.",
            );
        }
        group.stop.send_replace(true);
        HttpReply::json(204, Value::Null)
    }

    fn delete(&self, name: &str) -> HttpReply {
        match self.state().groups.remove(name) {
            None => HttpReply::json(204, Value::Null),
            Some(group) => {
                group.stop.send_replace(true);
                HttpReply::json(200, shown(name, &group, true))
            }
        }
    }
}

/// What a group is given that is not its own.
fn attached(group: &Value) -> Vec<Permission> {
    let identities = group["identity"]["userAssignedIdentities"].as_object().into_iter().flatten();
    let subnets = group["properties"]["subnetIds"].as_array().into_iter().flatten();
    let assign = "Microsoft.ManagedIdentity/userAssignedIdentities/assign/action";
    let join = "Microsoft.Network/virtualNetworks/subnets/join/action";
    let subnet = |subnet: &Value| subnet["id"].as_str().unwrap_or_default().to_owned();
    let identities = identities.map(|(id, _)| Permission::new(assign, id));
    identities.chain(subnets.map(|it| Permission::new(join, subnet(it)))).collect()
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // A closed channel counts as stopped.
    let _ = stop.wait_for(|stopped| *stopped).await;
}

fn shown(name: &str, group: &ContainerGroup, view: bool) -> Value {
    let mut shown = group.put.clone();
    shown["name"] = name.into();
    shown["type"] = "Microsoft.ContainerInstance/containerGroups".into();
    shown["id"] = format!("{GROUPS_OF}/{name}").into();
    let properties = &mut shown["properties"];
    let provisioning = match group {
        ContainerGroup { failed: true, .. } => "Failed",
        ContainerGroup { started: Some(_), .. } => "Succeeded",
        _ => "Creating",
    };
    properties["provisioningState"] = provisioning.into();
    let container = &mut properties["containers"][0]["properties"];
    // What is secure is written and not shown.
    for variable in container["environmentVariables"].as_array_mut().into_iter().flatten() {
        if let Some(variable) = variable.as_object_mut() {
            variable.remove("secureValue");
        }
    }
    if !view {
        return shown;
    }
    let stopped = *group.stop.borrow();
    let (state, current) = match (&group.exit, group.started) {
        (Some(exit), started) => {
            let detail = match exit {
                _ if group.oom => "OOMKilled",
                Exit::Status(0) => "Completed",
                _ => "Error",
            };
            let state = match exit {
                _ if stopped => "Stopped",
                Exit::Status(0) => "Succeeded",
                _ => "Failed",
            };
            let times = (started.map(iso), group.finished.map(iso));
            (
                state,
                json!({"state": "Terminated", "exitCode": exit.code(), "startTime": times.0, "finishTime": times.1, "detailStatus": detail}),
            )
        }
        (None, Some(started)) => {
            ("Running", json!({"state": "Running", "startTime": iso(started), "detailStatus": ""}))
        }
        (None, None) => ("Pending", json!({"state": "Waiting", "detailStatus": ""})),
    };
    container["instanceView"] = json!({"restartCount": 0, "currentState": current, "events": group.events});
    properties["instanceView"] = json!({"state": state, "events": []});
    shown
}

fn event(name: &str, kind: &str, message: &str) -> Value {
    let at = iso(Utc::now());
    json!({"name": name, "type": kind, "count": 1, "firstTimestamp": at, "lastTimestamp": at, "message": message})
}

fn iso(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}

fn lawful(name: &str, body: &Value) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.is_empty() || name.len() > 63 || !name.chars().all(plain) {
        return Err(format!("The container group name '{name}' is invalid."));
    }
    let properties = &body["properties"];
    let container = &properties["containers"][0]["properties"];
    let requests = &container["resources"]["requests"];
    let within = |value: &Value, most: f64| value.as_f64().is_some_and(|value| value > 0.0 && value <= most);
    if !within(&requests["cpu"], 31.0) || !within(&requests["memoryInGB"], 240.0) {
        return Err("The resource requests are invalid.".into());
    }
    if body["location"].as_str().unwrap_or_default().is_empty()
        || container["image"].as_str().unwrap_or_default().is_empty()
    {
        return Err("location and image are required".into());
    }
    if properties["restartPolicy"] != "Never" {
        return Err("a recording must not be started again by the platform".into());
    }
    for variable in container["environmentVariables"].as_array().into_iter().flatten() {
        let name = variable["name"].as_str().unwrap_or_default();
        let fine = (1..=63).contains(&name.len()) && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !fine || variable["value"].is_null() == variable["secureValue"].is_null() {
            return Err(format!("The environment variable '{name}' is invalid."));
        }
    }
    let tags = body["tags"].as_object().cloned().unwrap_or_default();
    for (tag, value) in &tags {
        let value = value.as_str().unwrap_or_default();
        if tags.len() > 50
            || tag.len() > 512
            || value.chars().count() > 256
            || tag.contains(['<', '>', '%', '&', '\\', '?', '/'])
        {
            return Err(format!("The tag '{tag}' is invalid."));
        }
    }
    Ok(())
}

fn missing(name: &str) -> HttpReply {
    let message = format!(
        "The Resource 'Microsoft.ContainerInstance/containerGroups/{name}' under resource group '{RESOURCE_GROUP}' was not found."
    );
    refused(404, "ResourceNotFound", &message)
}

fn refused(status: u16, code: &str, message: &str) -> HttpReply {
    HttpReply::json(status, json!({"error": {"code": code, "message": message}}))
}
