//! Finishes an HLS output that a dead attempt was storing: segments that still lie in a spool of this machine are sent, the
//! one that was being written as far as it can be played, and the playlists get their end. The checkpoint only names what
//! there is: the folder and the store are the truth. Runs in the salvage's task.

use std::path::PathBuf;
use std::time::Duration;

use spillway_ipc::segment_file;
use spillway_plan::Destinations;
use spillway_plan::manifest;
use spillway_process::LocalRoot;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, timeout};

use crate::upload::checkpoint::CheckpointWriter;
use crate::upload::objects::ObjectUploads;
use crate::upload::segments::{
    SegmentsCheckpoint, SegmentsMachine, SegmentsResult, SegmentsUpload, SegmentsUploader, last_write,
};
use crate::upload::stores::StoreFactory;
use crate::upload::{ObjectPlace, UploadSettings};

/// For the store to say whether it has an object.
pub(super) const LOOK_TIMEOUT: Duration = Duration::from_secs(10);
/// A media process that has lost its runner writes what it has and leaves; one that encodes writes many times a second.
const QUIET: Duration = Duration::from_secs(1);
/// It has not left within this: it hangs.
const QUIET_TIMEOUT: Duration = Duration::from_secs(10);
const QUIET_INTERVAL: Duration = Duration::from_millis(100);

/// What a salvage knows of the places of an HLS output.
#[derive(Clone, Copy, Debug)]
pub struct SegmentsSalvager<'a> {
    /// Of the output; `None`: this machine's disk.
    pub destinations: Option<&'a Destinations>,
    /// Where files lie that stay on this machine.
    pub root: &'a LocalRoot,
    /// Opens the stores.
    pub stores: &'a dyn StoreFactory,
    /// Timeouts.
    pub settings: &'a UploadSettings,
    /// The checkpoint is of this machine: its paths can be looked at.
    pub here: bool,
}

/// What became of it.
#[derive(Clone, Debug)]
pub struct SalvagedSegments {
    /// As of a recording that ended here.
    pub result: SegmentsResult,
    /// There is a manifest, which is written last: the attempt had finished, and only its last report is missing.
    pub finished: bool,
}

impl SegmentsSalvager<'_> {
    /// Stores what is left and ends the playlists. Bounded by `max_outage_ms`.
    ///
    /// # Errors
    /// A store cannot be opened, or what was recorded lies on another machine's disk: the message for the user.
    pub async fn finish(&self, checkpoint: &SegmentsCheckpoint, egress_id: &str) -> Result<SalvagedSegments, String> {
        let playlist = checkpoint.names.path(&checkpoint.names.playlist);
        let place = ObjectPlace::resume(self.destinations, checkpoint.on_backup, self.root, self.stores).await?;
        if !place.is_remote() && !self.here {
            return Err(format!("{playlist} lies on the disk of another machine, without its end"));
        }
        let mut checkpoint = checkpoint.clone();
        if self.here {
            written_to_the_end(&checkpoint).await;
        } else {
            // A folder of that path belongs to something else.
            checkpoint.folder = PathBuf::new();
        }
        let mut machine = SegmentsMachine::resume(&checkpoint, place.locate());
        let objects = place.uploads(self.settings.clone());
        for (n, name, bytes) in machine.pending() {
            let path = checkpoint.folder.join(segment_file::name(checkpoint.output, n, checkpoint.names.format));
            if self.here && tokio::fs::try_exists(&path).await.unwrap_or(false) {
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
        Ok(SalvagedSegments { result, finished })
    }
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

async fn stored_bytes(objects: &ObjectUploads, name: &str) -> Option<u64> {
    timeout(LOOK_TIMEOUT, objects.bytes(name)).await.ok().flatten()
}

#[cfg(test)]
mod tests;
