//! Finishes an HLS output that a dead attempt was storing: segments that still lie in a spool of this machine are sent, the
//! one that was being written as far as it can be played, and the playlists get their end. The checkpoint only names what
//! there is: the folder and the store are the truth. Runs in the salvage's task.

use std::path::PathBuf;
use std::time::Duration;

use spillway_ipc::segment_file;
use spillway_plan::manifest;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, timeout};

use super::places::SalvagePlaces;
use crate::results::claim;
use crate::upload::checkpoint::CheckpointWriter;
use crate::upload::objects::ObjectUploads;
use crate::upload::segments::{
    SegmentsCheckpoint, SegmentsMachine, SegmentsResult, SegmentsUpload, SegmentsUploader, last_write,
};

/// For the store to say whether it has an object.
pub(super) const LOOK_TIMEOUT: Duration = Duration::from_secs(10);
/// A media process that has lost its runner writes what it has and leaves; one that encodes writes many times a second.
const QUIET: Duration = Duration::from_secs(1);
/// It has not left within this: it hangs.
const QUIET_TIMEOUT: Duration = Duration::from_secs(10);
const QUIET_INTERVAL: Duration = Duration::from_millis(100);

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
        written_to_the_end(&checkpoint).await;
    } else {
        // A folder of that path belongs to something else.
        checkpoint.folder = PathBuf::new();
    }
    let root = place.root().cloned();
    let mut machine = SegmentsMachine::resume(&checkpoint, place.locate());
    let objects = place.uploads(places.settings.clone());
    for (n, name, bytes) in machine.pending() {
        let path = checkpoint.folder.join(segment_file::name(checkpoint.output, n, checkpoint.names.format));
        if places.here && tokio::fs::try_exists(&path).await.unwrap_or(false) {
            machine.send(n);
        } else if stored_bytes(&objects, &name).await == Some(bytes) {
            // Its answer came after the last checkpoint.
            machine.stored(n, bytes, checkpoint.on_backup);
        } else {
            machine.lost(n);
        }
    }
    let manifest = manifest::path(&playlist, egress_id);
    let finished = stored_bytes(&objects, &manifest).await.is_some();
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

/// Waits until nothing is written to the segments that lie on this machine: they are cut then.
async fn written_to_the_end(checkpoint: &SegmentsCheckpoint) {
    let give_up = Instant::now() + QUIET_TIMEOUT;
    while Instant::now() < give_up {
        let (folder, output, format) = (checkpoint.folder.clone(), checkpoint.output, checkpoint.names.format);
        let looked = spawn_blocking(move || last_write(&folder, output, format)).await;
        if looked.ok().flatten().is_none_or(|at| at.elapsed().is_ok_and(|since| since >= QUIET)) {
            return;
        }
        sleep(QUIET_INTERVAL).await;
    }
}

/// Size of an object; `None`: it is not there, or the store does not say.
pub(super) async fn stored_bytes(objects: &ObjectUploads, name: &str) -> Option<u64> {
    timeout(LOOK_TIMEOUT, objects.bytes(name)).await.ok().flatten()
}

#[cfg(test)]
mod tests;
