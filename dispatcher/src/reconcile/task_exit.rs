//! A platform said that a task is gone: what the next sweep would do is done now, by whoever hears of it first.
//!
//! News may come twice, late, in any order, and to several at once. Only the end of a task is news, and it is final, so
//! there is no older or newer: whether something is left to do stands in the record alone, and who does it is decided by
//! compare-and-set.

use std::sync::Arc;
use std::time::Duration;

use spillway_bus::{BusError, Phase, Record, TaskKey};
use spillway_launchers::{ExitReport, TaskRef, TaskStatus};
use spillway_protocol::ids::EgressId;
use tokio::time::Instant;
use tracing::{Instrument, info, info_span};

use super::act::{self, ActOutcome, act};
use super::diagnosis::{Observation, Timeouts, diagnose};
use super::relaunch;
use crate::billing;
use crate::context::{Context, Dispatch, task_of};
use crate::launch;

/// A runner's last beat and a dead owner's must have gone cold; then somebody else is at it, or it lives.
const STATUS_TIMEOUT: Duration = Duration::from_secs(8);
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// The end of one task.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskExitEvent {
    pub egress_id: EgressId,
    pub attempt: u32,
    /// As the platform names the task.
    pub task: String,
    pub exit_report: ExitReport,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventOutcome {
    /// No record, or one that has nothing to do with that task.
    NotOurs,
    /// It had ended, and livekit-server knows.
    WasOver,
    /// It ends with this task; the last word is on its way.
    Ended,
    /// It had ended; the last word is on its way.
    Delivering,
    /// Another task finishes its uploads.
    Salvage,
    /// Nothing had been recorded: another task is launched in its place.
    Again,
    /// Somebody who lives sees to it, and this is who.
    InOtherHands(&'static str),
}

enum EventStep {
    Over(EventOutcome),
    /// Looked at again, and why; in the end, the reason it was left alone.
    Wait(&'static str),
}

pub async fn handle(context: &Arc<Context>, event: &TaskExitEvent) -> Result<EventOutcome, BusError> {
    let span = info_span!("egress", egress_id = %event.egress_id, attempt = event.attempt);
    async {
        let until = Instant::now() + STATUS_TIMEOUT;
        let outcome = loop {
            match step(context, event).await? {
                EventStep::Over(outcome) => break outcome,
                EventStep::Wait(why) if Instant::now() >= until => break EventOutcome::InOtherHands(why),
                EventStep::Wait(_) => tokio::time::sleep(POLL_INTERVAL).await,
            }
        };
        let key = TaskKey { egress_id: event.egress_id.clone(), attempt: event.attempt };
        billing::gone(context, &key, &event.exit_report).await?;
        info!(task = event.task, left = %event.exit_report, ?outcome, "a task's end was told");
        Ok(outcome)
    }
    .instrument(span)
    .await
}

async fn step(context: &Arc<Context>, event: &TaskExitEvent) -> Result<EventStep, BusError> {
    let Some(record) = context.registry.get(&event.egress_id).await? else {
        return Ok(EventStep::Over(EventOutcome::NotOurs));
    };
    let beat = context.heartbeats.last(&record.egress_id).await?.filter(|(_, beat)| beat.attempt == record.attempt);
    let beating = beat.as_ref().is_some_and(|(age, _)| *age < Timeouts::default().heartbeat);
    if record.phase == Phase::Over {
        return last_report(context, record, beating).await;
    }
    let dispatch = Dispatch::of(&record);
    // A task of an attempt that the record does not stand at yet: a double, which finds that out by itself.
    if event.attempt > record.attempt {
        return Ok(EventStep::Over(EventOutcome::NotOurs));
    }
    if event.attempt < record.attempt || dispatch.earlier.contains_key(&event.attempt) {
        return next_launch(context, record).await;
    }
    let Some(record) = at(context, event, record).await? else {
        return Ok(EventStep::Over(EventOutcome::InOtherHands("another task of this attempt")));
    };
    let observation = Observation {
        phase: record.phase,
        launched_for: Some(Duration::ZERO),
        start_deadline: None,
        has_another: relaunch::has_another(context, &dispatch),
        lost_starts: dispatch.lost_starts,
        stop_ignored_for: Duration::ZERO,
        is_queued: context.queue().is_pending(&record.egress_id),
        task: Some(TaskStatus::Gone(event.exit_report.clone())),
        beat: beat.map(|(age, _)| age),
        silent_for: Duration::ZERO,
    };
    Ok(match act(context, &record, diagnose(&observation, Timeouts::default())).await? {
        ActOutcome::Ended => EventStep::Over(EventOutcome::Ended),
        ActOutcome::Salvage => EventStep::Over(EventOutcome::Salvage),
        ActOutcome::Again | ActOutcome::Enqueued => EventStep::Over(EventOutcome::Again),
        ActOutcome::Delivering => EventStep::Over(EventOutcome::Delivering),
        ActOutcome::Nothing | ActOutcome::Reminded => EventStep::Wait("a runner that is alive"),
        ActOutcome::Conflict => EventStep::Wait("whoever changed the record"),
    })
}

/// Over: is there anybody who says so?
async fn last_report(context: &Arc<Context>, record: Record, beating: bool) -> Result<EventStep, BusError> {
    if !context.registry.is_live(&record.egress_id).await? {
        return Ok(EventStep::Over(EventOutcome::WasOver));
    }
    if beating {
        return Ok(EventStep::Wait("its runner, which tells its end"));
    }
    let record = match act::is_owner_silent(context, &record).await? {
        false if context.owns(&record) => record,
        false => return Ok(EventStep::Wait("the dispatcher that tells its end")),
        true => match act::adopt(context, record).await? {
            Some(record) => record,
            None => return Ok(EventStep::Wait("whoever took it over")),
        },
    };
    super::final_state::deliver(context, &record);
    Ok(EventStep::Over(EventOutcome::Delivering))
}

/// The record has moved on; whoever moved it may have died before the launch.
async fn next_launch(context: &Arc<Context>, record: Record) -> Result<EventStep, BusError> {
    let waits = matches!(record.phase, Phase::Accepted | Phase::Launching) && record.task.is_none();
    if !waits {
        return Ok(EventStep::Over(EventOutcome::InOtherHands("the task after it")));
    }
    if !act::is_owner_silent(context, &record).await? {
        return Ok(EventStep::Wait("the dispatcher that launches the next task"));
    }
    let Some(record) = act::adopt(context, record).await? else { return Ok(EventStep::Wait("whoever took it over")) };
    launch::enqueue(context, &record);
    Ok(EventStep::Over(if record.lost.is_empty() { EventOutcome::Again } else { EventOutcome::Salvage }))
}

/// The record, if that task is its task. The launch's answer may have been lost with whoever asked for it: then the
/// platform has just named the task.
async fn at(context: &Arc<Context>, event: &TaskExitEvent, record: Record) -> Result<Option<Record>, BusError> {
    match (task_of(&record), context.targets.of(&record)) {
        (Some(task), _) => Ok((task.id == event.task).then_some(record)),
        (None, Some(target)) if record.phase != Phase::Accepted => {
            let task = TaskRef { launcher: target.launcher.name().to_owned(), id: event.task.clone() };
            launch::note_task(context, &record.egress_id, record.attempt, &task).await?;
            context.registry.get(&record.egress_id).await
        }
        (None, _) => Ok(None),
    }
}
