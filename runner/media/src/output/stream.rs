//! What the task of a stream gets, what it says and its time: the same for every protocol. No task runs here.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use spillway_guard::Guard;
use spillway_plan::Secret;

use super::mute_log::MuteLog;
use super::ring::UnitRing;
use crate::encoded::EncodedFormat;
use crate::stream_tls::StreamTls;
use crate::units::MediaTime;

/// How a stream gets on. Texts go to the user and have no key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamEvent {
    /// The first connection is being made.
    Connecting,
    /// The server takes it, at first or again.
    Active,
    /// It failed, and is tried again.
    Retrying {
        /// Why.
        message: String,
        /// Attempts and connections that failed so far.
        retries: u32,
    },
    /// The last event.
    Ended(StreamEnd),
}

/// How a stream ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamEnd {
    /// Its frames ended, or it was removed.
    Finished,
    /// It is not tried again.
    Failed {
        /// psrpc code as text.
        code: &'static str,
        /// Why.
        message: String,
    },
}

impl StreamEnd {
    /// A failure that is no wrong request: the server's, or on the way to it.
    pub fn unavailable(message: String) -> Self {
        Self::Failed { code: "unavailable", message }
    }
}

/// Called with the id of a stream and what happened to it, from the streams' thread. Must not wait.
pub type StreamEventFn = Arc<dyn Fn(u32, StreamEvent) + Send + Sync>;

/// Asks the encoder for a key frame; how often it is obeyed is decided there. Called from the streams' thread. Must not
/// wait.
pub type KeyFrameFn = Arc<dyn Fn() + Send + Sync>;

/// Says what happens to one stream.
#[derive(Clone)]
pub struct StreamReporter {
    id: u32,
    tell: StreamEventFn,
    lag_ms: Arc<AtomicU64>,
}

impl StreamReporter {
    /// For stream `id`.
    pub fn new(id: u32, tell: StreamEventFn) -> Self {
        Self { id, tell, lag_ms: Arc::default() }
    }

    /// Passes an event on.
    pub fn report(&self, event: StreamEvent) {
        (self.tell)(self.id, event);
    }

    /// From the newest frame to what the server has, milliseconds.
    pub fn set_lag_ms(&self, lag_ms: u64) {
        self.lag_ms.store(lag_ms, Ordering::Relaxed);
    }

    /// As it was set last.
    pub fn lag_ms(&self) -> u64 {
        self.lag_ms.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for StreamReporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stream {}", self.id)
    }
}

/// Everything the task of a stream needs.
pub struct StreamContext {
    /// Where to, with its key.
    pub url: Secret,
    /// What comes, by the number of the stream of frames.
    pub formats: Arc<[EncodedFormat]>,
    /// The frames.
    pub ring: Arc<UnitRing>,
    /// For a connection that begins without a recent key frame.
    pub key_frame: KeyFrameFn,
    /// What happens is said there, but for the end, which the task returns.
    pub reporter: StreamReporter,
    /// For URLs that ask for TLS.
    pub tls: StreamTls,
    /// What may be connected to.
    pub guard: Guard,
    /// For protocols that tell when the sound was muted.
    pub mutes: Arc<MuteLog>,
}

/// Media time becomes the stream's own, which goes on over all its connections.
#[derive(Debug, Default)]
pub struct StreamTime {
    began_ns: Option<u64>,
}

impl StreamTime {
    /// A frame was sent.
    pub const fn has_begun(&self) -> bool {
        self.began_ns.is_some()
    }

    /// Since the first frame that was sent; this one is sent now.
    pub fn at(&mut self, at_ns: u64) -> MediaTime {
        MediaTime::from_ns(at_ns.saturating_sub(*self.began_ns.get_or_insert(at_ns)))
    }
}
