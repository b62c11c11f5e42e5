//! The control plane in memory and in virtual time: livekit-server's side of psrpc, a simulated platform, and runners whose
//! behaviour a test chooses.

mod livekit;
mod runner;
mod faults;
mod versions;

use std::sync::Arc;
use std::time::Duration;

use spillway_bus::{Bus, FaultyLink, LinkFaults, MemoryBroker};
use spillway_cost::PriceList;
use spillway_dispatcher::config::targets::{LauncherConfig, TargetConfig};
use spillway_dispatcher::{Clock, Config, Dispatcher, Setup};
use spillway_launchers::simulated::SimulatedOptions;
use spillway_launchers::{Launcher, SimulatedLauncher};
use spillway_protocol::Secret;

pub use faults::{FaultRates, FaultyPlatform};
pub use livekit::{LiveKit, is_over};
pub use runner::{Play, Runners};
pub use versions::{FOREIGN, ForeignValues, rewrite_as_before};

/// 2026-01-01, so that times in failures are easy to read.
const NEW_YEAR: i64 = 1_767_225_600_000_000_000;

pub struct Harness {
    pub broker: MemoryBroker,
    pub cloud: SimulatedLauncher,
    pub livekit: LiveKit,
    pub runners: Arc<Runners>,
    pub clock: Clock,
}

impl Harness {
    pub async fn set(options: SimulatedOptions) -> Self {
        Self::set_with(options, &FaultyLink::new(LinkFaults::default())).await
    }

    /// `link`: the runners' connection to Redis.
    pub async fn set_with(options: SimulatedOptions, link: &FaultyLink) -> Self {
        let broker = MemoryBroker::new();
        let cloud = SimulatedLauncher::new(options);
        let clock = Clock::starting_at(NEW_YEAR);
        let livekit = LiveKit::open(&broker.bus()).await;
        let runners = Runners::start(&link.to(&broker.bus()), &cloud, clock.clone());
        Self { broker, cloud, livekit, runners, clock }
    }

    pub fn bus(&self) -> Bus {
        self.broker.bus()
    }

    pub async fn dispatcher(&self) -> Dispatcher {
        self.dispatcher_with(config()).await
    }

    pub async fn dispatcher_with(&self, config: Config) -> Dispatcher {
        let launchers: Vec<Arc<dyn Launcher>> = vec![Arc::new(self.cloud.clone())];
        Dispatcher::start(Setup::with(config, self.bus(), launchers, self.clock.clone())).await.unwrap()
    }
}

pub fn config() -> Config {
    Config {
        api_key: "key".to_owned(),
        api_secret: Secret::new("secret-secret-secret-secret-secret".to_owned()),
        ws_url: "ws://127.0.0.1:7880".to_owned(),
        ticket_key: Some(Secret::new("11".repeat(32))),
        targets: vec![target("simulated")],
        prices: Arc::new(PriceList::built_in().unwrap()),
        ..Config::default()
    }
}

pub fn target(name: &str) -> TargetConfig {
    TargetConfig::of(name, LauncherConfig::Simulated { latency: Duration::ZERO, quota: None })
}

/// Polls until it holds; fails after ten minutes of virtual time.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..120_000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("never: {what}");
}
