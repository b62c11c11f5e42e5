//! Key frames of our encoder on the lines of the outputs' grid or in an interval of time, and on request. The threads of
//! encoders and streams ask; nothing waits for an answer.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gst::glib;
use gst::prelude::*;
use gstreamer as gst;
use gstreamer_video as gst_video;

use crate::key_grid::KeyGrid;

/// A line is asked for so long before its picture comes: pictures are inside of the encoder by then.
const ASK_AHEAD_NS: u64 = 2_000_000_000;
/// All streams together get no more key frames off the grid than one in so long: each costs the picture's quality.
const ASK_INTERVAL: Duration = Duration::from_secs(1);

/// For takers and the tasks of streams; cheap, from any thread.
#[derive(Clone, Default)]
pub struct KeyFrameRequests {
    /// `None`: there is no encoder of pictures behind it.
    encoder: Option<Arc<KeyFrameEncoder>>,
}

struct KeyFrameEncoder {
    element: glib::WeakRef<gst::Element>,
    limit: Mutex<RequestLimit>,
    grid: Option<KeyGrid>,
    /// Number of the first line that is not asked for.
    next_line: AtomicU64,
    /// Most time between key frames without a grid, nanoseconds: the encoder counts pictures, and of a picture that stands
    /// still it gets few.
    interval_ns: u64,
    /// Of the newest key frame, nanoseconds.
    key_ns: AtomicU64,
    /// Another one is asked for.
    is_asked: AtomicBool,
    /// The first picture has come out. What an encoder of GStreamer 1.22 is asked for before is spent on that picture, at
    /// a running time of 1000 h (x264enc moves its time stamps), and all that is asked for later counts as too early.
    began: AtomicBool,
}

/// Lets one request through in [`ASK_INTERVAL`]. One that comes earlier is answered by the key frame that was asked for, if
/// that is still to come, and is let through later otherwise: a stream that began without it would wait for the grid.
#[derive(Debug, Default)]
struct RequestLimit {
    asked_at: Option<Instant>,
    /// No key frame has come since.
    is_open: bool,
    /// One is wanted, and was not asked for.
    is_owed: bool,
}

impl RequestLimit {
    /// A stream wants a key frame. True: the encoder is to be asked.
    fn wanted(&mut self, now: Instant) -> bool {
        if self.is_early(now) {
            self.is_owed |= !self.is_open;
            return false;
        }
        self.ask(now)
    }

    /// The encoder made a picture. True: it is to be asked for what was wanted too early.
    fn made(&mut self, now: Instant, is_key: bool) -> bool {
        if is_key {
            (self.is_open, self.is_owed) = (false, false);
        }
        self.is_owed && !self.is_early(now) && self.ask(now)
    }

    fn is_early(&self, now: Instant) -> bool {
        self.asked_at.is_some_and(|at| now < at + ASK_INTERVAL)
    }

    fn ask(&mut self, now: Instant) -> bool {
        *self = Self { asked_at: Some(now), is_open: true, is_owed: false };
        true
    }
}

impl KeyFrameRequests {
    /// Of this encoder. Line 0 is there anyway. `interval`: most time between key frames where there is no grid.
    pub(super) fn of(encoder: &gst::Element, grid: Option<KeyGrid>, interval: Duration) -> Self {
        let encoder = KeyFrameEncoder {
            element: encoder.downgrade(),
            limit: Mutex::default(),
            grid,
            next_line: AtomicU64::new(1),
            interval_ns: u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX),
            key_ns: AtomicU64::new(0),
            is_asked: AtomicBool::new(false),
            began: AtomicBool::new(false),
        };
        Self { encoder: Some(Arc::new(encoder)) }
    }

    /// The next picture is a key frame; a second after one was asked for, if it has come already. Does nothing without our
    /// encoder.
    pub fn now(&self) {
        let Some(encoder) = &self.encoder else { return };
        // The first picture is a key frame anyway.
        if !encoder.began.load(Ordering::Relaxed) {
            return;
        }
        let is_due = encoder.limit().wanted(Instant::now());
        if is_due {
            encoder.force(None);
        }
    }

    /// The encoder has come to `at_ns`, to a key frame or not: the lines ahead are asked for, or the next picture where the
    /// last key frame is too long ago. Called by one thread at a time.
    pub(super) fn reached(&self, at_ns: u64, is_key: bool) {
        let Some(encoder) = &self.encoder else { return };
        encoder.began.store(true, Ordering::Relaxed);
        let is_due = encoder.limit().made(Instant::now(), is_key);
        if is_due {
            encoder.force(None);
        }
        let Some(grid) = encoder.grid else { return encoder.keep_interval(at_ns, is_key) };
        let ahead_ns = at_ns.saturating_add(ASK_AHEAD_NS.max(grid.step_ns()));
        loop {
            let line = encoder.next_line.load(Ordering::Relaxed);
            let at = grid.line(line);
            if at > ahead_ns {
                return;
            }
            encoder.next_line.store(line + 1, Ordering::Relaxed);
            encoder.force(Some(gst::ClockTime::from_nseconds(at)));
        }
    }
}

impl KeyFrameEncoder {
    fn keep_interval(&self, at_ns: u64, is_key: bool) {
        if is_key {
            self.key_ns.store(at_ns, Ordering::Relaxed);
            self.is_asked.store(false, Ordering::Relaxed);
        } else if at_ns.saturating_sub(self.key_ns.load(Ordering::Relaxed)) >= self.interval_ns
            && !self.is_asked.swap(true, Ordering::Relaxed)
        {
            self.force(None);
        }
    }

    /// Not to be held while the encoder is asked.
    fn limit(&self) -> MutexGuard<'_, RequestLimit> {
        self.limit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `at`: the first picture at this running time or later; `None`: the next one.
    fn force(&self, at: Option<gst::ClockTime>) {
        let pad = self.element.upgrade().and_then(|element| element.static_pad("src"));
        let Some(pad) = pad else { return };
        // Refused only by an encoder that has ended.
        pad.send_event(gst_video::UpstreamForceKeyUnitEvent::builder().running_time(at).all_headers(true).build());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: bool = true;
    const OTHER: bool = false;

    /// Tells the limit of a picture each 100 ms up to `to_ms`; when it has the encoder asked.
    fn asked(limit: &mut RequestLimit, begun: Instant, from_ms: u64, to_ms: u64) -> Vec<u64> {
        let times = (from_ms..to_ms).step_by(100);
        times.filter(|ms| limit.made(begun + Duration::from_millis(*ms), OTHER)).collect()
    }

    #[test]
    fn a_key_frame_that_is_on_its_way_answers_all_that_ask() {
        let (now, mut limit) = (Instant::now(), RequestLimit::default());
        assert!(limit.wanted(now) && !limit.wanted(now));
        assert!(!limit.made(now + Duration::from_millis(40), KEY));
        assert!(asked(&mut limit, now, 100, 3000).is_empty());
        assert!(limit.wanted(now + Duration::from_secs(3)));
    }

    #[test]
    fn a_request_that_comes_too_early_is_answered_a_second_after_the_last_one() {
        let (now, mut limit) = (Instant::now(), RequestLimit::default());
        assert!(limit.wanted(now));
        limit.made(now + Duration::from_millis(40), KEY);
        assert!(!limit.wanted(now + Duration::from_millis(300)));
        assert_eq!(asked(&mut limit, now, 400, 3000), [1000]);
    }

    #[test]
    fn a_key_frame_of_the_grid_answers_it_too() {
        let (now, mut limit) = (Instant::now(), RequestLimit::default());
        assert!(limit.wanted(now));
        limit.made(now + Duration::from_millis(40), KEY);
        assert!(!limit.wanted(now + Duration::from_millis(300)));
        limit.made(now + Duration::from_millis(500), KEY);
        assert!(asked(&mut limit, now, 600, 3000).is_empty());
    }
}
