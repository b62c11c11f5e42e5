//! Channels without psrpc: to receive what is published, and to publish what no client of this crate would.

use bytes::Bytes;

use crate::bus::Bus;
use crate::error::BusError;
use crate::pub_sub::{Interest, Subscription};

/// What was published on a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelMessage {
    /// The channel.
    pub channel: String,
    /// As published.
    pub payload: Bytes,
}

/// Receives from every channel that matches a pattern, until it is dropped.
pub struct Tap {
    subscription: Subscription,
}

impl Tap {
    /// `None` when the bus is gone.
    pub async fn next(&mut self) -> Option<ChannelMessage> {
        let delivery = self.subscription.recv().await?;
        Some(ChannelMessage { channel: delivery.channel, payload: delivery.payload })
    }
}

impl Bus {
    /// `pattern` is Redis' glob; use `*` only.
    ///
    /// # Errors
    /// The subscription was not confirmed; a retry is right.
    pub async fn tap(&self, pattern: &str) -> Result<Tap, BusError> {
        Ok(Tap { subscription: self.backend.subscribe(Interest::Pattern(pattern.to_owned())).await? })
    }

    /// One message on one channel.
    ///
    /// # Errors
    /// Redis was not reached or did not answer; the message may have been sent.
    pub async fn publish(&self, channel: &str, payload: Bytes) -> Result<(), BusError> {
        self.backend.publish(channel, payload).await
    }
}
