//! Checkpoints of the uploads of an egress, so that a salvage run can complete them. Opaque bytes without secrets;
//! runs in the caller's task.

use std::time::Duration;

use bytes::Bytes;
use spillway_protocol::EgressId;

use crate::bus::Bus;
use crate::error::BusError;
use crate::heartbeats::FencedWrite;
use crate::key_value::{NewValue, Precondition};

/// Stores keep the parts of an unfinished upload for about as long.
const STATE_TTL: Duration = Duration::from_secs(7 * 24 * 3600);
/// How long a closed state fences off earlier attempts.
const CLOSED_TTL: Duration = Duration::from_secs(3600);

/// Upload checkpoints of all egresses.
#[derive(Clone)]
pub struct UploadStates {
    bus: Bus,
}

impl UploadStates {
    /// On this bus.
    pub fn new(bus: &Bus) -> Self {
        Self { bus: bus.clone() }
    }

    /// Replaces the checkpoint, unless a later attempt has written it.
    ///
    /// # Errors
    /// Redis was not reached or did not answer; a retry, or the next checkpoint, is right.
    pub async fn put(&self, id: &EgressId, attempt: u32, state: &[u8]) -> Result<FencedWrite, BusError> {
        let version = u64::from(attempt);
        let value = NewValue { version, value: state, ttl: Some(STATE_TTL) };
        let result = self.bus.backend.compare_and_set(&key(id), Precondition::NotAbove(version), value).await?;
        Ok(result.into())
    }

    /// The last checkpoint with the attempt that wrote it. `None`: none, or closed.
    ///
    /// # Errors
    /// Redis was not reached or did not answer; a retry is right.
    pub async fn get(&self, id: &EgressId) -> Result<Option<(u32, Bytes)>, BusError> {
        let found = self.bus.backend.read(&key(id)).await?.filter(|kept| !kept.value.is_empty());
        Ok(found.map(|kept| (u32::try_from(kept.version).unwrap_or(u32::MAX), kept.value)))
    }

    /// Nothing is left to complete. An empty value stays for an hour, so that an earlier attempt that was only
    /// disconnected cannot write again.
    ///
    /// # Errors
    /// Redis was not reached or did not answer; a retry is right.
    pub async fn close(&self, id: &EgressId, attempt: u32) -> Result<(), BusError> {
        let version = u64::from(attempt);
        let value = NewValue { version, value: b"", ttl: Some(CLOSED_TTL) };
        self.bus.backend.compare_and_set(&key(id), Precondition::NotAbove(version), value).await.map(|_| ())
    }
}

fn key(id: &EgressId) -> String {
    format!("spillway:{{{id}}}:upload")
}
