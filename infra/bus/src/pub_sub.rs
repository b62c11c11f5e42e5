//! Publish and subscribe: the trait, the table from subscriptions to their readers in this process, and psrpc's envelope,
//! in which every message travels (livekit/psrpc `internal/bus/serialization.go`). Every backend delivers through
//! [`Routes`]; it belongs to the task or lock of the backend and never waits. Sends uncompressed; reads gzip of other
//! senders too.

use std::collections::HashMap;
use std::io::Read;

use async_trait::async_trait;
use bytes::Bytes;
use prost::Message;
use spillway_protocol::psrpc::{Body, Msg};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::warn;

use crate::error::BusError;

/// Channels of Redis. Delivery is at most once: what is published while a subscriber's connection is down is lost.
#[async_trait]
pub(crate) trait PubSub: Send + Sync {
    /// Sends to every subscriber of the channel, wherever it is connected.
    ///
    /// # Errors
    /// Redis was not reached or did not answer; the message may have been sent. A retry may send it twice.
    async fn publish(&self, channel: &str, payload: Bytes) -> Result<(), BusError>;

    /// Returns when the server has confirmed: what is published from now on is delivered, except while a lost
    /// connection is being made anew.
    ///
    /// # Errors
    /// The server did not confirm in time; nothing is subscribed then, and a retry is right.
    async fn subscribe(&self, interest: Interest) -> Result<Subscription, BusError>;
}

/// What is subscribed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Interest {
    /// One channel.
    Channel(String),
    /// Redis' glob; only `*` is used.
    Pattern(String),
}

/// A message as it came in.
#[derive(Clone, Debug)]
pub(crate) struct InboundMessage {
    /// The channel it was published on.
    pub channel: String,
    /// As published.
    pub payload: Bytes,
    /// When it left the socket, so that waiting in a queue counts against its time.
    pub at: Instant,
}

impl InboundMessage {
    /// The psrpc message inside.
    ///
    /// # Errors
    /// The payload is no envelope, holds another kind of message, or is damaged; the sender's fault, and for good.
    pub fn open<B: Body>(&self) -> Result<B, EnvelopeError> {
        let msg = Msg::decode(&*self.payload).map_err(EnvelopeError::Envelope)?;
        if msg.body_name() != B::NAME {
            return Err(EnvelopeError::Kind { found: msg.type_url, expected: B::NAME });
        }
        let value = match msg.compression {
            Msg::PLAIN => msg.value,
            Msg::GZIP => gunzip(&msg.value)?,
            other => return Err(EnvelopeError::Compression(other)),
        };
        B::decode(value.as_slice()).map_err(|source| EnvelopeError::Body { kind: B::NAME, source })
    }
}

/// The payload that carries `body`.
pub(crate) fn seal<B: Body>(body: &B) -> Bytes {
    Msg::wrap(body).encode_to_vec().into()
}

/// Messages of one [`Interest`]. Dropping it unsubscribes.
pub(crate) struct Subscription {
    inbox: mpsc::Receiver<InboundMessage>,
    leave: Option<Box<dyn FnOnce() + Send + Sync>>,
}

impl Subscription {
    /// `leave` runs once, when the subscription is dropped.
    pub fn new(inbox: mpsc::Receiver<InboundMessage>, leave: impl FnOnce() + Send + Sync + 'static) -> Self {
        Self { inbox, leave: Some(Box::new(leave)) }
    }

    /// `None` when the bus is gone.
    pub async fn recv(&mut self) -> Option<InboundMessage> {
        self.inbox.recv().await
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if let Some(leave) = self.leave.take() {
            leave();
        }
    }
}

/// The subscriptions of this process. A slow reader loses messages of its own and delays no other: psrpc promises no
/// delivery, and its callers ask again.
#[derive(Default)]
pub(crate) struct Routes {
    next: u64,
    by_interest: HashMap<Interest, Vec<Route>>,
}

struct Route {
    id: u64,
    inbox: mpsc::Sender<InboundMessage>,
    lost: u64,
}

/// Messages that wait for one reader. livekit-server gives its clients 1000.
const INBOX: usize = 4096;

/// What is left of an interest after [`Routes::remove`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RouteRemoval {
    /// No reader in this process is left.
    Last,
    /// Other readers have the same interest.
    OthersRemain,
}

impl Routes {
    /// A new reader: its id, for [`Routes::remove`], and its queue.
    pub fn add(&mut self, interest: Interest) -> (u64, mpsc::Receiver<InboundMessage>) {
        let (inbox, outbox) = mpsc::channel(INBOX);
        self.next += 1;
        self.by_interest.entry(interest).or_default().push(Route { id: self.next, inbox, lost: 0 });
        (self.next, outbox)
    }

    /// Forgets a reader.
    pub fn remove(&mut self, interest: &Interest, id: u64) -> RouteRemoval {
        let Some(routes) = self.by_interest.get_mut(interest) else { return RouteRemoval::Last };
        routes.retain(|route| route.id != id);
        if !routes.is_empty() {
            return RouteRemoval::OthersRemain;
        }
        self.by_interest.remove(interest);
        RouteRemoval::Last
    }

    /// Whether a reader has this interest.
    pub fn wants(&self, interest: &Interest) -> bool {
        self.by_interest.contains_key(interest)
    }

    /// What must be subscribed for the readers there are.
    pub fn interests(&self) -> impl Iterator<Item = &Interest> {
        self.by_interest.keys()
    }

    /// Queues the message for every reader of exactly this interest; a full queue drops it.
    pub fn deliver(&mut self, interest: &Interest, delivery: &InboundMessage) {
        for route in self.by_interest.get_mut(interest).into_iter().flatten() {
            if let Err(mpsc::error::TrySendError::Full(_)) = route.inbox.try_send(delivery.clone()) {
                // Logged at each doubling, so that a reader that stays slow does not flood the log.
                route.lost += 1;
                if route.lost.is_power_of_two() {
                    warn!(channel = delivery.channel, lost = route.lost, "reader too slow, messages dropped");
                }
            }
        }
    }
}

/// A message unpacks to at most this much. A small gzip can grow a thousandfold.
const MAX_UNPACKED_BYTES: u64 = 64 << 20;

/// Why a payload is not the expected message. A retry is pointless.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EnvelopeError {
    #[error("not a psrpc message")]
    Envelope(#[source] prost::DecodeError),
    #[error("holds {found}, not {expected}")]
    Kind { found: String, expected: &'static str },
    #[error("compressed in an unknown way ({0})")]
    Compression(i32),
    #[error("not gzip")]
    Gzip(#[source] std::io::Error),
    #[error("unpacks to more than {MAX_UNPACKED_BYTES} bytes")]
    Large,
    #[error("not a {kind}")]
    Body { kind: &'static str, source: prost::DecodeError },
}

fn gunzip(packed: &[u8]) -> Result<Vec<u8>, EnvelopeError> {
    let mut value = Vec::new();
    let mut unpacked = flate2::read::GzDecoder::new(packed).take(MAX_UNPACKED_BYTES + 1);
    unpacked.read_to_end(&mut value).map_err(EnvelopeError::Gzip)?;
    if value.len() as u64 > MAX_UNPACKED_BYTES {
        return Err(EnvelopeError::Large);
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use spillway_protocol::psrpc::{ClaimResponse, RpcRequest};

    use super::*;

    fn open<B: Body>(payload: &[u8]) -> Result<B, EnvelopeError> {
        let payload = Bytes::copy_from_slice(payload);
        InboundMessage { channel: String::new(), payload, at: Instant::now() }.open()
    }

    fn gzip(value: &[u8]) -> Vec<u8> {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packer.write_all(value).unwrap();
        packer.finish().unwrap()
    }

    #[test]
    fn gzip_is_read() {
        let grant = ClaimResponse { request_id: "REQ_1".into(), server_id: "SRV_1".into() };
        let plain = Msg::wrap(&grant);
        let packed = Msg { value: gzip(&plain.value), compression: Msg::GZIP, ..plain };
        assert_eq!(open::<ClaimResponse>(&packed.encode_to_vec()).unwrap(), grant);
    }

    #[test]
    fn a_bomb_is_refused() {
        let bomb = gzip(&vec![0; MAX_UNPACKED_BYTES as usize + 1]);
        let msg = Msg { value: bomb, compression: Msg::GZIP, ..Msg::wrap(&RpcRequest::default()) };
        assert!(matches!(open::<RpcRequest>(&msg.encode_to_vec()), Err(EnvelopeError::Large)));
    }

    #[test]
    fn what_does_not_belong_is_named() {
        let request = Msg::wrap(&RpcRequest::default()).encode_to_vec();
        assert!(matches!(open::<ClaimResponse>(&request), Err(EnvelopeError::Kind { .. })));
        assert!(matches!(open::<RpcRequest>(b"\xff\xff\xff"), Err(EnvelopeError::Envelope(_))));
        let strange = Msg { compression: 7, ..Msg::wrap(&RpcRequest::default()) }.encode_to_vec();
        assert!(matches!(open::<RpcRequest>(&strange), Err(EnvelopeError::Compression(7))));
    }
}
