//! Decoded sound of one track on its way into the mix, with how far it is known. Filled and emptied in the sound mixer's
//! thread; the recorder's closes it when a compositor is given up. Nothing here waits.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use spillway_plan::StereoSide;

use super::sample_timeline::{BLOCK, SampleTimeline};
use crate::compositor::decode::AudioFrame;
use crate::compositor::sync::decoded_queue::{DecodedQueue, QueueProgress};
use crate::compositor::sync::lock::lock;
use crate::units::{MediaTime, SampleIndex};

/// How far beyond a block its track must be known, so that the end of a run can be faded out.
pub const LOOK_AHEAD: i64 = 960;

/// A decoder puts decoded sound, the mixer takes it.
pub struct AudioTrackBuffer {
    state: Mutex<BufferState>,
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
}

impl AudioTrackBuffer {
    /// `dropped` counts the samples that come too late, together with those of other tracks that it is given to.
    pub fn new(delay: i64, dropped: Arc<AtomicU64>) -> Self {
        Self { state: Mutex::default(), delay, dropped }
    }

    /// The recording begins at this sample; what is placed before it is not missing.
    pub fn begins(&self, sample: SampleIndex) {
        lock(&self.state).timeline.begin = sample;
    }

    /// Takes what was decoded.
    pub fn put(&self, samples: AudioFrame) {
        let mut state = lock(&self.state);
        if state.progress.abandoned {
            return;
        }
        let cut = std::mem::take(&mut state.cut);
        state.timeline.place(SampleIndex::at(samples.at) - self.delay, samples.stereo, cut);
        self.count_dropped(&mut state);
    }

    /// What comes next does not continue what came last, unless it lies exactly there.
    pub fn cut(&self) {
        lock(&self.state).cut = true;
    }

    /// Nothing more is placed before `sample`. A packet may still be while the track is not complete up to there.
    pub fn is_known(&self, sample: SampleIndex) -> bool {
        let state = lock(&self.state);
        state.progress.closed
            || state.timeline.known_to(sample)
            || SampleIndex::at(state.progress.complete) - self.delay > sample
    }

    /// What lies before `sample` was mixed, or came too late.
    pub fn forget_before(&self, sample: SampleIndex) {
        let mut state = lock(&self.state);
        self.forget(&mut state, sample);
    }

    fn forget(&self, state: &mut BufferState, sample: SampleIndex) {
        state.timeline.forget_before(sample);
        self.count_dropped(state);
    }

    fn count_dropped(&self, state: &mut BufferState) {
        self.dropped.fetch_add(std::mem::take(&mut state.timeline.dropped) as u64, Relaxed);
    }

    /// Adds this track's sound in `[at, at + BLOCK)` to `mix`; it is known beyond that by [`LOOK_AHEAD`]. False when the
    /// track has nothing more to say, ever.
    pub fn mix(&self, at: SampleIndex, mix: &mut [f32], side: StereoSide) -> bool {
        let mut state = lock(&self.state);
        self.forget(&mut state, at);
        state.timeline.add(at, mix, side);
        self.forget(&mut state, at + BLOCK);
        !(state.progress.closed && state.timeline.is_empty())
    }
}

impl DecodedQueue for AudioTrackBuffer {
    fn complete_to(&self, to: MediaTime) {
        lock(&self.state).progress.complete_to(to);
    }

    fn close(&self) {
        lock(&self.state).progress.closed = true;
    }

    fn abandon(&self) {
        lock(&self.state).progress.abandon();
    }
}
