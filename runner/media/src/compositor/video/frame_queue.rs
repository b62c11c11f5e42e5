//! Decoded pictures of one track, at most three, between its decoder's thread and the picture mixer. Blocks the decoder
//! when it is full, and the mixer until the track is known up to the time it asks for.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex};

use crate::compositor::decode::VideoFrame;
use crate::compositor::sync::decoded_queue::{DecodedQueue, QueueProgress};
use crate::compositor::sync::lock::{lock, wait};
use crate::units::MediaTime;

/// More would only be raw memory: 1.4 MB each at 720p.
const AHEAD: usize = 3;

/// What the picture mixer takes of a track, in order of time.
#[derive(Debug)]
pub enum QueuedFrame {
    Frame(VideoFrame),
    /// The tile goes until the next picture.
    Muted(MediaTime),
    Left(MediaTime),
}

impl QueuedFrame {
    fn at(&self) -> MediaTime {
        match self {
            Self::Frame(picture) => picture.at,
            Self::Muted(at) | Self::Left(at) => *at,
        }
    }
}

/// Filled by the track's decoder thread, emptied by the picture mixer.
#[derive(Default)]
pub struct FrameQueue {
    state: Mutex<FrameQueueState>,
    news: Condvar,
}

#[derive(Default)]
struct FrameQueueState {
    waiting: VecDeque<QueuedFrame>,
    progress: QueueProgress,
}

impl FrameQueueState {
    /// A mute and the end cost nothing, so only pictures count.
    fn is_full(&self) -> bool {
        self.waiting.iter().filter(|queued| matches!(queued, QueuedFrame::Frame(_))).count() >= AHEAD
    }
}

impl FrameQueue {
    /// Blocks while enough pictures wait: the back-pressure of a busy mixer.
    pub fn put(&self, queued: QueuedFrame) {
        let mut state = lock(&self.state);
        while state.is_full() && !state.progress.abandoned {
            state = wait(&self.news, state);
        }
        if !state.progress.abandoned {
            state.waiting.push_back(queued);
            self.news.notify_all();
        }
    }

    /// Hands over everything up to and including `t`; returns when nothing as early can still come.
    ///
    /// The decoder is never held up by a mixer that waits here: whatever is ≤ `t` is taken at once, so the head is
    /// either later (and we return) or there is room.
    pub fn take_to(&self, t: MediaTime, mut each: impl FnMut(QueuedFrame)) {
        let mut state = lock(&self.state);
        loop {
            let mut taken = false;
            while state.waiting.front().is_some_and(|queued| queued.at() <= t)
                && let Some(queued) = state.waiting.pop_front()
            {
                each(queued);
                taken = true;
            }
            if taken {
                self.news.notify_all();
            }
            if !state.waiting.is_empty() || state.progress.complete > t || state.progress.closed {
                return;
            }
            state = wait(&self.news, state);
        }
    }

    /// The time of the first picture, if one comes before `horizon`. Takes nothing.
    pub fn first_before(&self, horizon: MediaTime) -> Option<MediaTime> {
        let mut state = lock(&self.state);
        loop {
            let first = state.waiting.iter().find_map(|queued| match queued {
                QueuedFrame::Frame(picture) => Some(picture.at),
                QueuedFrame::Muted(_) | QueuedFrame::Left(_) => None,
            });
            if first.is_some() || state.progress.complete >= horizon || state.progress.closed {
                return first.filter(|at| *at < horizon);
            }
            state = wait(&self.news, state);
        }
    }
}

impl DecodedQueue for FrameQueue {
    fn complete_to(&self, to: MediaTime) {
        lock(&self.state).progress.complete_to(to);
        self.news.notify_all();
    }

    fn close(&self) {
        lock(&self.state).progress.closed = true;
        self.news.notify_all();
    }

    fn abandon(&self) {
        let mut state = lock(&self.state);
        state.progress.abandon();
        state.waiting.clear();
        self.news.notify_all();
    }
}
