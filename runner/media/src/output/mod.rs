//! Where a recording goes. `file` is one file of the spool; `link` puts its pipeline together, `feed` is the way in,
//! `progress` says how far it has come. `streams` are streams to servers: each is a task (`rtmp`) that gets its frames
//! through a `ring`, which a `ring_taker` fills; `stream` is what it needs and what it says, `stream_tls` how its server
//! is authenticated.

mod streams;
mod rtmp;
mod stream;
mod stream_tls;
mod ring_taker;
mod ring;
mod file;
mod link;
mod feed;
mod progress;

pub use self::feed::{Feed, FeedError, RawSink};
pub use self::file::Pipeline;
pub use self::link::{Feeds, PipelinePlan};
pub use self::progress::{MediaKind, PipelineEvent, PipelineProgress};
pub use self::ring::{RingStats, UnitRing};
pub use self::ring_taker::RingTaker;
pub use self::stream::{KeyFrameFn, StreamEnd, StreamEvent, StreamEventFn};
pub use self::streams::Streams;
pub use crate::element::PipelineError;
