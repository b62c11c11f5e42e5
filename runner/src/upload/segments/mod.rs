//! Uploads of an HLS output. Segments go to the store side by side; `sequencer` says which of them a playlist may name,
//! `schedule` when a playlist is uploaded, `machine` puts both together, `saved` is its state in the checkpoint (all pure).
//! `task` runs it, and `leftover` looks for what a dead media process has left in the spool.
//!
//! In the runner, not in the media process, because only the runner knows what is stored; and below `session`, because
//! salvage finishes the same playlists for a task that died.

mod task;
mod leftover;
mod machine;
mod saved;
mod schedule;
mod sequencer;

pub(crate) use leftover::last_write;
pub use machine::{SegmentsMachine, SegmentsPlan, SpooledSegment};
pub use saved::{SegmentRun, SegmentsCheckpoint, UnlistedSegment};
pub use sequencer::SegmentTotals;
pub(crate) use task::remove_segments;
pub use task::{SegmentsResult, SegmentsStatus, SegmentsUpload, SegmentsUploader};
