//! What a page's display and sound server give, and what they are asked for. Plain values: made by `display` and `sound`
//! in their threads, taken by `pictures` and `samples`. All times are of CLOCK_MONOTONIC.

use std::path::PathBuf;
use std::time::Duration;

/// What the page shows from a moment on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageFrame {
    /// CLOCK_MONOTONIC when it was read from the display; one frame is later than the one before it.
    pub at: Duration,
    /// The whole picture as I420, BT.709, limited range, in GStreamer's layout for this size: luma, then U, then V, each row
    /// padded to a multiple of four bytes.
    pub data: Vec<u8>,
    /// What differs from the frame before it; the whole picture in the first one.
    pub damage: PageRect,
}

/// A part of the display, pixels.
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
    /// Refreshes a second, from which Chromium takes the interval of its frames.
    pub fps: u32,
    /// Private to this user, writable, removed by its owner; for sockets and lock files.
    pub folder: PathBuf,
}

/// The sound server of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SoundOptions {
    /// As [`DisplayOptions::folder`].
    pub folder: PathBuf,
}
