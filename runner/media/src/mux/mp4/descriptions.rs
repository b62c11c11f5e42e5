//! The sample descriptions of a video track: another one whenever its parameter sets change. In: the NAL units of access
//! units, in order. Out: which description an access unit belongs to, and what stands in each. Pure.
//!
//! `avc1` and `hvc1` have their parameter sets in the description (ISO/IEC 14496-15 5.4.2, 8.4.1). A copied picture changes
//! them with each layer of simulcast, when a phone is turned, and for the black frames of a mute; Safari, QuickTime and
//! hardware decoders stop or garble at a change that stands in the stream only. They stay in the stream as well: what a kill
//! leaves has no description but the first.

use crate::mux::annexb;
use crate::nal_unit::{Bits, h264_size, h265_size, unescaped};
use crate::track::Codec;

use super::boxes::SampleFormat;

/// A publisher that changes its parameter sets more often has no further descriptions.
const MAX_DESCRIPTIONS: usize = 256;
/// Parameter sets of one description.
const MAX_SETS: usize = 32;
/// Bytes of a parameter set; those of encoders have some tens, with scaling lists some hundreds. All descriptions stay in
/// memory until the end.
const MAX_SET_BYTES: usize = 2048;

/// The descriptions of one track so far.
pub struct VideoDescriptions {
    codec: Codec,
    /// Of the first one, where its parameter sets do not say it.
    size: (u32, u32),
    all: Vec<VideoDescription>,
    current: usize,
}

struct VideoDescription {
    size: (u32, u32),
    sets: Vec<ParameterSet>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct ParameterSet {
    kind: SetKind,
    id: u32,
    unit: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SetKind {
    Video,
    Sequence,
    Picture,
}

impl ParameterSet {
    /// `None` for any other NAL unit, and one that is too long. One whose id cannot be read has id 0.
    fn read(codec: Codec, unit: &[u8]) -> Option<Self> {
        let header = *unit.first().filter(|_| unit.len() <= MAX_SET_BYTES)?;
        let (kind, head_bits) = match (codec, header & 0x1f, header >> 1 & 0x3f) {
            // Profile, constraints and level stand before the id.
            (Codec::H264, 7, _) => (SetKind::Sequence, 8 + 24),
            (Codec::H264, 8, _) => (SetKind::Picture, 8),
            (Codec::H265, _, 32) => (SetKind::Video, 16),
            (Codec::H265, _, 33) => (SetKind::Sequence, 16),
            (Codec::H265, _, 34) => (SetKind::Picture, 16),
            _ => return None,
        };
        let id = match (codec, kind) {
            // Behind the profiles of all layers; encoders use one.
            (Codec::H265, SetKind::Sequence) => None,
            (Codec::H265, SetKind::Video) => unit.get(2).map(|byte| u32::from(byte >> 4)),
            _ => {
                let plain = unescaped(unit);
                let mut bits = Bits::new(&plain);
                bits.skip(head_bits).and_then(|()| bits.golomb())
            }
        };
        Some(Self { kind, id: id.unwrap_or_default(), unit: unit.to_vec() })
    }

    fn is_same_place(&self, other: &Self) -> bool {
        self.kind == other.kind && self.id == other.id
    }
}

impl VideoDescription {
    fn has_all(&self, sets: &[ParameterSet]) -> bool {
        sets.iter().all(|set| self.sets.contains(set))
    }

    fn has(&self, kind: SetKind) -> bool {
        self.sets.iter().any(|set| set.kind == kind)
    }

    /// More pictures of the same sequence: nothing that it has is changed.
    fn takes(&self, sets: &[ParameterSet]) -> bool {
        self.sets.len() + sets.len() <= MAX_SETS
            && sets.iter().all(|set| {
                self.sets.contains(set)
                    || set.kind == SetKind::Picture && !self.sets.iter().any(|own| own.is_same_place(set))
            })
    }

    fn add(&mut self, sets: Vec<ParameterSet>) {
        for set in sets {
            if !self.sets.contains(&set) {
                self.sets.push(set);
            }
        }
    }
}

impl VideoDescriptions {
    /// `size`: of the first key frame, pixels.
    pub fn new(codec: Codec, size: (u32, u32)) -> Self {
        Self { codec, size, all: vec![], current: 0 }
    }

    /// The access unit with these NAL units comes next; the number of its description, from 0. `None` before the first key
    /// frame that brings its parameter sets.
    pub fn follow(&mut self, key: bool, units: &[&[u8]]) -> Option<u16> {
        let sets: Vec<ParameterSet> =
            units.iter().filter_map(|unit| ParameterSet::read(self.codec, unit)).take(MAX_SETS).collect();
        let Some(current) = self.all.get_mut(self.current) else {
            let first = self.described(sets, None);
            if !key || !self.is_whole(&first) {
                return None;
            }
            self.all.push(first);
            return Some(0);
        };
        if current.has_all(&sets) {
            return self.number();
        }
        if current.takes(&sets) {
            current.add(sets);
            return self.number();
        }
        // A layer that comes again. Between key frames nothing but what is said counts.
        if let Some(known) = self.all.iter().position(|known| key && known.has_all(&sets)) {
            self.current = known;
            return self.number();
        }
        if self.all.len() < MAX_DESCRIPTIONS {
            let next = self.described(sets, self.all.get(self.current));
            self.all.push(next);
            self.current = self.all.len() - 1;
        }
        self.number()
    }

    /// Of the newest access unit; `None` before the first key frame.
    pub fn number(&self) -> Option<u16> {
        if self.all.is_empty() { None } else { u16::try_from(self.current).ok() }
    }

    /// Everything is known of the track that its first samples need.
    pub fn is_known(&self) -> bool {
        !self.all.is_empty()
    }

    /// What a player is told, by number.
    pub fn formats(&self) -> Vec<SampleFormat> {
        let format = |known: &VideoDescription| {
            let units: Vec<&[u8]> = known.sets.iter().map(|set| set.unit.as_slice()).collect();
            let size = known.size;
            match self.codec {
                Codec::H265 => SampleFormat::H265 { config: annexb::hevc_record(&units).unwrap_or_default(), size },
                _ => SampleFormat::H264 { config: annexb::avc_record(&units).unwrap_or_default(), size },
            }
        };
        self.all.iter().map(format).collect()
    }

    /// Pixels of a description.
    pub fn size(&self, number: usize) -> (u32, u32) {
        self.all.get(number).map_or(self.size, |known| known.size)
    }

    /// What `sets` leave out stays as it was.
    fn described(&self, sets: Vec<ParameterSet>, before: Option<&VideoDescription>) -> VideoDescription {
        let sequence = sets.iter().find(|set| set.kind == SetKind::Sequence);
        let said = sequence.and_then(|set| match self.codec {
            Codec::H265 => h265_size(&set.unit),
            _ => h264_size(&set.unit),
        });
        let mut next = VideoDescription { size: said.or(before.map(|it| it.size)).unwrap_or(self.size), sets: vec![] };
        let is_new_sequence = sequence.is_some();
        next.add(sets);
        let kept = before.iter().flat_map(|before| &before.sets).filter(|old| {
            let is_replaced = next.sets.iter().any(|set| set.is_same_place(old));
            // With a sequence come its pictures; if it has none, those before are meant.
            !(is_replaced || is_new_sequence && next.has(old.kind))
        });
        let kept: Vec<ParameterSet> = kept.take(MAX_SETS).cloned().collect();
        next.add(kept);
        next
    }

    fn is_whole(&self, description: &VideoDescription) -> bool {
        let units: Vec<&[u8]> = description.sets.iter().map(|set| set.unit.as_slice()).collect();
        match self.codec {
            Codec::H265 => annexb::hevc_record(&units).is_some(),
            _ => annexb::avc_record(&units).is_some(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPS: [&[u8]; 2] = [&[0x67, 0x42, 0xc0, 0x1e, 0x80, 1], &[0x67, 0x42, 0xc0, 0x1f, 0x80, 2]];
    /// Ids 0, 0 and 1.
    const PPS: [&[u8]; 3] = [&[0x68, 0xce, 0x3c, 0x80], &[0x68, 0xee, 0x3c, 0x80], &[0x68, 0x4e, 0x3c]];
    const IDR: &[u8] = &[0x65, 0x88];
    const DELTA: &[u8] = &[0x41, 0x9a];

    fn counts(descriptions: &VideoDescriptions) -> Vec<usize> {
        descriptions.all.iter().map(|known| known.sets.len()).collect()
    }

    #[test]
    fn every_change_of_parameter_sets_is_described_and_what_comes_again_is_known() {
        let mut descriptions = VideoDescriptions::new(Codec::H264, (320, 180));
        assert_eq!(descriptions.follow(false, &[DELTA]), None);
        assert_eq!(descriptions.follow(true, &[SPS[0], IDR]), None, "without a picture parameter set");
        assert_eq!(descriptions.follow(true, &[SPS[0], PPS[0], IDR]), Some(0));
        assert_eq!(descriptions.follow(false, &[DELTA]), Some(0));
        // Another layer.
        assert_eq!(descriptions.follow(true, &[SPS[1], PPS[0], IDR]), Some(1));
        assert_eq!(descriptions.follow(false, &[DELTA]), Some(1));
        // Black in between: the same ids, other contents.
        assert_eq!(descriptions.follow(true, &[SPS[1], PPS[1], IDR]), Some(2));
        assert_eq!(descriptions.follow(true, &[SPS[0], PPS[0], IDR]), Some(0));
        assert_eq!(descriptions.formats().len(), 3);
        assert_eq!(counts(&descriptions), [2, 2, 2]);
    }

    #[test]
    fn further_picture_parameter_sets_join_their_sequence() {
        let mut descriptions = VideoDescriptions::new(Codec::H264, (320, 180));
        assert_eq!(descriptions.follow(true, &[SPS[0], PPS[0], PPS[2], IDR]), Some(0));
        assert_eq!(counts(&descriptions), [3]);
        let mut later = VideoDescriptions::new(Codec::H264, (320, 180));
        assert_eq!(later.follow(true, &[SPS[0], PPS[0], IDR]), Some(0));
        assert_eq!(later.follow(false, &[PPS[2], DELTA]), Some(0));
        assert_eq!(later.follow(true, &[SPS[0], PPS[0], PPS[2], IDR]), Some(0));
        assert_eq!(counts(&later), [3]);
        // One that is replaced is another description, with the rest of what was there.
        assert_eq!(later.follow(false, &[PPS[1], DELTA]), Some(1));
        assert_eq!(counts(&later), [3, 3]);
    }

    #[test]
    fn what_is_no_sensible_parameter_set_is_not_kept() {
        let mut descriptions = VideoDescriptions::new(Codec::H264, (320, 180));
        assert_eq!(descriptions.follow(true, &[SPS[0], PPS[0], IDR]), Some(0));
        for n in 0..200u8 {
            let long = [SPS[1], &[n; 1 << 16]].concat();
            assert_eq!(descriptions.follow(true, &[&long, PPS[0], IDR]), Some(0));
        }
        assert_eq!(counts(&descriptions), [2]);
    }

    #[test]
    fn a_publisher_that_changes_all_the_time_has_a_bounded_description() {
        let mut descriptions = VideoDescriptions::new(Codec::H264, (320, 180));
        for n in 0..2000u16 {
            let [high, low] = n.to_be_bytes();
            let sps = [0x67, 0x42, 0xc0, 0x1e, 0x80, high | 0x10, low | 1];
            assert!(descriptions.follow(true, &[&sps, PPS[0], IDR]).is_some());
        }
        assert_eq!(descriptions.formats().len(), MAX_DESCRIPTIONS);
    }
}
