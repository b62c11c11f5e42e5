//! Channels without psrpc, for tools and tests: to hear what is said, and to say what no client of ours would.

use bytes::Bytes;

use crate::backend::{Interest, Subscription};
use crate::{Bus, BusError};

/// What was published on a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelMessage {
    pub channel: String,
    pub payload: Bytes,
}

/// Hears every channel that matches a pattern, until it is dropped.
pub struct Tap {
    subscription: Subscription,
}

impl Tap {
    pub async fn next(&mut self) -> Option<ChannelMessage> {
        let delivery = self.subscription.recv().await?;
        Some(ChannelMessage { channel: delivery.channel, payload: delivery.payload })
    }
}

impl Bus {
    /// `pattern` is Redis' glob; use `*` only.
    pub async fn tap(&self, pattern: &str) -> Result<Tap, BusError> {
        Ok(Tap { subscription: self.backend.subscribe(Interest::Pattern(pattern.to_owned())).await? })
    }

    pub async fn publish(&self, channel: &str, payload: Bytes) -> Result<(), BusError> {
        self.backend.publish(channel, payload).await
    }
}
