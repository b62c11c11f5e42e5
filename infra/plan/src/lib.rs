//! What was asked becomes what will be made. Pure: no clock, no sockets, no disk.
//!
//! `request` reads a StartEgress and refuses what can be known to be wrong; `encoding`, `layout`, `container` and `name`
//! hold the rules it applies; the result is an [`EgressPlan`], which travels in the ticket to the runner and its media
//! process. `read` takes the same request from a file. `uploads` reads out of the same request where the outputs go; that
//! has secrets and never is part of the plan ([`Destinations`]). `manifest` writes down what became of it.

mod container;
pub mod destination;
mod encoding;
mod error;
mod layout;
mod read;
pub mod manifest;
pub mod name;
mod request;
mod types;
pub mod uploads;

pub use container::PublishedCodec;
pub use destination::{Destination, Destinations, Provider, StorageConfig, Store};
pub use error::PlanError;
pub use read::{ReadError, start_request};
pub use request::{Defaults, plan};
pub use spillway_protocol::Secret;
pub use types::*;
pub use uploads::destinations;
