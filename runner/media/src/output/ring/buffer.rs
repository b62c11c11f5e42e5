//! What an output has not sent yet: frames in order of time, at most 5 s or 8 MB of them. Over a bound everything up to the
//! newest key frame goes. Sound of a time whose pictures are still to come waits for them: a player takes what comes as it
//! comes, and a machine that is too slow makes pictures seconds after their sound.
//! Pure; [`super::UnitRing`] shares it between threads.

use std::collections::VecDeque;

use crate::encoded::{EncodedUnit, MediaKind};

/// Older than this behind the newest frame: dropped.
const MAX_AGE_NS: u64 = 5_000_000_000;
/// More than this: the oldest are dropped.
const MAX_BYTES: usize = 8 << 20;
/// A new connection begins at a key frame of at most this age; otherwise a fresh one is worth asking for, because
/// players of RTMP never catch up.
const MAX_START_AGE_NS: u64 = 1_000_000_000;
/// Sound may be sent so much before the pictures of its time. Servers take it without a warning.
const SOUND_AHEAD_NS: u64 = 300_000_000;

/// How much lies in a ring, and what was dropped so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingStats {
    /// Frames that wait.
    pub units: usize,
    /// Their bytes.
    pub bytes: usize,
    /// From the oldest to the newest that could be sent, nanoseconds.
    pub lag_ns: u64,
    /// Frames dropped.
    pub dropped: u64,
    /// How often pictures were dropped up to a key frame.
    pub jumps: u64,
}

/// How much may wait, and what goes when it is more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RingBounds {
    /// 5 s or 8 MB of pictures and their sound; everything up to a key frame goes.
    Pictures,
    /// The same of sound alone; the older half goes.
    Sound,
    /// So many nanoseconds of sound, each frame of which is of use without the others; the oldest goes.
    Samples {
        /// From the oldest to the newest.
        max_ns: u64,
    },
}

/// The bounded queue. Of its pictures every one decodes: it is a key frame, or the one before it was taken or lies before
/// it.
#[derive(Debug)]
pub struct UnitBuffer {
    bounds: RingBounds,
    /// In order of time.
    units: VecDeque<EncodedUnit>,
    bytes: usize,
    /// Pictures are refused until the next key frame.
    needs_key_frame: bool,
    /// Time of the newest picture that came, taken or not.
    pictures_to: u64,
    /// Nothing comes any more.
    ended: bool,
    dropped: u64,
    jumps: u64,
}

impl UnitBuffer {
    /// Empty.
    pub const fn new(bounds: RingBounds) -> Self {
        Self {
            bounds,
            units: VecDeque::new(),
            bytes: 0,
            needs_key_frame: matches!(bounds, RingBounds::Pictures),
            pictures_to: 0,
            ended: false,
            dropped: 0,
            jumps: 0,
        }
    }

    /// Takes a frame. After pictures were dropped the next ones are too, up to a key frame: the encoder makes one on its
    /// grid, and none is asked for, because it would be in the files as well.
    pub fn put(&mut self, unit: EncodedUnit) {
        let video = unit.kind == MediaKind::Video;
        if video {
            self.pictures_to = self.pictures_to.max(unit.at_ns);
        }
        if video && unit.key {
            self.needs_key_frame = false;
        }
        if video && self.needs_key_frame {
            self.dropped += 1;
        } else {
            self.bytes += unit.data.len();
            let later = self.units.iter().rev().take_while(|other| other.at_ns > unit.at_ns).count();
            self.units.insert(self.units.len() - later, unit);
        }
        self.keep_bounds();
    }

    /// Also a picture that is refused makes sound sendable, and what lies there old.
    fn keep_bounds(&mut self) {
        while self.is_over() {
            if let RingBounds::Samples { .. } = self.bounds {
                self.pop();
                self.dropped += 1;
                continue;
            }
            self.jumps += 1;
            match self.newest_key_frame().filter(|at| self.oldest() < *at) {
                Some(key_frame) => self.keep(|unit| unit.at_ns >= key_frame),
                // The open group of pictures alone is too much, or sound is.
                None => {
                    self.needs_key_frame = self.has_video();
                    let half = self.newest().saturating_sub(MAX_AGE_NS / 2);
                    self.keep(|unit| unit.kind == MediaKind::Audio && unit.at_ns >= half);
                    if self.is_over() {
                        self.keep(|_| false);
                    }
                }
            }
        }
    }

    /// A new connection begins: drops what is before its first picture. True: no key frame is recent enough, one is
    /// wanted.
    pub fn begin(&mut self) -> bool {
        let recent = self.newest().saturating_sub(MAX_START_AGE_NS);
        if !self.has_video() {
            self.keep(|unit| unit.at_ns >= recent);
            return false;
        }
        match self.newest_key_frame().filter(|at| *at >= recent) {
            Some(key_frame) => {
                self.keep(|unit| unit.at_ns >= key_frame);
                false
            }
            None => {
                // Sound of pictures that are still to come is theirs.
                let pictures_to = self.pictures_to;
                self.keep(|unit| unit.kind == MediaKind::Audio && unit.at_ns > pictures_to);
                self.needs_key_frame = true;
                true
            }
        }
    }

    /// Nothing comes any more: sound waits for no picture.
    pub fn finish(&mut self) {
        self.ended = true;
    }

    /// The oldest frame that may be sent.
    pub fn pop(&mut self) -> Option<EncodedUnit> {
        let open_to = self.open_to();
        self.units.front().filter(|unit| unit.at_ns <= open_to)?;
        let unit = self.units.pop_front()?;
        self.bytes -= unit.data.len();
        Some(unit)
    }

    /// Drops everything.
    pub fn clear(&mut self) {
        self.keep(|_| false);
    }

    /// What lies here.
    pub fn stats(&self) -> RingStats {
        RingStats {
            units: self.units.len(),
            bytes: self.bytes,
            lag_ns: self.newest().saturating_sub(self.oldest()),
            dropped: self.dropped,
            jumps: self.jumps,
        }
    }

    /// Pictures come, and a connection begins at a key frame.
    pub fn has_video(&self) -> bool {
        self.bounds == RingBounds::Pictures
    }

    fn is_over(&self) -> bool {
        let max_ns = match self.bounds {
            RingBounds::Pictures | RingBounds::Sound => MAX_AGE_NS,
            RingBounds::Samples { max_ns } => max_ns,
        };
        !self.units.is_empty() && (self.bytes > MAX_BYTES || self.newest().saturating_sub(self.oldest()) > max_ns)
    }

    /// What is later waits for pictures.
    fn open_to(&self) -> u64 {
        if self.has_video() && !self.ended { self.pictures_to.saturating_add(SOUND_AHEAD_NS) } else { u64::MAX }
    }

    /// Of what may be sent.
    fn newest(&self) -> u64 {
        self.units.back().map_or(0, |unit| unit.at_ns).min(self.open_to())
    }

    fn oldest(&self) -> u64 {
        self.units.front().map_or(u64::MAX, |unit| unit.at_ns)
    }

    fn newest_key_frame(&self) -> Option<u64> {
        self.units.iter().rev().find(|unit| unit.kind == MediaKind::Video && unit.key).map(|unit| unit.at_ns)
    }

    fn keep(&mut self, kept: impl Fn(&EncodedUnit) -> bool) {
        let before = self.units.len();
        self.units.retain(kept);
        self.dropped += (before - self.units.len()) as u64;
        self.bytes = self.units.iter().map(|unit| unit.data.len()).sum();
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::encoded::StreamNumber;

    fn unit(kind: MediaKind, at_ms: u64, key: bool, bytes: usize) -> EncodedUnit {
        let stream = StreamNumber(u8::from(kind == MediaKind::Audio));
        EncodedUnit {
            stream,
            kind,
            key,
            at_ns: at_ms * 1_000_000,
            offset_ns: 0,
            duration_ns: 0,
            data: Bytes::from(vec![0; bytes]),
        }
    }

    fn video(at_ms: u64, key: bool) -> EncodedUnit {
        unit(MediaKind::Video, at_ms, key, 100)
    }

    fn audio(at_ms: u64) -> EncodedUnit {
        unit(MediaKind::Audio, at_ms, true, 10)
    }

    fn drained(buffer: &mut UnitBuffer) -> Vec<u64> {
        std::iter::from_fn(|| buffer.pop()).map(|unit| unit.at_ns / 1_000_000).collect()
    }

    #[test]
    fn pictures_wait_for_a_key_frame_and_sound_does_not() {
        let mut buffer = UnitBuffer::new(RingBounds::Pictures);
        for unit in [video(0, false), audio(1), video(33, false), video(66, true), video(99, false)] {
            buffer.put(unit);
        }
        assert_eq!(buffer.stats(), RingStats { units: 3, bytes: 210, lag_ns: 98_000_000, dropped: 2, jumps: 0 });
        assert_eq!(drained(&mut buffer), [1, 66, 99]);
        assert_eq!(buffer.stats().bytes, 0);
    }

    #[test]
    fn what_is_older_than_the_newest_key_frame_goes_first() {
        let mut buffer = UnitBuffer::new(RingBounds::Pictures);
        for at in (0..=5000).step_by(100) {
            buffer.put(video(at, at % 2000 == 0));
            buffer.put(audio(at + 1));
        }
        // 5.001 s: from the key frame at four seconds on, with the sound of its pictures.
        let stats = buffer.stats();
        assert_eq!((buffer.oldest(), stats.jumps, stats.lag_ns), (4_000_000_000, 1, 1_001_000_000));
        let kept: Vec<_> = std::iter::from_fn(|| buffer.pop()).collect();
        let of = |kind| kept.iter().filter(|unit| unit.kind == kind).count();
        assert_eq!((of(MediaKind::Video), of(MediaKind::Audio)), (11, 11));
    }

    #[test]
    fn without_a_second_key_frame_all_pictures_go_and_half_of_the_sound() {
        let mut buffer = UnitBuffer::new(RingBounds::Pictures);
        buffer.put(video(0, true));
        for at in (100..=5100).step_by(100) {
            buffer.put(video(at, false));
            buffer.put(audio(at));
        }
        let waiting = drained(&mut buffer);
        assert_eq!((waiting.first(), waiting.last(), waiting.len()), (Some(&2600), Some(&5100), 26));
        buffer.put(video(5200, false));
        buffer.put(video(5300, true));
        assert_eq!(drained(&mut buffer), [5300]);
    }

    #[test]
    fn a_single_frame_above_the_bound_is_dropped() {
        let mut pictures = UnitBuffer::new(RingBounds::Pictures);
        pictures.put(unit(MediaKind::Video, 0, true, MAX_BYTES + 1));
        pictures.put(video(1, false));
        let mut sound = UnitBuffer::new(RingBounds::Sound);
        sound.put(unit(MediaKind::Audio, 0, true, MAX_BYTES + 1));
        assert_eq!((pictures.stats().units, sound.stats().units), (0, 0));
    }

    #[test]
    fn a_connection_begins_at_a_recent_key_frame() {
        let mut buffer = UnitBuffer::new(RingBounds::Pictures);
        assert!(buffer.begin());
        for at in (0..=2500).step_by(100) {
            buffer.put(audio(at));
            buffer.put(video(at, at == 0 || at == 2000));
        }
        assert!(!buffer.begin());
        assert_eq!(drained(&mut buffer)[..3], [2000, 2000, 2100]);
        buffer.put(video(3000, true));
        buffer.put(video(4100, false));
        assert!(buffer.begin());
        buffer.put(video(4200, false));
        buffer.put(video(4300, true));
        assert_eq!(drained(&mut buffer), [4300]);
    }

    const SAMPLES: RingBounds = RingBounds::Samples { max_ns: 2_000_000_000 };

    #[test]
    fn of_samples_the_oldest_go_one_by_one() {
        let mut buffer = UnitBuffer::new(SAMPLES);
        for at in (0..=2500).step_by(20) {
            buffer.put(audio(at));
        }
        let stats = buffer.stats();
        assert_eq!((stats.dropped, stats.jumps, stats.lag_ns), (25, 0, 2_000_000_000));
        let waiting = drained(&mut buffer);
        assert_eq!((waiting[0], waiting.len()), (500, 101));
        buffer.put(unit(MediaKind::Audio, 2520, true, MAX_BYTES + 1));
        assert_eq!(buffer.stats().units, 0);
    }

    #[test]
    fn sound_waits_for_the_pictures_of_its_time() {
        let mut buffer = UnitBuffer::new(RingBounds::Pictures);
        buffer.put(video(0, true));
        (0..=200).for_each(|n| buffer.put(audio(n * 20)));
        assert_eq!(buffer.stats().lag_ns, 300_000_000);
        let sent = drained(&mut buffer);
        assert_eq!((sent[..3].to_vec(), sent.last(), sent.len()), (vec![0, 0, 20], Some(&300), 17));
        buffer.put(video(33, false));
        assert_eq!(drained(&mut buffer), [33, 320]);
        // A new connection: no key frame is there, and the sound of those to come is kept.
        assert!(buffer.begin());
        buffer.put(video(66, false));
        assert_eq!(drained(&mut buffer), [340, 360]);
        buffer.put(video(2000, true));
        let sent = drained(&mut buffer);
        assert!(sent.is_sorted() && sent.contains(&2000) && sent.last() == Some(&2300), "{sent:?}");
        buffer.finish();
        assert_eq!(drained(&mut buffer).last(), Some(&4000));
        assert_eq!(buffer.stats(), RingStats { dropped: 1, ..RingStats::default() });
    }

    #[test]
    fn nothing_is_dropped_because_sound_is_far_ahead() {
        let mut buffer = UnitBuffer::new(RingBounds::Pictures);
        for n in 0..600 {
            buffer.put(audio(n * 33 + 9000));
            buffer.put(video(n * 33, n % 60 == 0));
            let sent = drained(&mut buffer);
            assert!(sent.is_sorted() && sent.contains(&(n * 33)), "{sent:?}");
            assert_eq!(buffer.stats().lag_ns, 0);
        }
        assert_eq!((buffer.stats().dropped, buffer.stats().jumps), (0, 0));
    }

    #[test]
    fn sound_alone_begins_with_its_last_second() {
        let mut buffer = UnitBuffer::new(RingBounds::Sound);
        for at in (0..=3000).step_by(500) {
            buffer.put(audio(at));
        }
        assert!(!buffer.begin());
        assert_eq!(drained(&mut buffer), [2000, 2500, 3000]);
    }

    /// What a receiver of the pictures sees.
    #[derive(Default)]
    struct Decoder {
        put: Vec<u64>,
        decoded: Option<u64>,
    }

    impl Decoder {
        /// Every picture but a key frame comes right behind the one that was put before it.
        fn decodes(&mut self, unit: &EncodedUnit) -> bool {
            let index = self.put.iter().position(|at| *at == unit.at_ns).unwrap();
            let before = self.decoded.replace(unit.at_ns);
            unit.key || (index > 0 && before == Some(self.put[index - 1]))
        }
    }

    proptest! {
        #[test]
        fn bounds_hold_and_every_picture_decodes(
            bounds in prop_oneof![Just(RingBounds::Pictures), Just(RingBounds::Sound), Just(SAMPLES)],
            steps in proptest::collection::vec((0u8..16, 1u64..900, 0usize..3_000_000), 0..60),
        ) {
            let (mut buffer, mut decoder, mut at_ms) = (UnitBuffer::new(bounds), Decoder::default(), 0);
            for (what, later, bytes) in steps {
                at_ms += later;
                match what {
                    0..=6 if bounds == RingBounds::Pictures => {
                        let unit = unit(MediaKind::Video, at_ms, what == 0, bytes);
                        decoder.put.push(unit.at_ns);
                        buffer.put(unit);
                    }
                    0..=8 => buffer.put(unit(MediaKind::Audio, at_ms, true, bytes / 100)),
                    9 => {
                        buffer.begin();
                        decoder.decoded = None;
                    }
                    _ => {
                        let unit = buffer.pop().filter(|unit| unit.kind == MediaKind::Video);
                        prop_assert!(unit.is_none_or(|unit| decoder.decodes(&unit)));
                    }
                }
                let stats = buffer.stats();
                prop_assert!(stats.bytes <= MAX_BYTES && stats.lag_ns <= MAX_AGE_NS);
                prop_assert_eq!(stats.bytes, buffer.units.iter().map(|unit| unit.data.len()).sum::<usize>());
            }
        }
    }
}
