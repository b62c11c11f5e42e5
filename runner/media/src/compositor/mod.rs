//! Many tracks become one picture and one sound, on the recording's timeline.
//!
//! ```text
//!  room thread ──► recorder ──► Compositor::take (never waits)
//!                                 │ frames, events                  │ watermark, joins, layouts
//!                                 ▼                                 ▼
//!                         sync::inbox, one per track          sync::mixer_sync
//!                         (all lag is kept here, encoded;           │
//!                          sync::backlog spills it to disk)         │
//!                                 │ up to the watermark             │
//!                 ┌───────────────┴──────────────┐                  │
//!  thread "video", one per track         thread "sound" ◄───────────┤
//!   decoder_thread, decode           audio::input, decode           │
//!                 │ at most 3 pictures           │ as far as is mixed
//!         video::frame_queue            audio::track_buffer         │
//!                 │                              │                  │
//!        thread "picture"                        │                  │
//!         video::mixer, canvas           audio::mixer, limiter      │
//!                 │      ▲                       │                  │
//!                 │      └───────────────────────│──────────────────┘
//!                 ▼                              ▼
//!          RawSink, blocks               RawSink, blocks        (encoders, in GStreamer's threads)
//! ```
//!
//! Thread "compositor" decides the start and waits for both mixers. A full queue blocks the thread that fills it, back
//! to the inbox, which never blocks. The two mixers never wait for one another.
//!
//! No clock is read anywhere. A picture is made once every track is known up to its time; being late means lag, held as
//! encoded frames, and what is recorded does not depend on how busy the machine was, until so much lag is there that
//! pictures are left out: half a minute, or seconds while a stream is watched. `policy` (pacing and lip sync,
//! start, layout, focus, degradation, layer requests) is pure.

mod inputs;
mod decoder_thread;
mod video;
mod audio;
mod sync;
mod stats;
mod decode;
mod event;
mod policy;

#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;

pub use self::audio::mixer::{AudioMixerOptions, encoder_delay};
pub use self::event::CompositorEvent;
pub use self::inputs::Compositor;
pub use self::policy::degradation::{DegradationBounds, DegradationPolicy, LiveRule};
pub use self::policy::layer_request::LayerRequest;
pub use self::policy::layout::{Arrangement, Size, expected_tile};
pub use self::policy::start::{Candidate, Prelude, StartRule};
pub use self::stats::{CompositorStats, StatsCounter};
pub use self::sync::backlog::BacklogStats;
pub use self::video::canvas::CanvasError;
pub use self::video::mixer::VideoMixerOptions;

/// What is made. At least one of `picture` and `sound`.
#[derive(Clone, Debug)]
pub struct CompositorOptions {
    /// Pictures, if any are made.
    pub picture: Option<VideoMixerOptions>,
    /// Sound, if any is made.
    pub sound: Option<AudioMixerOptions>,
    /// When the output begins.
    pub start: StartRule,
    /// From which lag on pictures are given up, unless a stream is watched.
    pub degradation: DegradationBounds,
    /// Encoded bytes that may wait in memory.
    pub backlog_bytes: u64,
    /// Where they go beyond that.
    pub spill_dir: Option<PathBuf>,
}

/// Why a compositor cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum CompositorError {
    /// Neither picture nor sound is to be made.
    #[error("a compositor of neither picture nor sound")]
    Nothing,
    /// No canvas of this size.
    #[error("prepare the canvas")]
    Canvas(#[from] CanvasError),
    /// The system has no thread left.
    #[error("start a thread of the compositor")]
    Thread(#[from] io::Error),
}
