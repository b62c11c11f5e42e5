//! A handler with a fixed bid and answer, which records the calls it was granted.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use spillway_bus::{Bid, Handler, Incoming};
use spillway_protocol::RpcError;
use tokio::sync::Notify;

pub struct ScriptedHandler {
    bid: Bid,
    answer: ScriptedAnswer,
    granted: Mutex<Vec<Incoming>>,
    /// Opened once for each answer of a [`ScriptedAnswer::AfterGate`].
    pub gate: Notify,
}

pub enum ScriptedAnswer {
    Message(&'static str),
    Refusal(Mutex<RpcError>),
    Panic,
    AfterGate(&'static str),
}

impl ScriptedHandler {
    pub fn new(bid: Bid, answer: ScriptedAnswer) -> Arc<Self> {
        Arc::new(Self { bid, answer, granted: Mutex::default(), gate: Notify::new() })
    }

    /// Bids 1.0 at once and answers with this message.
    pub fn answering(message: &'static str) -> Arc<Self> {
        Self::new(Bid::Now(1.0), ScriptedAnswer::Message(message))
    }

    pub fn bidding(bid: Bid, message: &'static str) -> Arc<Self> {
        Self::new(bid, ScriptedAnswer::Message(message))
    }

    /// Replaces the error of a [`ScriptedAnswer::Refusal`].
    pub fn refuse(&self, refusal: RpcError) {
        if let ScriptedAnswer::Refusal(current) = &self.answer {
            *current.lock().unwrap() = refusal;
        }
    }

    /// Calls it was granted.
    pub fn granted(&self) -> Vec<Incoming> {
        self.granted.lock().unwrap().clone()
    }
}

#[async_trait]
impl Handler for ScriptedHandler {
    async fn bid(&self, _incoming: &Incoming) -> Bid {
        self.bid.clone()
    }

    async fn answer(&self, incoming: Incoming) -> Result<Vec<u8>, RpcError> {
        self.granted.lock().unwrap().push(incoming);
        match &self.answer {
            ScriptedAnswer::Message(message) => Ok(message.as_bytes().to_vec()),
            ScriptedAnswer::Refusal(refusal) => Err(refusal.lock().unwrap().clone()),
            ScriptedAnswer::Panic => panic!("as the test wants it"),
            ScriptedAnswer::AfterGate(message) => {
                self.gate.notified().await;
                Ok(message.as_bytes().to_vec())
            }
        }
    }
}
