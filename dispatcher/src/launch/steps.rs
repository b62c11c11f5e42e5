//! One launch: a place, the record, the launcher, and what its answer leads to.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use spillway_bus::{BusError, ClaimToken, Decision, Phase, Record, TaskKey, Updated};
use spillway_cost::Shape;
use spillway_launchers::{LaunchError, LaunchOrder, RunMode, StopMode, TaskRef};
use spillway_process::chain;
use spillway_protocol::code::Code;
use spillway_protocol::ids::EgressId;
use tokio::time::Instant;
use tracing::{debug, error, info, warn};

use super::placement::{self, Placement};
use super::{salvage_ticket_ttl, ticket_ttl, withdraw};
use crate::context::{Context, Dispatch, task_of};
use crate::queue::{NO_ROOM_PAUSE, PauseScope, QueuedLaunch};
use crate::targets::Target;
use crate::targets::breaker::LaunchOutcome;

/// A launcher's API that does not answer at all; the order may have been taken all the same, so it is asked again.
const LAUNCH_TIMEOUT: Duration = Duration::from_secs(30);
/// What the launcher said may pass: how long until it is asked again.
const TRANSIENT_PAUSE: Duration = Duration::from_secs(1);

/// What only a person can put right.
const IMPOSSIBLE_PAUSE: Duration = Duration::from_secs(10);

pub(super) struct Launch {
    pub context: Arc<Context>,
    pub sequence: u64,
    pub queued: QueuedLaunch,
}

enum BeginOutcome {
    /// `asked_before`: the platform may have a task of this attempt already, as the record has it; what it answers now is
    /// then only about this call.
    Launching {
        asked_before: bool,
    },
    /// Nothing is to be launched.
    NotWanted,
    NoTicket,
}

impl Launch {
    pub async fn run(mut self) {
        match placement::find(&self.context, &mut self.queued).await {
            Ok(Placement::At { target, wait, slowed }) => {
                tokio::time::sleep(wait).await;
                self.at(target, slowed).await;
            }
            Ok(Placement::None { pause, scope, message }) => self.again_after(pause, scope, message),
            Ok(Placement::Lost(name)) => {
                self.give_up(format!("its launch was asked of {name}, which is no longer configured")).await;
            }
            Err(error) => {
                warn!(error = %chain(&error), "registry not reached, launch put off");
                self.again_after(TRANSIENT_PAUSE, PauseScope::Launch, "the registry is not reachable".to_owned());
            }
        }
    }

    async fn at(mut self, target: Arc<Target>, slowed: bool) {
        match self.begin(&target).await {
            // Another dispatcher that took our place for its own may have closed it before the record said whose it is.
            Ok(BeginOutcome::Launching { asked_before }) => {
                match placement::keep_open(&self.context, &self.queued, &target).await {
                    Ok(()) => self.ask(&target, slowed, asked_before).await,
                    Err(error) => {
                        warn!(error = %chain(&error), "task not noted as open, launch put off");
                        self.again_after(
                            TRANSIENT_PAUSE,
                            PauseScope::Launch,
                            "the registry is not reachable".to_owned(),
                        );
                    }
                }
            }
            Ok(BeginOutcome::NoTicket) => {
                self.not_launched().await;
                self.fail("its ticket was taken by a task that never recorded".to_owned()).await;
            }
            Ok(BeginOutcome::NotWanted) => {
                // Stopped, settled or taken over meanwhile.
                self.drop_task(placement::attempt(&self.queued, &target), |record, attempt| {
                    let dispatch = Dispatch::of(record);
                    // Where the next is to be a fresh one, this number may have had a task, which somebody bills.
                    let unused = !dispatch.asked && !dispatch.fresh;
                    record.attempt < attempt || (record.attempt == attempt && unused)
                })
                .await;
                self.context.queue().launch_ended(&self.queued.egress_id);
                self.context.leave_queue(&self.queued.egress_id);
            }
            Err(error) => {
                warn!(error = %chain(&error), "registry not reached, launch put off");
                self.again_after(TRANSIENT_PAUSE, PauseScope::Launch, "the registry is not reachable".to_owned());
            }
        }
    }

    /// The record says Launching, where, and with which attempt, before anything can be running.
    async fn begin(&mut self, target: &Target) -> Result<BeginOutcome, BusError> {
        let (context, id) = (&self.context, &self.queued.egress_id);
        let (now_ms, before) = (context.clock.unix_ms(), self.queued.attempt);
        let attempt = placement::attempt(&self.queued, target);
        let fresh = placement::is_fresh(&self.queued, target);
        let old_claim = ClaimToken::from_text(&self.queued.dispatch.claim);
        let mut claim = self.queued.dispatch.claim.clone();
        if fresh {
            let ttl = match self.queued.run_mode {
                RunMode::Record => ticket_ttl(&context.config()),
                RunMode::Salvage => salvage_ticket_ttl(&context.config()),
            };
            // The one before stays until the record says that nobody may use it: whoever dies in between leaves two
            // tickets, of which the record knows one.
            match context.tickets.copy(id, &old_claim, attempt, ttl).await? {
                Some(copy) => claim = copy.reveal().to_owned(),
                None => match self.spare(attempt, ttl).await? {
                    Ok(copy) => claim = copy.reveal().to_owned(),
                    Err(why) => return Ok(why),
                },
            }
        }
        let mut asked_before = false;
        let Dispatch { tried, asked: may_run, launched_ms: last_ms, .. } = &self.queued.dispatch;
        let updated = context
            .registry
            .update(id, |record| {
                let starting = matches!(record.phase, Phase::Accepted | Phase::Launching);
                if !context.owns(record) || !starting || record.attempt != before {
                    return Decision::Leave;
                }
                let mut dispatch = Dispatch::of(record);
                // Our view was old: its launch has been asked for, and answered.
                let launched = dispatch.asked && !dispatch.fresh && record.task.is_some();
                if launched && record.phase == Phase::Launching && !fresh {
                    return Decision::Leave;
                }
                // It was us who asked last, and the answer was no.
                let refused = !may_run && *last_ms > 0 && *last_ms == dispatch.launched_ms;
                asked_before = dispatch.asked && !fresh && !refused;
                record.phase = Phase::Launching;
                record.attempt = attempt;
                if let (true, Some(task)) = (fresh, task_of(record)) {
                    dispatch.earlier.insert(before, task);
                    record.task = None;
                }
                dispatch.launched_ms = now_ms;
                dispatch.claim.clone_from(&claim);
                dispatch.tried.clone_from(tried);
                target.name().clone_into(&mut dispatch.target);
                dispatch.asked = true;
                dispatch.fresh = false;
                dispatch.write(record);
                Decision::Write
            })
            .await?;
        let Updated::Written(record) = updated else {
            if fresh {
                context.tickets.withdraw(id, &ClaimToken::from_text(&claim)).await?;
            }
            return Ok(BeginOutcome::NotWanted);
        };
        if fresh && let Err(error) = context.tickets.withdraw(id, &old_claim).await {
            debug!(error = %chain(&error), "ticket of the attempt before not withdrawn; the record has no use for it");
        }
        self.queued.attempt = attempt;
        self.queued.dispatch = Dispatch::of(&record);
        Ok(BeginOutcome::Launching { asked_before })
    }

    /// Somebody has the ticket, and nothing else is known of him: a second start of the same task, which died. Where
    /// there is a spare one, it serves.
    async fn spare(&self, attempt: u32, ttl: Duration) -> Result<Result<ClaimToken, BeginOutcome>, BusError> {
        let (context, id) = (&self.context, &self.queued.egress_id);
        let Some(record) = context.registry.get(id).await? else { return Ok(Err(BeginOutcome::NotWanted)) };
        let starting = matches!(record.phase, Phase::Accepted | Phase::Launching);
        let is_same =
            record.attempt == self.queued.attempt && Dispatch::of(&record).claim == self.queued.dispatch.claim;
        if !context.owns(&record) || !starting || !is_same {
            return Ok(Err(BeginOutcome::NotWanted));
        }
        let copy = match record.spare.as_str() {
            "" => None,
            spare => context.tickets.copy(id, &ClaimToken::from_text(spare), attempt, ttl).await?,
        };
        Ok(copy.ok_or(BeginOutcome::NoTicket))
    }

    async fn ask(mut self, target: &Arc<Target>, slowed: bool, asked_before: bool) {
        let order = self.order(target);
        observe_wait(&self.context, &self.queued);
        target.launch_requested();
        let answer = tokio::time::timeout(LAUNCH_TIMEOUT, target.launcher.launch(&order)).await;
        let answer = answer.unwrap_or_else(|_| {
            Err(LaunchError::Transient { message: "the launcher does not answer".to_owned(), source: None })
        });
        let outcome = match &answer {
            Ok(_) => "launched",
            Err(LaunchError::Capacity { .. } | LaunchError::ZoneCapacity { .. }) => "no_capacity",
            Err(LaunchError::Quota { .. }) => "quota",
            Err(LaunchError::Throttled { .. }) => "throttled",
            Err(LaunchError::Misconfigured { .. }) => "misconfigured",
            Err(LaunchError::Transient { .. }) => "unknown",
        };
        self.context.metrics.count("spillway_launches_total", &[("target", target.name()), ("outcome", outcome)], 1.0);
        match answer {
            Ok(task) => {
                target.record_outcome(LaunchOutcome::Launched);
                if let (true, Some(pace)) = (slowed, target.pace) {
                    let _ = self.context.tasks.speed_up(target.name(), pace).await;
                }
                self.launched(target, task).await;
            }
            Err(LaunchError::Throttled { message, retry_after }) => {
                debug!(reason = message, ?retry_after, "launcher asks for patience");
                let pause = retry_after.unwrap_or(NO_ROOM_PAUSE);
                if !asked_before {
                    self.not_launched().await;
                }
                match target.pace {
                    // A single complaint among many launches that went well is chance.
                    Some(_) if !target.throttled() => self.again_after(pause, PauseScope::Launch, message),
                    Some(pace) => {
                        let _ = self.context.tasks.slow_down(target.name(), pace, pause).await;
                        self.again_after(pause, PauseScope::Launch, message);
                    }
                    None => self.again_after(pause, PauseScope::All, message),
                }
            }
            // From here on nothing was launched: a launcher that had a task of this attempt would have answered it.
            Err(LaunchError::ZoneCapacity { message }) => {
                debug!(reason = message, target = target.name(), "launcher has no room at one place");
                self.not_launched().await;
                self.queued.dispatch.fresh = true;
                self.again_after(Duration::ZERO, PauseScope::Launch, message);
            }
            Err(LaunchError::Capacity { message } | LaunchError::Quota { message }) => {
                debug!(reason = message, target = target.name(), "launcher has no room");
                target.record_outcome(LaunchOutcome::NoCapacity(message.clone()));
                self.elsewhere(target, message).await;
            }
            Err(error @ LaunchError::Misconfigured { .. }) => {
                error!(error = %chain(&error), target = target.name(), "launch impossible");
                let message = chain(&error).to_string();
                target.record_outcome(LaunchOutcome::Impossible(message.clone()));
                if self.has_another(target) {
                    self.elsewhere(target, message).await;
                } else if self.queued.run_mode == RunMode::Salvage {
                    // Somebody may put it right while what is recorded can still be saved.
                    self.not_launched().await;
                    self.queued.dispatch.fresh = true;
                    self.again_after(IMPOSSIBLE_PAUSE, PauseScope::Launch, message);
                } else {
                    self.not_launched().await;
                    self.fail(message).await;
                }
            }
            Err(error @ LaunchError::Transient { .. }) => {
                warn!(error = %chain(&error), target = target.name(), "launch failed, asking again");
                target.record_outcome(LaunchOutcome::Failed(error.to_string()));
                self.again_after(TRANSIENT_PAUSE, PauseScope::Launch, error.to_string());
            }
        }
    }

    /// The launch surely did not happen: its place is free, and nobody need be asked about it.
    async fn not_launched(&mut self) {
        self.queued.dispatch.asked = false;
        let context = Arc::clone(&self.context);
        self.drop_task(self.queued.attempt, |record, _| context.owns(record)).await;
    }

    /// Where that is sure; kept open for nothing, a task is closed by the accounts.
    async fn drop_task(&self, attempt: u32, is_ours: impl Fn(&Record, u32) -> bool) {
        let (context, id) = (&self.context, &self.queued.egress_id);
        match context.registry.get(id).await {
            Ok(Some(record)) if !is_ours(&record, attempt) => return,
            Ok(_) => {}
            Err(error) => return debug!(error = %chain(&error), "task that never was not dropped, it may be another's"),
        }
        let key = TaskKey { egress_id: id.clone(), attempt };
        if let Err(error) = context.tasks.drop(&key).await {
            debug!(error = %chain(&error), "task that never was not dropped; the next look at all tasks does");
        }
    }

    /// With a new attempt number, for the next target or, where all were tried, after a while for all of them again.
    async fn elsewhere(mut self, target: &Target, message: String) {
        self.not_launched().await;
        self.queued.dispatch.fresh = true;
        self.queued.dispatch.tried.insert(target.name().to_owned());
        let pause = if self.has_another(target) { Duration::ZERO } else { NO_ROOM_PAUSE };
        self.again_after(pause, PauseScope::Launch, format!("{}: {message}", target.name()));
    }

    fn has_another(&self, target: &Target) -> bool {
        let Dispatch { shapes, tried, .. } = &self.queued.dispatch;
        self.context.targets.has_another(shapes, tried, target.name())
    }

    fn order(&self, target: &Target) -> LaunchOrder {
        let QueuedLaunch { egress_id, attempt, run_mode, weight, dispatch, .. } = &self.queued;
        let labels = [
            ("egress_id", egress_id.to_string()),
            ("room", dispatch.room.clone()),
            ("type", dispatch.kind.clone()),
            ("tenant", dispatch.tenant.clone()),
            ("stack", self.context.config().stack.clone()),
            ("attempt", attempt.to_string()),
        ];
        let labels: BTreeMap<String, String> = labels
            .into_iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(key, value)| (key.to_owned(), value))
            .collect();
        // A record of an older version names no machine; only one's own machines were used then.
        let ours = Shape { cpu_milli: (weight * 1000.0).ceil() as u32, memory_mib: 0, disk_gib: 0 };
        LaunchOrder {
            egress_id: egress_id.clone(),
            attempt: *attempt,
            run_mode: *run_mode,
            installation: self.context.installation(),
            claim: dispatch.claim.clone(),
            handover: self.context.handover.clone(),
            labels,
            shape: dispatch.shapes.get(target.name()).copied().unwrap_or(ours),
            max_duration: dispatch.max_duration_s.map(Duration::from_secs),
        }
    }

    async fn launched(self, target: &Target, task: TaskRef) {
        self.context.queue().launch_ended(&self.queued.egress_id);
        self.context.queue_changed.notify_one();
        info!(%task, target = target.name(), attempt = self.queued.attempt, "launched");
        let (context, id) = (&self.context, &self.queued.egress_id);
        match note_task(context, id, self.queued.attempt, &task).await {
            Ok(true) => {}
            Ok(false) => {
                debug!(%task, "over before its task was noted");
                // A runner that beats ended it itself and is about to leave.
                if !matches!(context.heartbeats.last(id).await, Ok(Some(_))) {
                    target.launcher.end(&task, StopMode::Immediate).await;
                }
                context.leave_queue(id);
            }
            // The sweep asks the launcher again, which knows the task by egress id and attempt.
            Err(error) => warn!(error = %chain(&error), "task not noted in the registry"),
        }
    }

    async fn give_up(self, message: String) {
        self.fail(message).await;
    }

    async fn fail(self, message: String) {
        self.context.queue().launch_ended(&self.queued.egress_id);
        withdraw(&self.context, &self.queued).await;
        super::fail(&self.context, &self.queued, Code::Internal, message).await;
    }

    fn again_after(self, pause: Duration, scope: PauseScope, message: String) {
        let Self { context, sequence, queued } = self;
        context.queue().requeue(sequence, QueuedLaunch { message, ..queued }, Instant::now() + pause, scope);
        context.queue_changed.notify_one();
    }
}

fn observe_wait(context: &Context, queued: &QueuedLaunch) {
    context.metrics.observe("spillway_queue_wait_seconds", &[], queued.enqueued_at.elapsed().as_secs_f64());
}

/// False when the egress is over already and nobody wants the task.
pub(crate) async fn note_task(
    context: &Context,
    id: &EgressId,
    attempt: u32,
    task: &TaskRef,
) -> Result<bool, BusError> {
    let text = serde_json::to_string(task).ok();
    let updated = context
        .registry
        .update(id, |record| {
            if record.attempt != attempt || record.phase == Phase::Over || task_of(record).as_ref() == Some(task) {
                return Decision::Leave;
            }
            record.task.clone_from(&text);
            Decision::Write
        })
        .await?;
    Ok(match updated {
        Updated::Written(_) => true,
        Updated::Left(record) => record.attempt == attempt && record.phase != Phase::Over,
        Updated::Missing => false,
    })
}
