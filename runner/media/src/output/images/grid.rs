//! Which pictures become images: the first one, and after it the first at or behind each multiple of the interval. Pure.

use crate::key_grid::KeyGrid;

/// The lines at which a picture is taken, from output time 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CaptureGrid {
    lines: KeyGrid,
    next_ns: u64,
}

impl CaptureGrid {
    /// An interval of 0 is taken as a nanosecond.
    pub(super) fn new(interval_ns: u64) -> Self {
        Self { lines: KeyGrid::new(interval_ns, interval_ns), next_ns: 0 }
    }

    /// Whether the picture at `at_ns` becomes an image. Lines without a picture of their own are left out.
    pub(super) fn takes(&mut self, at_ns: u64) -> bool {
        if at_ns < self.next_ns {
            return false;
        }
        self.next_ns = self.lines.line(self.lines.next_after(at_ns));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_NS: u64 = 1_000_000_000;

    /// Numbers of the pictures, 30 a second, that become images.
    fn taken(interval_ns: u64, pictures: impl Iterator<Item = u64>) -> Vec<u64> {
        let mut grid = CaptureGrid::new(interval_ns);
        pictures.filter(|n| grid.takes(n * SECOND_NS / 30)).collect()
    }

    #[test]
    fn one_in_each_interval_from_the_first_on() {
        assert_eq!(taken(SECOND_NS, 0..91), [0, 30, 60, 90]);
        // floor(8 s / 5 s) + 1.
        assert_eq!(taken(5 * SECOND_NS, 0..240), [0, 150]);
        assert_eq!(taken(SECOND_NS / 60, 0..4), [0, 1, 2, 3], "no more than there are");
    }

    #[test]
    fn pictures_that_are_left_out_move_no_later_line() {
        let every_fourth = (0..200).filter(|n| n % 4 == 0);
        assert_eq!(taken(SECOND_NS, every_fourth), [0, 32, 60, 92, 120, 152, 180]);
        let with_a_hole = (0..200).filter(|n| !(20..100).contains(n));
        assert_eq!(taken(SECOND_NS, with_a_hole), [0, 100, 120, 150, 180]);
        assert_eq!(taken(SECOND_NS, 100..160), [100, 120, 150], "a recording may begin later");
    }
}
