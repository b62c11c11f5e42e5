//! Waits between attempts. Our own and not `backon`: callers retry inside `select!` loops with deadlines and conditions of
//! their own and need only the next wait.

use std::time::Duration;

use rand::RngExt;

/// Exponential backoff with jitter: waits double from `first` to `max`, and each is shortened by up to half at random, so
/// that clients which failed together do not retry together.
#[derive(Clone, Debug)]
pub struct RetrySchedule {
    next: Duration,
    max: Duration,
}

impl RetrySchedule {
    /// `first` is the longest first wait.
    pub fn new(first: Duration, max: Duration) -> Self {
        Self { next: first, max }
    }

    /// The next wait, between half of the current bound and the bound; the bound doubles.
    pub fn wait(&mut self) -> Duration {
        let now = self.next.min(self.max);
        self.next = (now * 2).min(self.max);
        now.mul_f64(rand::rng().random_range(0.5..=1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_maximum_and_no_further() {
        let mut schedule = RetrySchedule::new(Duration::from_millis(100), Duration::from_secs(1));
        for bound in [100, 200, 400, 800, 1000, 1000] {
            let wait = schedule.wait();
            assert!(wait <= Duration::from_millis(bound) && wait >= Duration::from_millis(bound / 2), "{wait:?}");
        }
    }
}
