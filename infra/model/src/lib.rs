//! What Spillway's processes store in Redis or send to one another: typed values and their serialised forms.
//!
//! Values only: no Redis, no clock, no random numbers, no tasks. `spillway-bus` reads and writes them.
//!
//! A rolling upgrade runs two versions against one Redis with recordings in progress. Each stored type is therefore
//! read without its optional fields, and a record and a heartbeat keep fields they do not know. What cannot be read
//! is an error of the reader, never a default.

#![warn(missing_docs)]
#![warn(clippy::missing_errors_doc)]

pub mod record;
pub mod ticket;
pub mod heartbeat;
pub mod task;

pub use heartbeat::{Heartbeat, StoredHeartbeat};
pub use record::{Phase, Record};
pub use task::{CapReached, Caps, CloseTask, LedgerLine, OpenTask, OpenTaskEntry, Pace, SlotResult, TaskKey};
pub use ticket::{ClaimToken, Ticket};
