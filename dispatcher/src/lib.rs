//! The dispatcher: accepts StartEgress, starts a runner for each egress, sees that every egress ends in one final
//! state, and bills its tasks. Modules are listed from the bottom up: each uses only those above it in this list.
//!
//! A request passes `intake` → `admission` → `queue` → `launch` → a launcher. `reconcile` is the control loop,
//! `final_state` ends what a runner cannot end, `control` answers Stop and UpdateStream where no runner listens,
//! `events` takes exit events, `billing` closes tasks. `dispatcher` and `exit_handler` (for AWS Lambda) put them
//! together.

#![warn(missing_docs, clippy::missing_errors_doc)]

mod lock;
mod metrics;
pub mod config;
mod admission;
mod launch_state;
mod liveness;
mod queue;
pub mod targets;
mod task_facts;
mod report;
mod context;
mod final_state;
pub mod billing;
mod launch;
pub mod reconcile;
mod intake;
mod control;
mod events;
mod health;
mod setup;
mod dispatcher;
mod exit_handler;

pub use config::Config;
pub use dispatcher::{Dispatcher, sweep};
pub use exit_handler::ExitHandler;
pub use setup::{DispatcherError, Setup};
pub use spillway_process::Clock;
