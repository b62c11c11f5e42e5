//! What Spillway's processes store in Redis or send to one another: typed values, their stored forms, and how the record
//! of an egress changes.
//!
//! Values only: no Redis, no clock, no random numbers, no tasks. `spillway-bus` reads and writes them.
//!
//! A rolling upgrade runs two versions against one Redis with recordings in progress. Each stored type is therefore
//! read without its optional fields, and a record and a heartbeat keep fields they do not know. What cannot be read
//! is an error of the reader, never a default. `src/golden` has what the version before this one stores.

#![warn(missing_docs)]
#![warn(clippy::missing_errors_doc)]

pub mod lifecycle;
pub mod record;
mod stored_record;
pub mod resumption;
pub mod launch_state;
pub mod dispatch;
pub mod ticket;
pub mod probe;
pub mod heartbeat;
pub mod task_facts;
pub mod task;
pub mod machine;

pub use dispatch::Dispatch;
pub use heartbeat::{Heartbeat, StoredHeartbeat};
pub use launch_state::{LaunchState, Phase};
pub use machine::{Capacity, Load, Platform, Shape};
pub use probe::{ProbeCause, ProbeLine, ProbeOrder, ProbeOutcome, ProbeReport};
pub use record::Record;
pub use resumption::Resumption;
pub use task::{
    CapReached, Caps, CloseTask, LedgerLine, OpenTask, OpenTaskEntry, Pace, PaceState, SlotResult, TaskKey, TaskRef,
};
pub use task_facts::TaskFacts;
pub use ticket::{ClaimToken, LiveStream, LiveStreams, Ticket};
