//! The truth about every egress, shared by all dispatchers and the runner: one record each, changed by compare-and-set.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use spillway_process::chain;
use spillway_protocol::EgressId;
use tracing::{debug, error};

use crate::backend::{Backend, CasResult, NewValue, Precondition, Versioned};
use crate::{Bus, BusError};

/// Where an egress is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Granted; not launched yet.
    #[default]
    Accepted,
    /// A task is being started.
    Launching,
    /// The runner owns it.
    Running,
    /// The runner closes it.
    Ending,
    /// The final state was decided.
    Over,
    /// The task is gone without a final state; somebody has to settle it.
    Lost,
}

/// What is known about one egress. Fields a newer version wrote are kept by an older one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub egress_id: EgressId,
    /// Counts the writes. Set by the registry.
    #[serde(skip)]
    pub version: u64,
    #[serde(default)]
    pub phase: Phase,
    /// The first launch is attempt 1.
    #[serde(default)]
    pub attempt: u32,
    /// The dispatcher that owns it until `owner_until_ms` (Unix milliseconds).
    #[serde(default)]
    pub dispatcher: String,
    #[serde(default)]
    pub owner_until_ms: i64,
    /// The launcher's reference to the task, opaque to everybody else.
    #[serde(default)]
    pub task: Option<String>,
    /// The last EgressInfo, serialised.
    #[serde(default, with = "base64_text")]
    pub info: Vec<u8>,
    /// The ledger behind `info`, as JSON.
    #[serde(default)]
    pub ledger: String,
    #[serde(default)]
    pub stop_asked: bool,
    /// Claim of a second ticket, for a salvage run should the task die with its uploads; whoever ends the egress takes
    /// it away. Empty: there is nothing to salvage but what lies on a disk.
    #[serde(default)]
    pub spare: String,
    /// Why the recording task is gone. Not empty: this attempt is its salvage run, and the egress ends with these words.
    #[serde(default)]
    pub lost: String,
    /// Unix milliseconds.
    #[serde(default)]
    pub accepted_at: i64,
    /// Facts of whoever owns the record.
    #[serde(flatten)]
    pub extra: BTreeMap<String, serde_json::Value>,
}

impl Record {
    pub fn new(egress_id: EgressId, accepted_at: i64) -> Self {
        Self {
            egress_id,
            version: 0,
            phase: Phase::Accepted,
            attempt: 0,
            dispatcher: String::new(),
            owner_until_ms: 0,
            task: None,
            info: Vec::new(),
            ledger: String::new(),
            stop_asked: false,
            spare: String::new(),
            lost: String::new(),
            accepted_at,
            extra: BTreeMap::new(),
        }
    }
}

/// Who made the record.
#[derive(Clone, Debug, PartialEq)]
pub enum Created {
    Yes,
    Exists(Box<Record>),
}

/// What a look at a record leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    Write,
    Leave,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Updated {
    /// Written; this is what stands there now.
    Written(Box<Record>),
    /// Looked at and left as it is.
    Left(Box<Record>),
    /// There is no such record.
    Missing,
}

/// Ids of records that are not finished, each with the time it was put there (Unix milliseconds).
const LIVE: &str = "spillway:live";
/// A name in the live set without a record: its maker died between the two, or is just doing the second.
const ORPHANED_AFTER_MS: i64 = 60_000;
/// Parties to one record are few; this many lost races in a row are a mistake somewhere.
const TRIES: u32 = 100;

/// What one who lists the live records again and again has seen of them.
#[derive(Default)]
pub struct LiveIndex {
    /// With the time at which the name was put into the live set: a record that was forgotten and made anew counts its
    /// writes from the beginning.
    seen: HashMap<EgressId, (i64, Arc<Record>)>,
    /// Said once.
    unreadable: HashSet<(EgressId, u64)>,
}

#[derive(Clone)]
pub struct Registry {
    bus: Bus,
}

impl Registry {
    pub fn new(bus: &Bus) -> Self {
        Self { bus: bus.clone() }
    }

    fn backend(&self) -> &dyn Backend {
        &*self.bus.backend
    }

    fn unix_ms(&self) -> i64 {
        self.bus.clock().unix_ms()
    }

    /// Of many makers of one record one gets `Yes`.
    pub async fn create(&self, record: &Record) -> Result<Created, BusError> {
        let id = &record.egress_id;
        // The live set first: a record that no sweep can find must not exist.
        self.backend().index_add(LIVE, id.as_str(), self.unix_ms()).await?;
        for _ in 0..TRIES {
            let value = encode(record)?;
            let value = NewValue { version: 1, value: &value, ttl: None };
            if self.backend().compare_and_set(&key(id), Precondition::Is(0), value).await? == CasResult::Done {
                return Ok(Created::Yes);
            }
            let Some(found) = self.get(id).await? else { continue };
            // An answer of Redis was lost and the command repeated: it was us.
            if found.version == 1 && (Record { version: record.version, ..found.clone() }) == *record {
                return Ok(Created::Yes);
            }
            return Ok(Created::Exists(Box::new(found)));
        }
        Err(BusError::Contended { egress_id: id.to_string() })
    }

    pub async fn get(&self, id: &EgressId) -> Result<Option<Record>, BusError> {
        let Some(kept) = self.backend().read(&key(id)).await? else { return Ok(None) };
        decode(id, kept.version, &kept.value).map(Some)
    }

    /// Every record that is not finished, the oldest first.
    pub async fn list_live(&self) -> Result<Vec<Arc<Record>>, BusError> {
        self.refresh_live_index(&mut LiveIndex::default()).await
    }

    /// As [`Registry::list_live`], for one who lists often: what has not changed since `live_index` saw it is not read again.
    pub async fn refresh_live_index(&self, live_index: &mut LiveIndex) -> Result<Vec<Arc<Record>>, BusError> {
        let now = self.unix_ms();
        let mut names = Vec::new();
        for (name, since) in self.backend().index(LIVE).await? {
            match EgressId::parse(&name) {
                Ok(id) => names.push((id, since)),
                Err(_) => self.backend().index_remove(LIVE, &name).await?,
            }
        }
        let keys: Vec<String> = names.iter().map(|(id, _)| key(id)).collect();
        let versions = self.backend().versions(&keys).await?;
        let mut seen = std::mem::take(&mut live_index.seen);
        let (mut changed, mut wanted) = (Vec::new(), Vec::new());
        for (((id, since), key), version) in names.into_iter().zip(keys).zip(versions) {
            match seen.remove(&id).filter(|(then, record)| *then == since && record.version == version) {
                Some(same) => drop(live_index.seen.insert(id, same)),
                None if version > 0 => {
                    changed.push((id, since));
                    wanted.push(key);
                }
                None if now - since > ORPHANED_AFTER_MS => {
                    debug!(egress_id = %id, "name without a record removed from the live set");
                    self.backend().index_remove(LIVE, id.as_str()).await?;
                }
                None => {}
            }
        }
        let found = if wanted.is_empty() { Vec::new() } else { self.backend().read_all(&wanted).await? };
        for ((id, since), kept) in changed.into_iter().zip(found) {
            let Some(kept) = kept else { continue };
            match decode(&id, kept.version, &kept.value) {
                Ok(record) => drop(live_index.seen.insert(id, (since, Arc::new(record)))),
                // One that cannot be read must not hide all others.
                Err(error) if live_index.unreadable.insert((id, kept.version)) => {
                    error!(error = %chain(&error), "record left alone");
                }
                Err(_) => {}
            }
        }
        let mut records: Vec<Arc<Record>> = live_index.seen.values().map(|(_, record)| Arc::clone(record)).collect();
        records.sort_by(|a, b| (a.accepted_at, &a.egress_id).cmp(&(b.accepted_at, &b.egress_id)));
        Ok(records)
    }

    /// Whether it still needs care: false for one that is finished.
    pub async fn is_live(&self, id: &EgressId) -> Result<bool, BusError> {
        Ok(self.backend().index(LIVE).await?.iter().any(|(name, _)| name == id.as_str()))
    }

    /// Many at once, in their order.
    pub async fn get_all(&self, ids: &[EgressId]) -> Result<Vec<Option<Record>>, BusError> {
        let keys: Vec<String> = ids.iter().map(key).collect();
        let found = self.backend().read_all(&keys).await?.into_iter();
        let record = |(id, kept): (&EgressId, Option<Versioned>)| {
            kept.map(|kept| decode(id, kept.version, &kept.value)).transpose()
        };
        ids.iter().zip(found).map(record).collect()
    }

    /// Shows the record to `decide`, which may change it, and writes it if nobody else did meanwhile; else shows the new
    /// one. `decide` may be called often and must take what it is shown for the only truth.
    pub async fn update(
        &self,
        id: &EgressId,
        mut decide: impl FnMut(&mut Record) -> Decision,
    ) -> Result<Updated, BusError> {
        for _ in 0..TRIES {
            let Some(mut record) = self.get(id).await? else { return Ok(Updated::Missing) };
            let before = record.version;
            if decide(&mut record) == Decision::Leave {
                return Ok(Updated::Left(Box::new(record)));
            }
            record.version = before + 1;
            let value = encode(&record)?;
            let value = NewValue { version: record.version, value: &value, ttl: None };
            if self.backend().compare_and_set(&key(id), Precondition::Is(before), value).await? == CasResult::Done {
                return Ok(Updated::Written(Box::new(record)));
            }
        }
        Err(BusError::Contended { egress_id: id.to_string() })
    }

    /// It needs no more care: out of the live set, and forgotten after `ttl`. Until then it still answers repeated
    /// calls.
    pub async fn finish(&self, id: &EgressId, ttl: Duration) -> Result<(), BusError> {
        self.backend().expire(&key(id), ttl).await?;
        self.backend().index_remove(LIVE, id.as_str()).await
    }

    /// The record was a mistake (a request that is refused after all).
    pub async fn forget(&self, id: &EgressId) -> Result<(), BusError> {
        self.backend().remove(&key(id)).await?;
        self.backend().index_remove(LIVE, id.as_str()).await
    }
}

/// The id stands in braces so that in a Cluster all keys of one egress live together.
fn key(id: &EgressId) -> String {
    format!("spillway:{{{id}}}:record")
}

fn encode(record: &Record) -> Result<Vec<u8>, BusError> {
    serde_json::to_vec(record).map_err(|source| BusError::Record { egress_id: record.egress_id.to_string(), source })
}

fn decode(id: &EgressId, version: u64, value: &[u8]) -> Result<Record, BusError> {
    let record: Record =
        serde_json::from_slice(value).map_err(|source| BusError::Record { egress_id: id.to_string(), source })?;
    Ok(Record { version, ..record })
}

mod base64_text {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        STANDARD.decode(String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}
