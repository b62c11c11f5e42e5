//! Replaces a task that never recorded anything: another attempt, at another target if there is one. Changes the record
//! and enqueues; `launch` starts the task.

use std::sync::Arc;

use spillway_bus::lifecycle::LaunchEvent;
use spillway_bus::{BusError, Dispatch, Record, Updated};
use tracing::info;

use crate::context::Context;

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
    let again = LaunchEvent::StartLost {
        attempt: seen.attempt,
        task: seen.task().cloned(),
        by: context.name.to_string(),
        deadline_ms: context.deadline_ms(),
    };
    let updated = context.registry.apply(&seen.egress_id, &again).await?;
    let Updated::Written(record) = updated else { return Ok(false) };
    info!(reason = message, attempt = record.attempt, "its task never recorded; another is launched");
    context.metrics.count("spillway_relaunches_total", &[], 1.0);
    context.queue.leave(&record.egress_id);
    context.queue.enqueue(&record, context.clock.unix_ms());
    Ok(true)
}
