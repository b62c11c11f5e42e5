//! The route of a StartEgress, in order: `intake` hears it and bids, `admit` decides, `launch` starts a runner for it,
//! `watch` sees to it that it ends in one truth, `report` tells livekit-server.
//!
//! Beside the route: `config`, the `house` all rooms stand in, `control` (stop and update, where no runner listens),
//! `health`.

pub mod config;
mod house;
pub mod intake;
pub mod admit;
pub mod launch;
pub mod watch;
pub mod report;
mod control;
mod health;
mod dispatcher;
mod clock;

pub use clock::Clock;
pub use config::Config;
pub use dispatcher::{Dispatcher, DispatcherError};
