//! A few of many things that come evenly over a time of unknown length, spread over all of it. Pure.

/// Keeps between `count` and twice as many: all at first, then every second one, every fourth, and so on.
pub(super) struct Thinned<T> {
    count: usize,
    /// One in so many that come is kept.
    step: u64,
    seen: u64,
    kept: Vec<T>,
}

impl<T> Thinned<T> {
    /// For a choice of up to `count` in the end.
    pub(super) fn new(count: usize) -> Self {
        Self { count: count.max(1), step: 1, seen: 0, kept: vec![] }
    }

    /// The next one; `make` is called if it is kept.
    pub(super) fn offer(&mut self, make: impl FnOnce() -> T) {
        let is_due = self.seen.is_multiple_of(self.step);
        self.seen += 1;
        if !is_due {
            return;
        }
        if self.kept.len() == 2 * self.count {
            let mut n = 0u32;
            self.kept.retain(|_| {
                n += 1;
                n % 2 == 1
            });
            // The next one that is due now was due twice as rarely, too.
            self.step *= 2;
        }
        self.kept.push(make());
    }

    /// Up to `count` of them, evenly, the first among them.
    pub(super) fn spread(&self) -> Vec<&T> {
        let count = self.count.min(self.kept.len());
        (0..count).filter_map(|n| self.kept.get(n * self.kept.len() / count)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(count: usize, offered: u32) -> Vec<u32> {
        let mut thinned = Thinned::new(count);
        (0..offered).for_each(|n| thinned.offer(|| n));
        assert!(thinned.kept.len() <= 2 * count);
        thinned.spread().into_iter().copied().collect()
    }

    #[test]
    fn what_is_chosen_is_spread_over_all_that_came() {
        for (offered, expected) in [
            (0, vec![]),
            (1, vec![0]),
            (3, vec![0, 1, 2]),
            (4, vec![0, 1, 2, 3]),
            (6, vec![0, 1, 3, 4]),
            (8, vec![0, 2, 4, 6]),
            (9, vec![0, 2, 4, 6]),
            (16, vec![0, 4, 8, 12]),
            (17, vec![0, 4, 8, 12]),
            (64, vec![0, 16, 32, 48]),
        ] {
            assert_eq!(spread(4, offered), expected, "{offered}");
        }
    }

    #[test]
    fn a_day_is_as_even_as_a_minute() {
        for offered in [60, 1000, 86_400] {
            let chosen = spread(16, offered);
            assert_eq!(chosen.len(), 16, "{offered}");
            let steps = chosen.windows(2).map(|pair| pair[1] - pair[0]);
            let (min, max) = (steps.clone().min().unwrap(), steps.max().unwrap());
            assert!(max <= 2 * min, "{offered}: {chosen:?}");
            assert!(offered - chosen[15] <= offered / 8, "{offered}: {chosen:?}");
        }
    }
}
