use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};
use spillway_bus::{Bus, BusError, Phase, Routing, RpcServer, TicketKey, Tickets};
use spillway_launchers::paper::PaperOptions;
use spillway_launchers::process::ProcessOptions;
use spillway_launchers::{EndHow, Launcher, PaperLauncher, ProcessLauncher, Sighting};
use spillway_process::chain;
use spillway_protocol::Secret;
use spillway_protocol::ids::{EgressId, IdError};
use spillway_protocol::rpc::service;
use tracing::{info, warn};

use crate::clock::Clock;
use crate::config::{Config, LauncherConfig};
use crate::control::{Control, What};
use crate::health;
use crate::house::{House, Tools, task_of};
use crate::intake::{ListActive, StartEgress};
use crate::launch::{self, Line};
use crate::watch::Watch;

#[derive(Debug, thiserror::Error)]
pub enum DispatcherError {
    #[error("start on the bus")]
    Bus(#[from] BusError),
    #[error("make a name for this dispatcher")]
    Name(#[from] IdError),
    #[error("find spillway-runner")]
    Runner(#[source] std::io::Error),
    #[error("serve health at {at}")]
    Health { at: std::net::SocketAddr, source: std::io::Error },
    #[error("prepare the runner's orders")]
    Handover(#[source] serde_json::Error),
}

/// One running dispatcher.
pub struct Dispatcher {
    house: Arc<House>,
    starts: RpcServer,
    control: RpcServer,
}

impl Dispatcher {
    /// With the launcher the configuration names.
    pub async fn start(config: Config, bus: Bus) -> Result<Self, DispatcherError> {
        let launcher: Arc<dyn Launcher> = match &config.launcher {
            LauncherConfig::Process { program, log_dir } => {
                let beside_us = ProcessOptions::beside_us().map_err(DispatcherError::Runner)?;
                let program = program.clone().unwrap_or_else(|| beside_us.program.clone());
                let options = ProcessOptions { program, log_dir: log_dir.clone(), ..beside_us };
                Arc::new(ProcessLauncher::new(options))
            }
            LauncherConfig::Paper { latency, quota } => Arc::new(PaperLauncher::new(PaperOptions {
                latency: *latency,
                quota: *quota,
                ..PaperOptions::default()
            })),
        };
        Self::with(config, bus, launcher, Clock::Wall).await
    }

    /// Hears, bids and sweeps when it returns.
    pub async fn with(
        config: Config,
        bus: Bus,
        launcher: Arc<dyn Launcher>,
        clock: Clock,
    ) -> Result<Self, DispatcherError> {
        let name = EgressId::parse(&format!("dispatcher-{:016x}", rand::random::<u64>()))?;
        let key = ticket_key(&config)?;
        let handover = handover(&config, &key)?;
        let line = Line::new(launch::bounds_of(&config));
        let tickets = Tickets::new(&bus, key);
        let house =
            Arc::new(House::new(name, Tools { config, clock, bus: bus.clone(), tickets, launcher, handover, line }));

        if let Some(at) = house.config.health {
            let listener = health::listen(at).await.map_err(|source| DispatcherError::Health { at, source })?;
            house.spawn(health::serve(listener, Arc::clone(&house)));
        }
        house.io.listen().await?;
        let control = RpcServer::new(&bus, service::EGRESS_HANDLER);
        let methods = [
            (service::STOP_EGRESS, What::Stop),
            (service::UPDATE_STREAM, What::UpdateStream),
            (service::UPDATE_EGRESS, What::Other),
        ];
        for (method, what) in methods {
            let handler = Arc::new(Control { house: Arc::clone(&house), what });
            control.serve_pattern(method, Routing::Queue, handler).await?;
        }
        house.spawn(launch::run(Arc::clone(&house)));
        house.spawn(Watch::new(Arc::clone(&house)).run());

        let starts = RpcServer::new(&bus, service::EGRESS_INTERNAL);
        let list = Arc::new(ListActive(Arc::clone(&house)));
        starts.serve(service::LIST_ACTIVE_EGRESS, "", Routing::Multi, list).await?;
        let start = Arc::new(StartEgress(Arc::clone(&house)));
        starts.serve(service::START_EGRESS, "", Routing::Affinity, start).await?;
        info!(name = %house.name, launcher = house.launcher.name(), "dispatcher is ready");
        Ok(Self { house, starts, control })
    }

    /// Takes no more work and returns when nothing is in hand. False when something still was at the end of the configured
    /// patience; other dispatchers take that over. Runners go on by themselves.
    pub async fn drained(&self) -> bool {
        self.take_no_more().await;
        let patience = self.house.config.drain;
        let emptied = tokio::time::timeout(patience, async {
            while !self.house.hands_are_empty() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        let in_time = emptied.await.is_ok();
        if !in_time {
            warn!(?patience, "still work in hand at the end of the drain; another dispatcher will find it");
        }
        in_time
    }

    async fn take_no_more(&self) {
        self.house.drain();
        self.starts.unsubscribe(service::START_EGRESS, "").await;
        info!("draining: no more StartEgress");
    }

    /// The last step, after [`Dispatcher::drained`].
    pub async fn leave(self) -> bool {
        let patience = Duration::from_secs(5);
        let closed = tokio::time::timeout(patience, async {
            self.starts.close().await;
            self.control.close().await;
        });
        if closed.await.is_err() {
            warn!("calls still unanswered when leaving");
        }
        self.house.stop.shut_down(patience).await
    }

    /// Tells every runner of ours to finish and report, and waits until they have; for an operator who wants everything
    /// to end.
    pub async fn end_all(&self) {
        let house = &self.house;
        self.take_no_more().await;
        let live = match house.registry.list_live().await {
            Ok(live) => live,
            Err(error) => return warn!(error = %chain(&error), "registry not reached, no runner told to end"),
        };
        let mut told = Vec::new();
        for record in live.iter().filter(|record| record.phase != Phase::Over && house.owns(record)) {
            if let Some(task) = task_of(record) {
                house.launcher.end(&task, EndHow::Ask).await;
                told.push(task);
            }
        }
        info!(runners = told.len(), "runners told to finish");
        let gone = tokio::time::timeout(house.config.drain, async {
            for task in &told {
                while matches!(house.launcher.look(task).await, Sighting::Alive | Sighting::Starting(_)) {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        });
        if gone.await.is_err() {
            warn!("some runners are still finishing; they go on by themselves");
        }
    }

    /// As if the process were gone: nothing is finished, nothing is said. For tests of what others do then.
    pub async fn vanish(self) {
        self.house.abandon();
        self.starts.unsubscribe(service::START_EGRESS, "").await;
        for method in [service::STOP_EGRESS, service::UPDATE_STREAM, service::UPDATE_EGRESS] {
            self.control.unsubscribe_pattern(method).await;
        }
    }
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
    let line = serde_json::json!({
        "ticket_key": key.reveal(),
        "redis": config.redis,
        "log": { "level": config.log_level, "json": config.log_json },
    });
    serde_json::to_string(&line).map(Secret::new).map_err(DispatcherError::Handover)
}
