//! Whole frames of one stream that wait: for their place in time, or for a better layer. Bounded, because what a stream sends
//! is not: who holds them lets go of them when they are too many. Pure.

use std::collections::VecDeque;

use bytes::Bytes;

use super::event::SourceTime;
use crate::units::RtpTime;

/// Waiting frames of one stream, each with what it takes beside its bytes: two seconds of 50 Mbit/s.
const MAX_BYTES: usize = 16 << 20;

/// A frame that may be recorded, not yet placed in time.
pub(super) struct WholeFrame {
    pub(super) rtp: RtpTime,
    /// Arrival of its earliest packet.
    pub(super) at: SourceTime,
    /// Nothing is complete beyond this moment before the frame has its place: its arrival, or that of the first frame of a lower
    /// layer that it stands for.
    pub(super) awaited_since: SourceTime,
    pub(super) key: bool,
    pub(super) size: Option<(u32, u32)>,
    pub(super) data: Bytes,
}

impl WholeFrame {
    fn bytes(&self) -> usize {
        size_of::<Self>() + self.data.len()
    }
}

/// Frames in the order in which they came.
#[derive(Default)]
pub(super) struct FrameHold {
    frames: VecDeque<WholeFrame>,
    bytes: usize,
}

impl FrameHold {
    pub(super) fn push(&mut self, frame: WholeFrame) {
        self.bytes += frame.bytes();
        self.frames.push_back(frame);
    }

    pub(super) fn pop(&mut self) -> Option<WholeFrame> {
        let frame = self.frames.pop_front()?;
        self.bytes -= frame.bytes();
        Some(frame)
    }

    pub(super) fn first(&self) -> Option<&WholeFrame> {
        self.frames.front()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// No more may wait.
    pub(super) fn is_full(&self) -> bool {
        self.bytes > MAX_BYTES
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// What waits takes so much memory.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_counted_until_it_goes() {
        let frame = |bytes: usize| WholeFrame {
            rtp: RtpTime::new(0),
            at: SourceTime::ZERO,
            awaited_since: SourceTime::ZERO,
            key: true,
            size: None,
            data: vec![0; bytes].into(),
        };
        let mut hold = FrameHold::default();
        hold.push(frame(MAX_BYTES / 2));
        assert!(!hold.is_full());
        hold.push(frame(MAX_BYTES / 2));
        assert!(hold.is_full() && hold.bytes() > MAX_BYTES);
        assert_eq!(hold.pop().map(|frame| frame.data.len()), Some(MAX_BYTES / 2));
        assert!(!hold.is_full() && hold.first().is_some());
        hold.clear();
        assert!(hold.is_empty() && hold.bytes() == 0 && hold.pop().is_none());
        // Frames of a byte take more than a byte.
        (0..MAX_BYTES / size_of::<WholeFrame>()).for_each(|_| hold.push(frame(1)));
        assert!(hold.is_full());
    }
}
