//! StopEgress and UpdateStream for one egress, from before it is owned until its end is acknowledged. Calls come from the
//! bus, stops go into the session's inbox, and the answer is the newest EgressInfo. Runs on the bus' tasks.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use prost::Message;
use spillway_bus::{Bid, Bus, BusError, Handler, Incoming, Routing, RpcServer};
use spillway_protocol::rpc::service;
use spillway_protocol::{Code, EgressId, RpcError};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tracing::info;

use crate::events::{SessionEvent, StopSource};
use crate::report::{EgressReport, ReportPhase};

/// A stop is answered with the state it led to; when that takes longer than this, with the state as it is.
const STOP_STATE_TIMEOUT: Duration = Duration::from_secs(1);

/// The methods of one egress on the bus.
pub struct ControlServer {
    server: RpcServer,
}

impl ControlServer {
    /// Subscribes; calls are received when it returns.
    ///
    /// # Errors
    /// Redis does not answer; a retry is right.
    pub async fn open(
        bus: &Bus,
        egress_id: &EgressId,
        inbox: mpsc::Sender<SessionEvent>,
        reports: watch::Receiver<EgressReport>,
    ) -> Result<Self, BusError> {
        let server = RpcServer::new(bus, service::EGRESS_HANDLER);
        let stop = Arc::new(StopEgress { inbox, reports });
        server.serve(service::STOP_EGRESS, egress_id.as_str(), Routing::Queue, stop).await?;
        server.serve(service::UPDATE_STREAM, egress_id.as_str(), Routing::Queue, Arc::new(UpdateStream)).await?;
        Ok(Self { server })
    }

    /// Unsubscribes; calls that were received are answered first.
    pub async fn close(self) {
        self.server.close().await;
    }
}

struct StopEgress {
    inbox: mpsc::Sender<SessionEvent>,
    reports: watch::Receiver<EgressReport>,
}

#[async_trait]
impl Handler for StopEgress {
    async fn bid(&self, _: &Incoming) -> Bid {
        Bid::Now(1.0)
    }

    /// Idempotent: the first call acts, every call is answered with the state.
    async fn answer(&self, _: Incoming) -> Result<Vec<u8>, RpcError> {
        info!("stop asked");
        // A session that is over takes no events, and its state says so.
        let _ = self.inbox.send(SessionEvent::StopAsked(StopSource::Api)).await;
        let mut reports = self.reports.clone();
        let _ = timeout(STOP_STATE_TIMEOUT, reports.wait_for(|report| report.phase() != ReportPhase::Going)).await;
        let info = reports.borrow().info().encode_to_vec();
        Ok(info)
    }
}

struct UpdateStream;

#[async_trait]
impl Handler for UpdateStream {
    async fn bid(&self, _: &Incoming) -> Bid {
        Bid::Now(1.0)
    }

    async fn answer(&self, _: Incoming) -> Result<Vec<u8>, RpcError> {
        Err(RpcError::new(Code::Unimplemented, "UpdateStream: stream outputs not supported yet"))
    }
}
