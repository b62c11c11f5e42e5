//! This dispatcher among others: its name, configuration and clock, and the tasks of its actors. Made once at the start;
//! each actor holds an `Arc` of it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use spillway_bus::Bus;
use spillway_process::{Clock, Shutdown};
use spillway_protocol::ids::EgressId;

use crate::config::Config;
use crate::cut_off::CutOff;
use crate::lock::locked;
use crate::metrics::Metrics;

/// What every actor of one dispatcher needs.
pub struct Instance {
    /// Of this dispatcher among others; new at each start.
    pub name: EgressId,
    /// Redis' time.
    pub clock: Clock,
    /// Read by `/metrics`.
    pub metrics: Metrics,
    /// Stops and tracks the tasks.
    pub shutdown: Shutdown,
    bus: Bus,
    config: Mutex<Arc<Config>>,
    draining: AtomicBool,
    /// Every task, and every answer that changes something, runs under it.
    cut_off: CutOff,
}

impl Instance {
    /// Starts nothing. `config`: at the start; a reload replaces it.
    pub fn new(name: EgressId, config: Config, bus: Bus, clock: Clock) -> Self {
        Self {
            name,
            clock,
            metrics: Metrics::default(),
            shutdown: Shutdown::new(),
            bus,
            config: Mutex::new(Arc::new(config)),
            draining: AtomicBool::new(false),
            cut_off: CutOff::default(),
        }
    }

    /// The current configuration; a reload may replace it at any time.
    pub fn config(&self) -> Arc<Config> {
        Arc::clone(&locked(&self.config))
    }

    /// After a reload.
    pub fn set_config(&self, config: Config) {
        *locked(&self.config) = Arc::new(config);
    }

    /// Redis answers, and every subscription is confirmed.
    pub fn reaches_redis(&self) -> bool {
        self.bus.healthy()
    }

    /// Starts a task that the shutdown waits for.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.shutdown.spawn(self.cut_off.clone().unless(task));
    }

    /// As [`Instance::spawn`], but the shutdown does not wait for it.
    pub fn spawn_untracked(&self, task: impl Future<Output = ()> + Send + 'static) {
        tokio::spawn(self.cut_off.clone().unless(task));
    }

    /// Runs what an RPC or HTTP call waits for; never returns once a test has cut the dispatcher off.
    pub async fn answered<T>(&self, work: impl Future<Output = T>) -> T {
        match self.cut_off.clone().unless(work).await {
            Some(done) => done,
            None => std::future::pending().await,
        }
    }

    /// Stops everything at once without finishing anything.
    #[cfg(feature = "testing")]
    pub fn cut_off(&self) {
        self.drain();
        self.cut_off.cut();
        self.shutdown.trigger();
    }

    /// Unix milliseconds until which a launch that is enqueued now may wait.
    pub fn deadline_ms(&self) -> i64 {
        let wait = i64::try_from(self.config().queue_deadline.as_millis()).unwrap_or(i64::MAX);
        self.clock.unix_ms().saturating_add(wait)
    }

    /// From now on no StartEgress is claimed and `/readyz` says so.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// After [`Instance::drain`].
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }
}
