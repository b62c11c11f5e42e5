//! Calls as livekit-server makes them to egress services: StartEgress by affinity, ListActiveEgress to all. Programs only
//! call queue methods ([`RpcClient::call`]). Runs in the caller's task.

use std::time::Duration;

use bytes::Bytes;
use spillway_protocol::{Code, RpcError};
use tokio::time::{Instant, timeout_at};
use tracing::debug;

use super::selection::{Pick, Selection, SelectionRules};
use crate::client::{Reply, RpcClient, read};

/// How one call by affinity is made.
#[derive(Clone, Copy, Debug)]
pub struct AffinityOptions {
    timeout: Duration,
    rules: SelectionRules,
}

impl AffinityOptions {
    /// As livekit-server calls StartEgress: 10 s, of which 1 s is for selection; a bid of 1.0 wins at once, the best
    /// lower one 500 ms after the first.
    pub fn start_egress() -> Self {
        Self {
            timeout: Duration::from_secs(10),
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

    /// With another time for bids.
    pub fn selection(mut self, window: Duration) -> Self {
        self.rules.window = Some(window);
        self
    }
}

impl RpcClient {
    /// One call: every server receives it, the best bidder is granted it, its answer is returned. An answer before the
    /// grant is ignored.
    ///
    /// # Errors
    /// As [`RpcClient::call`].
    pub async fn call_by_affinity(
        &self,
        method: &str,
        topic: &str,
        request: Vec<u8>,
        options: &AffinityOptions,
    ) -> Result<Bytes, RpcError> {
        let give_up = Instant::now() + options.timeout;
        let mut call = self.send(method, topic, request, give_up, false).await?;
        let mut selection = Selection::new(options.rules, Instant::now(), give_up);
        let mut refusal = None;
        let pick = loop {
            match timeout_at(selection.until(), call.replies.recv()).await {
                Ok(Some(Reply::Bid(bid))) => {
                    if let Some(pick) = selection.on_bid(&bid, Instant::now()) {
                        break pick;
                    }
                }
                // An error before any grant: a server could not read the request. Kept, in case none bids.
                Ok(Some(Reply::Answer(answer))) if !answer.error.is_empty() => refusal = Some(answer),
                Ok(Some(Reply::Answer(_))) => debug!(method, "answer without a grant ignored"),
                Ok(None) | Err(_) => break selection.end(),
            }
        };
        match (pick, refusal) {
            (Pick::Announced, _) => {}
            (Pick::Grant(server_id), _) => self.grant(&call, server_id).await?,
            (Pick::Nobody { .. }, Some(refusal)) => return read(refusal),
            (Pick::Nobody { bids: 0 }, None) => {
                return Err(RpcError::new(Code::Unavailable, "no response from servers"));
            }
            (Pick::Nobody { bids }, None) => {
                let message = format!("no servers available (received {bids} responses)");
                return Err(RpcError::new(Code::Unavailable, message));
            }
        }
        call.answer(give_up).await
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
        let mut call = self.send(method, topic, request, give_up, true).await?;
        let mut answers = Vec::new();
        while let Ok(Some(reply)) = timeout_at(give_up, call.replies.recv()).await {
            if let Reply::Answer(answer) = reply {
                answers.push(read(answer));
            }
        }
        Ok(answers)
    }
}
