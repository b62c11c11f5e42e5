use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::error::{StorageError, StorageErrorKind};
use crate::storage::*;

/// What goes wrong with one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// 503: nothing happened.
    Busy,
    /// Nothing happens for so long, then the connection is cut.
    Stall(Duration),
    /// The connection is cut before the store has understood.
    Reset,
    /// It happened, and the answer was lost.
    LostAnswer,
    /// Half of the bytes arrived; the store noticed.
    Partial,
    /// Bytes were changed on the way; the store noticed.
    Damaged,
}

/// What every call meets that no script and no chance has hit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FaultMode {
    #[default]
    Fine,
    /// An outage: every call fails and may be repeated.
    Down,
    /// Every call hangs for so long, then fails.
    Stalling(Duration),
    /// Every call takes so long until it is there, and its answer so long to come back.
    Far(Duration),
    /// Every call is refused with this kind: keys revoked, credentials expired, bucket removed.
    Refusing(StorageErrorKind),
}

/// A store that fails on purpose: by script, by seeded chance, or for as long as the weather is bad. Clones share their fate.
#[derive(Clone, Debug)]
pub struct Unreliable {
    inner: Arc<dyn Storage>,
    plan: Arc<Mutex<FaultPlan>>,
}

#[derive(Debug, Default)]
struct FaultPlan {
    fault_mode: FaultMode,
    script: VecDeque<Option<Fault>>,
    chance: Option<(StdRng, f64)>,
    struck: u64,
}

impl Unreliable {
    /// Fine until told otherwise.
    pub fn new(inner: Arc<dyn Storage>) -> Self {
        Self { inner, plan: Arc::default() }
    }

    /// The first calls fare as the script says, the rest well.
    pub fn scripted(inner: Arc<dyn Storage>, script: impl IntoIterator<Item = Option<Fault>>) -> Self {
        let plan = FaultPlan { script: script.into_iter().collect(), ..FaultPlan::default() };
        Self { inner, plan: Arc::new(Mutex::new(plan)) }
    }

    /// Each call fails with this probability, in one of all the ways; stalls take up to ten seconds.
    pub fn seeded(inner: Arc<dyn Storage>, seed: u64, probability: f64) -> Self {
        let plan = FaultPlan { chance: Some((StdRng::seed_from_u64(seed), probability)), ..FaultPlan::default() };
        Self { inner, plan: Arc::new(Mutex::new(plan)) }
    }

    pub fn set_fault_mode(&self, fault_mode: FaultMode) {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner).fault_mode = fault_mode;
    }

    /// Calls that a fault or the weather has hit.
    pub fn struck(&self) -> u64 {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner).struck
    }

    fn next(&self) -> (Option<Fault>, FaultMode) {
        let mut plan = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        let fault = match plan.script.pop_front() {
            Some(fault) => fault,
            None => plan.chance.as_mut().and_then(|(rng, probability)| {
                let stall = Duration::from_millis(rng.random_range(0..10_000));
                let faults =
                    [Fault::Busy, Fault::Stall(stall), Fault::Reset, Fault::LostAnswer, Fault::Partial, Fault::Damaged];
                let fault = faults[rng.random_range(0..faults.len())];
                rng.random_bool(*probability).then_some(fault)
            }),
        };
        if fault.is_some() || plan.fault_mode != FaultMode::Fine {
            plan.struck += 1;
        }
        (fault, plan.fault_mode)
    }

    async fn call<T>(
        &self,
        doing: &'static str,
        call: impl Future<Output = Result<T, StorageError>>,
    ) -> Result<T, StorageError> {
        let error = |kind, message: &str| Err(StorageError::new(kind, self.inner.name(), doing, message));
        let (fault, fault_mode) = self.next();
        match fault {
            None => {}
            Some(Fault::Busy) => {
                return error(StorageErrorKind::Busy, "SlowDown: Please reduce your request rate (503)");
            }
            Some(Fault::Stall(stall)) => {
                tokio::time::sleep(stall).await;
                return error(StorageErrorKind::Busy, "timed out");
            }
            Some(Fault::Reset) => return error(StorageErrorKind::Busy, "connection reset"),
            Some(Fault::Partial) => return error(StorageErrorKind::Busy, "IncompleteBody (400)"),
            Some(Fault::Damaged) => return error(StorageErrorKind::Mismatch, "BadDigest: checksum mismatch (400)"),
            Some(Fault::LostAnswer) => {
                call.await?;
                return error(StorageErrorKind::Busy, "connection reset before the answer");
            }
        }
        match fault_mode {
            FaultMode::Fine => call.await,
            FaultMode::Down => error(StorageErrorKind::Busy, "ServiceUnavailable (503)"),
            FaultMode::Stalling(stall) => {
                tokio::time::sleep(stall).await;
                error(StorageErrorKind::Busy, "timed out")
            }
            FaultMode::Far(way) => {
                tokio::time::sleep(way).await;
                let done = call.await;
                tokio::time::sleep(way).await;
                done
            }
            FaultMode::Refusing(kind) => error(kind, "refused by the test"),
        }
    }
}

#[async_trait]
impl Storage for Unreliable {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn location(&self, name: &str) -> String {
        self.inner.location(name)
    }

    fn rules(&self) -> PartRules {
        self.inner.rules()
    }

    async fn put(&self, name: &str, bytes: Bytes, meta: &Meta) -> Result<Stored, StorageError> {
        self.call("put", self.inner.put(name, bytes, meta)).await
    }

    async fn begin(&self, name: &str, meta: &Meta) -> Result<Upload, StorageError> {
        self.call("begin", self.inner.begin(name, meta)).await
    }

    async fn put_part(
        &self,
        upload: &Upload,
        number: u32,
        generation: u32,
        bytes: Bytes,
    ) -> Result<PartTag, StorageError> {
        self.call("put part", self.inner.put_part(upload, number, generation, bytes)).await
    }

    fn expected_tag(&self, number: u32, generation: u32, bytes: &Bytes) -> Option<PartTag> {
        self.inner.expected_tag(number, generation, bytes)
    }

    async fn complete(&self, upload: &Upload, parts: &[Part], meta: &Meta) -> Result<Stored, StorageError> {
        self.call("complete", self.inner.complete(upload, parts, meta)).await
    }

    async fn abort(&self, upload: &Upload) -> Result<(), StorageError> {
        self.call("abort", self.inner.abort(upload)).await
    }

    async fn list_parts(&self, upload: &Upload) -> Result<Option<Vec<Part>>, StorageError> {
        self.call("list parts", self.inner.list_parts(upload)).await
    }

    async fn head(&self, name: &str) -> Result<Option<Object>, StorageError> {
        self.call("head", self.inner.head(name)).await
    }

    async fn read_small(&self, name: &str) -> Result<Option<Bytes>, StorageError> {
        self.call("read", self.inner.read_small(name)).await
    }

    async fn presign(&self, name: &str, life: Duration) -> Result<String, StorageError> {
        self.call("presign", self.inner.presign(name, life)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ram::RamStorage;

    #[tokio::test]
    async fn a_script_is_followed_and_then_all_is_well() {
        let ram = RamStorage::new();
        let script = [Some(Fault::Busy), None, Some(Fault::LostAnswer)];
        let store = Unreliable::scripted(Arc::new(ram.clone()), script);
        let put = async |name: &str| store.put(name, Bytes::from_static(b"x"), &Meta::default()).await;
        assert!(put("a").await.unwrap_err().is_transient());
        assert!(put("b").await.is_ok());
        assert!(put("c").await.is_err());
        assert!(put("d").await.is_ok());
        assert_eq!(ram.keys(), ["b", "c", "d"]);
        assert_eq!(store.struck(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn the_same_seed_is_the_same_luck() {
        let luck = async |seed| {
            let store = Unreliable::seeded(Arc::new(RamStorage::new()), seed, 0.5);
            let mut luck = Vec::new();
            for _ in 0..50 {
                luck.push(store.put("a", Bytes::new(), &Meta::default()).await.err().map(|error| error.message));
            }
            luck
        };
        assert_eq!(luck(1).await, luck(1).await);
        assert_ne!(luck(1).await, luck(2).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_fault_mode_holds_until_it_changes() {
        let store = Unreliable::new(Arc::new(RamStorage::new()));
        let put = async || store.put("a", Bytes::new(), &Meta::default()).await.map_err(|error| error.kind);
        store.set_fault_mode(FaultMode::Down);
        assert_eq!((put().await, put().await), (Err(StorageErrorKind::Busy), Err(StorageErrorKind::Busy)));
        store.set_fault_mode(FaultMode::Refusing(StorageErrorKind::Expired));
        assert_eq!(put().await, Err(StorageErrorKind::Expired));
        store.set_fault_mode(FaultMode::Stalling(Duration::from_secs(600)));
        let begun = tokio::time::Instant::now();
        assert_eq!(put().await, Err(StorageErrorKind::Busy));
        assert!(begun.elapsed() >= Duration::from_secs(600));
        store.set_fault_mode(FaultMode::Fine);
        assert!(put().await.is_ok());
    }
}
