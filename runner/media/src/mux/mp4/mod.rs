//! MP4 that may be cut off at any byte, and is an ordinary MP4 after a clean end.
//!
//! Our own, because mp4mux (1.22) fails at just this: as soon as two tracks share a fragment it may leave the size or
//! duration of a run of samples out of the `moof` and of its defaults, and then no player opens what a kill left; and
//! it makes one track wait for the other, so that a muted picture holds back the sound.
//!
//! While recording: `ftyp`, a gap of 16 bytes, a `moov` that only describes, then fragments, each `mdat` before its
//! `moof`, and the `mdat` without an end until all of it is there: a torn tail is no fragment at all. At the end a
//! `moov` that knows every sample follows, and the gap becomes the head of one `mdat` that covers all before it.
//!
//! Nothing here is reordered (rooms send no B frames and our encoder makes none): time stamps are of both kinds.

mod boxes;

use spillway_ipc::{SpoolError, SpoolFile};

use super::{annexb, scale};
use crate::track::Codec;
use boxes::{SampleFormat, boxed, full, u32, u64};

/// Where the gap stands, behind `ftyp`.
const GAP: u64 = 32;
/// Of the movie; tracks have their own.
const TIMESCALE: u32 = 90_000;
/// The first fragments are short, so that a recording is in the file as soon as it has begun.
const FIRST_FRAGMENT_NS: u64 = 200_000_000;
/// A keyframe begins a fragment unless the open one is shorter: what is cut from here on has to play by itself, and a
/// stream of keyframes only must not become a fragment each.
const MIN_FRAGMENT_NS: u64 = 100_000_000;

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

struct Mp4Track {
    kind: Mp4TrackKind,
    format: Option<SampleFormat>,
    timescale: u32,
    /// Not yet in the file.
    waiting: Vec<PendingSample>,
    /// In the file, for the last `moov`.
    written: Vec<WrittenSample>,
    chunks: Vec<Mp4Chunk>,
}

struct PendingSample {
    /// In the track's timescale, since the beginning of the file.
    at: u64,
    key: bool,
    data: Vec<u8>,
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
}

/// An MP4 file that is being written.
pub struct Mp4 {
    file: SpoolFile,
    tracks: Vec<Mp4Track>,
    fragment_ns: u64,
    next_fragment_ns: u64,
    /// Begin of the open fragment.
    since_ns: Option<u64>,
    described: bool,
    fragments: u32,
}

impl Mp4 {
    /// `kinds`: the tracks in the order of their indices. Nothing is written before the first fragment.
    pub fn open(file: SpoolFile, kinds: &[Mp4TrackKind], fragment_ns: u64) -> Self {
        let tracks = kinds.iter().map(|kind| Mp4Track::new(*kind)).collect();
        let next_fragment_ns = FIRST_FRAGMENT_NS.min(fragment_ns);
        Self { file, tracks, fragment_ns, next_fragment_ns, since_ns: None, described: false, fragments: 0 }
    }

    /// `at_ns` since the beginning of the file. Pictures before the first key frame are dropped: nothing can show them.
    ///
    /// # Errors
    ///
    /// When the spool cannot be written (full, or its disk fails). The file takes no more; a retry does not help.
    pub fn push(&mut self, track: usize, at_ns: u64, key: bool, data: &[u8]) -> Result<(), SpoolError> {
        let Some(track) = self.tracks.get_mut(track) else { return Ok(()) };
        if !track.take(at_ns, key, data) {
            return Ok(());
        }
        let (video, waits_ns) = (track.is_video(), track.waits_ns());
        let since = *self.since_ns.get_or_insert(at_ns);
        let due = if video && key {
            // By the track's own time: a busy encoder's pictures come seconds behind the sound.
            waits_ns >= MIN_FRAGMENT_NS
        } else {
            at_ns.saturating_sub(since) >= self.next_fragment_ns && (video || !self.awaits_video(at_ns, since))
        };
        if due && self.tracks.iter().all(|track| track.format.is_some()) {
            self.fragment(Some(at_ns))?;
            self.since_ns = Some(since.max(at_ns));
            self.next_fragment_ns = (self.next_fragment_ns * 2).min(self.fragment_ns);
        }
        Ok(())
    }

    /// Makes it an ordinary MP4.
    ///
    /// # Errors
    ///
    /// When the spool cannot be written (full, or its disk fails). The file takes no more; a retry does not help.
    pub fn finish(&mut self) -> Result<(), SpoolError> {
        self.tracks.retain(|track| track.format.is_some());
        self.fragment(None)?;
        let end = self.file.end();
        let mut moov = vec![];
        self.moov(&mut moov, false);
        self.file.append(&moov)?;
        let mut head = vec![];
        u32(&mut head, 1);
        head.extend_from_slice(b"mdat");
        u64(&mut head, end - GAP);
        self.file.write_at(GAP, &head)
    }

    /// Sound that comes first would end the fragment one picture before a keyframe that is on its way. Video that stands
    /// still is not waited for.
    fn awaits_video(&self, at_ns: u64, since_ns: u64) -> bool {
        at_ns < since_ns + self.next_fragment_ns * 3 / 2
            && self.tracks.iter().any(|track| track.is_video() && track.waiting.len() > 1)
    }

    /// Writes what lies before `cut_ns`; of a track that goes on not its last sample, whose duration is not known. `None`:
    /// everything. All tracks are cut at the same time, so that a file which begins here lacks no sound at its beginning.
    fn fragment(&mut self, cut_ns: Option<u64>) -> Result<(), SpoolError> {
        if !self.described {
            let mut front = vec![];
            boxes::ftyp(&mut front);
            boxed(&mut front, b"free", |out| boxes::zeros(out, 8));
            self.moov(&mut front, true);
            self.file.append(&front)?;
            self.described = true;
        }
        let standstill_ns = self.fragment_ns;
        let parts: Vec<(Vec<PendingSample>, u64)> =
            self.tracks.iter_mut().map(|track| track.part(standstill_ns, cut_ns)).collect();
        if parts.iter().all(|(samples, _)| samples.is_empty()) {
            return Ok(());
        }
        self.file.append(&data_head(0))?;
        let at = self.file.end();
        let mut out = vec![];
        let mut offsets = vec![];
        for (samples, _) in &parts {
            offsets.push(at + out.len() as u64);
            samples.iter().for_each(|sample| out.extend_from_slice(&sample.data));
        }
        let data = out.len() as u32;
        self.fragments += 1;
        let sequence = self.fragments;
        boxed(&mut out, b"moof", |out| {
            full(out, b"mfhd", 0, 0, |out| u32(out, sequence));
            for (index, ((samples, until), offset)) in parts.iter().zip(&offsets).enumerate() {
                if !samples.is_empty() {
                    traf(out, index as u32 + 1, samples, *until, *offset);
                }
            }
        });
        self.file.append(&out)?;
        // Until here a player sees one box without an end: a torn write is invisible.
        self.file.write_at(at - 16, &data_head(data + 8))?;
        for ((track, (samples, _)), offset) in self.tracks.iter_mut().zip(&parts).zip(&offsets) {
            track.wrote(samples, *offset);
        }
        Ok(())
    }

    /// `fragmented`: before the first fragment, when no sample is known and everything about samples is empty.
    fn moov(&self, out: &mut Vec<u8>, fragmented: bool) {
        let duration = self.tracks.iter().map(|track| track.end_in(TIMESCALE)).max().unwrap_or(0);
        boxed(out, b"moov", |out| {
            boxes::mvhd(out, TIMESCALE, duration, self.tracks.len() as u32 + 1);
            for (index, track) in self.tracks.iter().enumerate() {
                track.trak(out, index as u32 + 1, fragmented);
            }
            if fragmented {
                boxed(out, b"mvex", |out| {
                    for index in 0..self.tracks.len() {
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
}

/// Head of a fragment's data, as the spool knows it; a size of 0 goes to the end of the file.
fn data_head(size: u32) -> [u8; 16] {
    let mut head = *b"\0\0\0\x08free\0\0\0\0mdat";
    head[8..12].copy_from_slice(&size.to_be_bytes());
    head
}

/// Every sample says everything about itself: nothing is left to defaults.
fn traf(out: &mut Vec<u8>, track: u32, samples: &[PendingSample], until: u64, offset: u64) {
    boxed(out, b"traf", |out| {
        // With the place of the data in the file.
        full(out, b"tfhd", 0, 1, |out| {
            u32(out, track);
            u64(out, offset);
        });
        full(out, b"tfdt", 1, 0, |out| u64(out, samples.first().map_or(0, |sample| sample.at)));
        // Offset; duration, size and flags of each.
        full(out, b"trun", 0, 0x701, |out| {
            u32(out, samples.len() as u32);
            u32(out, 0);
            for (index, sample) in samples.iter().enumerate() {
                let next = samples.get(index + 1).map_or(until, |next| next.at);
                u32(out, next.saturating_sub(sample.at) as u32);
                u32(out, sample.data.len() as u32);
                u32(out, if sample.key { SYNC } else { NOT_SYNC });
            }
        });
    });
}

impl Mp4Track {
    fn new(kind: Mp4TrackKind) -> Self {
        let (format, timescale) = match kind {
            Mp4TrackKind::Video { .. } => (None, TIMESCALE),
            Mp4TrackKind::Aac { rate } => (Some(SampleFormat::Aac { config: aac_config(rate), rate }), rate),
            Mp4TrackKind::Opus => (Some(SampleFormat::Opus { pre_skip: 312 }), 48_000),
        };
        Self { kind, format, timescale, waiting: vec![], written: vec![], chunks: vec![] }
    }

    fn take(&mut self, at_ns: u64, key: bool, data: &[u8]) -> bool {
        let data = match self.kind {
            Mp4TrackKind::Video { codec, size } => {
                if self.format.is_none() && key {
                    self.format = match codec {
                        Codec::H265 => annexb::hevc_config(data).map(|config| SampleFormat::H265 { config, size }),
                        _ => annexb::avc_config(data).map(|config| SampleFormat::H264 { config, size }),
                    };
                }
                if self.format.is_none() {
                    return false;
                }
                annexb::with_lengths(data)
            }
            Mp4TrackKind::Aac { .. } | Mp4TrackKind::Opus => data.to_vec(),
        };
        let at = scale(at_ns, 1_000_000_000, self.timescale);
        // Players want times that grow.
        let at = match self.waiting.last().map(|sample| sample.at).or(self.written.last().map(|sample| sample.at)) {
            Some(last) => at.max(last + 1),
            None => at,
        };
        self.waiting.push(PendingSample { at, key, data });
        true
    }

    /// From its first sample that is not in the file to its newest.
    fn waits_ns(&self) -> u64 {
        let (Some(first), Some(last)) = (self.waiting.first(), self.waiting.last()) else { return 0 };
        scale(last.at - first.at, u64::from(self.timescale), 1_000_000_000)
    }

    fn is_video(&self) -> bool {
        matches!(self.kind, Mp4TrackKind::Video { .. })
    }

    /// What goes into this fragment, and where its last sample ends.
    fn part(&mut self, standstill_ns: u64, cut_ns: Option<u64>) -> (Vec<PendingSample>, u64) {
        let in_track = |ns: u64| scale(ns, 1_000_000_000, self.timescale);
        let Some(waiting) = self.waiting.last().map(|sample| sample.at) else { return (vec![], 0) };
        let Some(cut) = cut_ns.map(in_track) else {
            let usual = self.usual();
            return (std::mem::take(&mut self.waiting), waiting + usual);
        };
        // A track that stands still: its last sample is shown until something comes.
        if cut >= waiting + in_track(standstill_ns) {
            return (std::mem::take(&mut self.waiting), cut);
        }
        let before = self.waiting.partition_point(|sample| sample.at < cut).min(self.waiting.len() - 1);
        let rest = self.waiting.split_off(before);
        let until = rest.first().map_or(waiting, |sample| sample.at);
        (std::mem::replace(&mut self.waiting, rest), until)
    }

    /// Duration of a sample that none follows: a picture's is that of the one before.
    fn usual(&self) -> u64 {
        match self.kind {
            Mp4TrackKind::Aac { .. } => 1024,
            Mp4TrackKind::Opus => 960,
            Mp4TrackKind::Video { .. } => {
                let written = self.written.iter().rev().map(|sample| sample.at);
                let mut times = self.waiting.iter().rev().map(|sample| sample.at).chain(written);
                let (last, before) = (times.next(), times.next());
                last.zip(before)
                    .map_or(u64::from(self.timescale) / 30, |(last, before)| last.saturating_sub(before).max(1))
            }
        }
    }

    fn wrote(&mut self, samples: &[PendingSample], offset: u64) {
        if samples.is_empty() {
            return;
        }
        self.chunks.push(Mp4Chunk { offset, samples: samples.len() as u32 });
        self.written.extend(samples.iter().map(|sample| WrittenSample {
            at: sample.at,
            size: sample.data.len() as u32,
            key: sample.key,
        }));
    }

    fn durations(&self) -> impl Iterator<Item = u32> {
        let usual = self.usual() as u32;
        let nexts = self.written.iter().skip(1).map(Some).chain([None]);
        self.written
            .iter()
            .zip(nexts)
            .map(move |(sample, next)| next.map_or(usual, |next| (next.at - sample.at) as u32))
    }

    fn end_in(&self, timescale: u32) -> u64 {
        let begin = self.written.first().map_or(0, |sample| sample.at);
        let end = begin + self.durations().map(u64::from).sum::<u64>();
        scale(end, u64::from(self.timescale), timescale)
    }

    fn trak(&self, out: &mut Vec<u8>, track: u32, fragmented: bool) {
        let Some(format) = &self.format else { return };
        let size = match format {
            SampleFormat::H264 { size, .. } | SampleFormat::H265 { size, .. } => Some(*size),
            SampleFormat::Aac { .. } | SampleFormat::Opus { .. } => None,
        };
        let (movie, media): (u64, u64) = (self.end_in(TIMESCALE), self.durations().map(u64::from).sum());
        boxed(out, b"trak", |out| {
            boxes::tkhd(out, track, movie, size);
            if !fragmented {
                self.edts(out, movie);
            }
            boxed(out, b"mdia", |out| {
                boxes::mdhd(out, self.timescale, media);
                boxes::hdlr(out, size.is_some());
                boxed(out, b"minf", |out| {
                    boxes::media_head(out, size.is_some());
                    boxed(out, b"stbl", |out| {
                        boxes::stsd(out, format);
                        self.tables(out, fragmented, size.is_some());
                    });
                });
            });
        });
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

    fn tables(&self, out: &mut Vec<u8>, fragmented: bool, video: bool) {
        full(out, b"stts", 0, 0, |out| {
            let mut runs: Vec<(u32, u32)> = vec![];
            for duration in self.durations() {
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
        if video && !fragmented {
            full(out, b"stss", 0, 0, |out| {
                let keys: Vec<u32> =
                    self.written.iter().zip(1..).filter(|(sample, _)| sample.key).map(|(_, number)| number).collect();
                u32(out, keys.len() as u32);
                keys.iter().for_each(|number| u32(out, *number));
            });
        }
        full(out, b"stsc", 0, 0, |out| {
            let mut runs: Vec<(u32, u32)> = vec![];
            for (chunk, number) in self.chunks.iter().zip(1..) {
                if runs.last().is_none_or(|(_, same)| *same != chunk.samples) {
                    runs.push((number, chunk.samples));
                }
            }
            u32(out, runs.len() as u32);
            runs.iter().for_each(|(first, samples)| {
                u32(out, *first);
                u32(out, *samples);
                u32(out, 1);
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

/// AudioSpecificConfig: AAC-LC, stereo.
fn aac_config(rate: u32) -> Vec<u8> {
    const RATES: [u32; 13] =
        [96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8000, 7350];
    match RATES.iter().position(|known| *known == rate) {
        Some(index) => ((2 << 11) | ((index as u16) << 7) | (2 << 3)).to_be_bytes().to_vec(),
        None => {
            // The rate itself, 24 bits.
            let bits: u64 = (2 << 35) | (15 << 31) | (u64::from(rate) << 7) | (2 << 3);
            bits.to_be_bytes()[3..].to_vec()
        }
    }
}

#[cfg(test)]
mod tests;
