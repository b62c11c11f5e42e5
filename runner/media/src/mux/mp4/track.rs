//! One track of an MP4: its samples on the way into the file, and the boxes that describe them. Pure; `file` and
//! `fragments` decide what is written when.

use std::collections::BTreeMap;

use crate::mux::{aac, annexb, scale};
use crate::track::Codec;

use super::boxes::{self, SampleFormat, boxed, full, u32, u64};
use super::descriptions::VideoDescriptions;

/// Of the movie; tracks have their own.
pub const TIMESCALE: u32 = 90_000;
const SYNC: u32 = 0x0200_0000;
const NOT_SYNC: u32 = 0x0101_0000;

/// What goes into a track.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mp4TrackKind {
    /// H264 or H265 access units in Annex B; described by the first key frame.
    Video {
        /// H264 or H265.
        codec: Codec,
        /// Pixels, of the first key frame.
        size: (u32, u32),
    },
    /// AAC-LC, stereo.
    Aac {
        /// Samples a second.
        rate: u32,
    },
    /// Opus, stereo.
    Opus,
}

/// Samples that wait, and what is remembered of those in the file.
pub struct Mp4Track {
    kind: Mp4TrackKind,
    descriptions: TrackDescriptions,
    /// Units of a second of its time stamps.
    timescale: u32,
    /// Not yet in the file, in the order of their times.
    pub waiting: Vec<PendingSample>,
    /// In the file, for the last `moov`.
    written: Vec<WrittenSample>,
    chunks: Vec<Mp4Chunk>,
    /// Of the samples in the file: how many in a row have the same offset.
    offsets: Vec<(u32, i32)>,
    /// The newest sample is shown at least until then, in its timescale.
    lasts_to: u64,
}

/// What a player is told of a track's samples.
enum TrackDescriptions {
    /// Known from the first key frame on.
    Video(VideoDescriptions),
    Sound(SampleFormat),
}

/// Not yet in the file.
pub struct PendingSample {
    /// In the track's timescale, since the beginning of the file.
    pub at: u64,
    /// Decodable by itself.
    pub key: bool,
    /// As it stands in the file.
    pub data: Vec<u8>,
    /// Number of its description, from 0.
    description: u16,
    /// Shown so much later than `at`, in the track's timescale.
    offset: i32,
}

#[derive(Clone, Copy)]
struct WrittenSample {
    at: u64,
    size: u32,
    key: bool,
}

#[derive(Clone, Copy)]
struct Mp4Chunk {
    offset: u64,
    samples: u32,
    /// Of all its samples, from 0.
    description: u16,
}

/// Describes the tracks. `fragmented`: before the first fragment, when no sample is known and everything about samples is
/// empty.
pub fn moov(out: &mut Vec<u8>, tracks: &[Mp4Track], fragmented: bool) {
    let duration = tracks.iter().map(|track| track.end_in(TIMESCALE)).max().unwrap_or(0);
    boxed(out, b"moov", |out| {
        boxes::mvhd(out, TIMESCALE, duration, tracks.len() as u32 + 1);
        for (index, track) in tracks.iter().enumerate() {
            track.trak(out, index as u32 + 1, fragmented);
        }
        if fragmented {
            boxed(out, b"mvex", |out| {
                for index in 0..tracks.len() {
                    full(out, b"trex", 0, 0, |out| {
                        u32(out, index as u32 + 1);
                        u32(out, 1);
                        boxes::zeros(out, 12);
                    });
                }
            });
        }
    });
}

/// Where the data of a fragment's samples stand.
#[derive(Clone, Copy, Debug)]
pub enum DataPlace {
    /// So many bytes from the beginning of the file.
    File(u64),
    /// So many bytes from the beginning of their `moof`.
    Moof(u32),
}

/// Samples of a track in a fragment; the last one ends at `until`. Every sample says everything about itself: nothing is
/// left to defaults.
pub fn traf(out: &mut Vec<u8>, track: u32, samples: &[PendingSample], until: u64, place: DataPlace) {
    boxed(out, b"traf", |out| {
        let (flags, offset) = match place {
            DataPlace::File(_) => (1, 0),
            DataPlace::Moof(offset) => (0x02_0000, offset),
        };
        full(out, b"tfhd", 0, flags, |out| {
            u32(out, track);
            if let DataPlace::File(offset) = place {
                u64(out, offset);
            }
        });
        full(out, b"tfdt", 1, 0, |out| u64(out, samples.first().map_or(0, |sample| sample.at)));
        let is_reordered = samples.iter().any(|sample| sample.offset != 0);
        // Offset; duration, size and flags of each, and when it is shown where that differs.
        let (version, fields) = if is_reordered { (1, 0xf01) } else { (0, 0x701) };
        full(out, b"trun", version, fields, |out| {
            u32(out, samples.len() as u32);
            u32(out, offset);
            for (index, sample) in samples.iter().enumerate() {
                let next = samples.get(index + 1).map_or(until, |next| next.at);
                // Of a picture that stood still for longer than 32 bits count, the next fragment says its own time.
                u32(out, u32::try_from(next.saturating_sub(sample.at)).unwrap_or(u32::MAX));
                u32(out, sample.data.len() as u32);
                u32(out, if sample.key { SYNC } else { NOT_SYNC });
                if is_reordered {
                    u32(out, sample.offset as u32);
                }
            }
        });
    });
}

impl Mp4Track {
    /// Nothing is known of a video track before its first key frame.
    pub fn new(kind: Mp4TrackKind) -> Self {
        use TrackDescriptions::{Sound, Video};
        let (descriptions, timescale) = match kind {
            Mp4TrackKind::Video { codec, size } => (Video(VideoDescriptions::new(codec, size)), TIMESCALE),
            Mp4TrackKind::Aac { rate } => (Sound(SampleFormat::Aac { config: aac::config(rate), rate }), rate),
            Mp4TrackKind::Opus => (Sound(SampleFormat::Opus { pre_skip: 312 }), 48_000),
        };
        Self {
            kind,
            descriptions,
            timescale,
            waiting: vec![],
            written: vec![],
            chunks: vec![],
            offsets: vec![],
            lasts_to: 0,
        }
    }

    /// A frame as its stream has it, and by how much later than decoded it is shown; video in Annex B. False for what comes
    /// before the first key frame.
    pub fn take(&mut self, (at_ns, offset_ns): (u64, i64), key: bool, data: &[u8]) -> bool {
        let data = match &mut self.descriptions {
            TrackDescriptions::Sound(_) => data.to_vec(),
            TrackDescriptions::Video(descriptions) => {
                let units = annexb::units(data);
                if descriptions.follow(key, &units).is_none() {
                    return false;
                }
                annexb::with_lengths(&units)
            }
        };
        self.push_reordered((at_ns, offset_ns), key, data);
        true
    }

    /// Reads the parameter sets of a key frame; whether they are known.
    pub fn describe(&mut self, key: bool, data: &[u8]) -> bool {
        match &mut self.descriptions {
            TrackDescriptions::Video(descriptions) if key => descriptions.follow(key, &annexb::units(data)).is_some(),
            TrackDescriptions::Video(_) | TrackDescriptions::Sound(_) => self.is_described(),
        }
    }

    /// A player can be told what its samples are.
    pub fn is_described(&self) -> bool {
        match &self.descriptions {
            TrackDescriptions::Video(descriptions) => descriptions.is_known(),
            TrackDescriptions::Sound(_) => true,
        }
    }

    /// A sample as it stands in the file.
    pub fn push(&mut self, at_ns: u64, key: bool, data: Vec<u8>) {
        self.push_reordered((at_ns, 0), key, data);
    }

    fn push_reordered(&mut self, (at_ns, offset_ns): (u64, i64), key: bool, data: Vec<u8>) {
        let wanted = self.ticks(at_ns);
        // Players want times that grow.
        let at = match self.waiting.last().map(|sample| sample.at).or(self.written.last().map(|sample| sample.at)) {
            Some(last) => wanted.max(last + 1),
            None => wanted,
        };
        let offset = match offset_ns {
            0 => 0,
            offset_ns => self.ticks(at_ns.saturating_add_signed(offset_ns)) as i64 - at as i64,
        };
        let description = match &self.descriptions {
            TrackDescriptions::Video(descriptions) => descriptions.number().unwrap_or_default(),
            TrackDescriptions::Sound(_) => 0,
        };
        self.waiting.push(PendingSample { at, key, data, description, offset: offset as i32 });
    }

    /// The newest sample is shown at least until then, unless another one comes.
    pub fn lasts(&mut self, end_ns: u64) {
        self.lasts_to = self.ticks(end_ns);
    }

    /// A time in its timescale.
    pub fn ticks(&self, ns: u64) -> u64 {
        scale(ns, 1_000_000_000, self.timescale)
    }

    /// From its first sample that is not in the file to its newest.
    pub fn waits_ns(&self) -> u64 {
        let (Some(first), Some(last)) = (self.waiting.first(), self.waiting.last()) else { return 0 };
        scale(last.at - first.at, u64::from(self.timescale), 1_000_000_000)
    }

    /// Pictures, not sound.
    pub fn is_video(&self) -> bool {
        matches!(self.kind, Mp4TrackKind::Video { .. })
    }

    /// What goes into this fragment, and where its last sample ends.
    pub fn part(&mut self, standstill_ns: u64, cut_ns: Option<u64>) -> (Vec<PendingSample>, u64) {
        let Some(waiting) = self.waiting.last().map(|sample| sample.at) else { return (vec![], 0) };
        let Some(cut) = cut_ns.map(|ns| self.ticks(ns)) else {
            let until = self.end_of_newest(waiting);
            return (std::mem::take(&mut self.waiting), until);
        };
        // A track that stands still: its last sample is shown until something comes.
        if cut >= waiting + self.ticks(standstill_ns) {
            return (std::mem::take(&mut self.waiting), cut);
        }
        let before = self.waiting.partition_point(|sample| sample.at < cut).min(self.waiting.len() - 1);
        let rest = self.waiting.split_off(before);
        let until = rest.first().map_or(waiting, |sample| sample.at);
        (std::mem::replace(&mut self.waiting, rest), until)
    }

    /// Where the sample ends that begins at `at` and that none follows.
    fn end_of_newest(&self, at: u64) -> u64 {
        if self.lasts_to > at { self.lasts_to } else { at + self.usual() }
    }

    /// Duration of a sample that none follows: a picture's is that of the one before, but no pause.
    fn usual(&self) -> u64 {
        match self.kind {
            Mp4TrackKind::Aac { .. } => aac::FRAME_SAMPLES,
            Mp4TrackKind::Opus => 960,
            Mp4TrackKind::Video { .. } => {
                let written = self.written.iter().rev().map(|sample| sample.at);
                let mut times = self.waiting.iter().rev().map(|sample| sample.at).chain(written);
                let (last, before) = (times.next(), times.next());
                let second = u64::from(self.timescale);
                let unknown = second / 30;
                // Times of decoding say little where they are not those of showing.
                let is_reordered = self.offsets.iter().any(|(_, offset)| *offset != 0);
                let least = if is_reordered { unknown } else { 1 };
                last.zip(before).map_or(unknown, |(last, before)| last.saturating_sub(before).clamp(least, second))
            }
        }
    }

    /// These are in the file now, their data at `offset`.
    pub fn wrote(&mut self, samples: &[PendingSample], offset: u64) {
        let mut offset = offset;
        for run in samples.chunk_by(|one, next| one.description == next.description) {
            let description = run.first().map_or(0, |sample| sample.description);
            self.chunks.push(Mp4Chunk { offset, samples: run.len() as u32, description });
            offset += run.iter().map(|sample| sample.data.len() as u64).sum::<u64>();
        }
        for sample in samples {
            match self.offsets.last_mut() {
                Some((count, same)) if *same == sample.offset => *count += 1,
                _ => self.offsets.push((1, sample.offset)),
            }
        }
        self.written.extend(samples.iter().map(|sample| WrittenSample {
            at: sample.at,
            size: sample.data.len() as u32,
            key: sample.key,
        }));
    }

    /// Begin and end of each sample in the file.
    fn intervals(&self) -> impl Iterator<Item = (u64, u64)> {
        let ends = self.written.iter().skip(1).map(|next| next.at).chain([self.end()]);
        self.written.iter().zip(ends).map(|(sample, end)| (sample.at, end))
    }

    /// So many of its ticks are one in the last `moov`, where a duration has 32 bits: a picture may stand still for more than the
    /// 13.2 hours that these are at 90 kHz.
    fn coarseness(&self) -> u32 {
        let longest = self.intervals().map(|(begin, end)| end - begin).max().unwrap_or(0);
        let fits = |coarse: u32| longest / u64::from(coarse) < u64::from(u32::MAX);
        [1, 10, 100].into_iter().find(|coarse| fits(*coarse)).unwrap_or(1000)
    }

    /// Of each sample in the file, in units of so many ticks.
    fn durations(&self, coarse: u32) -> impl Iterator<Item = u32> {
        let coarse = u64::from(coarse);
        self.intervals().map(move |(begin, end)| u32::try_from(end / coarse - begin / coarse).unwrap_or(u32::MAX))
    }

    /// Where the last sample in the file ends.
    fn end(&self) -> u64 {
        self.written.last().map_or(0, |newest| self.end_of_newest(newest.at))
    }

    fn end_in(&self, timescale: u32) -> u64 {
        scale(self.end(), u64::from(self.timescale), timescale)
    }

    fn trak(&self, out: &mut Vec<u8>, track: u32, fragmented: bool) {
        if !self.is_described() {
            return;
        }
        let (formats, size) = match &self.descriptions {
            TrackDescriptions::Video(descriptions) => (descriptions.formats(), Some(self.usual_size(descriptions))),
            TrackDescriptions::Sound(format) => (vec![format.clone()], None),
        };
        let coarse = self.coarseness();
        let (movie, media): (u64, u64) = (self.end_in(TIMESCALE), self.durations(coarse).map(u64::from).sum());
        boxed(out, b"trak", |out| {
            boxes::tkhd(out, track, movie, size);
            if !fragmented {
                self.edts(out, movie);
            }
            boxed(out, b"mdia", |out| {
                boxes::mdhd(out, self.timescale / coarse, media);
                boxes::hdlr(out, size.is_some());
                boxed(out, b"minf", |out| {
                    boxes::media_head(out, size.is_some());
                    boxed(out, b"stbl", |out| {
                        boxes::stsd(out, &formats);
                        self.tables(out, fragmented, size.is_some(), coarse);
                    });
                });
            });
        });
    }

    /// Pixels of what is shown longest: players open their window with it.
    fn usual_size(&self, descriptions: &VideoDescriptions) -> (u32, u32) {
        let mut shown: BTreeMap<(u32, u32), u64> = BTreeMap::new();
        let mut intervals = self.intervals();
        for chunk in &self.chunks {
            let samples = intervals.by_ref().take(chunk.samples as usize);
            let all: u64 = samples.map(|(begin, end)| end - begin).sum();
            *shown.entry(descriptions.size(usize::from(chunk.description))).or_default() += all;
        }
        let longest = shown.into_iter().max_by_key(|(_, shown)| *shown);
        longest.map_or_else(|| descriptions.size(0), |(size, _)| size)
    }

    /// A track that begins after the file: nothing, then all of it.
    fn edts(&self, out: &mut Vec<u8>, movie: u64) {
        let begin = self.written.first().map_or(0, |sample| scale(sample.at, u64::from(self.timescale), TIMESCALE));
        boxed(out, b"edts", |out| {
            full(out, b"elst", 1, 0, |out| {
                u32(out, if begin > 0 { 2 } else { 1 });
                if begin > 0 {
                    u64(out, begin);
                    u64(out, u64::MAX);
                    u32(out, 0x10000);
                }
                u64(out, movie - begin);
                u64(out, 0);
                u32(out, 0x10000);
            });
        });
    }

    fn tables(&self, out: &mut Vec<u8>, fragmented: bool, video: bool, coarse: u32) {
        full(out, b"stts", 0, 0, |out| {
            let mut runs: Vec<(u32, u32)> = vec![];
            for duration in self.durations(coarse) {
                match runs.last_mut() {
                    Some((count, same)) if *same == duration => *count += 1,
                    _ => runs.push((1, duration)),
                }
            }
            u32(out, runs.len() as u32);
            runs.iter().for_each(|(count, duration)| {
                u32(out, *count);
                u32(out, *duration);
            });
        });
        if self.offsets.iter().any(|(_, offset)| *offset != 0) {
            // Of version 1: offsets may be negative.
            full(out, b"ctts", 1, 0, |out| {
                u32(out, self.offsets.len() as u32);
                self.offsets.iter().for_each(|(count, offset)| {
                    u32(out, *count);
                    u32(out, (*offset / coarse as i32) as u32);
                });
            });
        }
        if video && !fragmented {
            full(out, b"stss", 0, 0, |out| {
                let keys: Vec<u32> =
                    self.written.iter().zip(1..).filter(|(sample, _)| sample.key).map(|(_, number)| number).collect();
                u32(out, keys.len() as u32);
                keys.iter().for_each(|number| u32(out, *number));
            });
        }
        full(out, b"stsc", 0, 0, |out| {
            let mut runs: Vec<(u32, Mp4Chunk)> = vec![];
            for (chunk, number) in self.chunks.iter().zip(1..) {
                let differs =
                    |before: &Mp4Chunk| before.samples != chunk.samples || before.description != chunk.description;
                if runs.last().is_none_or(|(_, before)| differs(before)) {
                    runs.push((number, *chunk));
                }
            }
            u32(out, runs.len() as u32);
            runs.iter().for_each(|(first, chunk)| {
                u32(out, *first);
                u32(out, chunk.samples);
                u32(out, u32::from(chunk.description) + 1);
            });
        });
        full(out, b"stsz", 0, 0, |out| {
            u32(out, 0);
            u32(out, self.written.len() as u32);
            self.written.iter().for_each(|sample| u32(out, sample.size));
        });
        full(out, b"co64", 0, 0, |out| {
            u32(out, self.chunks.len() as u32);
            self.chunks.iter().for_each(|chunk| u64(out, chunk.offset));
        });
    }
}
