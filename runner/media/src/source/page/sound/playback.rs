//! A stream that a client plays, and its place in time. In: the client's bytes and requests, with the number of the sample
//! that is heard now. Out: frames in the mix, bytes to ask for, positions. Pure.
//!
//! The clock is the count: byte 0 is heard when the stream was started, and every byte after it at its count, however late
//! it comes. A client that answers late loses nothing while the mix is not taken (half a second), where PulseAudio inserts a
//! hole and plays everything later from then on. Chromium was measured to write late 103 to 120 times a minute, by 12 ms at
//! most, by 63 ms on a busy machine.

use pulseaudio::protocol::SampleFormat;

use super::mix::{RATE, SoundMix};

/// What is asked for ahead of the position that is heard, sample frames: 20 ms.
pub const TARGET_FRAMES: i64 = RATE / 50;
/// The smallest piece that is asked for, sample frames: 10 ms.
pub const REQUEST_FRAMES: i64 = RATE / 100;
/// A stream whose samples have all come too late for so long is not starved but behind: it goes on from now.
const MAX_BEHIND: i64 = 2 * RATE;
/// Bytes that wait in a stream that does not play: more than a second.
const MAX_HELD: usize = 1 << 19;

/// What a client may send: 48 kHz only, the rate that our sink says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamFormat {
    float: bool,
    stereo: bool,
}

impl StreamFormat {
    /// `None`: a format that is not taken. Chromium sends F32 in stereo at the sink's rate.
    pub fn new(format: SampleFormat, channels: u8, rate: u32) -> Option<Self> {
        let float = match format {
            SampleFormat::Float32Le => true,
            SampleFormat::S16Le => false,
            _ => return None,
        };
        (i64::from(rate) == RATE && (1..=2).contains(&channels)).then_some(Self { float, stereo: channels == 2 })
    }

    /// Bytes of a sample frame.
    pub fn frame_bytes(self) -> i64 {
        (if self.float { 4 } else { 2 }) * (if self.stereo { 2 } else { 1 })
    }

    fn frames(self, bytes: &[u8]) -> impl Iterator<Item = [f32; 2]> {
        bytes.chunks_exact(self.frame_bytes() as usize).map(move |frame| {
            let left = self.sample(frame);
            [left, if self.stereo { self.sample(&frame[frame.len() / 2..]) } else { left }]
        })
    }

    fn sample(self, bytes: &[u8]) -> f32 {
        if self.float {
            bytes.first_chunk().map_or(0.0, |bytes| f32::from_le_bytes(*bytes))
        } else {
            bytes.first_chunk().map_or(0.0, |bytes| f32::from(i16::from_le_bytes(*bytes)) / 32_768.0)
        }
    }
}

/// What became of the samples of all streams so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SoundStats {
    /// Writes that came after their first sample was to be heard. They are in their places all the same.
    pub late_writes: u64,
    /// The latest of them, milliseconds.
    pub worst_late_ms: u64,
    /// Sample frames that came too late or too early to be heard.
    pub lost_frames: u64,
    /// Blocks of 20 ms that the receiver did not take within 30 s.
    pub left_out_blocks: u64,
}

/// Positions of a stream, bytes since it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamPosition {
    /// It is not corked.
    pub playing: bool,
    /// Written by the client.
    pub written: i64,
    /// Heard of it.
    pub heard: i64,
}

/// One stream.
#[derive(Debug)]
pub struct PlaybackStream {
    format: StreamFormat,
    /// The sample number at which its first byte (since it was started last) is heard; `None` while it is corked.
    begun: Option<i64>,
    /// Bytes before that, all of them heard.
    before: i64,
    /// Bytes since, and bytes asked for since. A client may write more than it was asked for and then writes less.
    written: i64,
    requested: i64,
    /// Written while corked.
    held: Vec<u8>,
    behind_since: Option<i64>,
    /// The request to answer once everything is heard.
    drain: Option<u32>,
}

impl PlaybackStream {
    /// `now`: the sample heard now. The client is asked for the first 20 ms with the reply.
    pub fn new(format: StreamFormat, corked: bool, now: i64) -> Self {
        Self {
            format,
            begun: (!corked).then_some(now),
            before: 0,
            written: 0,
            requested: TARGET_FRAMES * format.frame_bytes(),
            held: Vec::new(),
            behind_since: None,
            drain: None,
        }
    }

    /// What the client sends.
    pub fn format(&self) -> StreamFormat {
        self.format
    }

    /// Bytes of the client. Incomplete frames at their end are left out; clients send none.
    pub fn write(&mut self, bytes: &[u8], now: i64, mix: &mut SoundMix, stats: &mut SoundStats) {
        let frame_bytes = self.format.frame_bytes();
        let bytes = &bytes[..bytes.len() / frame_bytes as usize * frame_bytes as usize];
        let Some(mut begun) = self.begun else {
            if self.held.len() + bytes.len() <= MAX_HELD {
                self.held.extend_from_slice(bytes);
                self.written += bytes.len() as i64;
            } else {
                stats.lost_frames += bytes.len() as u64 / frame_bytes as u64;
            }
            return;
        };
        let mut first = begun + self.written / frame_bytes;
        if first >= mix.first() {
            self.behind_since = None;
        } else if now - *self.behind_since.get_or_insert(now) > MAX_BEHIND {
            begun += now - first;
            (self.begun, self.behind_since) = (Some(begun), None);
            first = now;
        }
        if first < now {
            stats.late_writes += 1;
            stats.worst_late_ms = stats.worst_late_ms.max(((now - first) * 1000 / RATE).unsigned_abs());
        }
        stats.lost_frames += mix.add(first, self.format.frames(bytes));
        self.written += bytes.len() as i64;
    }

    /// How many bytes the client is to send now, so that 20 ms are ahead of what is heard.
    pub fn request(&mut self, now: i64) -> Option<u32> {
        let missing = (self.heard_at(now)? + TARGET_FRAMES) * self.format.frame_bytes() - self.requested;
        if missing < REQUEST_FRAMES * self.format.frame_bytes() {
            return None;
        }
        self.requested += missing;
        u32::try_from(missing).ok()
    }

    /// Pauses. What was written is heard (20 ms at most); the next byte is heard when it goes on.
    pub fn cork(&mut self) {
        if self.begun.is_some() {
            self.begun = None;
            self.begin_count();
        }
    }

    /// Goes on: what was written meanwhile is heard from now on.
    pub fn uncork(&mut self, now: i64, mix: &mut SoundMix, stats: &mut SoundStats) {
        if self.begun.is_none() {
            self.begun = Some(now);
            let held = std::mem::take(&mut self.held);
            stats.lost_frames += mix.add(now, self.format.frames(&held));
        }
    }

    /// Forgets what waits. What is in the mix already (20 ms at most) is heard.
    pub fn flush(&mut self, now: i64) {
        self.held.clear();
        self.begin_count();
        self.begun = self.begun.map(|_| now);
    }

    /// To be answered once everything is heard.
    pub fn drain(&mut self, request: u32) {
        self.drain = Some(request);
    }

    /// The request to answer, when everything written is heard.
    pub fn drained(&mut self, now: i64) -> Option<u32> {
        let all = match self.heard_at(now) {
            Some(frames) => frames * self.format.frame_bytes() >= self.written,
            None => self.held.is_empty(),
        };
        self.drain.take_if(|_| all)
    }

    /// Positions by the clock: what Chromium keeps its pictures in step with.
    pub fn position(&self, now: i64) -> StreamPosition {
        let heard = self.heard_at(now).map_or(0, |frames| frames * self.format.frame_bytes()).min(self.written);
        StreamPosition {
            playing: self.begun.is_some(),
            written: self.before + self.written,
            heard: self.before + heard,
        }
    }

    /// Frames since it was started last, whether they were written or not.
    fn heard_at(&self, now: i64) -> Option<i64> {
        self.begun.map(|begun| (now - begun).max(0))
    }

    fn begin_count(&mut self) {
        self.before += self.written;
        self.requested -= self.written;
        self.written = 0;
    }
}

#[cfg(test)]
#[path = "playback_tests.rs"]
mod tests;
