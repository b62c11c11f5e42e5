//! StopEgress and UpdateStream for every egress, subscribed by one pattern: answers before a runner serves the egress
//! and after it is gone. While a runner lives, it gets a head start; while one takes the place of another, a stop waits in
//! the record for it and an update is passed on to it. Runs in the RPC server's tasks, one per call.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use prost::Message;
use spillway_bus::lifecycle::{self, EndCondition, LaunchEvent};
use spillway_bus::{Bid, BusError, CallOptions, Handler, Incoming, Phase, Record, RpcClient, Updated};
use spillway_launchers::StopMode;
use spillway_process::chain;
use spillway_protocol::code::{Code, RpcError};
use spillway_protocol::ids::EgressId;
use spillway_protocol::ledger::{EgressEndReason, Fact, Outcome};
use spillway_protocol::livekit::EgressInfo;
use spillway_protocol::rpc::service;
use tokio::time::{Instant, sleep};
use tracing::{Instrument, info, info_span, warn};

use crate::final_state::Finisher;
use crate::instance::Instance;
use crate::records::Records;
use crate::report;

/// Measured: a runner answered 1800 of 1800 stops with a head start of 50 ms. At most a fifth of the caller's timeout,
/// for the shortest timeouts in use.
const HEAD_START: Duration = Duration::from_millis(250);

/// Between two looks at whether a recording goes on.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// Left of the caller's time for the runner that goes on to answer, or for the caller to hear that there is none.
const ANSWER_TIME: Duration = Duration::from_millis(500);

/// Methods of the EgressHandler service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlMethod {
    /// StopEgress.
    Stop,
    /// UpdateStream.
    UpdateStream,
    /// Methods of other versions of livekit/egress: UNIMPLEMENTED.
    Other,
}

/// Handler of one method.
#[derive(Clone)]
pub struct ControlHandler {
    /// Of the dispatcher.
    pub instance: Arc<Instance>,
    /// Whose runners do not answer.
    pub records: Records,
    /// Ends what was never recorded.
    pub finisher: Arc<Finisher>,
    /// Calls runners.
    pub runners: RpcClient,
    /// The method.
    pub what: ControlMethod,
}

#[async_trait]
impl Handler for ControlHandler {
    async fn bid(&self, incoming: &Incoming) -> Bid {
        // Without a record of ours it is another egress service's, or unknown.
        let Ok(id) = EgressId::parse(&incoming.topic) else { return Bid::Silent };
        let record = match self.records.registry.get(&id).await {
            Ok(Some(record)) => record,
            Ok(None) => return Bid::Silent,
            Err(error) => {
                warn!(egress_id = %id, error = %chain(&error), "registry not reached, no bid for a stop");
                return Bid::Silent;
            }
        };
        let head_start = Bid::After(HEAD_START.min(incoming.time_allowed / 5), 1.0);
        match (record.phase(), self.what) {
            (Phase::Accepted | Phase::Launching, _) => Bid::Now(1.0),
            (Phase::Running | Phase::Ending, ControlMethod::UpdateStream) if self.is_beating(&record).await => {
                Bid::Silent
            }
            // Its runner may still be delivering its final state, and answers for itself.
            (Phase::Over, _) if !self.is_beating(&record).await => Bid::Now(1.0),
            _ => head_start,
        }
    }

    async fn answer(&self, incoming: Incoming) -> Result<Vec<u8>, RpcError> {
        let id = EgressId::parse(&incoming.topic)
            .map_err(|error| RpcError::new(Code::InvalidArgument, error.to_string()))?;
        let span = info_span!("egress", egress_id = %id);
        let info = match self.what {
            ControlMethod::Stop => self.instance.answered(self.stop(&id).instrument(span)).await?,
            ControlMethod::UpdateStream => return self.update_stream(&id, &incoming).instrument(span).await,
            ControlMethod::Other => {
                return Err(RpcError::new(Code::Unimplemented, format!("{} is not supported", incoming.method)));
            }
        };
        Ok(info.encode_to_vec())
    }
}

impl ControlHandler {
    /// False also where Redis does not answer: then a runner could not answer either.
    async fn is_beating(&self, record: &Record) -> bool {
        self.records.is_beating(record).await.unwrap_or(false)
    }

    async fn stop(&self, id: &EgressId) -> Result<EgressInfo, RpcError> {
        let facts = vec![Fact::Ending(EgressEndReason::StopAsked), Fact::Over(Outcome::stopped_before_start())];
        if let Some(record) = self.finisher.end_with(id, facts, EndCondition::NeverRecorded).await? {
            info!("stopped before it started");
            self.finisher.targets.end(&record, StopMode::Immediate).await;
            return report::info_of(&record);
        }
        let record = self.leave_stop_request(id).await?.ok_or_else(unknown)?;
        let info = report::info_of(&record)?;
        if record.state.is_over() {
            return Err(too_late(&info, "stopped"));
        }
        if record.is_salvage() {
            // A salvage run completes its uploads, and then it ends by itself.
            return Ok(info);
        }
        info!("stop left for the runner");
        // What the runner will report once it has read `stop_asked`.
        report::info_with(&record, Fact::Ending(EgressEndReason::StopAsked), self.instance.clock.unix_ns())
    }

    /// The runner reads its record with each heartbeat.
    async fn leave_stop_request(&self, id: &EgressId) -> Result<Option<Record>, BusError> {
        Ok(match self.records.apply(id, &LaunchEvent::StopAsked).await? {
            Updated::Written(record) | Updated::Left(record) => Some(*record),
            Updated::Missing => None,
        })
    }

    async fn update_stream(&self, id: &EgressId, incoming: &Incoming) -> Result<Vec<u8>, RpcError> {
        let give_up = incoming.deadline();
        let mut interrupted = false;
        loop {
            let record = self.records.registry.get(id).await?.ok_or_else(unknown)?;
            // Dead a moment ago, or already about to be replaced.
            let is_silent = lifecycle::can_be_resumed(&record) && !self.is_beating(&record).await;
            if !record.is_resuming() && !is_silent {
                return if interrupted && record.state.has_runner() {
                    self.pass_on(id, incoming, give_up).await
                } else {
                    Err(not_updated(&record))
                };
            }
            interrupted = true;
            if Instant::now() + ANSWER_TIME >= give_up {
                let message = "another task is about to go on with this recording: call again";
                return Err(RpcError::new(Code::Unavailable, message));
            }
            sleep(LOOK_INTERVAL).await;
        }
    }

    /// To the runner that has gone on meanwhile.
    async fn pass_on(&self, id: &EgressId, incoming: &Incoming, give_up: Instant) -> Result<Vec<u8>, RpcError> {
        info!("stream update passed on to the task that goes on");
        let left = give_up.saturating_duration_since(Instant::now());
        let options = CallOptions::queue().timeout(left);
        let answer =
            self.runners.call(service::UPDATE_STREAM, id.as_str(), incoming.request.to_vec(), &options).await?;
        Ok(answer.to_vec())
    }
}

fn not_updated(record: &Record) -> RpcError {
    match (record.phase(), report::info_of(record)) {
        (Phase::Accepted | Phase::Launching, _) => RpcError::new(Code::FailedPrecondition, "egress is starting"),
        (Phase::Over, Ok(info)) => too_late(&info, "updated"),
        _ => RpcError::new(Code::NotFound, "egress not found: its runner does not answer"),
    }
}

fn unknown() -> RpcError {
    RpcError::new(Code::NotFound, "egress does not exist")
}

/// The message of livekit-server for the same case.
fn too_late(info: &EgressInfo, what: &str) -> RpcError {
    let message = format!("egress with status {} cannot be {what}", info.status().as_str_name());
    RpcError::new(Code::FailedPrecondition, message)
}
