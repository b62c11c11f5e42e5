//! Closes tasks that no record wants any more: asks their platforms whether they are gone and what they bill, writes a
//! line into the ledger, ends those that linger. Runs in the billing loop of the lease holder. Redis closes a task once, so
//! two dispatchers write one line.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use spillway_bus::{BusError, OpenTaskEntry, Record, TaskFacts, TaskKey};
use spillway_launchers::{ExitReport, StopMode, TaskRef, TaskStatus};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{error, info};

use super::accounts::{TaskAccounts, lacks_its_bill};
use super::entry::TaskEnd;
use crate::targets::{Target, Targets};

/// Platforms report the billed window up to a minute after the task is gone.
const BILL_TIMEOUT: Duration = Duration::from_secs(60);
/// A task that still runs so long after its egress is over is ended.
const LINGERS: Duration = Duration::from_secs(90);

/// Before a task that still runs is ended again.
const END_AGAIN: Duration = Duration::from_secs(30);

/// State of the closing between rounds.
pub(super) struct TaskCloser {
    accounts: Arc<TaskAccounts>,
    targets: Arc<Targets>,
    /// Launches that the records were at in the last sweep.
    wanted: watch::Receiver<HashSet<TaskKey>>,
    /// Since when no record has wanted the task.
    done_since: HashMap<TaskKey, Instant>,
    /// When it was last ended because it lingered.
    ended_at: HashMap<TaskKey, Instant>,
    /// Tasks whose facts were reported as unreadable.
    unreadable: HashSet<TaskKey>,
}

/// An open task that no record wants.
struct ClosingTask {
    open: OpenTaskEntry,
    facts: TaskFacts,
    /// The record, if it is still at this attempt.
    current: Option<Record>,
    /// The platform's reference, where the record has it and the target is configured here.
    task: Option<(TaskRef, Arc<Target>)>,
    done_for: Duration,
}

impl TaskCloser {
    /// Knows of no task yet.
    pub fn new(accounts: Arc<TaskAccounts>, targets: Arc<Targets>, wanted: watch::Receiver<HashSet<TaskKey>>) -> Self {
        Self {
            accounts,
            targets,
            wanted,
            done_since: HashMap::new(),
            ended_at: HashMap::new(),
            unreadable: HashSet::new(),
        }
    }

    /// Goes through all open tasks.
    ///
    /// # Errors
    /// When Redis does not answer; the next round is the retry.
    pub async fn round(&mut self) -> Result<(), BusError> {
        let open = self.accounts.tasks.list().await?;
        self.done_since.retain(|key, _| open.iter().any(|task| task.task == *key));
        self.ended_at.retain(|key, _| open.iter().any(|task| task.task == *key));
        self.unreadable.retain(|key| open.iter().any(|task| task.task == *key));
        self.accounts.instance.metrics.gauges(
            "spillway_tasks_open",
            "target",
            open.iter().map(|task| task.target.as_str()),
        );
        let mut closings = Vec::new();
        for task in open {
            let is_wanted = self.wanted.borrow().contains(&task.task);
            if !is_wanted {
                closings.extend(self.closing(task).await?);
            }
        }
        let task_statuses = poll_statuses(&closings).await;
        for (closing, task_status) in closings.into_iter().zip(task_statuses) {
            self.attend(closing, task_status).await?;
        }
        Ok(())
    }

    async fn closing(&mut self, open: OpenTaskEntry) -> Result<Option<ClosingTask>, BusError> {
        let facts = match serde_json::from_str::<TaskFacts>(&open.facts) {
            Ok(facts) => facts,
            // Its task may run, and its bill can be written by the version that opened it.
            Err(error) => {
                if self.unreadable.insert(open.task.clone()) {
                    error!(task = %open.task, %error, "facts of an open task cannot be read; it is left open");
                }
                return Ok(None);
            }
        };
        let record = match self.accounts.records.registry.get(&open.task.egress_id).await {
            // The sweep reports it; its task may run.
            Err(error) if !error.is_transient() => return Ok(None),
            record => record?,
        };
        // Opened for an attempt that the record has not reached yet.
        if record.as_ref().is_some_and(|record| record.attempt < open.task.attempt && !record.state.is_over())
            && self.accounts.instance.clock.unix_ms() - facts.opened_ms < 60_000
        {
            return Ok(None);
        }
        let task = record.as_ref().and_then(|record| record.task_of(open.task.attempt)).cloned();
        let task = task.and_then(|task| Some((task, self.targets.named(&open.target)?)));
        let current = record.filter(|record| record.attempt == open.task.attempt);
        // The index of live records was old.
        if current.as_ref().is_some_and(|record| record.wants(open.task.attempt)) {
            return Ok(None);
        }
        let now = Instant::now();
        let done_for = now - *self.done_since.entry(open.task.clone()).or_insert(now);
        Ok(Some(ClosingTask { open, facts, current, task, done_for }))
    }

    async fn attend(&mut self, closing: ClosingTask, task_status: Option<TaskStatus>) -> Result<(), BusError> {
        let ClosingTask { open, facts, current, task, done_for } = closing;
        let end = match self.presence(task_status, current.as_ref()).await? {
            Presence::Gone(exit_report) => {
                if lacks_its_bill(&facts, &exit_report) && done_for < BILL_TIMEOUT {
                    return Ok(());
                }
                self.accounts.end_of(&facts, current.as_ref(), Some(&exit_report))
            }
            Presence::There => {
                if let (true, Some((task, target))) = (done_for >= LINGERS, task) {
                    self.send_away(open, task, target);
                }
                return Ok(());
            }
            // Its platform does not know it or cannot be asked: our own clock decides.
            Presence::Nowhere if done_for < BILL_TIMEOUT / 4 => return Ok(()),
            Presence::Nowhere => self.accounts.end_of(&facts, current.as_ref(), None),
        };
        self.done_since.remove(&open.task);
        let links = task.map(|(task, target)| target.launcher.links(&task)).unwrap_or_default();
        self.accounts.write(&open, &facts, &TaskEnd { links, ..end }).await
    }

    fn send_away(&mut self, open: OpenTaskEntry, task: TaskRef, target: Arc<Target>) {
        let now = Instant::now();
        if self.ended_at.get(&open.task).is_some_and(|at| now - *at < END_AGAIN) {
            return;
        }
        info!(egress_id = %open.task.egress_id, %task, "its egress is over for long, task ended");
        self.ended_at.insert(open.task, now);
        // In the background: a slow platform must not delay the round.
        self.accounts.instance.spawn(async move {
            target.launcher.end(&task, StopMode::Immediate).await;
        });
    }

    async fn presence(&self, task_status: Option<TaskStatus>, record: Option<&Record>) -> Result<Presence, BusError> {
        Ok(match (task_status, record) {
            (Some(TaskStatus::Gone(exit_report)), _) => Presence::Gone(exit_report),
            (Some(TaskStatus::Alive | TaskStatus::Starting(_)), _) => Presence::There,
            (Some(TaskStatus::Unknown(_)), Some(record)) if self.accounts.records.is_beating(record).await? => {
                Presence::There
            }
            (Some(TaskStatus::Unknown(_)) | None, _) => Presence::Nowhere,
        })
    }
}

/// Status of each on its platform, many per call; `None` where no platform can be asked.
async fn poll_statuses(closings: &[ClosingTask]) -> Vec<Option<TaskStatus>> {
    let mut by_target: BTreeMap<&str, (&Target, Vec<usize>)> = BTreeMap::new();
    for (nth, closing) in closings.iter().enumerate() {
        if let Some((_, target)) = &closing.task {
            by_target.entry(target.name()).or_insert((target, Vec::new())).1.push(nth);
        }
    }
    let polls = by_target.into_values().map(|(target, nths)| async move {
        let mut seen = Vec::new();
        for some in nths.chunks(target.launcher.max_status_batch()) {
            let tasks = some.iter().filter_map(|nth| closings[*nth].task.as_ref());
            let tasks: Vec<TaskRef> = tasks.map(|(task, _)| task.clone()).collect();
            let polled = target.statuses(&tasks).await;
            let silent =
                || tasks.iter().map(|_| TaskStatus::Unknown("the platform does not answer".to_owned())).collect();
            seen.extend(some.iter().copied().zip(polled.unwrap_or_else(silent)));
        }
        seen
    });
    let mut task_statuses: Vec<Option<TaskStatus>> = closings.iter().map(|_| None).collect();
    for (nth, task_status) in join_all(polls).await.into_iter().flatten() {
        task_statuses[nth] = Some(task_status);
    }
    task_statuses
}

enum Presence {
    Gone(ExitReport),
    There,
    Nowhere,
}
