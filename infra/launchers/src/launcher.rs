use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use spillway_cost::{Platform, Shape};
use spillway_protocol::Secret;
use spillway_protocol::ids::EgressId;

use crate::exit::ExitReport;

/// A place that can run `spillway-runner`, one task for each egress and attempt.
///
/// The contract, which [`crate::conformance`] checks:
/// * **Launching is idempotent by egress id and attempt.** Asked again, a launcher answers the task it has, dead or
///   alive, and starts no second one; also when the two calls overlap. How is the launcher's business (a client token, a
///   name, a look at what runs before anything is asked for twice). So [`LaunchError::Transient`] means "ask again": the
///   order may have been taken, and the next call finds what there is. After a restart of the dispatcher this holds as
///   far as the platform can be asked; where it cannot, the one-time claim in the ticket keeps a second task harmless.
/// * **`launch` returns when the platform has taken the order**, not when the runner works. It may be slow (a cloud's
///   API), never endless, and dropping its future may leave a task behind, which the next call finds.
/// * **`status` tells the truth or says that it cannot.** `Gone` is final: that task will never write again. What this
///   launcher cannot see (another machine, the platform's API down) is `Unknown`, never `Gone`.
/// * **`end` is idempotent** and does not wait for the task to be gone; `status` will tell. A task that has not started yet
///   is ended too. How long a task has to finish is [`Launcher::grace`]; `Now` shortens it only where the platform can.
/// * **`tasks` names what still runs or starts**, of this stack and no other; what is gone is not in it. Each says the
///   installation of its order, as it was written. A stack's name may be taken twice; an installation's id is not.
/// * **Only names travel in the open** (environment, labels): egress id, attempt, claim. Secrets go through
///   `LaunchOrder::handover` on a way only the task can read.
#[async_trait]
pub trait Launcher: Send + Sync + 'static {
    /// What configuration and `TaskRef`s call it; of two launchers of one kind (spot, another region) each has its own.
    fn name(&self) -> &str;

    async fn launch(&self, order: &LaunchOrder) -> Result<TaskRef, LaunchError>;

    async fn status(&self, task: &TaskRef) -> TaskStatus;

    /// In their order. Where the platform answers for many at once, this asks once for many; elsewhere for a few side by
    /// side.
    async fn statuses(&self, tasks: &[TaskRef]) -> Vec<TaskStatus> {
        let mut seen = Vec::with_capacity(tasks.len());
        for some in tasks.chunks(STATUS_CONCURRENCY) {
            seen.extend(join_all(some.iter().map(|task| self.status(task))).await);
        }
        seen
    }

    /// So many tasks may be looked at every few seconds by each of several dispatchers without coming near the platform's
    /// quota for reads.
    fn max_status_batch(&self) -> usize {
        usize::MAX
    }

    async fn end(&self, task: &TaskRef, how: StopMode) -> StopOutcome;

    /// Every task of this stack that the platform still runs or starts, for those who look for orphans.
    async fn tasks(&self) -> Result<Vec<OwnedTask>, LaunchError>;

    /// Whose machines, sizes and prices.
    fn platform(&self) -> Platform;

    /// Launches that the platform surely takes, with a margin below its limits; `None`: as many as come.
    fn quota(&self) -> Option<Quota> {
        None
    }

    /// From the platform's first sign to its kill, when it stops a task; `None`: as long as the task takes.
    fn grace(&self) -> Option<Duration> {
        None
    }

    /// True for a place whose runners share this process's machine, files and memory.
    fn is_this_machine(&self) -> bool {
        false
    }
}

const STATUS_CONCURRENCY: usize = 8;

#[derive(Clone, Debug)]
pub struct LaunchOrder {
    pub egress_id: EgressId,
    /// The first is 1.
    pub attempt: u32,
    pub run_mode: RunMode,
    /// Whose Redis the order comes from: stands in the task, so that no other installation takes it for its own.
    pub installation: String,
    /// Opens the ticket once; worth nothing without the ticket key.
    pub claim: String,
    /// One line of JSON with what must not be seen in the environment (`process`: the child's standard input).
    pub handover: Secret<String>,
    /// For the bill and for people who look at the platform's console: egress_id, room, type, tenant, stack, attempt. As
    /// they are; each launcher makes of them what its platform allows.
    pub labels: BTreeMap<String, String>,
    /// The machine the platform is asked for, one that it sells.
    pub shape: Shape,
    /// The platform ends the task after this, where it can; the recording's own limit and the time to finish it are in it.
    pub max_duration: Option<Duration>,
}

/// Launches allowed: a full bucket at first, refilled steadily.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quota {
    pub burst: u32,
    pub per_second: f64,
}

impl Quota {
    /// Fargate's RunTask, as its documentation gives it.
    pub const FARGATE: Self = Self { burst: 100, per_second: 20.0 };
}

/// What the runner is started for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RunMode {
    #[default]
    Record,
    /// To finish the uploads of a task that died.
    Salvage,
}

impl LaunchOrder {
    /// The runner's command line behind its name.
    pub fn arguments(&self) -> &'static [&'static str] {
        match self.run_mode {
            RunMode::Record => &[],
            RunMode::Salvage => &["--salvage"],
        }
    }

    /// What the runner finds in its environment.
    pub fn names(&self) -> [(&'static str, String); 3] {
        [(EGRESS_ID, self.egress_id.to_string()), (ATTEMPT, self.attempt.to_string()), (CLAIM, self.claim.clone())]
    }

    /// The whole environment of a launch on a platform that leaves the image's command line alone.
    pub fn environment(&self, stack: &str) -> Vec<(&'static str, String)> {
        let mut all = self.names().to_vec();
        all.push((STACK, stack.to_owned()));
        all.push((INSTALLATION, self.installation.clone()));
        if self.run_mode == RunMode::Salvage {
            all.push((SALVAGE, "true".to_owned()));
        }
        all
    }
}

pub(crate) const EGRESS_ID: &str = "SPILLWAY_EGRESS_ID";
pub(crate) const ATTEMPT: &str = "SPILLWAY_ATTEMPT";
pub(crate) const CLAIM: &str = "SPILLWAY_CLAIM";
/// Instead of an argument.
pub(crate) const SALVAGE: &str = "SPILLWAY_SALVAGE";
/// Whose task it is, where several installations share a platform.
pub(crate) const STACK: &str = "SPILLWAY_STACK";
/// Which Redis knows it, where several share a stack's name.
pub(crate) const INSTALLATION: &str = "SPILLWAY_INSTALLATION";

/// A task as its launcher knows it again, also after a restart. Opaque to everybody else.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TaskRef {
    pub launcher: String,
    pub id: String,
}

impl fmt::Display for TaskRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.launcher, self.id)
    }
}

/// A task that the platform runs for this stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedTask {
    pub egress_id: EgressId,
    pub attempt: u32,
    pub task: TaskRef,
    /// The installation whose order it was; empty where the task does not say (an older dispatcher started it).
    pub installation: String,
    /// Unix milliseconds; when it was asked for, where that is all that is known.
    pub started_ms: Option<i64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskStatus {
    /// Taken, and not running yet: the platform's words for what it is doing ("pulling the image").
    Starting(String),
    Alive,
    Gone(ExitReport),
    /// Not to be seen from here, and why.
    Unknown(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopMode {
    /// Finish the recording, report, leave.
    Graceful,
    /// As fast as the platform can; the registry already says what became of the egress.
    Immediate,
}

impl StopMode {
    /// What stands in the platform's records as the reason.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Graceful => "asked to finish",
            Self::Immediate => "egress is over",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopOutcome {
    Requested,
    AlreadyGone,
    /// Not ours to end from here, or the platform did not listen; whoever still wants it asks again.
    OutOfReach,
}

/// Why no task was started. Each kind asks for another answer: go elsewhere or wait for room, wait until something of ours
/// has ended, wait as told, tell the operator, ask again.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The platform has no such machine free here and now; elsewhere it may.
    #[error("no capacity: {message}")]
    Capacity { message: String },
    /// It had none where it looked, and has other places that were not asked: the next attempt, at once.
    #[error("no capacity at one place: {message}")]
    ZoneCapacity { message: String },
    /// All that the account may run at once is running: it passes when something ends, and not by asking again soon.
    #[error("quota of the account reached: {message}")]
    Quota { message: String },
    #[error("launch quota used up: {message}")]
    Throttled { message: String, retry_after: Option<Duration> },
    #[error("launcher misconfigured: {message}")]
    Misconfigured {
        message: String,
        #[source]
        source: Option<Box<dyn Error + Send + Sync>>,
    },
    /// Nothing is known or it may pass: ask again with the same order; what the platform has taken is found then.
    #[error("launch failed: {message}")]
    Transient {
        message: String,
        #[source]
        source: Option<Box<dyn Error + Send + Sync>>,
    },
}
