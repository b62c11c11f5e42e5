//! Holds packets back behind a hole, so that the hole can still be filled. Pure.
//!
//! str0m remembers a hundred packets of a stream: what is further behind the newest it neither asks for nor accepts. At
//! 5 Mbit/s that is 200 ms, and livekit-server listens to the first request for a packet only 100 ms after it sent it
//! (`pkg/sfu/sequencer.go`). So the newest waits here while an older one is missing.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use crate::units::{SeqNo, Ssrc};

/// How far the newest may run ahead of a hole.
const REACH: u64 = 96;
/// By then all requests for a packet were made and their answers had time to come.
const GIVE_UP: Duration = Duration::from_secs(1);
/// A jump this large is another stretch of the stream.
const ANOTHER_STRETCH: u64 = 3000;

pub(super) struct NackHoldback<T> {
    streams: HashMap<Ssrc, SsrcState<T>>,
}

struct SsrcState<T> {
    /// The newest that was let through.
    top: SeqNo,
    /// Missing before `top`, and since when.
    holes: BTreeMap<SeqNo, Instant>,
    held: VecDeque<(SeqNo, T)>,
}

impl<T> NackHoldback<T> {
    pub(super) fn new() -> Self {
        Self { streams: HashMap::new() }
    }

    /// Gives the packet back when it may pass, now or never later; keeps it for [`NackHoldback::take`] otherwise.
    pub(super) fn put(&mut self, stream: Ssrc, seq: u16, packet: impl FnOnce() -> T, now: Instant) -> bool {
        let stream_state = self.streams.entry(stream).or_insert_with(|| SsrcState {
            // Far from zero, so that what is a little earlier than the first has a number too.
            top: SeqNo::new((1 << 32) + u64::from(seq) - 1),
            holes: BTreeMap::new(),
            held: VecDeque::new(),
        });
        let newest = stream_state.held.back().map_or(stream_state.top, |(held, _)| (*held).max(stream_state.top));
        let seq = newest.extend(seq);
        if seq.abs_diff(newest) > ANOTHER_STRETCH && stream_state.held.is_empty() {
            stream_state.holes.clear();
            stream_state.top = seq;
            return true;
        }
        // Once one waits, all later ones wait behind it; those before it fill holes.
        if seq <= stream_state.top || (stream_state.held.is_empty() && stream_state.reaches(seq)) {
            stream_state.pass(seq, now);
            return true;
        }
        let place = stream_state.held.partition_point(|(held, _)| *held <= seq);
        stream_state.held.insert(place, (seq, packet()));
        false
    }

    /// A packet arrived in the end, by whatever way.
    pub(super) fn arrived(&mut self, stream: Ssrc, seq: u16) {
        if let Some(stream_state) = self.streams.get_mut(&stream)
            && !stream_state.holes.is_empty()
        {
            let seq = stream_state.top.extend(seq);
            stream_state.holes.remove(&seq);
        }
    }

    /// The next packet that need not wait any longer.
    pub(super) fn take(&mut self, now: Instant) -> Option<T> {
        self.streams.values_mut().find_map(|stream_state| {
            while stream_state
                .holes
                .first_entry()
                .is_some_and(|hole| now.saturating_duration_since(*hole.get()) >= GIVE_UP)
            {
                stream_state.holes.pop_first();
            }
            let (next, _) = stream_state.held.front()?;
            if !stream_state.reaches(*next) {
                return None;
            }
            let (seq, packet) = stream_state.held.pop_front()?;
            stream_state.pass(seq, now);
            Some(packet)
        })
    }

    pub(super) fn is_holding(&self) -> bool {
        self.streams.values().any(|stream_state| !stream_state.held.is_empty())
    }

    pub(super) fn close(&mut self, stream: Ssrc) {
        self.streams.remove(&stream);
    }
}

impl<T> SsrcState<T> {
    fn reaches(&self, seq: SeqNo) -> bool {
        self.holes.first_key_value().is_none_or(|(hole, _)| seq.since(*hole) <= REACH)
    }

    fn pass(&mut self, seq: SeqNo, now: Instant) {
        if seq <= self.top {
            self.holes.remove(&seq);
            return;
        }
        // What is further back than str0m remembers is lost whatever we do.
        let first = self.top.next().max(seq.back(REACH));
        self.holes.extend(first.until(seq).map(|hole| (hole, now)));
        self.top = seq;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SSRC: Ssrc = Ssrc::new(1);

    struct TestLink {
        holdback: NackHoldback<u16>,
        now: Instant,
        out: Vec<u16>,
    }

    impl TestLink {
        fn new() -> Self {
            Self { holdback: NackHoldback::new(), now: Instant::now(), out: Vec::new() }
        }

        fn send(&mut self, seqs: impl IntoIterator<Item = u16>) {
            for seq in seqs {
                if self.holdback.put(SSRC, seq, || seq, self.now) {
                    self.holdback.arrived(SSRC, seq);
                    self.out.push(seq);
                }
                self.rest();
            }
        }

        fn rest(&mut self) {
            while let Some(seq) = self.holdback.take(self.now) {
                self.holdback.arrived(SSRC, seq);
                self.out.push(seq);
            }
        }
    }

    #[test]
    fn without_a_hole_nothing_waits() {
        let mut line = TestLink::new();
        line.send((0..1000).map(|n| 65_000u16.wrapping_add(n)));
        assert_eq!(line.out.len(), 1000);
        assert!(!line.holdback.is_holding());
    }

    #[test]
    fn behind_a_hole_a_hundred_pass_and_the_rest_waits_until_it_is_filled() {
        let mut line = TestLink::new();
        line.send([65_500]);
        line.send((0..300).map(|n| 65_502u16.wrapping_add(n)));
        let passed = line.out.len();
        assert!((90..100).contains(&passed), "{passed}");
        line.holdback.arrived(SSRC, 65_501);
        line.rest();
        assert_eq!(line.out.len(), 301);
        assert!(line.out.windows(2).all(|pair| pair[1].wrapping_sub(pair[0]) < 3), "in order");
    }

    #[test]
    fn a_hole_that_stays_is_given_up() {
        let mut line = TestLink::new();
        line.send((0..400).filter(|n| *n != 10));
        assert!(line.holdback.is_holding());
        line.now += GIVE_UP;
        line.rest();
        assert_eq!(line.out.len(), 399);
    }

    #[test]
    fn the_next_hole_is_held_for_too() {
        let mut line = TestLink::new();
        line.send((0..400).filter(|n| *n != 10 && *n != 150));
        line.holdback.arrived(SSRC, 10);
        line.rest();
        assert_eq!(line.out.last(), Some(&(150 + REACH as u16)));
        line.send([150]);
        assert_eq!(line.out.len(), 399);
    }

    #[test]
    fn a_late_packet_passes_at_once() {
        let mut line = TestLink::new();
        line.send((0..400).filter(|n| *n != 10));
        line.send([10]);
        assert_eq!(line.out.len(), 400);
    }

    #[test]
    fn another_stretch_of_numbers_is_no_hole() {
        let mut line = TestLink::new();
        line.send([1, 2, 3, 20_000, 20_001]);
        line.send(20_002..20_200);
        assert_eq!(line.out.len(), 5 + 198);
    }
}
