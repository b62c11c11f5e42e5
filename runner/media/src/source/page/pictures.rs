//! Pictures of the page on their way to the encoder. In, from the display's frames, in a thread that never waits. Out, to the
//! thread that feeds the encoder: each with the number of its output time, once everything that could belong there has come.
//!
//! Everything is 0.3 s behind the page: what was read late from the display still finds its place, and what Chromium paints
//! when its page has crashed is not shown. A busy encoder lets pictures wait, at most 2 s of them; what finds no room takes
//! the place of the newest.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::slots::{OutputSlots, slot_ns, slots_before};
use super::units::{PageFrame, monotonic};

/// From the time of an output to the moment at which it is made. Sound is 0.5 s behind.
pub const PICTURE_DELAY: Duration = Duration::from_millis(300);
/// Pictures that wait at most: seconds of them, and bytes.
const MAX_WAIT_S: u32 = 2;
const MAX_WAIT_BYTES: usize = 96 << 20;
const MIN_WAITING: usize = 12;

/// One picture at its place.
#[derive(Clone, Debug)]
pub struct QueuedPicture {
    /// Number of its output time.
    pub slot: u64,
    /// When it was painted, CLOCK_MONOTONIC.
    pub at: Duration,
    /// As in [`PageFrame`]. No buffer of GStreamer, which may not be ready when the first one comes.
    pub picture: Vec<u8>,
}

/// What the encoder's thread does next.
#[derive(Debug)]
pub enum PictureTurn {
    /// A new picture.
    Picture(QueuedPicture),
    /// Nothing has changed up to the output that was asked about.
    Still,
    /// The recording ends before this output.
    Over(u64),
    /// It is given up.
    Closed,
}

/// The queue; shared by the thread that fills it, the page's own and the encoder's.
#[derive(Debug)]
pub struct PictureQueue {
    framerate: u32,
    max_waiting: usize,
    state: Mutex<PictureState>,
    news: Condvar,
}

#[derive(Debug)]
struct PictureState {
    slots: OutputSlots,
    /// CLOCK_MONOTONIC of output 0.
    began: Option<Duration>,
    waiting: VecDeque<QueuedPicture>,
    /// What the page shows, where it is not shown in the recording: before the beginning and while it is held.
    unseen: Option<Vec<u8>>,
    held_from: Option<Duration>,
    /// The first output that is not made.
    end: Option<u64>,
    closed: bool,
    no_room: u64,
}

impl PictureQueue {
    /// Of pictures of so many bytes; `framerate`: outputs a second.
    pub fn new(framerate: u32, picture_bytes: usize) -> Self {
        let framerate = framerate.max(1);
        let by_time = usize::try_from(framerate.saturating_mul(MAX_WAIT_S)).unwrap_or(usize::MAX);
        let max_waiting = by_time.min(MAX_WAIT_BYTES / picture_bytes.max(1)).max(MIN_WAITING);
        let state = PictureState {
            slots: OutputSlots::new(framerate),
            began: None,
            waiting: VecDeque::new(),
            unseen: None,
            held_from: None,
            end: None,
            closed: false,
            no_room: 0,
        };
        Self { framerate, max_waiting, state: Mutex::new(state), news: Condvar::new() }
    }

    /// Every change under the lock is one step, so what a panicked thread held is whole.
    fn lock(&self) -> MutexGuard<'_, PictureState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A picture of the display, later than the one before it. Never waits.
    pub fn put(&self, frame: PageFrame) {
        let mut state = self.lock();
        let Some(began) = state.began else {
            state.unseen = Some(frame.data);
            return;
        };
        if state.held_from.is_some_and(|from| frame.at >= from) {
            state.unseen = Some(frame.data);
            return;
        }
        self.place(&mut state, began, frame.at, frame.data);
        drop(state);
        self.news.notify_all();
    }

    fn place(&self, state: &mut PictureState, began: Duration, at: Duration, picture: Vec<u8>) {
        if state.closed {
            return;
        }
        let since = u64::try_from(at.saturating_sub(began).as_nanos()).unwrap_or(u64::MAX);
        let slot = state.slots.place(since);
        if state.end.is_some_and(|end| slot >= end) {
            return;
        }
        let queued = QueuedPicture { slot, at, picture };
        let is_full = state.waiting.len() >= self.max_waiting;
        match state.waiting.back_mut() {
            Some(newest) if newest.slot >= slot => *newest = QueuedPicture { slot: newest.slot, ..queued },
            Some(newest) if is_full => {
                *newest = queued;
                state.no_room += 1;
            }
            _ => state.waiting.push_back(queued),
        }
    }

    /// The recording begins at this moment, with what the page shows then; the first call counts. `blank`: a picture, should
    /// the display have given none yet.
    pub fn begin(&self, at: Duration, blank: impl FnOnce() -> Vec<u8>) {
        let mut state = self.lock();
        if state.began.is_some() {
            return;
        }
        state.began = Some(at);
        let picture = state.unseen.take().unwrap_or_else(blank);
        state.waiting.push_back(QueuedPicture { slot: 0, at, picture });
        drop(state);
        self.news.notify_all();
    }

    /// What is painted from this moment on is not shown, until [`PictureQueue::release`].
    pub fn hold(&self, from: Duration) {
        let mut state = self.lock();
        state.held_from = Some(from);
        state.waiting.retain(|queued| queued.at < from || queued.slot == 0);
    }

    /// The page is shown again from this moment on.
    pub fn release(&self, at: Duration) {
        let mut state = self.lock();
        state.held_from = None;
        if let (Some(began), Some(picture)) = (state.began, state.unseen.take()) {
            self.place(&mut state, began, at, picture);
        }
        drop(state);
        self.news.notify_all();
    }

    /// The recording ends at this moment; the first call counts. Before the beginning it changes nothing.
    pub fn end_at(&self, at: Duration) {
        let mut state = self.lock();
        let Some(began) = state.began else { return };
        let length = u64::try_from(at.saturating_sub(began).as_nanos()).unwrap_or(u64::MAX);
        let end = *state.end.get_or_insert_with(|| slots_before(length, self.framerate));
        state.waiting.retain(|queued| queued.slot < end);
        drop(state);
        self.news.notify_all();
    }

    /// Nothing more is made.
    pub fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.waiting.clear();
        drop(state);
        self.news.notify_all();
    }

    /// Pictures that found no room and took the place of another one.
    pub fn no_room(&self) -> u64 {
        self.lock().no_room
    }

    /// How late output `slot` is if it is made now.
    pub fn lag(&self, slot: u64) -> Duration {
        let began = self.lock().began.unwrap_or_default();
        monotonic().saturating_sub(self.due(began, slot))
    }

    fn due(&self, began: Duration, slot: u64) -> Duration {
        began + Duration::from_nanos(slot_ns(slot, self.framerate)) + PICTURE_DELAY
    }

    /// Waits for a new picture, at most until output `still_to` is to be made.
    pub fn next(&self, still_to: u64) -> PictureTurn {
        let mut state = self.lock();
        loop {
            if state.closed {
                return PictureTurn::Closed;
            }
            let began = state.began;
            let Some(began) = began else {
                state = self.news.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let now = monotonic();
            let is_due = |slot| now >= self.due(began, slot);
            let front = state.waiting.front().map(|queued| queued.slot);
            if front.is_some_and(is_due)
                && let Some(queued) = state.waiting.pop_front()
            {
                return PictureTurn::Picture(queued);
            }
            let end = state.end;
            if let Some(end) = end.filter(|end| front.is_none() && is_due(*end)) {
                return PictureTurn::Over(end);
            }
            if is_due(still_to) {
                return PictureTurn::Still;
            }
            let soonest = [front, end, Some(still_to)].into_iter().flatten().min().unwrap_or(still_to);
            let wait = self.due(began, soonest).saturating_sub(now);
            state = self.news.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

#[cfg(test)]
#[path = "pictures_tests.rs"]
mod tests;
