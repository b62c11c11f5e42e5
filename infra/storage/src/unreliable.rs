use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::error::{Kind, StorageError};
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
pub enum Weather {
    #[default]
    Fine,
    /// An outage: every call fails and may be repeated.
    Down,
    /// Every call hangs for so long, then fails.
    Stalling(Duration),
    /// Every call takes so long until it is there, and its answer so long to come back.
    Far(Duration),
    /// Every call is refused with this kind: keys revoked, credentials expired, bucket removed.
    Refusing(Kind),
}

/// A store that fails on purpose: by script, by seeded chance, or for as long as the weather is bad. Clones share their fate.
#[derive(Clone, Debug)]
pub struct Unreliable {
    inner: Arc<dyn Storage>,
    fate: Arc<Mutex<Fate>>,
}

#[derive(Debug, Default)]
struct Fate {
    weather: Weather,
    script: VecDeque<Option<Fault>>,
    chance: Option<(StdRng, f64)>,
    struck: u64,
}

impl Unreliable {
    /// Fine until told otherwise.
    pub fn new(inner: Arc<dyn Storage>) -> Self {
        Self { inner, fate: Arc::default() }
    }

    /// The first calls fare as the script says, the rest well.
    pub fn scripted(inner: Arc<dyn Storage>, script: impl IntoIterator<Item = Option<Fault>>) -> Self {
        let fate = Fate { script: script.into_iter().collect(), ..Fate::default() };
        Self { inner, fate: Arc::new(Mutex::new(fate)) }
    }

    /// Each call fails with this probability, in one of all the ways; stalls take up to ten seconds.
    pub fn seeded(inner: Arc<dyn Storage>, seed: u64, probability: f64) -> Self {
        let fate = Fate { chance: Some((StdRng::seed_from_u64(seed), probability)), ..Fate::default() };
        Self { inner, fate: Arc::new(Mutex::new(fate)) }
    }

    pub fn set_weather(&self, weather: Weather) {
        self.fate.lock().unwrap_or_else(PoisonError::into_inner).weather = weather;
    }

    /// Calls that a fault or the weather has hit.
    pub fn struck(&self) -> u64 {
        self.fate.lock().unwrap_or_else(PoisonError::into_inner).struck
    }

    fn next(&self) -> (Option<Fault>, Weather) {
        let mut fate = self.fate.lock().unwrap_or_else(PoisonError::into_inner);
        let fault = match fate.script.pop_front() {
            Some(fault) => fault,
            None => fate.chance.as_mut().and_then(|(rng, probability)| {
                let stall = Duration::from_millis(rng.random_range(0..10_000));
                let faults =
                    [Fault::Busy, Fault::Stall(stall), Fault::Reset, Fault::LostAnswer, Fault::Partial, Fault::Damaged];
                let fault = faults[rng.random_range(0..faults.len())];
                rng.random_bool(*probability).then_some(fault)
            }),
        };
        if fault.is_some() || fate.weather != Weather::Fine {
            fate.struck += 1;
        }
        (fault, fate.weather)
    }

    async fn call<T>(
        &self,
        doing: &'static str,
        call: impl Future<Output = Result<T, StorageError>>,
    ) -> Result<T, StorageError> {
        let error = |kind, words: &str| Err(StorageError::new(kind, self.inner.name(), doing, words));
        let (fault, weather) = self.next();
        match fault {
            None => {}
            Some(Fault::Busy) => return error(Kind::Busy, "SlowDown: Please reduce your request rate (503)"),
            Some(Fault::Stall(stall)) => {
                tokio::time::sleep(stall).await;
                return error(Kind::Busy, "timed out");
            }
            Some(Fault::Reset) => return error(Kind::Busy, "connection reset"),
            Some(Fault::Partial) => return error(Kind::Busy, "IncompleteBody (400)"),
            Some(Fault::Damaged) => return error(Kind::Mismatch, "BadDigest: checksum mismatch (400)"),
            Some(Fault::LostAnswer) => {
                call.await?;
                return error(Kind::Busy, "connection reset before the answer");
            }
        }
        match weather {
            Weather::Fine => call.await,
            Weather::Down => error(Kind::Busy, "ServiceUnavailable (503)"),
            Weather::Stalling(stall) => {
                tokio::time::sleep(stall).await;
                error(Kind::Busy, "timed out")
            }
            Weather::Far(way) => {
                tokio::time::sleep(way).await;
                let done = call.await;
                tokio::time::sleep(way).await;
                done
            }
            Weather::Refusing(kind) => error(kind, "refused by the test"),
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

    fn foresee(&self, number: u32, generation: u32, bytes: &Bytes) -> Option<PartTag> {
        self.inner.foresee(number, generation, bytes)
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

    async fn look(&self, name: &str) -> Result<Option<Object>, StorageError> {
        self.call("look", self.inner.look(name)).await
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
        assert!(put("a").await.unwrap_err().is_passing());
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
                luck.push(store.put("a", Bytes::new(), &Meta::default()).await.err().map(|error| error.words));
            }
            luck
        };
        assert_eq!(luck(1).await, luck(1).await);
        assert_ne!(luck(1).await, luck(2).await);
    }

    #[tokio::test(start_paused = true)]
    async fn the_weather_holds_until_it_changes() {
        let store = Unreliable::new(Arc::new(RamStorage::new()));
        let put = async || store.put("a", Bytes::new(), &Meta::default()).await.map_err(|error| error.kind);
        store.set_weather(Weather::Down);
        assert_eq!((put().await, put().await), (Err(Kind::Busy), Err(Kind::Busy)));
        store.set_weather(Weather::Refusing(Kind::Expired));
        assert_eq!(put().await, Err(Kind::Expired));
        store.set_weather(Weather::Stalling(Duration::from_secs(600)));
        let begun = tokio::time::Instant::now();
        assert_eq!(put().await, Err(Kind::Busy));
        assert!(begun.elapsed() >= Duration::from_secs(600));
        store.set_weather(Weather::Fine);
        assert!(put().await.is_ok());
    }
}
