//! What was asked becomes what will be made. Pure: no clock, no sockets, no disk.
//!
//! `request` reads a StartEgress and refuses what can be known to be wrong; `encoding`, `container` and `name` hold the
//! rules it applies; the result is an [`EgressPlan`], which travels in the ticket to the runner and its media process.

mod types;

pub use types::*;
