//! A container group for each egress: five requests of Azure's resource manager. The group's name is made of egress and
//! attempt, so that a group that was ordered before is found again.
//!
//! A group's environment has no secret store behind it, so the runner's handover goes into a `secureValue`, which the
//! platform never shows again. Its stop is a SIGKILL. Everything runs in the caller's task.

mod api;
mod options;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use azure_core::credentials::TokenCredential;
use azure_identity::{ManagedIdentityCredential, ManagedIdentityCredentialOptions, UserAssignedId};
use reqwest::Method;
use reqwest::header::HeaderMap;
use serde_json::{Value, json};
use spillway_cost::Platform;
use tokio::time::Instant;

pub use self::options::AciOptions;
use crate::exit::TaskExit;
use crate::labels;
use crate::launcher::{
    CLAIM, LaunchError, LaunchOrder, Launcher, OwnedTask, Quota, StopMode, StopOutcome, TaskRef, TaskStatus,
};
use crate::memory::Memory;
use crate::rest::{self, PlatformIdentity, Rest, RestResponse, Token, bearer, milliseconds, text};

const ENDPOINT: &str = "https://management.azure.com";
const SCOPE: &str = "https://management.azure.com/.default";
const VERSION: &str = "api-version=2023-05-01";
/// Azure allows 300 creations an hour and 100 in five minutes.
const QUOTA: Quota = Quota { burst: 80, per_second: 0.08 };
/// The variable that the runner reads instead of its standard input.
const HANDOVER: &str = "SPILLWAY_HANDOVER";
/// A group that has ended well is deleted after this, ms: Azure allows a hundred, ended ones included.
const KEPT_MS: i64 = 10 * 60 * 1000;
/// One that has failed is kept longer, ms, because its log is deleted with it.
const KEPT_FAILED_MS: i64 = 12 * 60 * 60 * 1000;
/// So many that have failed are kept, the newest.
const MAX_KEPT_FAILED: usize = 20;
/// Azure's resolver as every virtual network reaches it.
const NAME_SERVER: &str = "168.63.129.16";

/// One target on Azure Container Instances.
pub struct AciLauncher {
    options: AciOptions,
    rest: Rest,
    memory: Memory,
}

struct AzureIdentity(Arc<dyn TokenCredential>);

#[async_trait]
impl PlatformIdentity for AzureIdentity {
    async fn headers(&self) -> Result<HeaderMap, LaunchError> {
        // The library's own text quotes the answer of the metadata service.
        let token = self
            .0
            .get_token(&[SCOPE], None)
            .await
            .map_err(|_| LaunchError::Transient { message: "no token for Azure".to_owned(), source: None })?;
        bearer(token.token.secret())
    }
}

impl AciLauncher {
    /// Makes no request.
    ///
    /// # Errors
    /// `Misconfigured`: the machine has no identity, or no HTTP client could be made.
    pub fn new(options: AciOptions) -> Result<Self, LaunchError> {
        let identity: Box<dyn PlatformIdentity> = match &options.token {
            Some(token) => Box::new(Token(token.clone())),
            None => {
                let id = options.client_id.clone().map(UserAssignedId::ClientId);
                let chosen = ManagedIdentityCredentialOptions { user_assigned_id: id, ..Default::default() };
                let credential = ManagedIdentityCredential::new(Some(chosen));
                Box::new(AzureIdentity(credential.map_err(|_| LaunchError::Misconfigured {
                    message: "find an identity for Azure".to_owned(),
                    source: None,
                })?))
            }
        };
        let rest = Rest::new("Azure", options.endpoint.as_deref().unwrap_or(ENDPOINT), identity)?;
        Ok(Self { options, rest, memory: Memory::default() })
    }

    fn groups(&self) -> String {
        let AciOptions { subscription, resource_group, .. } = &self.options;
        format!(
            "subscriptions/{subscription}/resourceGroups/{resource_group}/providers/Microsoft.ContainerInstance/containerGroups"
        )
    }

    fn path(&self, group: &str) -> String {
        format!("{}/{group}?{VERSION}", self.groups())
    }

    fn task(&self, group: &str) -> TaskRef {
        TaskRef { launcher: self.options.name.clone(), id: format!("/{}/{group}", self.groups()) }
    }

    /// Name of the group, if the task is one of this launcher's.
    fn ours<'a>(&self, task: &'a TaskRef) -> Option<&'a str> {
        let name = task.id.strip_prefix(&format!("/{}/", self.groups()))?;
        (task.launcher == self.options.name && name.starts_with("eg-") && !name.contains('/')).then_some(name)
    }

    async fn get(&self, group: &str) -> Result<RestResponse, LaunchError> {
        self.rest.ask(Method::GET, &self.path(group), None).await
    }

    fn request(&self, order: &LaunchOrder) -> Value {
        let options = &self.options;
        let open = |(name, value): (&str, &str)| json!({"name": name, "value": value});
        let secret = |name: &str, value: &str| json!({"name": name, "secureValue": value});
        let mut environment: Vec<Value> =
            options.environment.iter().map(|(name, value)| open((name.as_str(), value.as_str()))).collect();
        for (name, value) in order.environment(&options.stack) {
            environment.push(if name == CLAIM { secret(name, &value) } else { open((name, value.as_str())) });
        }
        environment.push(secret(HANDOVER, order.handover.reveal()));
        let cpu = f64::from(order.shape.cpu_milli) / 1000.0;
        let memory = f64::from(order.shape.memory_mib) / 1024.0;
        let tags: BTreeMap<String, String> = labels::of(order, &options.stack)
            .into_iter()
            .map(|(name, value)| (labels::azure_name(&name), labels::azure_value(&value)))
            .collect();
        let mut group = json!({
            "location": options.location,
            "tags": tags,
            "properties": {
                "osType": "Linux", "sku": "Standard", "restartPolicy": "Never",
                "containers": [{"name": "runner", "properties": {
                    "image": order.image(&options.image, options.page_image.as_deref()),
                    "environmentVariables": environment,
                    "resources": {"requests": {"cpu": cpu, "memoryInGB": memory}},
                }}],
            },
        });
        if !options.identities.is_empty() {
            let all: BTreeMap<&String, Value> = options.identities.iter().map(|id| (id, json!({}))).collect();
            group["identity"] = json!({"type": "UserAssigned", "userAssignedIdentities": all});
        }
        if let Some(registry) = &options.registry {
            let identity = options.identities.first();
            group["properties"]["imageRegistryCredentials"] = json!([{"server": registry, "identity": identity}]);
        }
        if let Some(subnet) = &options.subnet {
            group["properties"]["subnetIds"] = json!([{"id": subnet}]);
            let own = [NAME_SERVER.to_owned()];
            let servers = if options.name_servers.is_empty() { &own[..] } else { &options.name_servers[..] };
            group["properties"]["dnsConfig"] = json!({"nameServers": servers});
        }
        group
    }

    async fn seen(&self, group: &str) -> Result<TaskStatus, LaunchError> {
        let answer = self.get(group).await?;
        if answer.status == 404 {
            return Ok(match self.memory.ended(group) {
                Some(reason) => TaskStatus::Gone(TaskExit::EndedByUs(reason).into()),
                None => self.memory.absent(group, Instant::now(), "Azure does not know the container group (yet)"),
            });
        }
        if !answer.is_fine() {
            return Ok(TaskStatus::Unknown(answer.message()));
        }
        self.memory.seen(group);
        if let Some(exit) = api::given_up(&answer.body) {
            // It may still start later, when the dispatcher no longer waits for it.
            let deleted = self.rest.ask(Method::DELETE, &self.path(group), None).await?;
            if deleted.is_fine() || deleted.status == 404 {
                return Ok(TaskStatus::Gone(exit.into()));
            }
        }
        Ok(api::task_status(&answer.body, self.memory.ended(group)))
    }

    /// Stops a group that runs and deletes one that only starts: a start cannot be stopped.
    async fn remove(&self, group: &str, seen: &TaskStatus) -> Result<RestResponse, LaunchError> {
        if let TaskStatus::Alive = seen {
            let path = format!("{}/{group}/stop?{VERSION}", self.groups());
            let answer = self.rest.ask(Method::POST, &path, None).await?;
            if answer.is_fine() || answer.status == 404 {
                return Ok(answer);
            }
        }
        self.rest.ask(Method::DELETE, &self.path(group), None).await
    }
}

/// One to sixty-three lower-case letters, digits and hyphens, as Azure requires. Egress ids that differ in case or beyond 30
/// characters differ in the hash.
fn group_name(order: &LaunchOrder) -> String {
    let id = order.egress_id.as_str();
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let readable: String = id.chars().take(30).map(plain).collect();
    let number = id.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        // FNV-1a.
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("eg-{readable}-{number:016x}-a{}", order.attempt)
}

#[async_trait]
impl Launcher for AciLauncher {
    fn name(&self) -> &str {
        &self.options.name
    }

    async fn launch(&self, order: &LaunchOrder) -> Result<TaskRef, LaunchError> {
        let group = group_name(order);
        // A second PUT might start a group again that has ended.
        let find = async {
            let there = self.get(&group).await?;
            let is_absent = there.status == 404 && text(&there.body["error"]["code"]) != "ResourceGroupNotFound";
            if there.is_fine() || is_absent {
                Ok(there.is_fine().then(|| group.clone()))
            } else {
                Err(api::refused(&there))
            }
        };
        let start = async {
            let answer = self.rest.ask(Method::PUT, &self.path(&group), Some(&self.request(order))).await?;
            if answer.is_fine() { Ok(group.clone()) } else { Err(api::refused(&answer)) }
        };
        let launched = self.memory.launch(&(order.egress_id.clone(), order.attempt), find, start).await?;
        Ok(self.task(&launched))
    }

    async fn status(&self, task: &TaskRef) -> TaskStatus {
        let Some(group) = self.ours(task) else {
            return TaskStatus::Unknown("not a container group of ours".to_owned());
        };
        rest::status(self.seen(group).await)
    }

    async fn end(&self, task: &TaskRef, how: StopMode) -> StopOutcome {
        let Some(group) = self.ours(task) else { return StopOutcome::OutOfReach };
        let seen = self.status(task).await;
        if let TaskStatus::Gone(_) = seen {
            return StopOutcome::AlreadyGone;
        }
        self.memory.end(group, how.reason());
        rest::ended(task, self.remove(group, &seen).await)
    }

    /// Also deletes groups that ended a while ago.
    async fn tasks(&self) -> Result<Vec<OwnedTask>, LaunchError> {
        let (mut owned, mut ended) = (Vec::new(), Vec::new());
        let mut path = format!("{}?{VERSION}", self.groups());
        loop {
            let listed = self.rest.ask(Method::GET, &path, None).await?;
            if !listed.is_fine() {
                return Err(api::refused(&listed));
            }
            for group in listed.body["value"].as_array().into_iter().flatten() {
                let label = |name: &str| group["tags"][name].as_str();
                let stack = labels::azure_value(&self.options.stack);
                let Some((egress_id, attempt, installation)) = labels::read(&stack, label) else { continue };
                let name = text(&group["name"]);
                // The list does not contain the containers' states.
                let shown = self.get(name).await?;
                if !shown.is_fine() {
                    continue;
                }
                match api::task_status(&shown.body, self.memory.ended(name)) {
                    TaskStatus::Gone(exit_report) => {
                        let over_for_ms = exit_report.billed.map(|billed| self.options.clock.unix_ms() - billed.to);
                        let failed = !matches!(exit_report.how, TaskExit::Exited(0) | TaskExit::EndedByUs(_));
                        ended.extend(over_for_ms.map(|over_for_ms| Ended {
                            name: name.to_owned(),
                            over_for_ms,
                            failed,
                        }));
                    }
                    _ => owned.push(OwnedTask {
                        egress_id,
                        attempt,
                        task: self.task(name),
                        installation,
                        started_ms: started(&shown.body),
                    }),
                }
            }
            // An absolute URL of Azure's; our own base stays before its path.
            match text(&listed.body["nextLink"]).split_once("/subscriptions/") {
                Some((_, rest)) => path = format!("subscriptions/{rest}"),
                None => break,
            }
        }
        for name in superfluous(ended) {
            self.rest.ask(Method::DELETE, &self.path(&name), None).await?;
        }
        Ok(owned)
    }

    /// The resource manager allows 25 reads a second for the whole subscription, one group each.
    fn max_status_batch(&self) -> usize {
        15
    }

    fn platform(&self) -> Platform {
        Platform::Aci
    }

    fn takes_pages(&self) -> bool {
        self.options.page_image.is_some()
    }

    fn quota(&self) -> Option<Quota> {
        Some(QUOTA)
    }

    fn grace(&self) -> Option<Duration> {
        Some(Duration::ZERO)
    }
}

/// A group that is over.
struct Ended {
    name: String,
    /// Milliseconds since its end.
    over_for_ms: i64,
    failed: bool,
}

/// Names of the groups that need not be kept any longer.
fn superfluous(mut ended: Vec<Ended>) -> Vec<String> {
    ended.sort_by_key(|group| group.over_for_ms);
    let mut kept_failed = 0;
    let mut is_kept = |group: &Ended| {
        let as_failed = group.failed && group.over_for_ms <= KEPT_FAILED_MS && kept_failed < MAX_KEPT_FAILED;
        kept_failed += usize::from(as_failed);
        as_failed || group.over_for_ms <= KEPT_MS
    };
    ended.into_iter().filter(|group| !is_kept(group)).map(|group| group.name).collect()
}

fn started(group: &Value) -> Option<i64> {
    let view = &group["properties"]["containers"][0]["properties"]["instanceView"];
    milliseconds(&view["currentState"]["startTime"])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance;

    #[test]
    fn what_failed_is_kept_for_hours_and_never_fills_the_region() {
        let minutes = |minutes: i64| minutes * 60 * 1000;
        let group = |name: &str, over_for_ms, failed| Ended { name: name.to_owned(), over_for_ms, failed };
        let ended = vec![
            group("well-5", minutes(5), false),
            group("well-11", minutes(11), false),
            group("failed-11", minutes(11), true),
            group("failed-13h", minutes(13 * 60), true),
        ];
        assert_eq!(superfluous(ended), ["well-11", "failed-13h"]);
        let many = (0..30).map(|n| group(&format!("failed-{n}"), minutes(60 + n), true)).collect();
        let expected: Vec<String> = (20..30).map(|n| format!("failed-{n}")).collect();
        assert_eq!(superfluous(many), expected, "the newest are kept");
    }

    #[test]
    fn a_name_is_valid_and_unique() {
        let name = |id: &str, attempt| group_name(&conformance::order(Platform::Aci, id, attempt));
        let one = name("aBcDeFgHiJkL", 1);
        assert!(one.starts_with("eg-eg-abcdefghijkl-") && one.ends_with("-a1"), "{one}");
        assert_ne!(one, name("abcdefghijkl", 1), "ids are told apart by their case");
        assert_ne!(one, name("aBcDeFgHiJkL", 2));
        let longest = name(&"x".repeat(61), 9_999);
        assert!(
            longest.len() <= 63 && longest.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
        );
    }
}
