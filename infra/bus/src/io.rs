//! Reports to livekit-server about an egress: its IOInfo service, called over psrpc with retries. Runs in the
//! caller's task.

use std::time::Duration;

use prost::Message;
use spillway_process::retry::RetrySchedule;
use spillway_protocol::livekit::EgressInfo;
use spillway_protocol::rpc::{GetEgressRequest, service};
use spillway_protocol::{Code, EgressId, RpcError};
use tokio::time::{Instant, sleep};
use tracing::info;

use crate::bus::Bus;
use crate::client::{CallOptions, RpcClient};
use crate::error::BusError;

/// A longer wait for a bid would outlast a restart of livekit-server: a request published while no node listens is
/// lost, and only a new one is received.
const SELECTION_TIMEOUT: Duration = Duration::from_millis(1500);
/// For the answer of a node that bid, as livekit/egress' own client waits.
const CREATE_TIMEOUT: Duration = Duration::from_secs(15);
/// As [`CREATE_TIMEOUT`].
const UPDATE_TIMEOUT: Duration = Duration::from_secs(30);

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
        let options = CallOptions::queue().timeout(within).selection(Some(SELECTION_TIMEOUT.min(within)));
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
            let options = CallOptions::queue().timeout(answer_within.min(left)).selection(Some(SELECTION_TIMEOUT));
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
