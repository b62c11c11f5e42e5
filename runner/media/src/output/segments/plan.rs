//! What a segmenter is told, and what it answers. Plain values.

use spillway_plan::segment_name::SegmentFormat;

use crate::units::MediaTime;

/// What is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmenterPlan {
    /// MPEG-TS, or fragmented MP4.
    pub format: SegmentFormat,
    /// Of a segment, nanoseconds.
    pub length_ns: u64,
    /// `None`: sound alone.
    pub video: Option<SegmentVideo>,
    /// AAC-LC stereo at so many samples a second.
    pub aac_rate: Option<u32>,
}

/// H264 of our encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentVideo {
    /// Pictures a second, as asked for: some may be left out.
    pub framerate: u32,
    /// Pixels.
    pub size: (u32, u32),
}

/// What is to be done with the files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SegmentEffect {
    /// What players load before the first segment: a file of its own, once, before the first `Open`. Not of MPEG-TS.
    Init(Vec<u8>),
    /// A segment begins.
    Open {
        /// Its number, from 0 on without a gap.
        index: u32,
        /// Of its first picture, or frame of sound where there are no pictures.
        at: MediaTime,
    },
    /// Behind everything in the open segment. Of MPEG-TS whole packets; of fragmented MP4 all of it, right before `Close`.
    Append(Vec<u8>),
    /// The open segment is whole.
    Close(ClosedSegment),
}

/// A whole segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClosedSegment {
    /// Its number.
    pub index: u32,
    /// Where it begins; where the one before it ends.
    pub at: MediaTime,
    /// Up to the begin of the next, or the end of its last picture. Never the sum of the lengths of frames.
    pub length_ns: u64,
    /// Size of the file.
    pub bytes: u64,
}
