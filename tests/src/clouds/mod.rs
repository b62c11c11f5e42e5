//! Clouds on this machine: small HTTP servers with the wire shapes that the vendors publish, which start the real runner
//! with exactly the environment that the call and the task's definition give, and kill it as the vendor would. They
//! refuse what a policy does not allow, and they fail when they are told to.

pub mod arm;
pub mod dockerd;
pub mod ecs;
pub mod fault;
pub mod guest;
pub mod lambda;
pub mod metadata;
pub mod policy;
pub mod pubsub;
pub mod run;
pub mod web;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// What all of them are told.
#[derive(Clone, Debug)]
pub struct Place {
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
    /// From SIGTERM to SIGKILL.
    pub grace: Duration,
    pub policy: policy::Policy,
    /// Whom it lets in; `None`: anybody who says who he is.
    pub issued: Option<metadata::Issued>,
}

impl Place {
    pub fn new(program: PathBuf, folder: PathBuf) -> Self {
        Self {
            program,
            arguments: Vec::new(),
            environment: BTreeMap::new(),
            folder,
            mark: format!("clouds-{}", std::process::id()),
            provisioning: Duration::from_millis(40),
            pulling: Duration::from_millis(40),
            grace: Duration::from_secs(2),
            policy: policy::Policy::everything(),
            issued: None,
        }
    }
}
