//! What platforms say about tasks, asked in the background: no platform that is slow or away holds up the sweep, and with it
//! our own sign of life. Many tasks are asked about at once, and none so often that a platform's quota for reads is touched.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use spillway_bus::{Phase, Record};
use spillway_launchers::{TaskRef, TaskStatus};
use spillway_protocol::ids::EgressId;
use tokio::time::Instant;
use tracing::debug;

use crate::context::{Context, task_of};

/// How long a platform's word about a task is good.
const ASK_AGAIN: Duration = Duration::from_secs(3);
/// Launchers end their calls themselves, sooner.
const STATUS_TIMEOUT: Duration = Duration::from_secs(60);

pub struct StatusPoller {
    context: Arc<Context>,
    cache: Arc<Mutex<StatusCache>>,
    wanted: BTreeMap<String, Vec<StatusRequest>>,
}

#[derive(Default)]
struct StatusCache {
    seen: HashMap<EgressId, CachedStatus>,
    /// Targets that are just being asked.
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
    /// The silent ones go first, then those that were asked about longest ago.
    starting: bool,
    last: Option<Instant>,
}

impl StatusPoller {
    pub fn new(context: Arc<Context>) -> Self {
        Self { context, cache: Arc::default(), wanted: BTreeMap::new() }
    }

    fn cache(&self) -> MutexGuard<'_, StatusCache> {
        locked(&self.cache)
    }

    pub fn forget_all_but(&self, live: &HashSet<&EgressId>) {
        self.cache().seen.retain(|id, _| live.contains(id));
    }

    /// The last word about this record's task; it is asked for again where it is old. A task nobody has told of yet is
    /// taken to be there. `None`: the record names no task.
    pub async fn about(&mut self, record: &Record) -> Option<TaskStatus> {
        let task = task_of(record)?;
        let Some(target) = self.context.targets.of(record) else {
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
        // Gone is for good.
        if !matches!(task_status, TaskStatus::Gone(_)) && last.is_none_or(|at| now - at >= ASK_AGAIN) {
            let starting = record.phase == Phase::Launching;
            let wanted = StatusRequest { egress_id: record.egress_id.clone(), task, starting, last };
            self.wanted.entry(target.name().to_owned()).or_default().push(wanted);
        }
        Some(task_status)
    }

    /// Sends for everything that was wanted since the last time.
    pub fn ask(&mut self) {
        for (name, mut wanted) in std::mem::take(&mut self.wanted) {
            let Some(target) = self.context.targets.named(&name) else { continue };
            if !self.cache().busy.insert(name.clone()) {
                continue;
            }
            wanted.sort_by_key(|wanted| (wanted.starting, wanted.last));
            wanted.truncate(target.launcher.max_status_batch());
            let cache = Arc::clone(&self.cache);
            self.context.spawn(async move {
                let tasks: Vec<TaskRef> = wanted.iter().map(|wanted| wanted.task.clone()).collect();
                let looked = tokio::time::timeout(STATUS_TIMEOUT, target.launcher.statuses(&tasks)).await;
                let mut cache = locked(&cache);
                cache.busy.remove(&name);
                let Ok(task_statuses) = looked else {
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

fn locked(cache: &Mutex<StatusCache>) -> MutexGuard<'_, StatusCache> {
    // Every change is one statement, so a panic elsewhere leaves nothing half done.
    cache.lock().unwrap_or_else(PoisonError::into_inner)
}
