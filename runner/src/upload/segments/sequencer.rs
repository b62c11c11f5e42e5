//! Which segments playlists name: uploads finish in any order, a playlist grows in the order of the recording and names
//! only what is stored. Pure: results of uploads come in, what may be listed goes out.

use std::collections::BTreeMap;

/// A segment that is in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredSegment {
    /// Path of its file, relative to the playlist.
    pub name: String,
    /// Where it begins, nanoseconds of media time.
    pub at_ns: u64,
    /// Until the next one begins, nanoseconds.
    pub length_ns: u64,
    /// Its size.
    pub bytes: u64,
    /// It is in the backup store.
    pub on_backup: bool,
}

/// A segment that playlists name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedSegment {
    /// Its number.
    pub index: u32,
    /// What it is called and where it belongs.
    pub segment: StoredSegment,
    /// Segments between it and the one listed before it are lost.
    pub discontinuity: bool,
}

/// What became of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SegmentOutcome {
    /// It can be played.
    Stored(StoredSegment),
    /// It was not written whole, or the store refused it for longer than `max_outage_ms`.
    Lost,
}

/// Of all segments that are listed: what the SegmentsInfo of the API says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SegmentTotals {
    /// How many.
    pub count: u64,
    /// Sum of their sizes.
    pub bytes: u64,
    /// Sum of their lengths, nanoseconds.
    pub length_ns: u64,
    /// Segments that are not listed because they are lost.
    pub lost: u64,
}

/// Puts the segments of one output in order.
#[derive(Clone, Debug, Default)]
pub struct SegmentSequencer {
    /// The first segment whose outcome is not known.
    next: u32,
    /// Behind it.
    waiting: BTreeMap<u32, SegmentOutcome>,
    /// The last known segment is lost.
    gap: bool,
    totals: SegmentTotals,
}

impl SegmentSequencer {
    /// Segment `index` is stored or lost; the first outcome counts. Answers what playlists name from now on.
    pub fn resolved(&mut self, index: u32, outcome: SegmentOutcome) -> Vec<ListedSegment> {
        if index >= self.next {
            self.waiting.entry(index).or_insert(outcome);
        }
        let mut listed = vec![];
        while let Some(outcome) = self.waiting.remove(&self.next) {
            listed.extend(self.list(self.next, outcome));
            self.next += 1;
        }
        listed
    }

    /// No outcome will come any more: what has none is lost. Answers what playlists name behind it.
    pub fn close(&mut self) -> Vec<ListedSegment> {
        let mut listed = vec![];
        for (index, outcome) in std::mem::take(&mut self.waiting) {
            if index > self.next {
                self.totals.lost += u64::from(index - self.next);
                self.gap = true;
            }
            listed.extend(self.list(index, outcome));
            self.next = index + 1;
        }
        listed
    }

    /// Stored segments that wait for one before them.
    pub fn waiting(&self) -> impl Iterator<Item = (u32, &StoredSegment)> {
        self.waiting.iter().filter_map(|(index, outcome)| match outcome {
            SegmentOutcome::Stored(segment) => Some((*index, segment)),
            SegmentOutcome::Lost => None,
        })
    }

    /// Of everything listed so far.
    pub fn totals(&self) -> SegmentTotals {
        self.totals
    }

    fn list(&mut self, index: u32, outcome: SegmentOutcome) -> Option<ListedSegment> {
        let SegmentOutcome::Stored(segment) = outcome else {
            self.gap = true;
            self.totals.lost += 1;
            return None;
        };
        self.totals.count += 1;
        self.totals.bytes += segment.bytes;
        self.totals.length_ns += segment.length_ns;
        Some(ListedSegment { index, segment, discontinuity: std::mem::take(&mut self.gap) })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stored(index: u32) -> SegmentOutcome {
        let at_ns = u64::from(index) * 4_000_000_000;
        SegmentOutcome::Stored(StoredSegment {
            name: index.to_string(),
            at_ns,
            length_ns: 4_000_000_000,
            bytes: 1000,
            on_backup: false,
        })
    }

    fn names(listed: &[ListedSegment]) -> Vec<&str> {
        assert!(listed.iter().all(|listed| listed.segment.name == listed.index.to_string()));
        listed.iter().map(|listed| listed.segment.name.as_str()).collect()
    }

    #[test]
    fn only_what_has_no_hole_before_it_is_listed() {
        let mut sequencer = SegmentSequencer::default();
        assert!(sequencer.resolved(2, stored(2)).is_empty());
        assert_eq!(names(&sequencer.resolved(0, stored(0))), ["0"]);
        assert_eq!(names(&sequencer.resolved(1, stored(1))), ["1", "2"]);
        // An answer that comes twice, from a retry.
        assert!(sequencer.resolved(1, stored(1)).is_empty());
        assert_eq!(sequencer.totals().count, 3);
    }

    #[test]
    fn what_follows_a_lost_segment_is_a_discontinuity() {
        let mut sequencer = SegmentSequencer::default();
        sequencer.resolved(3, stored(3));
        sequencer.resolved(1, SegmentOutcome::Lost);
        sequencer.resolved(0, stored(0));
        let entries = sequencer.resolved(2, SegmentOutcome::Lost);
        assert_eq!(names(&entries), ["3"]);
        assert!(entries[0].discontinuity);
        assert!(!sequencer.resolved(4, stored(4))[0].discontinuity);
        // Stored after all: the list went on without it.
        assert!(sequencer.resolved(2, stored(2)).is_empty());
        let expected = SegmentTotals { count: 3, bytes: 3000, length_ns: 12_000_000_000, lost: 2 };
        assert_eq!(sequencer.totals(), expected);
    }

    #[test]
    fn the_end_lists_what_waited_for_answers_that_never_came() {
        let mut sequencer = SegmentSequencer::default();
        sequencer.resolved(0, stored(0));
        sequencer.resolved(3, stored(3));
        sequencer.resolved(4, SegmentOutcome::Lost);
        sequencer.resolved(6, stored(6));
        let entries = sequencer.close();
        assert_eq!(names(&entries), ["3", "6"]);
        assert!(entries.iter().all(|entry| entry.discontinuity));
        assert_eq!(sequencer.totals().lost, 4);
        assert!(sequencer.close().is_empty());
    }

    proptest! {
        /// Whatever the order of the answers, the list is the recording's, and a hole shows exactly where one is.
        #[test]
        fn every_order_of_answers_gives_the_same_list(
            order in Just((0..20u32).collect::<Vec<_>>()).prop_shuffle(),
            lost in proptest::collection::vec(any::<bool>(), 20),
        ) {
            let mut sequencer = SegmentSequencer::default();
            let mut entries = vec![];
            for index in order {
                let outcome = if lost[index as usize] { SegmentOutcome::Lost } else { stored(index) };
                entries.extend(sequencer.resolved(index, outcome));
            }
            let expected: Vec<(String, bool)> = (0..20usize)
                .filter(|index| !lost[*index])
                .map(|index| (index.to_string(), index > 0 && lost[index - 1]))
                .collect();
            let listed: Vec<(String, bool)> =
                entries.into_iter().map(|entry| (entry.segment.name, entry.discontinuity)).collect();
            prop_assert_eq!(listed, expected);
            prop_assert!(sequencer.close().is_empty());
        }
    }
}
