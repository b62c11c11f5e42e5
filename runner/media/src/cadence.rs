//! How regularly the frames of a video track come, and which of the distances between them are gaps. Pure.
//!
//! In: distances between consecutive frames of one track, nanoseconds of media time. Out: the usual distance, and
//! the sum of the gaps. A publisher may send as few frames as it likes (a still screen share, a camera with one picture
//! in two seconds); only a distance that is long for this publisher is a fault of the recording.

use std::collections::VecDeque;

/// No distance up to this is a gap, nanoseconds.
pub const GAP_NS: u64 = 1_000_000_000;
/// A gap is longer than the usual distance times this: congestion control halves and quarters the frame rate of a
/// camera step by step, each step within this bound.
const TIMES_USUAL: u64 = 3;
/// The usual distance is the median of up to this many distances before and as many after the one that is judged: a
/// publisher that has slowed down has a new usual distance after four frames, and four stalls in a row are still gaps
/// when the pictures between them come at their old pace.
const NEIGHBOURS: usize = 4;

/// Whether `distance_ns` is too long for a track whose frames usually stand `usual_ns` apart. `None`: not known, any
/// distance beyond a second is too long.
pub fn is_gap(distance_ns: u64, usual_ns: Option<u64>) -> bool {
    distance_ns > GAP_NS && usual_ns.is_none_or(|usual| distance_ns > usual.saturating_mul(TIMES_USUAL))
}

/// The gaps of a track, times in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gaps {
    /// Gaps found.
    pub count: u32,
    /// Their sum, nanoseconds.
    pub total_ns: u64,
    /// The longest distance that was no pace of the publisher: a gap, or anything up to a second.
    pub longest_ns: u64,
}

impl Gaps {
    fn judge(&mut self, distance_ns: u64, usual_ns: Option<u64>) {
        if is_gap(distance_ns, usual_ns) {
            self.count += 1;
            self.total_ns += distance_ns;
        } else if distance_ns > GAP_NS {
            return;
        }
        self.longest_ns = self.longest_ns.max(distance_ns);
    }
}

/// The distances of one track's frames.
#[derive(Clone, Debug, Default)]
pub struct Cadence {
    /// The newest distances: at the front those already judged, then those whose later neighbours are still to come.
    window: VecDeque<u64>,
    judged: usize,
    gaps: Gaps,
}

impl Cadence {
    /// Another frame came `distance_ns` after the one before.
    pub fn distance(&mut self, distance_ns: u64) {
        self.window.push_back(distance_ns);
        if self.window.len() - self.judged > NEIGHBOURS {
            self.gaps.judge(distance_ns_at(&self.window, self.judged), self.usual_around(self.judged));
            self.judged += 1;
        }
        if self.judged > NEIGHBOURS {
            self.window.pop_front();
            self.judged -= 1;
        }
    }

    /// The median of the newest distances; `None` before there are two frames.
    pub fn usual(&self) -> Option<u64> {
        median(self.window.iter().copied())
    }

    /// All gaps so far. `open_ns`: so long has the next frame been missing already.
    pub fn gaps(&self, open_ns: Option<u64>) -> Gaps {
        let mut ended = self.clone();
        ended.window.extend(open_ns);
        (ended.judged..ended.window.len()).for_each(|index| {
            ended.gaps.judge(distance_ns_at(&ended.window, index), ended.usual_around(index));
        });
        ended.gaps
    }

    fn usual_around(&self, index: usize) -> Option<u64> {
        let from = index.saturating_sub(NEIGHBOURS);
        let neighbours =
            self.window.iter().enumerate().skip(from).take_while(|(other, _)| *other <= index + NEIGHBOURS);
        median(neighbours.filter(|(other, _)| *other != index).map(|(_, distance)| *distance))
    }
}

fn distance_ns_at(window: &VecDeque<u64>, index: usize) -> u64 {
    window.get(index).copied().unwrap_or_default()
}

fn median(distances: impl Iterator<Item = u64>) -> Option<u64> {
    let mut sorted: Vec<u64> = distances.collect();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn gaps(distances_ms: &[u64], open_ms: Option<u64>) -> (u32, u64, u64) {
        let mut cadence = Cadence::default();
        distances_ms.iter().for_each(|ms| cadence.distance(ms * MS));
        let gaps = cadence.gaps(open_ms.map(|ms| ms * MS));
        (gaps.count, gaps.total_ns / MS, gaps.longest_ns / MS)
    }

    #[test]
    fn a_stall_of_a_camera_is_a_gap_wherever_it_lies() {
        for place in [0, 1, 7, 29] {
            let mut distances = [33; 30];
            distances[place] = 3000;
            assert_eq!(gaps(&distances, None), (1, 3000, 3000), "distance {place}");
        }
        assert_eq!(gaps(&[33; 30], Some(3000)), (1, 3000, 3000), "and at the end, where no frame follows");
        assert_eq!(gaps(&[33, 33, 900, 33], None), (0, 0, 900));
    }

    #[test]
    fn a_seldom_sender_has_no_gap_until_it_is_late_for_itself() {
        assert_eq!(gaps(&[2000; 20], Some(2100)), (0, 0, 0));
        assert_eq!(gaps(&[2000, 1990], None), (0, 0, 0), "from its first frame on");
        assert_eq!(gaps(&[2000, 2000, 2000, 2000, 9000, 2000, 2000], None), (1, 9000, 9000));
    }

    #[test]
    fn a_slower_pace_is_no_gap_and_stalls_one_after_the_other_are() {
        let slower = [[33u64; 8], [2000; 8]].concat();
        assert_eq!(gaps(&slower, None), (0, 0, 33));
        let faster = [[2000u64; 8], [33; 8]].concat();
        assert_eq!(gaps(&faster, None), (0, 0, 33));
        let stalls = [33, 33, 33, 2000, 33, 33, 33, 2000, 33, 33, 33, 2000, 33, 33, 33];
        assert_eq!(gaps(&stalls, None), (3, 6000, 2000));
    }

    #[test]
    fn a_single_distance_is_judged_by_its_length_alone() {
        assert_eq!(gaps(&[3000], None), (1, 3000, 3000));
        assert_eq!(gaps(&[], Some(3000)), (1, 3000, 3000));
        assert_eq!(gaps(&[], None), (0, 0, 0));
    }

    #[test]
    fn the_usual_distance_follows_the_publisher() {
        let mut cadence = Cadence::default();
        assert_eq!(cadence.usual(), None);
        (0..10).for_each(|_| cadence.distance(33));
        assert_eq!(cadence.usual(), Some(33));
        (0..5).for_each(|_| cadence.distance(2000));
        assert_eq!(cadence.usual(), Some(2000));
    }
}
