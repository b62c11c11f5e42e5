//! One recording: `machine` decides about phases and outcomes, `drive` carries that out, `files` owns the state of each file,
//! `finalize` finishes and reports them, `stream_url` resolves the URLs of streams, and `media` is the media process.

pub mod machine;
pub mod media;
mod drive;
mod finalize;
mod files;
pub mod stream_url;

pub use drive::{SessionEnd, SessionJob, drive, ownership_lost};
