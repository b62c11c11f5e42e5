//! What an operator decides: read from YAML and environment, checked, and explained.
//!
//! `keys` is every key there is; `section` makes the reader and the reference of them; `resolve` makes the values the
//! dispatcher works with, `stores` those about storage, `targets` those about where
//! recordings run; `syntax_error` says what is wrong; `check` prints what came of it.

pub mod check;
pub mod syntax_error;
pub mod duration;
pub mod keys;
pub mod section;
mod resolve;
mod stores;
pub mod targets;
pub mod values;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use spillway_bus::RedisConfig;
use spillway_cost::PriceList;
use spillway_launchers::{LauncherSpec, Quota};
use spillway_plan::Defaults;
use spillway_protocol::Secret;

use keys::File;
use syntax_error::SyntaxError;
use targets::{TargetConfig, Tenants};

use crate::events::Trust;

#[derive(Clone, Debug)]
pub struct Config {
    pub redis: RedisConfig,
    pub api_key: String,
    pub api_secret: Secret,
    /// livekit-server as the runner reaches it.
    pub ws_url: String,
    /// 32 bytes in base64 or hex; without it, it is derived from the API secret, which all dispatchers share.
    pub ticket_key: Option<Secret>,
    /// What the plan of every request takes from the installation.
    pub defaults: Defaults,
    /// Never empty; the first that can take a recording does.
    pub targets: Vec<TargetConfig>,
    pub tenants: Tenants,
    /// Tasks at once, of all dispatchers and targets.
    pub max_tasks: Option<u64>,
    /// Tells our tasks from those of other installations in the same place; never empty where one runs in containers.
    pub stack: String,
    /// A task that was seen without an egress and without a heartbeat for so long is ended.
    pub orphan_grace: Duration,
    pub prices: Arc<PriceList>,
    /// `/metrics` on a port of its own.
    pub metrics: Option<SocketAddr>,
    /// How much we want a StartEgress when we can serve it. 1.0 is granted at once.
    pub bid: f32,
    /// Cores this host gives to recordings; `None`: all it has (process), no bound (elsewhere).
    pub cores: Option<f64>,
    /// Recordings of this dispatcher at once.
    pub max_recordings: Option<usize>,
    /// Accepted requests that may wait for a place, and how long each.
    pub queue: usize,
    pub queue_deadline: Duration,
    /// From launch to a runner that has taken over.
    pub start_deadline: Duration,
    /// Silence of a task that its platform says is running. Minutes: its way to Redis alone may be away.
    pub heartbeat_timeout: Duration,
    /// `/healthz` and `/readyz`; `None`: not served.
    pub health: Option<SocketAddr>,
    /// Whose pushed events are taken on that port; `None`: anybody's, as the hints they are.
    pub push: Option<Trust>,
    /// How long a drain waits for what is in hand.
    pub drain: Duration,
    /// Where relative file paths begin; `None`: our working directory.
    pub local_root: Option<PathBuf>,
    /// Settings of the runner, passed on as they are.
    pub runner: serde_json::Value,
    /// `debug`, `info`, `warn`, `error`.
    pub log_level: String,
    pub log_json: bool,
}

#[derive(Clone, Debug)]
pub enum LauncherConfig {
    Process {
        /// `None`: `spillway-runner` beside our own executable.
        program: Option<PathBuf>,
        log_dir: Option<PathBuf>,
    },
    Simulated {
        latency: Duration,
        quota: Option<Quota>,
    },
    /// A container on a platform: one of [`spillway_launchers::KINDS`].
    Container(LauncherSpec),
}

impl Default for Config {
    fn default() -> Self {
        Self {
            redis: RedisConfig::default(),
            api_key: String::new(),
            api_secret: Secret::default(),
            ws_url: String::new(),
            ticket_key: None,
            defaults: Defaults::default(),
            targets: vec![TargetConfig::of("process", LauncherConfig::Process { program: None, log_dir: None })],
            tenants: Tenants::default(),
            max_tasks: None,
            stack: String::new(),
            orphan_grace: Duration::from_secs(120),
            prices: Arc::new(PriceList { version: String::new(), currency: "USD".to_owned(), rates: Vec::new() }),
            metrics: None,
            bid: 1.0,
            cores: None,
            max_recordings: None,
            queue: 200,
            queue_deadline: Duration::from_secs(60),
            start_deadline: Duration::from_secs(60),
            heartbeat_timeout: Duration::from_secs(5 * 60),
            health: None,
            push: None,
            drain: Duration::from_secs(30),
            local_root: None,
            runner: serde_json::json!({}),
            log_level: "info".to_owned(),
            log_json: false,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("missing config: name a file with --config or EGRESS_CONFIG_FILE, or give the text in EGRESS_CONFIG_BODY")]
    Missing,
    #[error("read {}", path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error("could not parse config")]
    Yaml(#[source] SyntaxError),
    #[error("`{key}`: {message}")]
    Value { key: &'static str, message: String },
}

/// The process' environment, or a test's.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The text of the configuration: the body if there is one, else the file.
pub fn text_of(body: Option<String>, file: Option<PathBuf>) -> Result<String, ConfigError> {
    match (body.filter(|body| !body.is_empty()), file) {
        (Some(body), _) => Ok(body),
        (None, Some(path)) if !path.as_os_str().is_empty() => {
            std::fs::read_to_string(&path).map_err(|source| ConfigError::File { path, source })
        }
        (None, _) => Err(ConfigError::Missing),
    }
}

/// The file with what the environment fills in where it says nothing.
pub fn read(text: &str, env: Environment) -> Result<File, ConfigError> {
    // An empty text is a file in which nothing is said.
    let file: Option<File> = serde_yaml_ng::from_str(text).map_err(|error| ConfigError::Yaml(error.into()))?;
    resolve::with_environment(file.unwrap_or_default(), env)
}

impl Config {
    pub fn from_file(file: &File) -> Result<Self, ConfigError> {
        resolve::resolve(file)
    }

    /// Without the environment.
    pub fn from_yaml(text: &str) -> Result<Self, ConfigError> {
        Self::from_file(&read(text, &|_| None)?)
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
