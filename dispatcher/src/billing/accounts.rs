//! What a closed task has cost: its line in the ledger, the budget of its tenant, metrics. Used by the billing loop and
//! where an exit event is handled.

use std::sync::Arc;

use spillway_bus::{BusError, LedgerLine, OpenTaskEntry, Record, TaskFacts, TaskKey, Tasks};
use spillway_cost::Platform;
use spillway_launchers::{ExitReport, TaskLinks};
use spillway_protocol::livekit::EgressInfo;
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
        let recorded = recorded(&info);
        TaskEnd {
            from_ms,
            to_ms: to_ms.max(from_ms),
            by_vendor: billed.is_some(),
            never_ran: match exit_report {
                Some(exit_report) => exit_report.how.never_ran(),
                None => info.started_at == 0,
            },
            machine: exit_report.and_then(|exit_report| exit_report.machine),
            bytes: recorded.0,
            recorded_s: recorded.1,
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

/// Bytes and seconds of the recording, whatever its outputs are.
fn recorded(info: &EgressInfo) -> (u64, f64) {
    let files = info.file_results.iter().map(|file| (file.size, file.started_at, file.duration));
    let segments = info.segment_results.iter().map(|hls| (hls.size, hls.started_at, hls.duration));
    let streams = info.stream_results.iter().map(|stream| (0, stream.started_at, stream.duration));
    // From the first image to the last one; their sizes are not told.
    let images = info.image_results.iter().map(|images| {
        let lasted = images.ended_at.saturating_sub(images.started_at);
        (0, images.started_at, lasted)
    });
    let results: Vec<(i64, i64, i64)> = files.chain(segments).chain(streams).chain(images).collect();
    let bytes = results.iter().map(|(bytes, ..)| u64::try_from(*bytes).unwrap_or(0)).sum();
    // An egress starts with its request and may end long after its outputs, so their own times come first.
    let max_ns = results.iter().map(|(.., duration)| *duration).max().unwrap_or(0);
    let began = results.iter().map(|(_, began, _)| *began).filter(|at| *at > 0).min();
    let lasted = match (max_ns, began.unwrap_or(info.started_at), info.ended_at) {
        (max_ns, _, _) if max_ns > 0 => max_ns,
        (_, began, ended) if began > 0 && ended > began => ended - began,
        _ => 0,
    };
    (bytes, lasted as f64 / 1e9)
}

#[cfg(test)]
mod tests {
    use spillway_protocol::livekit::{FileInfo, ImagesInfo, SegmentsInfo, StreamInfo};

    use super::*;

    #[test]
    fn every_kind_of_output_is_billed() {
        let file = FileInfo { size: 700, started_at: 2_000_000_000, duration: 4_000_000_000, ..FileInfo::default() };
        let hls =
            SegmentsInfo { size: 300, started_at: 1_000_000_000, duration: 5_000_000_000, ..SegmentsInfo::default() };
        let stream = StreamInfo { started_at: 1_500_000_000, duration: 3_000_000_000, ..StreamInfo::default() };
        let info = |files: Vec<FileInfo>, segments: Vec<SegmentsInfo>, streams: Vec<StreamInfo>| EgressInfo {
            started_at: 1,
            ended_at: 9_000_000_000,
            file_results: files,
            segment_results: segments,
            stream_results: streams,
            ..EgressInfo::default()
        };
        assert_eq!(recorded(&info(vec![], vec![hls.clone()], vec![])), (300, 5.0));
        assert_eq!(recorded(&info(vec![], vec![], vec![stream.clone()])), (0, 3.0));
        assert_eq!(recorded(&info(vec![file], vec![hls.clone()], vec![stream])), (1000, 5.0));
        let images = ImagesInfo { started_at: 1_500_000_000, ended_at: 8_500_000_000, ..ImagesInfo::default() };
        let alone = EgressInfo { image_results: vec![images], ..info(vec![], vec![], vec![]) };
        assert_eq!(recorded(&alone), (0, 7.0));
        // No output says how long it was.
        let unmeasured = SegmentsInfo { duration: 0, ..hls };
        assert_eq!(recorded(&info(vec![], vec![unmeasured], vec![])), (300, 8.0));
    }
}
