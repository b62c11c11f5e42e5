//! Between a mixer and its encoders: every buffer goes to each of them, and pictures to outputs that take them raw. Runs in
//! the mixer's thread, which waits for the slowest encoder and for no output.
//!
//! A mixer takes its sound ahead by the longest delay that an encoder does not declare. An encoder that delays less gets
//! silence first and everything later by the difference, so that all files hold a sound at the same time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use gstreamer as gst;

use super::fanout::Fanout;
use super::feed::{Feed, FeedError, RawSink};
use crate::units::SampleIndex;

/// Bytes of a stereo sample, F32.
const SAMPLE_BYTES: usize = 8;

/// One mixer's way into several encoders.
pub struct RawFanout {
    feeds: Vec<RawFeed>,
}

struct RawFeed {
    feed: Feed,
    /// In samples at 48 kHz; 0 for pictures.
    later: u32,
    begun: AtomicBool,
}

impl RawFanout {
    /// Each feed with the samples at 48 kHz by which its encoder gets everything later.
    pub fn new(feeds: impl IntoIterator<Item = (Feed, u32)>) -> Self {
        let feeds = feeds.into_iter().map(|(feed, later)| RawFeed { feed, later, begun: AtomicBool::new(false) });
        Self { feeds: feeds.collect() }
    }
}

impl RawSink for RawFanout {
    fn push(&self, buffer: gst::Buffer) -> Result<(), FeedError> {
        let Some((last, others)) = self.feeds.split_last() else { return Ok(()) };
        others.iter().try_for_each(|feed| feed.push(buffer.copy()))?;
        last.push(buffer)
    }

    fn end(&self) {
        self.feeds.iter().for_each(|feed| feed.feed.end());
    }
}

impl RawFeed {
    fn push(&self, mut buffer: gst::Buffer) -> Result<(), FeedError> {
        if self.later == 0 {
            return self.feed.push(buffer);
        }
        let later = gst::ClockTime::from_nseconds(SampleIndex::new(i64::from(self.later)).time().ns());
        if !self.begun.swap(true, Ordering::Relaxed) {
            let mut silence = gst::Buffer::from_mut_slice(vec![0u8; SAMPLE_BYTES * self.later as usize]);
            let fresh = silence.make_mut();
            fresh.set_pts(gst::ClockTime::ZERO);
            fresh.set_duration(later);
            self.feed.push(silence)?;
        }
        let at = buffer.pts();
        // A copy that shares memory, or the last one: its times are ours to write.
        buffer.make_mut().set_pts(at.map(|at| at + later));
        self.feed.push(buffer)
    }
}

/// What an output does with raw pictures. The end of them is told by the fan-out, where it is an output like the others.
pub trait RawTaker: Send + Sync {
    /// A composed picture, with its time. Called from the mixer's thread: never waits.
    fn take(&self, picture: &gst::Buffer);
}

/// A picture mixer's way into an encoder, if there is one, and to the outputs that take raw pictures.
pub struct RawPictures {
    feed: Option<Box<dyn RawSink>>,
    takers: Vec<Box<dyn RawTaker>>,
    fanout: Arc<Fanout>,
}

impl RawPictures {
    /// `fanout` is of [`Fanout::with_raw_pictures`].
    pub fn new(feed: Option<Box<dyn RawSink>>, takers: Vec<Box<dyn RawTaker>>, fanout: Arc<Fanout>) -> Self {
        Self { feed, takers, fanout }
    }
}

impl RawSink for RawPictures {
    fn push(&self, buffer: gst::Buffer) -> Result<(), FeedError> {
        self.takers.iter().for_each(|taker| taker.take(&buffer));
        let end = buffer.pts().unwrap_or_default() + buffer.duration().unwrap_or_default();
        self.fanout.raw_picture_to(end.nseconds());
        match &self.feed {
            Some(feed) => feed.push(buffer),
            None => Ok(()),
        }
    }

    fn end(&self) {
        if let Some(feed) = &self.feed {
            feed.end();
        }
        self.fanout.end_raw_pictures();
    }
}
