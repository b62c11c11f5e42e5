//! One track's own thread: inbox → decoder → what the mixers take. A decoder that breaks costs its own tile or voice
//! and nothing else.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::Bytes;
use spillway_process::chain;
use tracing::warn;

use super::decode::{DecodeError, Decoder};
use super::handover::{Pictures, Shown};
use super::inbox::{Inbox, Next, Turn};
use super::voice::Voice;
use crate::track::{Codec, SessionTime, Track};

/// A picture may ask again for a key frame after this much media time.
const ASK_AGAIN_NS: u64 = 1_000_000_000;
/// Frames in a row without a picture: a decoder that finds no sense in them mostly says nothing.
const ASK_AFTER: u32 = 5;
const REBUILD_AFTER: u32 = 30;
/// After a broken sound decoder, so that rubbish does not build a decoder per packet.
const SOUND_REST_NS: u64 = 200_000_000;

/// What a lane may say while it works.
pub trait LaneEars: Send + Sync {
    fn wants_key_frame(&self);
    fn noted(&self, words: String);
}

/// Frames that a decoder refused, of all lanes.
#[derive(Debug, Default)]
pub struct LaneCounts {
    pub broken_frames: AtomicU64,
}

pub struct VideoLane {
    pub track: Track,
    pub inbox: Arc<Inbox>,
    pub pictures: Arc<Pictures>,
    pub ears: Arc<dyn LaneEars>,
    pub counts: Arc<LaneCounts>,
}

/// What a lane decodes with. Broken: nothing, until the next key frame.
struct Bench {
    decoder: Option<Decoder>,
    codec: Codec,
    asked_at: Option<SessionTime>,
    told: bool,
    /// Pictures that came out, counted where they come.
    seen: Arc<AtomicU64>,
    seen_before: u64,
    unanswered: u32,
}

impl Bench {
    fn of(codec: Codec) -> Self {
        Self { decoder: None, codec, asked_at: None, told: false, seen: Arc::default(), seen_before: 0, unanswered: 0 }
    }

    /// Frames in a row that gave no picture.
    fn unanswered(&mut self) -> u32 {
        let seen = self.seen.load(Relaxed);
        self.unanswered = if seen == self.seen_before { self.unanswered + 1 } else { 0 };
        self.seen_before = seen;
        self.unanswered
    }
}

impl VideoLane {
    pub fn run(self) {
        let mut bench = Bench::of(self.track.codec);
        let mut announced = SessionTime(0);
        loop {
            match self.inbox.next(announced) {
                Next::Frame { at, key, data } => self.decode(&mut bench, at, key, data),
                Next::Turn(_, Turn::Begins(codec)) => {
                    if codec != bench.codec {
                        bench.codec = codec;
                        bench.decoder = None;
                    }
                }
                Next::Turn(at, Turn::Lost) => self.ask(&mut bench, at),
                Next::Turn(at, Turn::Absent) => self.pictures.put(Shown::Absent(at)),
                Next::Turn(at, Turn::Left) => {
                    // Codecs that still hold a picture have lost it: its track is gone.
                    self.pictures.put(Shown::Left(at));
                    break;
                }
                Next::CompleteTo(to) => {
                    announced = to;
                    self.pictures.complete_to(to);
                }
                Next::Closed => break,
            }
        }
    }

    fn decode(&self, bench: &mut Bench, at: SessionTime, key: bool, data: Bytes) {
        if bench.decoder.is_none() {
            if !key {
                self.ask(bench, at);
                return;
            }
            let (pictures, seen) = (self.pictures.clone(), bench.seen.clone());
            let decoder = Decoder::pictures(bench.codec, move |picture| {
                seen.fetch_add(1, Relaxed);
                pictures.put(Shown::Picture(picture));
            });
            match decoder {
                Ok(decoder) => bench.decoder = Some(decoder),
                Err(error) => return self.broke(bench, at, error),
            }
        }
        let Some(decoder) = &bench.decoder else { return };
        if let Err(error) = decoder.push(at, key, data) {
            return self.broke(bench, at, error);
        }
        let unanswered = bench.unanswered();
        if unanswered >= REBUILD_AFTER {
            let words = format!("no picture in {unanswered} frames");
            return self.broke(bench, at, DecodeError::Broken { codec: bench.codec, words });
        }
        if unanswered > 0 && unanswered.is_multiple_of(ASK_AFTER) {
            self.counts.broken_frames.fetch_add(u64::from(ASK_AFTER), Relaxed);
            self.ask(bench, at);
        }
    }

    fn broke(&self, bench: &mut Bench, at: SessionTime, error: DecodeError) {
        bench.decoder = None;
        bench.unanswered = 0;
        self.counts.broken_frames.fetch_add(1, Relaxed);
        if !bench.told {
            bench.told = true;
            warn!(track = %self.track.sid, error = %chain(&error), "picture cannot be decoded, waiting for a key frame");
            self.ears.noted(format!("the video of {} could not be decoded for a while", self.track.identity));
        }
        self.ask(bench, at);
    }

    fn ask(&self, bench: &mut Bench, at: SessionTime) {
        if bench.asked_at.is_none_or(|asked| at.0.saturating_sub(asked.0) >= ASK_AGAIN_NS) {
            bench.asked_at = Some(at);
            self.ears.wants_key_frame();
        }
    }
}

/// However a lane ends, a panic included: nobody waits for it any longer.
impl Drop for VideoLane {
    fn drop(&mut self) {
        self.pictures.close();
    }
}

pub struct SoundLane {
    pub track: Track,
    pub inbox: Arc<Inbox>,
    pub voice: Arc<Voice>,
    pub ears: Arc<dyn LaneEars>,
    pub counts: Arc<LaneCounts>,
}

impl SoundLane {
    pub fn run(self) {
        let mut bench = Bench::of(self.track.codec);
        let mut announced = SessionTime(0);
        loop {
            match self.inbox.next(announced) {
                Next::Frame { at, data, .. } => self.decode(&mut bench, at, data),
                Next::Turn(_, Turn::Begins(codec)) => {
                    if codec != bench.codec {
                        bench.codec = codec;
                        bench.decoder = None;
                    }
                }
                Next::Turn(_, Turn::Lost) => self.voice.cut(),
                // A fresh decoder on return: the old one's state belongs to sound long gone.
                Next::Turn(_, Turn::Absent) => {
                    self.voice.cut();
                    bench.decoder = None;
                }
                Next::Turn(_, Turn::Left) | Next::Closed => break,
                Next::CompleteTo(to) => {
                    announced = to;
                    self.voice.complete_to(to);
                }
            }
        }
    }

    fn decode(&self, bench: &mut Bench, at: SessionTime, data: Bytes) {
        // An empty packet means "nothing said"; to a decoder it would mean "lost".
        if data.is_empty() {
            return;
        }
        if bench.asked_at.is_some_and(|broke| at.0.saturating_sub(broke.0) < SOUND_REST_NS) {
            return;
        }
        if bench.decoder.is_none() {
            let voice = self.voice.clone();
            match Decoder::samples(bench.codec, self.track.channels, move |samples| voice.put(samples)) {
                Ok(decoder) => bench.decoder = Some(decoder),
                Err(error) => return self.broke(bench, at, error),
            }
        }
        if let Some(decoder) = &bench.decoder
            && let Err(error) = decoder.push(at, true, data)
        {
            self.broke(bench, at, error);
        }
    }

    fn broke(&self, bench: &mut Bench, at: SessionTime, error: DecodeError) {
        bench.decoder = None;
        bench.asked_at = Some(at);
        self.counts.broken_frames.fetch_add(1, Relaxed);
        self.voice.cut();
        if !bench.told {
            bench.told = true;
            warn!(track = %self.track.sid, error = %chain(&error), "sound cannot be decoded");
            self.ears.noted(format!("the sound of {} could not be decoded for a while", self.track.identity));
        }
    }
}

impl Drop for SoundLane {
    fn drop(&mut self) {
        self.voice.close();
    }
}
