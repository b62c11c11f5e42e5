//! One launch: a place, the record, the launcher, and what its answer leads to.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use spillway_bus::{BusError, ClaimToken, Decision, Phase, Record, TaskKey, Updated};
use spillway_cost::Shape;
use spillway_launchers::{EndHow, Errand, LaunchError, LaunchOrder, TaskRef};
use spillway_process::chain;
use spillway_protocol::code::Code;
use spillway_protocol::ids::EgressId;
use tokio::time::Instant;
use tracing::{debug, error, info, warn};

use super::breaker::Went;
use super::line::{Holds, NO_ROOM_PAUSE, Waiting};
use super::place::{self, Place};
use super::{salvage_ticket_life, ticket_life, withdraw};
use crate::house::{Dispatch, House, task_of};
use crate::targets::Target;

/// A launcher's API that does not answer at all; the order may have been taken all the same, so it is asked again.
const LONGEST_LAUNCH: Duration = Duration::from_secs(30);
/// What the launcher said may pass: how long until it is asked again.
const PASSING_PAUSE: Duration = Duration::from_secs(1);

/// What only a person can put right.
const IMPOSSIBLE_PAUSE: Duration = Duration::from_secs(10);

pub(super) struct Launch {
    pub house: Arc<House>,
    pub turn: u64,
    pub waiting: Waiting,
}

enum Begun {
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
        match place::find(&self.house, &mut self.waiting).await {
            Ok(Place::At { target, wait, slowed }) => {
                tokio::time::sleep(wait).await;
                self.at(target, slowed).await;
            }
            Ok(Place::None { pause, holds, words }) => self.again_after(pause, holds, words),
            Ok(Place::Lost(name)) => {
                self.give_up(format!("its launch was asked of {name}, which is no longer configured")).await;
            }
            Err(error) => {
                warn!(error = %chain(&error), "registry not reached, launch put off");
                self.again_after(PASSING_PAUSE, Holds::Himself, "the registry is not reachable".to_owned());
            }
        }
    }

    async fn at(mut self, target: Arc<Target>, slowed: bool) {
        match self.begin(&target).await {
            // Another dispatcher that took our place for its own may have closed it before the record said whose it is.
            Ok(Begun::Launching { asked_before }) => {
                match place::keep_open(&self.house, &self.waiting, &target).await {
                    Ok(()) => self.ask(&target, slowed, asked_before).await,
                    Err(error) => {
                        warn!(error = %chain(&error), "task not noted as open, launch put off");
                        self.again_after(PASSING_PAUSE, Holds::Himself, "the registry is not reachable".to_owned());
                    }
                }
            }
            Ok(Begun::NoTicket) => {
                self.not_launched().await;
                self.fail("its ticket was taken by a task that never recorded".to_owned()).await;
            }
            Ok(Begun::NotWanted) => {
                // Stopped, settled or taken over meanwhile.
                self.drop_task(place::attempt(&self.waiting, &target), |record, attempt| {
                    let dispatch = Dispatch::of(record);
                    // Where the next is to be a fresh one, this number may have had a task, which somebody bills.
                    let unused = !dispatch.asked && !dispatch.fresh;
                    record.attempt < attempt || (record.attempt == attempt && unused)
                })
                .await;
                self.house.line().landed(&self.waiting.egress_id);
                self.house.leave_line(&self.waiting.egress_id);
            }
            Err(error) => {
                warn!(error = %chain(&error), "registry not reached, launch put off");
                self.again_after(PASSING_PAUSE, Holds::Himself, "the registry is not reachable".to_owned());
            }
        }
    }

    /// The record says Launching, where, and with which attempt, before anything can be running.
    async fn begin(&mut self, target: &Target) -> Result<Begun, BusError> {
        let (house, id) = (&self.house, &self.waiting.egress_id);
        let (now_ms, before) = (house.clock.unix_ms(), self.waiting.attempt);
        let attempt = place::attempt(&self.waiting, target);
        let fresh = place::is_fresh(&self.waiting, target);
        let old_claim = ClaimToken::from_text(&self.waiting.dispatch.claim);
        let mut claim = self.waiting.dispatch.claim.clone();
        if fresh {
            let life = match self.waiting.errand {
                Errand::Record => ticket_life(&house.config()),
                Errand::Salvage => salvage_ticket_life(&house.config()),
            };
            // The one before stays until the record says that nobody may use it: whoever dies in between leaves two
            // tickets, of which the record knows one.
            match house.tickets.copy(id, &old_claim, attempt, life).await? {
                Some(copy) => claim = copy.reveal().to_owned(),
                None => match self.spare(attempt, life).await? {
                    Ok(copy) => claim = copy.reveal().to_owned(),
                    Err(why) => return Ok(why),
                },
            }
        }
        let mut asked_before = false;
        let Dispatch { tried, asked: may_run, launched_ms: last_ms, .. } = &self.waiting.dispatch;
        let updated = house
            .registry
            .update(id, |record| {
                let starting = matches!(record.phase, Phase::Accepted | Phase::Launching);
                if !house.owns(record) || !starting || record.attempt != before {
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
                house.tickets.withdraw(id, &ClaimToken::from_text(&claim)).await?;
            }
            return Ok(Begun::NotWanted);
        };
        if fresh && let Err(error) = house.tickets.withdraw(id, &old_claim).await {
            debug!(error = %chain(&error), "ticket of the attempt before not withdrawn; the record has no use for it");
        }
        self.waiting.attempt = attempt;
        self.waiting.dispatch = Dispatch::of(&record);
        Ok(Begun::Launching { asked_before })
    }

    /// Somebody has the ticket, and nothing else is known of him: a second start of the same task, which died. Where
    /// there is a spare one, it serves.
    async fn spare(&self, attempt: u32, life: Duration) -> Result<Result<ClaimToken, Begun>, BusError> {
        let (house, id) = (&self.house, &self.waiting.egress_id);
        let Some(record) = house.registry.get(id).await? else { return Ok(Err(Begun::NotWanted)) };
        let starting = matches!(record.phase, Phase::Accepted | Phase::Launching);
        let is_same =
            record.attempt == self.waiting.attempt && Dispatch::of(&record).claim == self.waiting.dispatch.claim;
        if !house.owns(&record) || !starting || !is_same {
            return Ok(Err(Begun::NotWanted));
        }
        let copy = match record.spare.as_str() {
            "" => None,
            spare => house.tickets.copy(id, &ClaimToken::from_text(spare), attempt, life).await?,
        };
        Ok(copy.ok_or(Begun::NoTicket))
    }

    async fn ask(mut self, target: &Arc<Target>, slowed: bool, asked_before: bool) {
        let order = self.order(target);
        house_waited(&self.house, &self.waiting);
        target.asked();
        let answer = tokio::time::timeout(LONGEST_LAUNCH, target.launcher.launch(&order)).await;
        let answer = answer.unwrap_or_else(|_| {
            Err(LaunchError::Passing { words: "the launcher does not answer".to_owned(), source: None })
        });
        let outcome = match &answer {
            Ok(_) => "launched",
            Err(LaunchError::Capacity { .. } | LaunchError::PlaceFull { .. }) => "no_capacity",
            Err(LaunchError::Quota { .. }) => "quota",
            Err(LaunchError::Throttled { .. }) => "throttled",
            Err(LaunchError::Misconfigured { .. }) => "misconfigured",
            Err(LaunchError::Passing { .. }) => "unknown",
        };
        self.house.meter.count("spillway_launches_total", &[("target", target.name()), ("outcome", outcome)], 1.0);
        match answer {
            Ok(task) => {
                target.went(Went::Well);
                if let (true, Some(pace)) = (slowed, target.pace) {
                    let _ = self.house.tasks.speed_up(target.name(), pace).await;
                }
                self.launched(target, task).await;
            }
            Err(LaunchError::Throttled { words, retry_after }) => {
                debug!(words, ?retry_after, "launcher asks for patience");
                let pause = retry_after.unwrap_or(NO_ROOM_PAUSE);
                if !asked_before {
                    self.not_launched().await;
                }
                match target.pace {
                    // A single complaint among many launches that went well is chance.
                    Some(_) if !target.complained() => self.again_after(pause, Holds::Himself, words),
                    Some(pace) => {
                        let _ = self.house.tasks.slow_down(target.name(), pace, pause).await;
                        self.again_after(pause, Holds::Himself, words);
                    }
                    None => self.again_after(pause, Holds::Everybody, words),
                }
            }
            // From here on nothing was launched: a launcher that had a task of this attempt would have answered it.
            Err(LaunchError::PlaceFull { words }) => {
                debug!(words, target = target.name(), "launcher has no room at one place");
                self.not_launched().await;
                self.waiting.dispatch.fresh = true;
                self.again_after(Duration::ZERO, Holds::Himself, words);
            }
            Err(LaunchError::Capacity { words } | LaunchError::Quota { words }) => {
                debug!(words, target = target.name(), "launcher has no room");
                target.went(Went::NoCapacity(words.clone()));
                self.elsewhere(target, words).await;
            }
            Err(error @ LaunchError::Misconfigured { .. }) => {
                error!(error = %chain(&error), target = target.name(), "launch impossible");
                let words = chain(&error).to_string();
                target.went(Went::Impossible(words.clone()));
                if self.has_another(target) {
                    self.elsewhere(target, words).await;
                } else if self.waiting.errand == Errand::Salvage {
                    // Somebody may put it right while what is recorded can still be saved.
                    self.not_launched().await;
                    self.waiting.dispatch.fresh = true;
                    self.again_after(IMPOSSIBLE_PAUSE, Holds::Himself, words);
                } else {
                    self.not_launched().await;
                    self.fail(words).await;
                }
            }
            Err(error @ LaunchError::Passing { .. }) => {
                warn!(error = %chain(&error), target = target.name(), "launch failed, asking again");
                target.went(Went::Failed(error.to_string()));
                self.again_after(PASSING_PAUSE, Holds::Himself, error.to_string());
            }
        }
    }

    /// The launch surely did not happen: its place is free, and nobody need be asked about it.
    async fn not_launched(&mut self) {
        self.waiting.dispatch.asked = false;
        let house = Arc::clone(&self.house);
        self.drop_task(self.waiting.attempt, |record, _| house.owns(record)).await;
    }

    /// Where that is sure; kept open for nothing, a task is closed by the accounts.
    async fn drop_task(&self, attempt: u32, is_ours: impl Fn(&Record, u32) -> bool) {
        let (house, id) = (&self.house, &self.waiting.egress_id);
        match house.registry.get(id).await {
            Ok(Some(record)) if !is_ours(&record, attempt) => return,
            Ok(_) => {}
            Err(error) => return debug!(error = %chain(&error), "task that never was not dropped, it may be another's"),
        }
        let key = TaskKey { egress_id: id.clone(), attempt };
        if let Err(error) = house.tasks.drop(&key).await {
            debug!(error = %chain(&error), "task that never was not dropped; the next look at all tasks does");
        }
    }

    /// With a new attempt number, for the next target or, where all were tried, after a while for all of them again.
    async fn elsewhere(mut self, target: &Target, words: String) {
        self.not_launched().await;
        self.waiting.dispatch.fresh = true;
        self.waiting.dispatch.tried.insert(target.name().to_owned());
        let pause = if self.has_another(target) { Duration::ZERO } else { NO_ROOM_PAUSE };
        self.again_after(pause, Holds::Himself, format!("{}: {words}", target.name()));
    }

    fn has_another(&self, target: &Target) -> bool {
        let Dispatch { shapes, tried, .. } = &self.waiting.dispatch;
        self.house.targets.has_another(shapes, tried, target.name())
    }

    fn order(&self, target: &Target) -> LaunchOrder {
        let Waiting { egress_id, attempt, errand, weight, dispatch, .. } = &self.waiting;
        let labels = [
            ("egress_id", egress_id.to_string()),
            ("room", dispatch.room.clone()),
            ("type", dispatch.kind.clone()),
            ("tenant", dispatch.tenant.clone()),
            ("stack", self.house.config().stack.clone()),
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
            errand: *errand,
            installation: self.house.installation(),
            claim: dispatch.claim.clone(),
            handover: self.house.handover.clone(),
            labels,
            shape: dispatch.shapes.get(target.name()).copied().unwrap_or(ours),
            longest: dispatch.longest_s.map(Duration::from_secs),
        }
    }

    async fn launched(self, target: &Target, task: TaskRef) {
        self.house.line().landed(&self.waiting.egress_id);
        self.house.moved.notify_one();
        info!(%task, target = target.name(), attempt = self.waiting.attempt, "launched");
        let (house, id) = (&self.house, &self.waiting.egress_id);
        match note_task(house, id, self.waiting.attempt, &task).await {
            Ok(true) => {}
            Ok(false) => {
                debug!(%task, "over before its task was noted");
                // A runner that beats ended it itself and is about to leave.
                if !matches!(house.beats.last(id).await, Ok(Some(_))) {
                    target.launcher.end(&task, EndHow::Now).await;
                }
                house.leave_line(id);
            }
            // The sweep asks the launcher again, which knows the task by egress id and attempt.
            Err(error) => warn!(error = %chain(&error), "task not noted in the registry"),
        }
    }

    async fn give_up(self, words: String) {
        self.fail(words).await;
    }

    async fn fail(self, words: String) {
        self.house.line().landed(&self.waiting.egress_id);
        withdraw(&self.house, &self.waiting).await;
        super::fail(&self.house, &self.waiting, Code::Internal, words).await;
    }

    fn again_after(self, pause: Duration, holds: Holds, words: String) {
        let Self { house, turn, waiting } = self;
        house.line().put_back(turn, Waiting { words, ..waiting }, Instant::now() + pause, holds);
        house.moved.notify_one();
    }
}

fn house_waited(house: &House, waiting: &Waiting) {
    house.meter.observe("spillway_queue_wait_seconds", &[], waiting.since.elapsed().as_secs_f64());
}

/// False when the egress is over already and nobody wants the task.
pub(crate) async fn note_task(house: &House, id: &EgressId, attempt: u32, task: &TaskRef) -> Result<bool, BusError> {
    let text = serde_json::to_string(task).ok();
    let updated = house
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
