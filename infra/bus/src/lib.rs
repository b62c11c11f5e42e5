//! Redis as everything that must be shared: psrpc with livekit-server, the registry of egresses, tickets, heartbeats,
//! open tasks with their caps and the ledger, leases.
//!
//! [`Bus`] is the one handle, cheap to clone. It stands on Redis ([`Bus::connect`]) or, for tests, on a [`MemoryBroker`];
//! both pass the same suite (`tests/suite`).

pub mod config;
pub mod error;
pub mod names;
mod envelope;
mod backend;
mod task_ledger;
mod memory;
mod faulty_link;
mod redis;
mod selection;
mod client;
mod server;
mod io;
mod registry;
mod tickets;
mod heartbeats;
mod uploads;
mod leases;
mod installation;
mod switches;
mod tasks;
pub mod raw;

use std::sync::Arc;

pub use client::{CallOptions, RpcClient};
pub use config::RedisConfig;
pub use error::BusError;
pub use faulty_link::{FaultyLink, LinkFaults};
pub use heartbeats::{FencedWrite, Heartbeat, Heartbeats};
pub use installation::Installation;
pub use io::IoClient;
pub use leases::Leases;
pub use memory::MemoryBroker;
pub use registry::{Created, Decision, LiveIndex, Phase, Record, Registry, Updated};
pub use server::{Bid, Handler, Incoming, Routing, RpcServer};
pub use switches::Switches;
pub use tasks::{CapReached, Caps, LedgerLine, OpenTask, OpenTaskEntry, Pace, SlotResult, TaskKey, Tasks};
pub use tickets::{ClaimToken, Taker, Ticket, TicketKey, Tickets};
pub use uploads::UploadStates;

use backend::Backend;
use spillway_process::Clock;

/// A connection to everything shared.
#[derive(Clone)]
pub struct Bus {
    backend: Arc<dyn Backend>,
}

impl Bus {
    /// Connects and stays connected: what breaks later is mended in the background, and [`Bus::healthy`] says so
    /// meanwhile. The first PING must be answered.
    pub async fn connect(config: &RedisConfig) -> Result<Bus, BusError> {
        Self::connect_with(config, Clock::host()).await
    }

    /// As [`Bus::connect`], for a host whose clock is `clock`: it is put right by Redis' time and stays so.
    pub async fn connect_with(config: &RedisConfig, clock: Clock) -> Result<Bus, BusError> {
        Ok(Bus { backend: Arc::new(redis::RedisBackend::connect(config, clock).await?) })
    }

    /// A bus of its own in this process. Several that hear each other: [`MemoryBroker::bus`].
    pub fn memory() -> Bus {
        MemoryBroker::new().bus()
    }

    /// Redis' time, which all processes of an installation share: for everything that is stamped, sent or billed.
    pub fn clock(&self) -> &Clock {
        self.backend.clock()
    }

    /// Every subscription stands confirmed on a live connection and the last ping was answered. Bids are made only then.
    pub fn healthy(&self) -> bool {
        self.backend.healthy()
    }
}

impl std::fmt::Debug for Bus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bus").field("healthy", &self.healthy()).finish_non_exhaustive()
    }
}
