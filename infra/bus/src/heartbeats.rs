//! Signs of life of a runner.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use spillway_protocol::EgressId;

use crate::backend::{CasResult, NewValue, Precondition, Versioned as Found};
use crate::{Bus, BusError};

/// What a runner says about itself while it lives.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Heartbeat {
    /// Which launch speaks. Set by [`Heartbeats::beat`].
    pub attempt: u32,
    /// How long the recording is.
    pub media_ns: u64,
    /// How far it is behind what happens in the room.
    pub lag_ms: u64,
    /// Files being written, and the bytes in each.
    pub files: BTreeMap<String, u64>,
    /// Whatever else the runner says.
    #[serde(flatten)]
    pub extra: BTreeMap<String, serde_json::Value>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FencedWrite {
    Accepted,
    /// A later attempt has spoken for this egress: we are not wanted any more.
    Superseded,
}

#[derive(Clone)]
pub struct Heartbeats {
    bus: Bus,
}

/// The longest life of a heartbeat; its age is the difference to what Redis has left of it.
#[derive(Serialize, Deserialize)]
struct StoredHeartbeat {
    ttl_ms: u64,
    beat: Heartbeat,
}

impl Heartbeats {
    pub fn new(bus: &Bus) -> Self {
        Self { bus: bus.clone() }
    }

    /// Lasts for `ttl`, unless the next one comes before.
    pub async fn beat(
        &self,
        id: &EgressId,
        attempt: u32,
        beat: &Heartbeat,
        ttl: Duration,
    ) -> Result<FencedWrite, BusError> {
        let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        let kept = StoredHeartbeat { ttl_ms, beat: Heartbeat { attempt, ..beat.clone() } };
        let value =
            serde_json::to_vec(&kept).map_err(|source| BusError::Record { egress_id: id.to_string(), source })?;
        let version = u64::from(attempt);
        let value = NewValue { version, value: &value, ttl: Some(ttl) };
        Ok(match self.bus.backend.compare_and_set(&key(id), Precondition::NotAbove(version), value).await? {
            CasResult::Done => FencedWrite::Accepted,
            CasResult::Conflict => FencedWrite::Superseded,
        })
    }

    /// The last one and its age, by Redis' clock alone. `None`: never, or longer ago than its time to live.
    pub async fn last(&self, id: &EgressId) -> Result<Option<(Duration, Heartbeat)>, BusError> {
        let found = self.bus.backend.read(&key(id)).await?;
        found.map(|found| aged(id, &found)).transpose()
    }

    /// As [`Heartbeats::last`] for each of many, in their order.
    pub async fn last_of(&self, ids: &[EgressId]) -> Result<Vec<Option<(Duration, Heartbeat)>>, BusError> {
        let keys: Vec<String> = ids.iter().map(key).collect();
        let found = self.bus.backend.read_all(&keys).await?;
        let aged = |(id, found): (&EgressId, Option<Found>)| found.map(|found| aged(id, &found)).transpose();
        ids.iter().zip(found).map(aged).collect()
    }
}

fn aged(id: &EgressId, found: &Found) -> Result<(Duration, Heartbeat), BusError> {
    let kept: StoredHeartbeat = serde_json::from_slice(&found.value)
        .map_err(|source| BusError::Record { egress_id: id.to_string(), source })?;
    let remaining = found.remaining.unwrap_or_default();
    Ok((Duration::from_millis(kept.ttl_ms).saturating_sub(remaining), kept.beat))
}

fn key(id: &EgressId) -> String {
    format!("spillway:{{{id}}}:beat")
}
