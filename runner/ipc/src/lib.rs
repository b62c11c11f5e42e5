//! The seam between the two processes of a task.
//!
//! `messages` is what they say to each other, `framing` how it travels over their one socket pair (JSON, a line each):
//! commands go down to the media process, events come up. `file` is what the media process writes and `seal` says
//! what of it is final; `reader` is the same file as the runner reads it,
//! and `restart` where in it another file could begin. `migration` is what both hear of a platform that moves them.

mod messages;
pub mod migration;
pub mod framing;
mod file;
mod file_id;
mod seal;
mod reader;
pub mod restart;

pub use file::*;
pub use file_id::FileId;
pub use messages::*;
pub use reader::SpoolReader;
pub use seal::*;
