//! The billing lease: one dispatcher at a time closes tasks and searches for orphans on shared platforms.

use std::time::Duration;

use spillway_bus::BusError;

use crate::context::Context;

const LEASE: &str = "accounts";
const LEASE_TTL: Duration = Duration::from_secs(15);

/// Takes or extends the lease: its number, which grows with each holder; `None`: another dispatcher has it.
///
/// # Errors
/// When Redis does not answer; a retry is right.
pub(super) async fn hold(context: &Context) -> Result<Option<u64>, BusError> {
    context.leases.hold(LEASE, context.name.as_str(), LEASE_TTL).await
}

/// The lease still has this number.
pub(super) async fn is_current(context: &Context, number: u64) -> bool {
    matches!(context.leases.is_current(LEASE, number).await, Ok(true))
}
