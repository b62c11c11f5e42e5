//! What an output has not sent yet: encoded frames, at most 5 s or 8 MB of them. Over a bound everything up to the newest
//! key frame goes. Pure; [`super::queue`] shares it between threads.

use std::collections::VecDeque;

use bytes::Bytes;

use super::super::MediaKind;
use crate::units::MediaTime;

/// Older than this behind the newest frame: dropped.
const MAX_AGE_NS: u64 = 5_000_000_000;
/// More than this: the oldest are dropped.
const MAX_BYTES: usize = 8 << 20;
/// A new connection begins at a key frame of at most this age; otherwise a fresh one is worth asking for, because
/// players of RTMP never catch up.
const MAX_START_AGE_NS: u64 = 1_000_000_000;

/// An encoded frame. Cheap to clone: outputs share the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamUnit {
    /// Picture or sound.
    pub kind: MediaKind,
    /// Since the recording's beginning.
    pub at: MediaTime,
    /// Decodes without what came before. Sound always does.
    pub key: bool,
    /// An H264 access unit in Annex B, or a raw AAC frame.
    pub data: Bytes,
}

/// How much lies in a ring, and what was dropped so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingStats {
    /// Frames that wait.
    pub units: usize,
    /// Their bytes.
    pub bytes: usize,
    /// From the oldest to the newest that waits, nanoseconds.
    pub lag_ns: u64,
    /// Frames dropped.
    pub dropped: u64,
    /// How often pictures were dropped up to a key frame.
    pub jumps: u64,
}

/// The bounded ring.
#[derive(Debug)]
pub struct UnitRing {
    has_video: bool,
    units: VecDeque<StreamUnit>,
    bytes: usize,
    /// Pictures are refused until the next key frame.
    needs_key_frame: bool,
    dropped: u64,
    jumps: u64,
}

impl UnitRing {
    /// An empty ring; `has_video`: whether pictures will come.
    pub const fn new(has_video: bool) -> Self {
        Self { has_video, units: VecDeque::new(), bytes: 0, needs_key_frame: has_video, dropped: 0, jumps: 0 }
    }

    /// Takes a frame. True: pictures are dropped until a key frame comes, so one is wanted. Said again for every picture
    /// until then; how often an encoder is asked is the caller's decision.
    pub fn put(&mut self, unit: StreamUnit) -> bool {
        let video = unit.kind == MediaKind::Video;
        if video && unit.key {
            self.needs_key_frame = false;
        }
        if video && self.needs_key_frame {
            self.dropped += 1;
            return true;
        }
        let newest = unit.at;
        self.bytes += unit.data.len();
        self.units.push_back(unit);
        while self.is_over(newest) {
            self.jumps += 1;
            match self.newest_key_frame().filter(|at| self.oldest() < *at) {
                Some(key_frame) => self.keep(|unit| unit.at >= key_frame),
                // The open group of pictures alone is too much, or sound is.
                None => {
                    self.needs_key_frame = self.has_video;
                    let half = newest.minus_ns(MAX_AGE_NS / 2);
                    self.keep(|unit| unit.kind == MediaKind::Audio && unit.at >= half);
                    if self.is_over(newest) {
                        self.keep(|_| false);
                    }
                }
            }
        }
        video && self.needs_key_frame
    }

    /// A new connection begins: drops what is before its first picture. True: no key frame is recent enough, one is
    /// wanted.
    pub fn begin(&mut self) -> bool {
        let newest = self.units.back().map_or(MediaTime::ZERO, |unit| unit.at);
        let recent = newest.minus_ns(MAX_START_AGE_NS);
        if !self.has_video {
            self.keep(|unit| unit.at >= recent);
            return false;
        }
        match self.newest_key_frame().filter(|at| *at >= recent) {
            Some(key_frame) => {
                self.keep(|unit| unit.at >= key_frame);
                false
            }
            None => {
                self.keep(|_| false);
                self.needs_key_frame = true;
                true
            }
        }
    }

    /// The oldest frame.
    pub fn pop(&mut self) -> Option<StreamUnit> {
        let unit = self.units.pop_front()?;
        self.bytes -= unit.data.len();
        Some(unit)
    }

    /// What lies here.
    pub fn stats(&self) -> RingStats {
        let newest = self.units.back().map_or(MediaTime::ZERO, |unit| unit.at);
        RingStats {
            units: self.units.len(),
            bytes: self.bytes,
            lag_ns: newest.ns_since(self.oldest()),
            dropped: self.dropped,
            jumps: self.jumps,
        }
    }

    fn is_over(&self, newest: MediaTime) -> bool {
        !self.units.is_empty() && (self.bytes > MAX_BYTES || newest.ns_since(self.oldest()) > MAX_AGE_NS)
    }

    fn oldest(&self) -> MediaTime {
        self.units.front().map_or(MediaTime::MAX, |unit| unit.at)
    }

    fn newest_key_frame(&self) -> Option<MediaTime> {
        self.units.iter().rev().find(|unit| unit.kind == MediaKind::Video && unit.key).map(|unit| unit.at)
    }

    fn keep(&mut self, kept: impl Fn(&StreamUnit) -> bool) {
        let before = self.units.len();
        self.units.retain(kept);
        self.dropped += (before - self.units.len()) as u64;
        self.bytes = self.units.iter().map(|unit| unit.data.len()).sum();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn unit(kind: MediaKind, at_ms: u64, key: bool, bytes: usize) -> StreamUnit {
        let data = Bytes::from(vec![0; bytes]);
        StreamUnit { kind, at: MediaTime::from_ns(at_ms * 1_000_000), key, data }
    }

    fn video(at_ms: u64, key: bool) -> StreamUnit {
        unit(MediaKind::Video, at_ms, key, 100)
    }

    fn audio(at_ms: u64) -> StreamUnit {
        unit(MediaKind::Audio, at_ms, true, 10)
    }

    fn drained(ring: &mut UnitRing) -> Vec<u64> {
        std::iter::from_fn(|| ring.pop()).map(|unit| unit.at.ns() / 1_000_000).collect()
    }

    #[test]
    fn pictures_wait_for_a_key_frame_and_sound_does_not() {
        let mut ring = UnitRing::new(true);
        assert_eq!([ring.put(video(0, false)), ring.put(audio(1)), ring.put(video(33, false))], [true, false, true]);
        assert_eq!([ring.put(video(66, true)), ring.put(video(99, false))], [false, false]);
        assert_eq!(ring.stats(), RingStats { units: 3, bytes: 210, lag_ns: 98_000_000, dropped: 2, jumps: 0 });
        assert_eq!(drained(&mut ring), [1, 66, 99]);
        assert_eq!(ring.stats().bytes, 0);
    }

    #[test]
    fn what_is_older_than_the_newest_key_frame_goes_first() {
        let mut ring = UnitRing::new(true);
        for at in (0..=5000).step_by(100) {
            assert!(!ring.put(video(at, at % 2000 == 0)));
            assert!(!ring.put(audio(at + 1)));
        }
        // 5.001 s: from the key frame at four seconds on.
        let stats = ring.stats();
        assert_eq!((ring.oldest().ns(), stats.jumps, stats.lag_ns), (4_000_000_000, 1, 1_001_000_000));
    }

    #[test]
    fn without_a_second_key_frame_all_pictures_go_and_half_of_the_sound() {
        let mut ring = UnitRing::new(true);
        ring.put(video(0, true));
        let wanted = (100..=5100).step_by(100).map(|at| ring.put(video(at, false)) | ring.put(audio(at)));
        assert_eq!(wanted.filter(|wanted| *wanted).count(), 1);
        let waiting = drained(&mut ring);
        assert_eq!((waiting.first(), waiting.last(), waiting.len()), (Some(&2600), Some(&5100), 26));
        assert!(ring.put(video(5200, false)));
        assert!(!ring.put(video(5300, true)));
    }

    #[test]
    fn a_single_frame_above_the_bound_is_dropped() {
        let mut ring = UnitRing::new(true);
        assert!(ring.put(unit(MediaKind::Video, 0, true, MAX_BYTES + 1)));
        let mut sound = UnitRing::new(false);
        assert!(!sound.put(unit(MediaKind::Audio, 0, true, MAX_BYTES + 1)));
        assert_eq!((ring.stats().units, sound.stats().units), (0, 0));
    }

    #[test]
    fn a_connection_begins_at_a_recent_key_frame() {
        let mut ring = UnitRing::new(true);
        assert!(ring.begin());
        for at in (0..=2500).step_by(100) {
            ring.put(audio(at));
            ring.put(video(at, at == 0 || at == 2000));
        }
        assert!(!ring.begin());
        assert_eq!(drained(&mut ring)[..3], [2000, 2000, 2100]);
        ring.put(video(3000, true));
        ring.put(video(4100, false));
        assert!(ring.begin());
        assert!(drained(&mut ring).is_empty() && ring.put(video(4200, false)) && !ring.put(video(4300, true)));
    }

    #[test]
    fn sound_alone_begins_with_its_last_second() {
        let mut ring = UnitRing::new(false);
        for at in (0..=3000).step_by(500) {
            assert!(!ring.put(audio(at)));
        }
        assert!(!ring.begin());
        assert_eq!(drained(&mut ring), [2000, 2500, 3000]);
    }

    /// What a receiver of the ring's pictures sees.
    #[derive(Default)]
    struct Decoder {
        put: Vec<MediaTime>,
        decoded: Option<MediaTime>,
    }

    impl Decoder {
        /// Every picture but a key frame comes right behind the one that was put before it.
        fn decodes(&mut self, unit: &StreamUnit) -> bool {
            let index = self.put.iter().position(|at| *at == unit.at).unwrap();
            let before = self.decoded.replace(unit.at);
            unit.key || (index > 0 && before == Some(self.put[index - 1]))
        }
    }

    proptest! {
        #[test]
        fn bounds_hold_and_every_picture_decodes(
            has_video in any::<bool>(),
            steps in proptest::collection::vec((0u8..16, 1u64..900, 0usize..3_000_000), 0..60),
        ) {
            let (mut ring, mut decoder, mut at_ms) = (UnitRing::new(has_video), Decoder::default(), 0);
            for (what, later, bytes) in steps {
                at_ms += later;
                match what {
                    0..=6 if has_video => {
                        let unit = unit(MediaKind::Video, at_ms, what == 0, bytes);
                        decoder.put.push(unit.at);
                        ring.put(unit);
                    }
                    0..=8 => {
                        ring.put(unit(MediaKind::Audio, at_ms, true, bytes / 100));
                    }
                    9 => {
                        ring.begin();
                        decoder.decoded = None;
                    }
                    _ => {
                        let unit = ring.pop().filter(|unit| unit.kind == MediaKind::Video);
                        prop_assert!(unit.is_none_or(|unit| decoder.decodes(&unit)));
                    }
                }
                let stats = ring.stats();
                prop_assert!(stats.bytes <= MAX_BYTES && stats.lag_ns <= MAX_AGE_NS);
                prop_assert_eq!(stats.bytes, ring.units.iter().map(|unit| unit.data.len()).sum::<usize>());
            }
        }
    }
}
