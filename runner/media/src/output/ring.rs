//! A bounded queue between two threads: an encoder's thread puts frames in and never waits, the task of a stream takes
//! them. What does not fit is dropped, see `buffer`.

mod buffer;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use self::buffer::UnitBuffer;
pub use self::buffer::{RingBounds, RingStats};
use crate::encoded::EncodedUnit;

/// Frames on their way to one stream.
#[derive(Debug)]
pub struct UnitRing {
    state: Mutex<RingState>,
    changed: Notify,
}

#[derive(Debug)]
struct RingState {
    buffer: UnitBuffer,
    /// A frame came, whether it was taken or not.
    has_begun: bool,
    ended_at: Option<Instant>,
}

impl UnitRing {
    /// Empty.
    pub fn new(bounds: RingBounds) -> Self {
        let state = RingState { buffer: UnitBuffer::new(bounds), has_begun: false, ended_at: None };
        Self { state: Mutex::new(state), changed: Notify::new() }
    }

    /// Takes a frame; what is above the bounds is dropped. After the end nothing is taken.
    pub fn put(&self, unit: EncodedUnit) {
        let mut state = self.state();
        if state.ended_at.is_some() {
            return;
        }
        state.has_begun = true;
        state.buffer.put(unit);
        drop(state);
        self.changed.notify_one();
    }

    /// Nothing comes any more. What lies here may still be taken; for how long is the stream's decision, see
    /// [`UnitRing::ended_for`].
    pub fn end(&self) {
        let mut state = self.state();
        state.ended_at.get_or_insert_with(Instant::now);
        state.buffer.finish();
        drop(state);
        self.changed.notify_one();
    }

    /// The stream is over: nothing is taken, and nothing stays in memory.
    pub fn close(&self) {
        let mut state = self.state();
        state.ended_at.get_or_insert_with(Instant::now);
        state.buffer.clear();
        drop(state);
        self.changed.notify_one();
    }

    /// What lies here and was dropped.
    pub fn stats(&self) -> RingStats {
        self.state().buffer.stats()
    }

    /// Pictures come, and a connection begins at a key frame.
    pub fn has_pictures(&self) -> bool {
        self.state().buffer.has_video()
    }

    /// A new connection begins: what is before its first picture is dropped. True: no key frame is recent enough, one is
    /// wanted.
    pub fn begin(&self) -> bool {
        self.state().buffer.begin()
    }

    /// How long ago it ended.
    pub fn ended_for(&self) -> Option<Duration> {
        self.state().ended_at.map(|at| at.elapsed())
    }

    /// The oldest frame that may be sent, or `None` after the last one. For one task; dropping the future loses nothing.
    pub async fn next(&self) -> Option<EncodedUnit> {
        loop {
            {
                let mut state = self.state();
                if let Some(unit) = state.buffer.pop() {
                    return Some(unit);
                }
                if state.ended_at.is_some() {
                    return None;
                }
            }
            // A change since then has left its permit.
            self.changed.notified().await;
        }
    }

    /// Waits for the first frame; false when the end came instead. Not beside the other two that wait.
    pub async fn begun(&self) -> bool {
        loop {
            {
                let state = self.state();
                if state.has_begun || state.ended_at.is_some() {
                    return state.has_begun;
                }
            }
            self.changed.notified().await;
        }
    }

    /// Waits for the end, not for the last frame. Instead of [`UnitRing::next`], not beside it.
    pub async fn ended(&self) {
        while self.ended_for().is_none() {
            self.changed.notified().await;
        }
    }

    fn state(&self) -> MutexGuard<'_, RingState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use tokio::time::{sleep, timeout};

    use super::*;
    use crate::encoded::{MediaKind, StreamNumber};

    fn sound(at_ms: u64) -> EncodedUnit {
        let data = Bytes::from(vec![0; 400]);
        EncodedUnit {
            stream: StreamNumber(0),
            kind: MediaKind::Audio,
            key: true,
            at_ns: at_ms * 1_000_000,
            offset_ns: 0,
            duration_ns: 0,
            data,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_taker_gets_what_lies_here_and_then_the_end() {
        let ring = Arc::new(UnitRing::new(RingBounds::Sound));
        let taken = tokio::spawn({
            let ring = ring.clone();
            async move {
                let mut at_ms = vec![];
                while let Some(unit) = ring.next().await {
                    at_ms.push(unit.at_ns / 1_000_000);
                }
                at_ms
            }
        });
        for at_ms in [1, 2] {
            ring.put(sound(at_ms));
            sleep(Duration::from_millis(10)).await;
        }
        ring.put(sound(3));
        ring.end();
        ring.put(sound(4));
        assert_eq!(taken.await.unwrap(), [1, 2, 3]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_is_seen_before_the_last_frame_is_taken() {
        let ring = UnitRing::new(RingBounds::Sound);
        ring.put(sound(1));
        assert!(timeout(Duration::from_secs(1), ring.ended()).await.is_err());
        ring.end();
        ring.ended().await;
        sleep(Duration::from_secs(2)).await;
        assert_eq!((ring.ended_for(), ring.stats().units), (Some(Duration::from_secs(2)), 1));
        ring.close();
        assert_eq!((ring.next().await.is_none(), ring.stats().bytes), (true, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_frame_is_waited_for() {
        let ring = Arc::new(UnitRing::new(RingBounds::Pictures));
        let put = tokio::spawn({
            let ring = ring.clone();
            async move {
                sleep(Duration::from_secs(1)).await;
                // No key frame: it is not taken, and it is the beginning.
                ring.put(EncodedUnit { kind: MediaKind::Video, key: false, ..sound(1) });
            }
        });
        assert!(ring.begun().await);
        put.await.unwrap();
        assert_eq!(ring.stats().units, 0);
        let never = UnitRing::new(RingBounds::Pictures);
        never.end();
        assert!(!never.begun().await);
    }

    #[test]
    fn nothing_makes_an_encoder_wait() {
        let ring = UnitRing::new(RingBounds::Sound);
        let (mut slowest, mut total) = (Duration::ZERO, Duration::ZERO);
        for n in 0..2000 {
            let unit = sound(n * 20);
            let began = std::time::Instant::now();
            ring.put(unit);
            slowest = slowest.max(began.elapsed());
            total += began.elapsed();
        }
        assert!(total < Duration::from_secs(1), "{total:?} in all, {slowest:?} at most, and nothing was taken");
    }
}
