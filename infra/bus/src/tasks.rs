//! Which tasks are open, counted by tenant and target, and what the closed ones cost; shared by all dispatchers. Caps and
//! the pace of launches are minded here, in one atomic step, so that they hold however many dispatchers there are and
//! whoever of them dies.

use std::time::Duration;

use spillway_protocol::EgressId;

use crate::backend::{Backend, CloseTask, OpenTaskArgs};
use crate::{Bus, BusError};

/// The ledger keeps about so many lines; who wants them all reads them as they come.
const LINES: u64 = 100_000;

/// One launch of one egress.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskKey {
    pub egress_id: EgressId,
    pub attempt: u32,
}

impl TaskKey {
    fn text(&self) -> String {
        format!("{}/{}", self.egress_id, self.attempt)
    }

    fn parse(text: &str) -> Option<Self> {
        let (id, attempt) = text.rsplit_once('/')?;
        Some(Self { egress_id: EgressId::parse(id).ok()?, attempt: attempt.parse().ok()? })
    }
}

/// Most open tasks; `None`: no bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caps {
    pub all: Option<u64>,
    pub tenant: Option<u64>,
    pub target: Option<u64>,
}

/// Launches of a target: a full bucket at first, refilled steadily, slower for a while after the platform complained.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    pub burst: u32,
    pub per_second: f64,
    /// A turn further away than this is not taken.
    pub max_wait: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CapReached {
    All,
    Tenant,
    Target,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum SlotResult {
    /// Open, and to be launched after `wait`. `slowed`: the target goes slower than it could; tell how the launch went.
    Granted {
        wait: Duration,
        slowed: bool,
    },
    Refused(CapReached),
    /// The next free turn is so far away.
    Later(Duration),
}

/// A task that is to be opened.
#[derive(Clone, Copy, Debug)]
pub struct OpenTask<'a> {
    pub task: &'a TaskKey,
    pub tenant: &'a str,
    pub target: &'a str,
    /// What its last line will need, opaque here.
    pub facts: &'a str,
    pub caps: Caps,
    pub pace: Option<Pace>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct OpenTaskEntry {
    pub task: TaskKey,
    pub tenant: String,
    pub target: String,
    pub facts: String,
}

/// The line in the ledger, and what is added to the tenant's month.
#[derive(Clone, Copy, Debug)]
pub struct LedgerLine<'a> {
    pub text: &'a str,
    /// `2026-11`.
    pub month: &'a str,
    pub tenant: &'a str,
    pub amount: f64,
}

#[derive(Clone)]
pub struct Tasks {
    bus: Bus,
}

impl Tasks {
    pub fn new(bus: &Bus) -> Self {
        Self { bus: bus.clone() }
    }

    fn backend(&self) -> &dyn Backend {
        &*self.bus.backend
    }

    /// A task that is open already is answered as open, whatever the caps say by now; so is one that was closed with a
    /// line, and that one stays closed.
    pub async fn open(&self, open_task: OpenTask<'_>) -> Result<SlotResult, BusError> {
        let OpenTask { task, tenant, target, facts, caps, pace } = open_task;
        let task = task.text();
        self.backend().open(&OpenTaskArgs { task: &task, tenant: &one_line(tenant), target, facts, caps, pace }).await
    }

    /// The platform asked for patience: nobody launches there for `retry_after`, and then at half the pace.
    pub async fn slow_down(&self, target: &str, pace: Pace, retry_after: Duration) -> Result<(), BusError> {
        self.backend().pace(target, pace, Some(retry_after)).await
    }

    /// A launch went well: a little faster again.
    pub async fn speed_up(&self, target: &str, pace: Pace) -> Result<(), BusError> {
        self.backend().pace(target, pace, None).await
    }

    /// It never ran. False when it is not open (any more).
    pub async fn drop(&self, task: &TaskKey) -> Result<bool, BusError> {
        self.backend().close(&CloseTask { task: &task.text(), line: None, keep: LINES }).await
    }

    /// It is gone, and this is what it cost. Of many who say so one is heard (true).
    pub async fn close(&self, task: &TaskKey, line: LedgerLine<'_>) -> Result<bool, BusError> {
        let tenant = one_line(line.tenant);
        let line = LedgerLine { tenant: &tenant, ..line };
        self.backend().close(&CloseTask { task: &task.text(), line: Some(line), keep: LINES }).await
    }

    pub async fn list(&self) -> Result<Vec<OpenTaskEntry>, BusError> {
        let found = self.backend().opened().await?;
        let task = |(task, kept): (String, String)| {
            let mut parts = kept.splitn(3, '\n');
            let (tenant, target, facts) = (parts.next()?, parts.next()?, parts.next()?);
            let task = TaskKey::parse(&task)?;
            Some(OpenTaskEntry { task, tenant: tenant.into(), target: target.into(), facts: facts.into() })
        };
        Ok(found.into_iter().filter_map(task).collect())
    }

    /// What the tenant's closed tasks cost in that month.
    pub async fn spent(&self, month: &str, tenant: &str) -> Result<f64, BusError> {
        self.backend().spent(&format!("{month} {}", one_line(tenant))).await
    }

    /// Lines written from `since_ms` on, the oldest first, at most `max`; each with the id that follows it as `after`.
    pub async fn lines(
        &self,
        since_ms: i64,
        until_ms: i64,
        after: Option<&str>,
        max: usize,
    ) -> Result<Vec<(String, String)>, BusError> {
        let from = after.map_or_else(|| since_ms.max(0).to_string(), |after| format!("({after}"));
        self.backend().lines(&from, until_ms.max(0), max).await
    }
}

fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '_' } else { c }).collect()
}
