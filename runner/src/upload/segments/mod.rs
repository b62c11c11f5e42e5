//! Uploads of an HLS output. Segments go to the store side by side; `sequencer` says which of them a playlist may name,
//! `schedule` when a playlist is uploaded. Both pure: the upload task passes in results and the time.
//!
//! In the runner, not in the media process, because only the runner knows what is stored; and below `session`, because
//! salvage finishes the same playlists for a task that died.

mod schedule;
mod sequencer;

pub use schedule::{PlaylistSchedule, UploadRule};
pub use sequencer::{SegmentOutcome, SegmentSequencer, SegmentTotals, StoredSegment};
