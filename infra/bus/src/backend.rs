//! The little that everything here asks of Redis, so that a broker in memory can do it as well.

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use spillway_process::Clock;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::warn;

use crate::BusError;
use crate::tasks::{Caps, LedgerLine, Pace, SlotResult};

#[async_trait]
pub(crate) trait Backend: Send + Sync + 'static {
    async fn publish(&self, channel: &str, payload: Bytes) -> Result<(), BusError>;

    /// Returns when the server has confirmed: what is published from now on is heard, but for the time a lost connection
    /// takes to come back.
    async fn subscribe(&self, interest: Interest) -> Result<Subscription, BusError>;

    /// Sets a key nobody else has set, for `ttl`.
    async fn lock(&self, key: &str, ttl: Duration) -> Result<Lock, BusError>;

    async fn read(&self, key: &str) -> Result<Option<Versioned>, BusError>;

    /// As many reads, in their order, in as few round trips as there are servers.
    async fn read_all(&self, keys: &[String]) -> Result<Vec<Option<Versioned>>, BusError>;

    /// Versions alone, 0 for what is not there: what has not changed need not be read again.
    async fn versions(&self, keys: &[String]) -> Result<Vec<u64>, BusError>;

    /// Writes when the guard holds, in one step. Without a `ttl` the key keeps the one it has.
    async fn compare_and_set(
        &self,
        key: &str,
        precondition: Precondition,
        value: NewValue<'_>,
    ) -> Result<CasResult, BusError>;

    /// Of many takers one gets it, and from then on the key reads as absent. Repeated by the same taker it answers the
    /// same for `repeatable`, in case the first answer was lost; then the key is gone.
    async fn take(&self, key: &str, taker: &str, repeatable: Duration) -> Result<Option<Versioned>, BusError>;

    async fn expire(&self, key: &str, ttl: Duration) -> Result<(), BusError>;

    async fn remove(&self, key: &str) -> Result<(), BusError>;

    /// A set of names, each with a number.
    async fn index_add(&self, key: &str, member: &str, score: i64) -> Result<(), BusError>;
    async fn index_remove(&self, key: &str, member: &str) -> Result<(), BusError>;
    async fn index(&self, key: &str) -> Result<Vec<(String, i64)>, BusError>;

    /// The holder's number if it has or gets the lease.
    async fn lease(&self, key: &str, holder: &str, ttl: Duration) -> Result<Option<u64>, BusError>;
    /// The last number given; 0 before the first.
    async fn fence(&self, key: &str) -> Result<u64, BusError>;

    async fn open(&self, args: &OpenTaskArgs<'_>) -> Result<SlotResult, BusError>;
    /// With a complaint slower, without one a little faster.
    async fn pace(&self, target: &str, pace: Pace, complaint: Option<Duration>) -> Result<(), BusError>;
    async fn close(&self, closing: &CloseTask<'_>) -> Result<bool, BusError>;
    async fn opened(&self) -> Result<Vec<(String, String)>, BusError>;
    async fn spent(&self, field: &str) -> Result<f64, BusError>;
    /// Of the ledger. `from`: Unix milliseconds, or `(` and the id of the line before.
    async fn lines(&self, from: &str, until_ms: i64, max: usize) -> Result<Vec<(String, String)>, BusError>;

    /// The server's time, as well as it can be known here; it stamps what is sent.
    fn clock(&self) -> &Clock;

    fn healthy(&self) -> bool;
}

/// A task that is to be opened, if caps and pace allow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OpenTaskArgs<'a> {
    pub task: &'a str,
    /// One line each.
    pub tenant: &'a str,
    pub target: &'a str,
    pub facts: &'a str,
    pub caps: Caps,
    pub pace: Option<Pace>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct CloseTask<'a> {
    pub task: &'a str,
    pub line: Option<LedgerLine<'a>>,
    /// Lines the ledger keeps, about.
    pub keep: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Interest {
    Channel(String),
    /// Redis' glob; we only ever use `*`.
    Pattern(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lock {
    Ours,
    Theirs,
}

/// What must hold for a write. An absent key has version 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Precondition {
    Is(u64),
    NotAbove(u64),
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct NewValue<'a> {
    pub version: u64,
    pub value: &'a [u8],
    pub ttl: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CasResult {
    Done,
    Conflict,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Versioned {
    pub version: u64,
    pub value: Bytes,
    /// Until it expires, if it does.
    pub remaining: Option<Duration>,
}

/// A message as it came in.
#[derive(Clone, Debug)]
pub(crate) struct InboundMessage {
    pub channel: String,
    pub payload: Bytes,
    /// When it left the socket, so that waiting in an inbox counts against its time.
    pub at: Instant,
}

/// Ends when it is dropped.
pub(crate) struct Subscription {
    inbox: mpsc::Receiver<InboundMessage>,
    leave: Option<Box<dyn FnOnce() + Send + Sync>>,
}

impl Subscription {
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

/// Who in this process wants what. One slow reader loses messages of its own and holds up nobody: psrpc promises no
/// delivery, and whoever calls asks again.
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

/// livekit-server gives its clients 1000.
const INBOX: usize = 4096;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RouteRemoval {
    /// Nobody here wants it any more.
    Last,
    OthersRemain,
}

impl Routes {
    pub fn add(&mut self, interest: Interest) -> (u64, mpsc::Receiver<InboundMessage>) {
        let (inbox, outbox) = mpsc::channel(INBOX);
        self.next += 1;
        self.by_interest.entry(interest).or_default().push(Route { id: self.next, inbox, lost: 0 });
        (self.next, outbox)
    }

    pub fn remove(&mut self, interest: &Interest, id: u64) -> RouteRemoval {
        let Some(routes) = self.by_interest.get_mut(interest) else { return RouteRemoval::Last };
        routes.retain(|route| route.id != id);
        if !routes.is_empty() {
            return RouteRemoval::OthersRemain;
        }
        self.by_interest.remove(interest);
        RouteRemoval::Last
    }

    pub fn wants(&self, interest: &Interest) -> bool {
        self.by_interest.contains_key(interest)
    }

    pub fn interests(&self) -> impl Iterator<Item = &Interest> {
        self.by_interest.keys()
    }

    pub fn deliver(&mut self, interest: &Interest, delivery: &InboundMessage) {
        for route in self.by_interest.get_mut(interest).into_iter().flatten() {
            if let Err(mpsc::error::TrySendError::Full(_)) = route.inbox.try_send(delivery.clone()) {
                // Each doubling once, so that a reader that stays slow is not a flood in the log.
                route.lost += 1;
                if route.lost.is_power_of_two() {
                    warn!(channel = delivery.channel, lost = route.lost, "reader too slow, messages dropped");
                }
            }
        }
    }
}
