//! For tests (cargo feature `testing`): a broker in memory that passes the same suite as Redis, a link to a broker on
//! which commands fail by seed, and channels without psrpc. Nothing in production uses this module.

mod memory_ledger;
mod memory;
mod faulty_link;
mod raw;

pub use faulty_link::{FaultyLink, LinkFaults};
pub use memory::MemoryBroker;
pub use raw::{ChannelMessage, Tap};
