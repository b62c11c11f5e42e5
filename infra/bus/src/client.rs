//! The calling side of psrpc: publish a request, collect bids, grant the call to one server, wait for its answer. One
//! background task per client receives bids and answers; it ends when the last clone of the client is dropped.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use spillway_protocol::psrpc::{ClaimRequest, ClaimResponse, RpcRequest, RpcResponse};
use spillway_protocol::{Code, RpcError};
use tokio::sync::{OnceCell, mpsc};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::debug;

use crate::backend::Backend;
use crate::bus::Bus;
use crate::envelope;
use crate::error::BusError;
use crate::names::{self, ChannelKind};
use crate::pub_sub::Interest;
use crate::selection::{Pick, Selection, SelectionRules};

/// Calls methods of one service. Answers come to channels of its own, subscribed at the first call and kept. Clones
/// are one client.
#[derive(Clone)]
pub struct RpcClient {
    inner: Arc<ClientInner>,
}

struct ClientInner {
    backend: Arc<dyn Backend>,
    service: &'static str,
    client_id: String,
    pending: Arc<PendingCalls>,
    listening: OnceCell<DropGuard>,
}

/// How one call is made.
#[derive(Clone, Copy, Debug)]
pub struct CallOptions {
    /// For the whole call, selection included; sent to the servers.
    pub timeout: Duration,
    /// How the method's servers are chosen; must be what they serve it with.
    pub routing: CallRouting,
    rules: SelectionRules,
}

/// How servers of a method are chosen, as the caller sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallRouting {
    /// By the affinity they bid; an answer before the grant is ignored.
    Affinity,
    /// By a lock among the servers; one may announce itself and answer without a grant.
    Queue,
}

impl CallOptions {
    /// psrpc's defaults for a queue method: 3 s, 1 s of selection, the first bid wins.
    pub fn queue() -> Self {
        Self {
            timeout: Duration::from_secs(3),
            routing: CallRouting::Queue,
            rules: SelectionRules {
                window: Some(Duration::from_secs(1)),
                short_circuit: None,
                first_wins: true,
                min_affinity: 0.0,
                max_affinity: 0.0,
            },
        }
    }

    /// As livekit-server calls StartEgress: 10 s, of which 1 s is for selection; a bid of 1.0 wins at once, the best
    /// lower one 500 ms after the first.
    pub fn start_egress() -> Self {
        Self {
            timeout: Duration::from_secs(10),
            routing: CallRouting::Affinity,
            rules: SelectionRules {
                window: Some(Duration::from_secs(1)),
                short_circuit: Some(Duration::from_millis(500)),
                first_wins: false,
                min_affinity: 0.0,
                max_affinity: 1.0,
            },
        }
    }

    /// With another timeout for the whole call.
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// With another time for bids; `None`: as long as the call may take.
    pub fn selection(mut self, window: Option<Duration>) -> Self {
        self.rules.window = window;
        self
    }
}

/// Calls in flight, by request id.
#[derive(Default)]
struct PendingCalls {
    calls: Mutex<HashMap<String, mpsc::Sender<Reply>>>,
}

enum Reply {
    Bid(ClaimRequest),
    Answer(RpcResponse),
}

impl PendingCalls {
    fn calls(&self) -> MutexGuard<'_, HashMap<String, mpsc::Sender<Reply>>> {
        // A map insert or remove does not stop halfway.
        self.calls.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn deliver(&self, request_id: &str, reply: Reply) {
        // Full or gone: that call needs no more.
        if let Some(call) = self.calls().get(request_id) {
            let _ = call.try_send(reply);
        }
    }
}

/// One call's entry, until it is dropped.
struct Call {
    pending: Arc<PendingCalls>,
    request_id: String,
    replies: mpsc::Receiver<Reply>,
}

impl Drop for Call {
    fn drop(&mut self) {
        self.pending.calls().remove(&self.request_id);
    }
}

impl RpcClient {
    /// Subscribes nothing yet.
    pub fn new(bus: &Bus, service: &'static str) -> Self {
        Self {
            inner: Arc::new(ClientInner {
                backend: bus.backend.clone(),
                service,
                client_id: names::new_id("CLI_"),
                pending: Arc::default(),
                listening: OnceCell::new(),
            }),
        }
    }

    /// Made at random for this client.
    pub fn client_id(&self) -> &str {
        &self.inner.client_id
    }

    /// Subscribes the channels of bids and answers. The first call does this, unless it has been done before.
    ///
    /// # Errors
    /// Redis did not confirm; a retry is right.
    pub async fn listen(&self) -> Result<(), BusError> {
        self.inner.listening.get_or_try_init(|| self.inner.listen()).await.map(|_| ())
    }

    /// One call: every server receives it, one is chosen, its answer is returned.
    ///
    /// # Errors
    /// [`Code::Unavailable`]: no server bid, or Redis is away. [`Code::DeadlineExceeded`]: a server may have done the
    /// work. Others: the server's own error. Whether a retry is right depends on the method.
    pub async fn call(
        &self,
        method: &str,
        topic: &str,
        request: Vec<u8>,
        options: &CallOptions,
    ) -> Result<Bytes, RpcError> {
        let give_up = Instant::now() + options.timeout;
        timeout_at(give_up, self.listen()).await.map_err(|_| timed_out())??;
        let mut call = self.send(method, topic, request, give_up, Multi::No).await?;
        if let Some(answer) = self.select(&mut call, method, topic, options, give_up).await? {
            return read(answer);
        }
        loop {
            match timeout_at(give_up, call.replies.recv()).await {
                Ok(Some(Reply::Answer(answer))) => return read(answer),
                Ok(Some(Reply::Bid(_))) => {}
                Ok(None) | Err(_) => return Err(timed_out()),
            }
        }
    }

    /// Calls all servers and collects their answers until `timeout` is over.
    ///
    /// # Errors
    /// The request could not be published; a retry is right. A server's own error is one of the answers.
    pub async fn call_all(
        &self,
        method: &str,
        topic: &str,
        request: Vec<u8>,
        timeout: Duration,
    ) -> Result<Vec<Result<Bytes, RpcError>>, RpcError> {
        let give_up = Instant::now() + timeout;
        timeout_at(give_up, self.listen()).await.map_err(|_| timed_out())??;
        let mut call = self.send(method, topic, request, give_up, Multi::Yes).await?;
        let mut answers = Vec::new();
        while let Ok(Some(reply)) = timeout_at(give_up, call.replies.recv()).await {
            if let Reply::Answer(answer) = reply {
                answers.push(read(answer));
            }
        }
        Ok(answers)
    }

    async fn send(
        &self,
        method: &str,
        topic: &str,
        raw_request: Vec<u8>,
        give_up: Instant,
        multi: Multi,
    ) -> Result<Call, RpcError> {
        let inner = &self.inner;
        let sent_at = inner.backend.clock().unix_ns();
        let left = i64::try_from((give_up - Instant::now()).as_nanos()).unwrap_or(i64::MAX);
        let request = RpcRequest {
            request_id: names::new_id("REQ_"),
            client_id: inner.client_id.clone(),
            sent_at,
            expiry: sent_at.saturating_add(left),
            multi: matches!(multi, Multi::Yes),
            metadata: HashMap::new(),
            raw_request,
        };
        let (inbox, replies) = mpsc::channel(1000);
        inner.pending.calls().insert(request.request_id.clone(), inbox);
        let call = Call { pending: inner.pending.clone(), request_id: request.request_id.clone(), replies };
        let channel = names::method_channel(inner.service, method, topic, ChannelKind::Request);
        inner.backend.publish(&channel, envelope::seal(&request)).await?;
        Ok(call)
    }

    /// Collects bids and grants the call to one. An answer, when one already ends the call.
    async fn select(
        &self,
        call: &mut Call,
        method: &str,
        topic: &str,
        options: &CallOptions,
        give_up: Instant,
    ) -> Result<Option<RpcResponse>, RpcError> {
        let mut selection = Selection::new(options.rules, Instant::now(), give_up);
        let mut refusal = None;
        let pick = loop {
            match timeout_at(selection.until(), call.replies.recv()).await {
                Ok(Some(Reply::Bid(bid))) => {
                    if let Some(pick) = selection.on_bid(&bid, Instant::now()) {
                        break pick;
                    }
                }
                // A server of a queue may announce and answer before the announcement is received.
                Ok(Some(Reply::Answer(answer))) if options.routing == CallRouting::Queue => return Ok(Some(answer)),
                // An error before any grant: a server could not read the request. Kept, in case none bids.
                Ok(Some(Reply::Answer(answer))) if !answer.error.is_empty() => refusal = Some(answer),
                Ok(Some(Reply::Answer(_))) => debug!(method, "answer without a grant ignored"),
                Ok(None) | Err(_) => break selection.end(),
            }
        };
        match pick {
            Pick::Announced => Ok(None),
            Pick::Grant(server_id) => {
                let grant = ClaimResponse { request_id: call.request_id.clone(), server_id };
                let channel = names::method_channel(self.inner.service, method, topic, ChannelKind::Grant);
                self.inner.backend.publish(&channel, envelope::seal(&grant)).await?;
                Ok(None)
            }
            Pick::Nobody { .. } if refusal.is_some() => Ok(refusal),
            Pick::Nobody { bids: 0 } => Err(RpcError::new(Code::Unavailable, "no response from servers")),
            Pick::Nobody { bids } => {
                Err(RpcError::new(Code::Unavailable, format!("no servers available (received {bids} responses)")))
            }
        }
    }
}

#[derive(Clone, Copy)]
enum Multi {
    Yes,
    No,
}

impl ClientInner {
    async fn listen(&self) -> Result<DropGuard, BusError> {
        let channel = names::claim_channel(self.service, &self.client_id);
        let mut bids = self.backend.subscribe(Interest::Channel(channel)).await?;
        let channel = names::response_channel(self.service, &self.client_id);
        let mut answers = self.backend.subscribe(Interest::Channel(channel)).await?;
        let stop = CancellationToken::new();
        let (pending, stopped) = (self.pending.clone(), stop.clone());
        tokio::spawn(async move {
            loop {
                // Bids first: an answer that overtakes its own bid would be taken for one without a grant.
                tokio::select! {
                    biased;
                    () = stopped.cancelled() => return,
                    bid = bids.recv() => match bid {
                        None => return,
                        Some(bid) => match envelope::open::<ClaimRequest>(&bid.payload) {
                            Ok(bid) => pending.deliver(&bid.request_id.clone(), Reply::Bid(bid)),
                            Err(error) => debug!(error = %spillway_process::chain(&error), "bid ignored"),
                        },
                    },
                    answer = answers.recv() => match answer {
                        None => return,
                        Some(answer) => match envelope::open::<RpcResponse>(&answer.payload) {
                            Ok(answer) => pending.deliver(&answer.request_id.clone(), Reply::Answer(answer)),
                            Err(error) => debug!(error = %spillway_process::chain(&error), "answer ignored"),
                        },
                    },
                }
            }
        });
        Ok(stop.drop_guard())
    }
}

fn read(answer: RpcResponse) -> Result<Bytes, RpcError> {
    if answer.error.is_empty() {
        Ok(answer.raw_response.into())
    } else {
        Err(RpcError::new(Code::parse(&answer.code), answer.error))
    }
}

fn timed_out() -> RpcError {
    RpcError::new(Code::DeadlineExceeded, "request timed out")
}
