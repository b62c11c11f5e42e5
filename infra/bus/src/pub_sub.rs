//! Publish and subscribe: the trait, and the table from subscriptions to their readers in this process. Every backend
//! delivers through [`Routes`]; it belongs to the task or lock of the backend and never waits.

use std::collections::HashMap;

use async_trait::async_trait;
use bytes::Bytes;
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
