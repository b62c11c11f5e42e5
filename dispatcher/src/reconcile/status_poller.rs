//! Status of tasks on their platforms, asked in the background: a slow platform must not delay the sweep. One call asks about many tasks, and no task is asked about more than every 3 s: platforms
//! limit reads.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use spillway_bus::{Phase, Record};
use spillway_launchers::{TaskRef, TaskStatus};
use spillway_protocol::ids::EgressId;
use tokio::time::Instant;
use tracing::debug;

use crate::instance::Instance;
use crate::lock::locked;
use crate::targets::Targets;

/// How long an answer is used.
const ASK_AGAIN: Duration = Duration::from_secs(3);

/// Cache of answers, and what to ask next.
pub struct StatusPoller {
    instance: Arc<Instance>,
    targets: Arc<Targets>,
    cache: Arc<Mutex<StatusCache>>,
    wanted: BTreeMap<String, Vec<StatusRequest>>,
}

#[derive(Default)]
struct StatusCache {
    seen: HashMap<EgressId, CachedStatus>,
    /// Targets with a call in progress.
    busy: HashSet<String>,
}

struct CachedStatus {
    task: TaskRef,
    at: Instant,
    task_status: TaskStatus,
}

struct StatusRequest {
    egress_id: EgressId,
    task: TaskRef,
    starting: bool,
    last: Option<Instant>,
}

impl StatusPoller {
    /// With an empty cache.
    pub fn new(instance: Arc<Instance>, targets: Arc<Targets>) -> Self {
        Self { instance, targets, cache: Arc::default(), wanted: BTreeMap::new() }
    }

    fn cache(&self) -> MutexGuard<'_, StatusCache> {
        locked(&self.cache)
    }

    /// Drops answers about other egresses.
    pub fn forget_all_but(&self, live: &HashSet<&EgressId>) {
        self.cache().seen.retain(|id, _| live.contains(id));
    }

    /// The last answer about the record's task; an old one is asked for again with the next [`StatusPoller::ask`].
    /// Without an answer the task counts as alive. `None`: the record names no task.
    pub async fn about(&mut self, record: &Record) -> Option<TaskStatus> {
        let task = record.task()?.clone();
        let Some(target) = self.targets.of(record) else {
            return Some(TaskStatus::Unknown(format!("{} is not configured here", task.launcher)));
        };
        if target.launcher.is_this_machine() {
            return Some(target.launcher.status(&task).await);
        }
        let now = Instant::now();
        let (last, task_status) = match self.cache().seen.get(&record.egress_id).filter(|seen| seen.task == task) {
            Some(seen) => (Some(seen.at), seen.task_status.clone()),
            None => (None, TaskStatus::Alive),
        };
        // A task that is gone stays gone.
        if !matches!(task_status, TaskStatus::Gone(_)) && last.is_none_or(|at| now - at >= ASK_AGAIN) {
            let starting = record.phase() == Phase::Launching;
            let wanted = StatusRequest { egress_id: record.egress_id.clone(), task, starting, last };
            self.wanted.entry(target.name().to_owned()).or_default().push(wanted);
        }
        Some(task_status)
    }

    /// Starts the calls for what was requested since the last time; tasks that run (and are silent) first, then the
    /// oldest answers.
    pub fn ask(&mut self) {
        for (name, mut wanted) in std::mem::take(&mut self.wanted) {
            let Some(target) = self.targets.named(&name) else { continue };
            if !self.cache().busy.insert(name.clone()) {
                continue;
            }
            wanted.sort_by_key(|wanted| (wanted.starting, wanted.last));
            wanted.truncate(target.launcher.max_status_batch());
            let cache = Arc::clone(&self.cache);
            self.instance.spawn(async move {
                let tasks: Vec<TaskRef> = wanted.iter().map(|wanted| wanted.task.clone()).collect();
                let answer = target.statuses(&tasks).await;
                let mut cache = locked(&cache);
                cache.busy.remove(&name);
                let Some(task_statuses) = answer else {
                    return debug!(target = name, tasks = tasks.len(), "the platform does not answer");
                };
                let at = Instant::now();
                for (wanted, task_status) in wanted.into_iter().zip(task_statuses) {
                    cache.seen.insert(wanted.egress_id, CachedStatus { task: wanted.task, at, task_status });
                }
            });
        }
    }
}
