//! From a configuration to the [`Actors`] that a dispatcher, the Lambda function or a sweep works with: opens launchers,
//! derives the ticket key, prepares the runners' handover, gives each actor its handles. Starts no task.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};
use spillway_bus::{Bus, BusError, IoClient, Leases, Switches, Tasks, TicketKey, Tickets};
use spillway_launchers::process::ProcessOptions;
use spillway_launchers::simulated::SimulatedOptions;
use spillway_launchers::{LaunchError, Launcher, ProcessLauncher, SimulatedLauncher};
use spillway_process::Clock;
use spillway_protocol::Secret;
use spillway_protocol::ids::{EgressId, IdError};
use tokio::sync::watch;

use crate::admission::Bounds;
use crate::billing::orphans::OrphanSearch;
use crate::billing::{Accountant, LedgerSink, TaskAccounts};
use crate::config::Config;
use crate::config::targets::{LauncherConfig, TargetConfig};
use crate::console::Console;
use crate::final_state::Finisher;
use crate::held::HeldIds;
use crate::installation::InstallationId;
use crate::instance::Instance;
use crate::intake::Intake;
use crate::launch::TaskLauncher;
use crate::overheads::UsualOverheads;
use crate::queue::SharedQueue;
use crate::reconcile::task_exit::ExitEvents;
use crate::reconcile::{Actions, Reconciler};
use crate::records::Records;
use crate::targets::{SWITCHES, Target, Targets};

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
    pub(crate) fn actors(self, kind: &str) -> Result<Actors, DispatcherError> {
        let Self { config, bus, launchers, clock, ledger_sink } = self;
        let name = EgressId::parse(&format!("{kind}-{:016x}", rand::random::<u64>()))?;
        let key = ticket_key(&config)?;
        let handover = handover(&config, &key)?;
        let tickets = Tickets::new(&bus, key);
        let targets = config.targets.iter().cloned().zip(launchers);
        let targets = targets.map(|(config, launcher)| Target::new(config, launcher)).collect();
        let targets = Arc::new(Targets::new(targets));
        let queue = Arc::new(SharedQueue::new(Bounds::of(&config)));
        let records = Records::new(&bus, name.clone());
        let instance = Arc::new(Instance::new(name, config, bus.clone(), clock));
        let (installation, overheads) = (InstallationId::new(&bus), UsualOverheads::default());
        let io = IoClient::new(&bus);
        let tasks = Tasks::new(&bus);
        let finisher = Arc::new(Finisher {
            instance: Arc::clone(&instance),
            records: records.clone(),
            tickets: tickets.clone(),
            io: io.clone(),
            queue: Arc::clone(&queue),
            targets: Arc::clone(&targets),
            delivering: HeldIds::default(),
        });
        let launcher = Arc::new(TaskLauncher {
            instance: Arc::clone(&instance),
            records: records.clone(),
            tickets: tickets.clone(),
            tasks: tasks.clone(),
            finisher: Arc::clone(&finisher),
            queue: Arc::clone(&queue),
            targets: Arc::clone(&targets),
            handover,
            installation: installation.clone(),
            overheads: overheads.clone(),
        });
        let intake = Arc::new(Intake {
            instance: Arc::clone(&instance),
            records: records.clone(),
            tickets: tickets.clone(),
            tasks: tasks.clone(),
            launcher: Arc::clone(&launcher),
            finisher: Arc::clone(&finisher),
            in_flight: HeldIds::default(),
        });
        let accounts = TaskAccounts {
            instance: Arc::clone(&instance),
            records: records.clone(),
            tasks,
            overheads,
            targets: Arc::clone(&targets),
            ledger_sink,
        };
        let actions = Actions {
            instance: Arc::clone(&instance),
            records: records.clone(),
            tickets,
            launcher: Arc::clone(&launcher),
            finisher: Arc::clone(&finisher),
            intake: Arc::clone(&intake),
        };
        let exits = Arc::new(ExitEvents { actions, accounts: Arc::new(accounts) });
        let console = Arc::new(Console::new(&bus, records.clone(), &launcher));
        let orphans = OrphanSearch { instance: Arc::clone(&instance), records: records.clone(), targets, installation };
        Ok(Actors { bus, io, instance, records, intake, launcher, finisher, exits, orphans, console })
    }
}

/// The actors of one dispatcher, and what they share. Each has its own state; none is started.
pub(crate) struct Actors {
    /// A live connection, for servers of RPC.
    pub bus: Bus,
    /// livekit-server's IOInfo service.
    pub io: IoClient,
    /// Name, configuration, tasks.
    pub instance: Arc<Instance>,
    /// Records and heartbeats.
    pub records: Records,
    /// Accepts.
    pub intake: Arc<Intake>,
    /// Launches.
    pub launcher: Arc<TaskLauncher>,
    /// Ends.
    pub finisher: Arc<Finisher>,
    /// Handles exits of tasks.
    pub exits: Arc<ExitEvents>,
    /// Looks for tasks without an egress.
    pub orphans: OrphanSearch,
    /// Shows what the others do.
    pub console: Arc<Console>,
}

impl Actors {
    /// The loops that compare and bill; the first tells the second which tasks are wanted.
    pub fn loops(&self) -> (Reconciler, Accountant) {
        let (wanted, is_wanted) = watch::channel(HashSet::new());
        let switches = Switches::new(&self.bus, SWITCHES);
        let reconciler = Reconciler::new(self.exits.actions.clone(), switches, wanted);
        let accounts = Arc::clone(&self.exits.accounts);
        (reconciler, Accountant::new(accounts, Leases::new(&self.bus), self.orphans.clone(), is_wanted))
    }

    /// No call is being answered, no launch waits or is in progress, no final state is being delivered.
    fn is_idle(&self) -> bool {
        let queue = self.launcher.queue.lock().is_empty();
        queue && self.intake.in_flight.is_empty() && self.finisher.delivering.is_empty()
    }

    /// Waits until no work is in hand; false: some still was after `timeout`.
    pub async fn idle_within(&self, timeout: Duration) -> bool {
        let idle = async {
            while !self.is_idle() {
                tokio::time::sleep(IDLE_POLL).await;
            }
        };
        tokio::time::timeout(timeout, idle).await.is_ok()
    }
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
///
/// # Errors
/// The configured text is no key; for good.
pub(crate) fn ticket_key(config: &Config) -> Result<TicketKey, BusError> {
    match &config.ticket_key {
        Some(text) => TicketKey::from_text(text.reveal()),
        None => {
            let digest = Sha256::digest(format!("spillway ticket key\n{}", config.api_secret.reveal()));
            let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
            TicketKey::from_text(&hex)
        }
    }
}

/// The line that a runner gets besides its names.
///
/// # Errors
/// The configuration cannot be serialised; for good.
pub(crate) fn handover(config: &Config, key: &TicketKey) -> Result<Secret, DispatcherError> {
    let handover = serde_json::json!({
        "ticket_key": key.reveal(),
        "redis": config.redis,
        "log": { "level": config.log_level, "json": config.log_json },
    });
    serde_json::to_string(&handover).map(Secret::new).map_err(DispatcherError::Handover)
}
