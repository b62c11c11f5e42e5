//! For tests (cargo feature `testing`): a broker in memory that passes the same suite as Redis, a link to a broker on
//! which commands fail by seed, livekit-server's kinds of calls, channels without psrpc, and stored values that
//! no program writes. Nothing in production uses this module.

mod memory_ledger;
mod memory;
mod faulty_link;
mod raw;
mod stored;
mod affinity;
mod selection;

pub use affinity::AffinityOptions;
pub use faulty_link::{FaultyLink, LinkFaults};
pub use memory::{BrokerSnapshot, MemoryBroker};
pub use raw::{ChannelMessage, Tap};
pub use stored::{Decision, record_key};
