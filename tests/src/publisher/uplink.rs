//! A queue in front of a narrow link: the delay of everything that is sent grows and falls as that of a full buffer does.
//! Pure.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// By how much the delay changes in a second: what is sent meanwhile arrives at two thirds of its pace while the queue
/// grows, at twice its pace while it drains.
const SLOPE: f64 = 0.5;

/// Packets that wait, in order.
#[derive(Debug)]
pub struct UplinkQueue<P> {
    delay: f64,
    goal: f64,
    moved: Option<Instant>,
    waiting: VecDeque<(Instant, P)>,
}

impl<P> Default for UplinkQueue<P> {
    fn default() -> Self {
        Self { delay: 0.0, goal: 0.0, moved: None, waiting: VecDeque::new() }
    }
}

impl<P> UplinkQueue<P> {
    /// From now on the delay moves towards this one.
    pub fn head_for(&mut self, delay: Duration, now: Instant) {
        self.advance(now);
        self.goal = delay.as_secs_f64();
    }

    /// Nothing waits and nothing has to.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.delay == 0.0 && self.goal == 0.0
    }

    /// A packet behind all others.
    pub fn push(&mut self, packet: P, now: Instant) {
        self.advance(now);
        let due = now + Duration::from_secs_f64(self.delay);
        let due = self.waiting.back().map_or(due, |(last, _)| due.max(*last));
        self.waiting.push_back((due, packet));
    }

    /// When the next packet leaves.
    pub fn next(&self) -> Option<Instant> {
        self.waiting.front().map(|(due, _)| *due)
    }

    /// A packet that leaves now.
    pub fn pop(&mut self, now: Instant) -> Option<P> {
        self.next().filter(|due| *due <= now)?;
        self.waiting.pop_front().map(|(_, packet)| packet)
    }

    fn advance(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.moved.unwrap_or(now)).as_secs_f64();
        self.moved = Some(now);
        let most = elapsed * SLOPE;
        self.delay += (self.goal - self.delay).clamp(-most, most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_grows_and_falls_and_the_order_stays() {
        let begun = Instant::now();
        let at = |ms: u64| begun + Duration::from_millis(ms);
        let mut queue = UplinkQueue::default();
        assert!(queue.is_idle());
        queue.head_for(Duration::from_secs(1), at(0));
        queue.push(1, at(1000));
        queue.push(2, at(2000));
        assert_eq!(queue.next(), Some(at(1500)));
        queue.head_for(Duration::ZERO, at(3000));
        queue.push(3, at(3100));
        assert_eq!((queue.pop(at(1499)), queue.pop(at(1500)), queue.pop(at(2999))), (None, Some(1), None));
        assert_eq!((queue.pop(at(3000)), queue.next()), (Some(2), Some(at(4050))));
        assert!(!queue.is_idle());
        queue.push(4, at(6000));
        assert_eq!((queue.pop(at(4050)), queue.pop(at(6000))), (Some(3), Some(4)));
        assert!(queue.is_idle());
    }
}
