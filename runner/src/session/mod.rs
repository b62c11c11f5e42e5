//! One recording: `machine` decides about phases and outcomes, `drive` carries that out. `files` owns the state of each file,
//! `segments` of each HLS output and `images` of each image output, which `opening` makes ready and `finalize` finishes and
//! reports; `media` is the media process.

pub mod machine;
pub mod media;
mod drive;
mod finalize;
mod opening;
mod files;
pub mod segments;
pub mod images;

pub use drive::{SessionEnd, SessionJob, drive, ownership_lost};
