//! The way of composed pictures into their encoder, without most of those that repeat the one before: a file shows a picture
//! until the next one comes. In: a picture for each output time, in the mixer's thread, which waits here for the encoder. Out:
//! each that differs, and repeats at a distance. Outputs of raw pictures stand before it and see all of them.
//!
//! Without it x264 takes 2.5 ms for each 720p picture in which nothing has changed: 0.074 core for a recording that stands
//! still, and a third of its time for cameras of 15 pictures a second in a recording of 30.

use std::sync::{Mutex, MutexGuard, PoisonError};

use gstreamer as gst;

use super::feed::{FeedError, RawSink};
use super::picture_bits::{PictureBits, ShareMeter};

/// A picture that has just changed is repeated so long and so often: the encoder has spent its bits on the change, and makes
/// what stands still (a page of a talk) sharp with the next few.
const SETTLING_NS: u64 = 500_000_000;
const SETTLING_STEP_NS: u64 = 100_000_000;
/// Output times are rounded to nanoseconds.
const ROUNDING_NS: u64 = 1_000_000;

/// Most time between two pictures that are encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RepeatRate {
    /// Files and segments, which are played from a disk: two pictures a second, so that a kill and a jump in a player lose
    /// little.
    Recorded,
    /// Servers of streams, too: ten. Their sound waits in the ring for pictures of its time but for 0.3 s, and some measure
    /// whether a stream lives by its pictures.
    Streamed,
}

impl RepeatRate {
    fn longest_ns(self) -> u64 {
        match self {
            Self::Recorded => 500_000_000,
            Self::Streamed => SETTLING_STEP_NS,
        }
    }
}

/// Leaves out pictures on their way into `feed`.
pub struct VariableRate {
    feed: Box<dyn RawSink>,
    state: Mutex<RateState>,
}

struct RateState {
    repeats: Repeats,
    share: ShareMeter,
    /// The newest picture, if it was left out: the recording ends with it.
    left_out: Option<gst::Buffer>,
}

impl VariableRate {
    /// `feed`: what encodes, with the bit rate of `bits`.
    pub fn new(feed: Box<dyn RawSink>, rate: RepeatRate, bits: PictureBits) -> Self {
        let (repeats, share) = (Repeats::new(rate), ShareMeter::new(bits));
        Self { feed, state: Mutex::new(RateState { repeats, share, left_out: None }) }
    }

    fn state(&self) -> MutexGuard<'_, RateState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RawSink for VariableRate {
    fn push(&self, buffer: gst::Buffer) -> Result<(), FeedError> {
        let ns = |time: Option<gst::ClockTime>| time.map_or(0, gst::ClockTime::nseconds);
        let at_ns = ns(buffer.pts());
        let next_ns = at_ns.saturating_add(ns(buffer.duration()));
        let is_repeat = buffer.flags().contains(gst::BufferFlags::DROPPABLE);
        {
            let mut state = self.state();
            let passes = state.repeats.passes(at_ns, next_ns, is_repeat);
            state.share.count(at_ns, passes);
            if !passes {
                state.left_out = Some(buffer);
                return Ok(());
            }
            state.left_out = None;
        }
        self.feed.push(buffer)
    }

    fn end(&self) {
        let left_out = self.state().left_out.take();
        if let Some(last) = left_out {
            // Refused only by an input that is closed already.
            let _ = self.feed.push(last);
        }
        self.feed.end();
    }
}

/// Which repeats are encoded. Pure.
#[derive(Debug)]
struct Repeats {
    longest_ns: u64,
    /// Of the newest picture that was no repeat.
    changed_ns: u64,
    /// Of the newest picture that passed.
    passed_ns: Option<u64>,
}

impl Repeats {
    fn new(rate: RepeatRate) -> Self {
        Self { longest_ns: rate.longest_ns(), changed_ns: 0, passed_ns: None }
    }

    /// Whether the picture at `at_ns` is encoded; the next one comes at `next_ns`, and what is left out may not be later
    /// than allowed by then.
    fn passes(&mut self, at_ns: u64, next_ns: u64, is_repeat: bool) -> bool {
        if !is_repeat {
            self.changed_ns = at_ns;
        }
        let is_settling = at_ns.saturating_sub(self.changed_ns) <= SETTLING_NS;
        let step_ns = if is_settling { SETTLING_STEP_NS } else { self.longest_ns };
        let is_due = self.passed_ns.is_none_or(|passed| next_ns.saturating_sub(passed) > step_ns + ROUNDING_NS);
        let passes = !is_repeat || is_due;
        if passes {
            self.passed_ns = Some(at_ns);
        }
        passes
    }
}

#[cfg(test)]
#[path = "variable_rate_tests.rs"]
mod tests;
