//! The life of an egress: `machine` decides, `drive` obeys, `media` is the process they are about.

pub mod machine;
pub mod media;
mod drive;

pub use drive::{Ended, Job, drive};
