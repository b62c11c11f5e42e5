//! A way to the broker on which things go wrong, for tests: slow commands, lost answers, an outage for one party alone, and
//! a party that is frozen between two of its commands, as a killed one is. All by seed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use spillway_process::Clock;
use tokio_util::sync::CancellationToken;

use crate::tasks::{Pace, Seated};
use crate::wire::{Ask, Ending, Guard, Interest, Kept, Lock, Subscription, Swap, Versioned, Wire};
use crate::{Bus, BusError};

/// How often each thing happens.
#[derive(Clone, Copy, Debug, Default)]
pub struct Trouble {
    pub seed: u64,
    /// Each command takes up to so long on its way, and its answer up to so long back.
    pub slow: Duration,
    /// Of 1: the command is done, and the answer never comes.
    pub answer_lost: f64,
    /// This command, the first is 0, and all after it are never answered; whether it was done is chance.
    pub freezes_at: Option<u64>,
}

/// Clones are the same way.
#[derive(Clone)]
pub struct Way {
    state: Arc<State>,
}

struct State {
    dice: Mutex<Dice>,
    cut: AtomicBool,
    frozen: CancellationToken,
}

struct Dice {
    rng: StdRng,
    trouble: Trouble,
    commands: u64,
}

enum Fate {
    Done { before: Duration, after: Duration, answer_lost: bool },
    FrozenBefore,
    FrozenAfter,
}

impl Way {
    pub fn new(trouble: Trouble) -> Self {
        let dice = Dice { rng: StdRng::seed_from_u64(trouble.seed), trouble, commands: 0 };
        let state = State { dice: Mutex::new(dice), cut: AtomicBool::new(false), frozen: CancellationToken::new() };
        Self { state: Arc::new(state) }
    }

    /// The broker as it is seen along this way.
    pub fn to(&self, bus: &Bus) -> Bus {
        Bus { wire: Arc::new(Troubled { wire: Arc::clone(&bus.wire), way: self.clone() }) }
    }

    /// Nothing goes through, until [`Way::mend`]; others are not concerned.
    pub fn cut(&self) {
        self.state.cut.store(true, Ordering::Release);
    }

    pub fn mend(&self) {
        self.state.cut.store(false, Ordering::Release);
    }

    /// From now on nothing goes wrong by chance any more.
    pub fn calm(&self) {
        self.dice().trouble = Trouble::default();
    }

    /// Returns when the party on this way is frozen.
    pub async fn frozen(&self) {
        self.state.frozen.cancelled().await;
    }

    fn dice(&self) -> std::sync::MutexGuard<'_, Dice> {
        // Every change is one statement, so a panic elsewhere leaves nothing half done.
        self.state.dice.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fate(&self) -> Fate {
        let mut dice = self.dice();
        let number = dice.commands;
        dice.commands += 1;
        let Trouble { slow, answer_lost, freezes_at, .. } = dice.trouble;
        match freezes_at {
            Some(at) if number == at && dice.rng.random_bool(0.5) => return Fate::FrozenAfter,
            Some(at) if number >= at => return Fate::FrozenBefore,
            _ => {}
        }
        let mut some = || slow.mul_f64(dice.rng.random_range(0.0..1.0));
        let (before, after) = (some(), some());
        Fate::Done { before, after, answer_lost: answer_lost > 0.0 && dice.rng.random_bool(answer_lost) }
    }

    fn check(&self, act: &'static str) -> Result<(), BusError> {
        if self.state.cut.load(Ordering::Acquire) {
            return Err(BusError::Command { act, source: "the way to the broker was cut".into() });
        }
        Ok(())
    }

    async fn freeze<T>(&self) -> T {
        self.state.frozen.cancel();
        std::future::pending().await
    }

    async fn pass<T>(&self, act: &'static str, work: impl Future<Output = Result<T, BusError>>) -> Result<T, BusError> {
        match self.fate() {
            Fate::FrozenBefore => self.freeze().await,
            Fate::FrozenAfter => {
                let _ = work.await;
                self.freeze().await
            }
            Fate::Done { before, after, answer_lost } => {
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

struct Troubled {
    wire: Arc<dyn Wire>,
    way: Way,
}

#[async_trait]
impl Wire for Troubled {
    async fn publish(&self, channel: &str, payload: Bytes) -> Result<(), BusError> {
        self.way.pass("publish", self.wire.publish(channel, payload)).await
    }

    async fn subscribe(&self, interest: Interest) -> Result<Subscription, BusError> {
        self.way.check("subscribe")?;
        self.wire.subscribe(interest).await
    }

    async fn lock(&self, key: &str, ttl: Duration) -> Result<Lock, BusError> {
        self.way.pass("lock", self.wire.lock(key, ttl)).await
    }

    async fn read(&self, key: &str) -> Result<Option<Kept>, BusError> {
        self.way.pass("read", self.wire.read(key)).await
    }

    async fn read_all(&self, keys: &[String]) -> Result<Vec<Option<Kept>>, BusError> {
        self.way.pass("read", self.wire.read_all(keys)).await
    }

    async fn versions(&self, keys: &[String]) -> Result<Vec<u64>, BusError> {
        self.way.pass("read", self.wire.versions(keys)).await
    }

    async fn swap(&self, key: &str, guard: Guard, value: Versioned<'_>) -> Result<Swap, BusError> {
        self.way.pass("write", self.wire.swap(key, guard, value)).await
    }

    async fn take(&self, key: &str, taker: &str, repeatable: Duration) -> Result<Option<Kept>, BusError> {
        self.way.pass("take", self.wire.take(key, taker, repeatable)).await
    }

    async fn expire(&self, key: &str, ttl: Duration) -> Result<(), BusError> {
        self.way.pass("expire", self.wire.expire(key, ttl)).await
    }

    async fn remove(&self, key: &str) -> Result<(), BusError> {
        self.way.pass("remove", self.wire.remove(key)).await
    }

    async fn index_add(&self, key: &str, member: &str, score: i64) -> Result<(), BusError> {
        self.way.pass("index", self.wire.index_add(key, member, score)).await
    }

    async fn index_remove(&self, key: &str, member: &str) -> Result<(), BusError> {
        self.way.pass("index", self.wire.index_remove(key, member)).await
    }

    async fn index(&self, key: &str) -> Result<Vec<(String, i64)>, BusError> {
        self.way.pass("index", self.wire.index(key)).await
    }

    async fn lease(&self, key: &str, holder: &str, ttl: Duration) -> Result<Option<u64>, BusError> {
        self.way.pass("lease", self.wire.lease(key, holder, ttl)).await
    }

    async fn fence(&self, key: &str) -> Result<u64, BusError> {
        self.way.pass("fence", self.wire.fence(key)).await
    }

    async fn open(&self, ask: &Ask<'_>) -> Result<Seated, BusError> {
        self.way.pass("open a task", self.wire.open(ask)).await
    }

    async fn pace(&self, target: &str, pace: Pace, complaint: Option<Duration>) -> Result<(), BusError> {
        self.way.pass("pace", self.wire.pace(target, pace, complaint)).await
    }

    async fn close(&self, ending: &Ending<'_>) -> Result<bool, BusError> {
        self.way.pass("close a task", self.wire.close(ending)).await
    }

    async fn opened(&self) -> Result<Vec<(String, String)>, BusError> {
        self.way.pass("list tasks", self.wire.opened()).await
    }

    async fn spent(&self, field: &str) -> Result<f64, BusError> {
        self.way.pass("read what was spent", self.wire.spent(field)).await
    }

    async fn lines(&self, from: &str, until_ms: i64, most: usize) -> Result<Vec<(String, String)>, BusError> {
        self.way.pass("read the ledger", self.wire.lines(from, until_ms, most)).await
    }

    fn clock(&self) -> &Clock {
        self.wire.clock()
    }

    fn healthy(&self) -> bool {
        !self.way.state.cut.load(Ordering::Acquire) && self.wire.healthy()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MemoryBroker, Switches};

    #[tokio::test(start_paused = true)]
    async fn what_is_lost_was_done_and_one_who_is_frozen_says_no_more() {
        let bus = MemoryBroker::new().bus();
        let here = Switches::new(&bus, "x");
        let lost = Way::new(Trouble { answer_lost: 1.0, ..Trouble::default() });
        assert!(matches!(Switches::new(&lost.to(&bus), "x").all().await, Err(BusError::Silent { .. })));
        lost.calm();
        assert!(Switches::new(&lost.to(&bus), "x").all().await.is_ok());
        lost.cut();
        assert!(!lost.to(&bus).healthy() && bus.healthy());
        assert!(Switches::new(&lost.to(&bus), "x").all().await.is_err());

        let mut done = 0;
        for seed in 0..20 {
            // Its second command is the write.
            let way = Way::new(Trouble { seed, freezes_at: Some(1), ..Trouble::default() });
            let (name, there) = (format!("n{seed}"), Switches::new(&way.to(&bus), "x"));
            tokio::select! {
                set = there.set(&name, Some("on")) => panic!("it was answered: {set:?}"),
                () = way.frozen() => {}
            }
            done += u32::from(here.all().await.unwrap().contains_key(&name));
        }
        assert!((1..20).contains(&done), "{done} of 20 were done");
    }
}
