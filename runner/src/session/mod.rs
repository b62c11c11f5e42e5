//! One recording: `machine` decides about phases and outcomes, `drive` carries that out, `files` owns the state of each file
//! and `segments` of each HLS output, `finalize` finishes and reports them, and `media` is the media process.

pub mod machine;
pub mod media;
mod drive;
mod finalize;
mod files;
pub mod segments;

pub use drive::{SessionEnd, SessionJob, drive, ownership_lost};
