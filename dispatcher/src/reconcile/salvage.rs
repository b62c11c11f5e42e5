//! A task that died with its disk leaves incomplete uploads. A salvage run, a task of the same image, completes them:
//! the dispatcher itself has no access to users' stores. If it dies too, another one follows. Changes the record and
//! enqueues.

use std::collections::BTreeSet;
use std::sync::Arc;

use spillway_bus::{BusError, ClaimToken, Decision, Phase, Record, Updated};
use spillway_launchers::RunMode;
use tracing::info;

use crate::config::settings::SALVAGE_TIMEOUT;
use crate::context::Context;
use crate::launch_state::{Dispatch, task_of};

/// What three salvage runs die of, the fourth would die of too.
const MAX_SALVAGES: u32 = 3;

/// Enqueues the salvage run of `seen` with the next attempt number, so that a runner which was only cut off finds itself
/// replaced. False: there is nothing to salvage, or the record has changed since it was `seen`.
///
/// # Errors
/// When Redis does not answer; a retry is right.
pub async fn begin(context: &Arc<Context>, seen: &Record, message: &str) -> Result<bool, BusError> {
    if !may(seen) {
        return Ok(false);
    }
    let (id, attempt) = (&seen.egress_id, seen.attempt + 1);
    let spare = ClaimToken::from_text(&seen.spare);
    let ttl = context.config().ticket_ttl(RunMode::Salvage);
    // The spare ticket is gone only after it has expired.
    let Some(claim) = context.tickets.copy(id, &spare, attempt, ttl).await? else { return Ok(false) };
    let deadline_ms = context.clock.unix_ms().saturating_add(SALVAGE_TIMEOUT.as_millis() as i64);
    let updated = context
        .registry
        .update(id, |record| {
            if record.attempt != seen.attempt || record.spare != seen.spare || !may(record) {
                return Decision::Leave;
            }
            let mut dispatch = Dispatch {
                claim: claim.reveal().to_owned(),
                weight: 0.0,
                deadline_ms,
                launched_ms: 0,
                target: String::new(),
                asked: false,
                fresh: false,
                tried: BTreeSet::new(),
                lost_starts: 0,
                ..Dispatch::of(record)
            };
            dispatch.salvages += 1;
            dispatch.earlier.extend(task_of(record).map(|task| (record.attempt, task)));
            dispatch.write(record);
            record.attempt = attempt;
            record.phase = Phase::Accepted;
            record.task = None;
            record.stop_asked = false;
            if record.lost.is_empty() {
                record.lost = message.to_owned();
            }
            record.dispatcher = context.name.to_string();
            Decision::Write
        })
        .await?;
    let Updated::Written(record) = updated else {
        context.tickets.withdraw(id, &claim).await?;
        return Ok(false);
    };
    info!(reason = message, attempt, "recording task lost; its uploads are completed by another");
    context.queue.leave(&record.egress_id);
    context.queue.enqueue(&record, context.clock.unix_ms());
    Ok(true)
}

/// The task recorded, or was itself a salvage run, and there is a ticket for another one.
fn may(record: &Record) -> bool {
    let died = matches!(record.phase, Phase::Running | Phase::Ending);
    let died_saving = !record.lost.is_empty() && record.phase == Phase::Launching;
    (died || died_saving) && !record.spare.is_empty() && Dispatch::of(record).salvages < MAX_SALVAGES
}
