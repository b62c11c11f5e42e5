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
    /// Number of the first segment of each media process but the first one, ascending.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub processes: Vec<u32>,
}

impl SegmentsCheckpoint {
    /// Behind every segment that it knows.
    pub fn next_n(&self) -> u32 {
        let listed = self.listed.last().map(|run| {
            let count = run.lengths.iter().fold(0u32, |sum, (count, _)| sum.saturating_add(*count));
            run.first.saturating_add(count)
        });
        let others = self.unlisted.iter().map(|segment| segment.n).chain(self.open.map(|(n, _)| n));
        others.map(|n| n.saturating_add(1)).chain(listed).max().unwrap_or_default()
    }

    /// Unix nanoseconds of the last instant in a whole segment; `None`: there is none.
    pub fn recorded_to(&self) -> Option<i64> {
        let length =
            |run: &SegmentRun| run.segments().last().map(|(_, at_ns, length_ns)| at_ns.saturating_add(length_ns));
        let listed = self.listed.last().and_then(length);
        let unlisted = self.unlisted.iter().map(|segment| segment.at_ns.saturating_add(segment.length_ns)).max();
        Some(self.started_at.saturating_add_unsigned(listed.max(unlisted)?))
    }

    /// Bytes of all whole segments.
    pub fn bytes(&self) -> u64 {
        let listed: u64 = self.listed.iter().map(|run| run.bytes).sum();
        listed.saturating_add(self.unlisted.iter().map(|segment| segment.bytes).sum())
    }
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

/// The listed segments of an output as runs, which grow.
#[derive(Clone, Debug, Default)]
pub struct SegmentRuns {
    runs: Vec<SegmentRun>,
    /// Number and begin (nanoseconds of media) of the segment that would follow.
    next: (u32, u64),
}

impl SegmentRuns {
    /// Adds a segment to the last run, or begins another.
    pub fn push(&mut self, listed: &ListedSegment) {
        let segment = &listed.segment;
        let follows = !listed.discontinuity && self.next == (listed.index, segment.at_ns);
        self.next = (listed.index + 1, segment.at_ns + segment.length_ns);
        if let Some(run) = self.runs.last_mut().filter(|run| follows && run.on_backup == segment.on_backup) {
            run.bytes += segment.bytes;
            match run.lengths.last_mut() {
                Some((count, length_ns)) if *length_ns == segment.length_ns => *count += 1,
                _ => run.lengths.push((1, segment.length_ns)),
            }
            return;
        }
        self.runs.push(SegmentRun {
            first: listed.index,
            at_ns: segment.at_ns,
            lengths: vec![(1, segment.length_ns)],
            bytes: segment.bytes,
            on_backup: segment.on_backup,
        });
    }

    /// All of them.
    pub fn as_slice(&self) -> &[SegmentRun] {
        &self.runs
    }

    /// Begin of the first segment and end of the last, nanoseconds of media.
    pub fn span_ns(&self) -> Option<(u64, u64)> {
        Some((self.runs.first()?.at_ns, self.next.1))
    }
}

impl SegmentRun {
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
        let mut runs = SegmentRuns::default();
        for (index, at_ns, length_ns, discontinuity, on_backup) in all {
            runs.push(&listed(index, at_ns, length_ns, discontinuity, on_backup));
        }
        assert_eq!(runs.span_ns(), Some((0, 23)));
        let runs = runs.as_slice();
        let lengths: Vec<_> = runs.iter().map(|run| run.lengths.clone()).collect();
        assert_eq!(lengths, [vec![(2, 4), (1, 3)], vec![(1, 4)], vec![(1, 4)]]);
        assert_eq!(runs.iter().map(|run| run.bytes).sum::<u64>(), 35);
        let read: Vec<_> = runs.iter().flat_map(SegmentRun::segments).collect();
        assert_eq!(read, all.map(|(index, at_ns, length_ns, _, _)| (index, at_ns, length_ns)));
    }

    #[test]
    fn a_checkpoint_says_where_another_process_goes_on() {
        let mut runs = SegmentRuns::default();
        [(0, 0, 4), (1, 4, 4), (2, 8, 3)]
            .into_iter()
            .for_each(|(index, at_ns, length_ns)| runs.push(&listed(index, at_ns, length_ns, false, false)));
        let names = SegmentNames {
            directory: String::new(),
            playlist: "a.m3u8".into(),
            live_playlist: None,
            prefix: "a".into(),
            suffix: spillway_plan::segment_name::SegmentSuffix::Index,
            format: spillway_plan::segment_name::SegmentFormat::MpegTs,
        };
        let mut checkpoint = SegmentsCheckpoint {
            output: 0,
            names,
            segment_ns: 4,
            folder: PathBuf::new(),
            started_at: 100,
            on_backup: false,
            listed: vec![],
            unlisted: vec![],
            open: None,
            processes: vec![],
        };
        let state = |of: &SegmentsCheckpoint| (of.next_n(), of.recorded_to(), of.bytes());
        assert_eq!(state(&checkpoint), (0, None, 0));
        checkpoint.listed = runs.as_slice().to_vec();
        assert_eq!(state(&checkpoint), (3, Some(111), 21));
        checkpoint.unlisted =
            vec![UnlistedSegment { n: 4, at_ns: 15, length_ns: 4, bytes: 9, stored: false, on_backup: false }];
        assert_eq!(state(&checkpoint), (5, Some(119), 30));
        checkpoint.open = Some((5, 19));
        assert_eq!(state(&checkpoint), (6, Some(119), 30));
    }

    #[test]
    fn a_day_of_equal_segments_stays_small() {
        let mut runs = SegmentRuns::default();
        for index in 0..21_600 {
            runs.push(&listed(index, u64::from(index) * 4_000_000_000, 4_000_000_000, false, false));
        }
        assert!(serde_json::to_string(runs.as_slice()).unwrap().len() < 150);
    }

    /// Sound alone. The square of this number takes minutes.
    #[test]
    fn segments_of_alternating_lengths_take_no_longer_the_more_there_are() {
        let (mut runs, mut at_ns) = (SegmentRuns::default(), 0);
        for index in 0..400_000 {
            let length_ns = 4_000_000_000 + u64::from(index % 2);
            runs.push(&listed(index, at_ns, length_ns, false, false));
            at_ns += length_ns;
        }
        assert_eq!((runs.as_slice().len(), runs.span_ns()), (1, Some((0, at_ns))));
    }
}
