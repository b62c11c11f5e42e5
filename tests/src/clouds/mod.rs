//! Clouds on this machine: small HTTP servers with the wire shapes that the vendors publish, which start the real runner
//! with exactly the environment that the call and the task's definition give, and kill it as the vendor would. They
//! refuse what the policies that Terraform renders do not allow, and they fail when they are told to.

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

pub use endpoint::FakeCloud;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

/// What all of them are told.
#[derive(Clone, Debug)]
pub struct CloudSetup {
    /// What lies in the image.
    pub program: PathBuf,
    pub arguments: Vec<String>,
    /// What the definition of the task or job says, secrets that the platform resolves included.
    pub environment: BTreeMap<String, String>,
    /// A log for each task.
    pub folder: PathBuf,
    /// Of the stage, so that nothing outlives it.
    pub mark: String,
    /// Until the image is asked for.
    pub provisioning: Duration,
    pub pulling: Duration,
    /// Both are longer or shorter by up to this share, each time anew.
    pub varies: f64,
    /// So many images come at once, where this machine could not start more programs; `None`: as many as there are.
    pub pulls: Option<Arc<Semaphore>>,
    /// From SIGTERM to SIGKILL.
    pub grace: Duration,
    /// A new task is not known to looks and lists for so long.
    pub unseen: Duration,
    /// A task that is over is known for so long.
    pub kept: Duration,
    /// What the caller may do; `None`: what Terraform gives to a dispatcher.
    pub policy: Option<policy::Policy>,
    /// Whom it lets in; `None`: anybody who says who he is.
    pub issued: Option<metadata::IssuedTokens>,
}

impl CloudSetup {
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

    /// What this takes today.
    fn takes(&self, usual: Duration) -> Duration {
        usual.mul_f64(1.0 + self.varies * rand::random_range(-1.0..=1.0))
    }
}

/// What a test of any launcher does to its platform.
pub trait Vendor: Send + Sync {
    /// The calls that launch and that look, as [`Vendor::script`] names them.
    const LAUNCH: &str;
    const STATUS: &str;

    /// Something in the machine kills this task with signal 9.
    fn strike(&self, task: &str);

    /// How many tasks there ever were for this egress.
    fn task_count(&self, egress_id: &str) -> usize;

    /// What a launcher makes of a fault of its launch call: the kind of its error; empty: it helps itself. `None`: there
    /// is no such fault here.
    fn error_kind(fault: fault::CloudFault) -> Option<&'static str> {
        use fault::CloudFault::{Expired, NoCapacity, QuotaReached, Skewed, Throttled};
        Some(match fault {
            Throttled => "throttled",
            NoCapacity => "capacity",
            QuotaReached => "quota",
            // It asks once more, with another token.
            Expired | Skewed => "",
            _ => "passing",
        })
    }

    /// The next calls of this operation fare so.
    fn script(&self, operation: &str, faults: &[Option<fault::CloudFault>]);
}
