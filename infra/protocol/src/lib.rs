//! The words on the wire, and values that never print (`secret`). Values only: no sockets, no clock, no chance.

/// LiveKit's public messages, as published.
pub use livekit_protocol as livekit;

pub mod ids;
pub mod code;
pub mod ledger;
pub mod psrpc;
pub mod redact;
pub mod rpc;
pub mod secret;

pub use code::{Code, RpcError};
pub use ids::EgressId;
pub use secret::Secret;
