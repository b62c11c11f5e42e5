//! A handler that does as it is told and remembers.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use spillway_bus::{Bid, Handler, Incoming};
use spillway_protocol::RpcError;
use tokio::sync::Notify;

pub struct Clerk {
    bid: Bid,
    says: Says,
    heard: Mutex<Vec<Incoming>>,
    /// Opened once for each answer of a [`Says::WhenLet`].
    pub gate: Notify,
}

pub enum Says {
    This(&'static str),
    Refusal(Mutex<RpcError>),
    Panic,
    WhenLet(&'static str),
}

impl Clerk {
    pub fn new(bid: Bid, says: Says) -> Arc<Self> {
        Arc::new(Self { bid, says, heard: Mutex::default(), gate: Notify::new() })
    }

    /// Bids at once and says this.
    pub fn saying(message: &'static str) -> Arc<Self> {
        Self::new(Bid::Now(1.0), Says::This(message))
    }

    pub fn bidding(bid: Bid, message: &'static str) -> Arc<Self> {
        Self::new(bid, Says::This(message))
    }

    /// What a [`Says::Refusal`] says from now on.
    pub fn refuse(&self, refusal: RpcError) {
        if let Says::Refusal(says) = &self.says {
            *says.lock().unwrap() = refusal;
        }
    }

    /// Calls it was granted.
    pub fn heard(&self) -> Vec<Incoming> {
        self.heard.lock().unwrap().clone()
    }
}

#[async_trait]
impl Handler for Clerk {
    async fn bid(&self, _incoming: &Incoming) -> Bid {
        self.bid.clone()
    }

    async fn answer(&self, incoming: Incoming) -> Result<Vec<u8>, RpcError> {
        self.heard.lock().unwrap().push(incoming);
        match &self.says {
            Says::This(message) => Ok(message.as_bytes().to_vec()),
            Says::Refusal(refusal) => Err(refusal.lock().unwrap().clone()),
            Says::Panic => panic!("as the test wants it"),
            Says::WhenLet(message) => {
                self.gate.notified().await;
                Ok(message.as_bytes().to_vec())
            }
        }
    }
}
