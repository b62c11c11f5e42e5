//! Fake clouds on this machine: small HTTP servers with the vendors' published request and response shapes. They start
//! the real runner with exactly the environment that the call and the task's definition give, and kill it as the vendor
//! would. They refuse what the policies that Terraform renders do not allow, and inject faults by script or by chance.

pub mod arm;
pub mod billing_audit;
pub mod dockerd;
mod endpoint;
pub mod ecs;
pub mod fault;
pub mod task_process;
pub mod lambda;
pub mod metadata;
pub mod policy;
pub mod provider;
pub mod pubsub;
pub mod cloud_run;
pub mod docker_proxy;
pub mod web;

pub use endpoint::{CloudApi, FakeCloud};

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

/// Configuration of any fake cloud.
#[derive(Clone, Debug)]
pub struct CloudSetup {
    /// Entry point of the image.
    pub program: PathBuf,
    /// Its first arguments.
    pub arguments: Vec<String>,
    /// Environment from the definition of the task or job, with the secrets that the platform resolves.
    pub environment: BTreeMap<String, String>,
    /// Folder of a log for each task, and of its disk.
    pub folder: PathBuf,
    /// [Mark](crate::process::MARK) of every task.
    pub mark: String,
    /// From the launch until the image is pulled.
    pub provisioning: Duration,
    /// Duration of the pull.
    pub pulling: Duration,
    /// Both durations vary by up to this share, drawn for each task.
    pub varies: f64,
    /// Bound on concurrent pulls, where this machine could not start more programs; `None`: no bound.
    pub pulls: Option<Arc<Semaphore>>,
    /// From SIGTERM to SIGKILL.
    pub grace: Duration,
    /// A new task does not appear in status calls and lists for this time.
    pub unseen: Duration,
    /// A task that has ended stays visible for this time.
    pub kept: Duration,
    /// Permissions of the caller; `None`: those that Terraform gives a dispatcher.
    pub policy: Option<policy::Policy>,
    /// Tokens that are accepted; `None`: any.
    pub issued: Option<metadata::IssuedTokens>,
}

impl CloudSetup {
    /// Starts at once, no faults, 2 s of grace.
    pub fn new(program: PathBuf, folder: PathBuf) -> Self {
        Self {
            program,
            arguments: Vec::new(),
            environment: BTreeMap::new(),
            folder,
            mark: format!("clouds-{}", std::process::id()),
            provisioning: Duration::from_millis(40),
            pulling: Duration::from_millis(40),
            varies: 0.0,
            pulls: None,
            grace: Duration::from_secs(2),
            unseen: Duration::ZERO,
            kept: Duration::from_secs(3600),
            policy: None,
            issued: None,
        }
    }

    /// A duration of this task.
    fn takes(&self, usual: Duration) -> Duration {
        usual.mul_f64(1.0 + self.varies * rand::random_range(-1.0..=1.0))
    }
}

/// What a test of any launcher does to its platform.
pub trait Vendor: Send + Sync {
    /// The call that launches, as [`FaultScript::script`](fault::FaultScript::script) names it.
    const LAUNCH: &str;
    /// The call that reads the status, as [`FaultScript::script`](fault::FaultScript::script) names it.
    const STATUS: &str;

    /// Kills the processes of a task with signal 9, as the kernel would.
    fn strike(&self, task: &str);

    /// Tasks that were ever created for an egress.
    fn task_count(&self, egress_id: &str) -> usize;

    /// Kind of the error that a launcher gives for a fault of its launch call; empty: it recovers by itself. `None`:
    /// the platform has no such fault.
    fn error_kind(fault: fault::CloudFault) -> Option<&'static str> {
        use fault::CloudFault::{Expired, NoCapacity, QuotaReached, Skewed, Throttled};
        Some(match fault {
            Throttled => "throttled",
            NoCapacity => "capacity",
            QuotaReached => "quota",
            // The launcher repeats the call with a new token.
            Expired | Skewed => "",
            _ => "passing",
        })
    }
}
