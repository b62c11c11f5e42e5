//! Image outputs in virtual time, with real files and a store in memory.

use spillway_plan::ImageSuffix;
use spillway_plan::image_name::ImageNames;
use spillway_storage::unreliable::FaultMode;
use spillway_storage::{RamStorage, Storage, Unreliable};
use tokio::time::sleep;

use super::super::handle::ImagesUpload;
use super::super::machine::ImagesPlan;
use super::super::saved::{ImageTotals, SpooledImage};
use super::*;
use crate::upload::objects::ObjectStore;
use crate::upload::settings::UploadSettings;

const SECOND_NS: u64 = 1_000_000_000;
const ORIGIN: i64 = 1_772_366_400_000_000_000;

struct ImagesLab {
    folder: tempfile::TempDir,
    ram: RamStorage,
    link: Unreliable,
    upload: ImagesUpload,
}

impl ImagesLab {
    fn new(suffix: ImageSuffix, spool_cap: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let spool = folder.path().join("EG_1");
        fs::create_dir(&spool).unwrap();
        let ram = RamStorage::new();
        let link = Unreliable::new(Arc::new(ram.clone()));
        let store: Arc<dyn Storage> = Arc::new(link.clone());
        let names = ImageNames { prefix: "d/a".into(), told: "d/a".into(), suffix, codec: ImageCodec::Jpeg };
        let (interval_ns, started_at) = (SECOND_NS, ORIGIN);
        let upload = ImagesUpload::start(ImagesUploader {
            machine: ImagesMachine::new(ImagesPlan {
                output: 2,
                index: 0,
                names,
                interval_ns,
                folder: spool,
                started_at,
            }),
            objects: ObjectUploads::new(ObjectStore::Remote(store), None, String::new(), UploadSettings::default()),
            locate: Arc::new(|name| name.to_owned()),
            checkpoint_writer: CheckpointWriter::disabled(),
            spool_cap,
        });
        Self { folder, ram, link, upload }
    }

    fn write(&self, n: u32) {
        fs::write(self.folder.path().join(format!("EG_1/2-{n}.jpeg")), format!("image {n}")).unwrap();
    }

    /// A second of recording.
    async fn capture(&self, n: u32) {
        self.write(n);
        self.upload.captured(SpooledImage { n, at_ns: u64::from(n) * SECOND_NS, bytes: 7 });
        sleep(Duration::from_secs(1)).await;
    }

    fn text(&self, key: &str) -> Option<String> {
        self.ram.object(key).map(|object| String::from_utf8(object.to_vec()).unwrap())
    }
}

#[tokio::test(start_paused = true)]
async fn images_are_stored_as_they_come_and_what_was_left_at_the_end() {
    let lab = ImagesLab::new(ImageSuffix::Index, 1 << 20);
    for n in 0..3 {
        lab.capture(n).await;
    }
    assert_eq!(lab.upload.status().totals, ImageTotals { count: 3, bytes: 21, lost: 0 });
    // The media process died before it said so, and while it wrote another one.
    lab.write(3);
    fs::write(lab.folder.path().join("EG_1/2-image.part"), "hal").unwrap();
    let result = lab.upload.finish().await;
    assert_eq!((result.totals.count, result.failure, result.notes), (4, None, vec![]));
    assert_eq!((result.started_at, result.ended_at), (ORIGIN, ORIGIN + 3 * SECOND_NS as i64));
    assert_eq!(lab.text("d/a_00003.jpeg").as_deref(), Some("image 3"));
    let expected = ("d/a_00001.jpeg".to_owned(), "ram://d/a_00001.jpeg".to_owned(), ORIGIN + SECOND_NS as i64);
    assert_eq!(result.images[1], expected);
    assert_eq!(lab.upload.put_beside("d/EG_1.json".into(), "{}".into()).await.unwrap(), "ram://d/EG_1.json");
    assert!(!lab.folder.path().join("EG_1").exists(), "nothing stays in the spool");
}

#[tokio::test(start_paused = true)]
async fn one_object_is_always_the_newest_that_could_be_stored() {
    let lab = ImagesLab::new(ImageSuffix::NoneOverwrite, 1 << 20);
    lab.capture(0).await;
    assert_eq!(lab.text("d/a.jpeg").as_deref(), Some("image 0"));
    lab.link.set_fault_mode(FaultMode::Down);
    for n in 1..5 {
        lab.capture(n).await;
    }
    lab.link.set_fault_mode(FaultMode::Fine);
    let result = lab.upload.finish().await;
    assert_eq!(lab.text("d/a.jpeg").as_deref(), Some("image 4"));
    assert_eq!((result.images.len(), result.totals.lost, result.failure), (1, 0, None));
}

#[tokio::test(start_paused = true)]
async fn a_full_spool_gives_its_oldest_image_up_and_the_rest_is_stored() {
    let lab = ImagesLab::new(ImageSuffix::Index, 40);
    lab.link.set_fault_mode(FaultMode::Down);
    for n in 0..10 {
        lab.capture(n).await;
    }
    lab.link.set_fault_mode(FaultMode::Fine);
    let result = lab.upload.finish().await;
    assert_eq!((result.totals.count + result.totals.lost, result.failure), (10, None));
    assert!(result.totals.lost >= 4 && lab.text("d/a_00009.jpeg").is_some(), "{:?}", result.totals);
    assert!(result.notes[0].contains("missing of d/a: the spool holds no more"), "{:?}", result.notes);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_never_answers_is_a_failure_in_the_end() {
    let lab = ImagesLab::new(ImageSuffix::Index, 1 << 20);
    lab.link.set_fault_mode(FaultMode::Down);
    lab.capture(0).await;
    let result = lab.upload.finish().await;
    assert_eq!((result.totals.count, result.totals.lost), (0, 1));
    assert!(result.failure.is_some() && result.spooled.is_some());
    assert!(lab.folder.path().join("EG_1/2-0.jpeg").is_file());
}
