//! What the scripts of `redis/task_ledger` do, for the bus in memory. Pure: time is an argument.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use tokio::time::Instant;

use crate::backend::{CloseTask, OpenTaskArgs};
use crate::tasks::{CapReached, Pace, SlotResult};

/// After a complaint of the platform the pace is halved, down to this.
pub(crate) const SLOWEST: f64 = 1.0 / 16.0;
/// Each launch that goes well adds so much of the full pace.
pub(crate) const RECOVERY: f64 = 0.05;

/// A task that has its line is not opened again: whoever tries comes late.
pub(crate) const REMEMBERED: Duration = Duration::from_secs(24 * 3600);

#[derive(Debug, Default)]
pub(crate) struct TaskLedger {
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
    /// When the bucket would be full again if nobody launched.
    full_at: Instant,
    factor: f64,
    closed_until: Instant,
}

impl TaskLedger {
    fn count(&self, name: &str) -> u64 {
        self.counts.get(name).copied().unwrap_or_default()
    }

    pub fn open(&mut self, args: &OpenTaskArgs<'_>, now: Instant) -> SlotResult {
        if self.tasks.contains_key(args.task) || self.closed.contains_key(args.task) {
            return SlotResult::Granted { wait: Duration::ZERO, slowed: false };
        }
        let names = names(args.tenant, args.target);
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
            let slot_at = start.checked_sub(tolerance(pace)).unwrap_or(now).max(bucket.closed_until);
            let wait = slot_at.saturating_duration_since(now);
            if wait > pace.max_wait {
                return SlotResult::Later(wait);
            }
            bucket.full_at = start + Duration::from_secs_f64(1.0 / (pace.per_second * bucket.factor));
            answer = SlotResult::Granted { wait, slowed: bucket.factor < 1.0 };
        }
        self.tasks.insert(args.task.to_owned(), format!("{}\n{}\n{}", args.tenant, args.target, args.facts));
        for name in names {
            *self.counts.entry(name).or_default() += 1;
        }
        answer
    }

    pub fn pace(&mut self, target: &str, pace: Pace, complaint: Option<Duration>, now: Instant) {
        let Some(bucket) = self.buckets.get_mut(target) else { return };
        match complaint {
            Some(retry_after) => {
                bucket.factor = (bucket.factor / 2.0).max(SLOWEST);
                bucket.closed_until = bucket.closed_until.max(now + retry_after);
                // Empty, with one turn when patience is over.
                bucket.full_at = bucket.full_at.max(bucket.closed_until + tolerance(pace));
            }
            None => bucket.factor = (bucket.factor + RECOVERY).min(1.0),
        }
    }

    pub fn close(&mut self, closing: &CloseTask<'_>, now_ms: i64) -> bool {
        let Some(kept) = self.tasks.remove(closing.task) else { return false };
        let mut parts = kept.splitn(3, '\n');
        let (tenant, target) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        for name in names(tenant, target) {
            if let Some(count) = self.counts.get_mut(&name) {
                *count = count.saturating_sub(1);
            }
        }
        if let Some(line) = closing.line {
            *self.spent.entry(format!("{} {}", line.month, line.tenant)).or_default() += line.amount;
            self.lines.push((now_ms, line.text.to_owned()));
            let surplus = self.lines.len().saturating_sub(usize::try_from(closing.keep).unwrap_or(usize::MAX));
            self.lines.drain(..surplus);
            let oldest = now_ms.saturating_sub(i64::try_from(REMEMBERED.as_millis()).unwrap_or(i64::MAX));
            self.closed.retain(|_, at| *at > oldest);
            self.closed.insert(closing.task.to_owned(), now_ms);
        }
        true
    }

    pub fn opened(&self) -> Vec<(String, String)> {
        self.tasks.iter().map(|(task, kept)| (task.clone(), kept.clone())).collect()
    }

    pub fn spent(&self, field: &str) -> f64 {
        self.spent.get(field).copied().unwrap_or_default()
    }

    /// An id is the line's time and its place in the list.
    pub fn lines(&self, from: &str, until_ms: i64, max: usize) -> Vec<(String, String)> {
        let (after, from) = match from.strip_prefix('(') {
            Some(id) => (true, id),
            None => (false, from),
        };
        let mut parts = from.splitn(2, '-').map(|part| part.parse::<i64>().unwrap_or_default());
        let start = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let ids = self.lines.iter().zip(0i64..).map(|((at, text), place)| ((*at, place), text));
        ids.filter(|(id, _)| id.0 <= until_ms && if after { *id > start } else { *id >= start })
            .take(max)
            .map(|((at, place), text)| (format!("{at}-{place}"), text.clone()))
            .collect()
    }
}

fn names(tenant: &str, target: &str) -> [String; 3] {
    ["n".to_owned(), format!("n:t:{tenant}"), format!("n:g:{target}")]
}

/// How far the bucket may be from full while it still gives at once.
pub(crate) fn tolerance(pace: Pace) -> Duration {
    Duration::from_secs_f64(f64::from(pace.burst.saturating_sub(1)) / pace.per_second)
}
