//! Finishes an image output that a dead attempt was storing: images that still lie in a spool of this machine are sent. The
//! checkpoint only names what there is: the folder and the store are the truth. Runs in the salvage's task.

use std::path::PathBuf;

use spillway_ipc::image_file;
use spillway_plan::Destinations;
use spillway_plan::manifest;
use spillway_process::LocalRoot;

use super::segments::stored_bytes;
use crate::upload::checkpoint::CheckpointWriter;
use crate::upload::images::{ImagesCheckpoint, ImagesMachine, ImagesResult, ImagesUpload, ImagesUploader};
use crate::upload::stores::StoreFactory;
use crate::upload::{ObjectPlace, UploadSettings};

/// What a salvage knows of the places of an image output.
#[derive(Clone, Copy, Debug)]
pub struct ImagesSalvager<'a> {
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
pub struct SalvagedImages {
    /// As of a recording that ended here.
    pub result: ImagesResult,
    /// There is a manifest, which is written last: the attempt had finished, and only its last report is missing.
    pub finished: bool,
}

impl ImagesSalvager<'_> {
    /// Stores what is left. Bounded by `max_outage_ms`.
    ///
    /// # Errors
    /// A store cannot be opened, or what was recorded lies on another machine's disk: the message for the user.
    pub async fn finish(&self, checkpoint: &ImagesCheckpoint, egress_id: &str) -> Result<SalvagedImages, String> {
        let place = ObjectPlace::resume(self.destinations, checkpoint.on_backup, self.root, self.stores).await?;
        if !place.is_remote() && !self.here {
            return Err(format!("images {} lie on the disk of another machine", checkpoint.names.prefix));
        }
        let mut checkpoint = checkpoint.clone();
        if !self.here {
            // A folder of that path belongs to something else.
            checkpoint.folder = PathBuf::new();
        }
        let mut machine = ImagesMachine::resume(&checkpoint);
        let locate = place.locate();
        let objects = place.uploads(self.settings.clone());
        let mut spooled = vec![];
        for (n, name, bytes) in machine.pending() {
            let path = checkpoint.folder.join(image_file::name(checkpoint.output, n, checkpoint.names.codec));
            if self.here && tokio::fs::try_exists(&path).await.unwrap_or(false) {
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
}
