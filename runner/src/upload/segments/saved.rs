//! What a salvage needs of an HLS output: which segments are listed, which are not yet, and how all are named. Values that
//! travel as JSON in the checkpoint. The segments themselves are in the store or in the spool: the folder is the truth, this
//! only names what is in it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use spillway_plan::segment_name::SegmentNames;

use super::sequencer::ListedSegment;

/// State of one HLS output. A day of segments of one length takes a hundred bytes, of sound alone, whose lengths alternate,
/// half a megabyte.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentsCheckpoint {
    /// Number of the output.
    pub output: u32,
    /// Of everything it stores.
    pub names: SegmentNames,
    /// Length that was asked for, nanoseconds.
    pub segment_ns: u64,
    /// Of the spool.
    pub folder: PathBuf,
    /// Unix nanoseconds at media time zero.
    pub started_at: i64,
    /// The backup store has taken over.
    #[serde(default)]
    pub on_backup: bool,
    /// In the playlists, ascending.
    #[serde(default)]
    pub listed: Vec<SegmentRun>,
    /// Whole and not in the playlists, ascending.
    #[serde(default)]
    pub unlisted: Vec<UnlistedSegment>,
    /// Number and begin (nanoseconds of media) of the segment that is being written.
    #[serde(default)]
    pub open: Option<(u32, u64)>,
}

/// Listed segments without a hole between them, in one store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentRun {
    /// Number of the first.
    pub first: u32,
    /// Where it begins, nanoseconds of media.
    pub at_ns: u64,
    /// So many segments in a row are so long (nanoseconds).
    pub lengths: Vec<(u32, u64)>,
    /// Sum of their sizes.
    pub bytes: u64,
    /// They are in the backup store.
    #[serde(default)]
    pub on_backup: bool,
}

/// A segment that waits to be stored, or for one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnlistedSegment {
    /// Its number.
    pub n: u32,
    /// Where it begins, nanoseconds of media.
    pub at_ns: u64,
    /// Nanoseconds.
    pub length_ns: u64,
    /// Its size.
    pub bytes: u64,
    /// The store has it.
    #[serde(default)]
    pub stored: bool,
    /// In the backup store.
    #[serde(default)]
    pub on_backup: bool,
}

impl SegmentRun {
    /// Adds a segment to the last run, or begins another.
    pub fn push(runs: &mut Vec<Self>, listed: &ListedSegment) {
        let segment = &listed.segment;
        if let Some(run) = runs.last_mut().filter(|run| run.is_continued_by(listed)) {
            run.bytes += segment.bytes;
            match run.lengths.last_mut() {
                Some((count, length_ns)) if *length_ns == segment.length_ns => *count += 1,
                _ => run.lengths.push((1, segment.length_ns)),
            }
            return;
        }
        runs.push(Self {
            first: listed.index,
            at_ns: segment.at_ns,
            lengths: vec![(1, segment.length_ns)],
            bytes: segment.bytes,
            on_backup: segment.on_backup,
        });
    }

    fn is_continued_by(&self, listed: &ListedSegment) -> bool {
        let count: u32 = self.lengths.iter().map(|(count, _)| count).sum();
        let length_ns: u64 = self.lengths.iter().map(|(count, length_ns)| u64::from(*count) * length_ns).sum();
        !listed.discontinuity
            && listed.index == self.first + count
            && listed.segment.at_ns == self.at_ns + length_ns
            && listed.segment.on_backup == self.on_backup
    }

    /// Number, begin and length (nanoseconds) of each segment.
    pub fn segments(&self) -> impl Iterator<Item = (u32, u64, u64)> {
        let lengths = self.lengths.iter().flat_map(|(count, length_ns)| (0..*count).map(move |_| *length_ns));
        let mut at_ns = self.at_ns;
        lengths.zip(self.first..).map(move |(length_ns, n)| {
            let begin = at_ns;
            at_ns += length_ns;
            (n, begin, length_ns)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::sequencer::StoredSegment;
    use super::*;

    fn listed(index: u32, at_ns: u64, length_ns: u64, discontinuity: bool, on_backup: bool) -> ListedSegment {
        let segment = StoredSegment { name: String::new(), at_ns, length_ns, bytes: 7, on_backup };
        ListedSegment { index, segment, discontinuity }
    }

    #[test]
    fn runs_say_every_segment_and_a_hole_begins_another() {
        let all = [
            (0, 0, 4, false, false),
            (1, 4, 4, false, false),
            (2, 8, 3, false, false),
            (4, 15, 4, true, false),
            (5, 19, 4, false, true),
        ];
        let mut runs = vec![];
        for (index, at_ns, length_ns, discontinuity, on_backup) in all {
            SegmentRun::push(&mut runs, &listed(index, at_ns, length_ns, discontinuity, on_backup));
        }
        let lengths: Vec<_> = runs.iter().map(|run| run.lengths.clone()).collect();
        assert_eq!(lengths, [vec![(2, 4), (1, 3)], vec![(1, 4)], vec![(1, 4)]]);
        assert_eq!(runs.iter().map(|run| run.bytes).sum::<u64>(), 35);
        let read: Vec<_> = runs.iter().flat_map(SegmentRun::segments).collect();
        assert_eq!(read, all.map(|(index, at_ns, length_ns, _, _)| (index, at_ns, length_ns)));
    }

    #[test]
    fn a_day_of_equal_segments_stays_small() {
        let mut runs = vec![];
        for index in 0..21_600 {
            SegmentRun::push(&mut runs, &listed(index, u64::from(index) * 4_000_000_000, 4_000_000_000, false, false));
        }
        assert!(serde_json::to_string(&runs).unwrap().len() < 150);
    }
}
