//! The life of an egress: `machine` decides, `drive` obeys, `media` is the process they are about.

pub mod machine;
pub mod media;
mod drive;
mod finalize;

pub use drive::{SessionEnd, SessionJob, drive, ownership_lost};
