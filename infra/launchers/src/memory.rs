//! What a launcher remembers of its tasks while it lives; everything in here can be asked of the platform again.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use spillway_protocol::ids::EgressId;
use tokio::time::Instant;

const MAX_ENTRIES: usize = 8192;
/// A platform answers an order before its list knows the task.
const UNKNOWN_AT_FIRST: Duration = Duration::from_secs(60);

pub(crate) type LaunchKey = (EgressId, u32);

/// The newest entries of a map.
#[derive(Debug)]
pub(crate) struct RecentEntries<K, V> {
    entries: HashMap<K, V>,
    oldest_first: VecDeque<K>,
}

impl<K, V> Default for RecentEntries<K, V> {
    fn default() -> Self {
        Self { entries: HashMap::new(), oldest_first: VecDeque::new() }
    }
}

impl<K: Clone + Eq + Hash, V> RecentEntries<K, V> {
    pub fn get(&self, key: &K) -> Option<&V> {
        self.entries.get(key)
    }

    pub fn forget(&mut self, key: &K) {
        if self.entries.remove(key).is_some() {
            self.oldest_first.retain(|other| other != key);
        }
    }

    pub fn put(&mut self, key: K, value: V) {
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
    /// The platform's name of the task, once it was told.
    tasks: RecentEntries<LaunchKey, String>,
    /// An order was sent and no answer came, since then.
    sent: RecentEntries<LaunchKey, Instant>,
    /// Ended by us, with this reason.
    ended: RecentEntries<String, String>,
    /// The platform did not know it when asked, since then.
    unknown: RecentEntries<String, Instant>,
    /// One launch of a key at a time.
    launch_locks: HashMap<LaunchKey, Arc<tokio::sync::Mutex<()>>>,
}

impl Memory {
    fn inner(&self) -> MutexGuard<'_, MemoryInner> {
        // Every change is one statement, so a panic elsewhere leaves nothing half done.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn launch_lock(&self, key: &LaunchKey) -> Arc<tokio::sync::Mutex<()>> {
        let mut inner = self.inner();
        inner.launch_locks.retain(|_, launch_lock| Arc::strong_count(launch_lock) > 1);
        Arc::clone(inner.launch_locks.entry(key.clone()).or_default())
    }

    pub fn task(&self, key: &LaunchKey) -> Option<String> {
        self.inner().tasks.get(key).cloned()
    }

    pub fn found(&self, key: &LaunchKey, task: &str) {
        self.inner().tasks.put(key.clone(), task.to_owned());
    }

    pub fn sent_at(&self, key: &LaunchKey) -> Option<Instant> {
        self.inner().sent.get(key).copied()
    }

    pub fn sent(&self, key: &LaunchKey, at: Instant) {
        self.inner().sent.put(key.clone(), at);
    }

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

    /// The platform knows this task: what it did not know before was too young, or a slip.
    pub fn seen(&self, task: &str) {
        self.inner().unknown.forget(&task.to_owned());
    }

    /// The platform does not know this task: true when that has lasted long enough to mean that it is gone.
    pub fn is_forgotten(&self, task: &str, now: Instant) -> bool {
        let mut inner = self.inner();
        match inner.unknown.get(&task.to_owned()) {
            Some(since) => now.duration_since(*since) >= UNKNOWN_AT_FIRST,
            None => {
                inner.unknown.put(task.to_owned(), now);
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_unknown_for_long_is_forgotten_and_a_slip_long_after_the_birth_is_none() {
        let (memory, begun) = (Memory::default(), Instant::now());
        let at = |seconds| begun + Duration::from_secs(seconds);
        assert!(!memory.is_forgotten("young", at(0)));
        memory.seen("young");
        assert!(!memory.is_forgotten("young", at(600)), "known in between");
        assert!(!memory.is_forgotten("young", at(659)));
        assert!(memory.is_forgotten("young", at(660)));
    }
}
