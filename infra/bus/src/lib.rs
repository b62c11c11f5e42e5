//! Redis as everything that is shared: psrpc with livekit-server, the registry of egresses, tickets, heartbeats, open
//! tasks with their caps and the ledger, leases.
//!
//! [`Bus`] is the one handle, cheap to clone. It stands on Redis ([`Bus::connect`]) or, for tests, on a broker in
//! memory (feature `testing`); both pass the same suite (`tests/bus/suite`). Everything runs on the caller's tokio
//! runtime: each connection has one background task that keeps it alive, each served method one that reads its calls.
//!
//! The types that are stored or sent live in `spillway-model` and are re-exported here.

#![warn(missing_docs)]
#![warn(clippy::missing_errors_doc)]

#[cfg(feature = "testing")]
pub mod testing;
mod tasks;
mod switches;
mod installation;
mod server_info;
mod probes;
mod leases;
mod uploads;
mod heartbeats;
mod tickets;
mod registry;
mod server;
mod client;
mod redis;
mod bus;
mod task_ledger;
mod key_value;
mod pub_sub;
pub mod names;
pub mod error;
pub mod config;

pub use bus::Bus;
pub use client::{CallOptions, IoClient, RpcClient};
pub use config::RedisConfig;
pub use error::{BusError, ConnectStep};
pub use heartbeats::{FencedWrite, Heartbeats};
pub use installation::Installation;
pub use leases::Leases;
pub use probes::ProbeReports;
pub use registry::{Created, FoundRecord, LiveIndex, Registry, Updated};
pub use server::{Bid, Handler, Incoming, Routing, RpcServer};
pub use server_info::RedisFacts;
pub use spillway_model::{
    CapReached, Caps, ClaimToken, Dispatch, Heartbeat, LaunchState, LedgerLine, LiveStream, LiveStreams, OpenTask,
    OpenTaskEntry, Pace, PaceState, Phase, Platform, ProbeCause, ProbeLine, ProbeOrder, ProbeOutcome, ProbeReport,
    Record, Resumption, Shape, SlotResult, TaskFacts, TaskKey, TaskRef, Ticket, lifecycle,
};
pub use switches::Switches;
pub use tasks::Tasks;
#[cfg(feature = "testing")]
pub use testing::{AffinityOptions, Decision, FaultyLink, LinkFaults, MemoryBroker};
pub use tickets::{Taker, TicketKey, Tickets};
pub use uploads::UploadStates;
