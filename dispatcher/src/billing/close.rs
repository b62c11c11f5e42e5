//! Closes tasks that no record wants any more: asks their platforms whether they are gone and what they bill, writes a
//! line into the ledger, ends those that linger. Runs in the billing loop of the lease holder; [`close_exited`] also where an
//! exit event is handled. Redis closes a task once, so two dispatchers write one line.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use spillway_bus::{BusError, LedgerLine, OpenTaskEntry, Record, TaskFacts, TaskKey};
use spillway_cost::Platform;
use spillway_launchers::{ExitReport, StopMode, TaskRef, TaskStatus};
use spillway_protocol::livekit::EgressInfo;
use tokio::time::Instant;
use tracing::{error, info};

use super::entry::{Entry, TaskEnd, entry, month};
use crate::config::tenants::OverBudget;
use crate::context::Context;
use crate::liveness::is_beating;
use crate::report;
use crate::targets::Target;

/// Platforms report the billed window up to a minute after the task is gone.
const BILL_TIMEOUT: Duration = Duration::from_secs(60);
/// A task that still runs so long after its egress is over is ended.
const LINGERS: Duration = Duration::from_secs(90);

/// Before a task that still runs is ended again.
const END_AGAIN: Duration = Duration::from_secs(30);

/// State of the closing between rounds.
pub(super) struct TaskCloser {
    context: Arc<Context>,
    /// Since when no record has wanted the task.
    done_since: HashMap<TaskKey, Instant>,
    /// When it was last ended because it lingered.
    ended_at: HashMap<TaskKey, Instant>,
    /// Tasks whose facts were reported as unreadable.
    unreadable: HashSet<TaskKey>,
}

/// An open task that no record wants.
struct ClosingTask {
    open: OpenTaskEntry,
    facts: TaskFacts,
    /// The record, if it is still at this attempt.
    current: Option<Record>,
    /// The platform's reference, where the record has it and the target is configured here.
    task: Option<(TaskRef, Arc<Target>)>,
    done_for: Duration,
}

impl TaskCloser {
    /// Knows of no task yet.
    pub fn new(context: Arc<Context>) -> Self {
        Self { context, done_since: HashMap::new(), ended_at: HashMap::new(), unreadable: HashSet::new() }
    }

    /// Goes through all open tasks.
    ///
    /// # Errors
    /// When Redis does not answer; the next round is the retry.
    pub async fn round(&mut self) -> Result<(), BusError> {
        let open = self.context.tasks.list().await?;
        self.done_since.retain(|key, _| open.iter().any(|task| task.task == *key));
        self.ended_at.retain(|key, _| open.iter().any(|task| task.task == *key));
        self.unreadable.retain(|key| open.iter().any(|task| task.task == *key));
        self.context.metrics.gauges("spillway_tasks_open", "target", open.iter().map(|task| task.target.as_str()));
        let mut closings = Vec::new();
        for task in open {
            if !self.context.is_live(&task.task) {
                closings.extend(self.closing(task).await?);
            }
        }
        let task_statuses = poll_statuses(&closings).await;
        for (closing, task_status) in closings.into_iter().zip(task_statuses) {
            self.attend(closing, task_status).await?;
        }
        Ok(())
    }

    async fn closing(&mut self, open: OpenTaskEntry) -> Result<Option<ClosingTask>, BusError> {
        let facts = match serde_json::from_str::<TaskFacts>(&open.facts) {
            Ok(facts) => facts,
            // Its task may run, and its bill can be written by the version that opened it.
            Err(error) => {
                if self.unreadable.insert(open.task.clone()) {
                    error!(task = %open.task, %error, "facts of an open task cannot be read; it is left open");
                }
                return Ok(None);
            }
        };
        let record = self.context.registry.get(&open.task.egress_id).await?;
        // Opened for an attempt that the record has not reached yet.
        if record.as_ref().is_some_and(|record| record.attempt < open.task.attempt && !record.state.is_over())
            && self.context.clock.unix_ms() - facts.opened_ms < 60_000
        {
            return Ok(None);
        }
        let task = record.as_ref().and_then(|record| record.task_of(open.task.attempt)).cloned();
        let task = task.and_then(|task| Some((task, self.context.targets.named(&open.target)?)));
        let current = record.filter(|record| record.attempt == open.task.attempt);
        // The index of live records was old.
        if current.as_ref().is_some_and(|record| record.wants(open.task.attempt)) {
            return Ok(None);
        }
        let now = Instant::now();
        let done_for = now - *self.done_since.entry(open.task.clone()).or_insert(now);
        Ok(Some(ClosingTask { open, facts, current, task, done_for }))
    }

    async fn attend(&mut self, closing: ClosingTask, task_status: Option<TaskStatus>) -> Result<(), BusError> {
        let ClosingTask { open, facts, current, task, done_for } = closing;
        let end = match self.presence(task_status, current.as_ref()).await? {
            Presence::Gone(exit_report) => {
                if lacks_its_bill(&facts, &exit_report) && done_for < BILL_TIMEOUT {
                    return Ok(());
                }
                end_of(&self.context, &facts, current.as_ref(), Some(&exit_report))
            }
            Presence::There => {
                if let (true, Some((task, target))) = (done_for >= LINGERS, task) {
                    self.send_away(open, task, target);
                }
                return Ok(());
            }
            // Its platform does not know it or cannot be asked: our own clock decides.
            Presence::Nowhere if done_for < BILL_TIMEOUT / 4 => return Ok(()),
            Presence::Nowhere => end_of(&self.context, &facts, current.as_ref(), None),
        };
        self.done_since.remove(&open.task);
        write(&self.context, &open, &facts, &end).await
    }

    fn send_away(&mut self, open: OpenTaskEntry, task: TaskRef, target: Arc<Target>) {
        let now = Instant::now();
        if self.ended_at.get(&open.task).is_some_and(|at| now - *at < END_AGAIN) {
            return;
        }
        info!(egress_id = %open.task.egress_id, %task, "its egress is over for long, task ended");
        self.ended_at.insert(open.task, now);
        // In the background: a slow platform must not delay the round.
        self.context.spawn(async move {
            target.launcher.end(&task, StopMode::Immediate).await;
        });
    }

    async fn presence(&self, task_status: Option<TaskStatus>, record: Option<&Record>) -> Result<Presence, BusError> {
        Ok(match (task_status, record) {
            (Some(TaskStatus::Gone(exit_report)), _) => Presence::Gone(exit_report),
            (Some(TaskStatus::Alive | TaskStatus::Starting(_)), _) => Presence::There,
            (Some(TaskStatus::Unknown(_)), Some(record)) if is_beating(&self.context.heartbeats, record).await? => {
                Presence::There
            }
            (Some(TaskStatus::Unknown(_)) | None, _) => Presence::Nowhere,
        })
    }
}

/// Status of each on its platform, many per call; `None` where no platform can be asked.
async fn poll_statuses(closings: &[ClosingTask]) -> Vec<Option<TaskStatus>> {
    let mut by_target: BTreeMap<&str, (&Target, Vec<usize>)> = BTreeMap::new();
    for (nth, closing) in closings.iter().enumerate() {
        if let Some((_, target)) = &closing.task {
            by_target.entry(target.name()).or_insert((target, Vec::new())).1.push(nth);
        }
    }
    let polls = by_target.into_values().map(|(target, nths)| async move {
        let mut seen = Vec::new();
        for some in nths.chunks(target.launcher.max_status_batch()) {
            let tasks = some.iter().filter_map(|nth| closings[*nth].task.as_ref());
            let tasks: Vec<TaskRef> = tasks.map(|(task, _)| task.clone()).collect();
            let polled = target.statuses(&tasks).await;
            let silent =
                || tasks.iter().map(|_| TaskStatus::Unknown("the platform does not answer".to_owned())).collect();
            seen.extend(some.iter().copied().zip(polled.unwrap_or_else(silent)));
        }
        seen
    });
    let mut task_statuses: Vec<Option<TaskStatus>> = closings.iter().map(|_| None).collect();
    for (nth, task_status) in join_all(polls).await.into_iter().flatten() {
        task_statuses[nth] = Some(task_status);
    }
    task_statuses
}

/// Closes a task whose exit was reported, unless a record still wants it or its bill is not known yet.
///
/// # Errors
/// When Redis does not answer; the billing loop closes the task later.
pub async fn close_exited(context: &Context, key: &TaskKey, exit_report: &ExitReport) -> Result<(), BusError> {
    let Some(open) = context.tasks.list().await?.into_iter().find(|open| open.task == *key) else { return Ok(()) };
    let Ok(facts) = serde_json::from_str::<TaskFacts>(&open.facts) else { return Ok(()) };
    let record = context.registry.get(&key.egress_id).await?;
    let current = record.as_ref().filter(|record| record.attempt == key.attempt);
    if current.is_some_and(|record| record.wants(key.attempt)) || lacks_its_bill(&facts, exit_report) {
        return Ok(());
    }
    write(context, &open, &facts, &end_of(context, &facts, current, Some(exit_report))).await
}

/// The platform will report the billed window, and has not yet.
fn lacks_its_bill(facts: &TaskFacts, exit_report: &ExitReport) -> bool {
    exit_report.billed.is_none() && !exit_report.how.never_ran() && facts.platform != Platform::Host
}

fn end_of(context: &Context, facts: &TaskFacts, record: Option<&Record>, exit_report: Option<&ExitReport>) -> TaskEnd {
    let info = record.and_then(|record| report::info_of(record).ok()).unwrap_or_default();
    let ended_ms = info.ended_at / 1_000_000;
    let now_ms = context.clock.unix_ms();
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
    }
}

/// Closes the task in Redis with its ledger line, and updates metrics and budget.
async fn write(context: &Context, open: &OpenTaskEntry, facts: &TaskFacts, end: &TaskEnd) -> Result<(), BusError> {
    let config = context.config();
    let extra_s = context.overheads().extra_s(&open.target);
    let entry = entry(&open.task, (&open.tenant, &open.target), facts, end, &config.prices, extra_s);
    let text = serde_json::to_string(&entry).unwrap_or_default();
    let month = month(context.clock.unix_ms());
    let line = LedgerLine { text: &text, month: &month, tenant: &open.tenant, amount: entry.amount };
    if !context.tasks.close(&open.task, line).await? {
        return Ok(());
    }
    if let Some(extra_s) = entry.extra_s() {
        context.overheads().learn(&entry.target, extra_s);
    }
    context.emit_ledger_line(&text);
    measure(context, &entry);
    let rules = config.tenants.rules(&open.tenant);
    if let Some(budget) = rules.month_budget {
        let spent = context.tasks.spent(&month, &open.tenant).await?;
        let tenant = [("tenant", open.tenant.as_str())];
        context.metrics.set("spillway_budget_dollars", &tenant, budget);
        context.metrics.set("spillway_spent_this_month_dollars", &tenant, spent);
        if spent >= budget && spent - entry.amount < budget {
            let refuses = rules.over_budget == OverBudget::Refuse;
            tracing::warn!(tenant = open.tenant, spent, budget, refuses, "budget of the month is used up");
        }
    }
    Ok(())
}

fn measure(context: &Context, entry: &Entry) {
    let labels = [("type", entry.kind.as_str()), ("target", entry.target.as_str())];
    context.metrics.observe("spillway_cost_dollars", &labels, entry.amount);
    context.metrics.count("spillway_billed_seconds_total", &labels, entry.seconds);
}

enum Presence {
    Gone(ExitReport),
    There,
    Nowhere,
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
