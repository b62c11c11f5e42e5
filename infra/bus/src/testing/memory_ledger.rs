//! Open tasks and the ledger in memory: what the scripts of `redis::task_ledger` do, in Rust. Pure: time is an
//! argument.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use spillway_model::{CapReached, CloseTask, OpenTask, Pace, SlotResult};
use tokio::time::Instant;

use crate::task_ledger::{CLOSED_REMEMBERED, MAX_LINES, MIN_PACE_FACTOR, PACE_RECOVERY, one_line};

/// State behind a memory broker's `TaskLedger`.
#[derive(Clone, Debug, Default)]
pub(super) struct MemoryLedger {
    tasks: BTreeMap<String, String>,
    counts: HashMap<String, u64>,
    buckets: HashMap<String, PaceBucket>,
    spent: HashMap<String, f64>,
    lines: Vec<(i64, String)>,
    /// Unix milliseconds.
    closed: HashMap<String, i64>,
}

#[derive(Clone, Copy, Debug)]
struct PaceBucket {
    /// When the bucket is full again without further launches.
    full_at: Instant,
    factor: f64,
    closed_until: Instant,
}

impl MemoryLedger {
    fn count(&self, name: &str) -> u64 {
        self.counts.get(name).copied().unwrap_or_default()
    }

    /// See `TaskLedger::open_task`.
    pub fn open(&mut self, args: &OpenTask<'_>, now: Instant) -> SlotResult {
        let task = args.task.to_string();
        if self.tasks.contains_key(&task) || self.closed.contains_key(&task) {
            return SlotResult::Granted { wait: Duration::ZERO, slowed: false };
        }
        let tenant = one_line(args.tenant);
        let names = names(&tenant, args.target);
        let caps = [args.caps.all, args.caps.tenant, args.caps.target];
        for ((name, cap), full) in names.iter().zip(caps).zip([CapReached::All, CapReached::Tenant, CapReached::Target])
        {
            if cap.is_some_and(|cap| self.count(name) >= cap) {
                return SlotResult::Refused(full);
            }
        }
        let mut answer = SlotResult::Granted { wait: Duration::ZERO, slowed: false };
        if let Some(pace) = args.pace {
            let bucket = self.buckets.entry(args.target.to_owned()).or_insert(PaceBucket {
                full_at: now,
                factor: 1.0,
                closed_until: now,
            });
            let start = bucket.full_at.max(now);
            let slot_at = start.checked_sub(pace.tolerance()).unwrap_or(now).max(bucket.closed_until);
            let wait = slot_at.saturating_duration_since(now);
            if wait > pace.max_wait {
                return SlotResult::Later(wait);
            }
            bucket.full_at = start + Duration::from_secs_f64(1.0 / (pace.per_second * bucket.factor));
            answer = SlotResult::Granted { wait, slowed: bucket.factor < 1.0 };
        }
        self.tasks.insert(task, format!("{tenant}\n{}\n{}", args.target, args.facts));
        for name in names {
            *self.counts.entry(name).or_default() += 1;
        }
        answer
    }

    /// See `TaskLedger::adjust_pace`.
    pub fn adjust_pace(&mut self, target: &str, pace: Pace, retry_after: Option<Duration>, now: Instant) {
        let Some(bucket) = self.buckets.get_mut(target) else { return };
        match retry_after {
            Some(retry_after) => {
                bucket.factor = (bucket.factor / 2.0).max(MIN_PACE_FACTOR);
                bucket.closed_until = bucket.closed_until.max(now + retry_after);
                // Empty, with one slot when `retry_after` has passed.
                bucket.full_at = bucket.full_at.max(bucket.closed_until + pace.tolerance());
            }
            None => bucket.factor = (bucket.factor + PACE_RECOVERY).min(1.0),
        }
    }

    /// See `TaskLedger::pace_states`: the factor, and until when the target is closed.
    pub fn pace_state(&self, target: &str) -> Option<(f64, Instant)> {
        self.buckets.get(target).map(|bucket| (bucket.factor, bucket.closed_until))
    }

    /// See `TaskLedger::close_task`.
    pub fn close(&mut self, close_task: &CloseTask<'_>, now_ms: i64) -> bool {
        let task = close_task.task.to_string();
        let Some(kept) = self.tasks.remove(&task) else { return false };
        let mut parts = kept.splitn(3, '\n');
        let (tenant, target) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        for name in names(tenant, target) {
            if let Some(count) = self.counts.get_mut(&name) {
                *count = count.saturating_sub(1);
            }
        }
        if let Some(line) = close_task.line {
            *self.spent.entry(format!("{} {}", line.month, one_line(line.tenant))).or_default() += line.amount;
            self.lines.push((now_ms, line.text.to_owned()));
            let surplus = self.lines.len().saturating_sub(usize::try_from(MAX_LINES).unwrap_or(usize::MAX));
            self.lines.drain(..surplus);
            let oldest = now_ms.saturating_sub(i64::try_from(CLOSED_REMEMBERED.as_millis()).unwrap_or(i64::MAX));
            self.closed.retain(|_, at| *at > oldest);
            self.closed.insert(task, now_ms);
        }
        true
    }

    /// See `TaskLedger::open_tasks`.
    pub fn open_tasks(&self) -> Vec<(String, String)> {
        self.tasks.iter().map(|(task, kept)| (task.clone(), kept.clone())).collect()
    }

    /// See `TaskLedger::spent`.
    pub fn spent(&self, field: &str) -> f64 {
        self.spent.get(field).copied().unwrap_or_default()
    }

    /// See `TaskLedger::ledger_lines`. An id is the line's time and its index.
    pub fn lines(&self, from: &str, until_ms: i64, max: usize) -> Vec<(String, String)> {
        let (after, start) = bound(from, 0);
        let wanted = |(id, _): &(LineId, &String)| id.0 <= until_ms && if after { *id > start } else { *id >= start };
        self.by_id().filter(wanted).take(max).map(line).collect()
    }

    /// See `TaskLedger::newest_lines`.
    pub fn newest_lines(&self, until: &str, since_ms: i64, max: usize) -> Vec<(String, String)> {
        let (before, end) = bound(until, i64::MAX);
        let wanted = |(id, _): &(LineId, &String)| id.0 >= since_ms && if before { *id < end } else { *id <= end };
        let mut lines: Vec<(LineId, &String)> = self.by_id().filter(wanted).collect();
        lines.reverse();
        lines.into_iter().take(max).map(line).collect()
    }

    fn by_id(&self) -> impl Iterator<Item = (LineId, &String)> {
        self.lines.iter().zip(0i64..).map(|((at, text), index)| ((*at, index), text))
    }
}

/// A line's time and its index.
type LineId = (i64, i64);

/// Where a range begins or ends, and whether the line of that id is left out. `index`: of a bound that is a time alone.
fn bound(text: &str, index: i64) -> (bool, LineId) {
    let (excluded, text) = match text.strip_prefix('(') {
        Some(id) => (true, id),
        None => (false, text),
    };
    let mut parts = text.splitn(2, '-').map(|part| part.parse::<i64>().unwrap_or_default());
    (excluded, (parts.next().unwrap_or_default(), parts.next().unwrap_or(index)))
}

fn line(((at, index), text): (LineId, &String)) -> (String, String) {
    (format!("{at}-{index}"), text.clone())
}

fn names(tenant: &str, target: &str) -> [String; 3] {
    ["n".to_owned(), format!("n:t:{tenant}"), format!("n:g:{target}")]
}
