use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};
use spillway_bus::{Bus, BusError, Phase, Routing, RpcServer, TicketKey, Tickets};
use spillway_launchers::process::ProcessOptions;
use spillway_launchers::simulated::SimulatedOptions;
use spillway_launchers::{LaunchError, Launcher, ProcessLauncher, SimulatedLauncher, StopMode, TaskStatus};
use spillway_process::{Clock, chain};
use spillway_protocol::Secret;
use spillway_protocol::ids::{EgressId, IdError};
use spillway_protocol::rpc::service;
use tracing::{error, info, warn};

use crate::billing;
use crate::billing::orphans::{self, Finding};
use crate::config::targets::TargetConfig;
use crate::config::{Config, LauncherConfig};
use crate::context::{Context, ContextParts, LedgerSink};
use crate::control::{ControlHandler, ControlMethod};
use crate::health;
use crate::intake::{ListActive, StartEgress};
use crate::launch;
use crate::queue::LaunchQueue;
use crate::reconcile::Reconciler;
use crate::targets::{Target, Targets};

#[derive(Debug, thiserror::Error)]
pub enum DispatcherError {
    #[error("start on the bus")]
    Bus(#[from] BusError),
    #[error("make a name for this dispatcher")]
    Name(#[from] IdError),
    #[error("find spillway-runner")]
    Runner(#[source] std::io::Error),
    #[error("open target {target}")]
    Launcher { target: String, source: LaunchError },
    #[error("serve health at {at}")]
    Health { at: std::net::SocketAddr, source: std::io::Error },
    #[error("prepare the runner's orders")]
    Handover(#[source] serde_json::Error),
}

/// One running dispatcher.
pub struct Dispatcher {
    context: Arc<Context>,
    starts: RpcServer,
    control: RpcServer,
}

impl Dispatcher {
    /// With the targets the configuration names; each finished task is a line on standard output.
    pub async fn start(config: Config, bus: Bus) -> Result<Self, DispatcherError> {
        let clock = bus.clock().clone();
        let launchers = launchers(&config, &clock).await?;
        let ledger_sink: LedgerSink = Box::new(|entry| println!("{entry}"));
        Self::open(config, bus, launchers, clock, Some(ledger_sink)).await
    }

    /// With one launcher, for the first target.
    pub async fn with(
        config: Config,
        bus: Bus,
        launcher: Arc<dyn Launcher>,
        clock: Clock,
    ) -> Result<Self, DispatcherError> {
        Self::open(config, bus, vec![launcher], clock, None).await
    }

    /// With a launcher for each target, in their order.
    pub async fn on(
        config: Config,
        bus: Bus,
        launchers: Vec<Arc<dyn Launcher>>,
        clock: Clock,
    ) -> Result<Self, DispatcherError> {
        Self::open(config, bus, launchers, clock, None).await
    }

    async fn open(
        config: Config,
        bus: Bus,
        launchers: Vec<Arc<dyn Launcher>>,
        clock: Clock,
        ledger_sink: Option<LedgerSink>,
    ) -> Result<Self, DispatcherError> {
        let context = context("dispatcher", config, bus, launchers, clock, ledger_sink)?;
        context.learn_installation().await?;
        let config = context.config();
        for at in [config.health, config.metrics].into_iter().flatten() {
            let listener = health::listen(at).await.map_err(|source| DispatcherError::Health { at, source })?;
            context.spawn(health::serve(listener, Arc::clone(&context)));
        }
        context.io.listen().await?;
        let control = RpcServer::new(&context.bus, service::EGRESS_HANDLER);
        let methods = [
            (service::STOP_EGRESS, ControlMethod::Stop),
            (service::UPDATE_STREAM, ControlMethod::UpdateStream),
            (service::UPDATE_EGRESS, ControlMethod::Other),
        ];
        for (method, what) in methods {
            let handler = Arc::new(ControlHandler { context: Arc::clone(&context), what });
            control.serve_pattern(method, Routing::Queue, handler).await?;
        }
        context.spawn(launch::run(Arc::clone(&context)));
        context.spawn(Reconciler::new(Arc::clone(&context)).run());
        context.spawn(billing::run(Arc::clone(&context)));

        let starts = RpcServer::new(&context.bus, service::EGRESS_INTERNAL);
        let list = Arc::new(ListActive(Arc::clone(&context)));
        starts.serve(service::LIST_ACTIVE_EGRESS, "", Routing::Multi, list).await?;
        let start = Arc::new(StartEgress(Arc::clone(&context)));
        starts.serve(service::START_EGRESS, "", Routing::Affinity, start).await?;
        let all = context.targets.all();
        let targets: Vec<&str> = all.iter().map(|target| target.name()).collect();
        info!(name = %context.name, ?targets, "dispatcher is ready");
        Ok(Self { context, starts, control })
    }

    /// Takes no more work and returns when nothing is in hand. False when something still was at the end of the configured
    /// patience; other dispatchers take that over. Runners go on by themselves.
    pub async fn drained(&self) -> bool {
        self.take_no_more().await;
        let timeout = self.context.config().drain;
        let emptied = tokio::time::timeout(timeout, async {
            while !self.context.is_idle() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        let in_time = emptied.await.is_ok();
        if !in_time {
            warn!(?timeout, "still work in hand at the end of the drain; another dispatcher will find it");
        }
        in_time
    }

    async fn take_no_more(&self) {
        self.context.drain();
        self.starts.unsubscribe(service::START_EGRESS, "").await;
        info!("draining: no more StartEgress");
    }

    /// The last step, after [`Dispatcher::drained`].
    pub async fn leave(self) -> bool {
        let timeout = Duration::from_secs(5);
        let closed = tokio::time::timeout(timeout, async {
            self.starts.close().await;
            self.control.close().await;
        });
        if closed.await.is_err() {
            warn!("calls still unanswered when leaving");
        }
        self.context.shutdown.shut_down(timeout).await
    }

    /// Tells every runner of ours to finish and report, and waits until they have; for an operator who wants everything
    /// to end.
    pub async fn end_all(&self) {
        let context = &self.context;
        self.take_no_more().await;
        let live = match context.registry.list_live().await {
            Ok(live) => live,
            Err(error) => return warn!(error = %chain(&error), "registry not reached, no runner told to end"),
        };
        let mut told = Vec::new();
        for record in live.iter().filter(|record| record.phase != Phase::Over && context.owns(record)) {
            if record.task.is_some() {
                context.targets.end(record, StopMode::Graceful).await;
                told.push(record);
            }
        }
        info!(runners = told.len(), "runners told to finish");
        let gone = tokio::time::timeout(context.config().drain, async {
            for record in &told {
                while matches!(context.targets.status(record).await, Some(TaskStatus::Alive | TaskStatus::Starting(_)))
                {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        });
        if gone.await.is_err() {
            warn!("some runners are still finishing; they go on by themselves");
        }
    }

    /// What can change while we run does: targets, queue, deadlines, caps, tenants, prices, storage, settings of runners.
    /// The rest is named in the log and waits for a restart.
    pub async fn reload(&self, new: Config) {
        let old = self.context.config();
        let fixed = [
            ("redis", format!("{:?}", old.redis) != format!("{:?}", new.redis)),
            ("health, prometheus_port", (old.health, old.metrics) != (new.health, new.metrics)),
            ("push", old.push != new.push),
            ("ticket_key", old.ticket_key.as_ref().map(Secret::reveal) != new.ticket_key.as_ref().map(Secret::reveal)),
            ("logging", (&old.log_level, old.log_json) != (&new.log_level, new.log_json)),
            ("stack", old.stack != new.stack),
        ];
        for (what, _) in fixed.iter().filter(|(_, differs)| *differs) {
            warn!(what, "changed in the configuration; a restart is needed for it");
        }
        let targets = match self.targets(&old, &new).await {
            Ok(targets) => {
                self.context.targets.replace(targets);
                new.targets.clone()
            }
            Err(error) => {
                error!(error = %chain(&error), "targets not changed");
                old.targets.clone()
            }
        };
        let new = Config {
            redis: old.redis.clone(),
            targets,
            health: old.health,
            push: old.push.clone(),
            metrics: old.metrics,
            ticket_key: old.ticket_key.clone(),
            log_level: old.log_level.clone(),
            log_json: old.log_json,
            stack: old.stack.clone(),
            ..new
        };
        self.context.queue().set_bounds(launch::bounds_of(&new));
        self.context.set_config(new);
        self.context.queue_changed.notify_one();
        info!("configuration read again");
    }

    /// Those that have not changed keep what is known of them.
    async fn targets(&self, old: &Config, new: &Config) -> Result<Vec<Arc<Target>>, DispatcherError> {
        let new = Config { stack: old.stack.clone(), ..new.clone() };
        let mut targets = Vec::new();
        for config in &new.targets {
            let same = old.targets.iter().any(|before| format!("{before:?}") == format!("{config:?}"));
            match self.context.targets.named(&config.name).filter(|_| same) {
                Some(target) => targets.push(target),
                None => {
                    info!(target = config.name, "target is new, or has changed");
                    targets.push(Arc::new(Target::new(
                        config.clone(),
                        launcher(config, &new, &self.context.clock).await?,
                    )));
                }
            }
        }
        Ok(targets)
    }

    /// As if the process were gone: nothing is finished, nothing is said. For tests of what others do then.
    pub async fn vanish(self) {
        self.context.abandon();
        self.starts.unsubscribe(service::START_EGRESS, "").await;
        for method in [service::STOP_EGRESS, service::UPDATE_STREAM, service::UPDATE_EGRESS] {
            self.control.unsubscribe_pattern(method).await;
        }
    }
}

pub(crate) async fn launchers(config: &Config, clock: &Clock) -> Result<Vec<Arc<dyn Launcher>>, DispatcherError> {
    let mut launchers = Vec::new();
    for target in &config.targets {
        launchers.push(launcher(target, config, clock).await?);
    }
    Ok(launchers)
}

async fn launcher(target: &TargetConfig, config: &Config, clock: &Clock) -> Result<Arc<dyn Launcher>, DispatcherError> {
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

pub(crate) fn context(
    kind: &str,
    config: Config,
    bus: Bus,
    launchers: Vec<Arc<dyn Launcher>>,
    clock: Clock,
    ledger_sink: Option<LedgerSink>,
) -> Result<Arc<Context>, DispatcherError> {
    let name = EgressId::parse(&format!("{kind}-{:016x}", rand::random::<u64>()))?;
    let key = ticket_key(&config)?;
    let handover = handover(&config, &key)?;
    let queue = LaunchQueue::new(launch::bounds_of(&config));
    let tickets = Tickets::new(&bus, key);
    let targets = config.targets.iter().cloned().zip(launchers).map(|(config, launcher)| Target::new(config, launcher));
    let targets = Targets::new(targets.collect());
    Ok(Arc::new(Context::new(
        name,
        ContextParts { config, clock, bus, tickets, targets, handover, queue, ledger_sink },
    )))
}

/// A look for what was lost, as `--sweep` does it: for the whole grace, where there is something to wait for. Without
/// `dry_run` orphans are ended.
///
/// # Errors
/// When a target cannot be opened or Redis does not answer; nothing was ended then, and a repeat is right.
pub async fn sweep(config: Config, bus: Bus, dry_run: bool) -> Result<Vec<Finding>, DispatcherError> {
    let launchers = launchers(&config, bus.clock()).await?;
    sweep_on(config, bus, launchers, dry_run).await
}

/// As [`sweep`], with a launcher for each target, in their order.
///
/// # Errors
/// As [`sweep`].
pub async fn sweep_on(
    config: Config,
    bus: Bus,
    launchers: Vec<Arc<dyn Launcher>>,
    dry_run: bool,
) -> Result<Vec<Finding>, DispatcherError> {
    let clock = bus.clock().clone();
    let context = context("sweep", config, bus, launchers, clock, None)?;
    let findings = orphans::sweep(&context).await?;
    if !dry_run {
        orphans::end(&context, &findings).await?;
    }
    Ok(findings)
}

/// All dispatchers share the API secret, so they share what is derived from it.
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
