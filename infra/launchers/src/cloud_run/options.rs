//! Options of a Cloud Run target, as the dispatcher's configuration has them. Values only.

use std::time::Duration;

use serde::Deserialize;
use spillway_process::Clock;
use spillway_protocol::Secret;

use super::api::NAME;

/// One target on Cloud Run.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CloudRunOptions {
    /// What `TaskRef`s say.
    #[serde(skip)]
    pub name: String,
    /// Tells our tasks from those of other installations.
    #[serde(skip)]
    pub stack: String,
    /// Google Cloud project id.
    pub project: String,
    /// Google Cloud region.
    pub location: String,
    /// One job for each size of machine.
    pub jobs: Vec<SizedJob>,
    /// Name of the runner's container in the jobs.
    pub container: String,
    /// After a lost answer: time until the list of executions surely shows what was started.
    #[serde(skip)]
    pub list_delay: Duration,
    /// URL instead of Google's.
    pub endpoint: Option<String>,
    /// Bearer token instead of the process' own identity.
    pub token: Option<Secret>,
    /// Compared with the platform's time stamps.
    #[serde(skip)]
    pub clock: Clock,
}

/// A job as Terraform creates it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SizedJob {
    /// Name of the job, without its path.
    pub name: String,
    /// Thousandths of a vCPU.
    pub cpu_milli: u32,
    /// Memory limit, MiB.
    pub memory_mib: u32,
    /// Disk, GiB: 0, as the file system is in memory.
    #[serde(default)]
    pub disk_gib: u32,
    /// Its image has a browser: for web pages, and for nothing else.
    #[serde(default)]
    pub page: bool,
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
    /// The same options with this clock.
    pub(crate) fn on(self, clock: &Clock) -> Self {
        Self { clock: clock.clone(), ..self }
    }
}
