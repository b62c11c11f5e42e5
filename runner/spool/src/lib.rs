//! The seam between the two processes of a task.
//!
//! `words` is what they say to each other, `framing` how it travels over their one socket pair (JSON, a line each):
//! orders go down to the media process, happenings come up. `file` is what the media process writes and `seal` says
//! what of it is final; `shelf` is the same file as the runner reads it,
//! and `restart` where in it another file could begin. `moves` is what both hear of a platform that moves them.

mod words;
pub mod moves;
pub mod framing;
mod file;
mod file_id;
mod seal;
mod shelf;
pub mod restart;

pub use file::*;
pub use file_id::FileId;
pub use seal::*;
pub use shelf::Shelf;
pub use words::*;
