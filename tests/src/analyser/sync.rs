//! Marks (flashes, beeps) of a person: present in the seconds in which the person was published, absent in the others,
//! and flashes in sync with beeps. Pure.

use std::fmt;

use super::{median, percentile};

/// Flashes or beeps of one person, and the spans in which they are expected. All in seconds in the file.
#[derive(Clone, Copy, Debug)]
pub struct Marks<'a> {
    /// Begins of the marks, ascending.
    pub seen: &'a [f64],
    /// Spans in which every second must have a mark.
    pub wanted: &'a [(f64, f64)],
    /// Spans in which there must be none.
    pub forbidden: &'a [(f64, f64)],
}

/// Marks counted against the spans.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct MarkPresence {
    /// Expected marks.
    pub wanted: usize,
    /// Of them, seen.
    pub found: usize,
    /// Seen where there must be none.
    pub forbidden: usize,
    /// p80 of |gap − 1 s| inside the wanted spans, milliseconds.
    pub cadence_ms: f64,
}

impl MarkPresence {
    /// Found of expected, 0 to 1; 1 where none is expected.
    pub fn share(&self) -> f64 {
        if self.wanted == 0 { 1.0 } else { self.found as f64 / self.wanted as f64 }
    }

    /// At least 98 % found (all, below fifty), an even cadence, none forbidden.
    pub fn good(&self) -> bool {
        self.good_but((self.wanted as f64 * 0.02).floor() as usize)
    }

    /// As [`good`](Self::good) with so many allowed to be missing.
    pub fn good_but(&self, misses: usize) -> bool {
        self.found + misses >= self.wanted && self.forbidden == 0 && self.cadence_ms <= 120.0
    }
}

impl fmt::Display for MarkPresence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} cadence p80 {:.0} ms, {} forbidden", self.found, self.wanted, self.cadence_ms, self.forbidden)
    }
}

/// Counts marks. Their common fraction of a second is estimated first, so the offset of the recording does not matter.
pub fn presence(marks: Marks<'_>) -> MarkPresence {
    /// A mark further from its second than this belongs to none.
    const NEAR: f64 = 0.25;
    let inside = |at: f64, spans: &[(f64, f64)]| spans.iter().any(|(from, to)| (*from..=*to).contains(&at));
    // All marks of a person lie at the same fraction of a second; seconds are a circle, so it is a mean direction.
    let (sin, cos) = marks.seen.iter().fold((0.0, 0.0), |(sin, cos), at| {
        let angle = std::f64::consts::TAU * at;
        (sin + angle.sin(), cos + angle.cos())
    });
    let phase = f64::atan2(sin, cos).rem_euclid(std::f64::consts::TAU) / std::f64::consts::TAU;
    let mut presence = MarkPresence::default();
    for (from, to) in marks.wanted {
        let first = (from - phase).ceil() as i64;
        for second in first.. {
            let at = second as f64 + phase;
            if at > *to {
                break;
            }
            presence.wanted += 1;
            presence.found += usize::from(marks.seen.iter().any(|seen| (seen - at).abs() < NEAR));
        }
    }
    presence.forbidden = marks.seen.iter().filter(|at| inside(**at, marks.forbidden)).count();
    let gaps: Vec<f64> = marks
        .seen
        .windows(2)
        .filter(|pair| marks.wanted.iter().any(|(from, to)| *from <= pair[0] && pair[1] <= *to))
        .map(|pair| (pair[1] - pair[0] - 1.0).abs() * 1000.0)
        .filter(|off| *off < 500.0)
        .collect();
    presence.cadence_ms = percentile(&gaps, 0.8);
    presence
}

/// Flash minus beep, milliseconds; positive: video is late.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Offset {
    /// Flashes with a beep within 0.5 s.
    pub pairs: usize,
    /// Median, signed.
    pub median_ms: f64,
    /// p99 of the absolute values.
    pub p99_ms: f64,
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} pairs, median {:+.1} ms, p99 {:.1} ms", self.pairs, self.median_ms, self.p99_ms)
    }
}

/// Compares each flash with the nearest beep.
pub fn offset(flashes: &[f64], beeps: &[f64]) -> Offset {
    let apart: Vec<f64> = flashes
        .iter()
        .filter_map(|flash| beeps.iter().map(|beep| flash - beep).min_by(|a, b| a.abs().total_cmp(&b.abs())))
        .filter(|apart| apart.abs() < 0.5)
        .map(|apart| apart * 1000.0)
        .collect();
    let sizes: Vec<f64> = apart.iter().map(|apart| apart.abs()).collect();
    Offset { pairs: apart.len(), median_ms: median(&apart), p99_ms: percentile(&sizes, 0.99) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missed_second_and_a_ghost_are_counted() {
        let seen = [0.98, 1.97, 3.98, 5.5];
        let presence = presence(Marks { seen: &seen, wanted: &[(0.5, 4.5)], forbidden: &[(5.0, 6.0)] });
        assert_eq!((presence.wanted, presence.found, presence.forbidden), (4, 3, 1));
        assert!(!presence.good());
    }

    #[test]
    fn the_offset_has_a_sign() {
        let offset = offset(&[1.03, 2.03, 3.03], &[1.0, 2.0, 3.0, 4.0]);
        assert_eq!(offset.pairs, 3);
        assert!((offset.median_ms - 30.0).abs() < 1e-6, "{offset}");
    }
}
