//! The dispatcher: accepts StartEgress, starts a runner for each egress, sees that every egress ends in one final
//! state, and bills its tasks. Modules are listed from the bottom up: each uses only those above it in this list.
//!
//! A request passes `intake` → `admission` → `queue` → `launch` → a launcher. `reconcile` is the control loop,
//! `final_state` ends what a runner cannot end, `control` answers Stop and UpdateStream where no runner listens,
//! `events` takes exit events, `billing` closes tasks. `dispatcher` and `exit_handler` (for AWS Lambda) put them
//! together.

#![warn(missing_docs, clippy::missing_errors_doc)]

mod exit_handler;
mod dispatcher;
mod setup;
mod health;
mod events;
mod control;
mod intake;
pub mod reconcile;
mod launch;
pub mod billing;
mod final_state;
mod context;
mod report;
pub mod targets;
mod queue;
mod liveness;
mod admission;
pub mod config;
mod metrics;
mod cut_off;
mod lock;

pub use config::Config;
pub use dispatcher::{Dispatcher, sweep};
pub use exit_handler::ExitHandler;
pub use setup::{DispatcherError, Setup};
pub use spillway_process::Clock;
