use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use spillway_protocol::Secret;
use spillway_protocol::ids::EgressId;

/// A place that can run `spillway-runner`, one task for each egress and attempt.
///
/// The contract, which [`crate::conformance`] checks:
/// * **Launching is idempotent by egress id and attempt.** Asked again, a launcher answers the task it has, dead or
///   alive, and starts no second one; also when the two calls overlap. After a restart of the dispatcher this holds as
///   far as the platform can be asked; where it cannot, the one-time claim in the ticket keeps a second task harmless.
/// * **`launch` returns when the platform has taken the order**, not when the runner works. It may be slow (a cloud's
///   API), never endless, and dropping its future may leave a task behind, which the next call finds.
/// * **`look` tells the truth or says that it cannot.** `Gone` is final: that task will never write again. What this
///   launcher cannot see (another machine, the platform's API down) is `Unknown`, never `Gone`.
/// * **`end` is idempotent** and does not wait for the task to be gone; `look` will tell.
/// * **Only names travel in the open** (environment, labels): egress id, attempt, claim. Secrets go through
///   `LaunchOrder::handover` on a way only the task can read.
#[async_trait]
pub trait Launcher: Send + Sync + 'static {
    /// What configuration and `TaskRef`s call it.
    fn name(&self) -> &'static str;

    async fn launch(&self, order: &LaunchOrder) -> Result<TaskRef, LaunchError>;

    async fn look(&self, task: &TaskRef) -> Sighting;

    async fn end(&self, task: &TaskRef, how: EndHow) -> Ended;

    /// True for a place whose runners share this process's machine, files and memory.
    fn is_this_machine(&self) -> bool {
        false
    }
}

#[derive(Clone, Debug)]
pub struct LaunchOrder {
    pub egress_id: EgressId,
    /// The first is 1.
    pub attempt: u32,
    pub errand: Errand,
    /// Opens the ticket once; worth nothing without the ticket key.
    pub claim: String,
    /// One line of JSON with what must not be seen in the environment (`process`: the child's standard input).
    pub handover: Secret<String>,
    /// For the bill and for people who look at the platform's console.
    pub labels: BTreeMap<String, String>,
}

/// What the runner is started for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Errand {
    #[default]
    Record,
    /// To finish the uploads of a task that died.
    Salvage,
}

impl LaunchOrder {
    /// The runner's command line behind its name.
    pub fn arguments(&self) -> &'static [&'static str] {
        match self.errand {
            Errand::Record => &[],
            Errand::Salvage => &["--salvage"],
        }
    }

    /// What the runner finds in its environment.
    pub fn names(&self) -> [(&'static str, String); 3] {
        [(EGRESS_ID, self.egress_id.to_string()), (ATTEMPT, self.attempt.to_string()), (CLAIM, self.claim.clone())]
    }
}

pub(crate) const EGRESS_ID: &str = "SPILLWAY_EGRESS_ID";
pub(crate) const ATTEMPT: &str = "SPILLWAY_ATTEMPT";
pub(crate) const CLAIM: &str = "SPILLWAY_CLAIM";

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

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sighting {
    Alive,
    Gone(Departure),
    /// Not to be seen from here, and why.
    Unknown(String),
}

/// How a task left, as far as the platform says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Departure {
    Exited(i32),
    Signalled(i32),
    /// The platform's own words ("OutOfMemoryError", "Spot interruption").
    Said(String),
    /// Gone, and nobody kept the reason.
    Unsaid,
}

impl fmt::Display for Departure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "exit status {code}"),
            Self::Signalled(6) => f.write_str("signal 6 (aborted)"),
            Self::Signalled(9) => f.write_str("signal 9 (killed; often: out of memory)"),
            Self::Signalled(11) => f.write_str("signal 11 (segmentation fault)"),
            Self::Signalled(15) => f.write_str("signal 15 (terminated)"),
            Self::Signalled(number) => write!(f, "signal {number}"),
            Self::Said(words) => f.write_str(words),
            Self::Unsaid => f.write_str("no exit status known"),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndHow {
    /// Finish the recording, report, leave.
    Ask,
    /// At once; the registry already says what became of the egress.
    Now,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Told,
    AlreadyGone,
    /// Not ours to end from here.
    OutOfReach,
}

/// Why no task was started. Each kind asks for another answer: wait for room, wait as told, tell the operator, try again.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    #[error("no capacity: {words}")]
    Capacity { words: String },
    #[error("launch quota used up: {words}")]
    Throttled { words: String, retry_after: Option<Duration> },
    #[error("launcher misconfigured: {words}")]
    Misconfigured {
        words: String,
        #[source]
        source: Option<Box<dyn Error + Send + Sync>>,
    },
    #[error("launch failed: {words}")]
    Passing {
        words: String,
        #[source]
        source: Option<Box<dyn Error + Send + Sync>>,
    },
}
