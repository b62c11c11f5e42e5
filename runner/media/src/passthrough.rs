//! Encoded frames that go to the outputs as they came: only their times are ours. Runs in the recorder's thread.
//!
//! A copied sound has no holes: `packet_grid` puts its packets one after the other, and silence where none came (pauses of
//! DTX, mutes, losses, the tail). A hole is filled when the next packet has come, or when none can come any more.
//!
//! A later change of the picture's size needs nothing: H264, H265 and AV1 key frames bring their parameter sets in the
//! stream (an MP4 describes each of them), VP8 and VP9 say their size in every key frame, and a WebM keeps the label of the
//! first one. A change of the codec cannot go into the same file; `recorder` opens another one for it.

mod packet_grid;

use bytes::Bytes;
use spillway_plan::Container;

use self::packet_grid::PacketGrid;
use crate::output::{Feed, FeedError};
use crate::track::{Codec, Frame};
use crate::units::MediaTime;

/// Distance of the black frames of a mute: players that seek find one soon.
const BLACK_EVERY_NS: u64 = 1_000_000_000;

/// How long a black frame is shown at least.
const BLACK_NS: u64 = 33_333_333;

/// Frames of one track never stand closer than this: equal times are refused by players, and a WebM counts milliseconds.
const CLOSEST_NS: u64 = 1_000_000;

/// Silence of a mute is written so far behind the watermark: what comes first after the mute may be placed behind it.
const MUTED_HOLD_NS: u64 = 2_000_000_000;
/// And that of a track that sends nothing and is not muted. A way may stall for 10 s (what files wait for), the publisher's
/// or ours, and then deliver all of it.
const HOLD_NS: u64 = 15_000_000_000;

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
    /// Of sound.
    grid: Option<PacketGrid>,
    /// No sound is to be expected.
    muted: bool,
    /// Session time of the file's beginning.
    origin: MediaTime,
    /// The last picture's place in the file, nanoseconds.
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
    /// Older than the file's beginning, before the first key frame, or sound whose time is silence already.
    Skipped,
}

impl Passthrough {
    /// `origin`: media time of the file's beginning.
    pub fn new(feed: Feed, codec: Codec, origin: MediaTime) -> Self {
        let grid = (!codec.is_video()).then(|| PacketGrid::new(codec));
        Self { feed, grid, muted: false, origin, last: None, black: None, absent: false, size: None }
    }

    /// Copies one frame; frames come in order of time.
    ///
    /// # Errors
    ///
    /// When the pipeline takes nothing more; it says itself why.
    pub fn frame(&mut self, frame: &Frame) -> Result<Copied, FeedError> {
        let Some(at) = frame.at.checked_ns_since(self.origin) else { return Ok(Copied::Skipped) };
        if let Some(grid) = &mut self.grid {
            self.muted = false;
            let Some(silent_to) = grid.admit(at, &frame.data) else { return Ok(Copied::Skipped) };
            fill_to(grid, &self.feed, silent_to)?;
            self.feed.push_frame(frame.data.clone(), grid.put(&frame.data), true)?;
            return Ok(Copied::Written);
        }
        if self.last.is_none() && !frame.key {
            return Ok(Copied::Skipped);
        }
        // The timeline is monotonic; this holds if it ever slips.
        let moved = self.last.map_or(at, |last| at.max(last + CLOSEST_NS));
        let offset_ns = match frame.offset_ns {
            0 => 0,
            offset_ns => (at as i64 + offset_ns).max(0) - moved as i64,
        };
        let at = moved;
        self.feed.push_reordered(frame.data.clone(), (at, offset_ns), frame.key)?;
        self.last = Some(at);
        self.absent = false;
        let Some(size) = frame.size else { return Ok(Copied::Written) };
        Ok(match self.size.replace(size) {
            Some(from) if from != size => Copied::Resized { from, to: size },
            _ => Copied::Written,
        })
    }

    /// A muted picture is black, as in a composed recording. Every return begins with a key frame, so that a foreign
    /// picture before it does no harm.
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

    /// The publisher sends no sound until it comes back: nothing is on its way.
    pub fn muted(&mut self) {
        self.muted = true;
    }

    /// Everything before `at` has come.
    ///
    /// # Errors
    ///
    /// When the pipeline takes nothing more; it says itself why.
    pub fn complete_to(&mut self, at: MediaTime) -> Result<(), FeedError> {
        if let Some(grid) = &mut self.grid {
            let hold_ns = if self.muted { MUTED_HOLD_NS } else { HOLD_NS };
            let to_ns = grid.whole_to(at.minus_ns(hold_ns).ns_since(self.origin));
            return fill_to(grid, &self.feed, to_ns);
        }
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

    /// Nothing comes before `at` any more: a sound is silent up to there, and the last picture lasts.
    ///
    /// # Errors
    ///
    /// When the pipeline takes nothing more; it says itself why.
    pub fn lasts_to(&mut self, at: MediaTime) -> Result<(), FeedError> {
        let to = at.ns_since(self.origin);
        if let Some(grid) = &mut self.grid {
            return fill_to(grid, &self.feed, to);
        }
        self.complete_to(at)?;
        if self.absent && self.last.is_some_and(|last| last + BLACK_NS < to) {
            self.fill(to.saturating_sub(BLACK_NS))?;
        }
        if self.last.is_some_and(|last| last < to) {
            self.feed.lasts(to);
        }
        Ok(())
    }

    /// Sound that is missing because it came when its time was silence already, milliseconds.
    pub fn late_sound_ms(&self) -> u64 {
        self.grid.as_ref().map_or(0, |grid| grid.late_ns() / 1_000_000)
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

fn fill_to(grid: &mut PacketGrid, feed: &Feed, to_ns: u64) -> Result<(), FeedError> {
    while let Some(silence) = grid.silence_before(to_ns) {
        feed.push_frame(silence.data, silence.at_ns, true)?;
    }
    Ok(())
}
