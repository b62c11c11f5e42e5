//! `spillway-dispatcher probe`: one task on a target, through the ordinary launcher, whose runner checks what a recording would
//! need and records nothing. No record, no slot and no ledger line is made: livekit-server knows nothing of it and nobody is
//! billed; the log and the task's labels name it.
//!
//! `run` leads it, `launch` starts the task. `ticket` is what the runner gets, `diagnosis` finds the cause of a task that does not report, `advice` is what
//! to change, `finding` how all is shown.

mod run;
mod launch;
mod ticket;
mod diagnosis;
mod finding;
mod advice;

pub use advice::{ProbeSite, advice};
pub use finding::{ProbeFinding, ProbeSummary, is_fine};
pub use run::{ProbeNews, ProbeOptions, probe};

pub(crate) use diagnosis::of_launch;
pub(crate) use ticket::new_id;
