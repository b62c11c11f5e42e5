//! What a launcher remembers of its tasks while it lives: the platform's names of them, orders without an answer, reasons of
//! stops, tasks the platform does not know. Everything in here can be asked of the platform again. Shared by the launcher's
//! callers behind a mutex that is never held across an await.
//!
//! The newest entries are kept by a map and a queue instead of a crate for caches: there are four small maps, nothing
//! expires by time, and the one operation that walks the queue is only reached by a task that was unknown before.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use spillway_protocol::ids::EgressId;
use tokio::time::Instant;
use tracing::debug;

use crate::exit::TaskExit;
use crate::launcher::{LaunchError, TaskStatus};

const MAX_ENTRIES: usize = 8192;
/// A platform answers an order before its list knows the task.
const UNKNOWN_AT_FIRST: Duration = Duration::from_secs(60);

/// Egress and attempt.
pub(crate) type LaunchKey = (EgressId, u32);

/// The newest entries of a map.
#[derive(Debug)]
struct RecentEntries<K, V> {
    entries: HashMap<K, V>,
    oldest_first: VecDeque<K>,
}

impl<K, V> Default for RecentEntries<K, V> {
    fn default() -> Self {
        Self { entries: HashMap::new(), oldest_first: VecDeque::new() }
    }
}

impl<K: Clone + Eq + Hash, V> RecentEntries<K, V> {
    fn get(&self, key: &K) -> Option<&V> {
        self.entries.get(key)
    }

    fn forget(&mut self, key: &K) {
        if self.entries.remove(key).is_some() {
            self.oldest_first.retain(|other| other != key);
        }
    }

    fn put(&mut self, key: K, value: V) {
        if self.entries.insert(key.clone(), value).is_none() {
            self.oldest_first.push_back(key);
        }
        while self.oldest_first.len() > MAX_ENTRIES {
            if let Some(oldest) = self.oldest_first.pop_front() {
                self.entries.remove(&oldest);
            }
        }
    }
}

#[derive(Default)]
pub(crate) struct Memory {
    inner: Mutex<MemoryInner>,
}

#[derive(Default)]
struct MemoryInner {
    /// The platform's name of the task, once it is known.
    tasks: RecentEntries<LaunchKey, String>,
    /// When an order was sent whose answer did not come.
    sent: RecentEntries<LaunchKey, Instant>,
    /// Reason of the first stop that was requested by us.
    ended: RecentEntries<String, String>,
    /// When the platform first did not know the task.
    unknown: RecentEntries<String, Instant>,
    /// One launch of a key at a time.
    launch_locks: HashMap<LaunchKey, Arc<tokio::sync::Mutex<()>>>,
}

impl Memory {
    fn inner(&self) -> MutexGuard<'_, MemoryInner> {
        // Every change is one statement, so a panic elsewhere leaves nothing half done.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One launch on a platform whose API takes an order as a long-running operation and may lose its answer. One launch of a
    /// key at a time: the task is answered if it is known, looked for on the platform (`find`), and started (`start`) only
    /// where there is none. Both futures give the platform's name of the task and are not polled before their turn.
    ///
    /// # Errors
    /// Those of `find` and `start`. After `Transient` the order may have been taken, and the next call finds it.
    pub async fn launch(
        &self,
        key: &LaunchKey,
        find: impl Future<Output = Result<Option<String>, LaunchError>>,
        start: impl Future<Output = Result<String, LaunchError>>,
    ) -> Result<String, LaunchError> {
        let launch_lock = self.launch_lock(key);
        let _one_at_a_time = launch_lock.lock().await;
        if let Some(task) = self.inner().tasks.get(key) {
            return Ok(task.clone());
        }
        let task = match find.await? {
            Some(task) => {
                debug!(egress_id = %key.0, task, "task of an earlier call found");
                task
            }
            None => start.await?,
        };
        self.inner().tasks.put(key.clone(), task.clone());
        Ok(task)
    }

    fn launch_lock(&self, key: &LaunchKey) -> Arc<tokio::sync::Mutex<()>> {
        let mut inner = self.inner();
        inner.launch_locks.retain(|_, launch_lock| Arc::strong_count(launch_lock) > 1);
        Arc::clone(inner.launch_locks.entry(key.clone()).or_default())
    }

    /// When the last order of this key was sent, as far as its answer did not come.
    pub fn sent_at(&self, key: &LaunchKey) -> Option<Instant> {
        self.inner().sent.get(key).copied()
    }

    /// Notes that an order was sent.
    pub fn sent(&self, key: &LaunchKey, at: Instant) {
        self.inner().sent.put(key.clone(), at);
    }

    /// Why we stopped this task; `None`: we did not.
    pub fn ended(&self, task: &str) -> Option<String> {
        self.inner().ended.get(&task.to_owned()).cloned()
    }

    /// The first reason stays.
    pub fn end(&self, task: &str, reason: &str) {
        let mut inner = self.inner();
        if inner.ended.get(&task.to_owned()).is_none() {
            inner.ended.put(task.to_owned(), reason.to_owned());
        }
    }

    /// The platform knows this task: if it did not before, the task was too young, or the answer was wrong.
    pub fn seen(&self, task: &str) {
        self.inner().unknown.forget(&task.to_owned());
    }

    /// Status of a task that the platform does not know: `Unknown` with this message at first, because a young task is not
    /// listed yet, and `Gone` when it has lasted.
    pub fn absent(&self, task: &str, now: Instant, message: &str) -> TaskStatus {
        let mut inner = self.inner();
        let since = match inner.unknown.get(&task.to_owned()) {
            Some(since) => *since,
            None => {
                inner.unknown.put(task.to_owned(), now);
                now
            }
        };
        if now.duration_since(since) >= UNKNOWN_AT_FIRST {
            TaskStatus::Gone(TaskExit::Unknown.into())
        } else {
            TaskStatus::Unknown(message.to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_gone_when_it_was_unknown_for_a_minute_without_a_break() {
        let (memory, begun) = (Memory::default(), Instant::now());
        let is_gone = |seconds| {
            let status = memory.absent("young", begun + Duration::from_secs(seconds), "not yet");
            matches!(status, TaskStatus::Gone(_))
        };
        assert!(!is_gone(0));
        memory.seen("young");
        assert!(!is_gone(600), "known in between");
        assert!(!is_gone(659));
        assert!(is_gone(660));
    }

    #[tokio::test]
    async fn a_launch_starts_only_what_is_neither_known_nor_found() {
        let memory = Memory::default();
        let key = |name: &str| (EgressId::parse(name).unwrap(), 1);
        let found = |task: &str| std::future::ready(Ok(Some(task.to_owned())));
        let refused = || LaunchError::Transient { message: "polled too early".to_owned(), source: None };
        assert_eq!(memory.launch(&key("EG_a"), found("a-1"), async { Err(refused()) }).await.unwrap(), "a-1");
        let known = memory.launch(&key("EG_a"), async { Err(refused()) }, async { Err(refused()) }).await;
        assert_eq!(known.unwrap(), "a-1");
        let (none, started) = (std::future::ready(Ok(None)), std::future::ready(Ok("b-1".to_owned())));
        assert_eq!(memory.launch(&key("EG_b"), none, started).await.unwrap(), "b-1");
    }
}
