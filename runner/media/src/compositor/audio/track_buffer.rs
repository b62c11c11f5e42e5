//! Decoded sound of one track, at its sample positions on the session's timeline.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use crate::compositor::decode::AudioFrame;
use crate::compositor::sync::lock::{lock, wait};
use crate::track::MediaTime;

pub const RATE: u64 = 48_000;
/// Samples that are mixed at a time: 20 ms.
pub const BLOCK: i64 = 960;
/// How far beyond a block its track must be known, so that the end of a run can be faded out.
pub const LOOK_AHEAD: i64 = 960;

/// This near to where the last packet ended it is the same run: the difference is drift, and is stretched away. A lost
/// packet (20 ms) is not: it leaves its hole.
const SAME_RUN: i64 = 480;
/// Drift is followed by at most 5 samples per 20 ms (5 ms per second), which nobody hears.
const STRETCH_PER_BLOCK: i64 = 5;
const FADE: usize = 120;
/// Decoded sound that may wait per track, samples.
const AHEAD: i64 = 24_000;

/// Where a moment of the session lies, in samples.
pub fn sample_at(time: MediaTime) -> i64 {
    ((u128::from(time.0) * u128::from(RATE) + 500_000_000) / 1_000_000_000) as i64
}

/// The moment of a sample; before the session's start there is none.
pub fn time_of(sample: i64) -> MediaTime {
    MediaTime((u128::from(sample.max(0) as u64) * 1_000_000_000 / u128::from(RATE)) as u64)
}

/// Which channels a track is heard on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StereoSide {
    Both,
    Left,
    Right,
}

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
    complete: MediaTime,
    closed: bool,
    abandoned: bool,
    cut: bool,
    /// The mixer waits until the track is known up to this sample.
    wanted: Option<i64>,
    /// The lane waits for room.
    full: bool,
}

impl AudioTrackBuffer {
    /// `dropped` counts the samples that come too late, together with those of other tracks that it is given to.
    pub fn new(delay: i64, dropped: Arc<AtomicU64>) -> Self {
        Self { state: Mutex::default(), news: Condvar::new(), delay, dropped }
    }

    /// The recording begins at this sample; what is placed before it is not missing.
    pub fn begins(&self, sample: i64) {
        lock(&self.state).timeline.begin = sample;
    }

    /// Blocks while half a second waits.
    pub fn put(&self, samples: AudioFrame) {
        let mut state = lock(&self.state);
        while state.timeline.waiting() > AHEAD && !state.abandoned {
            state.full = true;
            state = wait(&self.news, state);
        }
        state.full = false;
        if state.abandoned {
            return;
        }
        let cut = std::mem::take(&mut state.cut);
        state.timeline.place(sample_at(samples.at) - self.delay, samples.stereo, cut);
        self.count_dropped(&mut state);
        self.tell(&state);
    }

    /// What comes next does not continue what came last, unless it lies exactly there.
    pub fn cut(&self) {
        lock(&self.state).cut = true;
    }

    pub fn complete_to(&self, to: MediaTime) {
        let mut state = lock(&self.state);
        state.complete = state.complete.max(to);
        self.tell(&state);
    }

    pub fn close(&self) {
        lock(&self.state).closed = true;
        self.news.notify_all();
    }

    pub fn abandon(&self) {
        let mut state = lock(&self.state);
        state.closed = true;
        state.abandoned = true;
        self.news.notify_all();
    }

    /// Nobody is woken for less than what it waits for.
    fn tell(&self, state: &BufferState) {
        if state.wanted.is_some_and(|known| self.is_known(state, known)) {
            self.news.notify_all();
        }
    }

    /// A packet placed before `known` may still come while the track is not complete up to there.
    fn is_known(&self, state: &BufferState, known: i64) -> bool {
        state.closed || state.timeline.known_to(known) || sample_at(state.complete) - self.delay > known
    }

    /// Waits until what is heard in `[at, end)` can be mixed.
    pub fn wait_for(&self, at: i64, end: i64) {
        drop(self.known(at, end));
    }

    fn known(&self, at: i64, end: i64) -> MutexGuard<'_, BufferState> {
        let mut state = lock(&self.state);
        self.forget_before(&mut state, at);
        while !self.is_known(&state, end + LOOK_AHEAD) {
            state.wanted = Some(end + LOOK_AHEAD);
            state = wait(&self.news, state);
        }
        state.wanted = None;
        state
    }

    fn forget_before(&self, state: &mut BufferState, sample: i64) {
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
    pub fn mix(&self, at: i64, mix: &mut [f32], side: StereoSide) -> bool {
        let mut state = self.known(at, at + BLOCK);
        state.timeline.add(at, mix, side);
        self.forget_before(&mut state, at + BLOCK);
        !(state.closed && state.timeline.chunks.is_empty())
    }
}

/// Samples of one packet at their place; interleaved stereo.
#[derive(Clone, Debug, PartialEq)]
struct Chunk {
    at: i64,
    pcm: Vec<f32>,
    /// Does not continue the piece before it.
    fresh: bool,
}

impl Chunk {
    fn end(&self) -> i64 {
        self.at + (self.pcm.len() / 2) as i64
    }
}

/// The pure part: where packets go, and what is heard.
#[derive(Default)]
struct SampleTimeline {
    chunks: VecDeque<Chunk>,
    /// Where the last packet ended.
    next: Option<i64>,
    /// Everything before is mixed and over.
    heard: i64,
    /// Nothing before this was ever to be mixed.
    begin: i64,
    /// The mixer has looked at this track.
    mixing: bool,
    /// Samples that were to be mixed, and came too late or were replaced by what came after them, since last asked.
    dropped: i64,
}

impl SampleTimeline {
    fn waiting(&self) -> i64 {
        self.chunks.iter().map(|chunk| (chunk.pcm.len() / 2) as i64).sum()
    }

    fn known_to(&self, sample: i64) -> bool {
        self.chunks.back().is_some_and(|chunk| chunk.at >= sample)
    }

    fn forget_before(&mut self, sample: i64) {
        if !std::mem::replace(&mut self.mixing, true) {
            // Nothing of this track was mixed yet: what lies before came too late, if it is not from before the beginning.
            let late = self.chunks.iter().map(|chunk| chunk.end().min(sample) - chunk.at.max(self.begin));
            self.dropped += late.map(|samples| samples.max(0)).sum::<i64>();
        }
        self.heard = self.heard.max(sample);
        while self.chunks.front().is_some_and(|chunk| chunk.end() <= sample) {
            self.chunks.pop_front();
        }
    }

    fn place(&mut self, want: i64, mut pcm: Vec<f32>, cut: bool) {
        let length = (pcm.len() / 2) as i64;
        if length == 0 {
            return;
        }
        let tolerance = if cut { STRETCH_PER_BLOCK } else { SAME_RUN };
        let near = self.next.filter(|next| (want - next).abs() <= tolerance);
        let (at, fresh) = match near {
            Some(next) => {
                let most = (STRETCH_PER_BLOCK * length / BLOCK).max(1);
                let by = (want - next).clamp(-most, most);
                if by.abs() > 1 {
                    pcm = stretched(&pcm, (length + by) as usize);
                }
                (next, false)
            }
            None => {
                self.make_room_from(want);
                (want, true)
            }
        };
        self.next = Some(at + (pcm.len() / 2) as i64);
        if fresh {
            fade(&mut pcm, Fade::In);
        }
        let chunk = Chunk { at, pcm, fresh };
        self.dropped += (chunk.end().min(self.heard) - chunk.at.max(self.begin)).max(0);
        // What comes too late for blocks already mixed: only the rest of it is heard. It is kept whole, so that a
        // recording which starts amid a packet sounds the same whether the packet or the start was known first.
        if chunk.end() > self.heard {
            self.chunks.push_back(chunk);
        }
    }

    /// A run that begins before the last one ended replaces the rest of it.
    fn make_room_from(&mut self, want: i64) {
        while let Some(last) = self.chunks.back_mut() {
            self.dropped += (last.end() - want.max(last.at)).max(0);
            if last.at >= want {
                self.chunks.pop_back();
                continue;
            }
            let keep = (want - last.at) as usize * 2;
            last.pcm.truncate(keep);
            return;
        }
    }

    fn add(&mut self, at: i64, mix: &mut [f32], side: StereoSide) {
        let end = at + (mix.len() / 2) as i64;
        for index in 0..self.chunks.len() {
            // The track is known beyond this block by more than a fade and a run's tolerance: whoever has no successor
            // now has none.
            let ends = self.chunks.get(index + 1).is_none_or(|next| next.fresh);
            let chunk = &mut self.chunks[index];
            if chunk.at >= end {
                break;
            }
            if ends && chunk.end() <= end + FADE as i64 && chunk.end() > at {
                fade_once(chunk);
            }
            let (from, to) = (chunk.at.max(at), chunk.end().min(end));
            if from >= to {
                continue;
            }
            let source = &chunk.pcm[(from - chunk.at) as usize * 2..(to - chunk.at) as usize * 2];
            let target = &mut mix[(from - at) as usize * 2..(to - at) as usize * 2];
            add_on(target, source, side);
        }
    }
}

fn add_on(target: &mut [f32], source: &[f32], side: StereoSide) {
    match side {
        StereoSide::Both => {
            for (target, source) in target.iter_mut().zip(source) {
                *target += source;
            }
        }
        StereoSide::Left | StereoSide::Right => {
            let channel = if side == StereoSide::Left { 0 } else { 1 };
            for (target, source) in target.chunks_exact_mut(2).zip(source.chunks_exact(2)) {
                target[channel] += (source[0] + source[1]) * 0.5;
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fade {
    In,
    Out,
}

fn fade(pcm: &mut [f32], way: Fade) {
    let frames = pcm.len() / 2;
    let length = frames.min(FADE);
    for step in 0..length {
        let gain = step as f32 / length as f32;
        let frame = if way == Fade::In { step } else { frames - 1 - step };
        pcm[2 * frame] *= gain;
        pcm[2 * frame + 1] *= gain;
    }
}

/// A piece that spans two blocks is seen twice; its last sample is zero once it has been faded.
fn fade_once(chunk: &mut Chunk) {
    if chunk.pcm.ends_with(&[0.0, 0.0]) {
        return;
    }
    fade(&mut chunk.pcm, Fade::Out);
}

/// Linear interpolation to another length.
fn stretched(pcm: &[f32], to: usize) -> Vec<f32> {
    let frames = pcm.len() / 2;
    if frames < 2 || to < 2 {
        return pcm.to_vec();
    }
    let step = (frames - 1) as f32 / (to - 1) as f32;
    let mut out = Vec::with_capacity(to * 2);
    for index in 0..to {
        let place = index as f32 * step;
        let (left, part) = (place as usize, place.fract());
        let right = (left + 1).min(frames - 1);
        for channel in 0..2 {
            out.push(pcm[2 * left + channel] * (1.0 - part) + pcm[2 * right + channel] * part);
        }
    }
    out
}

#[cfg(test)]
#[path = "track_buffer_tests.rs"]
mod tests;
