//! Where the mixer's thread leaves pictures for the thread of an image output: one at a time, the newest wins.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use gstreamer as gst;

use super::grid::CaptureGrid;

/// A picture that becomes an image.
pub(super) struct TakenPicture {
    pub(super) buffer: gst::Buffer,
    /// Nanoseconds of output time.
    pub(super) at_ns: u64,
}

pub(super) struct PictureSlot {
    state: Mutex<SlotState>,
    changed: Condvar,
}

struct SlotState {
    grid: CaptureGrid,
    waiting: Option<TakenPicture>,
    /// Nothing more comes.
    ended: bool,
}

impl PictureSlot {
    pub(super) fn new(grid: CaptureGrid) -> Self {
        Self { state: Mutex::new(SlotState { grid, waiting: None, ended: false }), changed: Condvar::new() }
    }

    /// A picture at `at_ns`. One that is still waiting is replaced: its time is over.
    pub(super) fn offer(&self, at_ns: u64, picture: impl FnOnce() -> gst::Buffer) {
        let mut state = self.state();
        if !state.ended && state.grid.takes(at_ns) {
            state.waiting = Some(TakenPicture { buffer: picture(), at_ns });
            self.changed.notify_all();
        }
    }

    /// Nothing more comes; what waits is still taken.
    pub(super) fn end(&self) {
        self.state().ended = true;
        self.changed.notify_all();
    }

    /// Nothing more is taken.
    pub(super) fn abandon(&self) {
        let mut state = self.state();
        (state.ended, state.waiting) = (true, None);
        self.changed.notify_all();
    }

    /// Waits for the next picture; `None` at the end.
    pub(super) fn next(&self) -> Option<TakenPicture> {
        let state = self.state();
        let waited = self.changed.wait_while(state, |state| state.waiting.is_none() && !state.ended);
        waited.unwrap_or_else(PoisonError::into_inner).waiting.take()
    }

    fn state(&self) -> MutexGuard<'_, SlotState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
