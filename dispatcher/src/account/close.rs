use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use spillway_bus::{BusError, LedgerLine, OpenTask, Phase, Record, TaskKey};
use spillway_cost::Platform;
use spillway_launchers::{Departed, EndHow, Sighting, TaskRef};
use spillway_protocol::livekit::EgressInfo;
use tokio::time::Instant;
use tracing::{debug, info};

use super::entry::{End, Entry, entry, month};
use super::facts::Facts;
use crate::config::targets::OverBudget;
use crate::house::{Dispatch, House, task_of};
use crate::report;
use crate::watch::Patience;

/// A platform may know its own window only a while after the task is gone.
const BILL_PATIENCE: Duration = Duration::from_secs(60);
/// A task whose egress is over and that is still there after this is ended.
const LINGERS: Duration = Duration::from_secs(90);

pub(super) struct Closing {
    house: Arc<House>,
    /// Since when a task's egress is done with it.
    done_since: HashMap<TaskKey, Instant>,
}

impl Closing {
    pub fn new(house: Arc<House>) -> Self {
        Self { house, done_since: HashMap::new() }
    }

    pub async fn round(&mut self) -> Result<(), BusError> {
        let open = self.house.tasks.list().await?;
        self.done_since.retain(|key, _| open.iter().any(|task| task.task == *key));
        self.house.meter.gauges("spillway_tasks_open", "target", open.iter().map(|task| task.target.as_str()));
        for task in open {
            if !self.house.is_live(&task.task) {
                self.attend(task).await?;
            }
        }
        Ok(())
    }

    async fn attend(&mut self, open: OpenTask) -> Result<(), BusError> {
        let Ok(facts) = serde_json::from_str::<Facts>(&open.facts) else {
            debug!(egress_id = %open.task.egress_id, "facts of another version; the task is closed without a bill");
            self.house.tasks.drop(&open.task).await?;
            return Ok(());
        };
        let record = self.house.registry.get(&open.task.egress_id).await?;
        let current = record.as_ref().filter(|record| record.attempt == open.task.attempt);
        // Our view was old.
        if current.is_some_and(|record| wants(record, open.task.attempt)) {
            return Ok(());
        }
        // Opened for an attempt that the record does not stand at yet.
        if record.as_ref().is_some_and(|record| record.attempt < open.task.attempt && record.phase != Phase::Over)
            && self.house.clock.unix_ms() - facts.opened_ms < 60_000
        {
            return Ok(());
        }
        let now = Instant::now();
        let done_for = now - *self.done_since.entry(open.task.clone()).or_insert(now);
        let task = record.as_ref().and_then(|record| reference(record, open.task.attempt));
        let end = match (self.departure(&open, task.as_ref(), current).await?, &task) {
            (Seen::Gone(departed), _) => {
                if lacks_its_bill(&facts, &departed) && done_for < BILL_PATIENCE {
                    return Ok(());
                }
                end_of(&self.house, &facts, current, Some(&departed))
            }
            (Seen::There, Some(task)) => {
                if done_for >= LINGERS
                    && let Some(target) = self.house.targets.named(&open.target)
                {
                    info!(egress_id = %open.task.egress_id, %task, "its egress is over for long, task ended");
                    target.launcher.end(task, EndHow::Now).await;
                }
                return Ok(());
            }
            // Nobody has seen it, or can: what is left is our own clock.
            (_, _) if done_for < BILL_PATIENCE / 4 => return Ok(()),
            (_, _) => end_of(&self.house, &facts, current, None),
        };
        self.done_since.remove(&open.task);
        write(&self.house, &open, &facts, &end).await
    }

    async fn departure(
        &self,
        open: &OpenTask,
        task: Option<&TaskRef>,
        record: Option<&Record>,
    ) -> Result<Seen, BusError> {
        let Some(task) = task else { return Ok(Seen::Nowhere) };
        let Some(target) = self.house.targets.named(&open.target) else { return Ok(Seen::Nowhere) };
        Ok(match target.launcher.look(task).await {
            Sighting::Gone(departed) => Seen::Gone(departed),
            Sighting::Alive | Sighting::Starting(_) => Seen::There,
            Sighting::Unknown(_) => match record {
                Some(record) if self.beats(record).await? => Seen::There,
                _ => Seen::Nowhere,
            },
        })
    }

    async fn beats(&self, record: &Record) -> Result<bool, BusError> {
        let last = self.house.beats.last(&record.egress_id).await?;
        let fresh = Patience::default().beat;
        Ok(matches!(last, Some((age, beat)) if beat.attempt == record.attempt && age < fresh))
    }
}

/// The line of a task whose end somebody has told, unless its egress still wants it or the line is there.
pub async fn gone(house: &House, key: &TaskKey, departed: &Departed) -> Result<(), BusError> {
    let Some(open) = house.tasks.list().await?.into_iter().find(|open| open.task == *key) else { return Ok(()) };
    let Ok(facts) = serde_json::from_str::<Facts>(&open.facts) else { return Ok(()) };
    let record = house.registry.get(&key.egress_id).await?;
    let current = record.as_ref().filter(|record| record.attempt == key.attempt);
    if current.is_some_and(|record| wants(record, key.attempt)) || lacks_its_bill(&facts, departed) {
        return Ok(());
    }
    write(house, &open, &facts, &end_of(house, &facts, current, Some(departed))).await
}

/// The platform will name the window it bills, and has not yet.
fn lacks_its_bill(facts: &Facts, departed: &Departed) -> bool {
    departed.billed.is_none() && !departed.how.never_ran() && facts.platform != Platform::Host
}

/// It is just being launched, or runs.
fn wants(record: &Record, attempt: u32) -> bool {
    record.phase != Phase::Over && !Dispatch::of(record).earlier.contains_key(&attempt)
}

fn end_of(house: &House, facts: &Facts, record: Option<&Record>, departed: Option<&Departed>) -> End {
    let info = record.and_then(|record| report::info_of(record).ok()).unwrap_or_default();
    let ended_ms = info.ended_at / 1_000_000;
    let now_ms = house.clock.unix_ms();
    let own = (facts.opened_ms, if ended_ms > 0 { ended_ms } else { now_ms });
    let billed = departed.and_then(|departed| departed.billed);
    let (from_ms, to_ms) = billed.map_or(own, |billed| (billed.from, billed.to));
    // A salvage run's record tells of the run before it.
    let recorded = if facts.salvage { (0, 0.0) } else { recorded(&info) };
    End {
        from_ms,
        to_ms: to_ms.max(from_ms),
        by_vendor: billed.is_some(),
        never_ran: match departed {
            Some(departed) => departed.how.never_ran(),
            None => info.started_at == 0,
        },
        machine: departed.and_then(|departed| departed.machine),
        bytes: recorded.0,
        recorded_s: recorded.1,
        outcome: match (record.is_some(), departed) {
            (true, _) if info.error.is_empty() => info.status().as_str_name().to_lowercase(),
            (true, _) => info.error.clone(),
            (false, Some(departed)) => departed.to_string(),
            (false, None) => "replaced".to_owned(),
        },
    }
}

async fn write(house: &House, open: &OpenTask, facts: &Facts, end: &End) -> Result<(), BusError> {
    let config = house.config();
    let extra_s = house.habits().extra_s(&open.target);
    let entry = entry(&open.task, (&open.tenant, &open.target), facts, end, &config.prices, extra_s);
    let text = serde_json::to_string(&entry).unwrap_or_default();
    let month = month(house.clock.unix_ms());
    let line = LedgerLine { text: &text, month: &month, tenant: &open.tenant, amount: entry.amount };
    if !house.tasks.close(&open.task, line).await? {
        return Ok(());
    }
    house.habits().learn(&entry);
    house.say_line(&text);
    measure(house, &entry);
    let rules = config.tenants.rules(&open.tenant);
    if let Some(budget) = rules.month_budget {
        let spent = house.tasks.spent(&month, &open.tenant).await?;
        let tenant = [("tenant", open.tenant.as_str())];
        house.meter.set("spillway_budget_dollars", &tenant, budget);
        house.meter.set("spillway_spent_this_month_dollars", &tenant, spent);
        if spent >= budget && spent - entry.amount < budget {
            let refuses = rules.over_budget == OverBudget::Refuse;
            tracing::warn!(tenant = open.tenant, spent, budget, refuses, "budget of the month is used up");
        }
    }
    Ok(())
}

fn measure(house: &House, entry: &Entry) {
    let labels = [("type", entry.kind.as_str()), ("target", entry.target.as_str())];
    house.meter.observe("spillway_cost_dollars", &labels, entry.amount);
    house.meter.count("spillway_billed_seconds_total", &labels, entry.seconds);
}

enum Seen {
    Gone(Departed),
    There,
    Nowhere,
}

/// The task of this attempt, as far as the record remembers.
fn reference(record: &Record, attempt: u32) -> Option<TaskRef> {
    let earlier = Dispatch::of(record).earlier.get(&attempt).cloned();
    earlier.or_else(|| task_of(record).filter(|_| record.attempt == attempt))
}

/// Bytes and seconds.
fn recorded(info: &EgressInfo) -> (u64, f64) {
    let bytes = info.file_results.iter().map(|file| u64::try_from(file.size).unwrap_or(0)).sum();
    // The egress itself begins with the request; what is recorded begins later.
    let began = info.file_results.iter().map(|file| file.started_at).filter(|at| *at > 0).min();
    let seconds = match (began.unwrap_or(info.started_at), info.ended_at) {
        (began, ended) if began > 0 && ended > began => (ended - began) as f64 / 1e9,
        _ => 0.0,
    };
    (bytes, seconds)
}
