//! A ring between two threads: an encoder's thread puts frames in and never waits, the stream's task takes them.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::ring::{RingStats, StreamUnit, UnitRing};

/// Frames on their way to one stream.
#[derive(Debug)]
pub struct StreamQueue {
    state: Mutex<QueueContent>,
    changed: Notify,
}

#[derive(Debug)]
struct QueueContent {
    ring: UnitRing,
    ended_at: Option<Instant>,
}

impl StreamQueue {
    /// An empty queue; `has_video`: whether pictures will come.
    pub fn new(has_video: bool) -> Self {
        let content = QueueContent { ring: UnitRing::new(has_video), ended_at: None };
        Self { state: Mutex::new(content), changed: Notify::new() }
    }

    /// Takes a frame; what is above 5 s or 8 MB is dropped, up to a key frame. True: pictures are dropped until a key frame
    /// comes, so one is wanted; said again for every picture until then. After the end nothing is taken or wanted.
    pub fn put(&self, unit: StreamUnit) -> bool {
        let mut content = self.content();
        if content.ended_at.is_some() {
            return false;
        }
        let wanted = content.ring.put(unit);
        drop(content);
        self.changed.notify_one();
        wanted
    }

    /// Nothing comes any more. What lies here has [`super::DRAIN_TIMEOUT`] to get out.
    pub fn end(&self) {
        self.content().ended_at.get_or_insert_with(Instant::now);
        self.changed.notify_one();
    }

    /// What lies here and was dropped.
    pub fn stats(&self) -> RingStats {
        self.content().ring.stats()
    }

    /// A new connection begins, see [`UnitRing::begin`].
    pub(super) fn begin(&self) -> bool {
        self.content().ring.begin()
    }

    /// Since when it has ended.
    pub(super) fn ended_for(&self) -> Option<Duration> {
        self.content().ended_at.map(|at| at.elapsed())
    }

    /// The oldest frame, or `None` after the last one. For one task; dropping the future loses nothing.
    pub(super) async fn next(&self) -> Option<StreamUnit> {
        loop {
            let changed = self.changed.notified();
            {
                let mut content = self.content();
                if let Some(unit) = content.ring.pop() {
                    return Some(unit);
                }
                if content.ended_at.is_some() {
                    return None;
                }
            }
            changed.await;
        }
    }

    /// Waits for the end, not for the last frame. Instead of [`StreamQueue::next`], not beside it.
    pub(super) async fn ended(&self) {
        while self.content().ended_at.is_none() {
            self.changed.notified().await;
        }
    }

    fn content(&self) -> MutexGuard<'_, QueueContent> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
