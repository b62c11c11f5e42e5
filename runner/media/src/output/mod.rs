//! Where a recording goes. `pipeline` is its encoders, which `link` puts together; `feed` is the way into one, `raw` that
//! of a mixer into several. `fanout` gives every encoded unit to the outputs (`taker`), of which `takers` has those that
//! make files, `segments` the one that cuts an HLS stream and `images` the one that makes files of single raw pictures.
//! `progress` says how far all have come, `key_frames` asks our encoder for key frames.

mod takers;
pub mod segments;
pub mod images;
mod pipeline;
mod link;
mod raw;
mod feed;
mod key_frames;
mod fanout;
mod progress;
mod taker;

pub use self::fanout::{Fanout, TakerReporter};
pub use self::feed::{Feed, FeedError, RawSink};
pub use self::key_frames::KeyFrameRequests;
pub use self::link::{Feeds, PipelinePlan};
pub use self::pipeline::Pipeline;
pub use self::progress::{PipelineEvent, PipelineProgress};
pub use self::raw::{RawFanout, RawPictures, RawTaker};
pub use self::taker::{OutputTaker, TakerEnd, TakerError, TakerId, TakerProgress, TakerStart};
pub use self::takers::{FileTakerOptions, add_file};
pub use crate::element::PipelineError;
