//! A faulty platform: refuses, throttles, loses answers, starts a task twice, reports exits late. All by seed.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use spillway_cost::Platform;
use spillway_launchers::{
    Billed, ExitReport, LaunchError, LaunchOrder, Launcher, OwnedTask, Quota, SimulatedLauncher, StopMode, StopOutcome,
    TaskLinks, TaskLog, TaskRef, TaskStatus,
};
use spillway_protocol::ids::EgressId;
use tokio::time::Instant;

/// Probability of each fault, 0 to 1.
#[derive(Clone, Copy, Debug, Default)]
pub struct FaultRates {
    pub throttled: f64,
    pub no_capacity: f64,
    /// An error, and no task.
    pub fails: f64,
    /// An error, and a task.
    pub answer_lost: f64,
    /// No answer at all for a while, and a task.
    pub hangs: f64,
    pub misconfigured: f64,
    /// An exit is reported this long after it.
    pub tells_late: Duration,
}

pub struct FaultyPlatform {
    name: String,
    cloud: SimulatedLauncher,
    rates: FaultRates,
    dice: Mutex<StdRng>,
    known: Mutex<HashSet<(EgressId, u32)>>,
    platform: Platform,
    gone: Mutex<HashMap<TaskRef, Instant>>,
    /// When each task was launched, for its bill.
    started: Mutex<HashMap<TaskRef, Instant>>,
    quota: Option<Quota>,
    unix_ms: Arc<dyn Fn() -> i64 + Send + Sync>,
}

impl FaultyPlatform {
    pub fn new(name: &str, cloud: &SimulatedLauncher, rates: FaultRates, seed: u64) -> Self {
        Self {
            name: name.to_owned(),
            cloud: cloud.clone(),
            rates,
            dice: Mutex::new(StdRng::seed_from_u64(seed)),
            platform: Platform::Host,
            known: Mutex::default(),
            gone: Mutex::default(),
            started: Mutex::default(),
            quota: cloud.quota(),
            unix_ms: Arc::new(|| 0),
        }
    }

    /// Has this platform's prices and reports billed windows.
    pub fn selling(self, platform: Platform, unix_ms: impl Fn() -> i64 + Send + Sync + 'static) -> Self {
        Self { platform, unix_ms: Arc::new(unix_ms), ..self }
    }

    fn happens(&self, rates: f64) -> bool {
        self.dice.lock().unwrap().random_bool(rates)
    }

    fn named(&self, task: TaskRef) -> TaskRef {
        TaskRef { launcher: self.name.clone(), ..task }
    }

    fn inner(&self, task: &TaskRef) -> TaskRef {
        TaskRef { launcher: self.cloud.name().to_owned(), ..task.clone() }
    }
}

fn passing(message: &str) -> LaunchError {
    LaunchError::Transient { message: message.to_owned(), source: None }
}

#[async_trait]
impl Launcher for FaultyPlatform {
    fn name(&self) -> &str {
        &self.name
    }

    async fn launch(&self, order: &LaunchOrder) -> Result<TaskRef, LaunchError> {
        let FaultRates { throttled, no_capacity, fails, answer_lost, hangs, misconfigured, .. } = self.rates;
        if self.happens(throttled) {
            let retry_after = Some(Duration::from_millis(500));
            return Err(LaunchError::Throttled { message: "rate exceeded".to_owned(), retry_after });
        }
        // A launcher finds a task it has already started, even without capacity for others.
        let key = (order.egress_id.clone(), order.attempt);
        let has_it = self.known.lock().unwrap().contains(&key);
        if !has_it && self.happens(no_capacity) {
            return Err(LaunchError::Capacity { message: "capacity is unavailable at this time".to_owned() });
        }
        if !has_it && self.happens(misconfigured) {
            return Err(LaunchError::Misconfigured { message: "no such role yet".to_owned(), source: None });
        }
        if self.happens(fails) {
            return Err(passing("server error"));
        }
        let task = self.cloud.launch(order).await?;
        self.known.lock().unwrap().insert(key);
        self.started.lock().unwrap().entry(self.named(task.clone())).or_insert_with(Instant::now);
        if self.happens(hangs) {
            std::future::pending::<()>().await;
        }
        if self.happens(answer_lost) {
            return Err(passing("connection reset"));
        }
        Ok(self.named(task))
    }

    async fn status(&self, task: &TaskRef) -> TaskStatus {
        match self.cloud.status(&self.inner(task)).await {
            TaskStatus::Gone(exit_report) => {
                let now = Instant::now();
                let since = *self.gone.lock().unwrap().entry(task.clone()).or_insert(now);
                if now - since < self.rates.tells_late {
                    return TaskStatus::Alive;
                }
                let started = self.started.lock().unwrap().get(task).copied().unwrap_or(since);
                let to = (self.unix_ms)() - i64::try_from((now - since).as_millis()).unwrap();
                let from = to - i64::try_from((since - started).as_millis()).unwrap();
                // Start and end of real tasks vary this much.
                let (from, to) = {
                    let mut dice = self.dice.lock().unwrap();
                    (from + dice.random_range(-10_000..10_000), to + dice.random_range(5_000..15_000))
                };
                let billed = (self.platform != Platform::Host).then_some(Billed { from, to });
                TaskStatus::Gone(ExitReport { billed, ..exit_report })
            }
            seen => seen,
        }
    }

    async fn end(&self, task: &TaskRef, how: StopMode) -> StopOutcome {
        self.cloud.end(&self.inner(task), how).await
    }

    async fn log(&self, task: &TaskRef) -> TaskLog {
        self.cloud.log(&self.inner(task)).await
    }

    async fn tasks(&self) -> Result<Vec<OwnedTask>, LaunchError> {
        let mine = self.started.lock().unwrap().clone();
        let tasks = self.cloud.tasks().await?;
        let owned = tasks.into_iter().map(|owned| OwnedTask { task: self.named(owned.task.clone()), ..owned });
        Ok(owned.filter(|owned| mine.contains_key(&owned.task)).collect())
    }

    fn platform(&self) -> Platform {
        self.platform
    }

    fn links(&self, task: &TaskRef) -> TaskLinks {
        let url = format!("https://console.example/{}/{}", self.name, task.id);
        TaskLinks { task_url: Some(url).filter(|_| task.launcher == self.name), log_url: None }
    }

    fn quota(&self) -> Option<Quota> {
        self.quota
    }
}
