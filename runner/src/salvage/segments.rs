//! Finishes an HLS output that a dead attempt was storing: segments that still lie in a spool of this machine are sent, the
//! one that was being written as far as it can be played, and the playlists get their end. The checkpoint only names what
//! there is: the folder and the store are the truth. Runs in the salvage's task.

use std::path::PathBuf;

use spillway_plan::manifest;
use tokio::task::spawn_blocking;

use super::places::SalvagePlaces;
use crate::results::claim;
use crate::upload::checkpoint::CheckpointWriter;
use crate::upload::segments::{
    SegmentsCheckpoint, SegmentsMachine, SegmentsResult, SegmentsUpload, SegmentsUploader, last_write, settle_pending,
};
use crate::upload::until_quiet;

/// What became of it.
#[derive(Clone, Debug)]
pub(super) struct SalvagedSegments {
    /// As of a recording that ended here.
    pub(super) result: SegmentsResult,
    /// There is a manifest, which is written last: the attempt had finished, and only its last report is missing.
    pub(super) finished: bool,
}

/// Stores what is left and ends the playlists. Bounded by `max_outage_ms`.
///
/// # Errors
/// A store cannot be opened, or what was recorded lies on another machine's disk: the message for the user.
pub(super) async fn finish_segments(
    places: &SalvagePlaces<'_>,
    checkpoint: &SegmentsCheckpoint,
    egress_id: &str,
) -> Result<SalvagedSegments, String> {
    let playlist = checkpoint.names.path(&checkpoint.names.playlist);
    let place = places.of_output(checkpoint.output, checkpoint.on_backup).await?;
    if !place.is_remote() && !places.here {
        return Err(format!("{playlist} lies on the disk of another machine, without its end"));
    }
    let mut checkpoint = checkpoint.clone();
    if places.here {
        // They are cut then.
        let (folder, output, format) = (checkpoint.folder.clone(), checkpoint.output, checkpoint.names.format);
        until_quiet(move || last_write(&folder, output, format)).await;
    } else {
        // A folder of that path belongs to something else.
        checkpoint.folder = PathBuf::new();
    }
    let root = place.root().cloned();
    let mut machine = SegmentsMachine::resume(&checkpoint, place.locate());
    let objects = place.uploads(places.settings.clone());
    settle_pending(&mut machine, &objects, places.here, places.give_up()).await;
    let manifest = manifest::path(&playlist, egress_id);
    let finished = objects.bytes_by(&manifest, places.give_up()).await.is_some();
    let upload = SegmentsUpload::start(SegmentsUploader {
        machine,
        objects,
        checkpoint_writer: CheckpointWriter::disabled(),
        spool_cap: u64::MAX,
    });
    let result = upload.finish().await;
    if let Some(root) = root {
        let (names, holder) = (checkpoint.names, claim::holder(egress_id, checkpoint.output));
        let _ = spawn_blocking(move || claim::release_segments(&names, &root, &holder)).await;
    }
    Ok(SalvagedSegments { result, finished })
}

#[cfg(test)]
mod tests;
