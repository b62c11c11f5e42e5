//! Finishes an image output that a dead attempt was storing: images that still lie in a spool of this machine are sent. The
//! checkpoint only names what there is: the folder and the store are the truth. Runs in the salvage's task.

use std::path::PathBuf;

use spillway_ipc::image_file;
use spillway_plan::manifest;

use super::places::SalvagePlaces;
use super::segments::stored_bytes;
use crate::upload::checkpoint::CheckpointWriter;
use crate::upload::images::{ImagesCheckpoint, ImagesMachine, ImagesResult, ImagesUpload, ImagesUploader};

/// What became of it.
#[derive(Clone, Debug)]
pub(super) struct SalvagedImages {
    /// As of a recording that ended here.
    pub(super) result: ImagesResult,
    /// There is a manifest, which is written last: the attempt had finished, and only its last report is missing.
    pub(super) finished: bool,
}

/// Stores what is left. Bounded by `max_outage_ms`.
///
/// # Errors
/// A store cannot be opened, or what was recorded lies on another machine's disk: the message for the user.
pub(super) async fn finish_images(
    places: &SalvagePlaces<'_>,
    checkpoint: &ImagesCheckpoint,
    egress_id: &str,
) -> Result<SalvagedImages, String> {
    let place = places.of_output(checkpoint.output, checkpoint.on_backup).await?;
    if !place.is_remote() && !places.here {
        return Err(format!("images {} lie on the disk of another machine", checkpoint.names.prefix));
    }
    let mut checkpoint = checkpoint.clone();
    if !places.here {
        // A folder of that path belongs to something else.
        checkpoint.folder = PathBuf::new();
    }
    let mut machine = ImagesMachine::resume(&checkpoint);
    let locate = place.locate();
    let objects = place.uploads(places.settings.clone());
    let mut spooled = vec![];
    for (n, name, bytes) in machine.pending() {
        let path = checkpoint.folder.join(image_file::name(checkpoint.output, n, checkpoint.names.codec));
        if places.here && tokio::fs::try_exists(&path).await.unwrap_or(false) {
            spooled.push(n);
        } else if !checkpoint.names.is_one() && stored_bytes(&objects, &name).await == Some(bytes) {
            // Its answer came after the last checkpoint.
            machine.stored(n, bytes, checkpoint.on_backup);
        } else {
            machine.lost(n);
        }
    }
    spooled.into_iter().for_each(|n| machine.send(n));
    let manifest = manifest::path(&checkpoint.names.prefix, egress_id);
    let finished = stored_bytes(&objects, &manifest).await.is_some();
    let upload = ImagesUpload::start(ImagesUploader {
        machine,
        objects,
        locate,
        checkpoint_writer: CheckpointWriter::disabled(),
        spool_cap: u64::MAX,
    });
    let result = upload.finish().await;
    Ok(SalvagedImages { result, finished })
}
