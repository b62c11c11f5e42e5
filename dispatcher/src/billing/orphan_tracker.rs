//! Which tasks belong to no egress, according to several observations. Pure: observations and the time come in,
//! findings go out; `orphans` makes the observations and ends tasks.
//!
//! A task is ended only when all of this held in every observation for the whole grace: it carries the id of the
//! installation that this Redis has, no record wants it, and it has no heartbeat. A task of another installation, of an
//! older dispatcher (which wrote no id), or of a Redis that lost its content is reported and left alone. When most tasks
//! seem unknown at once, the registry is wrong, and none is ended.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::time::Duration;

use spillway_bus::{FoundRecord, Phase};
use spillway_launchers::{OwnedTask, TaskRef};
use spillway_protocol::ids::EgressId;
use tokio::time::Instant;

/// Observations further apart than this say nothing about the time between them. A dispatcher makes one every 30 s.
const LONGEST_GAP: Duration = Duration::from_secs(90);
/// Up to so many unknown tasks may be an accident; more than this and more than half of all are the loss of a registry.
const FEW: usize = 2;

/// What an observation showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// A task with our stack's name that no record wants.
    Task {
        /// Where it was listed.
        target: String,
        /// With the labels it carries.
        task: OwnedTask,
        /// Why no record wants it.
        why: String,
        /// What is done about it.
        fate: Fate,
    },
    /// A record whose task is gone, or that never had one.
    Egress {
        /// Of the record.
        egress_id: EgressId,
        /// Of the record.
        phase: Phase,
        /// What is missing.
        why: String,
    },
}

/// What is done about a task that no record wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Ended: it was an orphan in every observation.
    End {
        /// At least the grace.
        seen_for: Duration,
    },
    /// Left until the grace is over.
    Wait {
        /// Of the grace.
        left: Duration,
    },
    /// Left: its runner sends heartbeats.
    Beats,
    /// Left: another installation's, or it carries no installation id.
    Foreign {
        /// Which of them.
        reason: String,
    },
    /// Left: most tasks look like this one.
    TooMany {
        /// Tasks without a record.
        unknown: usize,
        /// All tasks of this installation.
        tasks: usize,
    },
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
                write!(f, "egress\t{egress_id}\t{}\t{why}; to be ended", format!("{phase:?}").to_lowercase())
            }
        }
    }
}

/// Why no record wants this task; `None`: one does, or may, as a record does that this version cannot read.
pub(super) fn unwanted(task: &OwnedTask, stored: &FoundRecord) -> Option<String> {
    match stored {
        FoundRecord::Absent => Some("its egress is not known".to_owned()),
        FoundRecord::Record(record) if task.attempt < record.attempt => {
            Some(format!("attempt {} took its place", record.attempt))
        }
        FoundRecord::Record(record) if record.state.is_over() => Some("its egress is over".to_owned()),
        // Another dispatcher may have requested a newer attempt and not written it yet: not an orphan so far.
        FoundRecord::Record(_) | FoundRecord::Unreadable => None,
    }
}

/// One task, as its platform and Redis show it.
pub(super) struct OrphanObservation {
    /// Where it was listed.
    pub target: String,
    /// With the labels it carries.
    pub task: OwnedTask,
    /// The record of its egress, at any attempt.
    pub stored: FoundRecord,
    /// There is a heartbeat of this attempt.
    pub heartbeats: bool,
}

/// Since when tasks have been orphans in every observation.
#[derive(Default)]
pub(super) struct OrphanTracker {
    first_seen: HashMap<TaskRef, Instant>,
    observed_at: Option<Instant>,
}

impl OrphanTracker {
    /// An observation failed: nothing is known about the time since the last one.
    pub fn forget(&mut self) {
        self.first_seen.clear();
    }

    /// `ours`: the id of the installation, as Redis has it now.
    pub fn diagnose(
        &mut self,
        all: Vec<OrphanObservation>,
        ours: Option<&str>,
        grace: Duration,
        now: Instant,
    ) -> Vec<Finding> {
        if self.observed_at.is_some_and(|before| now - before > LONGEST_GAP) {
            self.forget();
        }
        self.observed_at = Some(now);
        // Two targets may list the same task.
        let of_ours = |seen: &&OrphanObservation| ours == Some(seen.task.installation.as_str());
        let key = |seen: &OrphanObservation| (seen.task.egress_id.clone(), seen.task.attempt);
        let tasks: HashSet<_> = all.iter().filter(of_ours).map(key).collect();
        // A record that is over or at a later attempt is evidence; only a missing one may be lost.
        let lost = |seen: &&OrphanObservation| seen.stored == FoundRecord::Absent && !seen.heartbeats;
        let unknown: HashSet<_> = all.iter().filter(of_ours).filter(lost).map(key).collect();
        let too_many = (unknown.len() > FEW && 2 * unknown.len() > tasks.len())
            .then_some(Fate::TooMany { unknown: unknown.len(), tasks: tasks.len() });
        let before = std::mem::take(&mut self.first_seen);
        let mut findings = Vec::new();
        for OrphanObservation { target, task, stored, heartbeats } in all {
            let Some(why) = unwanted(&task, &stored) else { continue };
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

#[cfg(test)]
mod tests {
    use spillway_bus::{LaunchState, Record};

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
        let state = match phase {
            Phase::Accepted => LaunchState::Queued { renumber: false },
            Phase::Launching => LaunchState::Asking,
            Phase::Running | Phase::Ending => LaunchState::Running { task: None, ending: phase == Phase::Ending },
            Phase::Over => LaunchState::Ended { task: None, asked: true },
        };
        Record { state, attempt: 1, ..Record::new(task(number, 1).egress_id, 1) }
    }

    fn seen(number: u32, record: Option<Record>) -> OrphanObservation {
        let stored = record.map_or(FoundRecord::Absent, |record| FoundRecord::Record(Box::new(record)));
        OrphanObservation { target: "there".to_owned(), task: task(number, 1), stored, heartbeats: false }
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
        let at = |phase| FoundRecord::Record(Box::new(Record { attempt: 2, ..record(1, phase) }));
        for phase in [Phase::Accepted, Phase::Launching, Phase::Running, Phase::Ending] {
            assert_eq!(unwanted(&task(1, 2), &at(phase)), None);
            assert_eq!(unwanted(&task(1, 1), &at(phase)).unwrap(), "attempt 2 took its place");
        }
        assert_eq!(unwanted(&task(1, 2), &at(Phase::Over)).unwrap(), "its egress is over");
        assert_eq!(unwanted(&task(1, 2), &FoundRecord::Absent).unwrap(), "its egress is not known");
        assert_eq!(unwanted(&task(1, 2), &FoundRecord::Unreadable), None, "a newer version wants it, or does not");
    }

    #[test]
    fn an_orphan_is_ended_when_it_was_one_in_every_look_of_the_grace_however_old_it_is() {
        let always = |second| over_time(|_| Some((seen(1, None), Some(OURS))), second);
        assert_eq!(always(0), [Fate::Wait { left: GRACE }]);
        assert_eq!(always(90), [Fate::Wait { left: 30 * SECOND }]);
        assert_eq!(always(120), [Fate::End { seen_for: GRACE }]);
        // A heartbeat, a record, a failed observation or a long pause in between: the grace begins anew.
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
        assert_eq!(ended(3, 1, 0), 0, "nor what is over: the registry is not to be trusted");
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
