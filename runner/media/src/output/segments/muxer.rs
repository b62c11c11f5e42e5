//! The muxer of either format behind one interface. What MPEG-TS appends as frames come, fragmented MP4 writes when the
//! segment ends. Pure.

use spillway_plan::segment_name::SegmentFormat;

use crate::mux::{FragmentMuxer, TsMuxer};
use crate::units::MediaTime;

use super::plan::SegmenterPlan;

/// One of the two.
pub enum SegmentMuxer {
    /// Appends packets as frames come.
    Ts(TsMuxer),
    /// Writes a segment when it ends.
    Fragments(FragmentMuxer),
}

impl SegmentMuxer {
    /// `None` for what the format cannot describe.
    pub fn new(plan: &SegmenterPlan) -> Option<Self> {
        let size = plan.video.map(|video| video.size);
        match plan.format {
            SegmentFormat::MpegTs => TsMuxer::new(size.is_some(), plan.aac_rate).map(Self::Ts),
            SegmentFormat::FragmentedMp4 => FragmentMuxer::new(size, plan.aac_rate).map(Self::Fragments),
        }
    }

    /// Whether a stream may begin with this key frame: an init segment needs its parameter sets.
    pub fn describe(&mut self, key_frame: &[u8]) -> bool {
        match self {
            Self::Ts(_) => true,
            Self::Fragments(muxer) => muxer.describe(key_frame),
        }
    }

    /// What players load before any segment; MPEG-TS has nothing of the kind.
    pub fn init(&self) -> Option<Vec<u8>> {
        match self {
            Self::Ts(_) => None,
            Self::Fragments(muxer) => muxer.init(),
        }
    }

    /// A segment begins.
    pub fn begin(&mut self, out: &mut Vec<u8>) {
        if let Self::Ts(muxer) = self {
            muxer.begin_segment(out);
        }
    }

    /// An access unit in Annex B.
    pub fn video(&mut self, at: MediaTime, key: bool, access_unit: &[u8], out: &mut Vec<u8>) {
        match self {
            Self::Ts(muxer) => muxer.video(at, key, access_unit, out),
            Self::Fragments(muxer) => muxer.video(at, key, access_unit),
        }
    }

    /// One raw AAC frame.
    pub fn audio(&mut self, at: MediaTime, frame: &[u8], out: &mut Vec<u8>) {
        match self {
            Self::Ts(muxer) => muxer.audio(at, frame, out),
            Self::Fragments(muxer) => muxer.audio(at, frame),
        }
    }

    /// The segment ends at `at`.
    pub fn end(&mut self, at: MediaTime, out: &mut Vec<u8>) {
        match self {
            Self::Ts(muxer) => muxer.end_segment(out),
            Self::Fragments(muxer) => muxer.end_segment(at, out),
        }
    }
}
