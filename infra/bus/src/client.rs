//! The calling side of psrpc, and with it [`IoClient`]: livekit-server's IOInfo service. A call publishes a request, grants
//! it to the first server that bids, and waits for the answer, as psrpc's clients do with a queue method.
//!
//! One background task per client receives bids and answers; it ends when the last clone of the client is dropped.
//! Everything else runs in the caller's task.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use spillway_process::chain;
use spillway_process::retry::RetrySchedule;
use spillway_protocol::livekit::EgressInfo;
use spillway_protocol::psrpc::{ClaimRequest, ClaimResponse, RpcRequest, RpcResponse};
use spillway_protocol::rpc::{GetEgressRequest, service};
use spillway_protocol::{Code, EgressId, RpcError};
use tokio::sync::{OnceCell, mpsc};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{debug, info};

use crate::bus::{Backend, Bus};
use crate::error::BusError;
use crate::names::{self, ChannelKind};
use crate::pub_sub::{Interest, seal};

/// A longer wait for a bid would outlast a restart of livekit-server: a request published while no node listens is
/// lost, and only a new one is received.
const SELECTION_TIMEOUT: Duration = Duration::from_millis(1500);
/// For the answer of a node that bid, as livekit/egress' own client waits.
const CREATE_TIMEOUT: Duration = Duration::from_secs(15);
/// For livekit-server's answer about what it knows; its nodes answer from their Redis.
const KNOWN_TIMEOUT: Duration = Duration::from_secs(2);
/// As [`CREATE_TIMEOUT`].
const UPDATE_TIMEOUT: Duration = Duration::from_secs(30);

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
    timeout: Duration,
    selection: Duration,
}

impl CallOptions {
    /// psrpc's defaults for a queue method: 3 s, of which 1 s is for the first bid.
    pub fn queue() -> Self {
        Self { timeout: Duration::from_secs(3), selection: Duration::from_secs(1) }
    }

    /// With another timeout for the whole call, selection included; it is sent to the servers.
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// With another time for the first bid.
    pub fn selection(self, selection: Duration) -> Self {
        Self { selection, ..self }
    }
}

/// Calls in flight, by request id.
#[derive(Default)]
struct PendingCalls {
    calls: Mutex<HashMap<String, mpsc::Sender<Reply>>>,
}

/// What a server sends to a client.
pub(crate) enum Reply {
    /// It wants the call.
    Bid(ClaimRequest),
    /// It has done the call.
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
pub(crate) struct Call {
    pending: Arc<PendingCalls>,
    request_id: String,
    /// Channel of its grant.
    grants: String,
    /// Bids and answers, as they come.
    pub(crate) replies: mpsc::Receiver<Reply>,
}

impl Call {
    /// The answer of the server that has the call.
    ///
    /// # Errors
    /// The server's own, or [`Code::DeadlineExceeded`].
    pub(crate) async fn answer(&mut self, give_up: Instant) -> Result<Bytes, RpcError> {
        loop {
            match timeout_at(give_up, self.replies.recv()).await {
                Ok(Some(Reply::Answer(answer))) => return read(answer),
                Ok(Some(Reply::Bid(_))) => {}
                Ok(None) | Err(_) => return Err(timed_out()),
            }
        }
    }
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

    /// One call: every server receives it, the first that bids is granted it, its answer is returned. A server may also
    /// announce itself and answer without a grant.
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
        let mut call = self.send(method, topic, request, give_up, false).await?;
        let until = give_up.min(Instant::now() + options.selection);
        match timeout_at(until, call.replies.recv()).await {
            Ok(Some(Reply::Bid(bid))) if bid.handling => {}
            Ok(Some(Reply::Bid(bid))) => self.grant(&call, bid.server_id).await?,
            // It may arrive before the announcement.
            Ok(Some(Reply::Answer(answer))) => return read(answer),
            Ok(None) | Err(_) => return Err(RpcError::new(Code::Unavailable, "no response from servers")),
        }
        call.answer(give_up).await
    }

    /// Publishes a request. `multi`: every server is to answer, without a grant.
    ///
    /// # Errors
    /// Redis was not reached or did not answer; a retry is right.
    pub(crate) async fn send(
        &self,
        method: &str,
        topic: &str,
        raw_request: Vec<u8>,
        give_up: Instant,
        multi: bool,
    ) -> Result<Call, RpcError> {
        timeout_at(give_up, self.listen()).await.map_err(|_| timed_out())??;
        let inner = &self.inner;
        let sent_at = inner.backend.clock().unix_ns();
        let left = i64::try_from((give_up - Instant::now()).as_nanos()).unwrap_or(i64::MAX);
        let request = RpcRequest {
            request_id: names::new_id("REQ_"),
            client_id: inner.client_id.clone(),
            sent_at,
            expiry: sent_at.saturating_add(left),
            multi,
            metadata: HashMap::new(),
            raw_request,
        };
        let (inbox, replies) = mpsc::channel(1000);
        inner.pending.calls().insert(request.request_id.clone(), inbox);
        let channel = |kind| names::method_channel(inner.service, method, topic, kind);
        let (pending, grants) = (inner.pending.clone(), channel(ChannelKind::Grant));
        let call = Call { pending, request_id: request.request_id.clone(), grants, replies };
        inner.backend.publish(&channel(ChannelKind::Request), seal(&request)).await?;
        Ok(call)
    }

    /// Gives the call to one of the servers that bid.
    ///
    /// # Errors
    /// Redis was not reached or did not answer; the server may have got it.
    pub(crate) async fn grant(&self, call: &Call, server_id: String) -> Result<(), RpcError> {
        let grant = ClaimResponse { request_id: call.request_id.clone(), server_id };
        Ok(self.inner.backend.publish(&call.grants, seal(&grant)).await?)
    }
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
                        Some(bid) => match bid.open::<ClaimRequest>() {
                            Ok(bid) => pending.deliver(&bid.request_id.clone(), Reply::Bid(bid)),
                            Err(error) => debug!(error = %chain(&error), "bid ignored"),
                        },
                    },
                    answer = answers.recv() => match answer {
                        None => return,
                        Some(answer) => match answer.open::<RpcResponse>() {
                            Ok(answer) => pending.deliver(&answer.request_id.clone(), Reply::Answer(answer)),
                            Err(error) => debug!(error = %chain(&error), "answer ignored"),
                        },
                    },
                }
            }
        });
        Ok(stop.drop_guard())
    }
}

/// What an answer says.
///
/// # Errors
/// The server's own.
pub(crate) fn read(answer: RpcResponse) -> Result<Bytes, RpcError> {
    if answer.error.is_empty() {
        Ok(answer.raw_response.into())
    } else {
        Err(RpcError::new(Code::parse(&answer.code), answer.error))
    }
}

fn timed_out() -> RpcError {
    RpcError::new(Code::DeadlineExceeded, "request timed out")
}

/// The IOInfo service of livekit-server, on any node. Each method retries transient failures, with a new request id and
/// waits growing from 0.5 to 60 s, until `give_up` has passed; then the last error is returned.
///
/// livekit-server overwrites what it has with what comes last: send one update of an egress at a time.
#[derive(Clone)]
pub struct IoClient {
    client: RpcClient,
}

impl IoClient {
    /// Subscribes nothing yet.
    pub fn new(bus: &Bus) -> Self {
        Self { client: RpcClient::new(bus, service::IO_INFO) }
    }

    /// Subscribes the channels of answers, so that the first call need not.
    ///
    /// # Errors
    /// Redis did not confirm; a retry is right.
    pub async fn listen(&self) -> Result<(), BusError> {
        self.client.listen().await
    }

    /// Creates livekit-server's record. For an id it knows, livekit-server changes nothing and reports success.
    ///
    /// # Errors
    /// A refusal that is final, or the last transient one when `give_up` has passed.
    pub async fn create_egress(&self, info: &EgressInfo, give_up: Duration) -> Result<(), RpcError> {
        self.repeat(service::CREATE_EGRESS, info.encode_to_vec(), CREATE_TIMEOUT, give_up).await
    }

    /// Creates livekit-server's record if it has none. It is asked first: livekit-server sends `egress_started` for each
    /// creation, also of an id that it knows, and customers bill by it.
    ///
    /// # Errors
    /// As [`IoClient::create_egress`].
    pub async fn ensure_egress(&self, info: &EgressInfo, give_up: Duration) -> Result<(), RpcError> {
        if let Ok(id) = EgressId::parse(&info.egress_id)
            && let Ok(Some(_)) = self.get_egress(&id, KNOWN_TIMEOUT.min(give_up)).await
        {
            return Ok(());
        }
        self.create_egress(info, give_up).await
    }

    /// Overwrites livekit-server's record.
    ///
    /// # Errors
    /// As [`IoClient::create_egress`].
    pub async fn update_egress(&self, info: &EgressInfo, give_up: Duration) -> Result<(), RpcError> {
        self.repeat(service::UPDATE_EGRESS, info.encode_to_vec(), UPDATE_TIMEOUT, give_up).await
    }

    /// livekit-server's record; `None`: it has none. One call, for at most `within`.
    ///
    /// # Errors
    /// No livekit-server answered, or its own Redis failed: a retry is right. [`Code::MalformedResult`]: it is not.
    pub async fn get_egress(&self, id: &EgressId, within: Duration) -> Result<Option<EgressInfo>, RpcError> {
        let request = GetEgressRequest { egress_id: id.to_string() }.encode_to_vec();
        let options = CallOptions::queue().timeout(within).selection(SELECTION_TIMEOUT.min(within));
        match self.client.call(service::GET_EGRESS, "", request, &options).await {
            Ok(answer) => EgressInfo::decode(answer)
                .map(Some)
                .map_err(|error| RpcError::new(Code::MalformedResult, error.to_string())),
            Err(error) if error.code == Code::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn repeat(
        &self,
        method: &'static str,
        request: Vec<u8>,
        answer_within: Duration,
        give_up: Duration,
    ) -> Result<(), RpcError> {
        let give_up = Instant::now() + give_up;
        let mut waits = RetrySchedule::new(Duration::from_millis(500), Duration::from_secs(60));
        let mut refused = 0u32;
        loop {
            let left = give_up.saturating_duration_since(Instant::now());
            let options = CallOptions::queue().timeout(answer_within.min(left)).selection(SELECTION_TIMEOUT);
            let error = match self.client.call(method, "", request.clone(), &options).await {
                Ok(_) => return Ok(()),
                Err(error) => error,
            };
            let wait = waits.wait();
            if !is_transient(error.code) || Instant::now() + wait >= give_up {
                return Err(error);
            }
            refused += 1;
            if refused.is_power_of_two() {
                info!(method, code = %error.code, error = %error, attempts = refused, "livekit-server not reached, trying again");
            }
            sleep(wait).await;
        }
    }
}

/// `unknown` and `internal` are what livekit-server answers when its own Redis fails.
fn is_transient(code: Code) -> bool {
    matches!(code, Code::Unavailable | Code::DeadlineExceeded | Code::Unknown | Code::Internal)
}
