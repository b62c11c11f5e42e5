//! How far the uploads of an egress are, so that another process can complete them. Nothing secret is in it.

use std::time::Duration;

use bytes::Bytes;
use spillway_protocol::EgressId;

use crate::backend::{CasResult, NewValue, Precondition};
use crate::{Bus, BusError, FencedWrite};

/// Stores keep the parts of an unfinished upload for about as long.
const LASTS: Duration = Duration::from_secs(7 * 24 * 3600);

const REMEMBERED: Duration = Duration::from_secs(3600);

#[derive(Clone)]
pub struct UploadStates {
    bus: Bus,
}

impl UploadStates {
    pub fn new(bus: &Bus) -> Self {
        Self { bus: bus.clone() }
    }

    /// Replaces what was there, unless a later attempt has written it.
    pub async fn put(&self, id: &EgressId, attempt: u32, state: &[u8]) -> Result<FencedWrite, BusError> {
        let version = u64::from(attempt);
        let value = NewValue { version, value: state, ttl: Some(LASTS) };
        Ok(match self.bus.backend.compare_and_set(&key(id), Precondition::NotAbove(version), value).await? {
            CasResult::Done => FencedWrite::Accepted,
            CasResult::Conflict => FencedWrite::Superseded,
        })
    }

    /// The last one, and whose it is.
    pub async fn get(&self, id: &EgressId) -> Result<Option<(u32, Bytes)>, BusError> {
        let found = self.bus.backend.read(&key(id)).await?.filter(|kept| !kept.value.is_empty());
        Ok(found.map(|kept| (u32::try_from(kept.version).unwrap_or(u32::MAX), kept.value)))
    }

    /// Nothing is left to complete. Its place stays taken for a while, so that an earlier attempt that was only away
    /// cannot fill it again.
    pub async fn close(&self, id: &EgressId, attempt: u32) -> Result<(), BusError> {
        let version = u64::from(attempt);
        let value = NewValue { version, value: b"", ttl: Some(REMEMBERED) };
        self.bus.backend.compare_and_set(&key(id), Precondition::NotAbove(version), value).await.map(|_| ())
    }
}

fn key(id: &EgressId) -> String {
    format!("spillway:{{{id}}}:upload")
}
