//! Where key frames stand in pictures that are cut into segments or joined by streams: on lines of output time that all
//! outputs of a recording share. Images are taken at such lines too. Pure.

/// Equally distant lines from output time 0. Every multiple of `whole_ns` is a line, exactly; the lines between divide it
/// evenly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyGrid {
    whole_ns: u64,
    parts: u32,
}

impl KeyGrid {
    /// `whole_ns`: length of a segment, or the distance of key frames where nothing is cut. Lines stand at most `wanted_ns`
    /// apart. Zeroes are taken as a nanosecond.
    pub fn new(whole_ns: u64, wanted_ns: u64) -> Self {
        let whole_ns = whole_ns.max(1);
        let parts = whole_ns.div_ceil(wanted_ns.max(1));
        Self { whole_ns, parts: u32::try_from(parts).unwrap_or(u32::MAX) }
    }

    /// Distance of two lines, rounded down.
    pub fn step_ns(self) -> u64 {
        self.whole_ns / u64::from(self.parts)
    }

    /// Line `n`, nanoseconds of output time.
    pub fn line(self, n: u64) -> u64 {
        let at = u128::from(n) * u128::from(self.whole_ns) / u128::from(self.parts);
        u64::try_from(at).unwrap_or(u64::MAX)
    }

    /// Number of the first line later than `ns`.
    pub fn next_after(self, ns: u64) -> u64 {
        let lines = (u128::from(ns) + 1) * u128::from(self.parts);
        u64::try_from(lines.div_ceil(u128::from(self.whole_ns))).unwrap_or(u64::MAX)
    }

    /// Whether a line lies in `from..to`.
    pub fn has_line_in(self, from: u64, to: u64) -> bool {
        let first = from.checked_sub(1).map_or(0, |before| self.line(self.next_after(before)));
        first < to
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn lines_divide_a_segment_evenly() {
        for (whole, wanted, parts, lines) in [
            // Segments of 6 s, key frames wanted each 4 s: each 3 s.
            (6 * SECOND, 4 * SECOND, 2, [0, 3 * SECOND, 6 * SECOND, 9 * SECOND]),
            (5 * SECOND, 2 * SECOND, 3, [0, 1_666_666_666, 3_333_333_333, 5 * SECOND]),
            (2 * SECOND, 2 * SECOND, 1, [0, 2 * SECOND, 4 * SECOND, 6 * SECOND]),
            // Longer than a segment: one for each.
            (2 * SECOND, 10 * SECOND, 1, [0, 2 * SECOND, 4 * SECOND, 6 * SECOND]),
        ] {
            let grid = KeyGrid::new(whole, wanted);
            assert_eq!(grid, KeyGrid { whole_ns: whole, parts });
            assert_eq!([0, 1, 2, 3].map(|n| grid.line(n)), lines);
            assert_eq!(grid.line(u64::from(parts) * 100_000), whole * 100_000, "no drift in a recording of days");
        }
    }

    #[test]
    fn a_picture_belongs_to_the_line_at_or_before_it() {
        let grid = KeyGrid::new(5 * SECOND, 2 * SECOND);
        assert_eq!([0, 1_666_666_665, 1_666_666_666].map(|ns| grid.next_after(ns)), [1, 1, 2]);
        assert!(grid.has_line_in(0, 1) && !grid.has_line_in(0, 0) && !grid.has_line_in(1, 1_666_666_666));
        assert!(grid.has_line_in(1_666_666_666, 1_666_666_667) && grid.has_line_in(1, 1_666_666_667));
    }

    proptest! {
        #[test]
        fn the_next_line_is_the_first_one_later(
            whole in 1..20 * SECOND,
            wanted in 1_000_000..20 * SECOND,
            ns in 0..400_000 * SECOND,
        ) {
            let grid = KeyGrid::new(whole, wanted);
            let next = grid.next_after(ns);
            prop_assert!(grid.line(next) > ns && grid.line(next - 1) <= ns);
            prop_assert!(grid.step_ns() <= wanted);
            prop_assert!(grid.has_line_in(grid.line(next), grid.line(next) + 1));
            prop_assert!(grid.has_line_in(ns, grid.line(next) + 1));
        }
    }
}
