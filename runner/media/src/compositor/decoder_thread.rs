//! The way of one track: inbox → decoder → what its mixer takes. Pictures have a thread each, sound is decoded in the
//! mixer's (`audio::input`). A decoder that breaks costs its own tile or voice and nothing else.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::Bytes;
use spillway_process::chain;
use tracing::warn;

use super::audio::track_buffer::AudioTrackBuffer;
use super::decode::{DecodeError, Decoder};
use super::sync::decoded_queue::DecodedQueue;
use super::sync::inbox::{Inbox, InboxItem, TrackEvent};
use super::video::frame_queue::{FrameQueue, QueuedFrame};
use crate::track::{Codec, Track};
use crate::units::MediaTime;

/// A picture may ask again for a key frame after this much media time.
const ASK_AGAIN_NS: u64 = 1_000_000_000;
/// Frames in a row without a picture: a decoder that finds no sense in them mostly says nothing.
const ASK_AFTER: u32 = 5;
const REBUILD_AFTER: u32 = 30;
/// Of a publisher that sends B frames: a picture comes out of the decoder when the one is in that is decoded after it and
/// shown later, three pictures at 15 a second.
const REORDER_NS: u64 = 300_000_000;
/// After a broken sound decoder, so that rubbish does not build a decoder per packet.
const SOUND_REST_NS: u64 = 200_000_000;

/// What a decoder's thread says while it works.
pub trait DecoderEvents: Send + Sync {
    /// Nothing can be decoded before the next key frame.
    fn wants_key_frame(&self);
    /// Worth telling the user.
    fn noted(&self, message: String);
}

/// Frames that a decoder refused, of all tracks.
#[derive(Debug, Default)]
pub struct DecoderCounters {
    /// So many until now.
    pub broken_frames: AtomicU64,
}

/// What a track's thread works on; `run` is the thread. Dropping it closes the queue.
pub struct DecoderThread<Q: Decoded> {
    /// The track, with the codec it joined with.
    pub track: Track,
    /// Where its encoded frames come from.
    pub inbox: Arc<Inbox>,
    /// Where decoded pictures or sound go.
    pub queue: Arc<Q>,
    /// Who is told.
    pub events: Arc<dyn DecoderEvents>,
    /// Where refused frames are counted.
    pub counts: Arc<DecoderCounters>,
}

/// What pictures and sound do differently on their way through a [`DecoderThread`].
pub trait Decoded: DecodedQueue + Sized {
    /// One encoded frame.
    fn decode(thread: &DecoderThread<Self>, state: &mut DecoderState, at: MediaTime, key: bool, data: Bytes);
    /// `Lost`, `Muted` or `Left`.
    fn on_event(thread: &DecoderThread<Self>, state: &mut DecoderState, at: MediaTime, event: &TrackEvent);
}

/// What a thread decodes with. Broken: nothing, until the next key frame.
pub struct DecoderState {
    decoder: Option<Decoder>,
    codec: Codec,
    /// Of a picture: asked for a key frame. Of sound: its decoder broke.
    asked_at: Option<MediaTime>,
    told: bool,
    /// Pictures that came out, counted where they come.
    seen: Arc<AtomicU64>,
    seen_before: u64,
    unanswered: u32,
    /// The latest frame so far.
    newest: MediaTime,
    /// How long a picture may be in the decoder.
    reorder_ns: u64,
}

/// A decoder at work. Dropping it closes the queue.
pub struct RunningDecoder<Q: Decoded> {
    thread: DecoderThread<Q>,
    state: DecoderState,
    /// The last watermark that was passed on.
    announced: MediaTime,
}

impl<Q: Decoded> RunningDecoder<Q> {
    /// One frame, event or watermark of the inbox; waits for it. False: the track has left, or its inbox is closed.
    pub fn step(&mut self) -> bool {
        let Self { thread, state, announced } = self;
        match thread.inbox.next(*announced) {
            InboxItem::Frame { at, key, data } => {
                state.comes(at);
                Q::decode(thread, state, at, key, data);
            }
            InboxItem::TrackEvent(_, TrackEvent::Begins(codec)) => state.begins(codec),
            InboxItem::TrackEvent(at, event) => {
                Q::on_event(thread, state, at, &event);
                return event != TrackEvent::Left;
            }
            InboxItem::Watermark(to) => {
                *announced = to;
                thread.queue.complete_to(to.minus_ns(state.reorder_ns));
            }
            InboxItem::Closed => return false,
        }
        true
    }

    /// What waits is forgotten, and nothing more comes.
    pub fn abandon(&self) {
        self.thread.inbox.abandon();
    }
}

impl DecoderState {
    fn of(codec: Codec) -> Self {
        Self {
            decoder: None,
            codec,
            asked_at: None,
            told: false,
            seen: Arc::default(),
            seen_before: 0,
            unanswered: 0,
            newest: MediaTime::ZERO,
            reorder_ns: 0,
        }
    }

    /// A frame is decoded next.
    fn comes(&mut self, at: MediaTime) {
        if at < self.newest && self.codec.is_video() {
            self.reorder_ns = REORDER_NS;
        }
        self.newest = self.newest.max(at);
    }

    fn begins(&mut self, codec: Codec) {
        if codec != self.codec {
            self.codec = codec;
            self.decoder = None;
        }
    }

    /// Frames in a row that gave no picture.
    fn unanswered(&mut self) -> u32 {
        let seen = self.seen.load(Relaxed);
        self.unanswered = if seen == self.seen_before { self.unanswered + 1 } else { 0 };
        self.seen_before = seen;
        self.unanswered
    }
}

impl<Q: Decoded> DecoderThread<Q> {
    /// Until the track leaves or its inbox is closed.
    pub fn run(self) {
        let mut running = self.start();
        while running.step() {}
    }

    /// To be run a step at a time.
    pub fn start(self) -> RunningDecoder<Q> {
        let state = DecoderState::of(self.track.codec);
        RunningDecoder { thread: self, state, announced: MediaTime::ZERO }
    }

    /// Throws the decoder away; the user is told once per track.
    fn broke(&self, state: &mut DecoderState, error: &DecodeError, kind: &str) {
        state.decoder = None;
        state.unanswered = 0;
        self.counts.broken_frames.fetch_add(1, Relaxed);
        if !std::mem::replace(&mut state.told, true) {
            warn!(track = %self.track.sid, error = %chain(error), "{kind} cannot be decoded");
            self.events.noted(format!("the {kind} of {} could not be decoded for a while", self.track.identity));
        }
    }
}

/// However a thread ends, a panic included: its mixer waits for it no longer.
impl<Q: Decoded> Drop for DecoderThread<Q> {
    fn drop(&mut self) {
        self.queue.close();
    }
}

impl Decoded for FrameQueue {
    fn decode(thread: &DecoderThread<Self>, state: &mut DecoderState, at: MediaTime, key: bool, data: Bytes) {
        if state.decoder.is_none() {
            if !key {
                thread.ask(state, at);
                return;
            }
            let (pictures, seen) = (thread.queue.clone(), state.seen.clone());
            let decoder = Decoder::pictures(state.codec, move |picture| {
                seen.fetch_add(1, Relaxed);
                pictures.put(QueuedFrame::Frame(picture));
            });
            match decoder {
                Ok(decoder) => state.decoder = Some(decoder),
                Err(error) => return thread.video_broke(state, at, &error),
            }
        }
        let Some(decoder) = &state.decoder else { return };
        if let Err(error) = decoder.push(at, key, data) {
            return thread.video_broke(state, at, &error);
        }
        let unanswered = state.unanswered();
        if unanswered >= REBUILD_AFTER {
            let message = format!("no picture in {unanswered} frames");
            return thread.video_broke(state, at, &DecodeError::Broken { codec: state.codec, message });
        }
        if unanswered > 0 && unanswered.is_multiple_of(ASK_AFTER) {
            thread.counts.broken_frames.fetch_add(u64::from(ASK_AFTER), Relaxed);
            thread.ask(state, at);
        }
    }

    fn on_event(thread: &DecoderThread<Self>, state: &mut DecoderState, at: MediaTime, event: &TrackEvent) {
        match event {
            TrackEvent::Lost => thread.ask(state, at),
            TrackEvent::Muted => thread.queue.put(QueuedFrame::Muted(at)),
            // Codecs that still hold a picture have lost it: its track is gone.
            TrackEvent::Left => thread.queue.put(QueuedFrame::Left(at)),
            TrackEvent::Begins(_) => {}
        }
    }
}

impl DecoderThread<FrameQueue> {
    fn video_broke(&self, state: &mut DecoderState, at: MediaTime, error: &DecodeError) {
        self.broke(state, error, "video");
        self.ask(state, at);
    }

    fn ask(&self, state: &mut DecoderState, at: MediaTime) {
        if state.asked_at.is_none_or(|asked| at.ns_since(asked) >= ASK_AGAIN_NS) {
            state.asked_at = Some(at);
            self.events.wants_key_frame();
        }
    }
}

impl Decoded for AudioTrackBuffer {
    fn decode(thread: &DecoderThread<Self>, state: &mut DecoderState, at: MediaTime, _: bool, data: Bytes) {
        if state.codec.says_nothing(&data) || state.asked_at.is_some_and(|broke| at.ns_since(broke) < SOUND_REST_NS) {
            return;
        }
        if state.decoder.is_none() {
            let buffer = thread.queue.clone();
            match Decoder::samples(state.codec, thread.track.channels, move |samples| buffer.put(samples)) {
                Ok(decoder) => state.decoder = Some(decoder),
                Err(error) => return thread.sound_broke(state, at, &error),
            }
        }
        if let Some(decoder) = &state.decoder
            && let Err(error) = decoder.push(at, true, data)
        {
            thread.sound_broke(state, at, &error);
        }
    }

    fn on_event(thread: &DecoderThread<Self>, state: &mut DecoderState, _: MediaTime, event: &TrackEvent) {
        match event {
            TrackEvent::Lost => thread.queue.cut(),
            // A fresh decoder on return: the old one's state belongs to sound long gone.
            TrackEvent::Muted => {
                thread.queue.cut();
                state.decoder = None;
            }
            TrackEvent::Left | TrackEvent::Begins(_) => {}
        }
    }
}

impl DecoderThread<AudioTrackBuffer> {
    fn sound_broke(&self, state: &mut DecoderState, at: MediaTime, error: &DecodeError) {
        self.broke(state, error, "sound");
        state.asked_at = Some(at);
        self.queue.cut();
    }
}
