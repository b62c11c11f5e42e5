//! Options of an ECS target, as the dispatcher's configuration has them. Values only.

use serde::Deserialize;
use spillway_cost::Capacity;
use spillway_protocol::Secret;

use super::api::NAME;

/// One target on Fargate.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EcsOptions {
    /// What `TaskRef`s say.
    #[serde(skip)]
    pub name: String,
    /// Tells our tasks from those of other installations.
    #[serde(skip)]
    pub stack: String,
    /// AWS region.
    pub region: String,
    /// Name or ARN of the cluster.
    pub cluster: String,
    /// Family of the task definition, or family:revision.
    pub task_definition: String,
    /// The same with the image that has a browser; `None`: no web pages.
    pub page_task_definition: Option<String>,
    /// Name of the runner's container in the task definition.
    pub container: String,
    /// Ids of subnets; several zones are better than one.
    pub subnets: Vec<String>,
    /// Ids of security groups.
    pub security_groups: Vec<String>,
    /// Needed where the subnets reach the internet without NAT.
    pub assign_public_ip: bool,
    /// On demand, or Fargate Spot.
    #[serde(skip)]
    pub capacity: Capacity,
    /// `stopTimeout` of the task definition: from SIGTERM to SIGKILL.
    pub stop_seconds: u64,
    /// CloudWatch's log group of the runner's container, for links to its log; `None`: the page of the task has one, for an hour.
    pub log_group: Option<String>,
    /// `awslogs-stream-prefix` of the task definition.
    pub log_stream_prefix: String,
    /// URL instead of the region's own.
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
            page_task_definition: None,
            container: "runner".to_owned(),
            subnets: Vec::new(),
            security_groups: Vec::new(),
            assign_public_ip: true,
            capacity: Capacity::OnDemand,
            stop_seconds: 120,
            log_group: None,
            log_stream_prefix: "runner".to_owned(),
            endpoint: None,
            keys: None,
        }
    }
}
