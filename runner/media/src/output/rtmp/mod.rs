//! RTMP and RTMPS. `driver` is the task of one stream; all else is pure: `client` (the protocol), `chunk` and `amf` under it,
//! `flv` (what it carries), `health`, `url`, `fault`.
//!
//! Our own, because GStreamer's elements do not serve: `rtmpsink` puts the key into its error texts and blocks while it is
//! stopped, `rtmp2sink` finds a server that hangs after 17 s, has no private certificate authority, and lets 10 s of a slow
//! stream gather in kernel buffers.

mod driver;
mod client;
mod flv;
mod chunk;
mod amf;
mod health;
mod fault;
mod url;

use self::driver::RtmpDriver;
use self::url::RtmpUrl;
use super::attempts::{StreamFault, publish};
use super::stream::{StreamContext, StreamEnd};
use super::stream_dial::TcpDial;

/// Publishes one stream, until its frames end or it is given up.
pub async fn run(context: StreamContext) -> StreamEnd {
    let url = match RtmpUrl::parse(context.url.reveal()) {
        Ok(url) => url,
        Err(error) => return StreamEnd::Failed { code: "invalid_argument", message: error.to_string() },
    };
    let dial = TcpDial { tls: context.tls.clone(), guard: context.guard.clone() };
    match publish(&context, &mut RtmpDriver::new(&url, &context, &dial)).await {
        Ok(()) => StreamEnd::Finished,
        Err(fault) => StreamEnd::Failed { code: fault.code(), message: fault.to_string() },
    }
}
