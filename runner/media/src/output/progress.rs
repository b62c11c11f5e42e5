//! How far the encoded streams have come, and what the fan-out says. Written from GStreamer's threads and the
//! recorder's, read from any.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::taker::{TakerError, TakerId};
use crate::element::PipelineError;
use crate::encoded::MediaKind;

/// What a pipeline says, from GStreamer's threads and the recorder's.
#[derive(Debug)]
pub enum PipelineEvent {
    /// The first encoded unit went to the outputs.
    Flowing,
    /// This output is whole; its file is closed.
    TakerEnded(TakerId),
    /// This output takes no more; the others go on. What it has written stays.
    TakerFailed(TakerId, TakerError),
    /// Every stream ended and no output is left that writes.
    Drained,
    /// An encoder broke: nothing more comes. What was written stays.
    Broke(PipelineError),
}

/// How far the encoded streams have come; readable from any thread.
#[derive(Debug, Default)]
pub struct PipelineProgress {
    video_ns: AtomicU64,
    audio_ns: AtomicU64,
    /// Raw pictures that no encoder takes, or that one takes as well.
    raw_ns: AtomicU64,
    flowing: AtomicBool,
    over: Mutex<bool>,
    over_now: Condvar,
}

pub(super) type PipelineEventFn = Arc<dyn Fn(PipelineEvent) + Send + Sync>;

impl PipelineProgress {
    /// Where the recording ends by its encoded units, nanoseconds.
    pub fn media_ns(&self) -> u64 {
        self.video_ns.load(Ordering::Relaxed).max(self.audio_ns.load(Ordering::Relaxed))
    }

    /// Grows whenever any stream does: a picture far behind its sound is still work.
    pub fn worked(&self) -> u64 {
        let all = [&self.video_ns, &self.audio_ns, &self.raw_ns];
        all.into_iter().fold(0u64, |sum, ns| sum.saturating_add(ns.load(Ordering::Relaxed)))
    }

    /// The kind that is behind the other; what the outputs have surely seen of both.
    pub fn complete_ns(&self, video: bool, audio: bool) -> u64 {
        let of = |kind: &AtomicU64, there| if there { kind.load(Ordering::Relaxed) } else { u64::MAX };
        match of(&self.video_ns, video).min(of(&self.audio_ns, audio)) {
            u64::MAX => 0,
            ns => ns,
        }
    }

    /// The outputs have another encoded unit; it ends at `end_ns`. True for the first one.
    pub(super) fn advance(&self, kind: MediaKind, end_ns: u64) -> bool {
        let stream = match kind {
            MediaKind::Video => &self.video_ns,
            MediaKind::Audio => &self.audio_ns,
        };
        stream.fetch_max(end_ns, Ordering::Relaxed);
        !self.flowing.swap(true, Ordering::Relaxed)
    }

    /// The outputs were shown another raw picture; it ends at `end_ns`. `alone`: there are no encoded units that say how far
    /// the recording is. True for the first one then.
    pub(super) fn advance_raw(&self, end_ns: u64, alone: bool) -> bool {
        self.raw_ns.fetch_max(end_ns, Ordering::Relaxed);
        alone && self.advance(MediaKind::Video, end_ns)
    }

    /// Waits for the end, drained or broken; false when it did not come.
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
