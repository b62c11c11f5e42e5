//! Heartbeats of runners: written with a time to live, so that a dead runner's expires. Runs in the caller's task.

use std::time::Duration;

use spillway_model::{Heartbeat, StoredHeartbeat};
use spillway_protocol::EgressId;
use tracing::debug;

use crate::bus::Bus;
use crate::error::BusError;
use crate::key_value::{CasResult, NewValue, Precondition, Versioned};

/// Outcome of a write that later attempts of the same egress fence off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FencedWrite {
    /// Written.
    Accepted,
    /// Not written: a later attempt has written for this egress, and this one must end.
    Superseded,
}

impl From<CasResult> for FencedWrite {
    fn from(result: CasResult) -> Self {
        match result {
            CasResult::Done => Self::Accepted,
            CasResult::Conflict => Self::Superseded,
        }
    }
}

/// Heartbeats of all egresses.
#[derive(Clone)]
pub struct Heartbeats {
    bus: Bus,
}

impl Heartbeats {
    /// On this bus.
    pub fn new(bus: &Bus) -> Self {
        Self { bus: bus.clone() }
    }

    /// Writes a heartbeat that expires after `ttl`. `attempt` replaces the one in `beat`.
    ///
    /// # Errors
    /// Redis was not reached or did not answer; the next heartbeat is retry enough.
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
        let result = self.bus.backend.compare_and_set(&key(id), Precondition::NotAbove(version), value).await?;
        Ok(result.into())
    }

    /// The last one and its age by Redis' clock. `None`: none was written, or it has expired. One that this version
    /// cannot read is a heartbeat all the same: its attempt is known, its age counts as none.
    ///
    /// # Errors
    /// Redis was not reached or did not answer: a retry is right.
    pub async fn last(&self, id: &EgressId) -> Result<Option<(Duration, Heartbeat)>, BusError> {
        Ok(self.bus.backend.read(&key(id)).await?.map(|found| aged(id, &found)))
    }

    /// As [`Heartbeats::last`] for each of many, in their order.
    ///
    /// # Errors
    /// As [`Heartbeats::last`].
    pub async fn last_of(&self, ids: &[EgressId]) -> Result<Vec<Option<(Duration, Heartbeat)>>, BusError> {
        let keys: Vec<String> = ids.iter().map(key).collect();
        let found = self.bus.backend.read_all(&keys).await?;
        Ok(ids.iter().zip(found).map(|(id, found)| found.map(|found| aged(id, &found))).collect())
    }
}

fn aged(id: &EgressId, found: &Versioned) -> (Duration, Heartbeat) {
    match serde_json::from_slice::<StoredHeartbeat>(&found.value) {
        Ok(kept) => {
            let remaining = found.remaining.unwrap_or_default();
            (Duration::from_millis(kept.ttl_ms).saturating_sub(remaining), kept.beat)
        }
        Err(error) => {
            debug!(egress_id = %id, %error, "heartbeat of another version");
            let attempt = u32::try_from(found.version).unwrap_or(u32::MAX);
            (Duration::ZERO, Heartbeat { attempt, ..Heartbeat::default() })
        }
    }
}

fn key(id: &EgressId) -> String {
    format!("spillway:{{{id}}}:beat")
}
