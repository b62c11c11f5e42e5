//! StopEgress and UpdateStream, heard for every egress by one pattern, so that somebody answers before the runner is
//! there and after it is gone. While a runner lives it is given time to be faster.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use prost::Message;
use spillway_bus::{Bid, BusError, Decision, Handler, Incoming, Phase, Record, Updated};
use spillway_launchers::StopMode;
use spillway_process::chain;
use spillway_protocol::code::{Code, RpcError};
use spillway_protocol::ids::EgressId;
use spillway_protocol::ledger::{EgressEndReason, Fact, Outcome};
use spillway_protocol::livekit::EgressInfo;
use tracing::{Instrument, info, info_span, warn};

use crate::context::Context;
use crate::reconcile::{Timeouts, final_state};
use crate::report;

/// Measured: a runner answered 1800 of 1800 stops with a head start of 50 ms. A fifth of what the caller gives keeps
/// within the shortest time-outs in use.
const HEAD_START: Duration = Duration::from_millis(250);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlMethod {
    Stop,
    UpdateStream,
    /// Methods of other versions of livekit's egress.
    Other,
}

pub struct ControlHandler {
    pub context: Arc<Context>,
    pub what: ControlMethod,
}

#[async_trait]
impl Handler for ControlHandler {
    async fn bid(&self, incoming: &Incoming) -> Bid {
        // Not one of our ids, or nothing known about it: another service's, or nobody's.
        let Ok(id) = EgressId::parse(&incoming.topic) else { return Bid::Silent };
        let record = match self.context.registry.get(&id).await {
            Ok(Some(record)) => record,
            Ok(None) => return Bid::Silent,
            Err(error) => {
                warn!(egress_id = %id, error = %chain(&error), "registry not reached, no bid for a stop");
                return Bid::Silent;
            }
        };
        let head_start = Bid::After(HEAD_START.min(incoming.time_allowed / 5), 1.0);
        match (record.phase, self.what) {
            (Phase::Accepted | Phase::Launching, _) => Bid::Now(1.0),
            (Phase::Running | Phase::Ending | Phase::Lost, ControlMethod::UpdateStream)
                if self.is_beating(&record).await =>
            {
                Bid::Silent
            }
            // Its runner may still be saying its last word, and answer for itself.
            (Phase::Over, _) if !self.is_beating(&record).await => Bid::Now(1.0),
            _ => head_start,
        }
    }

    async fn answer(&self, incoming: Incoming) -> Result<Vec<u8>, RpcError> {
        let id = EgressId::parse(&incoming.topic)
            .map_err(|error| RpcError::new(Code::InvalidArgument, error.to_string()))?;
        let span = info_span!("egress", egress_id = %id);
        let info = match self.what {
            ControlMethod::Stop => self.context.unless_abandoned(self.stop(&id).instrument(span)).await?,
            ControlMethod::UpdateStream => return Err(self.update_stream(&id).await),
            ControlMethod::Other => {
                return Err(RpcError::new(Code::Unimplemented, format!("{} is not supported", incoming.method)));
            }
        };
        Ok(info.encode_to_vec())
    }
}

impl ControlHandler {
    async fn is_beating(&self, record: &Record) -> bool {
        let last = self.context.heartbeats.last(&record.egress_id).await;
        let fresh = Timeouts::default().heartbeat;
        matches!(last, Ok(Some((age, beat))) if beat.attempt == record.attempt && age < fresh)
    }

    async fn stop(&self, id: &EgressId) -> Result<EgressInfo, RpcError> {
        let before_it_ran =
            |record: &Record| matches!(record.phase, Phase::Accepted | Phase::Launching) && record.lost.is_empty();
        let facts = vec![Fact::Ending(EgressEndReason::StopAsked), Fact::Over(Outcome::stopped_before_start())];
        if let Some(record) = final_state::over(&self.context, id, &facts, before_it_ran).await? {
            info!("stopped before it started");
            self.context.targets.end(&record, StopMode::Immediate).await;
            return report::info_of(&record);
        }
        let record = self.leave_stop_request(id).await?.ok_or_else(unknown)?;
        let info = report::info_of(&record)?;
        if record.phase == Phase::Over {
            return Err(too_late(&info, "stopped"));
        }
        if !record.lost.is_empty() {
            // What it recorded is just being saved: it ends by itself.
            return Ok(info);
        }
        info!("stop left for the runner");
        // What the runner will say as soon as it has seen the wish.
        Ok(report::continued(&record, vec![Fact::Ending(EgressEndReason::StopAsked)], self.context.clock.unix_ns())
            .info)
    }

    /// The runner reads its record with each heartbeat.
    async fn leave_stop_request(&self, id: &EgressId) -> Result<Option<Record>, BusError> {
        let updated = self.context.registry.update(id, |record| {
            if record.stop_asked || record.phase == Phase::Over || !record.lost.is_empty() {
                return Decision::Leave;
            }
            record.stop_asked = true;
            Decision::Write
        });
        Ok(match updated.await? {
            Updated::Written(record) | Updated::Left(record) => Some(*record),
            Updated::Missing => None,
        })
    }

    async fn update_stream(&self, id: &EgressId) -> RpcError {
        let record = match self.context.registry.get(id).await {
            Ok(Some(record)) => record,
            Ok(None) => return unknown(),
            Err(error) => return error.into(),
        };
        match (record.phase, report::info_of(&record)) {
            (Phase::Accepted | Phase::Launching, _) => RpcError::new(Code::FailedPrecondition, "egress is starting"),
            (Phase::Over, Ok(info)) => too_late(&info, "updated"),
            _ => RpcError::new(Code::NotFound, "egress not found: its runner does not answer"),
        }
    }
}

fn unknown() -> RpcError {
    RpcError::new(Code::NotFound, "egress does not exist")
}

/// livekit-server's own words for it.
fn too_late(info: &EgressInfo, what: &str) -> RpcError {
    let message = format!("egress with status {} cannot be {what}", info.status().as_str_name());
    RpcError::new(Code::FailedPrecondition, message)
}
