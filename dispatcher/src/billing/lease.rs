//! The billing lease: one dispatcher at a time closes tasks and searches for orphans on shared platforms.

use std::time::Duration;

use spillway_bus::{BusError, Leases};

const LEASE: &str = "accounts";
const LEASE_TTL: Duration = Duration::from_secs(15);

/// The lease, as one dispatcher may hold it.
#[derive(Clone)]
pub(super) struct BillingLease {
    leases: Leases,
    holder: String,
}

impl BillingLease {
    /// `holder`: the dispatcher's name.
    pub fn new(leases: Leases, holder: String) -> Self {
        Self { leases, holder }
    }

    /// Takes or extends the lease: its number, which grows with each holder; `None`: another dispatcher has it.
    ///
    /// # Errors
    /// When Redis does not answer; a retry is right.
    pub async fn hold(&self) -> Result<Option<u64>, BusError> {
        self.leases.hold(LEASE, &self.holder, LEASE_TTL).await
    }

    /// The lease still has this number.
    pub async fn is_current(&self, number: u64) -> bool {
        matches!(self.leases.is_current(LEASE, number).await, Ok(true))
    }
}
