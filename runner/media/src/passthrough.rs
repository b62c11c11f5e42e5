//! Encoded frames that go to the outputs as they came: only their times are ours.
//!
//! A later change of the picture's size needs nothing: H264, H265 and AV1 key frames bring their parameter sets in the
//! stream, VP8 and VP9 say their size in every key frame, and the muxer keeps the label of the first one. A change of
//! the codec cannot go into the same file; `recorder` opens another one for it.

use bytes::Bytes;
use spillway_plan::Container;

use crate::output::{Feed, FeedError};
use crate::track::{Codec, Frame};
use crate::units::MediaTime;

/// Distance of the black frames of a mute: players that seek find one soon.
const BLACK_EVERY_NS: u64 = 1_000_000_000;

/// Frames of one track never stand closer than this: equal times are refused by players, and a WebM counts milliseconds.
const CLOSEST_NS: u64 = 1_000_000;

/// The container of a copied track when none was asked for.
pub fn container(codec: Codec) -> Container {
    match codec {
        Codec::H264 | Codec::H265 => Container::Mp4,
        Codec::Vp8 | Codec::Vp9 | Codec::Av1 => Container::Webm,
        Codec::Opus | Codec::Pcmu | Codec::Pcma => Container::Ogg,
    }
}

/// Whether `codec` can be copied into `container`.
pub fn fits(codec: Codec, container: Container) -> bool {
    match container {
        Container::Mp4 => matches!(codec, Codec::H264 | Codec::H265 | Codec::Opus),
        Container::Webm => matches!(codec, Codec::Vp8 | Codec::Vp9 | Codec::Av1 | Codec::Opus),
        Container::Ivf => codec.is_video(),
        Container::Ogg => !codec.is_video(),
        Container::Mp3 => false,
    }
}

/// One copied track on its way into the file.
pub struct Passthrough {
    feed: Feed,
    video: bool,
    /// Session time of the file's beginning.
    origin: MediaTime,
    /// The last frame's place in the file, nanoseconds.
    last: Option<u64>,
    /// What stands in for a picture that is not there, in its codec; needed only beside sound.
    black: Option<Bytes>,
    absent: bool,
    size: Option<(u32, u32)>,
}

/// What came of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copied {
    /// It is in the file, or on its way.
    Written,
    /// The first frame of another size.
    Resized {
        /// Pixels before.
        from: (u32, u32),
        /// Pixels from this frame on.
        to: (u32, u32),
    },
    /// Older than the file's beginning, or before the first key frame.
    Skipped,
}

impl Passthrough {
    /// `origin`: media time of the file's beginning.
    pub fn new(feed: Feed, video: bool, origin: MediaTime) -> Self {
        Self { feed, video, origin, last: None, black: None, absent: false, size: None }
    }

    /// Copies one frame; frames come in order of time.
    ///
    /// # Errors
    ///
    /// When the pipeline takes nothing more; it says itself why.
    pub fn frame(&mut self, frame: &Frame) -> Result<Copied, FeedError> {
        let Some(at) = frame.at.checked_ns_since(self.origin) else { return Ok(Copied::Skipped) };
        if self.last.is_none() && self.video && !frame.key {
            return Ok(Copied::Skipped);
        }
        // The timeline is monotonic; this holds if it ever slips.
        let at = self.last.map_or(at, |last| at.max(last + CLOSEST_NS));
        self.feed.push_frame(frame.data.clone(), at, !self.video || frame.key)?;
        self.last = Some(at);
        self.absent = false;
        let Some(size) = frame.size else { return Ok(Copied::Written) };
        Ok(match self.size.replace(size) {
            Some(from) if from != size => Copied::Resized { from, to: size },
            _ => Copied::Written,
        })
    }

    /// A muted picture is black, as in a composed recording. Every return begins with a key frame, so that a foreign
    /// picture before it does no harm. Without it sound has to wait for the picture in a WebM, whose muxer sorts by time.
    pub fn fill_with(&mut self, black: Bytes) {
        self.black = Some(black);
    }

    /// The picture goes at `at` and comes back with a key frame.
    ///
    /// # Errors
    ///
    /// When the pipeline takes nothing more; it says itself why.
    pub fn absent(&mut self, at: MediaTime) -> Result<(), FeedError> {
        if self.absent || self.last.is_none() {
            return Ok(());
        }
        self.absent = true;
        self.fill(at.ns_since(self.origin))
    }

    /// Everything before `at` has come.
    ///
    /// # Errors
    ///
    /// When the pipeline takes nothing more; it says itself why.
    pub fn complete_to(&mut self, at: MediaTime) -> Result<(), FeedError> {
        let at = at.ns_since(self.origin);
        while self.absent
            && let Some(last) = self.last
            && last + BLACK_EVERY_NS <= at
            && self.black.is_some()
        {
            self.fill(last + BLACK_EVERY_NS)?;
        }
        Ok(())
    }

    fn fill(&mut self, at: u64) -> Result<(), FeedError> {
        let Some(black) = &self.black else { return Ok(()) };
        let at = self.last.map_or(at, |last| at.max(last + CLOSEST_NS));
        self.feed.push_frame(black.clone(), at, true)?;
        self.last = Some(at);
        Ok(())
    }

    /// Nothing more comes.
    pub fn end(&self) {
        self.feed.end();
    }

    /// Bytes taken and not yet encoded.
    pub fn waiting_bytes(&self) -> u64 {
        self.feed.waiting_bytes()
    }
}
