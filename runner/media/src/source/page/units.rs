//! What a page's display and sound server give, what they are asked for, and the clock both are timed by. Plain values: made
//! by `display` and `sound` in their threads, taken by the recording. Nothing here waits or keeps state.

use std::path::PathBuf;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// What the page shows from a moment on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageFrame {
    /// CLOCK_MONOTONIC of the frame's slot: within half a period of when it was read from the display (a whole one when two
    /// frames fell into one slot). Later than the frame before; the grid moves by at most 0.5 ms per frame.
    pub at: Duration,
    /// The whole picture as I420, BT.709, limited range, in GStreamer's layout for this size: luma, then U, then V, each row
    /// padded to a multiple of four bytes.
    pub data: Vec<u8>,
    /// What differs from the frame before it.
    pub damage: PageRect,
}

/// A part of the display, pixels; even numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PageRect {
    /// Of the left edge.
    pub x: u32,
    /// Of the top edge.
    pub y: u32,
    /// From left to right.
    pub width: u32,
    /// From top to bottom.
    pub height: u32,
}

impl PageRect {
    /// The smallest rectangle that holds both.
    pub fn union(self, other: Self) -> Self {
        let (x, y) = (self.x.min(other.x), self.y.min(other.y));
        let right = (self.x + self.width).max(other.x + other.width);
        let bottom = (self.y + self.height).max(other.y + other.height);
        Self { x, y, width: right - x, height: bottom - y }
    }
}

/// What the page lets hear. Blocks follow one another without a hole from the first one on; where nothing plays they are
/// silent.
#[derive(Clone, Debug, PartialEq)]
pub struct PageSamples {
    /// CLOCK_MONOTONIC at which the first sample is heard.
    pub at: Duration,
    /// Interleaved stereo at 48 kHz, within -1.0 to 1.0.
    pub samples: Vec<f32>,
}

/// The display of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DisplayOptions {
    /// Pixels; even.
    pub width: u32,
    /// Pixels; even.
    pub height: u32,
    /// Frames a second at most; and refreshes a second, from which Chromium takes the interval of its frames, until another
    /// rate is set.
    pub fps: u32,
    /// Private to this user, writable, removed by its owner; the X server's log lies there.
    pub folder: PathBuf,
}

/// The sound server of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SoundOptions {
    /// As [`DisplayOptions::folder`]; socket and cookie lie there. At most 90 bytes long (a socket's address has 107).
    pub folder: PathBuf,
}

/// CLOCK_MONOTONIC: what frames, samples and Chromium's own time are measured by. `std::time::Instant` is the same clock
/// without a number.
pub fn monotonic() -> Duration {
    // The time since boot is never negative.
    Duration::try_from(clock_gettime(ClockId::Monotonic)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_union_holds_both() {
        let (left, right) =
            (PageRect { x: 0, y: 8, width: 4, height: 2 }, PageRect { x: 10, y: 2, width: 2, height: 4 });
        assert_eq!(left.union(right), PageRect { x: 0, y: 2, width: 12, height: 8 });
        assert_eq!(left.union(left), left);
    }

    #[test]
    fn the_clock_is_that_of_an_instant() {
        let (instant, clock) = (std::time::Instant::now(), monotonic());
        std::thread::sleep(Duration::from_millis(20));
        let (elapsed, passed) = (instant.elapsed(), monotonic() - clock);
        assert!(elapsed.abs_diff(passed) < Duration::from_millis(10), "{elapsed:?} and {passed:?}");
    }
}
