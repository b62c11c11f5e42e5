//! The route of a StartEgress, in order: `intake` hears it and bids, `admission` decides, `launch` starts a runner for it,
//! `reconcile` sees to it that it ends in one truth, `report` tells livekit-server.
//!
//! Beside the route: `config`, the `context` they share, the `targets` it may ask, `billing` (what it cost),
//! `control` (stop and update, where no runner listens), `health` and what is pushed to its port (`events`); `exit_handler`,
//! which is all of this that a Lambda needs.

pub mod config;
mod context;
pub mod targets;
pub mod intake;
pub mod admission;
pub mod queue;
pub mod launch;
pub mod reconcile;
pub mod report;
pub mod billing;
mod control;
mod health;
mod events;
mod metrics;
mod dispatcher;
mod exit_handler;

pub use config::Config;
pub use dispatcher::{Dispatcher, DispatcherError, sweep, sweep_on};
pub use exit_handler::ExitHandler;
pub use spillway_process::Clock;
