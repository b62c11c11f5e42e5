//! Open tasks and the ledger: what is asked of the scripts in Redis (`spillway_bus::Tasks`), what they answer, and
//! the text they store for an open task.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use spillway_protocol::EgressId;

/// One launch of one egress. Its text, `EG_…/attempt`, names the task in Redis.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskKey {
    /// The egress.
    pub egress_id: EgressId,
    /// Number of the launch, from 1.
    pub attempt: u32,
}

impl TaskKey {
    /// `None`: not of the form this version writes.
    pub fn parse(text: &str) -> Option<Self> {
        let (id, attempt) = text.rsplit_once('/')?;
        Some(Self { egress_id: EgressId::parse(id).ok()?, attempt: attempt.parse().ok()? })
    }
}

impl fmt::Display for TaskKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.egress_id, self.attempt)
    }
}

/// Reference to a task, valid across restarts of the dispatcher. Its id is opaque to all but its launcher.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TaskRef {
    /// Name of the launcher that started it.
    pub launcher: String,
    /// The platform's name of the task.
    pub id: String,
}

impl fmt::Display for TaskRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.launcher, self.id)
    }
}

/// Maximum number of open tasks; `None`: unlimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caps {
    /// Of the installation.
    pub all: Option<u64>,
    /// Of the tenant.
    pub tenant: Option<u64>,
    /// Of the target.
    pub target: Option<u64>,
}

/// Launch rate of a target, a token bucket: full at first, refilled steadily, and slower for a while after the platform
/// throttled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    /// Launches that may follow one another at once.
    pub burst: u32,
    /// Launches per second in the long run.
    pub per_second: f64,
    /// A slot that is further away than this is not taken ([`SlotResult::Later`]).
    pub max_wait: Duration,
}

impl Pace {
    /// How far the bucket may be from full while it still grants a launch at once.
    pub fn tolerance(self) -> Duration {
        Duration::from_secs_f64(f64::from(self.burst.saturating_sub(1)) / self.per_second)
    }
}

/// How fast a target's launches may go now, as far as they have a [`Pace`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PaceState {
    /// Share of the full pace, up to 1; less after the platform throttled.
    pub factor: f64,
    /// Unix milliseconds until which the platform asked for a pause; in the past: it has not.
    pub closed_until_ms: i64,
}

/// Which of the [`Caps`] is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CapReached {
    /// Of the installation.
    All,
    /// Of the tenant.
    Tenant,
    /// Of the target.
    Target,
}

/// Answer to an [`OpenTask`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum SlotResult {
    /// The task is open.
    Granted {
        /// The launcher must not be called before this has passed.
        wait: Duration,
        /// The target runs below its full pace; report whether the launch went well.
        slowed: bool,
    },
    /// Not opened: a cap is reached.
    Refused(CapReached),
    /// Not opened: the next free slot is this far away, more than [`Pace::max_wait`].
    Later(Duration),
}

/// A task that is to be opened, if caps and pace allow.
#[derive(Clone, Copy, Debug)]
pub struct OpenTask<'a> {
    /// Names the task; opening it twice is harmless.
    pub task: &'a TaskKey,
    /// Whose task it is; control characters are replaced when it is stored.
    pub tenant: &'a str,
    /// Name of the target it is launched at.
    pub target: &'a str,
    /// What its ledger line will need, opaque here.
    pub facts: &'a str,
    /// Caps to check.
    pub caps: Caps,
    /// Pace to keep; `None`: none.
    pub pace: Option<Pace>,
}

/// A task that is to be closed.
#[derive(Clone, Copy, Debug)]
pub struct CloseTask<'a> {
    /// The task.
    pub task: &'a TaskKey,
    /// What it cost. `None`: it never ran, and may be opened again.
    pub line: Option<LedgerLine<'a>>,
}

/// The ledger's line for a closed task, and what it adds to the tenant's month.
#[derive(Clone, Copy, Debug)]
pub struct LedgerLine<'a> {
    /// The line itself, opaque here.
    pub text: &'a str,
    /// `2026-11`.
    pub month: &'a str,
    /// The tenant that pays.
    pub tenant: &'a str,
    /// Cost, in the currency of the installation's prices.
    pub amount: f64,
}

/// A task that is open.
#[derive(Clone, Debug, PartialEq)]
pub struct OpenTaskEntry {
    /// The task.
    pub task: TaskKey,
    /// Whose task it is.
    pub tenant: String,
    /// Name of the target it was launched at.
    pub target: String,
    /// As given in [`OpenTask::facts`].
    pub facts: String,
}

impl OpenTaskEntry {
    /// From the task's text and what is stored under it: tenant, target and facts, one per line, of which only facts
    /// may hold line breaks. `None`: not of this form.
    pub fn from_stored(task: &str, stored: &str) -> Option<Self> {
        let mut parts = stored.splitn(3, '\n');
        let (tenant, target, facts) = (parts.next()?, parts.next()?, parts.next()?);
        let task = TaskKey::parse(task)?;
        Some(Self { task, tenant: tenant.into(), target: target.into(), facts: facts.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_key_is_its_text() {
        let key = TaskKey { egress_id: EgressId::parse("EG_1").unwrap(), attempt: 2 };
        assert_eq!(key.to_string(), "EG_1/2");
        assert_eq!(TaskKey::parse("EG_1/2"), Some(key));
        for other in ["EG_1", "EG_1/", "EG_1/-1", "/1", "EG 1/1"] {
            assert_eq!(TaskKey::parse(other), None, "{other}");
        }
    }

    #[test]
    fn facts_of_an_open_task_may_have_several_lines() {
        let entry = OpenTaskEntry::from_stored("EG_1/2", "red\nnear\n{\n}").unwrap();
        assert_eq!((entry.tenant.as_str(), entry.target.as_str(), entry.facts.as_str()), ("red", "near", "{\n}"));
        assert_eq!(OpenTaskEntry::from_stored("EG_1/2", "red\nnear"), None);
        assert_eq!(OpenTaskEntry::from_stored("EG_1", "red\nnear\n"), None);
    }

    #[test]
    fn a_burst_of_one_has_no_tolerance() {
        let pace = |burst, per_second| Pace { burst, per_second, max_wait: Duration::ZERO };
        assert_eq!(pace(1, 0.5).tolerance(), Duration::ZERO);
        assert_eq!(pace(5, 2.0).tolerance(), Duration::from_secs(2));
    }
}
