//! Decoded sound of one track between its decoder's thread and the sound mixer. Blocks the decoder when enough waits,
//! and the mixer until the track is known up to what it mixes.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use spillway_plan::StereoSide;

use super::sample_timeline::{BLOCK, SampleTimeline};
use crate::compositor::decode::AudioFrame;
use crate::compositor::sync::decoded_queue::{DecodedQueue, QueueProgress};
use crate::compositor::sync::lock::{lock, wait};
use crate::units::{MediaTime, SampleIndex};

/// How far beyond a block its track must be known, so that the end of a run can be faded out.
pub const LOOK_AHEAD: i64 = 960;
/// Decoded sound that may wait per track, samples.
const AHEAD: i64 = 24_000;

/// A decoder's thread puts decoded sound, the mixer's thread takes it.
pub struct AudioTrackBuffer {
    state: Mutex<BufferState>,
    news: Condvar,
    /// Samples by which the publisher's codec delays, taken out again.
    delay: i64,
    /// Samples that came when their time was already mixed.
    dropped: Arc<AtomicU64>,
}

#[derive(Default)]
struct BufferState {
    timeline: SampleTimeline,
    progress: QueueProgress,
    cut: bool,
    /// The mixer waits until the track is known up to this sample.
    wanted: Option<SampleIndex>,
    /// The decoder waits for room.
    full: bool,
}

impl AudioTrackBuffer {
    /// `dropped` counts the samples that come too late, together with those of other tracks that it is given to.
    pub fn new(delay: i64, dropped: Arc<AtomicU64>) -> Self {
        Self { state: Mutex::default(), news: Condvar::new(), delay, dropped }
    }

    /// The recording begins at this sample; what is placed before it is not missing.
    pub fn begins(&self, sample: SampleIndex) {
        lock(&self.state).timeline.begin = sample;
    }

    /// Blocks while half a second waits.
    pub fn put(&self, samples: AudioFrame) {
        let mut state = lock(&self.state);
        while state.timeline.waiting() > AHEAD && !state.progress.abandoned {
            state.full = true;
            state = wait(&self.news, state);
        }
        state.full = false;
        if state.progress.abandoned {
            return;
        }
        let cut = std::mem::take(&mut state.cut);
        state.timeline.place(SampleIndex::at(samples.at) - self.delay, samples.stereo, cut);
        self.count_dropped(&mut state);
        self.tell(&state);
    }

    /// What comes next does not continue what came last, unless it lies exactly there.
    pub fn cut(&self) {
        lock(&self.state).cut = true;
    }

    /// The mixer is woken only when it can go on.
    fn tell(&self, state: &BufferState) {
        if state.wanted.is_some_and(|known| self.is_known(state, known)) {
            self.news.notify_all();
        }
    }

    /// A packet placed before `known` may still come while the track is not complete up to there.
    fn is_known(&self, state: &BufferState, known: SampleIndex) -> bool {
        state.progress.closed
            || state.timeline.known_to(known)
            || SampleIndex::at(state.progress.complete) - self.delay > known
    }

    /// Waits until what is heard in `[at, end)` can be mixed.
    pub fn wait_for(&self, at: SampleIndex, end: SampleIndex) {
        drop(self.known(at, end));
    }

    fn known(&self, at: SampleIndex, end: SampleIndex) -> MutexGuard<'_, BufferState> {
        let mut state = lock(&self.state);
        self.forget_before(&mut state, at);
        while !self.is_known(&state, end + LOOK_AHEAD) {
            state.wanted = Some(end + LOOK_AHEAD);
            state = wait(&self.news, state);
        }
        state.wanted = None;
        state
    }

    fn forget_before(&self, state: &mut BufferState, sample: SampleIndex) {
        state.timeline.forget_before(sample);
        self.count_dropped(state);
        if state.full && state.timeline.waiting() <= AHEAD {
            self.news.notify_all();
        }
    }

    fn count_dropped(&self, state: &mut BufferState) {
        self.dropped.fetch_add(std::mem::take(&mut state.timeline.dropped) as u64, Relaxed);
    }

    /// Adds this track's sound in `[at, at + BLOCK)` to `mix`. False when the track has nothing more to say, ever.
    pub fn mix(&self, at: SampleIndex, mix: &mut [f32], side: StereoSide) -> bool {
        let mut state = self.known(at, at + BLOCK);
        state.timeline.add(at, mix, side);
        self.forget_before(&mut state, at + BLOCK);
        !(state.progress.closed && state.timeline.is_empty())
    }
}

impl DecodedQueue for AudioTrackBuffer {
    fn complete_to(&self, to: MediaTime) {
        let mut state = lock(&self.state);
        state.progress.complete_to(to);
        self.tell(&state);
    }

    fn close(&self) {
        lock(&self.state).progress.closed = true;
        self.news.notify_all();
    }

    fn abandon(&self) {
        lock(&self.state).progress.abandon();
        self.news.notify_all();
    }
}
