//! How often the sockets are read, so that none overflows between two looks: nothing wakes the thread for a datagram.
//! Pure: what the sockets hold, what came and the time are passed in.

use std::time::{Duration, Instant};

/// Waking costs more than a packet does. When a packet came the kernel knows, and requests for a lost one are 105 ms apart
/// anyway.
const LONGEST: Duration = Duration::from_millis(40);
const SHORTEST: Duration = Duration::from_millis(5);
/// What Linux counts for a datagram of 700 to 1400 bytes, measured: a buffer of 425,984 bytes (twice the usual
/// `net.core.rmem_max`) holds 184 of them.
const DATAGRAM_COST: usize = 2304;
/// Datagrams a second in a burst that may begin at any time: key frames of some tracks at once, 50 Mbit/s in packets of
/// 1200 bytes. livekit-server does not pace them.
const BURST_RATE: f64 = 50e6 / 8.0 / 1200.0;
/// Of the last rate, at each count. A second of 40 ms looks leaves 7 %.
const DECAY: f64 = 0.9;

/// What is known of the sockets.
#[derive(Debug)]
pub(super) struct PollPace {
    /// Datagrams that the smallest one holds; `None`: there is none.
    capacity: Option<f64>,
    /// Datagrams a second, the highest of late.
    rate: f64,
    counted: usize,
    counted_at: Instant,
}

impl PollPace {
    pub(super) fn new(now: Instant) -> Self {
        Self { capacity: None, rate: 0.0, counted: 0, counted_at: now }
    }

    /// A socket for whose receive buffer the kernel has set so many bytes aside; gives how many datagrams it holds.
    pub(super) fn add_socket(&mut self, buffer_bytes: usize) -> usize {
        let holds = buffer_bytes / DATAGRAM_COST;
        self.capacity = Some(self.capacity.map_or(holds as f64, |before| before.min(holds as f64)));
        holds
    }

    /// So many datagrams were read, all there were.
    pub(super) fn took(&mut self, datagrams: usize, now: Instant) {
        self.counted += datagrams;
        let passed = now.saturating_duration_since(self.counted_at);
        if passed < SHORTEST {
            return;
        }
        let rate = self.counted as f64 / passed.as_secs_f64();
        self.rate = rate.max(self.rate * DECAY);
        (self.counted, self.counted_at) = (0, now);
    }

    /// From one look to the next: a burst fills half of the smallest buffer, the last rate a quarter.
    pub(super) fn interval(&self) -> Duration {
        let Some(capacity) = self.capacity else { return LONGEST };
        let seconds = (capacity / 2.0 / BURST_RATE).min(capacity / 4.0 / self.rate.max(1.0));
        Duration::from_secs_f64(seconds.clamp(SHORTEST.as_secs_f64(), LONGEST.as_secs_f64()))
    }

    /// The buffers are so small that the sockets are read more often than otherwise needed.
    pub(super) fn is_hurried(&self) -> bool {
        self.interval() < LONGEST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(buffer_bytes: usize) -> (PollPace, Instant) {
        let now = Instant::now();
        let mut pace = PollPace::new(now);
        pace.add_socket(buffer_bytes);
        (pace, now)
    }

    #[test]
    fn a_large_buffer_is_read_seldom_and_the_usual_one_in_time_for_a_burst() {
        assert_eq!(PollPace::new(Instant::now()).interval(), LONGEST);
        assert!(of(8 << 20).0.interval() == LONGEST && !of(8 << 20).0.is_hurried());
        let (mut pace, _) = of(8 << 20);
        assert_eq!(pace.add_socket(2 * 212_992), 184, "the smallest of all sockets counts");
        assert_eq!(pace.interval().as_millis(), 17);
        assert!(pace.is_hurried());
        assert_eq!(of(1).0.interval(), SHORTEST);
    }

    #[test]
    fn a_high_rate_is_followed_at_once_and_forgotten_slowly() {
        let (mut pace, mut now) = of(2 * 212_992);
        let mut look = |pace: &mut PollPace, datagrams: usize| {
            now += Duration::from_millis(10);
            pace.took(datagrams, now);
            pace.interval()
        };
        // 96 Mbit/s.
        assert_eq!(look(&mut pace, 100), SHORTEST);
        assert!(look(&mut pace, 0) < Duration::from_millis(6));
        let quiet: Vec<Duration> = (0..40).map(|_| look(&mut pace, 1)).collect();
        assert!(quiet.is_sorted() && quiet[39].as_millis() == 17, "{quiet:?}");
    }

    #[test]
    fn looks_at_once_one_after_another_are_one() {
        let (mut pace, now) = of(2 * 212_992);
        pace.took(100, now + Duration::from_micros(10));
        pace.took(4, now + Duration::from_millis(20));
        assert_eq!(pace.interval().as_micros(), 184 * 20_000 / 104 / 4);
    }
}
