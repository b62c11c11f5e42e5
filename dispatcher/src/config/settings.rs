//! The configuration as the dispatcher uses it: every default applied, every old name resolved, every value checked.
//! Built by `resolve`; read by everything else through `Arc<Config>`; replaced as a whole on SIGHUP.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use spillway_bus::RedisConfig;
use spillway_bus::lifecycle::RESUME_WAIT_MS;
use spillway_cost::PriceList;
use spillway_guard::GuardRules;
use spillway_launchers::RunMode;
use spillway_plan::Defaults;
use spillway_protocol::Secret;

use super::targets::{LauncherConfig, TargetConfig};
use super::tenants::Tenants;

/// Added to the longest possible wait for a runner: a ticket expires this much later.
const TICKET_MARGIN: Duration = Duration::from_secs(60);

/// The spare ticket lives as long as what it salvages: stores keep incomplete uploads for a week at most. It is renewed
/// while the recording runs.
pub const SPARE_TICKET_TTL: Duration = Duration::from_secs(7 * 24 * 3600);

/// How long a salvage run may wait for a slot. No platform is full, and no wrong setting unnoticed, for much longer;
/// until then the egress is not over.
pub const SALVAGE_TIMEOUT: Duration = Duration::from_secs(3600);

/// What the operator decided, resolved.
#[derive(Clone, Debug)]
pub struct Config {
    /// The Redis that livekit-server uses too.
    pub redis: RedisConfig,
    /// Signs room tokens for requests that bring none; empty: such requests are refused.
    pub api_key: String,
    /// Secret of `api_key`.
    pub api_secret: Secret,
    /// livekit-server as the runner reaches it.
    pub ws_url: String,
    /// 32 bytes in base64 or hex. `None`: derived from the API secret, which all dispatchers share.
    pub ticket_key: Option<Secret>,
    /// What the plan of every request takes from the installation.
    pub defaults: Defaults,
    /// Hosts that requests may name beside public ones.
    pub guard: GuardRules,
    /// In order of preference; never empty.
    pub targets: Vec<TargetConfig>,
    /// How a room's name gives its tenant, and the tenants' caps, weights and budgets.
    pub tenants: Tenants,
    /// Tasks at once, of all dispatchers and targets; `None`: no cap.
    pub max_tasks: Option<u64>,
    /// Distinguishes our tasks from those of other installations on the same platform; never empty where a target runs
    /// containers.
    pub stack: String,
    /// A task without an egress and without a heartbeat is ended after it was seen like that for this long.
    pub orphan_grace: Duration,
    /// Prices of the platforms.
    pub prices: Arc<PriceList>,
    /// Address of `/metrics` on a port of its own; `None`: beside `/healthz` only.
    pub metrics: Option<SocketAddr>,
    /// psrpc affinity of our claim on a StartEgress we can serve, above 0 to 1. livekit-server grants 1.0 at once.
    pub bid: f32,
    /// Cores for recordings; `None`: all of this host where every target is `process`, no bound otherwise.
    pub cores: Option<f64>,
    /// Recordings of this dispatcher at once; `None`: no cap.
    pub max_recordings: Option<usize>,
    /// Accepted requests that may wait in the launch queue.
    pub queue: usize,
    /// How long each of them may wait.
    pub queue_deadline: Duration,
    /// From the launch call to a runner that has taken its ticket.
    pub start_deadline: Duration,
    /// Missing heartbeats for this long end a task that its platform reports as running. Minutes, because only the
    /// task's connection to Redis may be down.
    pub heartbeat_timeout: Duration,
    /// A recording whose media process or task dies goes on in another one, where the target is of a kind for that.
    pub resume: bool,
    /// Address of `/healthz`, `/readyz` and `/metrics`; `None`: not served.
    pub health: Option<SocketAddr>,
    /// Whose pushed events are accepted on the health port; `None`: from any account, since an event is only a hint.
    pub push: Option<Trust>,
    /// Who may use the console; `None`: it is not served.
    pub console: Option<ConsoleRules>,
    /// EgressInfo names the page of a task that died.
    pub links_in_details: bool,
    /// How long SIGTERM waits for work in hand.
    pub drain: Duration,
    /// Folder below which local files lie; `None`: the working directory.
    pub local_root: Option<PathBuf>,
    /// Settings of the runner as a JSON object, `local_root` among them, passed on in the ticket.
    pub runner: serde_json::Value,
    /// `debug`, `info`, `warn` or `error`.
    pub log_level: String,
    /// One JSON object per line instead of text.
    pub log_json: bool,
}

/// Which Google service account may push events, and where the keys of its tokens are published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trust {
    /// `aud` of the token.
    pub audience: String,
    /// Email of the service account.
    pub account: String,
    /// URL of the JSON Web Key Set.
    pub keys: String,
}

/// Who may use the console, and where it is served. It has at least one token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsoleRules {
    /// Opens it for reading.
    pub token: Option<Secret>,
    /// Opens it for reading and for stops.
    pub stop_token: Option<Secret>,
    /// Its own address; `None`: the health port.
    pub address: Option<SocketAddr>,
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
            guard: GuardRules::default(),
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
            resume: true,
            health: None,
            push: None,
            console: None,
            links_in_details: false,
            drain: Duration::from_secs(30),
            local_root: None,
            runner: serde_json::json!({}),
            log_level: "info".to_owned(),
            log_json: false,
        }
    }
}

impl Config {
    /// How long a ticket must stay valid: the longest possible wait in the queue plus the slowest start. A salvage run
    /// waits for its slot up to [`SALVAGE_TIMEOUT`] longer, one that goes on with a recording up to [`RESUME_WAIT_MS`], a
    /// probe waits for none.
    pub fn ticket_ttl(&self, run_mode: RunMode) -> Duration {
        let slowest = self.targets.iter().filter_map(|target| target.start_deadline).max().unwrap_or_default();
        let started = self.start_deadline.max(slowest) + TICKET_MARGIN;
        match run_mode {
            RunMode::Record => self.queue_deadline + started,
            RunMode::Resume => self.queue_deadline + started + Duration::from_millis(RESUME_WAIT_MS.unsigned_abs()),
            RunMode::Salvage => self.queue_deadline + started + SALVAGE_TIMEOUT,
            RunMode::Probe => started,
        }
    }
}
