//! The route of a StartEgress, in order: `intake` hears it and bids, `admit` decides, `launch` starts a runner for it,
//! `watch` sees to it that it ends in one truth, `report` tells livekit-server.
//!
//! Beside the route: `config`, the `house` all rooms stand in, the `targets` it may ask, `account` (what it cost),
//! `control` (stop and update, where no runner listens), `health` and what is pushed to its port (`push`); `settler`,
//! which is all of this that a Lambda needs.

pub mod config;
mod house;
pub mod targets;
pub mod intake;
pub mod admit;
pub mod launch;
pub mod watch;
pub mod report;
pub mod account;
mod control;
mod health;
mod push;
mod meter;
mod dispatcher;
mod settler;

pub use config::Config;
pub use dispatcher::{Dispatcher, DispatcherError, sweep, sweep_on};
pub use settler::Settler;
pub use spillway_process::Clock;
