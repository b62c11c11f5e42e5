//! How far a file has come, and what its writer says. Written from GStreamer's threads, read from any.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::element::PipelineError;
pub use crate::encoded::MediaKind;

/// What a pipeline says, from GStreamer's threads.
#[derive(Debug)]
pub enum PipelineEvent {
    /// The first encoded frame is on its way into the file.
    Flowing,
    /// Every input ended and the muxer has written its last byte.
    Drained,
    /// Nothing is written any more; what was written stays.
    Broke(PipelineError),
}

/// How far the file has come; readable from any thread.
#[derive(Debug, Default)]
pub struct PipelineProgress {
    video_ns: AtomicU64,
    audio_ns: AtomicU64,
    flowing: AtomicBool,
    over: Mutex<bool>,
    over_now: Condvar,
}

pub(super) type PipelineEventFn = Arc<dyn Fn(PipelineEvent) + Send + Sync>;

impl PipelineProgress {
    /// Where the file ends by its encoded frames, nanoseconds.
    pub fn media_ns(&self) -> u64 {
        self.video_ns.load(Ordering::Relaxed).max(self.audio_ns.load(Ordering::Relaxed))
    }

    /// Grows whenever either stream does: a picture far behind its sound is still work.
    pub fn worked(&self) -> u64 {
        self.video_ns.load(Ordering::Relaxed).saturating_add(self.audio_ns.load(Ordering::Relaxed))
    }

    /// The stream that is behind the other; what the muxer has surely seen of both.
    pub fn complete_ns(&self, video: bool, audio: bool) -> u64 {
        let of = |kind: &AtomicU64, there| if there { kind.load(Ordering::Relaxed) } else { u64::MAX };
        match of(&self.video_ns, video).min(of(&self.audio_ns, audio)) {
            u64::MAX => 0,
            ns => ns,
        }
    }

    /// Another encoded frame is in the file, or on its way there; it ends at `end_ns`. The first one is told.
    pub(super) fn advance(&self, kind: MediaKind, end_ns: u64, tell: &PipelineEventFn) {
        let stream = match kind {
            MediaKind::Video => &self.video_ns,
            MediaKind::Audio => &self.audio_ns,
        };
        stream.fetch_max(end_ns, Ordering::Relaxed);
        if !self.flowing.swap(true, Ordering::Relaxed) {
            tell(PipelineEvent::Flowing);
        }
    }

    /// Waits for the end of the file, drained or broken; false when it did not come.
    pub(super) fn wait_over(&self, timeout: Duration) -> bool {
        let over = self.over.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.over_now.wait_timeout_while(over, timeout, |over| !*over);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }

    pub(super) fn finish(&self) {
        *self.over.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.over_now.notify_all();
    }
}
