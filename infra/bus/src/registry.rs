//! The records of all egresses, shared by dispatchers and runners: one record each, changed by compare-and-set with the
//! transitions of `spillway_model::lifecycle`, and the set of ids that are not finished. A record that this version
//! cannot read is reported and left as it is. Runs in the caller's task.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use spillway_model::Record;
use spillway_model::lifecycle::{self, LaunchEvent};
use spillway_process::chain;
use spillway_protocol::EgressId;
use tracing::{debug, error};

use crate::bus::Bus;
use crate::error::BusError;
use crate::key_value::{CasResult, NewValue, Precondition, Versioned};

/// Outcome of [`Registry::create`].
#[derive(Clone, Debug, PartialEq)]
pub enum Created {
    /// The record was written by this call.
    Yes,
    /// Another one was written before; this is it.
    Exists(Box<Record>),
}

/// Outcome of [`Registry::apply`].
#[derive(Clone, Debug, PartialEq)]
pub enum Updated {
    /// The record as it was written.
    Written(Box<Record>),
    /// The record as it was read, and left: the event does not apply to it.
    Left(Box<Record>),
    /// There is no such record.
    Missing,
}

/// What is stored about one egress.
#[derive(Clone, Debug, PartialEq)]
pub enum FoundRecord {
    /// Nothing.
    Absent,
    /// Its record.
    Record(Box<Record>),
    /// A record that this version cannot read.
    Unreadable,
}

/// Ids of records that are not finished, each with the time it was added (Unix milliseconds).
const LIVE: &str = "spillway:live";
/// From this age on an id in the live set without a record is removed: its creator died between the two writes.
const ORPHANED_AFTER_MS: i64 = 60_000;
/// Few processes write one record; this many lost races in a row are a defect.
const MAX_ATTEMPTS: u32 = 100;

/// What a caller that lists the live records repeatedly has read of them.
#[derive(Default)]
pub struct LiveIndex {
    /// With the time at which the id was added to the live set: a record that was forgotten and created anew counts its
    /// writes from 1 again.
    seen: HashMap<EgressId, (i64, Arc<Record>)>,
    /// Versions that were logged as unreadable.
    unreadable: HashSet<(EgressId, u64)>,
}

/// The records of all egresses.
#[derive(Clone)]
pub struct Registry {
    bus: Bus,
}

impl Registry {
    /// On this bus.
    pub fn new(bus: &Bus) -> Self {
        Self { bus: bus.clone() }
    }

    fn unix_ms(&self) -> i64 {
        self.bus.clock().unix_ms()
    }

    /// Writes a new record and adds it to the live set. Of several creators of one id one gets `Yes`.
    ///
    /// # Errors
    /// Redis was not reached or did not answer: a retry with the same record is right and gets the same outcome.
    /// Others: the stored record cannot be read.
    pub async fn create(&self, record: &Record) -> Result<Created, BusError> {
        let id = &record.egress_id;
        // The live set first: a record that no sweep can find must not exist.
        self.bus.backend.index_add(LIVE, id.as_str(), self.unix_ms()).await?;
        for _ in 0..MAX_ATTEMPTS {
            let value = encode(record)?;
            let value = NewValue { version: 1, value: &value, ttl: None };
            if self.bus.backend.compare_and_set(&key(id), Precondition::Is(0), value).await? == CasResult::Done {
                return Ok(Created::Yes);
            }
            let Some(found) = self.get(id).await? else { continue };
            // An answer of Redis was lost and the command repeated: this call wrote it.
            if found.version == 1 && (Record { version: record.version, ..found.clone() }) == *record {
                return Ok(Created::Yes);
            }
            return Ok(Created::Exists(Box::new(found)));
        }
        Err(BusError::Contended { egress_id: id.to_string() })
    }

    /// `None`: there is no record.
    ///
    /// # Errors
    /// Redis was not reached or did not answer: a retry is right. [`BusError::Record`]: it cannot be read.
    pub async fn get(&self, id: &EgressId) -> Result<Option<Record>, BusError> {
        let Some(kept) = self.bus.backend.read(&key(id)).await? else { return Ok(None) };
        decode(id, kept.version, &kept.value).map(Some)
    }

    /// Every record that is not finished, the oldest first. Unreadable ones are logged and left out.
    ///
    /// # Errors
    /// Redis was not reached or did not answer; a retry is right.
    pub async fn list_live(&self) -> Result<Vec<Arc<Record>>, BusError> {
        self.refresh_live_index(&mut LiveIndex::default()).await
    }

    /// As [`Registry::list_live`], for a caller that lists often: a record that has not changed since it was last
    /// read into `live_index` is not read again.
    ///
    /// # Errors
    /// As [`Registry::list_live`]; `live_index` stays usable and reads again what it lacks.
    pub async fn refresh_live_index(&self, live_index: &mut LiveIndex) -> Result<Vec<Arc<Record>>, BusError> {
        let now = self.unix_ms();
        let mut names = Vec::new();
        for (name, since) in self.bus.backend.index(LIVE).await? {
            match EgressId::parse(&name) {
                Ok(id) => names.push((id, since)),
                Err(_) => self.bus.backend.index_remove(LIVE, &name).await?,
            }
        }
        let keys: Vec<String> = names.iter().map(|(id, _)| key(id)).collect();
        let versions = self.bus.backend.versions(&keys).await?;
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
                    debug!(egress_id = %id, "id without a record removed from the live set");
                    self.bus.backend.index_remove(LIVE, id.as_str()).await?;
                }
                None => {}
            }
        }
        let found = if wanted.is_empty() { Vec::new() } else { self.bus.backend.read_all(&wanted).await? };
        for ((id, since), kept) in changed.into_iter().zip(found) {
            let Some(kept) = kept else { continue };
            match decode(&id, kept.version, &kept.value) {
                Ok(record) => drop(live_index.seen.insert(id, (since, Arc::new(record)))),
                // An unreadable record must not hide the others.
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

    /// Whether it is in the live set: false for one that is finished or unknown.
    ///
    /// # Errors
    /// Redis was not reached or did not answer; a retry is right.
    pub async fn is_live(&self, id: &EgressId) -> Result<bool, BusError> {
        Ok(self.bus.backend.index_score(LIVE, id.as_str()).await?.is_some())
    }

    /// Many at once, in their order.
    ///
    /// # Errors
    /// Redis was not reached or did not answer; a retry is right.
    pub async fn get_all(&self, ids: &[EgressId]) -> Result<Vec<FoundRecord>, BusError> {
        let keys: Vec<String> = ids.iter().map(key).collect();
        let found = self.bus.backend.read_all(&keys).await?.into_iter();
        let stored = |(id, kept): (&EgressId, Option<Versioned>)| match kept {
            None => FoundRecord::Absent,
            Some(kept) => match decode(id, kept.version, &kept.value) {
                Ok(record) => FoundRecord::Record(Box::new(record)),
                Err(error) => {
                    debug!(error = %chain(&error), "record not looked at");
                    FoundRecord::Unreadable
                }
            },
        };
        Ok(ids.iter().zip(found).map(stored).collect())
    }

    /// Applies the event to the record and writes the result, if no other process wrote meanwhile; otherwise starts
    /// again with the new record. The only way in which a record that exists is changed.
    ///
    /// # Errors
    /// Redis was not reached or did not answer: the record may have been written, and a retry is right, because most
    /// events do not apply twice. [`BusError::Record`]: it cannot be read, and was left as it is.
    /// [`BusError::Contended`]: a defect.
    pub async fn apply(&self, id: &EgressId, event: &LaunchEvent) -> Result<Updated, BusError> {
        let change = |record: &Record| {
            lifecycle::apply(record, event).map_err(|source| BusError::Record { egress_id: id.to_string(), source })
        };
        self.swap(id, change).await
    }

    /// `change`: the record to be written instead; `None`: it is left.
    pub(crate) async fn swap(
        &self,
        id: &EgressId,
        mut change: impl FnMut(&Record) -> Result<Option<Record>, BusError>,
    ) -> Result<Updated, BusError> {
        for _ in 0..MAX_ATTEMPTS {
            let Some(before) = self.get(id).await? else { return Ok(Updated::Missing) };
            let Some(mut record) = change(&before)? else { return Ok(Updated::Left(Box::new(before))) };
            record.version = before.version + 1;
            let value = encode(&record)?;
            let value = NewValue { version: record.version, value: &value, ttl: None };
            let precondition = Precondition::Is(before.version);
            if self.bus.backend.compare_and_set(&key(id), precondition, value).await? == CasResult::Done {
                return Ok(Updated::Written(Box::new(record)));
            }
        }
        Err(BusError::Contended { egress_id: id.to_string() })
    }

    /// Removes it from the live set; the record expires after `ttl` and until then answers repeated calls.
    ///
    /// # Errors
    /// Redis was not reached or did not answer; a retry is right.
    pub async fn finish(&self, id: &EgressId, ttl: Duration) -> Result<(), BusError> {
        self.bus.backend.expire(&key(id), ttl).await?;
        self.bus.backend.index_remove(LIVE, id.as_str()).await
    }

    /// Removes the record and its id: the request is refused after all.
    ///
    /// # Errors
    /// As [`Registry::finish`].
    pub async fn forget(&self, id: &EgressId) -> Result<(), BusError> {
        self.bus.backend.remove(&key(id)).await?;
        self.bus.backend.index_remove(LIVE, id.as_str()).await
    }
}

/// The id is in braces so that a Cluster keeps all keys of one egress on one server.
pub(crate) fn key(id: &EgressId) -> String {
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
