//! Where a player finds a time (Cues): the cluster of each key frame, or each cluster where there are no pictures. Pure,
//! and bounded: of a long recording the points stand further apart.

use super::ebml::{element, uint};
use super::ids::{POINT_CLUSTER, POINT_POSITIONS, POINT_TIME, POINT_TRACK, SEEK_INDEX, SEEK_POINT};

/// What is remembered at most: 256 KB, and 400 KB in the file. Twelve hours with a key frame a second have one each 4 s.
const MAX_POINTS: usize = 16_384;
/// Points that are closer save a player nothing.
const MIN_SPACING_MS: u64 = 500;

/// The points so far.
#[derive(Debug)]
pub struct SeekIndex {
    points: Vec<SeekPoint>,
    spacing_ms: u64,
}

#[derive(Clone, Copy, Debug)]
struct SeekPoint {
    at_ms: u64,
    /// Where its cluster begins in the file.
    cluster: u64,
}

impl SeekIndex {
    /// Without a point.
    pub fn new() -> Self {
        Self { points: vec![], spacing_ms: MIN_SPACING_MS }
    }

    /// What is shown or heard at `at_ms` stands in the cluster at `cluster`. Times grow from call to call.
    pub fn add(&mut self, at_ms: u64, cluster: u64) {
        if self.points.last().is_some_and(|last| at_ms < last.at_ms + self.spacing_ms) {
            return;
        }
        self.points.push(SeekPoint { at_ms, cluster });
        if self.points.len() > MAX_POINTS {
            let mut number = 0;
            self.points.retain(|_| {
                number += 1;
                number % 2 == 1
            });
            // Those that follow are as far apart as those that are left.
            if let (Some(first), Some(last)) = (self.points.first(), self.points.last()) {
                self.spacing_ms = (last.at_ms - first.at_ms) / (self.points.len() as u64 - 1).max(1);
            }
        }
    }

    /// There is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.points.is_empty()
    }

    /// The element, with clusters counted from `segment`.
    pub fn write(&self, out: &mut Vec<u8>, track: u8, segment: u64) {
        element(out, SEEK_INDEX, |out| {
            for point in &self.points {
                element(out, SEEK_POINT, |out| {
                    uint(out, POINT_TIME, point.at_ms);
                    element(out, POINT_POSITIONS, |out| {
                        uint(out, POINT_TRACK, track.into());
                        uint(out, POINT_CLUSTER, point.cluster - segment);
                    });
                });
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_of_any_length_is_even_and_bounded() {
        for (hours, every_ms) in [(12, 1000), (12, 100), (100, 10_000), (1, 2000)] {
            let mut index = SeekIndex::new();
            for n in 0..hours * 3_600_000 / every_ms {
                index.add(n * every_ms, n);
                assert!(index.points.len() <= MAX_POINTS);
            }
            let gaps = index.points.windows(2).map(|two| two[1].at_ms - two[0].at_ms);
            let (closest, widest) = (gaps.clone().min().unwrap(), gaps.max().unwrap());
            assert!(widest <= 2 * closest, "{hours} h each {every_ms} ms: {closest} to {widest} ms");
            // What a player has to skip is a 4,000th of the file at most, or what it cannot know.
            let bound = (hours * 3_600_000 / 4000).max(MIN_SPACING_MS).max(every_ms);
            assert!(widest <= bound, "{hours} h each {every_ms} ms: {widest} ms");
            for point in &index.points {
                assert_eq!(point.cluster * every_ms, point.at_ms);
            }
        }
    }
}
