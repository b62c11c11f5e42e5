//! A task that died with its disk leaves incomplete uploads. A salvage run, a task of the same image, completes them:
//! the dispatcher itself has no access to users' stores. If it dies too, another one follows. Changes the record and
//! enqueues.

use std::sync::Arc;

use spillway_bus::lifecycle::{self, LaunchEvent, SalvageOrder};
use spillway_bus::{BusError, ClaimToken, Record, Updated};
use spillway_launchers::RunMode;
use tracing::info;

use crate::config::settings::SALVAGE_TIMEOUT;
use crate::context::Context;

/// Enqueues the salvage run of `seen` with the next attempt number, so that a runner which was only cut off finds itself
/// replaced. False: there is nothing to salvage, or the record has changed since it was `seen`.
///
/// # Errors
/// When Redis does not answer; a retry is right.
pub async fn begin(context: &Arc<Context>, seen: &Record, message: &str) -> Result<bool, BusError> {
    if !lifecycle::can_be_salvaged(seen) {
        return Ok(false);
    }
    let (id, attempt) = (&seen.egress_id, seen.attempt + 1);
    let spare = ClaimToken::from_text(&seen.spare);
    let ttl = context.config().ticket_ttl(RunMode::Salvage);
    // The spare ticket is gone only after it has expired.
    let Some(claim) = context.tickets.copy(id, &spare, attempt, ttl).await? else { return Ok(false) };
    let deadline_ms = context.clock.unix_ms().saturating_add(SALVAGE_TIMEOUT.as_millis() as i64);
    let order = SalvageOrder {
        by: context.name.to_string(),
        attempt: seen.attempt,
        spare: seen.spare.clone(),
        claim: claim.reveal().to_owned(),
        deadline_ms,
        message: message.to_owned(),
    };
    let updated = context.registry.apply(id, &LaunchEvent::TaskLost(order)).await?;
    let Updated::Written(record) = updated else {
        context.tickets.withdraw(id, &claim).await?;
        return Ok(false);
    };
    info!(reason = message, attempt, "recording task lost; its uploads are completed by another");
    context.queue.leave(&record.egress_id);
    context.queue.enqueue(&record, context.clock.unix_ms());
    Ok(true)
}
