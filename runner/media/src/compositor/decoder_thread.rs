//! One track's own thread: inbox → decoder → what the mixers take. A decoder that breaks costs its own tile or voice
//! and nothing else.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::Bytes;
use spillway_process::chain;
use tracing::warn;

use super::audio::track_buffer::AudioTrackBuffer;
use super::decode::{DecodeError, Decoder};
use super::sync::inbox::{Inbox, InboxItem, TrackEvent};
use super::video::frame_queue::{FrameQueue, QueuedFrame};
use crate::track::{Codec, Track};
use crate::units::MediaTime;

/// A picture may ask again for a key frame after this much media time.
const ASK_AGAIN_NS: u64 = 1_000_000_000;
/// Frames in a row without a picture: a decoder that finds no sense in them mostly says nothing.
const ASK_AFTER: u32 = 5;
const REBUILD_AFTER: u32 = 30;
/// After a broken sound decoder, so that rubbish does not build a decoder per packet.
const SOUND_REST_NS: u64 = 200_000_000;

/// What a lane may say while it works.
pub trait DecoderEvents: Send + Sync {
    fn wants_key_frame(&self);
    fn noted(&self, message: String);
}

/// Frames that a decoder refused, of all lanes.
#[derive(Debug, Default)]
pub struct DecoderCounters {
    pub broken_frames: AtomicU64,
}

pub struct VideoDecoderThread {
    pub track: Track,
    pub inbox: Arc<Inbox>,
    pub pictures: Arc<FrameQueue>,
    pub events: Arc<dyn DecoderEvents>,
    pub counts: Arc<DecoderCounters>,
}

/// What a lane decodes with. Broken: nothing, until the next key frame.
struct DecoderState {
    decoder: Option<Decoder>,
    codec: Codec,
    asked_at: Option<MediaTime>,
    told: bool,
    /// Pictures that came out, counted where they come.
    seen: Arc<AtomicU64>,
    seen_before: u64,
    unanswered: u32,
}

impl DecoderState {
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

impl VideoDecoderThread {
    pub fn run(self) {
        let mut state = DecoderState::of(self.track.codec);
        let mut announced = MediaTime::ZERO;
        loop {
            match self.inbox.next(announced) {
                InboxItem::Frame { at, key, data } => self.decode(&mut state, at, key, data),
                InboxItem::TrackEvent(_, TrackEvent::Begins(codec)) => {
                    if codec != state.codec {
                        state.codec = codec;
                        state.decoder = None;
                    }
                }
                InboxItem::TrackEvent(at, TrackEvent::Lost) => self.ask(&mut state, at),
                InboxItem::TrackEvent(at, TrackEvent::Muted) => self.pictures.put(QueuedFrame::Muted(at)),
                InboxItem::TrackEvent(at, TrackEvent::Left) => {
                    // Codecs that still hold a picture have lost it: its track is gone.
                    self.pictures.put(QueuedFrame::Left(at));
                    break;
                }
                InboxItem::Watermark(to) => {
                    announced = to;
                    self.pictures.complete_to(to);
                }
                InboxItem::Closed => break,
            }
        }
    }

    fn decode(&self, state: &mut DecoderState, at: MediaTime, key: bool, data: Bytes) {
        if state.decoder.is_none() {
            if !key {
                self.ask(state, at);
                return;
            }
            let (pictures, seen) = (self.pictures.clone(), state.seen.clone());
            let decoder = Decoder::pictures(state.codec, move |picture| {
                seen.fetch_add(1, Relaxed);
                pictures.put(QueuedFrame::Frame(picture));
            });
            match decoder {
                Ok(decoder) => state.decoder = Some(decoder),
                Err(error) => return self.broke(state, at, error),
            }
        }
        let Some(decoder) = &state.decoder else { return };
        if let Err(error) = decoder.push(at, key, data) {
            return self.broke(state, at, error);
        }
        let unanswered = state.unanswered();
        if unanswered >= REBUILD_AFTER {
            let message = format!("no picture in {unanswered} frames");
            return self.broke(state, at, DecodeError::Broken { codec: state.codec, message });
        }
        if unanswered > 0 && unanswered.is_multiple_of(ASK_AFTER) {
            self.counts.broken_frames.fetch_add(u64::from(ASK_AFTER), Relaxed);
            self.ask(state, at);
        }
    }

    fn broke(&self, state: &mut DecoderState, at: MediaTime, error: DecodeError) {
        state.decoder = None;
        state.unanswered = 0;
        self.counts.broken_frames.fetch_add(1, Relaxed);
        if !state.told {
            state.told = true;
            warn!(track = %self.track.sid, error = %chain(&error), "picture cannot be decoded, waiting for a key frame");
            self.events.noted(format!("the video of {} could not be decoded for a while", self.track.identity));
        }
        self.ask(state, at);
    }

    fn ask(&self, state: &mut DecoderState, at: MediaTime) {
        if state.asked_at.is_none_or(|asked| at.ns_since(asked) >= ASK_AGAIN_NS) {
            state.asked_at = Some(at);
            self.events.wants_key_frame();
        }
    }
}

/// However a lane ends, a panic included: nobody waits for it any longer.
impl Drop for VideoDecoderThread {
    fn drop(&mut self) {
        self.pictures.close();
    }
}

pub struct AudioDecoderThread {
    pub track: Track,
    pub inbox: Arc<Inbox>,
    pub voice: Arc<AudioTrackBuffer>,
    pub events: Arc<dyn DecoderEvents>,
    pub counts: Arc<DecoderCounters>,
}

impl AudioDecoderThread {
    pub fn run(self) {
        let mut state = DecoderState::of(self.track.codec);
        let mut announced = MediaTime::ZERO;
        loop {
            match self.inbox.next(announced) {
                InboxItem::Frame { at, data, .. } => self.decode(&mut state, at, data),
                InboxItem::TrackEvent(_, TrackEvent::Begins(codec)) => {
                    if codec != state.codec {
                        state.codec = codec;
                        state.decoder = None;
                    }
                }
                InboxItem::TrackEvent(_, TrackEvent::Lost) => self.voice.cut(),
                // A fresh decoder on return: the old one's state belongs to sound long gone.
                InboxItem::TrackEvent(_, TrackEvent::Muted) => {
                    self.voice.cut();
                    state.decoder = None;
                }
                InboxItem::TrackEvent(_, TrackEvent::Left) | InboxItem::Closed => break,
                InboxItem::Watermark(to) => {
                    announced = to;
                    self.voice.complete_to(to);
                }
            }
        }
    }

    fn decode(&self, state: &mut DecoderState, at: MediaTime, data: Bytes) {
        // An empty packet means "nothing said"; to a decoder it would mean "lost".
        if data.is_empty() {
            return;
        }
        if state.asked_at.is_some_and(|broke| at.ns_since(broke) < SOUND_REST_NS) {
            return;
        }
        if state.decoder.is_none() {
            let voice = self.voice.clone();
            match Decoder::samples(state.codec, self.track.channels, move |samples| voice.put(samples)) {
                Ok(decoder) => state.decoder = Some(decoder),
                Err(error) => return self.broke(state, at, error),
            }
        }
        if let Some(decoder) = &state.decoder
            && let Err(error) = decoder.push(at, true, data)
        {
            self.broke(state, at, error);
        }
    }

    fn broke(&self, state: &mut DecoderState, at: MediaTime, error: DecodeError) {
        state.decoder = None;
        state.asked_at = Some(at);
        self.counts.broken_frames.fetch_add(1, Relaxed);
        self.voice.cut();
        if !state.told {
            state.told = true;
            warn!(track = %self.track.sid, error = %chain(&error), "sound cannot be decoded");
            self.events.noted(format!("the sound of {} could not be decoded for a while", self.track.identity));
        }
    }
}

impl Drop for AudioDecoderThread {
    fn drop(&mut self) {
        self.voice.close();
    }
}
