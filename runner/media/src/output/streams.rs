//! The streams of one recording: their tasks run on one thread of their own, so that a slow or dead server disturbs
//! nothing else. The recorder adds and removes them while it records; frames reach a stream through its [`UnitRing`].

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use spillway_guard::Guard;
use spillway_ipc::{MediaSettings, StreamStart};
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tracing::{debug, warn};

use super::mute_log::MuteLog;
use super::ring::{RingBounds, UnitRing};
use super::stream::{KeyFrameFn, StreamContext, StreamEnd, StreamEvent, StreamEventFn, StreamReporter};
use super::{rtmp, srt, websocket};
use crate::encoded::EncodedFormat;
use crate::stream_tls::StreamTls;

/// All streams of a recording. Dropping it cuts every connection at once; for an ordinary end their rings are ended and
/// [`StreamEvent::Ended`] is waited for, which comes within 3 s.
pub struct Streams {
    tasks: Handle,
    /// `None` and the thread ends.
    until: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    formats: Arc<[EncodedFormat]>,
    tls: StreamTls,
    guard: Guard,
    key_frame: KeyFrameFn,
    mutes: Arc<MuteLog>,
    tell: StreamEventFn,
    added: BTreeMap<u32, AddedStream>,
}

struct AddedStream {
    ring: Arc<UnitRing>,
    reporter: StreamReporter,
}

impl Streams {
    /// Starts the thread. `formats`: of the frames that every stream gets.
    ///
    /// # Errors
    ///
    /// When the system has no thread or no event queue left. A retry does not help.
    pub fn start(
        formats: Arc<[EncodedFormat]>,
        settings: &MediaSettings,
        key_frame: KeyFrameFn,
        tell: StreamEventFn,
    ) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let tasks = runtime.handle().clone();
        let (until, over) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new().name("streams".into()).spawn(move || {
            // Ends when the sender is dropped.
            let _ = runtime.block_on(over);
            // A name that is being resolved is not waited for.
            runtime.shutdown_background();
        })?;
        let (tls, guard) = (StreamTls::new(settings.streams.clone()), Guard::new(&settings.guard));
        let (until, thread) = (Some(until), Some(thread));
        let (mutes, added) = (Arc::default(), BTreeMap::new());
        Ok(Self { tasks, until, thread, formats, tls, guard, key_frame, mutes, tell, added })
    }

    /// Adds a stream. Its frames are to be put into the ring: with the first one it begins. The last event of its id is
    /// [`StreamEvent::Ended`]. An id that was added before is the same stream.
    pub fn add(&mut self, start: StreamStart) -> Arc<UnitRing> {
        if let Some(added) = self.added.get(&start.id) {
            return added.ring.clone();
        }
        let ring = Arc::new(UnitRing::new(bounds(&self.formats)));
        let reporter = StreamReporter::new(start.id, self.tell.clone());
        let context = StreamContext {
            url: start.url,
            formats: self.formats.clone(),
            ring: ring.clone(),
            key_frame: self.key_frame.clone(),
            reporter: reporter.clone(),
            tls: self.tls.clone(),
            guard: self.guard.clone(),
            mutes: self.mutes.clone(),
        };
        self.added.insert(start.id, AddedStream { ring: ring.clone(), reporter });
        self.tasks.spawn(supervise(context));
        ring
    }

    /// Where it is to be said when the sound is muted.
    pub fn mutes(&self) -> &MuteLog {
        &self.mutes
    }

    /// Ends a stream: what lies in its ring has 2 s to get out.
    pub fn remove(&self, id: u32) {
        if let Some(added) = self.added.get(&id) {
            added.ring.end();
        }
    }

    /// How far each stream is behind the newest frame, milliseconds; 0 for one that has ended.
    pub fn lags_ms(&self) -> impl Iterator<Item = (u32, u64)> {
        self.added.iter().map(|(id, added)| (*id, added.reporter.lag_ms()))
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        drop(self.until.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            warn!("the thread of the streams panicked");
        }
    }
}

/// How much may wait for a server.
fn bounds(formats: &[EncodedFormat]) -> RingBounds {
    if formats.iter().any(|format| matches!(format, EncodedFormat::Video { .. })) {
        RingBounds::Pictures
    } else if formats.contains(&EncodedFormat::Pcm) {
        RingBounds::Samples { max_ns: websocket::KEPT_NS }
    } else {
        RingBounds::Sound
    }
}

/// Runs one stream from its first frame on and says how it ended, a panic included.
async fn supervise(context: StreamContext) {
    let (ring, reporter) = (context.ring.clone(), context.reporter.clone());
    let end = if ring.begun().await {
        tokio::spawn(run(context)).await.unwrap_or_else(|error| {
            warn!(stream = ?reporter, %error, "the task of a stream ended");
            StreamEnd::Failed { code: "internal", message: "the stream's task failed".to_owned() }
        })
    } else {
        StreamEnd::Finished
    };
    debug!(stream = ?reporter, ?end, stats = ?ring.stats(), "stream ended");
    ring.close();
    reporter.set_lag_ms(0);
    reporter.report(StreamEvent::Ended(end));
}

/// Chooses by the URL's scheme.
async fn run(context: StreamContext) -> StreamEnd {
    let scheme = context.url.reveal().split_once(':').map(|(scheme, _)| scheme.to_ascii_lowercase());
    match scheme.as_deref() {
        Some("rtmp" | "rtmps") => rtmp::run(context).await,
        Some("srt") => srt::run(context).await,
        Some("ws" | "wss") => websocket::run(context).await,
        #[cfg(test)]
        Some("null") => tests::null(context).await,
        _ => StreamEnd::Failed { code: "unimplemented", message: "streams of this kind are not supported".to_owned() },
    }
}

#[cfg(test)]
#[path = "streams_tests.rs"]
mod tests;
