//! Key frames of our encoder on the lines of the outputs' grid or in an interval of time, and on request. The threads of
//! encoders and streams ask; nothing waits for an answer.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use gst::glib;
use gst::prelude::*;
use gstreamer as gst;
use gstreamer_video as gst_video;

use crate::key_grid::KeyGrid;

/// A line is asked for so long before its picture comes: pictures are inside of the encoder by then.
const ASK_AHEAD_NS: u64 = 2_000_000_000;
/// All streams together get no more key frames off the grid: each costs the picture's quality.
const ASK_INTERVAL: Duration = Duration::from_secs(1);

/// For takers and the tasks of streams; cheap, from any thread.
#[derive(Clone, Default)]
pub struct KeyFrameRequests {
    /// `None`: there is no encoder of pictures behind it.
    encoder: Option<Arc<KeyFrameEncoder>>,
}

struct KeyFrameEncoder {
    element: glib::WeakRef<gst::Element>,
    asked_at: Mutex<Option<Instant>>,
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

impl KeyFrameRequests {
    /// Of this encoder. Line 0 is there anyway. `interval`: most time between key frames where there is no grid.
    pub(super) fn of(encoder: &gst::Element, grid: Option<KeyGrid>, interval: Duration) -> Self {
        let encoder = KeyFrameEncoder {
            element: encoder.downgrade(),
            asked_at: Mutex::default(),
            grid,
            next_line: AtomicU64::new(1),
            interval_ns: u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX),
            key_ns: AtomicU64::new(0),
            is_asked: AtomicBool::new(false),
            began: AtomicBool::new(false),
        };
        Self { encoder: Some(Arc::new(encoder)) }
    }

    /// The next picture is a key frame, unless one was asked for within a second. Does nothing without our encoder.
    pub fn now(&self) {
        let Some(encoder) = &self.encoder else { return };
        // The first picture is a key frame anyway.
        if !encoder.began.load(Ordering::Relaxed) {
            return;
        }
        {
            let mut asked_at = encoder.asked_at.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            if asked_at.is_some_and(|at| now < at + ASK_INTERVAL) {
                return;
            }
            *asked_at = Some(now);
        }
        encoder.force(None);
    }

    /// The encoder has come to `at_ns`, to a key frame or not: the lines ahead are asked for, or the next picture where the
    /// last key frame is too long ago. Called by one thread at a time.
    pub(super) fn reached(&self, at_ns: u64, is_key: bool) {
        let Some(encoder) = &self.encoder else { return };
        encoder.began.store(true, Ordering::Relaxed);
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

    /// `at`: the first picture at this running time or later; `None`: the next one.
    fn force(&self, at: Option<gst::ClockTime>) {
        let pad = self.element.upgrade().and_then(|element| element.static_pad("src"));
        let Some(pad) = pad else { return };
        // Refused only by an encoder that has ended.
        pad.send_event(gst_video::UpstreamForceKeyUnitEvent::builder().running_time(at).all_headers(true).build());
    }
}
