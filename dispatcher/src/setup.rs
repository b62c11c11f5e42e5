//! From a configuration to the [`Context`] that a dispatcher, the Lambda function or a sweep works with: opens
//! launchers, derives the ticket key, prepares the runners' handover. Starts no task.

use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};
use spillway_bus::{Bus, BusError, TicketKey, Tickets};
use spillway_launchers::process::ProcessOptions;
use spillway_launchers::simulated::SimulatedOptions;
use spillway_launchers::{LaunchError, Launcher, ProcessLauncher, SimulatedLauncher};
use spillway_process::Clock;
use spillway_protocol::Secret;
use spillway_protocol::ids::{EgressId, IdError};

use crate::config::Config;
use crate::config::targets::{LauncherConfig, TargetConfig};
use crate::context::{Context, ContextParts, LedgerSink};
use crate::targets::{Target, Targets};

const IDLE_POLL: Duration = Duration::from_millis(20);

/// Why a dispatcher cannot start.
#[derive(Debug, thiserror::Error)]
pub enum DispatcherError {
    /// Redis does not answer; a retry is right.
    #[error("start on the bus")]
    Bus(#[from] BusError),
    /// The name is not an id; cannot happen.
    #[error("make a name for this dispatcher")]
    Name(#[from] IdError),
    /// Our own executable's folder cannot be found.
    #[error("find spillway-runner")]
    Runner(#[source] std::io::Error),
    /// The platform refuses us, or its options are wrong.
    #[error("open target {target}")]
    Launcher {
        /// Its name.
        target: String,
        /// From the launcher.
        source: LaunchError,
    },
    /// The address is taken or not ours.
    #[error("serve health at {at}")]
    Health {
        /// As configured.
        at: std::net::SocketAddr,
        /// From the system.
        source: std::io::Error,
    },
    /// The handover cannot be serialised.
    #[error("prepare the runner's orders")]
    Handover(#[source] serde_json::Error),
}

/// What a dispatcher starts from: configuration, Redis, a launcher for each target, the clock.
pub struct Setup {
    config: Config,
    bus: Bus,
    launchers: Vec<Arc<dyn Launcher>>,
    clock: Clock,
    ledger_sink: Option<LedgerSink>,
}

impl Setup {
    /// With the launchers that the configuration names; each ledger line is also a line on standard output.
    ///
    /// # Errors
    /// When a launcher cannot be opened; a retry is right where the platform did not answer.
    pub async fn open(config: Config, bus: Bus) -> Result<Self, DispatcherError> {
        let clock = bus.clock().clone();
        let mut launchers = Vec::new();
        for target in &config.targets {
            launchers.push(launcher(target, &config, &clock).await?);
        }
        Ok(Self { config, bus, launchers, clock, ledger_sink: Some(Box::new(|entry| println!("{entry}"))) })
    }

    /// With these launchers, in the order of the targets. For tests.
    #[cfg(feature = "testing")]
    pub fn with(config: Config, bus: Bus, launchers: Vec<Arc<dyn Launcher>>, clock: Clock) -> Self {
        Self { config, bus, launchers, clock, ledger_sink: None }
    }

    /// `kind`: begins the name of this dispatcher among others.
    pub(crate) fn context(self, kind: &str) -> Result<Arc<Context>, DispatcherError> {
        let Self { config, bus, launchers, clock, ledger_sink } = self;
        let name = EgressId::parse(&format!("{kind}-{:016x}", rand::random::<u64>()))?;
        let key = ticket_key(&config)?;
        let handover = handover(&config, &key)?;
        let tickets = Tickets::new(&bus, key);
        let targets = config.targets.iter().cloned().zip(launchers);
        let targets = Targets::new(targets.map(|(config, launcher)| Target::new(config, launcher)).collect());
        let parts = ContextParts { config, clock, bus, tickets, targets, handover, ledger_sink };
        Ok(Arc::new(Context::new(name, parts)))
    }
}

/// Waits until no work is in hand; false: some still was after `timeout`.
pub(crate) async fn idle_within(context: &Context, timeout: Duration) -> bool {
    let idle = async {
        while !context.is_idle() {
            tokio::time::sleep(IDLE_POLL).await;
        }
    };
    tokio::time::timeout(timeout, idle).await.is_ok()
}

/// The launcher of one target.
///
/// # Errors
/// When it cannot be opened; a retry is right where the platform did not answer.
pub(crate) async fn launcher(
    target: &TargetConfig,
    config: &Config,
    clock: &Clock,
) -> Result<Arc<dyn Launcher>, DispatcherError> {
    Ok(match &target.launcher {
        LauncherConfig::Process { program, log_dir } => {
            let beside_us = ProcessOptions::beside_us().map_err(DispatcherError::Runner)?;
            let program = program.clone().unwrap_or_else(|| beside_us.program.clone());
            let options =
                ProcessOptions { program, log_dir: log_dir.clone(), stack: config.stack.clone(), ..beside_us };
            Arc::new(ProcessLauncher::new(options))
        }
        LauncherConfig::Simulated { latency, quota } => Arc::new(SimulatedLauncher::new(SimulatedOptions {
            latency: *latency,
            quota: *quota,
            ..SimulatedOptions::default()
        })),
        LauncherConfig::Container(spec) => {
            let target = target.name.clone();
            spillway_launchers::open(spec, clock)
                .await
                .map_err(|source| DispatcherError::Launcher { target, source })?
        }
    })
}

/// All dispatchers share the API secret, so they share the key derived from it.
fn ticket_key(config: &Config) -> Result<TicketKey, BusError> {
    match &config.ticket_key {
        Some(text) => TicketKey::from_text(text.reveal()),
        None => {
            let digest = Sha256::digest(format!("spillway ticket key\n{}", config.api_secret.reveal()));
            let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
            TicketKey::from_text(&hex)
        }
    }
}

fn handover(config: &Config, key: &TicketKey) -> Result<Secret, DispatcherError> {
    let handover = serde_json::json!({
        "ticket_key": key.reveal(),
        "redis": config.redis,
        "log": { "level": config.log_level, "json": config.log_json },
    });
    serde_json::to_string(&handover).map(Secret::new).map_err(DispatcherError::Handover)
}
