//! One recording: `machine` decides about phases and outcomes, `drive` carries that out, `files` owns the state of each file,
//! `finalize` finishes and reports them, `streams` knows which streams are alive and
//! `stream_url` where they go, and `media` is the media process.

pub mod machine;
pub mod media;
mod drive;
mod finalize;
mod files;
pub mod streams;
pub mod stream_url;

pub use drive::{SessionEnd, SessionJob, drive, ownership_lost};
