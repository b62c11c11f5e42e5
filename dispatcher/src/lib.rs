//! The dispatcher: accepts StartEgress, starts a runner for each egress, sees that every egress ends in one final
//! state, and bills its tasks. Modules are listed from the bottom up: each uses only those above it in this list.
//!
//! A request passes `intake` → `admission` → `queue` → `launch` → a launcher. Four actors have their own state and loops:
//! `intake::Intake` accepts, `launch::TaskLauncher` owns queue and targets, `reconcile::Reconciler` compares records with
//! what is observed, `billing::Accountant` closes tasks. Records change only by events of `spillway_model::lifecycle`.
//! `final_state` ends what a runner cannot end, `control` answers Stop and UpdateStream where no runner listens, `events`
//! takes exit events, `console` shows all of it to operators. `dispatcher` and `exit_handler` (for AWS Lambda) put them together.
//! `probe` and `doctor` are commands beside them: they check what an egress needs, where it would run and from here.

#![warn(missing_docs, clippy::missing_errors_doc)]

mod exit_handler;
mod dispatcher;
pub mod doctor;
pub mod probe;
mod setup;
mod server_api;
mod health;
mod console;
mod events;
mod control;
mod list_active;
pub mod reconcile;
mod intake;
pub mod billing;
mod launch;
mod metrics_log;
mod final_state;
mod report;
mod records;
mod instance;
mod task_facts;
pub mod targets;
mod queue;
mod admission;
mod room_token;
pub mod config;
mod installation;
mod overheads;
mod held;
mod metrics;
mod cut_off;
mod lock;

pub use config::Config;
pub use dispatcher::{Dispatcher, sweep};
pub use exit_handler::ExitHandler;
pub use setup::{DispatcherError, Setup};
pub use spillway_process::Clock;
