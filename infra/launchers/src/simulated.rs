//! A simulated platform: it accepts orders with the latency and quota of a real one and starts no process; tasks exit when the
//! caller says so. A configuration may name it (`launcher: simulated`), to measure a dispatcher without a platform. Runs in the
//! caller's task, on tokio's clock. Clones are one platform seen by several dispatchers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use spillway_cost::Platform;
use spillway_protocol::ids::EgressId;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::exit::{ExitReport, TaskExit};
use crate::launcher::{
    LaunchError, LaunchOrder, Launcher, OwnedTask, Quota, StopMode, StopOutcome, TaskLog, TaskRef, TaskStatus,
};

const NAME: &str = "simulated";

/// Behaviour of the simulated platform.
#[derive(Clone, Debug, Default)]
pub struct SimulatedOptions {
    /// How long the platform's API takes to answer.
    pub latency: Duration,
    /// How long a task stays `Starting`.
    pub provisioning: Duration,
    /// Launches it accepts; `None`: all.
    pub quota: Option<Quota>,
    /// Tasks that it runs at once; `None`: no limit.
    pub max_tasks: Option<usize>,
}

/// Launches tasks on the simulated platform.
#[derive(Clone)]
pub struct SimulatedLauncher {
    options: SimulatedOptions,
    cloud: Arc<Mutex<SimulatedCloud>>,
}

struct SimulatedCloud {
    bucket: Option<TokenBucket>,
    tasks: HashMap<(EgressId, u32), SimulatedTask>,
    /// Errors for the next launches of an egress, first one first.
    refusals: HashMap<EgressId, Vec<LaunchError>>,
    starts: Vec<mpsc::UnboundedSender<(LaunchOrder, TaskRef)>>,
    calls: u64,
}

struct SimulatedTask {
    number: u64,
    installation: String,
    runs_at: Instant,
    /// When and how it exits; the time may lie in the future.
    leaves: Option<(Instant, ExitReport)>,
}

impl SimulatedLauncher {
    /// An empty platform with a full quota.
    pub fn new(options: SimulatedOptions) -> Self {
        let bucket = options.quota.map(|quota| TokenBucket::full(quota, Instant::now()));
        let cloud =
            SimulatedCloud { bucket, tasks: HashMap::new(), refusals: HashMap::new(), starts: Vec::new(), calls: 0 };
        Self { options, cloud: Arc::new(Mutex::new(cloud)) }
    }

    /// Every task that starts from now on, for a test that simulates the runners.
    pub fn starts(&self) -> mpsc::UnboundedReceiver<(LaunchOrder, TaskRef)> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.cloud().starts.push(sender);
        receiver
    }

    /// The next launches of this egress fail with these errors, in this order.
    pub fn refuse(&self, egress_id: &EgressId, refusals: Vec<LaunchError>) {
        self.cloud().refusals.insert(egress_id.clone(), refusals);
    }

    /// The task exits after `after` with this report. False when there is no such running task.
    pub fn leave(&self, task: &TaskRef, after: Duration, exit_report: impl Into<ExitReport>) -> bool {
        let now = Instant::now();
        match self.cloud().by_ref(task) {
            Some(task) if task.is_alive(now) => {
                task.leaves = Some((now + after, exit_report.into()));
                true
            }
            _ => false,
        }
    }

    /// Launches so far, refused ones included.
    pub fn calls(&self) -> u64 {
        self.cloud().calls
    }

    /// Tasks started so far.
    pub fn started(&self) -> usize {
        self.cloud().tasks.len()
    }

    fn cloud(&self) -> MutexGuard<'_, SimulatedCloud> {
        self.cloud.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SimulatedCloud {
    fn by_ref(&mut self, task: &TaskRef) -> Option<&mut SimulatedTask> {
        let number: u64 = task.id.parse().ok().filter(|_| task.launcher == NAME)?;
        self.tasks.values_mut().find(|task| task.number == number)
    }

    fn take(&mut self, order: &LaunchOrder, options: &SimulatedOptions, now: Instant) -> Result<TaskRef, LaunchError> {
        let max = options.max_tasks;
        let key = (order.egress_id.clone(), order.attempt);
        if let Some(task) = self.tasks.get(&key) {
            return Ok(task_ref(task.number));
        }
        self.calls += 1;
        if let Some(refusals) = self.refusals.get_mut(&order.egress_id).filter(|refusals| !refusals.is_empty()) {
            return Err(refusals.remove(0));
        }
        if max.is_some_and(|max| self.tasks.values().filter(|task| task.is_alive(now)).count() >= max) {
            return Err(LaunchError::Capacity { message: "the simulated platform is full".to_owned() });
        }
        if let Some(Err(wait)) = self.bucket.as_mut().map(|bucket| bucket.take(now)) {
            return Err(LaunchError::Throttled { message: "too many launches".to_owned(), retry_after: Some(wait) });
        }
        let number = self.tasks.len() as u64 + 1;
        self.tasks.insert(
            key,
            SimulatedTask {
                number,
                installation: order.installation.clone(),
                runs_at: now + options.provisioning,
                leaves: None,
            },
        );
        let task = task_ref(number);
        self.starts.retain(|listener| listener.send((order.clone(), task.clone())).is_ok());
        Ok(task)
    }
}

impl SimulatedTask {
    fn is_alive(&self, now: Instant) -> bool {
        self.leaves.as_ref().is_none_or(|(at, _)| *at > now)
    }
}

fn task_ref(number: u64) -> TaskRef {
    TaskRef { launcher: NAME.to_owned(), id: number.to_string() }
}

#[async_trait]
impl Launcher for SimulatedLauncher {
    fn name(&self) -> &str {
        NAME
    }

    async fn launch(&self, order: &LaunchOrder) -> Result<TaskRef, LaunchError> {
        tokio::time::sleep(self.options.latency).await;
        self.cloud().take(order, &self.options, Instant::now())
    }

    async fn status(&self, task: &TaskRef) -> TaskStatus {
        let now = Instant::now();
        match self.cloud().by_ref(task) {
            None => TaskStatus::Unknown("not a task of this cloud".to_owned()),
            Some(task) => match &task.leaves {
                Some((at, exit_report)) if *at <= now => TaskStatus::Gone(exit_report.clone()),
                _ if task.runs_at > now => TaskStatus::Starting("being started by the simulation".to_owned()),
                _ => TaskStatus::Alive,
            },
        }
    }

    async fn end(&self, task: &TaskRef, how: StopMode) -> StopOutcome {
        let now = Instant::now();
        match self.cloud().by_ref(task) {
            None => StopOutcome::OutOfReach,
            Some(task) if !task.is_alive(now) => StopOutcome::AlreadyGone,
            Some(task) => {
                let exit = match how {
                    StopMode::Graceful => TaskExit::Exited(0),
                    StopMode::Immediate => TaskExit::EndedByUs(how.reason().to_owned()),
                };
                task.leaves = Some((now, exit.into()));
                StopOutcome::Requested
            }
        }
    }

    async fn log(&self, _: &TaskRef) -> TaskLog {
        TaskLog::At("nowhere: a simulated task runs no program".to_owned())
    }

    async fn tasks(&self) -> Result<Vec<OwnedTask>, LaunchError> {
        let now = Instant::now();
        let cloud = self.cloud();
        let living = cloud.tasks.iter().filter(|(_, task)| task.is_alive(now));
        let owned = living.map(|((egress_id, attempt), task)| OwnedTask {
            egress_id: egress_id.clone(),
            attempt: *attempt,
            task: task_ref(task.number),
            installation: task.installation.clone(),
            started_ms: None,
        });
        Ok(owned.collect())
    }

    fn platform(&self) -> Platform {
        Platform::Host
    }

    fn quota(&self) -> Option<Quota> {
        self.options.quota
    }
}

struct TokenBucket {
    quota: Quota,
    tokens: f64,
    at: Instant,
}

impl TokenBucket {
    fn full(quota: Quota, now: Instant) -> Self {
        Self { quota, tokens: f64::from(quota.burst), at: now }
    }

    /// Takes a token, or returns the time until there is one.
    fn take(&mut self, now: Instant) -> Result<(), Duration> {
        let refilled = now.saturating_duration_since(self.at).as_secs_f64() * self.quota.per_second;
        self.tokens = (self.tokens + refilled).min(f64::from(self.quota.burst));
        self.at = now;
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return Ok(());
        }
        Err(Duration::from_secs_f64((1.0 - self.tokens) / self.quota.per_second))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_bucket_allows_its_burst_at_once_and_then_its_rate() {
        let start = Instant::now();
        let mut bucket = TokenBucket::full(Quota::FARGATE, start);
        assert_eq!((0..150).filter(|_| bucket.take(start).is_ok()).count(), 100);
        let wait = bucket.take(start).unwrap_err();
        assert_eq!(wait, Duration::from_millis(50));
        assert!(bucket.take(start + wait).is_ok());
        let later = start + wait + Duration::from_secs(1);
        assert_eq!((0..150).filter(|_| bucket.take(later).is_ok()).count(), 20);
    }
}
