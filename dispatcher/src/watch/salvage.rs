//! A task that died with its disk leaves uploads that are not complete. Another task of the same image finishes them:
//! the dispatcher has no right to write where users store their recordings. One that dies at it is followed by another.

use std::collections::BTreeSet;
use std::sync::Arc;

use spillway_bus::{BusError, ClaimToken, Decision, Phase, Record, Updated};
use tracing::info;

use crate::house::{Dispatch, House, task_of};
use crate::launch::{self, SAVED_WITHIN};

/// Whatever three of them die of, the fourth would too.
const MOST: u32 = 3;

/// Puts the salvage run of `seen` into the line, with the next attempt, so that a runner which was only away finds
/// itself replaced. False: there is nothing to salvage, or somebody else has changed the record.
pub async fn begin(house: &Arc<House>, seen: &Record, words: &str) -> Result<bool, BusError> {
    if !may(seen) {
        return Ok(false);
    }
    let (id, attempt) = (&seen.egress_id, seen.attempt + 1);
    let spare = ClaimToken::from_text(&seen.spare);
    let life = launch::salvage_ticket_life(&house.config());
    // Only its time takes the spare away.
    let Some(claim) = house.tickets.copy(id, &spare, attempt, life).await? else { return Ok(false) };
    let deadline_ms = house.clock.unix_ms().saturating_add(SAVED_WITHIN.as_millis() as i64);
    let updated = house
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
                record.lost = words.to_owned();
            }
            record.dispatcher = house.name.to_string();
            Decision::Write
        })
        .await?;
    let Updated::Written(record) = updated else {
        house.tickets.withdraw(id, &claim).await?;
        return Ok(false);
    };
    info!(reason = words, attempt, "recording task lost; its uploads are completed by another");
    house.leave_line(&record.egress_id);
    launch::join(house, &record);
    Ok(true)
}

/// It recorded, or was about to save what had been, and there is a ticket for another.
fn may(record: &Record) -> bool {
    let died = matches!(record.phase, Phase::Running | Phase::Ending | Phase::Lost);
    let died_saving = !record.lost.is_empty() && record.phase == Phase::Launching;
    (died || died_saving) && !record.spare.is_empty() && Dispatch::of(record).salvages < MOST
}
