//! MPEG-TS of one H264 and one AAC stream, for HLS segments and SRT. Encoded access units with their media time come in,
//! whole packets are appended to a buffer; runs in the thread that has the access unit, pure, waits for neither stream.
//!
//! Our own, because GStreamer's `splitmuxsink` makes a fresh mpegtsmux for each segment: its continuity counters broke
//! at 12 to 14 of 14 borders of each PID (measured, 1.22), and as an aggregator it lets a silent stream hold back the
//! other. Here one muxer writes all segments of a recording and the counters go on.
//!
//! Nothing is reordered (rooms send no B frames, our encoder makes none): there is a PTS and no DTS.

mod packet;
mod tables;

use crate::units::MediaTime;

use super::{aac, annexb, scale};
use packet::{PesHead, PidWriter};
use tables::Tables;

const VIDEO_PID: u16 = 0x100;
const AUDIO_PID: u16 = 0x101;
const VIDEO_STREAM: u8 = 0xe0;
const AUDIO_STREAM: u8 = 0xc0;

const TICKS_PER_SECOND: u32 = 90_000;
/// From the clock to the time stamp of what is written at the same moment: what a decoder may buffer. ffmpeg's value.
const PTS_DELAY: u64 = 63_000;
/// The clock follows the stream that is behind, but stays no further than this behind the other: a decoder buffers at
/// most a second (ISO/IEC 13818-1 2.4.2.6).
const MAX_CLOCK_LAG: u64 = 27_000;
/// Between two clock references stand at most 100 ms (2.7.2).
const CLOCK_INTERVAL: u64 = 8100;
/// A receiver that comes in the middle looks for the tables at least twice a second (ETSI TR 101 290 5.2.1).
const TABLE_INTERVAL: u64 = 36_000;
/// 85 ms at 48 kHz. A PES packet of its own for each frame costs more bytes; five frames (107 ms) would stand further
/// apart than clock references may where sound is alone.
const FRAMES_PER_PES: u64 = 4;
/// In front of a picture without one: in a transport stream every access unit of H264 has it (2.14.1).
const ACCESS_UNIT_DELIMITER: [u8; 6] = [0, 0, 0, 1, 9, 0xf0];

const DELIMITER: u8 = 9;
const SPS: u8 = 7;
const PPS: u8 = 8;

/// Writes one transport stream.
#[derive(Debug)]
pub struct TsMuxer {
    tables: Tables,
    video: Option<VideoPid>,
    audio: Option<AudioPid>,
    /// Newest clock reference.
    clock: Option<u64>,
    /// Time of what stood behind the newest tables.
    tables_at: Option<u64>,
    /// Tables were just written.
    at_tables: bool,
}

#[derive(Debug)]
struct VideoPid {
    pid: PidWriter,
    newest: Option<u64>,
    /// The last that were seen, with start codes.
    parameter_sets: Vec<u8>,
}

#[derive(Debug)]
struct AudioPid {
    pid: PidWriter,
    rate: u64,
    rate_index: u8,
    newest: Option<u64>,
    /// Frames with headers that wait for their PES packet.
    pending: Vec<u8>,
    pending_frames: u64,
    /// Of the first that waits.
    pending_at: u64,
}

impl TsMuxer {
    /// A stream with or without video, and with AAC-LC stereo of `aac_rate` samples a second. `None` where ADTS has no
    /// number for the rate, or there is nothing to write.
    pub fn new(video: bool, aac_rate: Option<u32>) -> Option<Self> {
        let video = video.then(|| VideoPid { pid: PidWriter::new(VIDEO_PID), newest: None, parameter_sets: vec![] });
        let audio = match aac_rate {
            Some(rate) => Some(AudioPid::new(rate)?),
            None => None,
        };
        let clock = match (&video, &audio) {
            (Some(_), _) => VIDEO_PID,
            (None, Some(_)) => AUDIO_PID,
            (None, None) => return None,
        };
        let tables = Tables::new(video.is_some().then_some(VIDEO_PID), audio.is_some().then_some(AUDIO_PID), clock);
        Some(Self { tables, video, audio, clock: None, tables_at: None, at_tables: false })
    }

    /// A file begins here: the tables.
    pub fn begin_segment(&mut self, out: &mut Vec<u8>) {
        self.tables.write(out);
        self.at_tables = true;
    }

    /// A file ends here: the sound that waits for its PES packet. The last call as well.
    pub fn end_segment(&mut self, out: &mut Vec<u8>) {
        self.write_audio(out);
    }

    /// An access unit in Annex B. A key frame without parameter sets gets those that were seen last, any picture without
    /// a delimiter gets one; else the bytes stay as they are. Times grow from call to call.
    pub fn video(&mut self, at: MediaTime, key: bool, access_unit: &[u8], out: &mut Vec<u8>) {
        let Some(video) = &mut self.video else { return };
        let at = ticks(at);
        video.newest = video.newest.max(Some(at));
        let sets_missing = key && !video.remember_parameter_sets(access_unit);
        self.write_tables(at, key, out);
        let clock = self.advance_clock();
        let Some(video) = &mut self.video else { return };
        let (delimiter, picture) = split_delimiter(access_unit);
        let sets: &[u8] = if sets_missing { &video.parameter_sets } else { &[] };
        let head = PesHead { stream_id: VIDEO_STREAM, pts: at + PTS_DELAY, random_access: key, clock: Some(clock) };
        video.pid.pes(out, head, &[delimiter, sets, picture]);
        self.at_tables = false;
    }

    /// One raw AAC frame. A hole in the times or an overlap is kept: what comes after it has a PES packet of its own.
    pub fn audio(&mut self, at: MediaTime, frame: &[u8], out: &mut Vec<u8>) {
        let Some(audio) = &mut self.audio else { return };
        let at = ticks(at);
        if !audio.continues_at(at) {
            self.write_audio(out);
        }
        self.write_tables(at, false, out);
        let Some(audio) = &mut self.audio else { return };
        if !audio.push(at, frame) {
            return;
        }
        if audio.pending_frames >= FRAMES_PER_PES {
            self.write_audio(out);
        }
        // Pictures bring the clock themselves while they come.
        if self.clock.is_some_and(|last| self.clock_now() >= last + CLOCK_INTERVAL) {
            let clock = self.advance_clock();
            match (&mut self.video, &mut self.audio) {
                (Some(VideoPid { pid, .. }), _) | (None, Some(AudioPid { pid, .. })) => pid.clock(out, clock),
                (None, None) => {}
            }
        }
    }

    fn write_audio(&mut self, out: &mut Vec<u8>) {
        let alone = self.video.is_none();
        let clock = alone.then(|| self.advance_clock());
        let Some(audio) = &mut self.audio else { return };
        if audio.pending_frames > 0 {
            let pts = audio.pending_at + PTS_DELAY;
            let head = PesHead { stream_id: AUDIO_STREAM, pts, random_access: alone, clock };
            audio.pid.pes(out, head, &[&audio.pending]);
            audio.pending.clear();
            audio.pending_frames = 0;
            self.at_tables = false;
        }
    }

    /// In front of every key frame, so that a receiver may begin at each, and at intervals.
    fn write_tables(&mut self, at: u64, key: bool, out: &mut Vec<u8>) {
        let due = key || self.tables_at.is_none_or(|last| at >= last + TABLE_INTERVAL);
        if self.at_tables {
            self.tables_at = self.tables_at.max(Some(at));
        } else if due {
            self.tables.write(out);
            self.tables_at = self.tables_at.max(Some(at));
        }
    }

    /// Follows the stream that is behind, within a bound.
    fn clock_now(&self) -> u64 {
        let video = self.video.as_ref().and_then(|video| video.newest);
        let audio = self.audio.as_ref().and_then(|audio| audio.newest);
        match (video, audio) {
            (Some(video), Some(audio)) => video.min(audio).max(video.max(audio).saturating_sub(MAX_CLOCK_LAG)),
            (one, other) => one.or(other).unwrap_or(0),
        }
    }

    fn advance_clock(&mut self) -> u64 {
        let clock = self.clock_now().max(self.clock.unwrap_or(0));
        self.clock = Some(clock);
        clock
    }
}

impl VideoPid {
    /// Whether it brings them.
    fn remember_parameter_sets(&mut self, access_unit: &[u8]) -> bool {
        let units = annexb::units(access_unit);
        let brought = has_parameter_sets(&units);
        if brought {
            self.parameter_sets.clear();
            for unit in units {
                if matches!(nal_type(unit), SPS | PPS) {
                    self.parameter_sets.extend_from_slice(&[0, 0, 0, 1]);
                    self.parameter_sets.extend_from_slice(unit);
                }
            }
        }
        brought
    }
}

impl AudioPid {
    fn new(rate: u32) -> Option<Self> {
        let rate_index = aac::rate_index(rate)?;
        Some(Self {
            pid: PidWriter::new(AUDIO_PID),
            rate: u64::from(rate),
            rate_index,
            newest: None,
            pending: vec![],
            pending_frames: 0,
            pending_at: 0,
        })
    }

    /// A frame at this time is where the time stamp of the waiting PES packet says, give or take half a frame.
    fn continues_at(&self, at: u64) -> bool {
        let frames = |count: u64| count * aac::FRAME_SAMPLES * u64::from(TICKS_PER_SECOND) / self.rate;
        self.pending_frames == 0 || at.abs_diff(self.pending_at + frames(self.pending_frames)) <= frames(1) / 2
    }

    /// False for what is no frame: ADTS cannot say its length.
    fn push(&mut self, at: u64, frame: &[u8]) -> bool {
        let Some(header) = aac::adts_header(self.rate_index, frame.len()) else { return false };
        if self.pending_frames == 0 {
            self.pending_at = at;
        }
        self.pending.extend_from_slice(&header);
        self.pending.extend_from_slice(frame);
        self.pending_frames += 1;
        self.newest = self.newest.max(Some(at));
        true
    }
}

fn ticks(at: MediaTime) -> u64 {
    scale(at.ns(), 1_000_000_000, TICKS_PER_SECOND)
}

fn nal_type(unit: &[u8]) -> u8 {
    unit.first().map_or(0, |first| first & 0x1f)
}

fn has_parameter_sets(units: &[&[u8]]) -> bool {
    [SPS, PPS].iter().all(|wanted| units.iter().any(|unit| nal_type(unit) == *wanted))
}

/// The delimiter with its start code, ours where there is none, and the rest of the access unit.
fn split_delimiter(access_unit: &[u8]) -> (&[u8], &[u8]) {
    let start = access_unit.iter().position(|byte| *byte != 0).map_or(0, |zeros| zeros + 1);
    match access_unit.get(start) {
        // Two bytes: its type, and which slices may follow.
        Some(first) if first & 0x1f == DELIMITER && access_unit.len() > start + 2 => access_unit.split_at(start + 2),
        _ => (&ACCESS_UNIT_DELIMITER, access_unit),
    }
}

#[cfg(test)]
mod tests;
