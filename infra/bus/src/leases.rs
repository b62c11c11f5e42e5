//! Leases for work that one of several dispatchers does at a time. A holder that stalls may act after its lease has
//! expired; the number that comes with the lease grows with each holder, so that late actions can be told from the
//! successor's.

use std::time::Duration;

use crate::bus::Bus;
use crate::error::BusError;

/// Leases of this installation.
#[derive(Clone)]
pub struct Leases {
    bus: Bus,
}

impl Leases {
    /// On this bus.
    pub fn new(bus: &Bus) -> Self {
        Self { bus: bus.clone() }
    }

    /// Takes or renews the lease for `ttl`: the holder's number, the same as long as it is renewed in time. `None`:
    /// another holder has it.
    ///
    /// # Errors
    /// Redis was not reached or did not answer; a retry is right. The lease may have been taken.
    pub async fn hold(&self, work: &str, holder: &str, ttl: Duration) -> Result<Option<u64>, BusError> {
        self.bus.backend.lease(&key(work), holder, ttl).await
    }

    /// Whether no later holder has got a number.
    ///
    /// # Errors
    /// Redis was not reached or did not answer; a retry is right.
    pub async fn is_current(&self, work: &str, number: u64) -> Result<bool, BusError> {
        Ok(self.bus.backend.fence(&key(work)).await? == number)
    }
}

fn key(work: &str) -> String {
    format!("spillway:{{lease:{work}}}")
}
