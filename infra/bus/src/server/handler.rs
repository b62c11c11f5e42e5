//! What a service of this process implements ([`Handler`]), and the call it is given.

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use spillway_protocol::RpcError;
use tokio::time::Instant;

/// How psrpc hands a method's calls to its servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Routing {
    /// Every server bids; the caller picks by affinity.
    Affinity,
    /// A lock in Redis decides which server bids.
    Queue,
    /// Every server answers, without a bid.
    Multi,
}

/// A call as it came in.
#[derive(Clone, Debug)]
pub struct Incoming {
    /// Method of the served psrpc service.
    pub method: String,
    /// The egress id, for EgressHandler; else empty.
    pub topic: String,
    /// The request message as the caller serialised it.
    pub request: Bytes,
    /// Made by the caller; the same when a publish was repeated.
    pub request_id: String,
    /// The caller, for its response channel.
    pub client_id: String,
    /// psrpc metadata, such as a trace context.
    pub metadata: HashMap<String, String>,
    /// Unix nanoseconds on the caller's clock.
    pub sent_at: i64,
    /// The caller's timeout as a whole. It counts from `received` on this host's clock, since the caller's may differ.
    pub time_allowed: Duration,
    /// When it left the socket.
    pub received: Instant,
}

impl Incoming {
    /// The caller no longer waits after this.
    pub fn deadline(&self) -> Instant {
        self.received + self.time_allowed
    }
}

/// A handler's answer to a call that is offered.
#[derive(Clone, Debug, PartialEq)]
pub enum Bid {
    /// No bid; other servers may want the call.
    Silent,
    /// Bid with this affinity: 1.0 and more is granted at once, 0.0 never.
    Now(f32),
    /// Bid with this affinity after a delay, in which a better server may win.
    After(Duration, f32),
    /// The request message cannot be read: the caller gets this message as an error without a bid, as psrpc does.
    Malformed(String),
}

/// Serves the calls of a method.
#[async_trait]
pub trait Handler: Send + Sync + 'static {
    /// Whether and how much this server wants the call. Must not wait for anything slow: the caller selects within a
    /// second.
    async fn bid(&self, incoming: &Incoming) -> Bid;

    /// Called once granted (with [`Routing::Multi`]: always). Returns the serialised response message, which is
    /// published even after the deadline; a handler that must be in time checks [`Incoming::deadline`]. A panic is
    /// answered as [`spillway_protocol::Code::Internal`].
    ///
    /// # Errors
    /// Sent to the caller as psrpc's error with this code.
    async fn answer(&self, incoming: Incoming) -> Result<Vec<u8>, RpcError>;
}
