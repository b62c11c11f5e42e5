//! What a closed task has cost: its line in the ledger, the budget of its tenant, metrics. Used by the billing loop and
//! where an exit event is handled.

use std::sync::Arc;

use spillway_bus::{BusError, LedgerLine, OpenTaskEntry, Record, TaskFacts, TaskKey, Tasks};
use spillway_cost::Platform;
use spillway_launchers::{ExitReport, TaskLinks};
use spillway_protocol::ledger::RecordingTotals;
use tracing::warn;

use super::entry::{Entry, TaskEnd, entry, month};
use crate::config::tenants::OverBudget;
use crate::instance::Instance;
use crate::overheads::UsualOverheads;
use crate::records::Records;
use crate::report;
use crate::targets::Targets;

/// Takes a line of the ledger, besides Redis: standard output in production.
pub type LedgerSink = Box<dyn Fn(&str) + Send + Sync>;

/// Closes tasks with their ledger lines.
pub struct TaskAccounts {
    /// Prices and budgets are of its configuration.
    pub instance: Arc<Instance>,
    /// Which tasks are wanted, and what they recorded.
    pub records: Records,
    /// Open tasks and the ledger.
    pub tasks: Tasks,
    /// Learnt from each line.
    pub overheads: UsualOverheads,
    /// Where the tasks of exit events ran, for links.
    pub targets: Arc<Targets>,
    /// Gets each line.
    pub ledger_sink: Option<LedgerSink>,
}

impl TaskAccounts {
    /// Closes a task whose exit was reported, unless a record still wants it or its bill is not known yet.
    ///
    /// # Errors
    /// When Redis does not answer; the billing loop closes the task later.
    pub async fn close_exited(&self, key: &TaskKey, exit_report: &ExitReport) -> Result<(), BusError> {
        let Some(open) = self.tasks.list().await?.into_iter().find(|open| open.task == *key) else { return Ok(()) };
        let Ok(facts) = serde_json::from_str::<TaskFacts>(&open.facts) else { return Ok(()) };
        let record = self.records.registry.get(&key.egress_id).await?;
        let current = record.as_ref().filter(|record| record.attempt == key.attempt);
        if current.is_some_and(|record| record.wants(key.attempt)) || lacks_its_bill(&facts, exit_report) {
            return Ok(());
        }
        let task = record.as_ref().and_then(|record| record.task_of(key.attempt));
        let links = task.map(|task| self.targets.links(task)).unwrap_or_default();
        self.write(&open, &facts, &TaskEnd { links, ..self.end_of(&facts, current, Some(exit_report)) }).await
    }

    /// How a task ended, without its links. `record`: if it is still at this attempt. `exit_report`: what the platform says; `None`: nothing.
    pub(super) fn end_of(
        &self,
        facts: &TaskFacts,
        record: Option<&Record>,
        exit_report: Option<&ExitReport>,
    ) -> TaskEnd {
        let info = record.and_then(|record| report::info_of(record).ok()).unwrap_or_default();
        let ended_ms = info.ended_at / 1_000_000;
        let now_ms = self.instance.clock.unix_ms();
        let own = (facts.opened_ms, if ended_ms > 0 { ended_ms } else { now_ms });
        let billed = exit_report.and_then(|exit_report| exit_report.billed);
        let (from_ms, to_ms) = billed.map_or(own, |billed| (billed.from, billed.to));
        // Bytes that a salvage run stored are in its own line: the line of the task before it was written earlier.
        let recorded = RecordingTotals::of(&info);
        TaskEnd {
            from_ms,
            to_ms: to_ms.max(from_ms),
            by_vendor: billed.is_some(),
            never_ran: match exit_report {
                Some(exit_report) => exit_report.how.never_ran(),
                None => info.started_at == 0,
            },
            machine: exit_report.and_then(|exit_report| exit_report.machine),
            bytes: recorded.bytes,
            recorded_s: recorded.lasted as f64 / 1e9,
            outcome: match (record.is_some(), exit_report) {
                (true, _) if info.error.is_empty() => info.status().as_str_name().to_lowercase(),
                (true, _) => info.error.clone(),
                (false, Some(exit_report)) => exit_report.to_string(),
                (false, None) => "replaced".to_owned(),
            },
            links: TaskLinks::default(),
        }
    }

    /// Closes the task in Redis with its ledger line, and updates metrics and budget.
    ///
    /// # Errors
    /// When Redis does not answer; a retry is right.
    pub(super) async fn write(&self, open: &OpenTaskEntry, facts: &TaskFacts, end: &TaskEnd) -> Result<(), BusError> {
        let config = self.instance.config();
        let extra_s = self.overheads.extra_s(&open.target);
        let entry = entry(&open.task, (&open.tenant, &open.target), facts, end, &config.prices, extra_s);
        let text = serde_json::to_string(&entry).unwrap_or_default();
        let month = month(self.instance.clock.unix_ms());
        let line = LedgerLine { text: &text, month: &month, tenant: &open.tenant, amount: entry.amount };
        if !self.tasks.close(&open.task, line).await? {
            return Ok(());
        }
        if let Some(extra_s) = entry.extra_s() {
            self.overheads.learn(&entry.target, extra_s);
        }
        if let Some(emit) = &self.ledger_sink {
            emit(&text);
        }
        self.measure(&entry);
        let rules = config.tenants.rules(&open.tenant);
        if let Some(budget) = rules.month_budget {
            let spent = self.tasks.spent(&month, &open.tenant).await?;
            let tenant = [("tenant", open.tenant.as_str())];
            self.instance.metrics.set("spillway_budget_dollars", &tenant, budget);
            self.instance.metrics.set("spillway_spent_this_month_dollars", &tenant, spent);
            if spent >= budget && spent - entry.amount < budget {
                let refuses = rules.over_budget == OverBudget::Refuse;
                warn!(tenant = open.tenant, spent, budget, refuses, "budget of the month is used up");
            }
        }
        Ok(())
    }

    fn measure(&self, entry: &Entry) {
        let labels = [("type", entry.kind.as_str()), ("target", entry.target.as_str())];
        self.instance.metrics.observe("spillway_cost_dollars", &labels, entry.amount);
        self.instance.metrics.count("spillway_billed_seconds_total", &labels, entry.seconds);
        if entry.page {
            self.instance.metrics.count("spillway_page_billed_seconds_total", &labels, entry.seconds);
        }
    }
}

/// The platform will report the billed window, and has not yet.
pub(super) fn lacks_its_bill(facts: &TaskFacts, exit_report: &ExitReport) -> bool {
    exit_report.billed.is_none() && !exit_report.how.never_ran() && facts.platform != Platform::Host
}
