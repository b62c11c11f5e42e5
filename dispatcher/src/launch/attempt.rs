//! One launch in progress, and every way it ends without a task: back into the queue, at another target, with a new
//! ticket, or as a failed egress. Runs in the launch's own task.

use std::sync::Arc;
use std::time::Duration;

use spillway_bus::lifecycle::{EndCondition, RESUME_WAIT_MS};
use spillway_bus::{BusError, ClaimToken, Record, TaskKey, Ticket};
use spillway_launchers::{LaunchError, RunMode};
use spillway_process::chain;
use spillway_protocol::code::Code;
use spillway_protocol::ledger::Outcome;
use tokio::time::Instant;
use tracing::{debug, error, warn};

use super::task_launcher::TaskLauncher;
use crate::config::settings::SALVAGE_TIMEOUT;
use crate::queue::{NO_ROOM_PAUSE, PauseScope, QueuedLaunch};
use crate::room_token;
use crate::targets::{LaunchOutcome, Target};

/// Before the next call after an error that may pass.
const TRANSIENT_PAUSE: Duration = Duration::from_secs(1);
/// Before the next call after an error that only an operator can mend.
const IMPOSSIBLE_PAUSE: Duration = Duration::from_secs(10);

/// A launch that was taken from the queue.
pub(super) struct Launch {
    /// Of the dispatcher.
    pub launcher: Arc<TaskLauncher>,
    /// Its position, for a requeue.
    pub sequence: u64,
    /// With the attempt and target of the latest launch call.
    pub queued: QueuedLaunch,
}

/// What the record said when the launch was to begin.
pub(super) enum BeginOutcome {
    /// `asked_before`: the record has an earlier request for this attempt whose outcome is not known; an answer now is
    /// about this call alone, and a task may exist all the same.
    Launching { asked_before: bool },
    /// The egress was stopped, ended or taken over: nothing is to be launched.
    NotWanted,
    /// The ticket was taken, and there is no spare one.
    NoTicket,
}

/// The metric's name of a refusal.
pub(super) fn label(error: &LaunchError) -> &'static str {
    match error {
        LaunchError::Capacity { .. } | LaunchError::ZoneCapacity { .. } => "no_capacity",
        LaunchError::Quota { .. } => "quota",
        LaunchError::Throttled { .. } => "throttled",
        LaunchError::Misconfigured { .. } => "misconfigured",
        LaunchError::Transient { .. } => "unknown",
    }
}

/// Ends an egress whose launch waited until its deadline.
pub(super) async fn give_up(launcher: &TaskLauncher, queued: &QueuedLaunch) {
    let waited = match queued.run_mode {
        RunMode::Record | RunMode::Probe => launcher.instance.config().queue_deadline.as_secs(),
        RunMode::Resume => RESUME_WAIT_MS.unsigned_abs() / 1000,
        RunMode::Salvage => SALVAGE_TIMEOUT.as_secs(),
    };
    let message = match queued.message.as_str() {
        "" => format!("no slot became free within {waited} s"),
        why => format!("not started within {waited} s: {why}"),
    };
    launcher.finisher.withdraw_tickets(&queued.egress_id, &[&queued.dispatch.claim]).await;
    launcher.instance.metrics.count("spillway_given_up_total", &[], 1.0);
    end_as_failed(launcher, queued, Code::ResourceExhausted, message).await;
}

/// Unless a runner has started after all, or another dispatcher has changed the record. What a recording that cannot go on
/// has so far is saved before it ends.
async fn end_as_failed(launcher: &TaskLauncher, queued: &QueuedLaunch, code: Code, message: String) {
    if queued.run_mode == RunMode::Resume {
        match salvage_instead(launcher, queued, &message).await {
            Ok(true) => return,
            Ok(false) => {}
            Err(error) => return warn!(error = %chain(&error), "its uploads are not completed yet"),
        }
    }
    let outcome = |message| Outcome::Failed { code, message };
    let when = EndCondition::NotStarted(queued.attempt);
    if let Err(error) = launcher.finisher.end(&queued.egress_id, message, outcome, when).await {
        // The next sweep finds the record and diagnoses it.
        warn!(error = %chain(&error), "egress not ended");
    }
}

/// False: there is nothing to save, or the record is another one by now.
async fn salvage_instead(launcher: &TaskLauncher, queued: &QueuedLaunch, message: &str) -> Result<bool, BusError> {
    match launcher.records.registry.get(&queued.egress_id).await? {
        Some(record) if record.attempt == queued.attempt && record.is_resuming() => {
            launcher.salvage(&record, message).await
        }
        _ => Ok(false),
    }
}

impl Launch {
    /// Back into the queue.
    pub fn again_after(self, pause: Duration, scope: PauseScope, message: String) {
        let Self { launcher, sequence, queued } = self;
        launcher.queue.lock().requeue(sequence, QueuedLaunch { message, ..queued }, Instant::now() + pause, scope);
        launcher.queue.notify();
    }

    /// Back into the queue, because Redis does not answer.
    pub fn again_with_redis(self, error: &BusError, what: &str) {
        warn!(error = %chain(error), what, "registry not reached, launch put off");
        self.again_after(TRANSIENT_PAUSE, PauseScope::Launch, "the registry is not reachable".to_owned());
    }

    /// The egress was stopped, ended or taken over before its launch was requested.
    pub async fn not_wanted(self, target: &Target) {
        let attempt = self.queued.next_attempt(target.name());
        self.drop_task(attempt, |record| {
            // This number may have had a task, which has to be billed.
            let unused = !record.state.may_have_task();
            record.attempt < attempt || (record.attempt == attempt && unused)
        })
        .await;
        self.launcher.queue.lock().launch_ended(&self.queued.egress_id);
        self.launcher.queue.leave(&self.queued.egress_id);
    }

    /// The launcher's answer was no, or there was none.
    pub async fn refused(mut self, target: &Target, error: LaunchError, asked_before: bool) {
        match error {
            LaunchError::Throttled { message, retry_after } => {
                debug!(reason = message, ?retry_after, "launch call throttled");
                let pause = retry_after.unwrap_or(NO_ROOM_PAUSE);
                if !asked_before {
                    self.not_launched().await;
                }
                match target.pace {
                    // A single throttled call among many that went well is chance.
                    Some(_) if !target.throttled() => self.again_after(pause, PauseScope::Launch, message),
                    Some(pace) => {
                        let _ = self.launcher.tasks.slow_down(target.name(), pace, pause).await;
                        self.again_after(pause, PauseScope::Launch, message);
                    }
                    None => self.again_after(pause, PauseScope::All, message),
                }
            }
            // From here on nothing was launched: a launcher that had a task of this attempt would have returned it.
            LaunchError::ZoneCapacity { message } => {
                debug!(reason = message, target = target.name(), "no capacity in one zone");
                self.not_launched().await;
                self.queued.fresh = true;
                self.again_after(Duration::ZERO, PauseScope::Launch, message);
            }
            LaunchError::Capacity { message } | LaunchError::Quota { message } => {
                debug!(reason = message, target = target.name(), "no capacity");
                target.record_outcome(LaunchOutcome::NoCapacity(message.clone()));
                self.elsewhere(target, message).await;
            }
            error @ LaunchError::Misconfigured { .. } => {
                error!(error = %chain(&error), target = target.name(), "launch impossible");
                let message = chain(&error).to_string();
                target.record_outcome(LaunchOutcome::Impossible(message.clone()));
                if self.has_another(target) {
                    self.elsewhere(target, message).await;
                } else if self.queued.is_urgent() {
                    // An operator may mend it while there is something to go on with, or to complete.
                    self.not_launched().await;
                    self.queued.fresh = true;
                    self.again_after(IMPOSSIBLE_PAUSE, PauseScope::Launch, message);
                } else {
                    self.not_launched().await;
                    self.fail(message).await;
                }
            }
            error @ LaunchError::Transient { .. } => {
                warn!(error = %chain(&error), target = target.name(), "launch failed, asking again");
                target.record_outcome(LaunchOutcome::Failed(error.to_string()));
                self.again_after(TRANSIENT_PAUSE, PauseScope::Launch, error.to_string());
            }
        }
    }

    /// To the next target with a new attempt number; where all were tried, to all of them again after a pause.
    async fn elsewhere(mut self, target: &Target, message: String) {
        self.not_launched().await;
        self.queued.fresh = true;
        self.queued.dispatch.tried.insert(target.name().to_owned());
        let pause = if self.has_another(target) { Duration::ZERO } else { NO_ROOM_PAUSE };
        self.again_after(pause, PauseScope::Launch, format!("{}: {message}", target.name()));
    }

    fn has_another(&self, target: &Target) -> bool {
        let dispatch = &self.queued.dispatch;
        self.launcher.targets.has_another(&dispatch.shapes, &dispatch.tried, target.name())
    }

    /// Ends the egress as FAILED.
    pub async fn fail(self, message: String) {
        self.launcher.queue.lock().launch_ended(&self.queued.egress_id);
        self.launcher.finisher.withdraw_tickets(&self.queued.egress_id, &[&self.queued.dispatch.claim]).await;
        end_as_failed(&self.launcher, &self.queued, Code::Internal, message).await;
    }

    /// The launch certainly did not happen: its slot is free, and no target has to be asked about it.
    pub async fn not_launched(&mut self) {
        self.queued.asked = false;
        let launcher = Arc::clone(&self.launcher);
        self.drop_task(self.queued.attempt, |record| launcher.records.owns(record)).await;
    }

    /// Closes the slot without a bill, where `is_ours` holds for the record; a slot that stays open is closed by
    /// billing.
    pub async fn drop_task(&self, attempt: u32, is_ours: impl Fn(&Record) -> bool) {
        let (launcher, id) = (&self.launcher, &self.queued.egress_id);
        match launcher.records.registry.get(id).await {
            Ok(Some(record)) if !is_ours(&record) => return,
            Ok(_) => {}
            Err(error) => return debug!(error = %chain(&error), "slot not dropped, it may be another dispatcher's"),
        }
        let key = TaskKey { egress_id: id.clone(), attempt };
        if let Err(error) = launcher.tasks.drop(&key).await {
            debug!(error = %chain(&error), "slot not dropped; the next billing round closes it");
        }
    }

    /// A ticket for a new attempt: a copy of the current one, or of the spare one where the current was taken by a task
    /// that died. The inner error: why there is none.
    ///
    /// # Errors
    /// When Redis does not answer; a retry is right.
    pub async fn ticket_for(
        &self,
        attempt: u32,
        current: &ClaimToken,
    ) -> Result<Result<ClaimToken, BeginOutcome>, BusError> {
        let (launcher, id) = (&self.launcher, &self.queued.egress_id);
        let ttl = launcher.instance.config().ticket_ttl(self.queued.run_mode);
        if let Some(copy) = launcher.tickets.copy(id, current, attempt, ttl).await? {
            return Ok(Ok(copy));
        }
        let Some(record) = launcher.records.registry.get(id).await? else { return Ok(Err(BeginOutcome::NotWanted)) };
        let is_same = record.attempt == self.queued.attempt && record.dispatch.claim == self.queued.dispatch.claim;
        if !launcher.records.owns(&record) || !record.state.is_starting() || !is_same {
            return Ok(Err(BeginOutcome::NotWanted));
        }
        let copy = match record.spare.as_str() {
            "" => None,
            spare => {
                let (spare, config) = (ClaimToken::from_text(spare), launcher.instance.config());
                let goes_on = self.queued.run_mode == RunMode::Resume;
                let renew = |ticket: &mut Ticket| {
                    if goes_on {
                        room_token::renew(ticket, &config);
                    }
                };
                launcher.tickets.copy_changed(id, &spare, attempt, ttl, renew).await?
            }
        };
        Ok(copy.ok_or(BeginOutcome::NoTicket))
    }
}
