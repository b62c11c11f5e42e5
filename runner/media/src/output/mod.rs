//! Where a recording goes. `file` is one file of the spool; `link` puts its pipeline together, `feed` is the way in,
//! `progress` says how far it has come. `rtmp` is a stream to a server.

pub mod rtmp;
mod file;
mod link;
mod feed;
mod progress;

pub use self::feed::{Feed, FeedError, RawSink};
pub use self::file::Pipeline;
pub use self::link::{Feeds, PipelinePlan};
pub use self::progress::{MediaKind, PipelineEvent, PipelineProgress};
pub use crate::element::PipelineError;
