//! The bus without Redis. Its clock is tokio's, so a test with paused time runs through hours in milliseconds. No
//! task of its own: each call locks the broker's state and never waits.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use spillway_model::{CloseTask, OpenTask, Pace, PaceState, SlotResult};
use spillway_process::Clock;
use spillway_process::clock::Measurement;
use tokio::time::Instant;

use super::memory_ledger::MemoryLedger;
use crate::bus::{Backend, Bus};
use crate::error::BusError;
use crate::key_value::{CasResult, KeyValue, Lock, NewValue, Precondition, Versioned};
use crate::pub_sub::{InboundMessage, Interest, PubSub, RouteRemoval, Routes, Subscription};
use crate::task_ledger::TaskLedger;

/// In place of a Redis server: buses of one broker share channels and keys. Clones are one broker.
#[derive(Clone, Default)]
pub struct MemoryBroker {
    shared: Arc<BrokerState>,
}

#[derive(Default)]
struct BrokerState {
    store: Mutex<MemoryStore>,
    /// What Redis answers to `TIME`.
    clock: Clock,
    cut: AtomicBool,
    loses: AtomicU64,
}

#[derive(Default)]
struct MemoryStore {
    routes: Routes,
    kept: HashMap<String, (StoredValue, Option<Instant>)>,
    locks: HashMap<String, Instant>,
    indexes: HashMap<String, BTreeMap<String, i64>>,
    leases: HashMap<String, Lease>,
    ledger: MemoryLedger,
}

#[derive(Clone)]
struct Lease {
    holder: String,
    until: Instant,
    number: u64,
}

#[derive(Clone)]
struct StoredValue {
    version: u64,
    value: Bytes,
    /// The taker that may still read it.
    taker: Option<String>,
}

impl MemoryBroker {
    /// Empty, with this host's clock.
    pub fn new() -> Self {
        Self::default()
    }

    /// With another clock than this process' host.
    pub fn at(clock: Clock) -> Self {
        Self { shared: Arc::new(BrokerState { clock, ..BrokerState::default() }) }
    }

    /// A bus whose host has the broker's clock.
    pub fn bus(&self) -> Bus {
        self.bus_on(self.shared.clock.clone())
    }

    /// A bus whose host has this clock; as on Redis, the broker's time corrects it.
    pub fn bus_on(&self, clock: Clock) -> Bus {
        let now = Instant::now();
        clock.measured(&Measurement { asked: now, answered: now, reference_ns: self.shared.clock.unix_ns() });
        Bus::on(MemoryBackend { shared: self.shared.clone(), clock })
    }

    /// The broker's time, which corrects the clock of every bus.
    pub fn clock(&self) -> &Clock {
        &self.shared.clock
    }

    /// Removes every key, as FLUSHALL; subscriptions stay.
    pub fn flush(&self) {
        let mut store = self.shared.lock();
        let routes = std::mem::take(&mut store.routes);
        *store = MemoryStore { routes, ..MemoryStore::default() };
    }

    /// Everything that is stored now, for [`MemoryBroker::restore`].
    pub fn snapshot(&self) -> BrokerSnapshot {
        let store = self.shared.lock();
        BrokerSnapshot {
            kept: store.kept.clone(),
            locks: store.locks.clone(),
            indexes: store.indexes.clone(),
            leases: store.leases.clone(),
            ledger: store.ledger.clone(),
        }
    }

    /// Stored values become those of the snapshot, as after a failover to a replica that has not got the last writes;
    /// subscriptions stay. What was to expire still expires at its time.
    pub fn restore(&self, snapshot: &BrokerSnapshot) {
        let BrokerSnapshot { kept, locks, indexes, leases, ledger } = snapshot.clone();
        let mut store = self.shared.lock();
        let routes = std::mem::take(&mut store.routes);
        *store = MemoryStore { routes, kept, locks, indexes, leases, ledger };
    }

    /// Every command fails and nothing is delivered, until [`MemoryBroker::mend`].
    pub fn cut(&self) {
        self.shared.cut.store(true, Ordering::Release);
    }

    /// Ends a [`MemoryBroker::cut`].
    pub fn mend(&self) {
        self.shared.cut.store(false, Ordering::Release);
    }

    /// The next `count` published messages are delivered to no subscriber.
    pub fn lose(&self, count: u64) {
        self.shared.loses.store(count, Ordering::Release);
    }
}

/// What a broker has stored at one moment.
#[derive(Clone)]
pub struct BrokerSnapshot {
    kept: HashMap<String, (StoredValue, Option<Instant>)>,
    locks: HashMap<String, Instant>,
    indexes: HashMap<String, BTreeMap<String, i64>>,
    leases: HashMap<String, Lease>,
    ledger: MemoryLedger,
}

struct MemoryBackend {
    shared: Arc<BrokerState>,
    clock: Clock,
}

impl BrokerState {
    fn store(&self, act: &'static str) -> Result<MutexGuard<'_, MemoryStore>, BusError> {
        if self.cut.load(Ordering::Acquire) {
            return Err(BusError::Command { act, source: "the broker was cut off".into() });
        }
        Ok(self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, MemoryStore> {
        // No change below can panic halfway.
        self.store.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl MemoryStore {
    /// The value of the key, taken or not.
    fn kept(&mut self, key: &str) -> Option<Versioned> {
        let now = Instant::now();
        let (kept, until) = self.kept.get(key)?;
        if until.is_some_and(|until| until <= now) {
            self.kept.remove(key);
            return None;
        }
        Some(Versioned { version: kept.version, value: kept.value.clone(), remaining: until.map(|until| until - now) })
    }

    /// `None` if it was taken.
    fn read(&mut self, key: &str) -> Option<Versioned> {
        let found = self.kept(key);
        found.filter(|_| self.kept.get(key).is_some_and(|(entry, _)| entry.taker.is_none()))
    }
}

impl Bus {
    /// A bus of a broker of its own. For several that share one: [`MemoryBroker::bus`].
    pub fn memory() -> Bus {
        MemoryBroker::new().bus()
    }
}

#[async_trait]
impl PubSub for MemoryBackend {
    async fn publish(&self, channel: &str, payload: Bytes) -> Result<(), BusError> {
        let mut store = self.shared.store("publish")?;
        let lost = self.shared.loses.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(1));
        if lost.is_ok() {
            return Ok(());
        }
        let delivery = InboundMessage { channel: channel.to_owned(), payload, at: Instant::now() };
        let matching: Vec<Interest> = store
            .routes
            .interests()
            .filter(|interest| match interest {
                Interest::Channel(name) => name == channel,
                Interest::Pattern(pattern) => matches(pattern, channel),
            })
            .cloned()
            .collect();
        for interest in matching {
            store.routes.deliver(&interest, &delivery);
        }
        Ok(())
    }

    async fn subscribe(&self, interest: Interest) -> Result<Subscription, BusError> {
        let (id, inbox) = self.shared.store("subscribe")?.routes.add(interest.clone());
        let shared = self.shared.clone();
        Ok(Subscription::new(inbox, move || {
            let _: RouteRemoval = shared.lock().routes.remove(&interest, id);
        }))
    }
}

#[async_trait]
impl KeyValue for MemoryBackend {
    async fn lock(&self, key: &str, ttl: Duration) -> Result<Lock, BusError> {
        let mut store = self.shared.store("lock")?;
        let now = Instant::now();
        store.locks.retain(|_, until| *until > now);
        if store.locks.contains_key(key) {
            return Ok(Lock::Theirs);
        }
        store.locks.insert(key.to_owned(), now + ttl);
        Ok(Lock::Ours)
    }

    async fn read(&self, key: &str) -> Result<Option<Versioned>, BusError> {
        Ok(self.shared.store("read")?.read(key))
    }

    async fn read_all(&self, keys: &[String]) -> Result<Vec<Option<Versioned>>, BusError> {
        let mut store = self.shared.store("read")?;
        Ok(keys.iter().map(|key| store.kept(key)).collect())
    }

    async fn versions(&self, keys: &[String]) -> Result<Vec<u64>, BusError> {
        let mut store = self.shared.store("read")?;
        Ok(keys.iter().map(|key| store.kept(key).map_or(0, |kept| kept.version)).collect())
    }

    async fn compare_and_set(
        &self,
        key: &str,
        precondition: Precondition,
        value: NewValue<'_>,
    ) -> Result<CasResult, BusError> {
        let mut store = self.shared.store("swap")?;
        let now = Instant::now();
        let before = store.kept(key);
        let version = before.as_ref().map_or(0, |kept| kept.version);
        let holds = match precondition {
            Precondition::Is(expected) => version == expected,
            Precondition::NotAbove(max) => version <= max,
        };
        if !holds {
            return Ok(CasResult::Conflict);
        }
        let remaining = value.ttl.or(before.and_then(|kept| kept.remaining));
        let kept = StoredValue { version: value.version, value: Bytes::copy_from_slice(value.value), taker: None };
        store.kept.insert(key.to_owned(), (kept, remaining.map(|ttl| now + ttl)));
        Ok(CasResult::Done)
    }

    async fn take(&self, key: &str, taker: &str, repeatable: Duration) -> Result<Option<Versioned>, BusError> {
        let mut store = self.shared.store("take")?;
        let Some(kept) = store.kept(key) else { return Ok(None) };
        let Some((entry, until)) = store.kept.get_mut(key) else { return Ok(None) };
        match &entry.taker {
            Some(first) => return Ok((first == taker).then_some(kept)),
            None => entry.taker = Some(taker.to_owned()),
        }
        let repeatable = Instant::now() + repeatable;
        *until = Some(until.map_or(repeatable, |until| until.min(repeatable)));
        Ok(Some(kept))
    }

    async fn expire(&self, key: &str, ttl: Duration) -> Result<(), BusError> {
        let mut store = self.shared.store("expire")?;
        if let Some((_, until)) = store.kept.get_mut(key) {
            *until = Some(Instant::now() + ttl);
        }
        Ok(())
    }

    async fn remove(&self, key: &str) -> Result<(), BusError> {
        self.shared.store("remove")?.kept.remove(key);
        Ok(())
    }

    async fn index_add(&self, key: &str, member: &str, score: i64) -> Result<(), BusError> {
        self.shared.store("index")?.indexes.entry(key.to_owned()).or_default().insert(member.to_owned(), score);
        Ok(())
    }

    async fn index_remove(&self, key: &str, member: &str) -> Result<(), BusError> {
        if let Some(index) = self.shared.store("index")?.indexes.get_mut(key) {
            index.remove(member);
        }
        Ok(())
    }

    async fn index(&self, key: &str) -> Result<Vec<(String, i64)>, BusError> {
        let store = self.shared.store("index")?;
        Ok(store.indexes.get(key).into_iter().flatten().map(|(member, score)| (member.clone(), *score)).collect())
    }

    async fn index_score(&self, key: &str, member: &str) -> Result<Option<i64>, BusError> {
        Ok(self.shared.store("index")?.indexes.get(key).and_then(|index| index.get(member)).copied())
    }

    async fn lease(&self, key: &str, holder: &str, ttl: Duration) -> Result<Option<u64>, BusError> {
        let mut store = self.shared.store("lease")?;
        let now = Instant::now();
        let lease =
            store.leases.entry(key.to_owned()).or_insert(Lease { holder: String::new(), until: now, number: 0 });
        if lease.until <= now {
            *lease = Lease { holder: holder.to_owned(), until: now, number: lease.number + 1 };
        }
        if lease.holder != holder {
            return Ok(None);
        }
        lease.until = now + ttl;
        Ok(Some(lease.number))
    }

    async fn fence(&self, key: &str) -> Result<u64, BusError> {
        Ok(self.shared.store("fence")?.leases.get(key).map_or(0, |lease| lease.number))
    }

    async fn info(&self) -> Result<String, BusError> {
        let _state = self.shared.store("info")?;
        Ok("redis_version:memory\r\nrole:master\r\nmaxmemory_policy:noeviction\r\n".to_owned())
    }
}

#[async_trait]
impl TaskLedger for MemoryBackend {
    async fn open_task(&self, open_task: &OpenTask<'_>) -> Result<SlotResult, BusError> {
        Ok(self.shared.store("open a task")?.ledger.open(open_task, Instant::now()))
    }

    async fn adjust_pace(&self, target: &str, pace: Pace, retry_after: Option<Duration>) -> Result<(), BusError> {
        self.shared.store("pace")?.ledger.adjust_pace(target, pace, retry_after, Instant::now());
        Ok(())
    }

    async fn pace_states(&self, targets: &[String]) -> Result<Vec<Option<PaceState>>, BusError> {
        let store = self.shared.store("read the pace")?;
        let state = |target: &String| {
            let (factor, closed_until) = store.ledger.pace_state(target)?;
            Some(PaceState { factor, closed_until_ms: self.shared.clock.unix_ns_at(closed_until) / 1_000_000 })
        };
        Ok(targets.iter().map(state).collect())
    }

    async fn close_task(&self, close_task: &CloseTask<'_>) -> Result<bool, BusError> {
        Ok(self.shared.store("close a task")?.ledger.close(close_task, self.shared.clock.unix_ms()))
    }

    async fn open_tasks(&self) -> Result<Vec<(String, String)>, BusError> {
        Ok(self.shared.store("list tasks")?.ledger.open_tasks())
    }

    async fn spent(&self, field: &str) -> Result<f64, BusError> {
        Ok(self.shared.store("read what was spent")?.ledger.spent(field))
    }

    async fn ledger_lines(&self, from: &str, until_ms: i64, max: usize) -> Result<Vec<(String, String)>, BusError> {
        Ok(self.shared.store("read the ledger")?.ledger.lines(from, until_ms, max))
    }

    async fn newest_lines(&self, until: &str, since_ms: i64, max: usize) -> Result<Vec<(String, String)>, BusError> {
        Ok(self.shared.store("read the ledger")?.ledger.newest_lines(until, since_ms, max))
    }
}

impl Backend for MemoryBackend {
    fn clock(&self) -> &Clock {
        &self.clock
    }

    fn healthy(&self) -> bool {
        !self.shared.cut.load(Ordering::Acquire)
    }
}

/// Redis' glob as far as it is used: `*` matches any text.
fn matches(pattern: &str, channel: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == channel };
    let Some(channel) = channel.strip_prefix(head) else { return false };
    channel.char_indices().map(|(at, _)| at).chain([channel.len()]).any(|at| matches(rest, &channel[at..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_matches_any_text() {
        assert!(matches("EgressHandler|StopEgress|*|REQ", "EgressHandler|StopEgress|EG_1|REQ"));
        assert!(!matches("EgressHandler|StopEgress|*|REQ", "EgressHandler|StopEgress|EG_1|RCLAIM"));
        assert!(!matches("EgressHandler|StopEgress|*|REQ", "EgressHandler|StopEgress|REQ"));
        assert!(matches("*", ""));
    }
}
