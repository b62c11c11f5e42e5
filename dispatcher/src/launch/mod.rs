//! From the queue to a started task: takes the next launch, opens a slot at a target, writes `Launching` into the
//! record, calls the launcher, notes the task. The path of each launch is in this file; `attempt` has the ways a launch
//! ends without a task, `task_launcher` the actor's state. Never decides whether an egress is accepted, nor what a dead
//! task means.

mod attempt;
mod task_launcher;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use spillway_bus::lifecycle::{LaunchCall, LaunchEvent};
use spillway_bus::{
    BusError, CapReached, Caps, ClaimToken, LaunchState, OpenTask, Pace, SlotResult, TaskFacts, TaskKey, Updated,
};
use spillway_cost::{Shape, estimate};
use spillway_launchers::{LaunchError, LaunchOrder, RunMode, StopMode, TaskLinks, TaskRef};
use spillway_process::chain;
use spillway_protocol::ids::EgressId;
use tokio::time::Instant;
use tracing::{Instrument, debug, info, info_span, warn};

use self::attempt::{BeginOutcome, Launch};
pub use self::task_launcher::TaskLauncher;
use crate::queue::{NO_ROOM_PAUSE, PauseScope, QueueStep, QueuedLaunch};
use crate::targets::{LaunchOutcome, Target};
use crate::task_facts::task_facts;

/// For a launch call that is not answered. The platform may have taken the order all the same, so it is asked again.
const LAUNCH_TIMEOUT: Duration = Duration::from_secs(30);

/// The launch loop. Returns when the dispatcher stops.
pub async fn run(launcher: Arc<TaskLauncher>) {
    loop {
        let step = launcher.queue.lock().next(Instant::now());
        match step {
            QueueStep::Launch(sequence, queued) => {
                let span = info_span!("egress", egress_id = %queued.egress_id);
                let launch = Launch { launcher: Arc::clone(&launcher), sequence, queued: *queued };
                launcher.instance.spawn(launch.run().instrument(span));
            }
            QueueStep::GiveUp(queued) => {
                let shared = Arc::clone(&launcher);
                launcher.instance.spawn(async move { attempt::give_up(&shared, &queued).await });
            }
            QueueStep::Wait(until) => {
                let rest = async {
                    match until {
                        Some(until) => tokio::time::sleep_until(until).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    () = rest => {}
                    () = launcher.queue.changed() => {}
                    () = launcher.instance.shutdown.triggered() => return,
                }
            }
        }
    }
}

impl Launch {
    /// Opens a slot, waits for the target's pace, and goes on with [`Launch::at`].
    async fn run(mut self) {
        match find_slot(&self.launcher, &mut self.queued).await {
            Ok(Placement::At { target, wait, slowed }) => {
                tokio::time::sleep(wait).await;
                self.at(target, slowed).await;
            }
            Ok(Placement::None { pause, scope, message }) => self.again_after(pause, scope, message),
            Ok(Placement::Lost(name)) => {
                self.fail(format!("its launch was asked of {name}, which is no longer configured")).await;
            }
            Err(error) => self.again_with_redis(&error, "slot not opened"),
        }
    }

    async fn at(mut self, target: Arc<Target>, slowed: bool) {
        match self.begin(&target).await {
            Ok(BeginOutcome::Launching { asked_before }) => {
                // Another dispatcher that took us for dead may have closed the slot before the record named its target.
                match keep_open(&self.launcher, &self.queued, &target).await {
                    Ok(()) => self.ask(&target, slowed, asked_before).await,
                    Err(error) => self.again_with_redis(&error, "task not noted as open"),
                }
            }
            Ok(BeginOutcome::NoTicket) => {
                self.not_launched().await;
                self.fail("its ticket was taken by a task that never recorded".to_owned()).await;
            }
            Ok(BeginOutcome::NotWanted) => self.not_wanted(&target).await,
            Err(error) => self.again_with_redis(&error, "launch not begun"),
        }
    }

    /// Writes the call, its target and its number into the record before anything can be running.
    async fn begin(&mut self, target: &Target) -> Result<BeginOutcome, BusError> {
        let (launcher, id, queued) = (&self.launcher, &self.queued.egress_id, &self.queued);
        let attempt = queued.next_attempt(target.name());
        let fresh = queued.is_fresh_at(target.name());
        let old_claim = ClaimToken::from_text(&queued.dispatch.claim);
        let mut claim = queued.dispatch.claim.clone();
        if fresh {
            // The old ticket stays until the record says that it is not to be used: a crash in between leaves two
            // tickets, of which the record knows one.
            match self.ticket_for(attempt, &old_claim).await? {
                Ok(copy) => claim = copy.reveal().to_owned(),
                Err(outcome) => return Ok(outcome),
            }
        }
        let call = LaunchCall {
            by: launcher.records.by(),
            seen: queued.attempt,
            attempt,
            target: target.name().to_owned(),
            claim: claim.clone(),
            tried: queued.dispatch.tried.clone(),
            resumes: queued.run_mode == RunMode::Resume,
            resumable: launcher.instance.config().resume && target.is_resumable(),
            at_ms: launcher.instance.clock.unix_ms(),
            refused_ms: queued.refused_ms(),
        };
        let updated = launcher.records.apply(id, &LaunchEvent::Requested(call)).await?;
        let Updated::Written(record) = updated else {
            if fresh {
                launcher.tickets.withdraw(id, &ClaimToken::from_text(&claim)).await?;
            }
            return Ok(BeginOutcome::NotWanted);
        };
        if fresh && let Err(error) = launcher.tickets.withdraw(id, &old_claim).await {
            debug!(error = %chain(&error), "ticket of the previous attempt not withdrawn; the record no longer uses it");
        }
        let asked_before = record.state == LaunchState::Unknown;
        self.queued.attempt = attempt;
        self.queued.asked = true;
        self.queued.fresh = false;
        self.queued.dispatch = record.dispatch;
        Ok(BeginOutcome::Launching { asked_before })
    }

    async fn ask(self, target: &Arc<Target>, slowed: bool, asked_before: bool) {
        let launcher = Arc::clone(&self.launcher);
        let order = self.order(target);
        let waited_s = self.queued.enqueued_at.elapsed().as_secs_f64();
        launcher.instance.metrics.observe("spillway_queue_wait_seconds", &[], waited_s);
        target.launch_requested();
        let answer = tokio::time::timeout(LAUNCH_TIMEOUT, target.launcher.launch(&order)).await;
        let answer = answer.unwrap_or_else(|_| {
            Err(LaunchError::Transient { message: "the launcher does not answer".to_owned(), source: None })
        });
        let outcome = answer.as_ref().map_or_else(attempt::label, |_| "launched");
        let labels = [("target", target.name()), ("outcome", outcome)];
        launcher.instance.metrics.count("spillway_launches_total", &labels, 1.0);
        match answer {
            Ok(task) => {
                target.record_outcome(LaunchOutcome::Launched);
                if let (true, Some(pace)) = (slowed, target.pace) {
                    let _ = launcher.tasks.speed_up(target.name(), pace).await;
                }
                self.launched(target, task).await;
            }
            Err(error) => self.refused(target, error, asked_before).await,
        }
    }

    fn order(&self, target: &Target) -> LaunchOrder {
        let QueuedLaunch { egress_id, attempt, run_mode, weight, dispatch, .. } = &self.queued;
        let labels =
            [("room", dispatch.room.clone()), ("type", dispatch.kind.clone()), ("tenant", dispatch.tenant.clone())];
        let labels: BTreeMap<String, String> = labels
            .into_iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(key, value)| (key.to_owned(), value))
            .collect();
        // A record of an older version names no machine; only `process` existed then.
        let ours = Shape { cpu_milli: (weight * 1000.0).ceil() as u32, memory_mib: 0, disk_gib: 0 };
        LaunchOrder {
            egress_id: egress_id.clone(),
            attempt: *attempt,
            run_mode: *run_mode,
            installation: self.launcher.installation.get(),
            claim: dispatch.claim.clone(),
            handover: self.launcher.handover.clone(),
            labels,
            shape: dispatch.shapes.get(target.name()).copied().unwrap_or(ours),
            // Uploads need no browser.
            page: dispatch.load.page && *run_mode != RunMode::Salvage,
            max_duration: dispatch.max_duration_s.map(Duration::from_secs),
        }
    }

    async fn launched(self, target: &Target, task: TaskRef) {
        self.launcher.queue.lock().launch_ended(&self.queued.egress_id);
        self.launcher.queue.notify();
        let TaskLinks { task_url, log_url } = target.launcher.links(&task);
        info!(%task, target = target.name(), attempt = self.queued.attempt, task_url, log_url, "launched");
        let (launcher, id) = (&self.launcher, &self.queued.egress_id);
        match launcher.note_task(id, self.queued.attempt, &task).await {
            Ok(true) => {}
            Ok(false) => {
                debug!(%task, "over before its task was noted");
                // A runner that sends heartbeats ended the egress itself and is about to exit.
                if !matches!(launcher.records.heartbeats.last(id).await, Ok(Some(_))) {
                    target.launcher.end(&task, StopMode::Immediate).await;
                }
                launcher.queue.leave(id);
            }
            // The sweep launches again, and the launcher answers with the task it knows by egress id and attempt.
            Err(error) => warn!(error = %chain(&error), "task not noted in the registry"),
        }
    }
}

impl TaskLauncher {
    /// Writes the task of this attempt into the record. False: the egress is over, or has another attempt, so the task
    /// is not wanted.
    ///
    /// # Errors
    /// When Redis does not answer; a retry is right.
    pub async fn note_task(&self, id: &EgressId, attempt: u32, task: &TaskRef) -> Result<bool, BusError> {
        let noted = LaunchEvent::TaskNoted { attempt, task: task.clone() };
        Ok(match self.records.apply(id, &noted).await? {
            Updated::Written(_) => true,
            Updated::Left(record) => record.attempt == attempt && !record.state.is_over(),
            Updated::Missing => false,
        })
    }
}

/// Where to launch.
enum Placement {
    /// A slot is open there; the task may be launched after `wait`. `slowed`: the pace there is
    /// reduced, and a successful launch raises it.
    At { target: Arc<Target>, wait: Duration, slowed: bool },
    /// Not now.
    None { pause: Duration, scope: PauseScope, message: String },
    /// The only target that may know of its launch is no longer configured.
    Lost(String),
}

/// Opens a slot at the first target that has one.
///
/// # Errors
/// When Redis does not answer; a retry is right.
async fn find_slot(launcher: &TaskLauncher, queued: &mut QueuedLaunch) -> Result<Placement, BusError> {
    let dispatch = &queued.dispatch;
    let now = Instant::now();
    if queued.asked {
        let Some(target) = launcher.targets.named(&dispatch.target) else {
            return Ok(Placement::Lost(dispatch.target.clone()));
        };
        return Ok(Placement::At { target, wait: Duration::ZERO, slowed: false });
    }
    let mut choice = launcher.targets.choose(&dispatch.shapes, &dispatch.tried, now);
    if choice.open.is_empty() && !dispatch.tried.is_empty() {
        queued.dispatch.tried.clear();
        choice = launcher.targets.choose(&queued.dispatch.shapes, &queued.dispatch.tried, now);
    }
    let mut later: Option<(Duration, String)> = None;
    let mut sooner = |wait: Duration, message: String| {
        if later.as_ref().is_none_or(|(before, _)| wait < *before) {
            later = Some((wait, message));
        }
    };
    for target in choice.open {
        match open_slot(launcher, queued, &target, caps(launcher, queued, &target), target.pace).await? {
            SlotResult::Granted { wait, slowed } => return Ok(Placement::At { target, wait, slowed }),
            SlotResult::Refused(CapReached::All) => {
                let message =
                    format!("all {} slots are taken", launcher.instance.config().max_tasks.unwrap_or_default());
                return Ok(Placement::None { pause: NO_ROOM_PAUSE, scope: PauseScope::All, message });
            }
            SlotResult::Refused(CapReached::Tenant) => {
                let message = format!("tenant {} has all its slots taken", queued.tenant);
                return Ok(Placement::None { pause: NO_ROOM_PAUSE, scope: PauseScope::Tenant, message });
            }
            SlotResult::Refused(CapReached::Target) => sooner(NO_ROOM_PAUSE, format!("{} is full", target.name())),
            SlotResult::Later(wait) => {
                sooner(wait / 2, format!("{} takes no more launches for {} s", target.name(), wait.as_secs()));
            }
        }
    }
    if let Some((until, message)) = choice.closed {
        let pause = until.map_or(Duration::from_secs(1), |until| until.saturating_duration_since(now));
        sooner(pause.max(NO_ROOM_PAUSE), message);
    }
    let (pause, message) = later.unwrap_or_else(|| (Duration::from_secs(1), "no target takes launches".to_owned()));
    Ok(Placement::None { pause, scope: PauseScope::Launch, message })
}

fn caps(launcher: &TaskLauncher, queued: &QueuedLaunch, target: &Target) -> Caps {
    let config = launcher.instance.config();
    match queued.run_mode {
        RunMode::Record | RunMode::Probe => Caps {
            all: config.max_tasks,
            tenant: config.tenants.rules(&queued.tenant).max_recordings,
            target: target.config.max_tasks,
        },
        // It takes the place of a task that was within them. Recorded media is saved, whatever the caps say.
        RunMode::Resume | RunMode::Salvage => Caps::default(),
    }
}

/// Opens the slot again, without caps: another dispatcher may have closed it.
///
/// # Errors
/// When Redis does not answer; a retry is right.
async fn keep_open(launcher: &TaskLauncher, queued: &QueuedLaunch, target: &Target) -> Result<(), BusError> {
    open_slot(launcher, queued, target, Caps::default(), None).await.map(drop)
}

async fn open_slot(
    launcher: &TaskLauncher,
    queued: &QueuedLaunch,
    target: &Target,
    caps: Caps,
    pace: Option<Pace>,
) -> Result<SlotResult, BusError> {
    let key = TaskKey { egress_id: queued.egress_id.clone(), attempt: queued.next_attempt(target.name()) };
    let facts = facts(launcher, queued, target).text();
    let open_task = OpenTask { task: &key, tenant: &queued.tenant, target: target.name(), facts: &facts, caps, pace };
    launcher.tasks.open(open_task).await
}

/// What the bill of the task will need, and what an hour of it is expected to cost.
fn facts(launcher: &TaskLauncher, queued: &QueuedLaunch, target: &Target) -> TaskFacts {
    let salvage = queued.run_mode == RunMode::Salvage;
    let mut facts = task_facts(&queued.dispatch, target, salvage, launcher.instance.clock.unix_ms());
    // Usually billed there beside the recording, where that is known.
    let extra_s = launcher.overheads.extra_s(target.name());
    let hour = |rate| estimate(rate, facts.shape, &facts.load, 3600.0, facts.nat, extra_s).total;
    facts.hour = launcher.instance.config().prices.rate_of(&facts).map(hour).unwrap_or_default();
    facts
}
