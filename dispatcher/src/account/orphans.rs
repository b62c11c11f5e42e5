//! Tasks that belong to no egress, and egresses whose task is nowhere. The watch settles the second kind by itself; here
//! they are only named for people.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use spillway_bus::{BusError, Phase, Record};
use spillway_launchers::{EndHow, OwnedTask, Sighting, TaskRef};
use spillway_process::chain;
use spillway_protocol::ids::EgressId;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::is_current;
use crate::house::{Dispatch, House};
use crate::targets::Target;

/// What one look found; pure from here to there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// A task of ours that no live record stands at.
    Task { target: String, task: OwnedTask, why: String, old_enough: bool },
    /// A record whose task is gone, or that never had one.
    Egress { egress_id: EgressId, phase: Phase, why: String },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Task { target, task, why, old_enough } => {
                let then = if *old_enough { "to be ended" } else { "too young to be ended" };
                write!(f, "task\t{target}\t{}\t{}/{}\t{why}; {then}", task.task, task.egress_id, task.attempt)
            }
            Self::Egress { egress_id, phase, why } => {
                write!(f, "egress\t{egress_id}\t{}\t{why}; to be settled", format!("{phase:?}").to_lowercase())
            }
        }
    }
}

/// Why nobody wants this task; `None`: somebody does, or may.
pub fn is_orphan(task: &OwnedTask, record: Option<&Record>) -> Option<String> {
    let Some(record) = record else { return Some("its egress is not known".to_owned()) };
    match record.phase {
        _ if task.attempt < record.attempt => Some(format!("attempt {} took its place", record.attempt)),
        Phase::Over => Some("its egress is over".to_owned()),
        // A newer one was asked for by a dispatcher that has not written it down: not an orphan before that is settled.
        _ => None,
    }
}

pub(super) struct Orphans {
    house: Arc<House>,
    /// Where the platform does not say since when a task is there.
    first_seen: HashMap<TaskRef, Instant>,
}

impl Orphans {
    pub fn new(house: Arc<House>) -> Self {
        Self { house, first_seen: HashMap::new() }
    }

    /// With the lease's number for platforms that everybody sees; a machine of one's own is seen by its dispatcher alone.
    pub async fn round(&mut self, lease: Option<u64>) -> Result<(), BusError> {
        let targets = self.house.targets.known();
        let mut seen = HashSet::new();
        for target in targets {
            if lease.is_none() && !target.launcher.is_this_machine() {
                continue;
            }
            for finding in self.look(&target, &mut seen).await? {
                let Finding::Task { task, why, old_enough: true, .. } = finding else { continue };
                // Between our look and now another may have taken over.
                if let Some(number) = lease.filter(|_| !target.launcher.is_this_machine())
                    && !is_current(&self.house, number).await
                {
                    return Ok(());
                }
                warn!(egress_id = %task.egress_id, attempt = task.attempt, task = %task.task, why, "orphan ended");
                self.house.meter.count("spillway_orphans_total", &[("target", target.name())], 1.0);
                target.launcher.end(&task.task, EndHow::Now).await;
            }
        }
        self.first_seen.retain(|task, _| seen.contains(task));
        Ok(())
    }

    async fn look(&mut self, target: &Target, seen: &mut HashSet<TaskRef>) -> Result<Vec<Finding>, BusError> {
        let tasks = match target.launcher.tasks().await {
            Ok(tasks) => tasks,
            Err(error) => {
                debug!(target = target.name(), error = %chain(&error), "tasks not listed, no look for orphans");
                return Ok(Vec::new());
            }
        };
        let grace = self.house.config().orphan_grace;
        let now = Instant::now();
        let mut findings = Vec::new();
        let ids: Vec<EgressId> = tasks.iter().map(|task| task.egress_id.clone()).collect();
        let records = self.house.registry.get_all(&ids).await?;
        for (task, record) in tasks.into_iter().zip(records) {
            seen.insert(task.task.clone());
            let first_seen = *self.first_seen.entry(task.task.clone()).or_insert(now);
            let Some(why) = is_orphan(&task, record.as_ref()) else { continue };
            let since_ms = task.started_ms.map_or(0, |started| self.house.clock.unix_ms() - started);
            let age = (now - first_seen).max(Duration::from_millis(u64::try_from(since_ms).unwrap_or(0)));
            // One whose egress has just ended is leaving by itself.
            let ended_ms = record.as_ref().map_or(0, |record| self.ended_ms(record));
            let since_end = Duration::from_millis(u64::try_from(self.house.clock.unix_ms() - ended_ms).unwrap_or(0));
            let old_enough = age >= grace && since_end >= grace.min(Duration::from_secs(60));
            findings.push(Finding::Task { target: target.name().to_owned(), task, why, old_enough });
        }
        Ok(findings)
    }

    fn ended_ms(&self, record: &Record) -> i64 {
        crate::report::info_of(record).map_or(0, |info| info.ended_at / 1_000_000)
    }
}

/// Both ways, without changing anything: for people.
pub async fn report(house: &Arc<House>) -> Result<Vec<Finding>, BusError> {
    let mut orphans = Orphans::new(Arc::clone(house));
    let mut findings = Vec::new();
    for target in house.targets.known() {
        findings.extend(orphans.look(&target, &mut HashSet::new()).await?);
    }
    for record in house.registry.list_live().await? {
        if matches!(record.phase, Phase::Over | Phase::Accepted) || house.beats.last(&record.egress_id).await?.is_some()
        {
            continue;
        }
        let why = match house.targets.look(&record).await {
            None if Dispatch::of(&record).asked => continue,
            None => "it has no task and no heartbeat".to_owned(),
            Some(Sighting::Gone(departed)) => format!("its task is gone: {departed}"),
            Some(_) => continue,
        };
        findings.push(Finding::Egress { egress_id: record.egress_id.clone(), phase: record.phase, why });
    }
    Ok(findings)
}

/// Ends what [`report`] found to be old enough.
pub async fn end(house: &House, findings: &[Finding]) {
    for finding in findings {
        if let Finding::Task { target, task, old_enough: true, .. } = finding
            && let Some(target) = house.targets.named(target)
        {
            target.launcher.end(&task.task, EndHow::Now).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(attempt: u32) -> OwnedTask {
        let id = EgressId::parse("EG_1").unwrap();
        let task = TaskRef { launcher: "paper".to_owned(), id: "7".to_owned() };
        OwnedTask { egress_id: id, attempt, task, started_ms: None }
    }

    #[test]
    fn a_task_is_wanted_while_its_attempt_is_the_records() {
        let mut record = Record::new(EgressId::parse("EG_1").unwrap(), 1);
        record.attempt = 2;
        for phase in [Phase::Accepted, Phase::Launching, Phase::Running, Phase::Ending, Phase::Lost] {
            record.phase = phase;
            assert_eq!(is_orphan(&task(2), Some(&record)), None);
            assert_eq!(is_orphan(&task(1), Some(&record)).unwrap(), "attempt 2 took its place");
        }
        record.phase = Phase::Over;
        assert_eq!(is_orphan(&task(2), Some(&record)).unwrap(), "its egress is over");
        assert_eq!(is_orphan(&task(2), None).unwrap(), "its egress is not known");
    }
}
