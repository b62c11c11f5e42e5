//! [`RedisBackend`]: the connections, publish and subscribe on them, and whether they are up.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use spillway_process::Clock;

use super::commands::Commands;
use super::dial::{Dialler, Endpoint};
use super::listener::PubSubListener;
use super::time::RedisTime;
use crate::backend::Backend;
use crate::config::RedisConfig;
use crate::error::BusError;
use crate::pub_sub::{Interest, PubSub, Subscription};

/// Redis as the configuration names it. Its background tasks end when it is dropped.
pub(super) struct RedisBackend {
    /// For everything but subscriptions.
    pub commands: Arc<Commands>,
    listener: PubSubListener,
    time: RedisTime,
}

impl RedisBackend {
    /// Returns when commands and subscriptions are connected and the time is known.
    ///
    /// # Errors
    /// As [`crate::Bus::connect`].
    pub async fn connect(config: &RedisConfig, clock: Clock) -> Result<RedisBackend, BusError> {
        let dialler = Arc::new(Dialler::new(config)?);
        let commands = Arc::new(Commands::connect(config, dialler.clone()).await?);
        let target = Endpoint::of(config)?;
        let mut listener = PubSubListener::connect(dialler.clone(), target.clone()).await;
        // One of several addresses may be dead; each attempt takes the next.
        for _ in 1..config.cluster_addresses.len() {
            if listener.is_ok() {
                break;
            }
            listener = PubSubListener::connect(dialler.clone(), target.clone()).await;
        }
        let time = RedisTime::follow(clock, &commands).await?;
        Ok(Self { commands, listener: listener?, time })
    }
}

impl Backend for RedisBackend {
    fn clock(&self) -> &Clock {
        self.time.clock()
    }

    fn healthy(&self) -> bool {
        self.commands.is_up() && self.listener.is_up()
    }
}

#[async_trait]
impl PubSub for RedisBackend {
    async fn publish(&self, channel: &str, payload: Bytes) -> Result<(), BusError> {
        let mut cmd = redis::cmd("PUBLISH");
        cmd.arg(channel).arg(&*payload);
        self.commands.run("publish", None, cmd).await
    }

    async fn subscribe(&self, interest: Interest) -> Result<Subscription, BusError> {
        self.listener.subscribe(interest).await
    }
}
