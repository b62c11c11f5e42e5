//! A task that died with its disk leaves uploads that are not complete. Another task of the same image finishes them:
//! the dispatcher has no right to write where users store their recordings. One that dies at it is followed by another.

use std::collections::BTreeSet;
use std::sync::Arc;

use spillway_bus::{BusError, ClaimToken, Decision, Phase, Record, Updated};
use tracing::info;

use crate::context::{Context, Dispatch, task_of};
use crate::launch::{self, SALVAGE_TIMEOUT};

/// Whatever three of them die of, the fourth would too.
const MAX_SALVAGES: u32 = 3;

/// Puts the salvage run of `seen` into the line, with the next attempt, so that a runner which was only away finds
/// itself replaced. False: there is nothing to salvage, or somebody else has changed the record.
pub async fn begin(context: &Arc<Context>, seen: &Record, message: &str) -> Result<bool, BusError> {
    if !may(seen) {
        return Ok(false);
    }
    let (id, attempt) = (&seen.egress_id, seen.attempt + 1);
    let spare = ClaimToken::from_text(&seen.spare);
    let ttl = launch::salvage_ticket_ttl(&context.config());
    // Only its time takes the spare away.
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
    context.leave_queue(&record.egress_id);
    launch::enqueue(context, &record);
    Ok(true)
}

/// It recorded, or was about to save what had been, and there is a ticket for another.
fn may(record: &Record) -> bool {
    let died = matches!(record.phase, Phase::Running | Phase::Ending | Phase::Lost);
    let died_saving = !record.lost.is_empty() && record.phase == Phase::Launching;
    (died || died_saving) && !record.spare.is_empty() && Dispatch::of(record).salvages < MAX_SALVAGES
}
