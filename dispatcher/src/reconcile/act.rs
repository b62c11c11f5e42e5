//! Diagnosis → action: the same for a sweep, for an exit event of a platform, and in the Lambda function. Changes
//! records by compare-and-set, enqueues launches, ends tasks.

use std::sync::Arc;

use spillway_bus::lifecycle::{EndCondition, LaunchEvent, SeenLaunch};
use spillway_bus::{BusError, Phase, Record, Updated};
use spillway_launchers::StopMode;
use spillway_protocol::code::Code;
use spillway_protocol::ids::EgressId;
use spillway_protocol::ledger::Outcome;
use tracing::{Instrument, debug, info};

use super::diagnosis::Diagnosis;
use super::{relaunch, salvage};
use crate::context::Context;
use crate::final_state;

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ActOutcome {
    Nothing,
    /// Its launch waits in the queue.
    Enqueued,
    /// Its final state is being delivered.
    Delivering,
    /// The platform was asked to end the task, which ignores a stop.
    Reminded,
    /// Another task is launched in place of this one.
    Again,
    /// Another task completes its uploads.
    Salvage,
    Ended,
    /// The record has changed meanwhile and needs another diagnosis.
    Conflict,
}

/// Carries a diagnosis out.
///
/// # Errors
/// When Redis does not answer; the next sweep is the retry.
pub(super) async fn act(context: &Arc<Context>, record: &Record, diagnosis: Diagnosis) -> Result<ActOutcome, BusError> {
    Ok(match diagnosis {
        Diagnosis::Leave => ActOutcome::Nothing,
        // The caller may have had no answer: livekit-server is told before the launch.
        Diagnosis::Launch if record.phase() == Phase::Accepted => {
            final_state::announce(context, record.clone());
            ActOutcome::Enqueued
        }
        Diagnosis::Launch => {
            context.queue.enqueue(record, context.clock.unix_ms());
            ActOutcome::Enqueued
        }
        Diagnosis::Deliver => {
            final_state::deliver(context, record);
            ActOutcome::Delivering
        }
        Diagnosis::Remind => {
            info!("stopped through Redis and still recording; the platform is asked to end its task");
            end(context, record, StopMode::Graceful);
            ActOutcome::Reminded
        }
        Diagnosis::Again(message) => {
            if !relaunch::begin(context, record, &message).await? {
                return Ok(ActOutcome::Conflict);
            }
            end(context, record, StopMode::Immediate);
            ActOutcome::Again
        }
        Diagnosis::Ask(message) if final_state::as_livekit_knows_it(context, record).await? => {
            debug!(message, "livekit-server knew its end");
            ActOutcome::Ended
        }
        Diagnosis::Ask(message) => finish(context, record, message, false).await?,
        Diagnosis::End { message, aborted } => finish(context, record, message, aborted).await?,
    })
}

/// By a salvage run if there are uploads to complete, else at once.
async fn finish(
    context: &Arc<Context>,
    record: &Record,
    message: String,
    aborted: bool,
) -> Result<ActOutcome, BusError> {
    let outcome = |message| {
        if aborted { Outcome::Aborted { message } } else { Outcome::Failed { code: Code::Internal, message } }
    };
    let when = EndCondition::Stands(SeenLaunch::of(record));
    let done = if salvage::begin(context, record, &message).await? {
        ActOutcome::Salvage
    } else if final_state::ended(context, &record.egress_id, message, outcome, when).await? {
        ActOutcome::Ended
    } else {
        return Ok(ActOutcome::Conflict);
    };
    let reason = if aborted { "reclaimed" } else { "died" };
    context.metrics.count("spillway_failures_total", &[("reason", reason)], 1.0);
    end(context, record, StopMode::Immediate);
    Ok(done)
}

/// In the background: a slow platform must not delay the sweep.
fn end(context: &Arc<Context>, record: &Record, how: StopMode) {
    let (shared, record) = (Arc::clone(context), record.clone());
    context.spawn(async move { shared.targets.end(&record, how).await }.in_current_span());
}

/// The dispatcher that owns the record has no heartbeat. Always false for our own records.
///
/// # Errors
/// When Redis does not answer; a retry is right.
pub(super) async fn is_owner_silent(context: &Context, record: &Record) -> Result<bool, BusError> {
    if context.owns(record) {
        return Ok(false);
    }
    match EgressId::parse(&record.dispatcher) {
        Ok(name) => Ok(context.heartbeats.last(&name).await?.is_none()),
        Err(_) => Ok(true),
    }
}

/// Makes this dispatcher the owner; `None` when another one was faster.
///
/// # Errors
/// When Redis does not answer; a retry is right.
pub(super) async fn adopt(context: &Arc<Context>, record: Record) -> Result<Option<Record>, BusError> {
    let before = record.dispatcher;
    let adopted = LaunchEvent::Adopted { from: before.clone(), by: context.name.to_string() };
    let updated = context.registry.apply(&record.egress_id, &adopted).await?;
    let Updated::Written(record) = updated else { return Ok(None) };
    info!(from = before, state = %record.state, "taken over from a dispatcher that is gone");
    Ok(Some(*record))
}
