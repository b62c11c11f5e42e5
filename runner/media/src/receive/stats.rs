//! What is known of a track in numbers, for `quality` and for logs.

use crate::track::{Codec, TrackId};

/// Counts of one track since it joined.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TrackStats {
    /// The track.
    pub track: TrackId,
    /// Its newest publication's sid.
    pub sid: String,
    /// `None` before its first frame and after it left.
    pub codec: Option<Codec>,
    /// Frames placed on the timeline.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Packets that arrived, each counted once.
    pub packets: u64,
    /// Packets that never came.
    pub lost: u64,
    /// Packets that came after a later one, by retransmission or by another path.
    pub recovered: u64,
    /// Packets that came twice, or when they were no longer waited for.
    pub late: u64,
    /// Frames dropped while waiting for a key frame.
    pub undecodable: u64,
    /// Requests for a key frame.
    pub keyframes_asked: u64,
    /// Of a picture: how much later than the sound of the same participant and source it is placed now, by their sender
    /// reports. `None` without both.
    pub av_offset_ms: Option<f64>,
}
