//! Diagnosis → action: the same for a sweep, for an exit event of a platform, and in the Lambda function. Changes
//! records by events of their lifecycle, enqueues launches, ends tasks.

use std::sync::Arc;

use spillway_bus::lifecycle::{self, EndCondition, LaunchEvent, SeenLaunch};
use spillway_bus::{BusError, Phase, Record, Tickets, Updated};
use spillway_launchers::StopMode;
use spillway_protocol::code::Code;
use spillway_protocol::ledger::Outcome;
use tracing::{Instrument, debug, info};

use super::diagnosis::Diagnosis;
use crate::final_state::Finisher;
use crate::instance::Instance;
use crate::intake::Intake;
use crate::launch::TaskLauncher;
use crate::records::Records;

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
    /// Another task is launched in place of this one, or goes on with what it has recorded.
    Again,
    /// Another task completes its uploads.
    Salvage,
    Ended,
    /// The record has changed meanwhile and needs another diagnosis.
    Conflict,
}

/// Carries diagnoses out. Clones act for the same dispatcher.
#[derive(Clone)]
pub struct Actions {
    /// Its tasks are those of this dispatcher.
    pub instance: Arc<Instance>,
    /// What is changed.
    pub records: Records,
    /// Spare ones are renewed.
    pub tickets: Tickets,
    /// Where launches go, and what knows the targets.
    pub launcher: Arc<TaskLauncher>,
    /// Ends egresses.
    pub finisher: Arc<Finisher>,
    /// Announces egresses whose dispatcher died before it did.
    pub intake: Arc<Intake>,
}

impl Actions {
    /// Carries a diagnosis out.
    ///
    /// # Errors
    /// When Redis does not answer; the next sweep is the retry. When the record cannot be read; it is left alone.
    pub(super) async fn act(&self, record: &Record, diagnosis: Diagnosis) -> Result<ActOutcome, BusError> {
        Ok(match diagnosis {
            Diagnosis::Leave => ActOutcome::Nothing,
            // The caller may have had no answer: livekit-server is told before the launch.
            Diagnosis::Launch if record.phase() == Phase::Accepted => {
                self.intake.resume(record.clone());
                ActOutcome::Enqueued
            }
            Diagnosis::Launch => {
                self.launcher.enqueue(record);
                ActOutcome::Enqueued
            }
            Diagnosis::Deliver => {
                self.finisher.deliver(record);
                ActOutcome::Delivering
            }
            Diagnosis::Remind => {
                info!("stopped through Redis and still recording; the platform is asked to end its task");
                self.end_task(record, StopMode::Graceful);
                ActOutcome::Reminded
            }
            Diagnosis::Again(message) => {
                if !self.launch_again(record, &message).await? {
                    return Ok(ActOutcome::Conflict);
                }
                self.end_task(record, StopMode::Immediate);
                ActOutcome::Again
            }
            Diagnosis::Died { message, aborted } => match self.go_on(record, &message).await? {
                Some(outcome) => outcome,
                None => self.finish(record, message, aborted).await?,
            },
            Diagnosis::Ask(message) if self.finisher.as_livekit_knows_it(record).await? => {
                debug!(message, "livekit-server knew its end");
                ActOutcome::Ended
            }
            Diagnosis::Ask(message) => self.finish(record, message, false).await?,
            Diagnosis::End { message, aborted } => self.finish(record, message, aborted).await?,
        })
    }

    /// By a salvage run if there are uploads to complete, else at once.
    async fn finish(&self, record: &Record, message: String, aborted: bool) -> Result<ActOutcome, BusError> {
        let outcome = |message| {
            if aborted { Outcome::Aborted { message } } else { Outcome::Failed { code: Code::Internal, message } }
        };
        let when = EndCondition::Stands(SeenLaunch::of(record));
        let done = if self.launcher.salvage(record, &message).await? {
            ActOutcome::Salvage
        } else if self.finisher.end(&record.egress_id, message, outcome, when).await? {
            ActOutcome::Ended
        } else {
            return Ok(ActOutcome::Conflict);
        };
        let reason = if aborted { "reclaimed" } else { "died" };
        self.instance.metrics.count("spillway_failures_total", &[("reason", reason)], 1.0);
        self.end_task(record, StopMode::Immediate);
        Ok(done)
    }

    /// Another task goes on with the recording, as another attempt: the number fences what the dead one may still have
    /// written. `None`: this recording is not to go on.
    async fn go_on(&self, seen: &Record, message: &str) -> Result<Option<ActOutcome>, BusError> {
        if !lifecycle::can_be_resumed(seen) {
            return Ok(None);
        }
        let interrupted = LaunchEvent::TaskInterrupted {
            by: self.records.by(),
            attempt: seen.attempt,
            why: message.to_owned(),
            at_ms: self.instance.clock.unix_ms(),
        };
        let Updated::Written(record) = self.records.apply(&seen.egress_id, &interrupted).await? else {
            return Ok(Some(ActOutcome::Conflict));
        };
        info!(reason = message, attempt = record.attempt, "recording task lost; another one goes on");
        self.instance.metrics.count("spillway_resumptions_total", &[], 1.0);
        self.launcher.enqueue_anew(&record);
        Ok(Some(ActOutcome::Again))
    }

    /// In the background: a slow platform must not delay the sweep.
    fn end_task(&self, record: &Record, how: StopMode) {
        let (targets, record) = (Arc::clone(&self.launcher.targets), record.clone());
        self.instance.spawn(async move { targets.end(&record, how).await }.in_current_span());
    }

    /// A target other than the one it was launched at could be asked now.
    pub(super) fn has_another(&self, record: &Record) -> bool {
        let dispatch = &record.dispatch;
        self.launcher.targets.has_another(&dispatch.shapes, &dispatch.tried, &dispatch.target)
    }

    /// A task that never recorded anything is replaced: back into the queue as a new attempt, at another target if there
    /// is one. The next launch withdraws the ticket of the previous one; a runner that comes late finds that the record
    /// has moved on. False: the record has changed since it was `seen`.
    async fn launch_again(&self, seen: &Record, message: &str) -> Result<bool, BusError> {
        let again = LaunchEvent::StartLost {
            attempt: seen.attempt,
            task: seen.task().cloned(),
            by: self.records.by(),
            deadline_ms: self.instance.deadline_ms(),
        };
        let Updated::Written(record) = self.records.apply(&seen.egress_id, &again).await? else { return Ok(false) };
        info!(reason = message, attempt = record.attempt, "its task never recorded; another is launched");
        self.instance.metrics.count("spillway_relaunches_total", &[], 1.0);
        self.launcher.enqueue_anew(&record);
        Ok(true)
    }
}
