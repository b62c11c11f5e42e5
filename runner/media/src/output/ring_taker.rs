//! A stream as an output of the fan-out: puts units into the stream's ring, which never waits. How the stream ends is said
//! by its task, long after its frames have ended.

use std::sync::Arc;

use super::ring::UnitRing;
use super::taker::{OutputTaker, TakerEnd, TakerError};
use crate::encoded::EncodedUnit;

/// Fills the ring of one stream. However it goes, its stream ends.
pub struct RingTaker {
    ring: Arc<UnitRing>,
}

impl RingTaker {
    /// Into this ring.
    pub fn new(ring: Arc<UnitRing>) -> Self {
        Self { ring }
    }
}

impl OutputTaker for RingTaker {
    fn take(&mut self, unit: &EncodedUnit) -> Result<(), TakerError> {
        self.ring.put(unit.clone());
        Ok(())
    }

    fn end(&mut self, _end_ns: u64) -> Result<TakerEnd, TakerError> {
        self.ring.end();
        Ok(TakerEnd::Later)
    }
}

impl Drop for RingTaker {
    fn drop(&mut self) {
        self.ring.end();
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::ring::RingBounds;
    use super::*;
    use crate::encoded::{MediaKind, StreamNumber};

    fn unit(at_ns: u64) -> EncodedUnit {
        let data = Bytes::from_static(&[1, 2, 3]);
        EncodedUnit {
            stream: StreamNumber(0),
            kind: MediaKind::Audio,
            key: true,
            at_ns,
            offset_ns: 0,
            duration_ns: 0,
            data,
        }
    }

    #[test]
    fn what_it_takes_waits_for_the_stream_which_ends_later() {
        let ring = Arc::new(UnitRing::new(RingBounds::Sound));
        let mut taker = RingTaker::new(ring.clone());
        taker.take(&unit(1)).unwrap();
        assert_eq!((ring.stats().units, ring.ended_for()), (1, None));
        assert_eq!(taker.end(2).unwrap(), TakerEnd::Later);
        assert!(ring.ended_for().is_some() && ring.stats().units == 1);
    }

    #[test]
    fn a_stream_that_is_dropped_ends() {
        let ring = Arc::new(UnitRing::new(RingBounds::Sound));
        drop(RingTaker::new(ring.clone()));
        assert!(ring.ended_for().is_some());
    }
}
