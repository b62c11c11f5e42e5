//! A link to a broker on which commands fail: slow commands, lost answers, an outage for one process alone, and a
//! process that stops between two of its commands, as a killed one does. All by seed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use spillway_model::{CloseTask, OpenTask, Pace, PaceState, SlotResult};
use spillway_process::Clock;
use tokio_util::sync::CancellationToken;

use crate::bus::{Backend, Bus};
use crate::error::BusError;
use crate::key_value::{CasResult, KeyValue, Lock, NewValue, Precondition, Versioned};
use crate::pub_sub::{Interest, PubSub, Subscription};
use crate::task_ledger::TaskLedger;

/// Which faults a link has.
#[derive(Clone, Copy, Debug, Default)]
pub struct LinkFaults {
    /// Of the random numbers.
    pub seed: u64,
    /// Longest delay of a command, and again of its answer.
    pub slow: Duration,
    /// Probability (0 to 1) that a command is done and its answer is lost.
    pub answer_lost: f64,
    /// Index of the first command that is never answered, nor is any after it; whether it was done is random.
    pub freezes_at: Option<u64>,
}

/// The link of one process. Clones are one link.
#[derive(Clone)]
pub struct FaultyLink {
    state: Arc<LinkState>,
}

struct LinkState {
    dice: Mutex<FaultDice>,
    cut: AtomicBool,
    frozen: CancellationToken,
}

struct FaultDice {
    rng: StdRng,
    faults: LinkFaults,
    commands: u64,
}

enum CommandFate {
    Done { before: Duration, after: Duration, answer_lost: bool },
    FrozenBefore,
    FrozenAfter,
}

impl FaultyLink {
    /// Not cut, not frozen.
    pub fn new(faults: LinkFaults) -> Self {
        let dice = FaultDice { rng: StdRng::seed_from_u64(faults.seed), faults, commands: 0 };
        let state = LinkState { dice: Mutex::new(dice), cut: AtomicBool::new(false), frozen: CancellationToken::new() };
        Self { state: Arc::new(state) }
    }

    /// The bus as it is reached over this link.
    pub fn to(&self, bus: &Bus) -> Bus {
        Bus::on(FaultyBackend { backend: Arc::clone(&bus.backend), link: self.clone() })
    }

    /// Every command on this link fails, until [`FaultyLink::mend`].
    pub fn cut(&self) {
        self.state.cut.store(true, Ordering::Release);
    }

    /// Ends a [`FaultyLink::cut`].
    pub fn mend(&self) {
        self.state.cut.store(false, Ordering::Release);
    }

    /// No more random faults.
    pub fn calm(&self) {
        self.dice().faults = LinkFaults::default();
    }

    /// Returns when the process on this link has stopped.
    pub async fn frozen(&self) {
        self.state.frozen.cancelled().await;
    }

    fn dice(&self) -> std::sync::MutexGuard<'_, FaultDice> {
        // Every change is one statement, so a panic leaves nothing half done.
        self.state.dice.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fate(&self) -> CommandFate {
        let mut dice = self.dice();
        let number = dice.commands;
        dice.commands += 1;
        let LinkFaults { slow, answer_lost, freezes_at, .. } = dice.faults;
        match freezes_at {
            Some(at) if number == at && dice.rng.random_bool(0.5) => return CommandFate::FrozenAfter,
            Some(at) if number >= at => return CommandFate::FrozenBefore,
            _ => {}
        }
        let mut some = || slow.mul_f64(dice.rng.random_range(0.0..1.0));
        let (before, after) = (some(), some());
        CommandFate::Done { before, after, answer_lost: answer_lost > 0.0 && dice.rng.random_bool(answer_lost) }
    }

    fn check(&self, act: &'static str) -> Result<(), BusError> {
        if self.state.cut.load(Ordering::Acquire) {
            return Err(BusError::Command { act, source: "the link to the broker was cut".into() });
        }
        Ok(())
    }

    async fn freeze<T>(&self) -> T {
        self.state.frozen.cancel();
        std::future::pending().await
    }

    async fn pass<T>(&self, act: &'static str, work: impl Future<Output = Result<T, BusError>>) -> Result<T, BusError> {
        match self.fate() {
            CommandFate::FrozenBefore => self.freeze().await,
            CommandFate::FrozenAfter => {
                let _ = work.await;
                self.freeze().await
            }
            CommandFate::Done { before, after, answer_lost } => {
                pause(before).await;
                self.check(act)?;
                let answer = work.await;
                pause(after).await;
                self.check(act)?;
                if answer_lost { Err(BusError::Silent { act }) } else { answer }
            }
        }
    }
}

async fn pause(time: Duration) {
    if !time.is_zero() {
        tokio::time::sleep(time).await;
    }
}

struct FaultyBackend {
    backend: Arc<dyn Backend>,
    link: FaultyLink,
}

#[async_trait]
impl PubSub for FaultyBackend {
    async fn publish(&self, channel: &str, payload: Bytes) -> Result<(), BusError> {
        self.link.pass("publish", self.backend.publish(channel, payload)).await
    }

    async fn subscribe(&self, interest: Interest) -> Result<Subscription, BusError> {
        self.link.check("subscribe")?;
        self.backend.subscribe(interest).await
    }
}

#[async_trait]
impl KeyValue for FaultyBackend {
    async fn lock(&self, key: &str, ttl: Duration) -> Result<Lock, BusError> {
        self.link.pass("lock", self.backend.lock(key, ttl)).await
    }

    async fn read(&self, key: &str) -> Result<Option<Versioned>, BusError> {
        self.link.pass("read", self.backend.read(key)).await
    }

    async fn read_all(&self, keys: &[String]) -> Result<Vec<Option<Versioned>>, BusError> {
        self.link.pass("read", self.backend.read_all(keys)).await
    }

    async fn versions(&self, keys: &[String]) -> Result<Vec<u64>, BusError> {
        self.link.pass("read", self.backend.versions(keys)).await
    }

    async fn compare_and_set(
        &self,
        key: &str,
        precondition: Precondition,
        value: NewValue<'_>,
    ) -> Result<CasResult, BusError> {
        self.link.pass("write", self.backend.compare_and_set(key, precondition, value)).await
    }

    async fn take(&self, key: &str, taker: &str, repeatable: Duration) -> Result<Option<Versioned>, BusError> {
        self.link.pass("take", self.backend.take(key, taker, repeatable)).await
    }

    async fn expire(&self, key: &str, ttl: Duration) -> Result<(), BusError> {
        self.link.pass("expire", self.backend.expire(key, ttl)).await
    }

    async fn remove(&self, key: &str) -> Result<(), BusError> {
        self.link.pass("remove", self.backend.remove(key)).await
    }

    async fn index_add(&self, key: &str, member: &str, score: i64) -> Result<(), BusError> {
        self.link.pass("index", self.backend.index_add(key, member, score)).await
    }

    async fn index_remove(&self, key: &str, member: &str) -> Result<(), BusError> {
        self.link.pass("index", self.backend.index_remove(key, member)).await
    }

    async fn index(&self, key: &str) -> Result<Vec<(String, i64)>, BusError> {
        self.link.pass("index", self.backend.index(key)).await
    }

    async fn index_score(&self, key: &str, member: &str) -> Result<Option<i64>, BusError> {
        self.link.pass("index", self.backend.index_score(key, member)).await
    }

    async fn lease(&self, key: &str, holder: &str, ttl: Duration) -> Result<Option<u64>, BusError> {
        self.link.pass("lease", self.backend.lease(key, holder, ttl)).await
    }

    async fn fence(&self, key: &str) -> Result<u64, BusError> {
        self.link.pass("fence", self.backend.fence(key)).await
    }

    async fn info(&self) -> Result<String, BusError> {
        self.link.pass("info", self.backend.info()).await
    }
}

#[async_trait]
impl TaskLedger for FaultyBackend {
    async fn open_task(&self, open_task: &OpenTask<'_>) -> Result<SlotResult, BusError> {
        self.link.pass("open a task", self.backend.open_task(open_task)).await
    }

    async fn adjust_pace(&self, target: &str, pace: Pace, retry_after: Option<Duration>) -> Result<(), BusError> {
        self.link.pass("pace", self.backend.adjust_pace(target, pace, retry_after)).await
    }

    async fn pace_states(&self, targets: &[String]) -> Result<Vec<Option<PaceState>>, BusError> {
        self.link.pass("read the pace", self.backend.pace_states(targets)).await
    }

    async fn close_task(&self, close_task: &CloseTask<'_>) -> Result<bool, BusError> {
        self.link.pass("close a task", self.backend.close_task(close_task)).await
    }

    async fn open_tasks(&self) -> Result<Vec<(String, String)>, BusError> {
        self.link.pass("list tasks", self.backend.open_tasks()).await
    }

    async fn spent(&self, field: &str) -> Result<f64, BusError> {
        self.link.pass("read what was spent", self.backend.spent(field)).await
    }

    async fn ledger_lines(&self, from: &str, until_ms: i64, max: usize) -> Result<Vec<(String, String)>, BusError> {
        self.link.pass("read the ledger", self.backend.ledger_lines(from, until_ms, max)).await
    }

    async fn newest_lines(&self, until: &str, since_ms: i64, max: usize) -> Result<Vec<(String, String)>, BusError> {
        self.link.pass("read the ledger", self.backend.newest_lines(until, since_ms, max)).await
    }
}

impl Backend for FaultyBackend {
    fn clock(&self) -> &Clock {
        self.backend.clock()
    }

    fn healthy(&self) -> bool {
        !self.link.state.cut.load(Ordering::Acquire) && self.backend.healthy()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::switches::Switches;
    use crate::testing::MemoryBroker;

    #[tokio::test(start_paused = true)]
    async fn a_lost_answer_was_done_and_a_frozen_process_sends_no_more() {
        let bus = MemoryBroker::new().bus();
        let here = Switches::new(&bus, "x");
        let lost = FaultyLink::new(LinkFaults { answer_lost: 1.0, ..LinkFaults::default() });
        assert!(matches!(Switches::new(&lost.to(&bus), "x").all().await, Err(BusError::Silent { .. })));
        lost.calm();
        assert!(Switches::new(&lost.to(&bus), "x").all().await.is_ok());
        lost.cut();
        assert!(!lost.to(&bus).healthy() && bus.healthy());
        assert!(Switches::new(&lost.to(&bus), "x").all().await.is_err());

        let mut done = 0;
        for seed in 0..20 {
            // Its second command is the write.
            let link = FaultyLink::new(LinkFaults { seed, freezes_at: Some(1), ..LinkFaults::default() });
            let (name, there) = (format!("n{seed}"), Switches::new(&link.to(&bus), "x"));
            tokio::select! {
                set = there.set(&name, Some("on")) => panic!("it was answered: {set:?}"),
                () = link.frozen() => {}
            }
            done += u32::from(here.all().await.unwrap().contains_key(&name));
        }
        assert!((1..20).contains(&done), "{done} of 20 were done");
    }
}
