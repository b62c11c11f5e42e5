//! The lines of media time at which segments end: `origin + n·length`. Pure. The encoder's key frames are asked for on
//! the same lines, which all outputs of a recording share.

use crate::units::MediaTime;

/// Equally distant moments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentGrid {
    origin: MediaTime,
    length_ns: u64,
}

impl SegmentGrid {
    /// Line 0 is `origin`; a length of 0 is taken as a nanosecond.
    pub fn new(origin: MediaTime, length_ns: u64) -> Self {
        Self { origin, length_ns: length_ns.max(1) }
    }

    /// The first line that lies later than `at`. What is within `tolerance_ns` before a line counts as on it.
    pub fn line_after(&self, at: MediaTime, tolerance_ns: u64) -> MediaTime {
        let lines = at.plus_ns(tolerance_ns).ns_since(self.origin) / self.length_ns;
        self.origin.plus_ns(self.length_ns.saturating_mul(lines + 1))
    }
}
