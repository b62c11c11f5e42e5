//! Where a recording goes. `pipeline` is its encoders, which `link` puts together; `feed` is the way into one, `raw` that
//! of a mixer into several; `variable_rate` leaves out pictures that repeat the one before, and `picture_bits` tells the
//! encoder. `fanout` gives every encoded unit to the outputs (`taker`), of which `takers` has those that make files,
//! `segments` the one that cuts an HLS stream and `images` the one that makes files of single raw pictures.
//! `streams` are streams to servers: each is a task (`rtmp`, `srt`, `websocket`) that gets its frames through a `ring`, which a
//! `ring_taker` fills; `stream` is what it needs and what it says, `attempts` how it goes on after a fault and `retry` when,
//! `stream_dial` its TCP connections, `step_clock` measures how long that is quiet. `pcm` is sound that is not encoded,
//! `mute_log` when it was muted.
//! `progress` says how far all have come, `key_frames` asks our encoder for key frames.

mod streams;
mod rtmp;
mod srt;
mod websocket;
mod attempts;
#[cfg(test)]
mod stream_test;
mod stream;
mod stream_dial;
mod retry;
mod step_clock;
mod mute_log;
mod ring_taker;
mod ring;
mod takers;
pub mod segments;
pub mod images;
mod pipeline;
mod link;
mod raw;
mod variable_rate;
mod picture_bits;
mod feed;
mod pcm;
mod key_frames;
mod fanout;
mod progress;
mod taker;

pub use self::fanout::{Fanout, TakerReporter};
pub(crate) use self::feed::sound_buffer;
pub use self::feed::{Feed, FeedError, RawSink};
pub use self::key_frames::KeyFrameRequests;
pub use self::link::{Feeds, PipelinePlan};
pub use self::mute_log::MuteLog;
pub use self::picture_bits::PictureBits;
pub use self::pipeline::Pipeline;
pub use self::progress::{PipelineEvent, PipelineProgress};
pub use self::raw::{RawFanout, RawPictures, RawTaker};
pub use self::ring::{RingBounds, RingStats, UnitRing};
pub use self::ring_taker::RingTaker;
pub use self::stream::{KeyFrameFn, StreamEnd, StreamEvent, StreamEventFn};
pub use self::streams::Streams;
pub use self::taker::{OutputTaker, TakerEnd, TakerError, TakerId, TakerProgress, TakerStart};
pub use self::takers::{FileTakerOptions, add_file};
pub use self::variable_rate::{RepeatRate, VariableRate};
pub use crate::element::PipelineError;
