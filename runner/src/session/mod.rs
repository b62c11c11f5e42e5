//! One recording: `machine` decides about phases and outcomes, `drive` carries that out. `files` owns the state of each file,
//! `segments` of each HLS output and `images` of each image output, which `opening` makes ready and `finalize` finishes and
//! reports; `sheets` puts poster and thumbnails beside them. `streams` knows which streams are alive, `stream_url` where they
//! go, and `stream_updates` brings the calls that change them. `media` is the media process, and `gaps` the times without
//! one. `job` is what a session is given, and `earlier` what another task has recorded, where the recording goes on.

pub mod machine;
pub mod media;
mod drive;
mod finalize;
mod opening;
mod files;
mod job;
pub mod segments;
pub mod images;
mod sheets;
pub mod streams;
pub mod earlier;
mod gaps;
mod stream_updates;
pub mod stream_url;

pub use drive::drive;
pub use finalize::{SessionEnd, ownership_lost};
pub use job::SessionJob;
