//! A path whose delay differs from packet to packet, so that packets overtake one another. Pure: who sends chooses the delay.

use std::collections::BTreeMap;
use std::time::Instant;

/// Packets on their way, in the order in which they arrive.
#[derive(Debug)]
pub struct JitterQueue<P> {
    /// By arrival; the number keeps those apart that arrive together.
    waiting: BTreeMap<(Instant, u64), P>,
    sent: u64,
}

impl<P> Default for JitterQueue<P> {
    fn default() -> Self {
        Self { waiting: BTreeMap::new(), sent: 0 }
    }
}

impl<P> JitterQueue<P> {
    /// A packet that arrives at `due`.
    pub fn push(&mut self, packet: P, due: Instant) {
        self.waiting.insert((due, self.sent), packet);
        self.sent += 1;
    }

    /// When the next packet arrives.
    pub fn next(&self) -> Option<Instant> {
        self.waiting.first_key_value().map(|((due, _), _)| *due)
    }

    /// A packet that arrives now.
    pub fn pop(&mut self, now: Instant) -> Option<P> {
        self.next().filter(|due| *due <= now)?;
        self.waiting.pop_first().map(|(_, packet)| packet)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_is_sent_later_may_arrive_earlier() {
        let begun = Instant::now();
        let at = |ms: u64| begun + Duration::from_millis(ms);
        let mut path = JitterQueue::default();
        assert_eq!((path.next(), path.pop(at(0))), (None, None));
        path.push(1, at(90));
        path.push(2, at(30));
        path.push(3, at(90));
        assert_eq!((path.next(), path.pop(at(29)), path.pop(at(30))), (Some(at(30)), None, Some(2)));
        assert_eq!((path.pop(at(100)), path.pop(at(100)), path.next()), (Some(1), Some(3), None));
    }
}
