//! HLS segments of MPEG-TS or fragmented MP4, cut on a grid of media time. Encoded pictures and frames of sound come in,
//! each as its stream has it; what is to be done with the segment files comes out, in order. Pure: runs in the encoder's
//! thread, which writes each effect to the spool at once (one write for an access unit, so that a kill leaves whole ones).
//!
//! A segment ends at the first key frame on or behind the next line of the grid, not `length` after its begin: a key
//! frame asked for by a viewer cuts nothing, and what comes late once does not move later borders. Without pictures every
//! frame of sound is a key frame. Playlists are the runner's: it alone knows which segments are stored.

mod taker;
mod muxer;
mod plan;

use std::collections::VecDeque;

use crate::key_grid::KeyGrid;
use crate::mux::AAC_FRAME_SAMPLES;
use crate::units::MediaTime;

pub use plan::{ClosedSegment, SegmentEffect, SegmentVideo, SegmenterPlan};
pub use taker::{SegmentEventFn, SegmentsTaker, SegmentsTakerOptions};

use muxer::SegmentMuxer;

/// Sound that is so far ahead of the pictures is written without them: 80 kB at 128 kbit/s.
const MAX_HELD_NS: u64 = 5_000_000_000;
/// So many pictures wait at a border for the sound before it, which comes 0.15 s later from its encoder: 1.1 MB at 4.5 Mbit/s.
const MAX_WAITING_NS: u64 = 2_000_000_000;

/// Cuts one recording.
pub struct Segmenter {
    plan: SegmenterPlan,
    muxer: SegmentMuxer,
    /// Of a picture, or of sound where it is alone.
    frame_ns: u64,
    audio_frame_ns: u64,
    /// Where the first segment begins: line 0 of the grid.
    origin: Option<MediaTime>,
    open: Option<OpenSegment>,
    next_index: u32,
    /// Newest picture that is written.
    newest: MediaTime,
    /// Newest picture that came.
    pictures_to: MediaTime,
    /// Where the sound that came ends.
    sound_to: MediaTime,
    /// Pictures from a border on, whose segment begins when the one before it has its sound.
    waiting: VecDeque<WaitingPicture>,
    /// Sound of the segments to come.
    held: VecDeque<(MediaTime, Vec<u8>)>,
}

struct WaitingPicture {
    at: MediaTime,
    key: bool,
    access_unit: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
struct OpenSegment {
    index: u32,
    at: MediaTime,
    /// The line where it is to end.
    border: MediaTime,
    bytes: u64,
}

impl Segmenter {
    /// `None` for what the format cannot describe: a rate of AAC that ADTS has no number for, or nothing to cut.
    pub fn new(plan: SegmenterPlan) -> Option<Self> {
        let muxer = SegmentMuxer::new(&plan)?;
        let audio_frame_ns = plan.aac_rate.map_or(0, |rate| AAC_FRAME_SAMPLES * 1_000_000_000 / u64::from(rate.max(1)));
        let frame_ns = plan.video.map_or(audio_frame_ns, |video| 1_000_000_000 / u64::from(video.framerate.max(1)));
        Some(Self {
            plan,
            muxer,
            frame_ns,
            audio_frame_ns,
            origin: None,
            open: None,
            next_index: 0,
            newest: MediaTime::ZERO,
            pictures_to: MediaTime::ZERO,
            sound_to: MediaTime::ZERO,
            waiting: VecDeque::new(),
            held: VecDeque::new(),
        })
    }

    /// An access unit in Annex B; times grow from call to call. Pictures before the first key frame are dropped: nothing
    /// can show them. At a border they wait for the sound before it, at most two seconds of them.
    pub fn video(&mut self, at: MediaTime, key: bool, access_unit: &[u8]) -> Vec<SegmentEffect> {
        let mut effects = vec![];
        if self.plan.video.is_none() {
            return effects;
        }
        self.pictures_to = self.pictures_to.max(at);
        self.write_waiting(&mut effects);
        if self.waiting.is_empty() && !self.waits(at, key) {
            self.write_picture(at, key, access_unit, &mut effects);
        } else {
            self.waiting.push_back(WaitingPicture { at, key, access_unit: access_unit.to_vec() });
        }
        effects
    }

    /// One raw AAC frame; times grow from call to call. It goes into the segment whose time it has, also when the pictures
    /// of that time are not encoded yet, and never waits more than five seconds for them.
    pub fn audio(&mut self, at: MediaTime, frame: &[u8]) -> Vec<SegmentEffect> {
        let mut effects = vec![];
        let mut bytes = vec![];
        if self.plan.aac_rate.is_none() {
            return effects;
        }
        if self.plan.video.is_none() {
            self.cut_if_due(at, &mut effects);
            self.newest = self.newest.max(at);
            self.muxer.audio(at, frame, &mut bytes);
        } else {
            self.sound_to = self.sound_to.max(at.plus_ns(self.audio_frame_ns));
            self.held.push_back((at, frame.to_vec()));
            self.release(&mut bytes);
        }
        self.append(bytes, &mut effects);
        self.write_waiting(&mut effects);
        effects
    }

    /// Nothing more comes: the last segment ends behind its last picture. Sound that waits is in it.
    pub fn finish(&mut self) -> Vec<SegmentEffect> {
        let mut effects = vec![];
        while let Some(picture) = self.waiting.pop_front() {
            self.write_picture(picture.at, picture.key, &picture.access_unit, &mut effects);
        }
        let end = self.newest.plus_ns(self.frame_ns);
        self.close(end, MediaTime::MAX, &mut effects);
        effects
    }

    /// It begins a segment, and sound of the one before it is still to come.
    fn waits(&self, at: MediaTime, key: bool) -> bool {
        let is_cut = key && self.open.is_some_and(|open| self.is_due(at, open));
        let has_sound = self.plan.aac_rate.is_none() || self.sound_to >= at;
        is_cut && !has_sound && self.pictures_to.ns_since(at) < MAX_WAITING_NS
    }

    fn write_waiting(&mut self, effects: &mut Vec<SegmentEffect>) {
        while let Some(first) = self.waiting.front()
            && !self.waits(first.at, first.key)
            && let Some(picture) = self.waiting.pop_front()
        {
            self.write_picture(picture.at, picture.key, &picture.access_unit, effects);
        }
    }

    fn write_picture(&mut self, at: MediaTime, key: bool, access_unit: &[u8], effects: &mut Vec<SegmentEffect>) {
        if key && self.muxer.describe(access_unit) {
            self.cut_if_due(at, effects);
        }
        if self.open.is_some() {
            let mut bytes = vec![];
            self.newest = self.newest.max(at);
            self.muxer.video(at, key, access_unit, &mut bytes);
            self.release(&mut bytes);
            self.append(bytes, effects);
        }
    }

    /// Half a frame early is the rounding of a time stamp.
    fn is_due(&self, at: MediaTime, open: OpenSegment) -> bool {
        at.plus_ns(self.frame_ns / 2) >= open.border
    }

    fn cut_if_due(&mut self, at: MediaTime, effects: &mut Vec<SegmentEffect>) {
        if self.open.is_some_and(|open| !self.is_due(at, open)) {
            return;
        }
        self.close(at, at, effects);
        let origin = *self.origin.get_or_insert(at);
        let grid = KeyGrid::new(self.plan.length_ns, self.plan.length_ns);
        let past = at.plus_ns(self.frame_ns / 2).ns_since(origin);
        let border = origin.plus_ns(grid.line(grid.next_after(past)));
        let open = OpenSegment { index: self.next_index, at, border, bytes: 0 };
        if open.index == 0 {
            // Sound from before the first picture.
            let begun = |held: &(MediaTime, Vec<u8>)| held.0.plus_ns(self.audio_frame_ns) > at;
            self.held.retain(begun);
            effects.extend(self.muxer.init().map(SegmentEffect::Init));
        }
        self.next_index += 1;
        self.open = Some(open);
        effects.push(SegmentEffect::Open { index: open.index, at });
        let mut tables = vec![];
        self.muxer.begin(&mut tables);
        self.append(tables, effects);
    }

    /// Ends the open segment at `end`, with the sound that waits from before `sound_to`.
    fn close(&mut self, end: MediaTime, sound_to: MediaTime, effects: &mut Vec<SegmentEffect>) {
        if self.open.is_none() {
            return;
        }
        let mut bytes = vec![];
        self.release_to(sound_to, &mut bytes);
        self.muxer.end(end, &mut bytes);
        self.append(bytes, effects);
        if let Some(open) = self.open.take() {
            effects.push(SegmentEffect::Close(ClosedSegment {
                index: open.index,
                at: open.at,
                length_ns: end.ns_since(open.at),
                bytes: open.bytes,
            }));
        }
    }

    /// Sound that belongs to the open segment for sure: from before its border, or before a picture that is in it.
    fn release(&mut self, bytes: &mut Vec<u8>) {
        if let Some(open) = self.open {
            self.release_to(open.border.max(self.newest), bytes);
        }
        while let Some((first, last)) = self.held.front().zip(self.held.back())
            && last.0.ns_since(first.0) > MAX_HELD_NS
        {
            if let Some((at, frame)) = self.held.pop_front()
                && self.open.is_some()
            {
                self.muxer.audio(at, &frame, bytes);
            }
        }
    }

    fn release_to(&mut self, end: MediaTime, bytes: &mut Vec<u8>) {
        while let Some((at, frame)) = self.held.pop_front_if(|held| held.0 < end) {
            self.muxer.audio(at, &frame, bytes);
        }
    }

    fn append(&mut self, bytes: Vec<u8>, effects: &mut Vec<SegmentEffect>) {
        if let Some(open) = &mut self.open
            && !bytes.is_empty()
        {
            open.bytes += bytes.len() as u64;
            effects.push(SegmentEffect::Append(bytes));
        }
    }
}

#[cfg(test)]
mod tests;
