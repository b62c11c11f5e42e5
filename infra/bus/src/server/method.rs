//! One served method and topic at work: a task reads its calls and grants, and each call is attended in a task of its
//! own, from bid to answer. A call never delays another.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use spillway_process::chain;
use spillway_protocol::psrpc::{ClaimRequest, ClaimResponse, RpcRequest, RpcResponse};
use spillway_protocol::{Code, RpcError};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, warn};

use super::handler::{Bid, Handler, Incoming, Routing};
use crate::bus::Backend;
use crate::key_value::Lock;
use crate::names::{self, ChannelKind};
use crate::pub_sub::{EnvelopeError, InboundMessage, Subscription, seal};

/// Which topics a method is served for.
pub(super) enum Topics {
    /// This one; it may be empty.
    One(String),
    /// Every topic, by a pattern.
    All,
}

/// One served method and topic.
pub(super) struct RpcMethod<H> {
    /// Where calls come from and answers go.
    pub backend: Arc<dyn Backend>,
    /// psrpc service.
    pub service: &'static str,
    /// Of the server, in bids and answers.
    pub server_id: String,
    /// Method of the service.
    pub method: &'static str,
    /// Topics it is served for.
    pub topics: Topics,
    /// How its calls are handed to servers.
    pub routing: Routing,
    /// What answers the calls.
    pub handler: Arc<H>,
    /// Cancelled: no more bids.
    pub leave: CancellationToken,
    /// Empty at first.
    pub state: MethodState,
}

/// What a method knows about its calls.
#[derive(Default)]
pub(super) struct MethodState {
    /// Bids that wait for their grant, by request id.
    grants: Mutex<HashMap<String, oneshot::Sender<String>>>,
    logged: LoggedOnce,
}

/// Warnings that are logged once per method.
#[derive(Default)]
struct LoggedOnce {
    malformed: AtomicBool,
    skew: AtomicBool,
    lock: AtomicBool,
}

fn first(logged: &AtomicBool) -> bool {
    !logged.swap(true, Ordering::Relaxed)
}

/// A larger difference between the caller's clock and Redis' is logged.
const LOGGED_SKEW_NS: i64 = 1_000_000_000;
/// Time to live of a queue lock, as psrpc's.
const LOCK_TTL: Duration = Duration::from_secs(5);

impl<H: Handler> RpcMethod<H> {
    /// Until the backend is gone, or `leave` is cancelled and every call that was bid for has ended.
    pub async fn run(self: Arc<Self>, calls: Subscription, mut grants: Option<Subscription>) {
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
        match delivery.open::<ClaimResponse>() {
            Ok(grant) => {
                if let Some(bid) = self.waiting().remove(&grant.request_id) {
                    let _ = bid.send(grant.server_id);
                }
            }
            Err(error) => self.malformed(delivery, &error),
        }
    }

    fn read(&self, delivery: &InboundMessage) -> Option<Incoming> {
        let request = match delivery.open::<RpcRequest>() {
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
        // A call whose time is over when it is sent expects no answer.
        let time_allowed = u64::try_from(request.expiry.checked_sub(request.sent_at)?).ok().filter(|left| *left > 0)?;
        let apart = self.backend.clock().unix_ns().saturating_sub(request.sent_at);
        if apart.abs() > LOGGED_SKEW_NS && first(&self.state.logged.skew) {
            warn!(
                method = self.method,
                seconds = apart / LOGGED_SKEW_NS,
                "caller's clock differs from ours, or its calls come late"
            );
        }
        Some(Incoming {
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

    fn malformed(&self, delivery: &InboundMessage, error: &EnvelopeError) {
        if first(&self.state.logged.malformed) {
            warn!(
                channel = delivery.channel,
                error = %chain(error),
                bytes = delivery.payload.len(),
                "message cannot be read and is ignored; further ones are not logged"
            );
        }
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<String, oneshot::Sender<String>>> {
        self.state.grants.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
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
        // A task of its own, so that a handler that panics is answered as an error.
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
            // The sender lost its connection and repeated the publish: this server bid already.
            Entry::Occupied(_) => return Won::No,
        }
        let claim = ClaimRequest {
            request_id: request_id.clone(),
            server_id: self.server_id.clone(),
            affinity,
            handling: false,
        };
        let channel = names::claim_channel(self.service, &incoming.client_id);
        let granted = match self.backend.publish(&channel, seal(&claim)).await {
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

    /// Of all servers of a queue one may bid. When the lock fails all bid: the grant still picks one.
    async fn may_bid(&self, payload: &[u8]) -> bool {
        if self.routing != Routing::Queue {
            return true;
        }
        match self.backend.lock(&names::lock_key(payload), LOCK_TTL).await {
            Ok(lock) => lock == Lock::Ours,
            Err(error) => {
                if first(&self.state.logged.lock) {
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
        if let Err(error) = self.backend.publish(&channel, seal(&response)).await {
            warn!(method = self.method, error = %chain(&error), "answer not sent");
        }
    }
}

enum Won {
    Yes,
    No,
    Unreadable(String),
}

/// Never ready without a subscription.
async fn next(subscription: &mut Option<Subscription>) -> Option<InboundMessage> {
    match subscription {
        Some(subscription) => subscription.recv().await,
        None => std::future::pending().await,
    }
}
