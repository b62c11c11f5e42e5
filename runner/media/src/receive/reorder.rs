//! The jitter buffer: packets of one RTP stream in any order → whole frames in order.
//!
//! In: packets with their arrival. Out: frames, and holes that were given up. Pure: time is an argument.

use std::collections::BTreeMap;
use std::ops::Add;
use std::time::Duration;

use bytes::Bytes;

use crate::units::{RtpTime, SeqNo};

/// A jump this large is another stretch of the stream, not a hole that retransmission could fill.
const BEYOND_REPAIR: u64 = 3000;
/// Packets that may pile up behind one hole, or in a frame that does not end, and their bytes: beyond it the hole, or the
/// frame, is given up early, so that memory is bounded. Two seconds of 50 Mbit/s are 12.5 MB.
const MOST_WAITING: usize = 20_000;
const MOST_BYTES: usize = 16 << 20;
/// How far before the first packet seen the stream may really have begun, and for how long it is looked out for.
const EARLIER_START: u64 = 64;
const EARLIER_WAIT: Duration = Duration::from_millis(100);

/// One RTP packet as it came off the wire, retransmissions already mapped back onto the stream they belong to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Extended: never wraps.
    pub seq: SeqNo,
    /// Extended RTP time in ticks of the codec's clock.
    pub rtp: RtpTime,
    /// The codec says that a frame may begin here. Always true for sound.
    pub starts: bool,
    /// The frame is over after this packet: the marker bit of video; always true for sound.
    pub ends: bool,
    /// Empty: padding, which takes a sequence number and says nothing.
    pub payload: Bytes,
    /// When it arrived, since the source began.
    pub at: Duration,
}

/// The jitter buffer of one RTP stream.
///
/// Without loss it adds no delay: a frame leaves with its last packet. A hole is waited for, then declared lost, and
/// everything of the frame it tore is dropped with it.
#[derive(Debug)]
pub struct Reorder {
    reorder_wait: Duration,
    waiting: BTreeMap<SeqNo, Packet>,
    /// Of their payloads.
    bytes: usize,
    /// First sequence number not yet released or given up.
    next: Option<SeqNo>,
    /// Within the frame at the head: everything from `next` up to here is present.
    seen_to: SeqNo,
    /// The packet before `next` ended a frame.
    clean: bool,
    released_any: bool,
    began: Option<Duration>,
    blocked_since: Option<Duration>,
    highest: SeqNo,
    counts: ReorderCounts,
}

/// Packets of one stream since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReorderCounts {
    /// Arrived, each counted once.
    pub packets: u64,
    /// Never came.
    pub lost: u64,
    /// Came after a later one, by retransmission or by another path.
    pub recovered: u64,
    /// Came when it was no longer waited for, or twice.
    pub late: u64,
    /// Arrived, but their frame could not be completed.
    pub torn: u64,
}

impl Add for ReorderCounts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            packets: self.packets + other.packets,
            lost: self.lost + other.lost,
            recovered: self.recovered + other.recovered,
            late: self.late + other.late,
            torn: self.torn + other.torn,
        }
    }
}

/// What [`Reorder::next`] gives.
#[derive(Debug, PartialEq, Eq)]
pub enum ReorderOutput {
    /// All packets of one frame, padding taken out.
    Frame(Vec<Packet>),
    /// So many packets are given up. What follows is not continuous with what came before.
    Lost(u64),
    /// Something is missing; ask again then, or after the next packet.
    WaitUntil(Duration),
    Empty,
}

impl Reorder {
    /// `reorder_wait`: how long a hole is waited for.
    pub fn new(reorder_wait: Duration) -> Self {
        Self {
            reorder_wait,
            waiting: BTreeMap::new(),
            bytes: 0,
            next: None,
            seen_to: SeqNo::default(),
            clean: false,
            released_any: false,
            began: None,
            blocked_since: None,
            highest: SeqNo::default(),
            counts: ReorderCounts::default(),
        }
    }

    /// Counts until now.
    pub fn counts(&self) -> ReorderCounts {
        self.counts
    }

    /// Since when the oldest hole is there.
    pub fn blocked_since(&self) -> Option<Duration> {
        self.blocked_since
    }

    /// Takes a packet in any order; what comes twice or too late is counted and dropped.
    pub fn put(&mut self, packet: Packet) {
        let seq = packet.seq;
        self.began.get_or_insert(packet.at);
        match self.next {
            None => {
                self.next = Some(seq);
                self.seen_to = seq;
            }
            Some(next) if seq < next => {
                let still_beginning = !self.released_any && next.since(seq) <= EARLIER_START;
                if !still_beginning {
                    self.counts.late += 1;
                    return;
                }
                self.next = Some(seq);
                self.seen_to = seq;
            }
            Some(_) => {}
        }
        if self.waiting.contains_key(&seq) {
            self.counts.late += 1;
            return;
        }
        self.counts.packets += 1;
        if seq < self.highest {
            self.counts.recovered += 1;
        }
        self.highest = self.highest.max(seq);
        self.bytes += packet.payload.len();
        self.waiting.insert(seq, packet);
    }

    /// Call until it says `WaitUntil` or `Empty`.
    pub fn next(&mut self, now: Duration) -> ReorderOutput {
        let Some(mut next) = self.next else { return ReorderOutput::Empty };
        // Padding between frames, and the headless rest of a torn frame, go first.
        while let Some(packet) = self.waiting.get(&next) {
            let padding = packet.payload.is_empty();
            let headless = !self.clean && !packet.starts && !padding;
            if !padding && !headless {
                break;
            }
            if headless
                && !self.is_full()
                && let Some(until) = self.earlier_until(now)
            {
                return ReorderOutput::WaitUntil(until);
            }
            if headless {
                self.counts.torn += 1;
            }
            self.bytes -= packet.payload.len();
            self.waiting.remove(&next);
            next = next.next();
            self.advance(next);
        }
        if self.waiting.is_empty() {
            self.blocked_since = None;
            return ReorderOutput::Empty;
        }
        if let Some(end) = self.frame_end(next) {
            let frame = self.take_to(end);
            self.advance(end);
            self.clean = true;
            self.released_any = true;
            return ReorderOutput::Frame(frame.into_values().filter(|packet| !packet.payload.is_empty()).collect());
        }
        let is_full = self.is_full();
        let Some((&beyond, _)) = self.waiting.range(self.seen_to..).next() else {
            if is_full {
                let end = self.seen_to;
                return self.give_up(end);
            }
            // Only the rest of the newest frame is missing; nothing says yet that it is lost.
            return match self.reorder_wait_left(now) {
                Some(until) => ReorderOutput::WaitUntil(until),
                None => ReorderOutput::WaitUntil(now.saturating_add(self.reorder_wait)),
            };
        };
        // Counted from when it could first be known, not from when it became the oldest: many holes do not add up.
        let since = self.waiting.get(&beyond).map_or(now, |packet| packet.at.min(now));
        self.blocked_since = Some(self.blocked_since.map_or(since, |before| before.min(since)));
        let hopeless = beyond.since(self.seen_to) > BEYOND_REPAIR || is_full;
        match self.reorder_wait_left(now) {
            Some(until) if !hopeless => ReorderOutput::WaitUntil(until),
            _ => self.give_up(beyond),
        }
    }

    /// No more packets will come: everything whole leaves, everything torn is dropped.
    pub fn flush(&mut self) -> Vec<ReorderOutput> {
        let mut out = Vec::new();
        while let Some((&last, _)) = self.waiting.last_key_value() {
            match self.next(Duration::MAX) {
                ReorderOutput::WaitUntil(_) | ReorderOutput::Empty => {
                    let end = last.next();
                    self.counts.torn += self.take_to(end).len() as u64;
                    self.advance(end);
                }
                step => out.push(step),
            }
        }
        out
    }

    /// One past the last packet of the frame that begins at `from`, when all of it is here.
    fn frame_end(&mut self, from: SeqNo) -> Option<SeqNo> {
        let head = self.waiting.get(&from)?;
        if !self.clean && !head.starts {
            return None;
        }
        let rtp = head.rtp;
        while let Some(packet) = self.waiting.get(&self.seen_to) {
            let padding = packet.payload.is_empty();
            if !padding && packet.rtp != rtp {
                return Some(self.seen_to);
            }
            self.seen_to = self.seen_to.next();
            if !padding && packet.ends {
                return Some(self.seen_to);
            }
        }
        None
    }

    /// Before the first frame an earlier packet may still come: the beginning of what the oldest packet goes on with.
    fn earlier_until(&self, now: Duration) -> Option<Duration> {
        let until = self.began?.saturating_add(EARLIER_WAIT.min(self.reorder_wait));
        (!self.released_any && now < until).then_some(until)
    }

    /// No more may wait.
    fn is_full(&self) -> bool {
        self.waiting.len() > MOST_WAITING || self.bytes > MOST_BYTES
    }

    /// Packets before this one leave the buffer.
    fn take_to(&mut self, end: SeqNo) -> BTreeMap<SeqNo, Packet> {
        let rest = self.waiting.split_off(&end);
        let taken = std::mem::replace(&mut self.waiting, rest);
        self.bytes -= taken.values().map(|packet| packet.payload.len()).sum::<usize>();
        taken
    }

    /// Bytes of the payloads that wait.
    #[cfg(any(test, feature = "testing"))]
    pub fn held_bytes(&self) -> usize {
        self.bytes
    }

    fn give_up(&mut self, up_to: SeqNo) -> ReorderOutput {
        let torn = self.take_to(up_to).len() as u64;
        self.counts.torn += torn;
        let from = self.next.unwrap_or(up_to);
        let lost = up_to.since(from).saturating_sub(torn);
        self.counts.lost += lost;
        self.clean = false;
        self.advance(up_to);
        ReorderOutput::Lost(lost)
    }

    fn advance(&mut self, next: SeqNo) {
        self.next = Some(next);
        self.seen_to = next;
        self.blocked_since = None;
    }

    /// `None`: waited long enough.
    fn reorder_wait_left(&mut self, now: Duration) -> Option<Duration> {
        let since = *self.blocked_since.get_or_insert(now);
        let until = since.saturating_add(self.reorder_wait);
        (now < until).then_some(until)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const REORDER_WAIT: Duration = Duration::from_millis(100);

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    /// Frames of `size` packets each; the payload names the packet.
    fn packet(seq: u64, size: u64, at: Duration) -> Packet {
        let place = seq % size;
        Packet {
            seq: SeqNo::new(seq),
            rtp: RtpTime::new(seq / size * 3000),
            starts: place == 0,
            ends: place == size - 1,
            payload: seq.to_be_bytes().to_vec().into(),
            at,
        }
    }

    fn seqs(next: &ReorderOutput) -> Vec<u64> {
        match next {
            ReorderOutput::Frame(packets) => packets.iter().map(|packet| packet.seq.since(SeqNo::default())).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_whole_frame_leaves_at_once() {
        let mut reorder = Reorder::new(REORDER_WAIT);
        for seq in 0..3 {
            reorder.put(packet(seq, 3, ms(0)));
        }
        assert_eq!(seqs(&reorder.next(ms(0))), [0, 1, 2]);
        assert_eq!(reorder.next(ms(0)), ReorderOutput::Empty);
    }

    #[test]
    fn a_gap_is_waited_for_and_then_declared_lost_with_its_frame() {
        let mut reorder = Reorder::new(REORDER_WAIT);
        for seq in [0, 1, 2, 4, 5, 6, 7, 8] {
            reorder.put(packet(seq, 3, ms(0)));
        }
        assert_eq!(seqs(&reorder.next(ms(0))), [0, 1, 2]);
        assert_eq!(reorder.next(ms(10)), ReorderOutput::WaitUntil(ms(100)), "counted from its discovery");
        assert_eq!(reorder.next(ms(100)), ReorderOutput::Lost(1));
        assert_eq!(seqs(&reorder.next(ms(100))), [6, 7, 8], "packets 4 and 5 are torn");
        assert_eq!(reorder.counts().torn, 2);
    }

    #[test]
    fn many_holes_are_waited_for_together() {
        let mut reorder = Reorder::new(REORDER_WAIT);
        for n in 0..50 {
            reorder.put(packet(n * 2, 1, ms(n * 10)));
        }
        let (mut frames, mut lost) = (0, 0);
        loop {
            match reorder.next(ms(500)) {
                ReorderOutput::Frame(_) => frames += 1,
                ReorderOutput::Lost(packets) => lost += packets,
                ReorderOutput::WaitUntil(_) | ReorderOutput::Empty => break,
            }
        }
        assert_eq!((frames, lost), (41, 40), "all that is older than the wait");
    }

    #[test]
    fn a_packet_that_comes_back_in_time_is_not_lost() {
        let mut reorder = Reorder::new(REORDER_WAIT);
        for seq in [0, 2, 3] {
            reorder.put(packet(seq, 2, ms(0)));
        }
        assert_eq!(reorder.next(ms(0)), ReorderOutput::WaitUntil(ms(100)));
        reorder.put(packet(1, 2, ms(90)));
        assert_eq!(seqs(&reorder.next(ms(90))), [0, 1]);
        assert_eq!(seqs(&reorder.next(ms(90))), [2, 3]);
        assert_eq!((reorder.counts().lost, reorder.counts().recovered), (0, 1));
    }

    #[test]
    fn a_stream_that_begins_in_the_middle_of_a_frame_begins_with_the_next() {
        let mut reorder = Reorder::new(Duration::from_secs(2));
        for seq in 1..9 {
            reorder.put(packet(seq, 3, ms(0)));
        }
        assert_eq!(reorder.next(ms(0)), ReorderOutput::WaitUntil(ms(100)));
        assert_eq!(seqs(&reorder.next(ms(100))), [3, 4, 5]);
        assert_eq!((reorder.counts().torn, reorder.counts().lost), (2, 0));
    }

    #[test]
    fn padding_between_and_inside_frames_is_not_a_hole() {
        let mut reorder = Reorder::new(REORDER_WAIT);
        for seq in 0..5 {
            let mut packet = packet(seq, 1, ms(0));
            packet.rtp = RtpTime::new(if seq < 2 { 0 } else { 3000 });
            packet.ends = seq == 4;
            if seq == 1 || seq == 3 {
                packet.payload = Default::default();
            }
            reorder.put(packet);
        }
        assert_eq!(seqs(&reorder.next(ms(0))), [0], "a new RTP time ends a frame whose marker is missing");
        assert_eq!(seqs(&reorder.next(ms(0))), [2, 4]);
    }

    #[test]
    fn a_frame_that_does_not_end_is_given_up() {
        let mut reorder = Reorder::new(Duration::from_secs(2));
        let endless = |seq: u64| Packet { ends: false, rtp: RtpTime::new(0), ..packet(seq, 1, ms(0)) };
        let mut given_up = 0;
        for seq in 0..3 * MOST_WAITING as u64 {
            reorder.put(endless(seq));
            match reorder.next(ms(0)) {
                ReorderOutput::Lost(0) => given_up += 1,
                other => assert!(matches!(other, ReorderOutput::WaitUntil(_)), "{other:?}"),
            }
        }
        assert_eq!(given_up, 2);
        assert!(reorder.waiting.len() <= MOST_WAITING && reorder.held_bytes() <= 8 * MOST_WAITING);
        // So is one whose packets are large, and what comes before any beginning.
        let mut reorder = Reorder::new(Duration::from_secs(2));
        let large: Bytes = vec![0; 60_000].into();
        for seq in 0..2000 {
            reorder.put(Packet { payload: large.clone(), starts: seq < 1000, ..endless(seq) });
            reorder.next(ms(0));
            assert!(reorder.held_bytes() <= MOST_BYTES + large.len());
        }
        let mut reorder = Reorder::new(Duration::from_secs(2));
        for seq in 0..2 * MOST_WAITING as u64 {
            reorder.put(Packet { starts: false, ..endless(seq) });
            reorder.next(ms(0));
            assert!(reorder.waiting.len() <= MOST_WAITING);
        }
    }

    proptest! {
        #[test]
        fn any_order_duplication_and_loss_yields_only_whole_frames_in_order(
            size in 1u64..5,
            arrivals in prop::collection::vec((0u64..200, 0u64..30, any::<bool>()), 0..400),
        ) {
            let mut reorder = Reorder::new(REORDER_WAIT);
            let mut now = Duration::ZERO;
            let mut last = None;
            let mut check = |step: &ReorderOutput| {
                if let ReorderOutput::Frame(packets) = step {
                    let seqs: Vec<u64> = packets.iter().map(|packet| packet.seq.since(SeqNo::default())).collect();
                    assert_eq!(seqs.len() as u64, size);
                    assert_eq!(seqs[0] % size, 0);
                    assert!(seqs.windows(2).all(|pair| pair[1] == pair[0] + 1));
                    assert!(last.is_none_or(|last| last < seqs[0]));
                    last = seqs.last().copied();
                }
            };
            for (seq, wait, twice) in arrivals {
                now += ms(wait);
                reorder.put(packet(1000 + seq, size, now));
                if twice {
                    reorder.put(packet(1000 + seq, size, now));
                }
                for _ in 0..1000 {
                    let step = reorder.next(now);
                    check(&step);
                    if let ReorderOutput::WaitUntil(until) = step {
                        prop_assert!(until > now);
                    }
                    if matches!(step, ReorderOutput::WaitUntil(_) | ReorderOutput::Empty) {
                        break;
                    }
                }
            }
            reorder.flush().iter().for_each(check);
            prop_assert!(reorder.waiting.is_empty());
        }

        #[test]
        fn shuffled_within_the_reorder_wait_nothing_is_lost(swaps in prop::collection::vec(0usize..299, 0..200), size in 1u64..4) {
            let mut order: Vec<u64> = (0..300).collect();
            for at in swaps {
                order.swap(at, (at + 7).min(299));
            }
            let mut reorder = Reorder::new(Duration::from_secs(10));
            let mut frames = 0;
            // A start that is known: the first packet first.
            reorder.put(packet(0, size, ms(0)));
            for (n, seq) in order.iter().filter(|seq| **seq > 0).enumerate() {
                reorder.put(packet(*seq, size, ms(n as u64)));
                while let ReorderOutput::Frame(_) = reorder.next(ms(n as u64)) {
                    frames += 1;
                }
            }
            prop_assert_eq!(frames, 300 / size);
            prop_assert_eq!(reorder.counts().lost, 0);
        }
    }
}
