//! What livekit-server is told about an egress.

use std::time::Duration;

use prost::Message;
use spillway_process::retry::RetrySchedule;
use spillway_protocol::livekit::EgressInfo;
use spillway_protocol::rpc::{GetEgressRequest, UpdateMetricsRequest, service};
use spillway_protocol::{Code, EgressId, RpcError};
use tokio::time::{Instant, sleep};
use tracing::info;

use crate::{Bus, BusError, CallOptions, RpcClient};

/// Longer waits for a bid would outlast a restart of livekit-server: a request published while no node listens is lost,
/// and only a new one is heard.
const SELECTION: Duration = Duration::from_millis(1500);
/// For the answer of a node that bid; livekit's own client waits as long.
const CREATE: Duration = Duration::from_secs(15);
const UPDATE: Duration = Duration::from_secs(30);
const METRICS: Duration = Duration::from_secs(5);

/// The IOInfo service of livekit-server, whichever node answers. Each method repeats what passes, with a new request id
/// and longer waits from 0.5 to 60 s, until `give_up` is over; then the last refusal is returned.
///
/// livekit-server overwrites what it has with what comes last: of one egress, one update at a time.
#[derive(Clone)]
pub struct IoClient {
    client: RpcClient,
}

impl IoClient {
    pub fn new(bus: &Bus) -> Self {
        Self { client: RpcClient::new(bus, service::IO_INFO) }
    }

    /// Subscribes where answers come, so that the first call need not.
    pub async fn listen(&self) -> Result<(), BusError> {
        self.client.listen().await
    }

    /// Makes the record, once: for an id it knows, livekit-server does nothing and says yes.
    pub async fn create_egress(&self, info: &EgressInfo, give_up: Duration) -> Result<(), RpcError> {
        self.repeat(service::CREATE_EGRESS, info.encode_to_vec(), CREATE, give_up).await
    }

    /// Overwrites the record.
    pub async fn update_egress(&self, info: &EgressInfo, give_up: Duration) -> Result<(), RpcError> {
        self.repeat(service::UPDATE_EGRESS, info.encode_to_vec(), UPDATE, give_up).await
    }

    /// What livekit-server has of this egress; `None`: nothing. Asked once, for at most `within`.
    ///
    /// # Errors
    /// No livekit-server answered, or its own Redis failed it: a retry is right. An answer that cannot be read stays one.
    pub async fn get_egress(&self, id: &EgressId, within: Duration) -> Result<Option<EgressInfo>, RpcError> {
        let request = GetEgressRequest { egress_id: id.to_string() }.encode_to_vec();
        let options = CallOptions::queue().timeout(within).selection(Some(SELECTION.min(within)));
        match self.client.call(service::GET_EGRESS, "", request, &options).await {
            Ok(answer) => EgressInfo::decode(answer)
                .map(Some)
                .map_err(|error| RpcError::new(Code::MalformedResult, error.to_string())),
            Err(error) if error.code == Code::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub async fn update_metrics(&self, metrics: &UpdateMetricsRequest, give_up: Duration) -> Result<(), RpcError> {
        self.repeat(service::UPDATE_METRICS, metrics.encode_to_vec(), METRICS, give_up).await
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
            let options = CallOptions::queue().timeout(answer_within.min(left)).selection(Some(SELECTION));
            let error = match self.client.call(method, "", request.clone(), &options).await {
                Ok(_) => return Ok(()),
                Err(error) => error,
            };
            let wait = waits.wait();
            if !passes(error.code) || Instant::now() + wait >= give_up {
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

/// `unknown` and `internal` are what a livekit-server says whose own Redis fails it.
fn passes(code: Code) -> bool {
    matches!(code, Code::Unavailable | Code::DeadlineExceeded | Code::Unknown | Code::Internal)
}
