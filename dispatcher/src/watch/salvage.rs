//! A task that died with its disk leaves uploads that are not complete. Another task of the same image finishes them:
//! the dispatcher has no right to write where users store their recordings.

use std::collections::BTreeSet;
use std::sync::Arc;

use spillway_bus::{BusError, Decision, Phase, Record, Updated};
use tracing::info;

use crate::house::{Dispatch, House, task_of};
use crate::launch;

/// Puts the salvage run of `seen` into the line, with the next attempt, so that a runner which was only away finds
/// itself replaced. False: there is nothing to salvage, or somebody else has changed the record.
pub async fn begin(house: &Arc<House>, seen: &Record, words: &str) -> Result<bool, BusError> {
    let deadline_ms = house.deadline_ms();
    let updated = house
        .registry
        .update(&seen.egress_id, |record| {
            let died = matches!(record.phase, Phase::Running | Phase::Ending | Phase::Lost);
            if record.attempt != seen.attempt || !died || record.spare.is_empty() {
                return Decision::Leave;
            }
            let mut dispatch = Dispatch {
                claim: std::mem::take(&mut record.spare),
                weight: 0.0,
                deadline_ms,
                launched_ms: 0,
                target: String::new(),
                asked: false,
                fresh: false,
                tried: BTreeSet::new(),
                ..Dispatch::of(record)
            };
            dispatch.earlier.extend(task_of(record).map(|task| (record.attempt, task)));
            dispatch.write(record);
            record.attempt += 1;
            record.phase = Phase::Accepted;
            record.task = None;
            record.stop_asked = false;
            record.lost = words.to_owned();
            record.dispatcher = house.name.to_string();
            Decision::Write
        })
        .await?;
    let Updated::Written(record) = updated else { return Ok(false) };
    info!(reason = words, "recording task lost; its uploads are completed by another");
    house.leave_line(&record.egress_id);
    launch::join(house, &record);
    Ok(true)
}
