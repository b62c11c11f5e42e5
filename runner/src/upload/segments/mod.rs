//! Uploads of an HLS output. Segments go to the store side by side; `sequencer` says which of them a playlist may name,
//! `schedule` when a playlist is uploaded, `machine` puts both together, `saved` is its state in the checkpoint (all pure).
//! `task` runs it, the session has its `handle`, `leftover` looks for what a dead media process has left in the spool, and `settled` for
//! what a dead attempt has left without a word about it.
//!
//! In the runner, not in the media process, because only the runner knows what is stored; and below `session`, because
//! salvage finishes the same playlists for a task that died.

mod handle;
mod task;
mod outcome;
mod leftover;
mod settled;
mod machine;
mod saved;
mod schedule;
mod sequencer;

pub use handle::SegmentsUpload;
pub(crate) use leftover::{clear_segments, last_write, next_number, remove_segments};
pub use machine::{SegmentsMachine, SegmentsPlan, SpooledSegment};
pub use outcome::{SegmentsResult, SegmentsStatus};
pub use saved::{SegmentRun, SegmentsCheckpoint, UnlistedSegment};
pub use sequencer::SegmentTotals;
pub(crate) use settled::settle_pending;
pub use task::SegmentsUploader;
