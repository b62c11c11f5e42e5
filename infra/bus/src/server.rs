//! The serving side of psrpc: hear, bid, wait for the grant, answer.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use spillway_process::chain;
use spillway_protocol::psrpc::{ClaimRequest, ClaimResponse, RpcRequest, RpcResponse};
use spillway_protocol::{Code, RpcError};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, warn};

use crate::backend::{Backend, InboundMessage, Interest, Lock, Subscription};
use crate::names::{self, ChannelKind};
use crate::{Bus, BusError, envelope};

/// How psrpc hands a method's calls to its servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Routing {
    /// All bid, the caller picks by affinity.
    Affinity,
    /// A lock decides who bids.
    Queue,
    /// All answer, nobody bids.
    Multi,
}

/// A call as it came in.
#[derive(Clone, Debug)]
pub struct Incoming {
    pub service: &'static str,
    pub method: String,
    /// The egress id, for EgressHandler; else empty.
    pub topic: String,
    /// The request message as the caller serialised it.
    pub request: Bytes,
    pub request_id: String,
    pub client_id: String,
    pub metadata: HashMap<String, String>,
    /// Unix nanoseconds on the caller's clock.
    pub sent_at: i64,
    /// What the caller gives us in all. Counted from `received` on our own clock: the two machines' clocks may differ.
    pub time_allowed: Duration,
    pub received: Instant,
}

impl Incoming {
    /// The caller has forgotten us by then.
    pub fn deadline(&self) -> Instant {
        self.received + self.time_allowed
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum Bid {
    /// Say nothing: somebody else may want it.
    Silent,
    /// 1.0 and more is granted at once, 0.0 never.
    Now(f32),
    /// Give somebody better placed this long to be faster, then bid.
    After(Duration, f32),
    /// The request message cannot be read: tell the caller without a bid, as psrpc does.
    Malformed(String),
}

#[async_trait]
pub trait Handler: Send + Sync + 'static {
    /// How much we want it. Nothing slow may be waited for: the caller selects within a second.
    async fn bid(&self, incoming: &Incoming) -> Bid;

    /// Called once granted (for [`Routing::Multi`]: always). Returns the serialised response message. It is published
    /// even after the deadline; whoever must be in time looks at [`Incoming::deadline`].
    async fn answer(&self, incoming: Incoming) -> Result<Vec<u8>, RpcError>;
}

/// Serves methods of one service under one server id.
#[derive(Clone)]
pub struct RpcServer {
    inner: Arc<ServerInner>,
}

struct ServerInner {
    backend: Arc<dyn Backend>,
    service: &'static str,
    server_id: String,
    served_methods: Mutex<HashMap<MethodTopic, ServedMethod>>,
    /// Desks and calls still at work.
    tasks: TaskTracker,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum MethodTopic {
    Topic(&'static str, String),
    Pattern(&'static str),
}

/// One served method and topic, seen from outside.
struct ServedMethod {
    leave: CancellationToken,
}

impl RpcServer {
    pub fn new(bus: &Bus, service: &'static str) -> Self {
        Self {
            inner: Arc::new(ServerInner {
                backend: bus.backend.clone(),
                service,
                server_id: names::new_id("SRV_"),
                served_methods: Mutex::default(),
                tasks: TaskTracker::new(),
            }),
        }
    }

    pub fn server_id(&self) -> &str {
        &self.inner.server_id
    }

    /// Serves one topic. When it returns, calls and grants are heard.
    pub async fn serve<H: Handler>(
        &self,
        method: &'static str,
        topic: &str,
        routing: Routing,
        handler: Arc<H>,
    ) -> Result<(), BusError> {
        let channel = |kind| Interest::Channel(names::method_channel(self.inner.service, method, topic, kind));
        let topics = Topics::One(topic.to_owned());
        self.open(MethodTopic::Topic(method, topic.to_owned()), topics, channel, method, routing, handler).await
    }

    /// Serves a method for every topic; the topic is in [`Incoming`].
    pub async fn serve_pattern<H: Handler>(
        &self,
        method: &'static str,
        routing: Routing,
        handler: Arc<H>,
    ) -> Result<(), BusError> {
        let pattern = |kind| Interest::Pattern(names::method_pattern(self.inner.service, method, kind));
        self.open(MethodTopic::Pattern(method), Topics::All, pattern, method, routing, handler).await
    }

    /// No more bids for this topic. Calls in hand still get their grant and their answer.
    pub async fn unsubscribe(&self, method: &'static str, topic: &str) {
        if let Some(served) = self.inner.served_methods().remove(&MethodTopic::Topic(method, topic.to_owned())) {
            served.leave.cancel();
        }
    }

    /// As [`RpcServer::unsubscribe`], for [`RpcServer::serve_pattern`].
    pub async fn unsubscribe_pattern(&self, method: &'static str) {
        if let Some(served) = self.inner.served_methods().remove(&MethodTopic::Pattern(method)) {
            served.leave.cancel();
        }
    }

    /// No more bids at all; returns when every call in hand is answered or forgotten.
    pub async fn close(&self) {
        for (_, served) in self.inner.served_methods().drain() {
            served.leave.cancel();
        }
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }

    async fn open<H: Handler>(
        &self,
        method_topic: MethodTopic,
        topics: Topics,
        interest: impl Fn(ChannelKind) -> Interest,
        method: &'static str,
        routing: Routing,
        handler: Arc<H>,
    ) -> Result<(), BusError> {
        if self.inner.tasks.is_closed() {
            return Err(BusError::Closed);
        }
        let leave = CancellationToken::new();
        {
            let mut served_methods = self.inner.served_methods();
            if served_methods.contains_key(&method_topic) {
                return Err(BusError::Served(format!("{method_topic:?}")));
            }
            served_methods.insert(method_topic.clone(), ServedMethod { leave: leave.clone() });
        }
        // Grants first: a call may come the moment calls are heard.
        let subscribed = async {
            let grants = match routing {
                Routing::Multi => None,
                Routing::Affinity | Routing::Queue => {
                    Some(self.inner.backend.subscribe(interest(ChannelKind::Grant)).await?)
                }
            };
            Ok((grants, self.inner.backend.subscribe(interest(ChannelKind::Request)).await?))
        };
        let (grants, calls) = match subscribed.await {
            Ok(subscriptions) => subscriptions,
            Err(error) => {
                self.inner.served_methods().remove(&method_topic);
                return Err(error);
            }
        };
        let rpc_method = Arc::new(RpcMethod {
            backend: self.inner.backend.clone(),
            service: self.inner.service,
            server_id: self.inner.server_id.clone(),
            method,
            topics,
            routing,
            handler,
            leave,
            grants: Mutex::default(),
            logged: LoggedOnce::default(),
        });
        self.inner.tasks.spawn(rpc_method.run(calls, grants));
        Ok(())
    }
}

impl ServerInner {
    fn served_methods(&self) -> MutexGuard<'_, HashMap<MethodTopic, ServedMethod>> {
        self.served_methods.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Drop for ServerInner {
    fn drop(&mut self) {
        for served in self.served_methods().values() {
            served.leave.cancel();
        }
    }
}

enum Topics {
    One(String),
    All,
}

/// One served method and topic at work.
struct RpcMethod<H> {
    backend: Arc<dyn Backend>,
    service: &'static str,
    server_id: String,
    method: &'static str,
    topics: Topics,
    routing: Routing,
    handler: Arc<H>,
    leave: CancellationToken,
    /// Bids that wait for their grant, by request id.
    grants: Mutex<HashMap<String, oneshot::Sender<String>>>,
    logged: LoggedOnce,
}

/// What is said in the log once, and then known.
#[derive(Default)]
struct LoggedOnce {
    malformed: AtomicBool,
    skew: AtomicBool,
    lock: AtomicBool,
}

fn first(logged: &AtomicBool) -> bool {
    !logged.swap(true, Ordering::Relaxed)
}

/// Clocks further apart than this are worth a line.
const SKEW: i64 = 1_000_000_000;
/// What psrpc gives a queue lock.
const LOCK: Duration = Duration::from_secs(5);

impl<H: Handler> RpcMethod<H> {
    async fn run(self: Arc<Self>, calls: Subscription, mut grants: Option<Subscription>) {
        let in_hand = TaskTracker::new();
        let mut calls = Some(calls);
        loop {
            tokio::select! {
                biased;
                grant = next(&mut grants) => match grant {
                    Some(grant) => self.granted(&grant),
                    None => return,
                },
                () = self.leave.cancelled(), if calls.is_some() => {
                    calls = None;
                    in_hand.close();
                }
                () = in_hand.wait(), if calls.is_none() => return,
                call = next(&mut calls), if calls.is_some() => match call {
                    Some(call) => {
                        if let Some(incoming) = self.read(&call) {
                            let work = Arc::clone(&self).attend(incoming, call.payload);
                            in_hand.spawn(work.in_current_span());
                        }
                    }
                    None => return,
                },
            }
        }
    }

    fn granted(&self, delivery: &InboundMessage) {
        match envelope::open::<ClaimResponse>(&delivery.payload) {
            Ok(grant) => {
                if let Some(bid) = self.waiting().remove(&grant.request_id) {
                    let _ = bid.send(grant.server_id);
                }
            }
            Err(error) => self.malformed(delivery, &error),
        }
    }

    fn read(&self, delivery: &InboundMessage) -> Option<Incoming> {
        let request = match envelope::open::<RpcRequest>(&delivery.payload) {
            Ok(request) => request,
            Err(error) => {
                self.malformed(delivery, &error);
                return None;
            }
        };
        let topic = match &self.topics {
            Topics::One(topic) => topic.clone(),
            Topics::All => names::topic_of(self.service, self.method, ChannelKind::Request, &delivery.channel)?,
        };
        // A call without any time left was meant for nobody.
        let time_allowed = u64::try_from(request.expiry.checked_sub(request.sent_at)?).ok().filter(|left| *left > 0)?;
        let apart = self.backend.clock().unix_ns().saturating_sub(request.sent_at);
        if apart.abs() > SKEW && first(&self.logged.skew) {
            warn!(
                method = self.method,
                seconds = apart / SKEW,
                "caller's clock differs from ours, or its calls come late"
            );
        }
        Some(Incoming {
            service: self.service,
            method: self.method.to_owned(),
            topic,
            request: request.raw_request.into(),
            request_id: request.request_id,
            client_id: request.client_id,
            metadata: request.metadata,
            sent_at: request.sent_at,
            time_allowed: Duration::from_nanos(time_allowed),
            received: delivery.at,
        })
    }

    fn malformed(&self, delivery: &InboundMessage, error: &envelope::EnvelopeError) {
        if first(&self.logged.malformed) {
            warn!(
                channel = delivery.channel,
                error = %chain(error),
                bytes = delivery.payload.len(),
                "message cannot be read and is ignored, as will be others like it"
            );
        }
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<String, oneshot::Sender<String>>> {
        self.grants.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// One call, from bid to answer.
    async fn attend(self: Arc<Self>, incoming: Incoming, payload: Bytes) {
        if Instant::now() >= incoming.deadline() {
            return;
        }
        if self.routing != Routing::Multi {
            match self.win(&incoming, &payload).await {
                Won::Yes => {}
                Won::No => return,
                Won::Unreadable(message) => {
                    let refusal = RpcError::new(Code::MalformedRequest, message);
                    return self.respond(&incoming.client_id, incoming.request_id.clone(), Err(refusal)).await;
                }
            }
        }
        let (client_id, request_id) = (incoming.client_id.clone(), incoming.request_id.clone());
        let handler = self.handler.clone();
        // A task of its own, so that a handler that panics is an answer and not a silence.
        let work = tokio::spawn(async move { handler.answer(incoming).await }.in_current_span());
        let outcome = work.await.unwrap_or_else(|_| Err(RpcError::new(Code::Internal, "the handler failed")));
        self.respond(&client_id, request_id, outcome).await;
    }

    async fn win(&self, incoming: &Incoming, payload: &[u8]) -> Won {
        let bid = timeout_at(incoming.deadline(), self.handler.bid(incoming)).await.unwrap_or(Bid::Silent);
        let affinity = match bid {
            Bid::Silent => return Won::No,
            Bid::Now(affinity) => affinity,
            Bid::After(wait, affinity) => {
                tokio::select! {
                    () = tokio::time::sleep(wait) => affinity,
                    () = self.leave.cancelled() => return Won::No,
                }
            }
            Bid::Malformed(message) => {
                return if self.may_bid(payload).await { Won::Unreadable(message) } else { Won::No };
            }
        };
        if !self.backend.healthy() || !self.may_bid(payload).await {
            return Won::No;
        }
        let (won, grant) = oneshot::channel();
        let request_id = &incoming.request_id;
        match self.waiting().entry(request_id.clone()) {
            Entry::Vacant(vacant) => {
                vacant.insert(won);
            }
            // A publish that was repeated by a sender who lost its connection: we bid already.
            Entry::Occupied(_) => return Won::No,
        }
        let claim = ClaimRequest {
            request_id: request_id.clone(),
            server_id: self.server_id.clone(),
            affinity,
            handling: false,
        };
        let channel = names::claim_channel(self.service, &incoming.client_id);
        let granted = match self.backend.publish(&channel, envelope::seal(&claim)).await {
            Ok(()) => timeout_at(incoming.deadline(), grant).await.ok().and_then(Result::ok),
            Err(error) => {
                warn!(method = self.method, error = %chain(&error), "bid not sent");
                None
            }
        };
        match granted {
            Some(server_id) if server_id == self.server_id => Won::Yes,
            Some(_) => Won::No,
            None => {
                self.waiting().remove(request_id);
                Won::No
            }
        }
    }

    /// Of all servers of a queue one may bid. When Redis cannot say who, all do: the grant still picks one.
    async fn may_bid(&self, payload: &[u8]) -> bool {
        if self.routing != Routing::Queue {
            return true;
        }
        match self.backend.lock(&names::lock_key(payload), LOCK).await {
            Ok(lock) => lock == Lock::Ours,
            Err(error) => {
                if first(&self.logged.lock) {
                    warn!(method = self.method, error = %chain(&error), "queue lock not taken, bidding without");
                }
                true
            }
        }
    }

    async fn respond(&self, client_id: &str, request_id: String, outcome: Result<Vec<u8>, RpcError>) {
        let sent_at = self.backend.clock().unix_ns();
        let mut response =
            RpcResponse { request_id, server_id: self.server_id.clone(), sent_at, ..RpcResponse::default() };
        match outcome {
            Ok(raw_response) => response.raw_response = raw_response,
            Err(RpcError { code, message }) => {
                response.code = code.as_str().to_owned();
                response.error = message;
            }
        }
        let channel = names::response_channel(self.service, client_id);
        if let Err(error) = self.backend.publish(&channel, envelope::seal(&response)).await {
            warn!(method = self.method, error = %chain(&error), "answer not sent");
        }
    }
}

enum Won {
    Yes,
    No,
    Unreadable(String),
}

/// Waits for ever where there is nothing to hear.
async fn next(subscription: &mut Option<Subscription>) -> Option<InboundMessage> {
    match subscription {
        Some(subscription) => subscription.recv().await,
        None => std::future::pending().await,
    }
}
