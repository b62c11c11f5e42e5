//! UpdateStream calls on their way into the session: each URL that is to be added is checked and resolved, beside everything
//! else, because Twitch's directory may take seconds. One call after the other, in the order they came. No URL is logged. Hosts
//! that the guard knows to be inside are refused here; names are when they are connected to.

use std::sync::Arc;

use spillway_guard::{Guard, host_and_port};
use spillway_plan::{StreamProtocol, check_stream_url};
use spillway_protocol::livekit::EgressInfo;
use spillway_protocol::{Code, RpcError, Secret};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::stream_url::{StreamUrl, StreamUrls};
use crate::events::StreamUpdate;

/// A call that can be carried out.
pub struct ResolvedUpdate {
    /// For [`SessionStreams::update`](super::streams::SessionStreams::update).
    pub add: Vec<Result<StreamUrl, RpcError>>,
    /// Likewise.
    pub remove: Vec<Secret>,
    /// As in [`StreamUpdate`].
    pub answer: oneshot::Sender<Result<EgressInfo, RpcError>>,
}

/// The calls of one egress. Dropping it drops those that are not carried out: their callers get no answer.
pub struct StreamUpdates {
    received: mpsc::Receiver<StreamUpdate>,
    /// `None`: this egress has no streams that could be updated, which the session answers.
    protocol: Option<StreamProtocol>,
    urls: Arc<StreamUrls>,
    guard: Guard,
    /// One at most.
    resolving: JoinSet<ResolvedUpdate>,
}

impl StreamUpdates {
    /// Of an egress whose streams have this protocol; `urls` resolves, `guard` knows what may be named.
    pub fn new(
        received: mpsc::Receiver<StreamUpdate>,
        protocol: Option<StreamProtocol>,
        urls: Arc<StreamUrls>,
        guard: Guard,
    ) -> Self {
        Self { received, protocol, urls, guard, resolving: JoinSet::new() }
    }

    /// The next call; `None`: none comes any more. Cancel-safe.
    pub async fn next(&mut self) -> Option<ResolvedUpdate> {
        loop {
            if self.resolving.is_empty() {
                let update = self.received.recv().await?;
                self.resolving.spawn(resolve(self.urls.clone(), self.guard.clone(), self.protocol, update));
            }
            // After a panic its caller has no answer and calls again.
            if let Some(Ok(resolved)) = self.resolving.join_next().await {
                return Some(resolved);
            }
        }
    }
}

async fn resolve(
    urls: Arc<StreamUrls>,
    guard: Guard,
    protocol: Option<StreamProtocol>,
    StreamUpdate { add: asked, remove, answer }: StreamUpdate,
) -> ResolvedUpdate {
    let check = |url: &str| protocol.map_or(Ok(()), |protocol| checked(url, protocol, &guard));
    let checked = asked.into_iter().map(|url| check(url.reveal()).map(|()| url)).collect();
    let add = urls.resolve(checked).await;
    ResolvedUpdate { add, remove, answer }
}

fn checked(url: &str, protocol: StreamProtocol, guard: &Guard) -> Result<(), RpcError> {
    check_stream_url(url, protocol)?;
    // Shorthands have no host.
    let Some((host, port)) = host_and_port(url) else { return Ok(()) };
    let refused = |error| RpcError::new(Code::PermissionDenied, format!("stream: {error}"));
    guard.check(&host, port).map(drop).map_err(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn update(add: &[&str], remove: &[&str]) -> (StreamUpdate, oneshot::Receiver<Result<EgressInfo, RpcError>>) {
        let secrets = |urls: &[&str]| urls.iter().map(|url| Secret::new((*url).to_owned())).collect();
        let (answer, answered) = oneshot::channel();
        (StreamUpdate { add: secrets(add), remove: secrets(remove), answer }, answered)
    }

    fn updates(protocol: Option<StreamProtocol>) -> (mpsc::Sender<StreamUpdate>, StreamUpdates) {
        let (send, received) = mpsc::channel(4);
        (send, StreamUpdates::new(received, protocol, Arc::default(), Guard::default()))
    }

    #[tokio::test]
    async fn calls_come_in_their_order_with_every_url_checked_and_resolved() {
        let (send, mut updates) = updates(Some(StreamProtocol::Rtmp));
        let add = ["mux://canary", "srt://h:1?streamid=canary", "rtmp://h/canary", "rtmp://10.0.0.5/app/canary"];
        send.send(update(&add, &["x"]).0).await.unwrap();
        send.send(update(&[], &["second"]).0).await.unwrap();
        drop(send);
        let first = updates.next().await.unwrap();
        let targets: Vec<Result<&str, Code>> = first
            .add
            .iter()
            .map(|url| url.as_ref().map(|url| url.target.reveal().as_str()).map_err(|error| error.code))
            .collect();
        let mux = "rtmps://global-live.mux.com:443/app/canary";
        let (wrong, refused) = (Code::InvalidArgument, Code::PermissionDenied);
        assert_eq!(targets, [Ok(mux), Err(wrong), Err(wrong), Err(refused)]);
        assert!(first.add.iter().flat_map(|url| url.as_ref().err()).all(|error| !error.message.contains("canary")));
        assert_eq!(first.remove, [Secret::new("x".to_owned())]);
        assert_eq!(updates.next().await.unwrap().remove, [Secret::new("second".to_owned())]);
        assert!(updates.next().await.is_none());
    }

    #[tokio::test]
    async fn without_streams_nothing_is_checked() {
        let (send, mut updates) = updates(None);
        send.send(update(&["nonsense"], &[]).0).await.unwrap();
        assert!(updates.next().await.unwrap().add[0].is_ok());
    }
}
