//! StopEgress and UpdateStream for one egress, from before it is owned until its end is acknowledged. Calls come from the
//! bus, stops go into the session's inbox and updates into a channel of their own, and the answer is the newest
//! EgressInfo. Runs on the bus' tasks.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use prost::Message;
use spillway_bus::lifecycle::RunnerStage;
use spillway_bus::{Bid, Bus, BusError, Handler, Incoming, Routing, RpcServer};
use spillway_protocol::livekit::UpdateStreamRequest;
use spillway_protocol::rpc::service;
use spillway_protocol::{Code, EgressId, RpcError, Secret};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;
use tracing::info;

use crate::events::{SessionEvent, StopSource, StreamUpdate};
use crate::report::EgressReport;

/// A stop is answered with the state it led to; when that takes longer than this, with the state as it is.
const STOP_STATE_TIMEOUT: Duration = Duration::from_secs(1);
/// livekit-server waits 3 s for UpdateStream, and calls again when no answer came.
const UPDATE_TIMEOUT: Duration = Duration::from_millis(2500);

/// The methods of one egress on the bus.
pub struct ControlServer {
    server: RpcServer,
}

impl ControlServer {
    /// Subscribes; calls are received when it returns. `updates`: where UpdateStream goes; `None` refuses it.
    ///
    /// # Errors
    /// Redis does not answer; a retry is right.
    pub async fn open(
        bus: &Bus,
        egress_id: &EgressId,
        inbox: mpsc::Sender<SessionEvent>,
        updates: Option<mpsc::Sender<StreamUpdate>>,
        reports: watch::Receiver<EgressReport>,
    ) -> Result<Self, BusError> {
        let server = RpcServer::new(bus, service::EGRESS_HANDLER);
        let update = Arc::new(UpdateStream { updates, reports: reports.clone() });
        let stop = Arc::new(StopEgress { inbox, reports });
        server.serve(service::STOP_EGRESS, egress_id.as_str(), Routing::Queue, stop).await?;
        server.serve(service::UPDATE_STREAM, egress_id.as_str(), Routing::Queue, update).await?;
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
        let _ = timeout(STOP_STATE_TIMEOUT, reports.wait_for(|report| report.stage() != RunnerStage::Going)).await;
        let info = reports.borrow().info().encode_to_vec();
        Ok(info)
    }
}

struct UpdateStream {
    updates: Option<mpsc::Sender<StreamUpdate>>,
    reports: watch::Receiver<EgressReport>,
}

#[async_trait]
impl Handler for UpdateStream {
    async fn bid(&self, _: &Incoming) -> Bid {
        Bid::Now(1.0)
    }

    /// The session makes it idempotent: a call whose answer was lost comes again with another request id.
    async fn answer(&self, incoming: Incoming) -> Result<Vec<u8>, RpcError> {
        let Some(updates) = &self.updates else {
            return Err(RpcError::new(Code::InvalidArgument, "UpdateStream called on non-streaming egress"));
        };
        let request = UpdateStreamRequest::decode(incoming.request)
            .map_err(|_| RpcError::new(Code::MalformedRequest, "no UpdateStreamRequest"))?;
        if self.reports.borrow().stage() != RunnerStage::Going {
            return Err(self.too_late());
        }
        let (add, remove) = (request.add_output_urls, request.remove_output_urls);
        info!(add = add.len(), remove = remove.len(), "stream update asked");
        let secrets = |urls: Vec<String>| -> Vec<Secret> { urls.into_iter().map(Secret::new).collect() };
        let (answer, answered) = oneshot::channel();
        let update = StreamUpdate { add: secrets(add), remove: secrets(remove), answer };
        let info = async {
            updates.send(update).await.ok()?;
            answered.await.ok()
        };
        match timeout(UPDATE_TIMEOUT, info).await {
            Ok(Some(answer)) => Ok(answer?.encode_to_vec()),
            // The session takes none any more.
            Ok(None) => Err(self.too_late()),
            Err(_) => Err(RpcError::new(Code::DeadlineExceeded, "the update takes longer than its caller waits")),
        }
    }
}

impl UpdateStream {
    /// livekit-server's message for an egress that is over.
    fn too_late(&self) -> RpcError {
        let status = self.reports.borrow().info().status().as_str_name();
        RpcError::new(Code::FailedPrecondition, format!("egress with status {status} cannot be updated"))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use bytes::Bytes;
    use spillway_protocol::ledger::{EgressEndReason, EgressLedger, Fact, Outcome};
    use spillway_protocol::livekit::EgressInfo;
    use spillway_protocol::rpc::StartEgressRequest;
    use tokio::time::Instant;

    use super::*;

    fn incoming(request: impl Into<Bytes>) -> Incoming {
        Incoming {
            method: service::UPDATE_STREAM.to_owned(),
            topic: "EG_1".to_owned(),
            request: request.into(),
            request_id: "REQ_1".to_owned(),
            client_id: "CLI_1".to_owned(),
            metadata: HashMap::new(),
            sent_at: 0,
            time_allowed: Duration::from_secs(3),
            received: Instant::now(),
        }
    }

    fn call() -> Incoming {
        let request = UpdateStreamRequest {
            egress_id: "EG_1".to_owned(),
            add_output_urls: vec!["rtmp://h/app/canary".to_owned()],
            remove_output_urls: vec!["rtmp://h/app/other".to_owned()],
        };
        incoming(request.encode_to_vec())
    }

    fn ledger(facts: impl IntoIterator<Item = Fact>) -> EgressLedger {
        let mut ledger = EgressLedger::accept(&StartEgressRequest::default(), 1);
        facts.into_iter().for_each(|fact| drop(ledger.on(fact, 2)));
        ledger
    }

    fn handler(facts: impl IntoIterator<Item = Fact>) -> (UpdateStream, mpsc::Receiver<StreamUpdate>) {
        let (updates, received) = mpsc::channel(1);
        let (_, reports) = watch::channel(EgressReport { ledger: ledger(facts) });
        (UpdateStream { updates: Some(updates), reports }, received)
    }

    #[tokio::test]
    async fn an_update_is_answered_by_the_session() {
        let (handler, mut received) = handler([]);
        let session = async {
            let update = received.recv().await.unwrap();
            assert!(!format!("{update:?}").contains("canary"));
            let urls = [&update.add, &update.remove].map(|urls| urls[0].reveal().clone());
            assert_eq!(urls, ["rtmp://h/app/canary", "rtmp://h/app/other"]);
            let info = EgressInfo { egress_id: "EG_1".to_owned(), ..EgressInfo::default() };
            update.answer.send(Ok(info)).unwrap();
            let update = received.recv().await.unwrap();
            update.answer.send(Err(RpcError::new(Code::NotFound, "stream x not found"))).unwrap();
        };
        let calls = async { (handler.answer(call()).await, handler.answer(call()).await) };
        let ((answered, refused), ()) = tokio::join!(calls, session);
        assert_eq!(EgressInfo::decode(&answered.unwrap()[..]).unwrap().egress_id, "EG_1");
        assert_eq!(refused.unwrap_err(), RpcError::new(Code::NotFound, "stream x not found"));
    }

    #[tokio::test]
    async fn an_egress_that_ends_is_not_updated() {
        let active = || Fact::Active { started_at: 1 };
        let over = Fact::Over(Outcome::Complete);
        for (facts, status) in [
            (vec![active(), Fact::Ending(EgressEndReason::StopAsked)], "EGRESS_ENDING"),
            (vec![active(), over], "EGRESS_COMPLETE"),
        ] {
            let (handler, _received) = handler(facts);
            let refused = handler.answer(call()).await.unwrap_err();
            let message = format!("egress with status {status} cannot be updated");
            assert_eq!(refused, RpcError::new(Code::FailedPrecondition, message));
        }
        // The session was dropped between its end and its report.
        let (handler, received) = handler([active()]);
        drop(received);
        assert_eq!(handler.answer(call()).await.unwrap_err().code, Code::FailedPrecondition);
    }

    #[tokio::test(start_paused = true)]
    async fn the_caller_hears_within_its_time() {
        let (handler, _received) = handler([]);
        let began = Instant::now();
        assert_eq!(handler.answer(call()).await.unwrap_err().code, Code::DeadlineExceeded);
        assert_eq!(began.elapsed(), UPDATE_TIMEOUT);
        let refused = handler.answer(incoming(vec![0xff])).await.unwrap_err();
        assert_eq!(refused.code, Code::MalformedRequest);
    }

    #[tokio::test]
    async fn without_streams_it_is_refused() {
        let (_, reports) = watch::channel(EgressReport { ledger: ledger([]) });
        let refused = UpdateStream { updates: None, reports }.answer(call()).await.unwrap_err();
        assert_eq!(refused, RpcError::new(Code::InvalidArgument, "UpdateStream called on non-streaming egress"));
    }
}
