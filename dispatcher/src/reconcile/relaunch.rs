//! Replaces a task that never recorded anything: another attempt, at another target if there is one. Changes the record
//! and enqueues; `launch` starts the task.

use std::sync::Arc;

use spillway_bus::{BusError, Decision, Phase, Record, Updated};
use tracing::info;

use crate::context::Context;
use crate::launch_state::{Dispatch, task_of};

/// A target other than the one it was launched at could be asked now.
pub fn has_another(context: &Context, dispatch: &Dispatch) -> bool {
    context.targets.has_another(&dispatch.shapes, &dispatch.tried, &dispatch.target)
}

/// Back into the queue as a new attempt. The next launch withdraws the ticket of the previous one; a runner that comes
/// late finds that the record has moved on. False: the record has changed since it was `seen`.
///
/// # Errors
/// When Redis does not answer; a retry is right.
pub async fn begin(context: &Arc<Context>, seen: &Record, message: &str) -> Result<bool, BusError> {
    let deadline_ms = context.deadline_ms();
    let updated = context
        .registry
        .update(&seen.egress_id, |record| {
            if record.attempt != seen.attempt || record.phase != Phase::Launching || record.task != seen.task {
                return Decision::Leave;
            }
            let mut dispatch = Dispatch::of(record);
            // A salvage run has a later deadline already.
            dispatch.deadline_ms = dispatch.deadline_ms.max(deadline_ms);
            dispatch.launched_ms = 0;
            dispatch.asked = false;
            dispatch.fresh = true;
            dispatch.lost_starts += 1;
            dispatch.tried.insert(dispatch.target.clone());
            dispatch.earlier.extend(task_of(record).map(|task| (record.attempt, task)));
            dispatch.write(record);
            record.task = None;
            record.phase = Phase::Accepted;
            record.dispatcher = context.name.to_string();
            Decision::Write
        })
        .await?;
    let Updated::Written(record) = updated else { return Ok(false) };
    info!(reason = message, attempt = record.attempt, "its task never recorded; another is launched");
    context.metrics.count("spillway_relaunches_total", &[], 1.0);
    context.queue.leave(&record.egress_id);
    context.queue.enqueue(&record, context.clock.unix_ms());
    Ok(true)
}
