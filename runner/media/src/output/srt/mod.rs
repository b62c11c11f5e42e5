//! SRT with MPEG-TS, as a caller. `driver` is the task of one stream and `link` its connections; all else is pure: `health`,
//! `fault`. The URL is the plan's `SrtUrl`.
//!
//! GStreamer's `srtsink` (libsrt) in a pipeline of its own, fed with our transport stream. What it does not do is here: it
//! says nothing of a server that does not answer, and notices one that hangs after 5.1 s (measured, 1.22), acknowledgements
//! that stand still show it after 3 s; and its own reconnecting blocks and begins in the middle of a group of pictures.

mod driver;
mod link;
mod health;
mod fault;

use spillway_plan::SrtUrl;

use self::driver::SrtDriver;
use self::link::GstDial;
use super::attempts::{StreamFault, publish};
use super::stream::{StreamContext, StreamEnd};

/// Sends one stream, until its frames end or it is given up.
pub async fn run(context: StreamContext) -> StreamEnd {
    let url = match SrtUrl::parse(context.url.reveal()) {
        Ok(url) => url,
        Err(error) => return StreamEnd::Failed { code: "invalid_argument", message: error.to_string() },
    };
    match publish(&context, &mut SrtDriver::new(&url, &context, &GstDial(context.guard.clone()))).await {
        Ok(()) => StreamEnd::Finished,
        Err(fault) => StreamEnd::Failed { code: fault.code(), message: fault.to_string() },
    }
}
