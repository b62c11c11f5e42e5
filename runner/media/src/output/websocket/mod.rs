//! Sound over a websocket, as livekit/egress sends it: S16LE, 48 kHz, stereo, in binary messages of 20 ms, and
//! `{"muted":true}` or `{"muted":false}` between them. `driver` is the task of one stream and `handshake` what
//! its connections begin with; all else is pure: `health`, `fault`. The URL is the plan's `WebsocketUrl`.
//!
//! The protocol is tokio-tungstenite's, over a TCP connection of our own: what the kernel holds is bounded.

mod driver;
mod handshake;
mod health;
mod fault;

use spillway_plan::WebsocketUrl;

use self::driver::WebsocketDriver;
use super::attempts::{StreamDriver, StreamFault, publish};
use super::stream::{StreamContext, StreamEnd};
use super::stream_dial::{StreamDial, TcpDial};

/// Sound that is kept for a server that is slow or away, nanoseconds.
pub const KEPT_NS: u64 = 2_000_000_000;

/// Sends one stream, until its sound ends or it is given up.
pub async fn run(context: StreamContext) -> StreamEnd {
    let Some(url) = WebsocketUrl::parse(context.url.reveal()) else {
        return StreamEnd::Failed { code: "invalid_argument", message: "the URL is none of a websocket".to_owned() };
    };
    let dial = TcpDial { tls: context.tls.clone(), guard: context.guard.clone() };
    send(&context, &mut WebsocketDriver::new(&url, &context, &dial)).await
}

/// A server that was never reached is the request's mistake, as in livekit/egress.
async fn send<D: StreamDial>(context: &StreamContext, driver: &mut WebsocketDriver<'_, D>) -> StreamEnd {
    match publish(context, driver).await {
        Ok(()) => StreamEnd::Finished,
        Err(fault) if driver.has_begun() || fault.is_refusal() => {
            StreamEnd::Failed { code: fault.code(), message: fault.to_string() }
        }
        Err(fault) => StreamEnd::Failed { code: "invalid_argument", message: fault.to_string() },
    }
}
