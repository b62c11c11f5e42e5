//! Exit event of a task, from its platform: what the next sweep would do is done at once, by the dispatcher or the
//! Lambda function that gets the event.
//!
//! Events may come twice, late, in any order, and to several dispatchers. They only say that a task has ended, which is
//! final, so their order does not matter: whether something is left to do is in the record, and who does it is decided
//! by compare-and-set.

use std::sync::Arc;
use std::time::Duration;

use spillway_bus::{BusError, Phase, Record, TaskKey};
use spillway_launchers::{ExitReport, TaskRef, TaskStatus};
use spillway_protocol::ids::EgressId;
use tokio::time::Instant;
use tracing::{Instrument, info, info_span};

use super::act::{ActOutcome, Actions};
use super::diagnosis::{Observation, Timeouts, diagnose};
use crate::billing::TaskAccounts;
use crate::records::HEARTBEAT_FRESH;

/// By then the last heartbeats of a dead runner (6 s) and of a dead dispatcher (3 s) have expired: another process is at
/// it, or the runner lives.
const HEARTBEATS_EXPIRED: Duration = Duration::from_secs(8);
const POLL_INTERVAL: Duration = Duration::from_millis(200);

const TAKEN_OVER: &str = "the dispatcher that took it over";

/// The end of one task.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskExitEvent {
    /// From the task's labels.
    pub egress_id: EgressId,
    /// From the task's labels.
    pub attempt: u32,
    /// The platform's id of the task.
    pub task: String,
    /// How it ended.
    pub exit_report: ExitReport,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventOutcome {
    /// There is no record, or it has nothing to do with that task.
    NotOurs,
    /// The egress had ended, and livekit-server knows.
    WasOver,
    /// The egress ends with this task; the final state is being delivered.
    Ended,
    /// The egress had ended; the final state is being delivered.
    Delivering,
    /// Another task completes its uploads.
    Salvage,
    /// Nothing had been recorded, or the recording goes on: another task is launched in its place.
    Again,
    /// A live process takes care of it; the text says which.
    InOtherHands(&'static str),
}

enum EventStep {
    Over(EventOutcome),
    /// Look again, because this process may act; after the timeout it is the reason for leaving the egress alone.
    Wait(&'static str),
}

/// Handles exit events: what an exit means is for [`Actions`], what the task cost for the accounts.
pub struct ExitEvents {
    /// As the sweep's.
    pub actions: Actions,
    /// Closes the task.
    pub accounts: Arc<TaskAccounts>,
}

impl ExitEvents {
    /// Handles one event; takes up to 8 s, because heartbeats have to expire.
    ///
    /// # Errors
    /// When Redis does not answer: the event has to be delivered again. When the record cannot be read; it is left alone.
    pub async fn handle(&self, event: &TaskExitEvent) -> Result<EventOutcome, BusError> {
        let span = info_span!("egress", egress_id = %event.egress_id, attempt = event.attempt);
        async {
            let until = Instant::now() + HEARTBEATS_EXPIRED;
            let outcome = loop {
                match self.step(event).await? {
                    EventStep::Over(outcome) => break outcome,
                    EventStep::Wait(why) if Instant::now() >= until => break EventOutcome::InOtherHands(why),
                    EventStep::Wait(_) => tokio::time::sleep(POLL_INTERVAL).await,
                }
            };
            let key = TaskKey { egress_id: event.egress_id.clone(), attempt: event.attempt };
            self.accounts.close_exited(&key, &event.exit_report).await?;
            info!(task = event.task, left = %event.exit_report, ?outcome, "a task's end was told");
            Ok(outcome)
        }
        .instrument(span)
        .await
    }

    async fn step(&self, event: &TaskExitEvent) -> Result<EventStep, BusError> {
        let Actions { records, launcher, .. } = &self.actions;
        let Some(record) = records.registry.get(&event.egress_id).await? else {
            return Ok(EventStep::Over(EventOutcome::NotOurs));
        };
        let beat = records.last_beat(&record).await?;
        if record.state.is_over() {
            return self.last_report(record, beat.is_some_and(|age| age < HEARTBEAT_FRESH)).await;
        }
        // An attempt that the record has not reached: a second start of the task, which the runner itself detects.
        if event.attempt > record.attempt {
            return Ok(EventStep::Over(EventOutcome::NotOurs));
        }
        if event.attempt < record.attempt || record.dispatch.earlier.contains_key(&event.attempt) {
            return self.next_launch(record).await;
        }
        let Some(record) = self.at(event, record).await? else {
            return Ok(EventStep::Over(EventOutcome::InOtherHands("another task of this attempt")));
        };
        let observation = Observation {
            phase: record.phase(),
            launched_for: Some(Duration::ZERO),
            start_deadline: None,
            has_another: self.actions.has_another(&record),
            lost_starts: record.dispatch.lost_starts,
            stop_ignored_for: Duration::ZERO,
            is_queued: launcher.queue.lock().is_pending(&record.egress_id),
            task: Some(TaskStatus::Gone(event.exit_report.clone())),
            is_watched: false,
            beat,
            silent_for: Duration::ZERO,
        };
        Ok(match self.actions.act(&record, diagnose(&observation, Timeouts::default())).await? {
            ActOutcome::Ended => EventStep::Over(EventOutcome::Ended),
            ActOutcome::Salvage => EventStep::Over(EventOutcome::Salvage),
            ActOutcome::Again | ActOutcome::Enqueued => EventStep::Over(EventOutcome::Again),
            ActOutcome::Delivering => EventStep::Over(EventOutcome::Delivering),
            ActOutcome::Nothing | ActOutcome::Reminded => EventStep::Wait("a runner that is alive"),
            ActOutcome::Conflict => EventStep::Wait("the process that changed the record"),
        })
    }

    /// The egress is over: delivers its final state, unless a live process does.
    async fn last_report(&self, record: Record, beating: bool) -> Result<EventStep, BusError> {
        let records = &self.actions.records;
        if !records.registry.is_live(&record.egress_id).await? {
            return Ok(EventStep::Over(EventOutcome::WasOver));
        }
        if beating {
            return Ok(EventStep::Wait("its runner, which reports its end"));
        }
        let record = match records.is_owner_silent(&record).await? {
            false if records.owns(&record) => record,
            false => return Ok(EventStep::Wait("the dispatcher that reports its end")),
            true => match records.adopt(&record).await? {
                Some(record) => record,
                None => return Ok(EventStep::Wait(TAKEN_OVER)),
            },
        };
        self.actions.finisher.deliver(&record);
        Ok(EventStep::Over(EventOutcome::Delivering))
    }

    /// The record has another attempt; the dispatcher that made it may have died before the launch.
    async fn next_launch(&self, record: Record) -> Result<EventStep, BusError> {
        let records = &self.actions.records;
        if !record.state.is_starting() || record.task().is_some() {
            return Ok(EventStep::Over(EventOutcome::InOtherHands("the task after it")));
        }
        if !records.is_owner_silent(&record).await? {
            return Ok(EventStep::Wait("the dispatcher that launches the next task"));
        }
        let Some(record) = records.adopt(&record).await? else { return Ok(EventStep::Wait(TAKEN_OVER)) };
        self.actions.launcher.enqueue(&record);
        Ok(EventStep::Over(if record.is_salvage() { EventOutcome::Salvage } else { EventOutcome::Again }))
    }

    /// The record, if the event's task is its task. Where the record names none, the answer of the launch call was lost
    /// with its dispatcher, and the event names the task.
    async fn at(&self, event: &TaskExitEvent, record: Record) -> Result<Option<Record>, BusError> {
        if let Some(task) = record.task() {
            let is_same = task.id == event.task;
            return Ok(is_same.then_some(record));
        }
        let launcher = &self.actions.launcher;
        match launcher.targets.of(&record) {
            Some(target) if record.phase() != Phase::Accepted => {
                let task = TaskRef { launcher: target.launcher.name().to_owned(), id: event.task.clone() };
                launcher.note_task(&record.egress_id, record.attempt, &task).await?;
                self.actions.records.registry.get(&record.egress_id).await
            }
            _ => Ok(None),
        }
    }
}
