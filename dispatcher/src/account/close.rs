use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
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
use crate::targets::Target;
use crate::watch::Patience;

/// A platform may know its own window only a while after the task is gone.
const BILL_PATIENCE: Duration = Duration::from_secs(60);
/// A task whose egress is over and that is still there after this is ended.
const LINGERS: Duration = Duration::from_secs(90);

/// Until one that still is there is told again.
const TOLD_AGAIN: Duration = Duration::from_secs(30);
/// Launchers end their calls themselves, sooner.
const LONGEST_LOOK: Duration = Duration::from_secs(60);

pub(super) struct Closing {
    house: Arc<House>,
    /// Since when a task's egress is done with it.
    done_since: HashMap<TaskKey, Instant>,
    told: HashMap<TaskKey, Instant>,
}

/// A task that nobody needs any more.
struct Case {
    open: OpenTask,
    facts: Facts,
    /// As long as it stands at this attempt.
    current: Option<Record>,
    /// Where the record knows it, and its target is known here.
    task: Option<(TaskRef, Arc<Target>)>,
    done_for: Duration,
}

impl Closing {
    pub fn new(house: Arc<House>) -> Self {
        Self { house, done_since: HashMap::new(), told: HashMap::new() }
    }

    pub async fn round(&mut self) -> Result<(), BusError> {
        let open = self.house.tasks.list().await?;
        self.done_since.retain(|key, _| open.iter().any(|task| task.task == *key));
        self.told.retain(|key, _| open.iter().any(|task| task.task == *key));
        self.house.meter.gauges("spillway_tasks_open", "target", open.iter().map(|task| task.target.as_str()));
        let mut cases = Vec::new();
        for task in open {
            if !self.house.is_live(&task.task) {
                cases.extend(self.case(task).await?);
            }
        }
        let sightings = looked_at(&cases).await;
        for (case, sighting) in cases.into_iter().zip(sightings) {
            self.attend(case, sighting).await?;
        }
        Ok(())
    }

    async fn case(&mut self, open: OpenTask) -> Result<Option<Case>, BusError> {
        let Ok(facts) = serde_json::from_str::<Facts>(&open.facts) else {
            debug!(egress_id = %open.task.egress_id, "facts of another version; the task is closed without a bill");
            self.house.tasks.drop(&open.task).await?;
            return Ok(None);
        };
        let record = self.house.registry.get(&open.task.egress_id).await?;
        // Opened for an attempt that the record does not stand at yet.
        if record.as_ref().is_some_and(|record| record.attempt < open.task.attempt && record.phase != Phase::Over)
            && self.house.clock.unix_ms() - facts.opened_ms < 60_000
        {
            return Ok(None);
        }
        let task = record.as_ref().and_then(|record| reference(record, open.task.attempt));
        let task = task.and_then(|task| Some((task, self.house.targets.named(&open.target)?)));
        let current = record.filter(|record| record.attempt == open.task.attempt);
        // Our view was old.
        if current.as_ref().is_some_and(|record| wants(record, open.task.attempt)) {
            return Ok(None);
        }
        let now = Instant::now();
        let done_for = now - *self.done_since.entry(open.task.clone()).or_insert(now);
        Ok(Some(Case { open, facts, current, task, done_for }))
    }

    async fn attend(&mut self, case: Case, sighting: Option<Sighting>) -> Result<(), BusError> {
        let Case { open, facts, current, task, done_for } = case;
        let end = match self.departure(sighting, current.as_ref()).await? {
            Seen::Gone(departed) => {
                if lacks_its_bill(&facts, &departed) && done_for < BILL_PATIENCE {
                    return Ok(());
                }
                end_of(&self.house, &facts, current.as_ref(), Some(&departed))
            }
            Seen::There => {
                if let (true, Some((task, target))) = (done_for >= LINGERS, task) {
                    self.send_away(open, task, target);
                }
                return Ok(());
            }
            // Nobody has seen it, or can: what is left is our own clock.
            Seen::Nowhere if done_for < BILL_PATIENCE / 4 => return Ok(()),
            Seen::Nowhere => end_of(&self.house, &facts, current.as_ref(), None),
        };
        self.done_since.remove(&open.task);
        write(&self.house, &open, &facts, &end).await
    }

    fn send_away(&mut self, open: OpenTask, task: TaskRef, target: Arc<Target>) {
        let now = Instant::now();
        if self.told.get(&open.task).is_some_and(|at| now - *at < TOLD_AGAIN) {
            return;
        }
        info!(egress_id = %open.task.egress_id, %task, "its egress is over for long, task ended");
        self.told.insert(open.task, now);
        // A platform that is slow to answer holds up nobody.
        self.house.spawn(async move {
            target.launcher.end(&task, EndHow::Now).await;
        });
    }

    async fn departure(&self, sighting: Option<Sighting>, record: Option<&Record>) -> Result<Seen, BusError> {
        Ok(match (sighting, record) {
            (Some(Sighting::Gone(departed)), _) => Seen::Gone(departed),
            (Some(Sighting::Alive | Sighting::Starting(_)), _) => Seen::There,
            (Some(Sighting::Unknown(_)), Some(record)) if self.beats(record).await? => Seen::There,
            (Some(Sighting::Unknown(_)) | None, _) => Seen::Nowhere,
        })
    }

    async fn beats(&self, record: &Record) -> Result<bool, BusError> {
        let last = self.house.beats.last(&record.egress_id).await?;
        let fresh = Patience::default().beat;
        Ok(matches!(last, Some((age, beat)) if beat.attempt == record.attempt && age < fresh))
    }
}

/// What platforms say about each, many at once; `None` where there is nobody to ask.
async fn looked_at(cases: &[Case]) -> Vec<Option<Sighting>> {
    let mut by_target: BTreeMap<&str, (&Target, Vec<usize>)> = BTreeMap::new();
    for (nth, case) in cases.iter().enumerate() {
        if let Some((_, target)) = &case.task {
            by_target.entry(target.name()).or_insert((target, Vec::new())).1.push(nth);
        }
    }
    let looks = by_target.into_values().map(|(target, nths)| async move {
        let mut seen = Vec::new();
        for some in nths.chunks(target.launcher.most_looks()) {
            let tasks = some.iter().filter_map(|nth| cases[*nth].task.as_ref());
            let tasks: Vec<TaskRef> = tasks.map(|(task, _)| task.clone()).collect();
            let looked = tokio::time::timeout(LONGEST_LOOK, target.launcher.look_at(&tasks)).await;
            let silent =
                |_| tasks.iter().map(|_| Sighting::Unknown("the platform does not answer".to_owned())).collect();
            seen.extend(some.iter().copied().zip(looked.unwrap_or_else(silent)));
        }
        seen
    });
    let mut sightings: Vec<Option<Sighting>> = cases.iter().map(|_| None).collect();
    for (nth, sighting) in join_all(looks).await.into_iter().flatten() {
        sightings[nth] = Some(sighting);
    }
    sightings
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
    // What a salvage run has saved stands in its line: that of the run before it was written before anybody knew.
    let recorded = recorded(&info);
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
    // An egress begins with its request, and may end long after its files.
    let longest = info.file_results.iter().map(|file| file.duration).max().unwrap_or(0);
    let began = info.file_results.iter().map(|file| file.started_at).filter(|at| *at > 0).min();
    let lasted = match (longest, began.unwrap_or(info.started_at), info.ended_at) {
        (longest, _, _) if longest > 0 => longest,
        (_, began, ended) if began > 0 && ended > began => ended - began,
        _ => 0,
    };
    (bytes, lasted as f64 / 1e9)
}
