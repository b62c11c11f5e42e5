//! RTMP and RTMPS: the parts without I/O. `client` is the protocol, `chunk` and `amf` are under it, `flv` is what it
//! carries; `ring`, `health` and `retry` are for the task of a stream.

mod client;
mod flv;
mod ring;
mod chunk;
mod amf;
mod retry;
mod health;
mod fault;
mod url;

pub use self::fault::RtmpFault;
pub use self::flv::{StreamAudio, StreamFormat, StreamVideo};
pub use self::ring::{RingStats, StreamUnit};
pub use self::url::{RtmpUrl, RtmpUrlError};
