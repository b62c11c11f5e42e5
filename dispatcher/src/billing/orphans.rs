//! Tasks that belong to no egress, and egresses whose task is nowhere. The watch settles the second kind by itself; here
//! they are only named for people.
//!
//! A task is ended only when all of this has held in every look for the whole grace: it carries the id of the
//! installation that this Redis has, no record wants it, and its runner gives no sign of life. A task of another
//! installation, of an older dispatcher (which wrote no id), or of a Redis whose content was lost is reported and left
//! alone. When most tasks seem to be unknown at once, it is the registry that is wrong, and none is ended.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use spillway_bus::{BusError, Installation, Phase, Record};
use spillway_launchers::{OwnedTask, StopMode, TaskRef, TaskStatus};
use spillway_process::chain;
use spillway_protocol::ids::EgressId;
use tokio::time::Instant;
use tracing::{debug, error, info, warn};

use super::is_current;
use crate::context::{Context, Dispatch};
use crate::targets::Target;

/// Looks further apart than this say nothing about the time between them. A dispatcher looks every 30 s.
const LONGEST_GAP: Duration = Duration::from_secs(90);
/// So many unknown tasks may be an accident; more than this and more than half of all are the loss of a registry.
const FEW: usize = 2;
/// Between two looks of a sweep by hand; a heartbeat lasts 6 s.
const SWEEP_EVERY: Duration = Duration::from_secs(5);

/// What a look found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// A task of our stack's name that no live record stands at.
    Task { target: String, task: OwnedTask, why: String, fate: Fate },
    /// A record whose task is gone, or that never had one.
    Egress { egress_id: EgressId, phase: Phase, why: String },
}

/// What becomes of a task that no record wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It was an orphan in every look for so long.
    End { seen_for: Duration },
    /// It is one, and for so much longer it has to be.
    Wait { left: Duration },
    /// Its runner gives signs of life.
    Beats,
    /// Another installation's, by its id or for want of one.
    Foreign { reason: String },
    /// Most tasks look like this one.
    TooMany { unknown: usize, tasks: usize },
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::End { seen_for } => {
                write!(f, "to be ended, seen so without a heartbeat for {} s", seen_for.as_secs())
            }
            Self::Wait { left } => write!(f, "left, to be seen so for {} s more", left.as_secs_f64().ceil()),
            Self::Beats => f.write_str("left, its runner gives signs of life"),
            Self::Foreign { reason } => write!(f, "left, {reason}"),
            Self::TooMany { unknown, tasks } => {
                write!(
                    f,
                    "left, {unknown} of {tasks} tasks are unknown here: this Redis seems to have lost its records"
                )
            }
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Task { target, task, why, fate } => {
                write!(f, "task\t{target}\t{}\t{}/{}\t{why}; {fate}", task.task, task.egress_id, task.attempt)
            }
            Self::Egress { egress_id, phase, why } => {
                write!(f, "egress\t{egress_id}\t{}\t{why}; to be settled", format!("{phase:?}").to_lowercase())
            }
        }
    }
}

/// Why no record wants this task; `None`: one does, or may.
pub fn unwanted(task: &OwnedTask, record: Option<&Record>) -> Option<String> {
    let Some(record) = record else { return Some("its egress is not known".to_owned()) };
    match record.phase {
        _ if task.attempt < record.attempt => Some(format!("attempt {} took its place", record.attempt)),
        Phase::Over => Some("its egress is over".to_owned()),
        // A newer one was asked for by a dispatcher that has not written it down: not an orphan before that is settled.
        _ => None,
    }
}

/// A task as it was seen in one look.
struct OrphanObservation {
    target: String,
    task: OwnedTask,
    record: Option<Record>,
    /// A heartbeat of this attempt is there.
    heartbeats: bool,
}

/// Since when tasks are orphans, in every look without exception. Pure.
#[derive(Default)]
struct OrphanTracker {
    first_seen: HashMap<TaskRef, Instant>,
    looked_at: Option<Instant>,
}

impl OrphanTracker {
    /// Nothing can be said about the time since the last look.
    fn forget(&mut self) {
        self.first_seen.clear();
    }

    /// `ours`: the id of the installation, as it stands in Redis now.
    fn diagnose(
        &mut self,
        all: Vec<OrphanObservation>,
        ours: Option<&str>,
        grace: Duration,
        now: Instant,
    ) -> Vec<Finding> {
        if self.looked_at.is_some_and(|before| now - before > LONGEST_GAP) {
            self.forget();
        }
        self.looked_at = Some(now);
        // Two targets may show one task.
        let of_ours = |seen: &&OrphanObservation| ours == Some(seen.task.installation.as_str());
        let key = |seen: &OrphanObservation| (seen.task.egress_id.clone(), seen.task.attempt);
        let tasks: HashSet<_> = all.iter().filter(of_ours).map(key).collect();
        // A record that says "over" or names a later attempt is evidence; only a missing one may be a loss of ours.
        let lost = |seen: &&OrphanObservation| seen.record.is_none() && !seen.heartbeats;
        let unknown: HashSet<_> = all.iter().filter(of_ours).filter(lost).map(key).collect();
        let too_many = (unknown.len() > FEW && 2 * unknown.len() > tasks.len())
            .then_some(Fate::TooMany { unknown: unknown.len(), tasks: tasks.len() });
        let before = std::mem::take(&mut self.first_seen);
        let mut findings = Vec::new();
        for OrphanObservation { target, task, record, heartbeats } in all {
            let Some(why) = unwanted(&task, record.as_ref()) else { continue };
            let fate = if let Some(reason) = foreign(&task.installation, ours) {
                Fate::Foreign { reason }
            } else if heartbeats {
                Fate::Beats
            } else {
                let first_seen = before.get(&task.task).copied();
                self.first_seen.insert(task.task.clone(), first_seen.unwrap_or(now));
                match first_seen.map(|first_seen| now - first_seen) {
                    Some(seen_for) if seen_for >= grace => too_many.clone().unwrap_or(Fate::End { seen_for }),
                    seen_for => Fate::Wait { left: grace.saturating_sub(seen_for.unwrap_or_default()) },
                }
            };
            findings.push(Finding::Task { target, task, why, fate });
        }
        findings
    }
}

/// Why a task is not of the installation `ours`; `None`: it is.
fn foreign(theirs: &str, ours: Option<&str>) -> Option<String> {
    match ours {
        None => Some("this Redis has no installation yet".to_owned()),
        Some(_) if theirs.is_empty() => Some("it names no installation: an older dispatcher has started it".to_owned()),
        Some(ours) if theirs != ours => Some(format!("it is of installation {theirs}, and this Redis' is {ours}")),
        Some(_) => None,
    }
}

pub(super) struct Orphans {
    context: Arc<Context>,
    tracker: OrphanTracker,
    /// Said once.
    reported: HashSet<TaskRef>,
    stopped: bool,
}

impl Orphans {
    pub fn new(context: Arc<Context>) -> Self {
        Self { context, tracker: OrphanTracker::default(), reported: HashSet::new(), stopped: false }
    }

    /// With the lease's number for platforms that every dispatcher sees; a machine's own processes are seen by its
    /// dispatcher alone.
    pub async fn round(&mut self, lease: Option<u64>) -> Result<(), BusError> {
        let mut targets = self.context.targets.known();
        targets.retain(|target| lease.is_some() || target.launcher.is_this_machine());
        let looked = async {
            let ours = Installation::new(&self.context.bus).find().await?;
            Ok::<_, BusError>((ours, observe(&self.context, &targets).await?))
        };
        let (ours, seen) = looked.await.inspect_err(|_| self.tracker.forget())?;
        let findings = self.tracker.diagnose(seen, ours.as_deref(), self.context.config().orphan_grace, Instant::now());
        self.report(&findings);
        for finding in findings {
            let Finding::Task { target, task, why, fate: Fate::End { seen_for } } = finding else { continue };
            let Some(target) = self.context.targets.named(&target) else { continue };
            // Between our look and now another may have taken over.
            if let Some(number) = lease.filter(|_| !target.launcher.is_this_machine())
                && !is_current(&self.context, number).await
            {
                return Ok(());
            }
            if !holds_now(&self.context, &task).await? {
                continue;
            }
            let (seconds, name) = (seen_for.as_secs(), target.name());
            warn!(egress_id = %task.egress_id, attempt = task.attempt, task = %task.task, why, seconds, "orphan ended");
            self.context.metrics.count("spillway_orphans_total", &[("target", name)], 1.0);
            target.launcher.end(&task.task, StopMode::Immediate).await;
        }
        Ok(())
    }

    fn report(&mut self, findings: &[Finding]) {
        let mut foreign = Vec::new();
        let mut too_many = None;
        for finding in findings {
            let Finding::Task { target, task, why, fate } = finding else { continue };
            match fate {
                Fate::Foreign { reason } => foreign.push((target, task, why, reason)),
                Fate::TooMany { unknown, tasks } => too_many = Some((*unknown, *tasks)),
                Fate::End { .. } | Fate::Wait { .. } | Fate::Beats => {}
            }
        }
        for (_, task, why, reason) in &foreign {
            if self.reported.insert(task.task.clone()) {
                info!(egress_id = %task.egress_id, task = %task.task, why, reason, "task left alone");
            }
        }
        self.reported.retain(|task| foreign.iter().any(|(_, foreign, ..)| foreign.task == *task));
        let targets = foreign.iter().map(|(target, ..)| target.as_str());
        self.context.metrics.gauges("spillway_tasks_foreign", "target", targets);
        if let Some((unknown, tasks)) = too_many {
            self.context.metrics.count("spillway_orphan_rounds_stopped_total", &[], 1.0);
            if !self.stopped {
                error!(
                    unknown,
                    tasks,
                    "most tasks belong to no egress that Redis knows: it seems to have lost its records; no task is ended"
                );
            }
        }
        self.stopped = too_many.is_some();
    }
}

/// Every task of these targets, with what Redis says of it now. A platform that does not answer shows none.
async fn observe(context: &Context, targets: &[Arc<Target>]) -> Result<Vec<OrphanObservation>, BusError> {
    let mut all = Vec::new();
    for target in targets {
        let tasks = match target.launcher.tasks().await {
            Ok(tasks) => tasks,
            Err(error) => {
                debug!(target = target.name(), error = %chain(&error), "tasks not listed, no look for orphans");
                continue;
            }
        };
        let ids: Vec<EgressId> = tasks.iter().map(|task| task.egress_id.clone()).collect();
        let records = context.registry.get_all(&ids).await?;
        let heartbeats = context.heartbeats.last_of(&ids).await?;
        for ((task, record), beat) in tasks.into_iter().zip(records).zip(heartbeats) {
            let heartbeats = beat.is_some_and(|(_, beat)| beat.attempt == task.attempt);
            all.push(OrphanObservation { target: target.name().to_owned(), task, record, heartbeats });
        }
    }
    Ok(all)
}

/// What was judged a moment ago holds now.
async fn holds_now(context: &Context, task: &OwnedTask) -> Result<bool, BusError> {
    let record = context.registry.get(&task.egress_id).await?;
    let beat = context.heartbeats.last(&task.egress_id).await?;
    let heartbeats = beat.is_some_and(|(_, beat)| beat.attempt == task.attempt);
    let same = Installation::new(&context.bus).find().await?.as_ref() == Some(&task.installation);
    Ok(same && !heartbeats && unwanted(task, record.as_ref()).is_some())
}

/// Both ways, without changing anything: for people. Observes for the grace, as long as a task may turn out to be an orphan.
///
/// # Errors
/// When Redis does not answer; a repeat is right.
pub async fn sweep(context: &Arc<Context>) -> Result<Vec<Finding>, BusError> {
    let (mut tracker, grace) = (OrphanTracker::default(), context.config().orphan_grace);
    // Of the first observation that showed something to wait for.
    let mut since = None;
    let mut findings = loop {
        let ours = Installation::new(&context.bus).find().await?;
        let seen = observe(context, &context.targets.known()).await?;
        let now = Instant::now();
        let findings = tracker.diagnose(seen, ours.as_deref(), grace, now);
        let waits = |finding: &&Finding| matches!(finding, Finding::Task { fate: Fate::Wait { .. }, .. });
        let waiting = findings.iter().filter(waits).count();
        let left = match since {
            None => grace,
            Some(since) => grace.saturating_sub(now - since),
        };
        if waiting == 0 || (since.is_some() && left.is_zero()) {
            break findings;
        }
        if since.is_none() {
            since = Some(now);
            let seconds = grace.as_secs();
            warn!(tasks = waiting, seconds, "tasks look lost and are watched before anything is ended");
        }
        tokio::time::sleep(left.min(SWEEP_EVERY)).await;
    };
    for record in context.registry.list_live().await? {
        if matches!(record.phase, Phase::Over | Phase::Accepted)
            || context.heartbeats.last(&record.egress_id).await?.is_some()
        {
            continue;
        }
        let why = match context.targets.status(&record).await {
            None if Dispatch::of(&record).asked => continue,
            None => "it has no task and no heartbeat".to_owned(),
            Some(TaskStatus::Gone(exit_report)) => format!("its task is gone: {exit_report}"),
            Some(_) => continue,
        };
        findings.push(Finding::Egress { egress_id: record.egress_id.clone(), phase: record.phase, why });
    }
    Ok(findings)
}

/// Ends what [`sweep`] found to be orphans for the whole grace and still are.
///
/// # Errors
/// When Redis does not answer; what is left is found by the next sweep.
pub async fn end(context: &Context, findings: &[Finding]) -> Result<(), BusError> {
    for finding in findings {
        if let Finding::Task { target, task, fate: Fate::End { .. }, .. } = finding
            && let Some(target) = context.targets.named(target)
            && holds_now(context, task).await?
        {
            target.launcher.end(&task.task, StopMode::Immediate).await;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const GRACE: Duration = Duration::from_secs(120);
    const OURS: &str = "0fk3x9qz7m1bw8ty";

    fn task(number: u32, attempt: u32) -> OwnedTask {
        let id = EgressId::parse(&format!("EG_{number}")).unwrap();
        let task = TaskRef { launcher: "simulated".to_owned(), id: number.to_string() };
        // An hour old: that counts for nothing.
        OwnedTask { egress_id: id, attempt, task, installation: OURS.to_owned(), started_ms: Some(1) }
    }

    fn record(number: u32, phase: Phase) -> Record {
        Record { phase, attempt: 1, ..Record::new(task(number, 1).egress_id, 1) }
    }

    fn seen(number: u32, record: Option<Record>) -> OrphanObservation {
        OrphanObservation { target: "there".to_owned(), task: task(number, 1), record, heartbeats: false }
    }

    fn fates(findings: &[Finding]) -> Vec<Fate> {
        let fate = |finding: &Finding| match finding {
            Finding::Task { fate, .. } => fate.clone(),
            Finding::Egress { .. } => panic!("{finding}"),
        };
        findings.iter().map(fate).collect()
    }

    /// The fates of one task that is seen like this every 30 s, up to the minute.
    fn over_time(
        mut at: impl FnMut(u64) -> Option<(OrphanObservation, Option<&'static str>)>,
        until_s: u64,
    ) -> Vec<Fate> {
        let (mut tracker, begun) = (OrphanTracker::default(), Instant::now());
        let mut last = Vec::new();
        for second in (0..=until_s).step_by(30) {
            match at(second) {
                None => tracker.forget(),
                Some((seen, ours)) => {
                    let now = begun + Duration::from_secs(second);
                    last = fates(&tracker.diagnose(vec![seen], ours, GRACE, now));
                }
            }
        }
        last
    }

    #[test]
    fn a_task_is_wanted_while_its_attempt_is_the_records() {
        let mut record = record(1, Phase::Accepted);
        record.attempt = 2;
        for phase in [Phase::Accepted, Phase::Launching, Phase::Running, Phase::Ending, Phase::Lost] {
            record.phase = phase;
            assert_eq!(unwanted(&task(1, 2), Some(&record)), None);
            assert_eq!(unwanted(&task(1, 1), Some(&record)).unwrap(), "attempt 2 took its place");
        }
        record.phase = Phase::Over;
        assert_eq!(unwanted(&task(1, 2), Some(&record)).unwrap(), "its egress is over");
        assert_eq!(unwanted(&task(1, 2), None).unwrap(), "its egress is not known");
    }

    #[test]
    fn an_orphan_is_ended_when_it_was_one_in_every_look_of_the_grace_however_old_it_is() {
        let always = |second| over_time(|_| Some((seen(1, None), Some(OURS))), second);
        assert_eq!(always(0), [Fate::Wait { left: GRACE }]);
        assert_eq!(always(90), [Fate::Wait { left: 30 * SECOND }]);
        assert_eq!(always(120), [Fate::End { seen_for: GRACE }]);
        // A heartbeat, a record, a failed look or a long pause in between: the time begins anew.
        let with = |odd: fn() -> Option<OrphanObservation>| {
            over_time(
                |second| match second {
                    60 => odd().map(|seen| (seen, Some(OURS))),
                    _ => Some((seen(1, None), Some(OURS))),
                },
                150,
            )
        };
        let anew = [Fate::Wait { left: 60 * SECOND }];
        assert_eq!(with(|| Some(OrphanObservation { heartbeats: true, ..seen(1, None) })), anew);
        assert_eq!(with(|| Some(seen(1, Some(record(1, Phase::Running))))), anew);
        assert_eq!(with(|| None), anew);
        let mut tracker = OrphanTracker::default();
        let begun = Instant::now();
        tracker.diagnose(vec![seen(1, None)], Some(OURS), GRACE, begun);
        let later = tracker.diagnose(vec![seen(1, None)], Some(OURS), GRACE, begun + 600 * SECOND);
        assert_eq!(fates(&later), [Fate::Wait { left: GRACE }]);
        // Without a grace it takes two looks all the same.
        let mut at_once =
            || fates(&tracker.diagnose(vec![seen(2, None)], Some(OURS), Duration::ZERO, begun + 601 * SECOND));
        assert_eq!(at_once(), [Fate::Wait { left: Duration::ZERO }]);
        assert_eq!(at_once(), [Fate::End { seen_for: Duration::ZERO }]);
    }

    #[test]
    fn a_task_that_beats_or_is_not_of_our_installation_is_never_ended() {
        let beating = over_time(|_| Some((OrphanObservation { heartbeats: true, ..seen(1, None) }, Some(OURS))), 3600);
        assert_eq!(beating, [Fate::Beats]);
        for (theirs, ours, message) in [
            ("zz00zz00zz00zz00", Some(OURS), "is of installation zz00zz00zz00zz00"),
            ("", Some(OURS), "an older dispatcher has started it"),
            (OURS, None, "this Redis has no installation yet"),
            ("", None, "this Redis has no installation yet"),
        ] {
            for phase in [None, Some(Phase::Over)] {
                let foreign = || {
                    let mut seen = seen(1, phase.map(|phase| record(1, phase)));
                    seen.task.installation = theirs.to_owned();
                    seen
                };
                let fates = over_time(|_| Some((foreign(), ours)), 3600);
                assert!(matches!(&fates[..], [Fate::Foreign { reason: said }] if said.contains(message)), "{fates:?}");
            }
        }
        assert!(over_time(|_| Some((seen(1, Some(record(1, Phase::Running))), Some(OURS))), 3600).is_empty());
    }

    #[test]
    fn when_max_tasks_are_unknown_at_once_none_is_ended() {
        let ended = |unknown: u32, over: u32, running: u32| {
            let all = || {
                let unknown = (0..unknown).map(|number| seen(number, None));
                let over = (100..100 + over).map(|number| seen(number, Some(record(number, Phase::Over))));
                let running = (200..200 + running).map(|number| seen(number, Some(record(number, Phase::Running))));
                unknown.chain(over).chain(running).collect::<Vec<_>>()
            };
            let (mut tracker, begun) = (OrphanTracker::default(), Instant::now());
            let mut last = Vec::new();
            for second in (0..=120).step_by(30) {
                last = tracker.diagnose(all(), Some(OURS), GRACE, begun + Duration::from_secs(second));
            }
            fates(&last).iter().filter(|fate| matches!(fate, Fate::End { .. })).count()
        };
        assert_eq!(ended(2, 0, 0), 2, "two may be an accident");
        assert_eq!(ended(3, 0, 0), 0);
        assert_eq!(ended(3, 0, 2), 0);
        assert_eq!(ended(3, 0, 3), 3, "no more than half");
        assert_eq!(ended(3, 1, 0), 0, "nor what is over: the whole view is in doubt");
        assert_eq!(ended(0, 7, 1), 7, "a record that says over is evidence");
        // What shows up in two targets is one task.
        let (mut tracker, begun) = (OrphanTracker::default(), Instant::now());
        let twice = || (0..2).flat_map(|number| [seen(number, None), seen(number, None)]).collect::<Vec<_>>();
        tracker.diagnose(twice(), Some(OURS), GRACE, begun);
        let last = fates(&tracker.diagnose(twice(), Some(OURS), SECOND, begun + 60 * SECOND));
        assert!(last.iter().all(|fate| matches!(fate, Fate::End { .. })), "{last:?}");
    }

    #[test]
    fn what_becomes_of_a_task_is_explained() {
        let finding = |fate| Finding::Task { target: "t".to_owned(), task: task(1, 1), why: "why".to_owned(), fate };
        let line = |fate| finding(fate).to_string();
        assert_eq!(
            line(Fate::End { seen_for: GRACE }),
            "task\tt\tsimulated/1\tEG_1/1\twhy; to be ended, seen so without a heartbeat for 120 s"
        );
        assert!(
            line(Fate::Wait { left: Duration::from_millis(29_500) }).ends_with("left, to be seen so for 30 s more")
        );
        assert!(line(Fate::Beats).ends_with("why; left, its runner gives signs of life"));
        assert!(line(Fate::TooMany { unknown: 3, tasks: 4 }).contains("3 of 4 tasks are unknown here"));
    }
}
