//! The seam between the two processes of a task.
//!
//! `words` is what they say to each other over one socket pair (JSON, a line each): orders go down to the media
//! process, happenings come up. `file` is what the media process writes and what of it is final.

mod words;

pub use words::*;
