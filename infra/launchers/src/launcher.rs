//! The contract of a launcher and the values that cross it. The dispatcher's actors call it from their own tasks; nothing in
//! here does I/O.

use std::collections::BTreeMap;
use std::error::Error;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use spillway_cost::{Platform, Shape};
pub use spillway_model::TaskRef;
use spillway_protocol::Secret;
use spillway_protocol::ids::EgressId;

use crate::exit::ExitReport;
use crate::links::TaskLinks;

/// A platform that can run `spillway-runner`, one task for each egress and attempt.
///
/// The contract, which the suite `conformance` checks:
/// * **`launch` is idempotent by egress id and attempt.** A repeated call, also a concurrent one, returns the task there is,
///   running or exited, and starts no second one. Each launcher has its own means: a client token, a name, a query of what
///   runs. So [`LaunchError::Transient`] means "call again": the order may have been taken, and the next call finds it. After a
///   restart of the dispatcher this holds as far as the platform can be queried; where it cannot, the one-time claim in the
///   ticket keeps a second task harmless.
/// * **`launch` returns when the platform has taken the order**, not when the runner works. It may be slow (a cloud's
///   API), never endless, and dropping its future may leave a task behind, which the next call finds.
/// * **`status` is right or `Unknown`.** `Gone` is final: that task will never write again. A task that cannot be seen
///   (another machine, the platform's API is down) is `Unknown`, never `Gone`.
/// * **`end` is idempotent** and does not wait for the exit, which `status` reports. A task that has not started yet is stopped
///   too. The time a task has to finish is [`Launcher::grace`]; `StopMode::Immediate` shortens it only where the platform can.
/// * **`tasks` lists what runs or starts**, of this stack and no other, and nothing that is gone. Each task has the
///   installation of its order, unchanged. A stack's name may be used twice; an installation's id is unique.
/// * **Only names are in the environment and in labels**: egress id, attempt, claim. Secrets go through
///   `LaunchOrder::handover`, by a channel that only the task can read.
#[async_trait]
pub trait Launcher: Send + Sync + 'static {
    /// Name in configuration and `TaskRef`s; unique, also among launchers of one kind (spot, another region).
    fn name(&self) -> &str;

    /// Starts the task of an order, or returns the one that was started for it.
    ///
    /// # Errors
    /// By kind what to do: see [`LaunchError`]. Calling again with the same order is always safe.
    async fn launch(&self, order: &LaunchOrder) -> Result<TaskRef, LaunchError>;

    /// Status of one task, as the platform tells it now.
    async fn status(&self, task: &TaskRef) -> TaskStatus;

    /// Statuses in the order of `tasks`: one request for many where the platform has one, elsewhere eight requests at a time.
    async fn statuses(&self, tasks: &[TaskRef]) -> Vec<TaskStatus> {
        let mut seen = Vec::with_capacity(tasks.len());
        for some in tasks.chunks(STATUS_CONCURRENCY) {
            seen.extend(join_all(some.iter().map(|task| self.status(task))).await);
        }
        seen
    }

    /// Tasks whose status each of several dispatchers may read every few seconds, well below the platform's quota for reads.
    fn max_status_batch(&self) -> usize {
        usize::MAX
    }

    /// Stops a task, without waiting for its exit.
    async fn end(&self, task: &TaskRef, how: StopMode) -> StopOutcome;

    /// The output of a task, or where it is to be found.
    async fn log(&self, task: &TaskRef) -> TaskLog;

    /// Removes what is left of a task, its log included; one that runs or starts is stopped first. Repeated until `status` is
    /// `Gone`, since a platform may need a while.
    async fn discard(&self, task: &TaskRef) -> StopOutcome {
        self.end(task, StopMode::Immediate).await
    }

    /// Whether the platform answers and accepts our identity, by a request that changes nothing. It does not prove that a
    /// launch is allowed.
    ///
    /// # Errors
    /// As for [`Launcher::tasks`].
    async fn check(&self) -> Result<(), LaunchError> {
        self.tasks().await.map(drop)
    }

    /// Every task of this stack that runs or starts, for the search for orphans.
    ///
    /// # Errors
    /// The platform did not answer or refused; a later call may succeed.
    async fn tasks(&self) -> Result<Vec<OwnedTask>, LaunchError>;

    /// The platform whose sizes and prices apply.
    fn platform(&self) -> Platform;

    /// Launches that the platform surely accepts, with a margin below its limits; `None`: no limit.
    fn quota(&self) -> Option<Quota> {
        None
    }

    /// From SIGTERM to SIGKILL, when the platform stops a task; `None`: no SIGKILL follows.
    fn grace(&self) -> Option<Duration> {
        None
    }

    /// A task can record a web page: its image has a browser, or the machine may have one.
    fn takes_pages(&self) -> bool {
        true
    }

    /// Pages of the task in the platform's own console; a task of another launcher has none. Makes no request.
    fn links(&self, _: &TaskRef) -> TaskLinks {
        TaskLinks::default()
    }

    /// True where runners share this process' machine, files and memory.
    fn is_this_machine(&self) -> bool {
        false
    }
}

const STATUS_CONCURRENCY: usize = 8;

/// One task to be started.
#[derive(Clone, Debug)]
pub struct LaunchOrder {
    /// The egress; with `attempt` it identifies the order.
    pub egress_id: EgressId,
    /// The first is 1.
    pub attempt: u32,
    /// Record, go on with a recording, finish uploads, or check.
    pub run_mode: RunMode,
    /// Id of the Redis that the order comes from. It is stored with the task, so that no other installation takes it for its
    /// own.
    pub installation: String,
    /// One-time claim for the ticket; useless without the ticket key.
    pub claim: String,
    /// One line of JSON with the secrets that must not be in the environment (`process`: written to standard input).
    pub handover: Secret<String>,
    /// For the platform's console: room, type, tenant; launchers that label tasks add egress_id, stack, attempt and installation.
    /// Unchanged; each launcher replaces what its platform does not allow.
    pub labels: BTreeMap<String, String>,
    /// The machine to be asked for, one that the platform sells.
    pub shape: Shape,
    /// It records a web page: the image with a browser is needed.
    pub page: bool,
    /// Limit after which the platform stops the task, where it can; longer than the recording's own limit and the time to
    /// finish it.
    pub max_duration: Option<Duration>,
}

/// A rate of launches: a token bucket that is full at first.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quota {
    /// Size of the bucket.
    pub burst: u32,
    /// Refill rate.
    pub per_second: f64,
}

impl Quota {
    /// Fargate's RunTask, by AWS' documentation.
    pub const FARGATE: Self = Self { burst: 100, per_second: 20.0 };
}

/// What a runner is started for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RunMode {
    /// To record.
    #[default]
    Record,
    /// To go on with the recording of a task that is gone.
    Resume,
    /// To finish the uploads of a task that crashed.
    Salvage,
    /// To check what a recording would need.
    Probe,
}

impl LaunchOrder {
    /// The image or task definition that it needs: that with a browser, where there is one, for a page.
    pub fn image<'a>(&self, usual: &'a str, page: Option<&'a str>) -> &'a str {
        page.filter(|_| self.page).unwrap_or(usual)
    }

    /// The runner's command-line arguments. Whether one that follows a dead task is to go on or to finish, it finds in the
    /// record.
    pub fn arguments(&self) -> &'static [&'static str] {
        match self.run_mode {
            RunMode::Record => &[],
            RunMode::Resume | RunMode::Salvage => &["--salvage"],
            RunMode::Probe => &["--probe"],
        }
    }

    /// The order's variables in the runner's environment.
    pub fn names(&self) -> [(&'static str, String); 3] {
        [(EGRESS_ID, self.egress_id.to_string()), (ATTEMPT, self.attempt.to_string()), (CLAIM, self.claim.clone())]
    }

    /// The variables on a platform that does not override the image's command line: the run mode is one of them.
    pub fn environment(&self, stack: &str) -> Vec<(&'static str, String)> {
        let mut all = self.names().to_vec();
        all.push((STACK, stack.to_owned()));
        all.push((INSTALLATION, self.installation.clone()));
        match self.run_mode {
            RunMode::Record => {}
            RunMode::Resume | RunMode::Salvage => all.push((SALVAGE, "true".to_owned())),
            RunMode::Probe => all.push((PROBE, "true".to_owned())),
        }
        all
    }
}

pub(crate) const EGRESS_ID: &str = "SPILLWAY_EGRESS_ID";
pub(crate) const ATTEMPT: &str = "SPILLWAY_ATTEMPT";
pub(crate) const CLAIM: &str = "SPILLWAY_CLAIM";
/// The run mode as a variable.
pub(crate) const SALVAGE: &str = "SPILLWAY_SALVAGE";
/// Likewise.
pub(crate) const PROBE: &str = "SPILLWAY_PROBE";
/// Stack of the task, where several installations share a platform.
pub(crate) const STACK: &str = "SPILLWAY_STACK";
/// Installation of the task, where several share a stack's name.
pub(crate) const INSTALLATION: &str = "SPILLWAY_INSTALLATION";

/// A running task of this stack, as the platform lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedTask {
    /// Egress of the order.
    pub egress_id: EgressId,
    /// Attempt of the order.
    pub attempt: u32,
    /// The task itself.
    pub task: TaskRef,
    /// Installation of the order; empty where the task has none (an older dispatcher started it).
    pub installation: String,
    /// Start of the task, or when it was ordered where that is all that is known; Unix milliseconds.
    pub started_ms: Option<i64>,
}

/// What a platform tells about a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskStatus {
    /// Ordered and not running yet; what the platform is doing ("pulling the image").
    Starting(String),
    /// It runs.
    Alive,
    /// It has exited and will never write again.
    Gone(ExitReport),
    /// The status could not be read, and why.
    Unknown(String),
}

/// Output of a task, as far as a launcher can read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskLog {
    /// Its last lines.
    Tail(String),
    /// Where people find it.
    At(String),
}

/// How a task is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopMode {
    /// SIGTERM: the runner finishes the recording, reports and exits.
    Graceful,
    /// As fast as the platform can; the egress has its final state already.
    Immediate,
}

impl StopMode {
    /// The reason in the platform's records.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Graceful => "asked to finish",
            Self::Immediate => "egress is over",
        }
    }
}

/// Outcome of [`Launcher::end`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopOutcome {
    /// The platform has taken the request.
    Requested,
    /// The task had exited.
    AlreadyGone,
    /// The task cannot be stopped from here, or the platform did not answer; a later call may succeed.
    OutOfReach,
}

/// Why no task was started. What to do, by kind: take another target or wait (`Capacity`), try again at once (`ZoneCapacity`),
/// wait until a task of ours has exited (`Quota`), wait as long as told (`Throttled`), tell the operator (`Misconfigured`),
/// call again (`Transient`).
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The platform has no such machine free; another target may have one.
    #[error("no capacity: {message}")]
    Capacity {
        /// The platform's text.
        message: String,
    },
    /// One zone has no such machine free; the next call asks another zone.
    #[error("no capacity at one place: {message}")]
    ZoneCapacity {
        /// The platform's text.
        message: String,
    },
    /// The account runs as many tasks as it may; a retry helps when one has exited.
    #[error("quota of the account reached: {message}")]
    Quota {
        /// The platform's text.
        message: String,
    },
    /// Too many launches in a short time.
    #[error("launch quota used up: {message}")]
    Throttled {
        /// The platform's text.
        message: String,
        /// Wait that the platform asks for; `None`: it does not say.
        retry_after: Option<Duration>,
    },
    /// The configuration or the platform's set-up is wrong; a retry changes nothing.
    #[error("launcher misconfigured: {message}")]
    Misconfigured {
        /// What is wrong.
        message: String,
        /// The library's error, for logs only.
        #[source]
        source: Option<Box<dyn Error + Send + Sync>>,
    },
    /// No answer, or a temporary failure: call again with the same order, which finds what the platform has taken.
    #[error("launch failed: {message}")]
    Transient {
        /// What failed.
        message: String,
        /// The library's error, for logs only.
        #[source]
        source: Option<Box<dyn Error + Send + Sync>>,
    },
}
