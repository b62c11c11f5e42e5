//! What an operator decides. Plain values; `from_yaml` is the smallest reader of them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use spillway_bus::RedisConfig;
use spillway_launchers::paper::Quota;
use spillway_plan::Defaults;
use spillway_process::Secret;

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
    pub launcher: LauncherConfig,
    /// How much we want a StartEgress when we can serve it. 1.0 is granted at once.
    pub bid: f32,
    /// Cores this host gives to recordings; `None`: all it has (process), no bound (elsewhere).
    pub cores: Option<f64>,
    /// Recordings at once.
    pub most_recordings: Option<usize>,
    /// Accepted requests that may wait for a place, and how long each.
    pub queue: usize,
    pub queue_deadline: Duration,
    /// From launch to a runner that has taken over.
    pub start_deadline: Duration,
    /// `/healthz` and `/readyz`; `None`: not served.
    pub health: Option<SocketAddr>,
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
    Paper {
        latency: Duration,
        quota: Option<Quota>,
    },
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
            launcher: LauncherConfig::Process { program: None, log_dir: None },
            bid: 1.0,
            cores: None,
            most_recordings: None,
            queue: 200,
            queue_deadline: Duration::from_secs(60),
            start_deadline: Duration::from_secs(60),
            health: None,
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
    #[error("read the configuration")]
    Yaml(#[source] serde_yaml_ng::Error),
    #[error("launcher is \"{0}\", possible are process and paper")]
    Launcher(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Yaml {
    redis: RedisConfig,
    api_key: String,
    api_secret: Secret,
    ws_url: String,
    #[serde(default)]
    launcher: Option<String>,
    #[serde(default)]
    runner_program: Option<PathBuf>,
    #[serde(default)]
    runner_log_dir: Option<PathBuf>,
    #[serde(default)]
    cores: Option<f64>,
    #[serde(default)]
    most_recordings: Option<usize>,
    #[serde(default)]
    health: Option<SocketAddr>,
    #[serde(default)]
    local_root: Option<PathBuf>,
    #[serde(default)]
    log_level: Option<String>,
}

impl Config {
    pub fn from_yaml(text: &str) -> Result<Self, ConfigError> {
        let yaml: Yaml = serde_yaml_ng::from_str(text).map_err(ConfigError::Yaml)?;
        let launcher = match yaml.launcher.as_deref() {
            None | Some("process") => {
                LauncherConfig::Process { program: yaml.runner_program, log_dir: yaml.runner_log_dir }
            }
            Some("paper") => LauncherConfig::Paper { latency: Duration::from_millis(500), quota: Some(Quota::FARGATE) },
            Some(other) => return Err(ConfigError::Launcher(other.to_owned())),
        };
        Ok(Self {
            redis: yaml.redis,
            api_key: yaml.api_key,
            api_secret: yaml.api_secret,
            ws_url: yaml.ws_url,
            launcher,
            cores: yaml.cores,
            most_recordings: yaml.most_recordings,
            health: yaml.health,
            local_root: yaml.local_root,
            log_level: yaml.log_level.unwrap_or_else(|| "info".to_owned()),
            ..Self::default()
        })
    }
}
