//! Work that one of many dispatchers does at a time. A holder that stalls may still believe in its lease; the number
//! that comes with it grows with each holder, so that what it does late can be told from what its successor does.

use std::time::Duration;

use crate::{Bus, BusError};

#[derive(Clone)]
pub struct Leases {
    bus: Bus,
}

impl Leases {
    pub fn new(bus: &Bus) -> Self {
        Self { bus: bus.clone() }
    }

    /// Taken or renewed for `ttl`: the holder's number, the same as long as it is renewed in time. `None`: somebody else
    /// has it.
    pub async fn hold(&self, work: &str, holder: &str, ttl: Duration) -> Result<Option<u64>, BusError> {
        self.bus.backend.lease(&key(work), holder, ttl).await
    }

    /// Whether this number is still the last one.
    pub async fn is_current(&self, work: &str, number: u64) -> Result<bool, BusError> {
        Ok(self.bus.backend.fence(&key(work)).await? == number)
    }
}

fn key(work: &str) -> String {
    format!("spillway:{{lease:{work}}}")
}
