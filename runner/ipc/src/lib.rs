//! What the two processes of a task share: messages over one socket pair, and spool files.
//!
//! `messages` defines commands (runner to media process) and events (media process to runner), with `start`, `settings` and
//! `facts` in them; `framing` carries them as one JSON object per line. `file` is a spool file as the media process writes it and says which of its bytes are
//! final, `reader` is the same file as the runner reads it, and `restart` finds where in it another file could begin.
//! `segment_file` names the segments of an HLS output in the spool, `image_file` images and `sheet_file` poster and thumbnails,
//! `ts_tail` cuts a segment that a dead media process left. `migration` reports that the platform moves the task to another
//! machine. Nothing here knows a store, Redis or a muxer.

#![warn(missing_docs, clippy::missing_errors_doc)]

pub mod framing;
mod messages;
mod start;
mod settings;
mod facts;
pub mod migration;
pub mod restart;
pub mod segment_file;
pub mod image_file;
pub mod sheet_file;
mod reader;
mod file;
mod file_id;
mod ts_tail;

pub use facts::{Quality, TrackFacts};
pub use file::{SealTracker, SpoolError, SpoolFile, WriteProgress};
pub use file_id::FileId;
pub use messages::{MediaCommand, MediaEndReason, MediaEvent, MediaPath, StreamLag, StreamState};
pub use reader::{BaseDataOffset, Origin, SpoolReader};
pub use settings::{FlagValue, MediaSettings, PageSettings, StreamSettings};
pub use start::{ProbeCommand, ResumePoint, StartCommand, StreamStart};
pub use ts_tail::TsTail;
