//! Fault injection around any store, for tests (cargo feature `testing`): a call goes in, and by script, by seed or by mode it
//! fails, hangs or loses its answer. Delays follow tokio's clock, so paused time works.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::error::{StorageError, StorageErrorKind};
use crate::storage::*;

/// A fault of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Refused with 503; nothing was done.
    Busy,
    /// No answer for so long, then a timeout; nothing was done.
    Stall(Duration),
    /// Connection reset before the request was read; nothing was done.
    Reset,
    /// The request was served, its answer lost.
    LostAnswer,
    /// The body was cut short; the store noticed and refused it.
    Partial,
    /// The body was corrupted on the way; the store noticed and refused it.
    Damaged,
}

/// How calls fare that neither script nor seed has given a fault.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FaultMode {
    /// Served at once.
    #[default]
    Fine,
    /// An outage: every call fails with `Busy`.
    Down,
    /// Every call hangs for so long, then fails with `Busy`.
    Stalling(Duration),
    /// A slow link: this latency before and after every call.
    Far(Duration),
    /// Every call fails with this kind: keys revoked, credentials expired, bucket deleted.
    Refusing(StorageErrorKind),
}

/// A store with injected faults. Clones share script, seed and mode.
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
    faults: u64,
}

impl Unreliable {
    /// No faults until a mode is set.
    pub fn new(inner: Arc<dyn Storage>) -> Self {
        Self { inner, plan: Arc::default() }
    }

    /// The first calls get the faults of the script, one each; `None` is a call without one.
    pub fn scripted(inner: Arc<dyn Storage>, script: impl IntoIterator<Item = Option<Fault>>) -> Self {
        let plan = FaultPlan { script: script.into_iter().collect(), ..FaultPlan::default() };
        Self { inner, plan: Arc::new(Mutex::new(plan)) }
    }

    /// Each call gets a fault with this probability (0 to 1), any of them; stalls take up to ten seconds. The same seed gives
    /// the same faults.
    pub fn seeded(inner: Arc<dyn Storage>, seed: u64, probability: f64) -> Self {
        let plan = FaultPlan { chance: Some((StdRng::seed_from_u64(seed), probability)), ..FaultPlan::default() };
        Self { inner, plan: Arc::new(Mutex::new(plan)) }
    }

    /// Changes the mode for all calls from now on.
    pub fn set_fault_mode(&self, fault_mode: FaultMode) {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner).fault_mode = fault_mode;
    }

    /// Calls that met a fault or a mode other than `Fine`.
    pub fn faults(&self) -> u64 {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner).faults
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
            plan.faults += 1;
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

    async fn delete(&self, name: &str) -> Result<(), StorageError> {
        self.call("delete", self.inner.delete(name)).await
    }

    async fn presign(&self, name: &str, validity: Duration) -> Result<String, StorageError> {
        self.call("presign", self.inner.presign(name, validity)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ram::RamStorage;

    #[tokio::test]
    async fn a_script_is_followed_and_then_calls_succeed() {
        let ram = RamStorage::new();
        let script = [Some(Fault::Busy), None, Some(Fault::LostAnswer)];
        let store = Unreliable::scripted(Arc::new(ram.clone()), script);
        let put = async |name: &str| store.put(name, Bytes::from_static(b"x"), &Meta::default()).await;
        assert!(put("a").await.unwrap_err().is_transient());
        assert!(put("b").await.is_ok());
        assert!(put("c").await.is_err());
        assert!(put("d").await.is_ok());
        assert_eq!(ram.keys(), ["b", "c", "d"]);
        assert_eq!(store.faults(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn the_same_seed_gives_the_same_faults() {
        let outcome = async |seed| {
            let store = Unreliable::seeded(Arc::new(RamStorage::new()), seed, 0.5);
            let mut outcome = Vec::new();
            for _ in 0..50 {
                outcome.push(store.put("a", Bytes::new(), &Meta::default()).await.err().map(|error| error.message));
            }
            outcome
        };
        assert_eq!(outcome(1).await, outcome(1).await);
        assert_ne!(outcome(1).await, outcome(2).await);
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
