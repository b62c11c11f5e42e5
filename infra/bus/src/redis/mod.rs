//! The bus on real Redis: one multiplexed connection for commands (in a Cluster one per server) and one for
//! subscriptions, each kept alive by a background task of its own.
//!
//! Why these are not `redis::aio::ConnectionManager`, `redis::sentinel` and `redis::cluster_async` of redis-rs 1.8
//! (each read in its source):
//!
//! * A dispatcher bids only while it can receive the grant ([`crate::Bus::healthy`]), so a new connection counts as
//!   up once every subscription on it is confirmed. `ConnectionManager` sends its subscriptions again after a
//!   reconnect, ignores whether that succeeded, and reports nothing. It subscribes over RESP3 only, which Redis
//!   before 6 does not speak.
//! * It fails the command that finds the connection broken. After a number of attempts it gives up until the next
//!   command; with more attempts every command waits as long as the outage lasts. It keeps a connection whose server
//!   has become a replica (READONLY), is loading, or no longer answers. Here each connection is pinged every 5 s,
//!   numbered (its generation) and replaced in the background for as long as it takes; a command waits for a bounded
//!   time and is repeated once on a later generation, since every command of this crate may be repeated.
//! * It stands on one address. With Sentinel the address changes at each failover and is asked for at each reconnect,
//!   for subscriptions too; `redis::sentinel` hands out clients and keeps none of their connections alive.
//!   `cluster_async`, too, subscribes over RESP3 only.
//! * `tls.server_name` of livekit-server's configuration may differ from the host, which redis-rs' own TLS does not
//!   offer.

mod tls;
mod dial;
mod node;
mod commands;
mod listener;
mod time;
mod key_value;
mod task_ledger;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use spillway_process::Clock;

use self::commands::Commands;
use self::dial::{Dialler, Endpoint};
use self::listener::PubSubListener;
use self::time::RedisTime;
use crate::bus::{Backend, Bus};
use crate::config::RedisConfig;
use crate::error::BusError;
use crate::pub_sub::{Interest, PubSub, Subscription};

impl Bus {
    /// Connects and stays connected: what breaks later is replaced in the background, and [`Bus::healthy`] is false
    /// meanwhile. The first PING must be answered.
    ///
    /// # Errors
    /// [`BusError::Settings`]: the configuration is wrong, for good. Others: Redis is not reached or refused the
    /// login; a retry is right while Redis may still be starting.
    pub async fn connect(config: &RedisConfig) -> Result<Bus, BusError> {
        Self::connect_with(config, Clock::host()).await
    }

    /// As [`Bus::connect`], for a host whose clock is `clock`: Redis' time corrects it now and every few seconds.
    ///
    /// # Errors
    /// As [`Bus::connect`].
    pub async fn connect_with(config: &RedisConfig, clock: Clock) -> Result<Bus, BusError> {
        Ok(Bus::on(RedisBackend::connect(config, clock).await?))
    }
}

/// Redis as the configuration names it. Its background tasks end when it is dropped.
struct RedisBackend {
    /// For everything but subscriptions.
    commands: Arc<Commands>,
    listener: PubSubListener,
    time: RedisTime,
}

impl RedisBackend {
    /// Returns when commands and subscriptions are connected and the time is known.
    ///
    /// # Errors
    /// As [`crate::Bus::connect`].
    async fn connect(config: &RedisConfig, clock: Clock) -> Result<RedisBackend, BusError> {
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
