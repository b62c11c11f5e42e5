//! Looks for tasks that belong to no egress and ends them, by the rules of `orphan_tracker`. Runs in the billing loop
//! and, for `--sweep`, by itself. Egresses whose task is gone are only named: the control loop ends those.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use spillway_bus::{BusError, FoundRecord, Phase};
use spillway_launchers::{OwnedTask, StopMode, TaskRef, TaskStatus};
use spillway_process::chain;
use spillway_protocol::ids::EgressId;
use tokio::time::Instant;
use tracing::{debug, error, info, warn};

use super::lease::BillingLease;
use super::orphan_tracker::{Fate, Finding, OrphanObservation, OrphanTracker, unwanted};
use crate::installation::InstallationId;
use crate::instance::Instance;
use crate::records::Records;
use crate::targets::{Target, Targets};

/// Between two observations of `--sweep`; a heartbeat expires after 6 s.
const SWEEP_EVERY: Duration = Duration::from_secs(5);

/// Where tasks and their records are looked for. Clones look in the same places.
#[derive(Clone)]
pub struct OrphanSearch {
    /// The grace is of its configuration.
    pub instance: Arc<Instance>,
    /// What wants a task.
    pub records: Records,
    /// Where tasks may be.
    pub targets: Arc<Targets>,
    /// A task of another one is left alone.
    pub installation: InstallationId,
}

/// State of the search between rounds.
pub(super) struct Orphans {
    search: OrphanSearch,
    lease: BillingLease,
    tracker: OrphanTracker,
    /// Foreign tasks that were logged.
    reported: HashSet<TaskRef>,
    /// The last round ended no task, because too many were unknown.
    stopped: bool,
}

impl Orphans {
    /// Has observed nothing yet.
    pub fn new(search: OrphanSearch, lease: BillingLease) -> Self {
        Self { search, lease, tracker: OrphanTracker::default(), reported: HashSet::new(), stopped: false }
    }

    /// One observation. With the number of the billing lease it covers every target; without it only this machine's
    /// processes, which no other dispatcher can see.
    ///
    /// # Errors
    /// When Redis does not answer; the next round is the retry, and the grace begins anew.
    pub async fn round(&mut self, lease: Option<u64>) -> Result<(), BusError> {
        let OrphanSearch { instance, targets: all, .. } = self.search.clone();
        let mut targets = all.known();
        targets.retain(|target| lease.is_some() || target.launcher.is_this_machine());
        let looked = async {
            let ours = self.search.installation.find().await?;
            Ok::<_, BusError>((ours, self.search.observe(&targets).await?))
        };
        let (ours, seen) = looked.await.inspect_err(|_| self.tracker.forget())?;
        let findings = self.tracker.diagnose(seen, ours.as_deref(), instance.config().orphan_grace, Instant::now());
        self.report(&findings);
        for finding in findings {
            let Finding::Task { target, task, why, fate: Fate::End { seen_for } } = finding else { continue };
            let Some(target) = all.named(&target) else { continue };
            // Another dispatcher may have got the lease since.
            if let Some(number) = lease.filter(|_| !target.launcher.is_this_machine())
                && !self.lease.is_current(number).await
            {
                return Ok(());
            }
            if !self.search.holds_now(&task).await? {
                continue;
            }
            let (seconds, name) = (seen_for.as_secs(), target.name());
            warn!(egress_id = %task.egress_id, attempt = task.attempt, task = %task.task, why, seconds, "orphan ended");
            instance.metrics.count("spillway_orphans_total", &[("target", name)], 1.0);
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
        self.search.instance.metrics.gauges("spillway_tasks_foreign", "target", targets);
        if let Some((unknown, tasks)) = too_many {
            self.search.instance.metrics.count("spillway_orphan_rounds_stopped_total", &[], 1.0);
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

impl OrphanSearch {
    /// Every task of these targets, with its record and heartbeat. A platform that does not answer lists none.
    async fn observe(&self, targets: &[Arc<Target>]) -> Result<Vec<OrphanObservation>, BusError> {
        let mut all = Vec::new();
        for target in targets {
            let tasks = match target.launcher.tasks().await {
                Ok(tasks) => tasks,
                Err(error) => {
                    debug!(target = target.name(), error = %chain(&error), "tasks not listed, no search for orphans");
                    continue;
                }
            };
            let ids: Vec<EgressId> = tasks.iter().map(|task| task.egress_id.clone()).collect();
            let stored = self.records.registry.get_all(&ids).await?;
            let heartbeats = self.records.heartbeats.last_of(&ids).await?;
            for ((task, stored), beat) in tasks.into_iter().zip(stored).zip(heartbeats) {
                let heartbeats = beat.is_some_and(|(_, beat)| beat.attempt == task.attempt);
                all.push(OrphanObservation { target: target.name().to_owned(), task, stored, heartbeats });
            }
        }
        Ok(all)
    }

    /// The finding still holds.
    async fn holds_now(&self, task: &OwnedTask) -> Result<bool, BusError> {
        let stored = self
            .records
            .registry
            .get_all(std::slice::from_ref(&task.egress_id))
            .await?
            .pop()
            .unwrap_or(FoundRecord::Unreadable);
        let beat = self.records.heartbeats.last(&task.egress_id).await?;
        let heartbeats = beat.is_some_and(|(_, beat)| beat.attempt == task.attempt);
        let same = self.installation.find().await?.as_ref() == Some(&task.installation);
        Ok(same && !heartbeats && unwanted(task, &stored).is_some())
    }

    /// Orphaned tasks, and egresses without a task, for an operator; changes nothing. Observes for the grace where a task
    /// may turn out to be an orphan.
    ///
    /// # Errors
    /// When Redis does not answer; a repeat is right.
    pub async fn sweep(&self) -> Result<Vec<Finding>, BusError> {
        let (mut tracker, grace) = (OrphanTracker::default(), self.instance.config().orphan_grace);
        // Time of the first observation with something to wait for.
        let mut since = None;
        let mut findings = loop {
            let ours = self.installation.find().await?;
            let seen = self.observe(&self.targets.known()).await?;
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
        for record in self.records.registry.list_live().await? {
            if matches!(record.phase(), Phase::Over | Phase::Accepted)
                || self.records.heartbeats.last(&record.egress_id).await?.is_some()
            {
                continue;
            }
            let why = match self.targets.status(&record).await {
                // The answer of its launch call is not known yet.
                None if record.state.is_asked() => continue,
                None => "it has no task and no heartbeat".to_owned(),
                Some(TaskStatus::Gone(exit_report)) => format!("its task is gone: {exit_report}"),
                Some(_) => continue,
            };
            findings.push(Finding::Egress { egress_id: record.egress_id.clone(), phase: record.phase(), why });
        }
        Ok(findings)
    }

    /// Ends the tasks that [`OrphanSearch::sweep`] found to be orphans for the whole grace, if they still are.
    ///
    /// # Errors
    /// When Redis does not answer; what is left is found by the next sweep.
    pub async fn end(&self, findings: &[Finding]) -> Result<(), BusError> {
        for finding in findings {
            if let Finding::Task { target, task, fate: Fate::End { .. }, .. } = finding
                && let Some(target) = self.targets.named(target)
                && self.holds_now(task).await?
            {
                target.launcher.end(&task.task, StopMode::Immediate).await;
            }
        }
        Ok(())
    }
}
