//! Which output time a picture of the page is shown at. In: when each was painted. Out: numbers of output times, growing. Pure.
//!
//! Output times stand still from the beginning on, the page has its own phase. The grid is put on the phase of the first
//! picture and follows it slowly, so that pictures that come evenly never share an output time while others have none.

/// How much of a picture's distance from its output time is believed, and how far the grid moves for one at most.
const FOLLOWED: i64 = 64;
const MAX_STEP_NS: i64 = 500_000;
/// How far the grid is from its beginning at most, in percent of an output's period.
const FURTHEST_PERCENT: i64 = 60;
/// Of the usual distance between two pictures.
const LEARNED: i64 = 8;
/// Pictures that may be an output late one after the other before one is left out: the page is not late, it is ahead.
const MAX_LATE: u32 = 8;
/// A page that paints this much faster than the output, in percent of an output's period: of its pictures the newest counts.
const FAST_PERCENT: i64 = 75;

/// Nanoseconds from the beginning to output `number`; at most 584 years.
pub fn slot_ns(number: u64, framerate: u32) -> u64 {
    u64::try_from(u128::from(number) * 1_000_000_000 / u128::from(framerate.max(1))).unwrap_or(u64::MAX)
}

/// Output times up to and without this moment.
pub fn slots_before(ns: u64, framerate: u32) -> u64 {
    u64::try_from((u128::from(ns) * u128::from(framerate.max(1))).div_ceil(1_000_000_000)).unwrap_or(u64::MAX)
}

/// Where the page's pictures go.
#[derive(Debug)]
pub struct OutputSlots {
    period_ns: i64,
    /// Nanoseconds since the beginning at which output 0 is, by the page's phase; `None`: nothing was painted yet.
    origin_ns: Option<i64>,
    /// The last picture: when it was painted, and its output.
    last: Option<(i64, i64)>,
    /// Pictures one after the other that were an output late.
    late: u32,
    spacing_ns: i64,
}

impl OutputSlots {
    /// `framerate`: output times a second.
    pub fn new(framerate: u32) -> Self {
        let period_ns = 1_000_000_000 / i64::from(framerate.max(1));
        Self { period_ns, origin_ns: None, last: None, late: 0, spacing_ns: period_ns }
    }

    /// The output of a picture that was painted so many nanoseconds after the beginning, later than the one before it. The same
    /// number as before: it takes the place of that one.
    pub fn place(&mut self, at_ns: u64) -> u64 {
        let at_ns = i64::try_from(at_ns).unwrap_or(i64::MAX);
        let Some((last_at, last_slot)) = self.last else {
            let slot = self.nearest(at_ns, 0);
            self.origin_ns = Some(at_ns - slot * self.period_ns);
            self.last = Some((at_ns, slot));
            return slot.unsigned_abs();
        };
        let distance = (at_ns - last_at).clamp(0, 2 * self.period_ns);
        self.spacing_ns += (distance - self.spacing_ns) / LEARNED;
        let origin = self.origin_ns.unwrap_or_default();
        let nearest = self.nearest(at_ns, origin);
        let is_fast = self.spacing_ns * 100 < self.period_ns * FAST_PERCENT;
        let is_late = !is_fast && nearest == last_slot && self.late < MAX_LATE;
        self.late = if is_late { self.late + 1 } else { 0 };
        let slot = match nearest {
            _ if nearest > last_slot => nearest,
            // One output late, and not lost.
            _ if is_late => last_slot + 1,
            _ => last_slot,
        };
        if !is_fast {
            let off = at_ns - origin - nearest * self.period_ns;
            self.origin_ns = Some(self.bounded(origin + (off / FOLLOWED).clamp(-MAX_STEP_NS, MAX_STEP_NS)));
        }
        self.last = Some((at_ns, slot));
        slot.unsigned_abs()
    }

    /// A page whose clock is another drifts through the output times: each time it has passed one, an output shows its picture
    /// twice, or two pictures share one, and pictures stay with their sound.
    fn bounded(&self, origin_ns: i64) -> i64 {
        let bound = self.period_ns * FURTHEST_PERCENT / 100;
        if origin_ns > bound {
            origin_ns - self.period_ns
        } else if origin_ns < -bound {
            origin_ns + self.period_ns
        } else {
            origin_ns
        }
    }

    fn nearest(&self, at_ns: i64, origin_ns: i64) -> i64 {
        (at_ns - origin_ns + self.period_ns / 2).div_euclid(self.period_ns)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: u64 = 1_000_000;

    /// Different outputs of pictures with this distance, by a page whose phase and jitter are these.
    fn placed(distance_ns: u64, phase_ns: u64, count: u64, jitter: impl Fn(u64) -> i64) -> Vec<u64> {
        let mut slots = OutputSlots::new(30);
        let at = |n: u64| (phase_ns + n * distance_ns).saturating_add_signed(jitter(n));
        (0..count).map(|n| slots.place(at(n))).collect()
    }

    #[test]
    fn times_of_outputs_are_exact() {
        assert_eq!((slot_ns(0, 30), slot_ns(1, 30), slot_ns(30, 30)), (0, 33_333_333, 1_000_000_000));
        assert_eq!(slot_ns(30 * 3600 * 24, 30), 86_400_000_000_000);
        assert_eq!((slots_before(0, 30), slots_before(1, 30), slots_before(33_333_334, 30)), (0, 1, 2));
        assert_eq!(slots_before(1_000_000_000, 30), 30);
    }

    #[test]
    fn pictures_that_come_evenly_have_one_output_each_whatever_their_phase() {
        for phase in [0, 5, 16, 17, 30, 33, 50].map(|ms| ms * MS) {
            // 1 ms of jitter, as a display has.
            let placed = placed(33_333_333, phase, 300, |n| [0, 900_000, -900_000, 400_000][n as usize % 4]);
            let steps: Vec<u64> = placed.windows(2).map(|pair| pair[1] - pair[0]).collect();
            assert!(steps.iter().all(|step| *step == 1), "{phase} {steps:?}");
        }
    }

    #[test]
    fn the_grid_follows_a_page_whose_clock_is_another() {
        // 100 parts in a million, 3.3 µs a picture: in 20000 pictures it drifts through two outputs.
        for distance in [33_336_666, 33_330_000] {
            let placed = placed(distance, 7 * MS, 20_000, |_| 0);
            let other = placed.windows(2).filter(|pair| pair[1] - pair[0] != 1).count();
            assert_eq!(other, 2);
            let at_ns = 7 * MS + 19_999 * distance;
            let off = slot_ns(placed[19_999], 30).abs_diff(at_ns);
            assert!(off <= 40 * MS, "{off}");
        }
    }

    #[test]
    fn of_a_faster_page_every_output_has_a_new_picture() {
        let placed = placed(16_666_666, 3 * MS, 600, |n| if n % 2 == 0 { 300_000 } else { -300_000 });
        let mut different = placed.clone();
        different.dedup();
        let (first, last) = (placed[20], placed[599]);
        let tail = different.iter().filter(|slot| **slot > first).count() as u64;
        assert!(tail + 2 >= last - first, "{tail} of {}", last - first);
        // And not late: 600 pictures are 10 s.
        assert!((298..=302).contains(&last), "{last}");
    }

    #[test]
    fn two_pictures_in_one_output_are_both_shown() {
        let mut slots = OutputSlots::new(30);
        let at = [40, 73, 107, 141, 160, 207, 240].map(|ms| slots.place(ms * MS));
        assert_eq!(at, [1, 2, 3, 4, 5, 6, 7]);
    }

    proptest! {
        #[test]
        fn numbers_never_go_back_and_are_near_their_time(gaps in prop::collection::vec(1u64..200_000_000, 1..200)) {
            let mut slots = OutputSlots::new(30);
            let (mut now, mut last) = (0, 0);
            for gap in gaps {
                now += gap;
                let slot = slots.place(now);
                prop_assert!(slot >= last);
                // Half a period of phase, half a period to the nearest, one output late.
                prop_assert!(slot_ns(slot, 30).abs_diff(now) <= 85 * MS, "{slot} {now}");
                last = slot;
            }
        }
    }
}
