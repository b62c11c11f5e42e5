//! Encoded frames and events of one track, waiting for the watermark. The only place where lag is kept.
//!
//! In, from the recorder's thread, which never waits for the decoder: frames, events, the watermark. Out, to the
//! thread that decodes the track: everything before the watermark, in order.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex};

use bytes::Bytes;

use super::backlog::{Backlog, BacklogEntry, Retention};
use super::lock::{lock, wait};
use crate::track::Codec;
use crate::units::MediaTime;

/// What happens to a track between its frames.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrackEvent {
    /// The track begins, or goes on after a reconnect, perhaps in another codec.
    Begins(Codec),
    /// Packets that never came.
    Lost,
    Muted,
    Left,
}

/// What a track's thread is told, in order of time.
#[derive(Debug, PartialEq, Eq)]
pub enum InboxItem {
    Frame {
        at: MediaTime,
        key: bool,
        data: Bytes,
    },
    TrackEvent(MediaTime, TrackEvent),
    /// Nothing earlier than this will come any more.
    Watermark(MediaTime),
    Closed,
}

/// Filled by the recorder, which must not wait; emptied by the track's decoder thread.
pub struct Inbox {
    state: Mutex<InboxState>,
    news: Condvar,
    backlog: Arc<Backlog>,
    video: bool,
}

struct InboxState {
    waiting: VecDeque<(MediaTime, QueuedItem)>,
    watermark: MediaTime,
    closed: bool,
    /// Frames are given up until the next key frame that finds room.
    giving_up: bool,
    /// Frames before it were given up by [`Inbox::jump_to_key`]: nothing is worth anything before the next key frame.
    needs_key: bool,
}

enum QueuedItem {
    Frame { key: bool, data: BacklogEntry },
    TrackEvent(TrackEvent),
}

impl Inbox {
    /// Empty, with the watermark at zero.
    pub fn new(codec: Codec, backlog: Arc<Backlog>) -> Self {
        let state = InboxState {
            waiting: VecDeque::new(),
            watermark: MediaTime::ZERO,
            closed: false,
            giving_up: false,
            needs_key: false,
        };
        Self { state: Mutex::new(state), news: Condvar::new(), backlog, video: codec.is_video() }
    }

    /// Never blocks for long: at worst one write into the page cache. Sound is never given up. False: this and the rest
    /// of its group have no place.
    pub fn put_frame(&self, at: MediaTime, key: bool, data: Bytes) -> bool {
        let mut state = lock(&self.state);
        if state.closed || (state.needs_key && !key) {
            return true;
        }
        state.needs_key = false;
        if state.giving_up {
            if !(key && self.backlog.has_room()) {
                self.backlog.count_refused();
                return false;
            }
            state.giving_up = false;
        }
        let worth = if self.video { Retention::IfRoom } else { Retention::Keep };
        match self.backlog.keep(data, worth) {
            Some(data) => {
                state.waiting.push_back((at, QueuedItem::Frame { key, data }));
                true
            }
            None => {
                // A group of pictures with a hole is worth little: the rest of it goes too, and the hole is marked.
                state.giving_up = true;
                state.waiting.push_back((at, QueuedItem::TrackEvent(TrackEvent::Lost)));
                false
            }
        }
    }

    /// Events are never given up.
    pub fn put_event(&self, at: MediaTime, event: TrackEvent) {
        lock(&self.state).waiting.push_back((at, QueuedItem::TrackEvent(event)));
    }

    /// Everything before `to` has been put.
    pub fn complete_to(&self, to: MediaTime) {
        let mut state = lock(&self.state);
        if to > state.watermark {
            state.watermark = to;
            self.news.notify_one();
        }
    }

    /// Gives up the pictures that wait before the newest key frame, and answers when that is. `None`: there is none since
    /// `recent`. Then all of them are given up, the hole is marked, and pictures are taken from the next key frame on.
    /// Events stay.
    pub fn jump_to_key(&self, recent: MediaTime) -> Option<MediaTime> {
        let mut state = lock(&self.state);
        let is_key = |queued: &QueuedItem| matches!(queued, QueuedItem::Frame { key: true, .. });
        let newest = state.waiting.iter().rposition(|(at, queued)| *at >= recent && is_key(queued));
        let key_at = newest.and_then(|index| state.waiting.get(index)).map(|(at, _)| *at);
        let mut gave_up = false;
        for (index, (at, queued)) in std::mem::take(&mut state.waiting).into_iter().enumerate() {
            match queued {
                QueuedItem::Frame { data, .. } if newest.is_none_or(|newest| index < newest) => {
                    self.backlog.forget(data);
                    gave_up = true;
                }
                queued => state.waiting.push_back((at, queued)),
            }
        }
        // Without a picture that waited the decoder goes on where it stands.
        if gave_up && newest.is_none() {
            state.needs_key = true;
            state.waiting.push_front((recent, QueuedItem::TrackEvent(TrackEvent::Lost)));
        }
        self.news.notify_one();
        key_at
    }

    /// Nothing more comes; what waits is still handed out.
    pub fn close(&self) {
        lock(&self.state).closed = true;
        self.news.notify_one();
    }

    /// Forgets what waits, for a compositor that is given up.
    pub fn abandon(&self) {
        let mut state = lock(&self.state);
        state.closed = true;
        for (_, waiting) in state.waiting.drain(..) {
            if let QueuedItem::Frame { data, .. } = waiting {
                self.backlog.forget(data);
            }
        }
        self.news.notify_one();
    }

    /// Waits for the next thing to do. `announced`: the last `Watermark` this thread has passed on.
    pub fn next(&self, announced: MediaTime) -> InboxItem {
        let mut state = lock(&self.state);
        loop {
            let due = state.waiting.front().is_some_and(|(at, _)| *at < state.watermark || state.closed);
            if due && let Some((at, waiting)) = state.waiting.pop_front() {
                drop(state);
                return match waiting {
                    QueuedItem::TrackEvent(event) => InboxItem::TrackEvent(at, event),
                    QueuedItem::Frame { key, data } => match self.backlog.give_back(data) {
                        Some(data) => InboxItem::Frame { at, key, data },
                        None => InboxItem::TrackEvent(at, TrackEvent::Lost),
                    },
                };
            }
            if state.watermark > announced {
                return InboxItem::Watermark(state.watermark);
            }
            if state.closed {
                return InboxItem::Closed;
            }
            state = wait(&self.news, state);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn inbox(bound: u64) -> Inbox {
        Inbox::new(Codec::Vp8, Arc::new(Backlog::new(bound, None)))
    }

    fn at(ms: u64) -> MediaTime {
        MediaTime::from_ns(ms * MS)
    }

    fn data(len: usize) -> Bytes {
        Bytes::from(vec![7; len])
    }

    #[test]
    fn a_frame_waits_for_the_watermark_and_the_watermark_is_said_after_it() {
        let inbox = inbox(1000);
        inbox.put_frame(at(10), true, data(1));
        inbox.put_frame(at(20), false, data(1));
        inbox.complete_to(at(20));
        assert_eq!(inbox.next(at(0)), InboxItem::Frame { at: at(10), key: true, data: data(1) });
        assert_eq!(inbox.next(at(0)), InboxItem::Watermark(at(20)));
        inbox.close();
        assert_eq!(inbox.next(at(20)), InboxItem::Frame { at: at(20), key: false, data: data(1) });
        assert_eq!(inbox.next(at(20)), InboxItem::Closed);
    }

    #[test]
    fn a_jump_goes_to_the_newest_key_frame_and_keeps_events() {
        let inbox = inbox(1000);
        inbox.put_frame(at(0), true, data(1));
        inbox.put_event(at(5), TrackEvent::Muted);
        for ms in [10, 20, 30, 40] {
            inbox.put_frame(at(ms), ms % 20 == 10, data(1));
        }
        inbox.complete_to(at(50));
        assert_eq!(inbox.jump_to_key(at(30)), Some(at(30)));
        assert_eq!(inbox.next(at(0)), InboxItem::TrackEvent(at(5), TrackEvent::Muted));
        assert_eq!(inbox.next(at(0)), InboxItem::Frame { at: at(30), key: true, data: data(1) });
        assert_eq!(inbox.next(at(0)), InboxItem::Frame { at: at(40), key: false, data: data(1) });
        assert_eq!(inbox.backlog.stats().memory, 0);
        // Nothing waits: the decoder has all that came, and goes on.
        assert_eq!(inbox.jump_to_key(at(50)), None);
        inbox.put_frame(at(50), false, data(1));
        inbox.complete_to(at(60));
        assert!(matches!(inbox.next(at(50)), InboxItem::Frame { key: false, .. }));
    }

    #[test]
    fn without_a_recent_key_frame_a_jump_waits_for_the_next() {
        let inbox = inbox(1000);
        for ms in [0, 10, 20] {
            inbox.put_frame(at(ms), ms == 10, data(1));
        }
        inbox.complete_to(at(30));
        assert_eq!(inbox.jump_to_key(at(15)), None);
        assert!(inbox.put_frame(at(30), false, data(1)), "nobody is told that there was no room");
        inbox.put_frame(at(40), true, data(2));
        inbox.put_frame(at(50), false, data(3));
        inbox.close();
        assert_eq!(inbox.next(at(30)), InboxItem::TrackEvent(at(15), TrackEvent::Lost));
        assert_eq!(inbox.next(at(30)), InboxItem::Frame { at: at(40), key: true, data: data(2) });
        assert_eq!(inbox.next(at(30)), InboxItem::Frame { at: at(50), key: false, data: data(3) });
        assert_eq!(inbox.next(at(30)), InboxItem::Closed);
    }

    #[test]
    fn without_room_the_rest_of_the_group_goes_and_the_hole_is_marked() {
        let inbox = inbox(100);
        assert!(inbox.put_frame(at(0), true, data(100)));
        assert!(!inbox.put_frame(at(10), false, data(1)), "no room");
        assert!(!inbox.put_frame(at(20), false, data(1)));
        inbox.complete_to(at(15));
        assert!(matches!(inbox.next(at(15)), InboxItem::Frame { key: true, .. }));
        inbox.put_frame(at(30), false, data(1)); // room, but its reference is gone
        inbox.put_frame(at(40), true, data(2));
        inbox.close();
        assert_eq!(inbox.next(at(15)), InboxItem::TrackEvent(at(10), TrackEvent::Lost));
        assert_eq!(inbox.next(at(15)), InboxItem::Frame { at: at(40), key: true, data: data(2) });
        assert_eq!(inbox.backlog.stats().refused_frames, 3);
    }
}
