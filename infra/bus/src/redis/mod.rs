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
mod backend;
mod key_value;
mod task_ledger;

use spillway_process::Clock;

use crate::bus::Bus;
use crate::config::RedisConfig;
use crate::error::BusError;

use backend::RedisBackend;

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
