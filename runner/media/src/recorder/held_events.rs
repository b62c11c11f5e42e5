//! What came while there were no files to take it, bounded. In and out: timeline events, in order. Pure.

use crate::track::TimelineEvent;

/// Bytes of frames: 3 Mbit/s for three minutes.
const MAX_BYTES: usize = 64 << 20;

/// Waits for the next files.
#[derive(Debug, Default)]
pub struct HeldEvents {
    events: Vec<TimelineEvent>,
    bytes: usize,
}

impl HeldEvents {
    /// Keeps one more. True: there was no room, and all frames before it are dropped; what is recorded then begins with a later
    /// key frame.
    pub fn push(&mut self, event: TimelineEvent) -> bool {
        let mut is_full = false;
        if let TimelineEvent::Frame(frame) = &event {
            is_full = self.bytes + frame.data.len() > MAX_BYTES;
            if is_full {
                self.events.retain(|event| !matches!(event, TimelineEvent::Frame(_)));
                self.bytes = 0;
            }
            self.bytes += frame.data.len();
        }
        self.events.push(event);
        is_full
    }

    /// All of it, in order.
    pub fn take(&mut self) -> Vec<TimelineEvent> {
        self.bytes = 0;
        std::mem::take(&mut self.events)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::track::{Frame, TrackId};
    use crate::units::MediaTime;

    #[test]
    fn what_is_held_is_bounded() {
        let mut held = HeldEvents::default();
        let at = |n| MediaTime::from_ns(n);
        let megabyte = Bytes::from(vec![7; 1 << 20]);
        for n in 0..100 {
            let frame =
                Frame { track: TrackId(1), at: at(n), offset_ns: 0, key: n == 0, size: None, data: megabyte.clone() };
            assert_eq!(held.push(TimelineEvent::Frame(frame)), n == 64, "{n}");
            assert!(!held.push(TimelineEvent::Watermark { at: at(n) }));
        }
        let events = held.take();
        assert_eq!(events.len(), 100 + 36);
        assert!(held.take().is_empty());
    }
}
