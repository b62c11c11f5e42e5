//! Finishes an image output that a dead attempt was storing: images that still lie in a spool of this machine are sent. The
//! checkpoint only names what there is: the folder and the store are the truth. Runs in the salvage's task.

use std::path::PathBuf;

use spillway_plan::manifest;

use super::places::SalvagePlaces;
use crate::upload::checkpoint::CheckpointWriter;
use crate::upload::images::{
    ImagesCheckpoint, ImagesMachine, ImagesResult, ImagesUpload, ImagesUploader, settle_pending,
};

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
    settle_pending(&mut machine, &objects, places.here, places.give_up()).await;
    let manifest = manifest::path(&checkpoint.names.prefix, egress_id);
    let finished = objects.bytes_by(&manifest, places.give_up()).await.is_some();
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Arc;

    use async_trait::async_trait;
    use spillway_plan::image_name::ImageNames;
    use spillway_plan::{Destination, Destinations, ImageCodec, ImageSuffix, Provider, Store};
    use spillway_process::LocalRoot;
    use spillway_storage::{RamStorage, Storage, StorageError};

    use super::*;
    use crate::upload::UploadSettings;
    use crate::upload::images::{ImageTotals, SpooledImage};
    use crate::upload::stores::StoreFactory;

    #[derive(Debug)]
    struct OneStore(RamStorage);

    #[async_trait]
    impl StoreFactory for OneStore {
        async fn open(&self, _: &Destination) -> Result<Arc<dyn Storage>, StorageError> {
            Ok(Arc::new(self.0.clone()))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn of_images_that_replace_each_other_one_that_left_the_spool_is_not_lost() {
        let (folder, ram) = (tempfile::tempdir().unwrap(), RamStorage::new());
        fs::write(folder.path().join("0-1.jpeg"), "image 1").unwrap();
        let suffix = ImageSuffix::NoneOverwrite;
        let checkpoint = ImagesCheckpoint {
            output: 0,
            index: 0,
            names: ImageNames { prefix: "d/a".into(), told: "d/a".into(), suffix, codec: ImageCodec::Jpeg },
            interval_ns: 1,
            folder: folder.path().to_owned(),
            started_at: 1,
            on_backup: false,
            totals: ImageTotals::default(),
            span_ns: None,
            unstored: [0, 1].map(|n| SpooledImage { n, at_ns: u64::from(n), bytes: 7 }).to_vec(),
            next_n: 2,
            newest_ns: Some(1),
        };
        let provider = Provider::Local(spillway_plan::destination::Local::default());
        let store = Store { provider, prefix: String::new(), presign: false };
        let places = SalvagePlaces {
            destinations: &[Destinations { primary: Destination::Store(Box::new(store)), backup: None }],
            root: &LocalRoot::confined("/nowhere"),
            stores: &OneStore(ram.clone()),
            settings: &UploadSettings::default(),
            here: true,
        };
        let salvaged = finish_images(&places, &checkpoint, "EG_1").await.unwrap();
        let expected = ImageTotals { count: 2, bytes: 14, lost: 0 };
        assert_eq!((salvaged.result.totals, salvaged.result.notes), (expected, vec![]));
        assert_eq!(ram.object("d/a.jpeg").unwrap().to_vec(), b"image 1");
    }
}
