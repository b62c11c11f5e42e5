//! The recording's side of a stream whose task is tested: its frames go in, and what the task says comes out.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use spillway_guard::Guard;
use spillway_plan::Secret;
use tokio::sync::mpsc;

use super::mute_log::MuteLog;
use super::ring::{RingBounds, UnitRing};
use super::stream::{StreamContext, StreamEvent, StreamReporter};
use crate::encoded::EncodedFormat;
use crate::stream_tls::StreamTls;
use crate::track::Codec;

/// A stream to a server, as its recording has it.
pub struct TestStream {
    /// Of the recording's frames.
    pub ring: Arc<UnitRing>,
    /// When the sound was muted.
    pub mutes: Arc<MuteLog>,
    /// The task's, for its lag.
    pub reporter: StreamReporter,
    events: mpsc::UnboundedReceiver<StreamEvent>,
    key_frames: Arc<AtomicU32>,
}

/// A picture and AAC.
pub fn picture_and_sound() -> Vec<EncodedFormat> {
    vec![
        EncodedFormat::Video { codec: Codec::H264, size: (16, 16), framerate: Some(10), bitrate_kbps: Some(100) },
        EncodedFormat::Aac { rate: 48_000, bitrate_kbps: 128 },
    ]
}

impl TestStream {
    /// And what its task is given.
    pub fn new(url: &str, formats: Vec<EncodedFormat>, bounds: RingBounds) -> (StreamContext, Self) {
        let (tell, events) = mpsc::unbounded_channel();
        let said = move |_: u32, event| drop(tell.send(event));
        let key_frames = Arc::new(AtomicU32::new(0));
        let asked = key_frames.clone();
        let context = StreamContext {
            url: Secret::new(url.to_owned()),
            formats: formats.into(),
            ring: Arc::new(UnitRing::new(bounds)),
            key_frame: Arc::new(move || {
                assert!(bounds == RingBounds::Pictures, "sound has no key frames");
                asked.fetch_add(1, Ordering::Relaxed);
            }),
            reporter: StreamReporter::new(7, Arc::new(said)),
            tls: StreamTls::default(),
            guard: Guard::default(),
            mutes: Arc::default(),
        };
        let (ring, mutes, reporter) = (context.ring.clone(), context.mutes.clone(), context.reporter.clone());
        (context, Self { ring, mutes, reporter, events, key_frames })
    }

    /// What was said so far; no text has a secret.
    pub fn said(&mut self) -> Vec<StreamEvent> {
        let said: Vec<StreamEvent> = std::iter::from_fn(|| self.events.try_recv().ok()).collect();
        assert!(!format!("{said:?}").contains("canary"), "{said:?}");
        said
    }

    /// How often a key frame was asked for.
    pub fn asked_key_frames(&self) -> u32 {
        self.key_frames.load(Ordering::Relaxed)
    }
}
