//! One recording: `machine` decides about phases and outcomes, `drive` carries that out, `files` owns the state of each file
//! and `segments` of each HLS output, which `opening` makes ready and `finalize` finishes and reports. `streams` knows which
//! streams are alive, `stream_url` where they go, and `stream_updates` brings the calls that change them. `media` is the
//! media process.

pub mod machine;
pub mod media;
mod drive;
mod finalize;
mod opening;
mod files;
pub mod segments;
pub mod streams;
mod stream_updates;
pub mod stream_url;

pub use drive::{SessionEnd, SessionJob, drive, ownership_lost};
