//! The seam between the two processes of a task.
//!
//! `words` is what they say to each other, `framing` how it travels over their one socket pair (JSON, a line each):
//! orders go down to the media process, happenings come up. `file` is what the media process writes and `seal` says
//! what of it is final.

mod words;
pub mod framing;
mod file;
mod seal;

pub use file::*;
pub use seal::*;
pub use words::*;
