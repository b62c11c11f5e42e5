//! What was asked becomes what will be made. Pure: no clock, no sockets, no disk.
//!
//! `request` reads a StartEgress and refuses what can be known to be wrong; `encoding`, `layout`, `container` and `name`
//! hold the rules it applies; the result is an [`EgressPlan`], which travels in the ticket to the runner and its media
//! process. `manifest` writes down what became of it.

mod container;
mod encoding;
mod error;
mod layout;
pub mod manifest;
pub mod name;
mod request;
mod types;

pub use container::PublishedCodec;
pub use error::PlanError;
pub use request::{Defaults, plan};
pub use spillway_protocol::Secret;
pub use types::*;
