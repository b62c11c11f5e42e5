//! RTMP and RTMPS: encoded frames go through a [`StreamQueue`], which never makes an encoder wait, to an [`RtmpStream`], the
//! task of one stream. `driver` is that task and `dial` its connections; all else is pure: `client` (the protocol), `chunk`
//! and `amf` under it, `flv` (what it carries), `ring`, `health`, `retry`.
//!
//! Our own, because GStreamer's elements do not serve: `rtmpsink` puts the key into its error texts and blocks while it is
//! stopped, `rtmp2sink` finds a server that hangs after 17 s, has no private certificate authority, and lets 10 s of a slow
//! stream gather in kernel buffers.

mod driver;
mod dial;
mod queue;
mod client;
mod flv;
mod ring;
mod chunk;
mod amf;
mod retry;
mod health;
mod fault;
mod url;

pub use self::dial::{RtmpDial, RtmpIo, RtmpTlsError, RtmpTlsOptions, TcpDial};
pub use self::driver::{ANSWER_TIMEOUT, DRAIN_TIMEOUT, RtmpStream, StreamEvent, StreamProgress};
pub use self::fault::RtmpFault;
pub use self::flv::{StreamAudio, StreamFormat, StreamVideo};
pub use self::queue::StreamQueue;
pub use self::ring::{RingStats, StreamUnit};
pub use self::url::{RtmpUrl, RtmpUrlError};
