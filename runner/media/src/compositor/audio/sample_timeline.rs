//! Where the sound of one track lies in samples, and what is heard of it. Pure.
//!
//! In: packets with the sample they want to begin at. Near the end of the last one they go on from there and are
//! stretched towards their own time; farther off they begin a new run, faded in. Out: samples added to a block of the
//! mix.

use std::collections::VecDeque;

use spillway_plan::StereoSide;

use crate::units::SampleIndex;

/// Samples that are mixed at a time: 20 ms.
pub const BLOCK: i64 = 960;

/// This near to where the last packet ended it is the same run: the difference is drift, and is stretched away. A lost
/// packet (20 ms) is not: it leaves its hole.
const SAME_RUN: i64 = 480;
/// Drift is followed by at most 5 samples per 20 ms (5 ms per second), which is not heard.
const STRETCH_PER_BLOCK: i64 = 5;
/// Samples of a fade.
const FADE: usize = 120;

/// Samples of one packet at their place; interleaved stereo.
#[derive(Clone, Debug, PartialEq)]
struct Chunk {
    at: SampleIndex,
    pcm: Vec<f32>,
    /// Does not continue the piece before it.
    fresh: bool,
}

impl Chunk {
    fn end(&self) -> SampleIndex {
        self.at + (self.pcm.len() / 2) as i64
    }
}

/// Where packets go, and what is heard.
#[derive(Default)]
pub(super) struct SampleTimeline {
    chunks: VecDeque<Chunk>,
    /// Where the last packet ended.
    next: Option<SampleIndex>,
    /// Everything before is mixed and over.
    heard: SampleIndex,
    /// Nothing before this was ever to be mixed.
    pub(super) begin: SampleIndex,
    /// The mixer has looked at this track.
    mixing: bool,
    /// Samples that were to be mixed, and came too late or were replaced by what came after them, since last asked.
    pub(super) dropped: i64,
}

impl SampleTimeline {
    pub(super) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    pub(super) fn known_to(&self, sample: SampleIndex) -> bool {
        self.chunks.back().is_some_and(|chunk| chunk.at >= sample)
    }

    pub(super) fn forget_before(&mut self, sample: SampleIndex) {
        if !std::mem::replace(&mut self.mixing, true) {
            // Nothing of this track was mixed yet: what lies before came too late, if it is not from before the
            // beginning.
            let late = self.chunks.iter().map(|chunk| chunk.end().min(sample) - chunk.at.max(self.begin));
            self.dropped += late.map(|samples| samples.max(0)).sum::<i64>();
        }
        self.heard = self.heard.max(sample);
        while self.chunks.front().is_some_and(|chunk| chunk.end() <= sample) {
            self.chunks.pop_front();
        }
    }

    pub(super) fn place(&mut self, want: SampleIndex, mut pcm: Vec<f32>, cut: bool) {
        let length = (pcm.len() / 2) as i64;
        if length == 0 {
            return;
        }
        let tolerance = if cut { STRETCH_PER_BLOCK } else { SAME_RUN };
        let near = self.next.filter(|next| (want - *next).abs() <= tolerance);
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
    fn make_room_from(&mut self, want: SampleIndex) {
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

    pub(super) fn add(&mut self, at: SampleIndex, mix: &mut [f32], side: StereoSide) {
        let end = at + (mix.len() / 2) as i64;
        for index in 0..self.chunks.len() {
            // The track is known beyond this block by more than a fade and a run's tolerance: a chunk without a
            // successor now has none.
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
#[path = "sample_timeline_tests.rs"]
mod tests;
