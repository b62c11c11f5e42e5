//! Messages between livekit-server and an egress service (`psrpc`, `rpc`), the codes and ids in them, EgressInfo as
//! users see it (`ledger`, `requested`), and values that never print (`secret`). Pure: no sockets, no clock, no randomness.
#![warn(missing_docs)]

/// LiveKit's public messages, as the crate publishes them.
pub use livekit_protocol as livekit;

pub mod ledger;
pub mod requested;
pub mod rpc;
pub mod psrpc;
pub mod code;
pub mod ids;
pub mod secret;

pub use code::{Code, RpcError};
pub use ids::EgressId;
pub use secret::{Secret, hide_value, without_secrets, without_value};
