//! Images beside a file or alone: each is an object, counted when it is stored, however the recording ends.
use serde_json::{Value, json};
use spillway_plan::{Destinations, ImageSuffix};
use spillway_protocol::livekit::EgressInfo;
use spillway_protocol::livekit::EgressStatus::{EgressActive, EgressComplete, EgressFailed};
use spillway_protocol::rpc::service;
use spillway_runner::report::Delivered;
use spillway_runner::serve::ServeOutcome;
use spillway_storage::StorageErrorKind;
use spillway_storage::unreliable::FaultMode;

use super::{Buckets, bucket, harness, is_stored_whole, s3};
use crate::harness::{RunnerHarness, done, until};

/// A file and an image output in one bucket.
async fn beside_a_file(suffix: ImageSuffix) -> (RunnerHarness, Buckets) {
    let (mut harness, buckets) = harness(s3(), false).await;
    harness.images = vec![(Some(Destinations { primary: bucket("primary"), backup: None }), suffix)];
    (harness, buckets)
}

/// Names of the images in a bucket, in order.
fn images(buckets: &Buckets) -> Vec<String> {
    let mut keys: Vec<String> = buckets.primary.keys().into_iter().filter(|key| key.ends_with(".jpeg")).collect();
    keys.sort();
    keys
}

/// The images are there without a gap, and the EgressInfo says so.
fn finished(buckets: &Buckets, last: &EgressInfo) -> usize {
    let images = images(buckets);
    for (n, name) in images.iter().enumerate() {
        assert_eq!(*name, format!("pics/ann_{n:05}.jpeg"));
        assert_eq!(buckets.primary.object(name).unwrap(), format!("image {n}").as_bytes());
    }
    let told = &last.image_results[0];
    assert_eq!((told.image_count as usize, told.filename_prefix.as_str()), (images.len(), "pics/ann"));
    assert!(told.started_at > 0 && told.ended_at > told.started_at, "{told:?}");
    images.len()
}

fn nothing_is_spooled(harness: &RunnerHarness) {
    let left = std::fs::read_dir(harness.folder.path().join("spool")).map_or(0, Iterator::count);
    assert_eq!((left, harness.spooled()), (0, vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn images_are_stored_while_they_are_made() {
    let (harness, buckets) = beside_a_file(ImageSuffix::Index).await;
    let run = harness.run("record-mp4-fast").await;
    harness.heard(EgressActive).await;
    until("images are stored", || images(&buckets).len() >= 3).await;
    harness.call(service::STOP_EGRESS).await.unwrap();
    assert_eq!(done(run).await, ServeOutcome::Served(Delivered::Acknowledged));
    let last = harness.last();
    assert_eq!((last.status(), last.error.as_str()), (EgressComplete, ""));
    let count = finished(&buckets, &last);
    assert_eq!(last.file_results[0].filename, "a.mp4");
    is_stored_whole(&buckets, &last.file_results[0]);
    assert_eq!(last.manifest_location, "ram://EG_1.json");
    let manifest = buckets.primary.object("pics/EG_1.json").unwrap();
    assert_eq!(buckets.primary.object("EG_1.json").unwrap(), manifest);
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    let listed = manifest["images"].as_array().unwrap();
    assert_eq!(listed.len(), count);
    assert_eq!(listed[1]["filename"], "pics/ann_00001.jpeg");
    assert_eq!(listed[1]["location"], "ram://pics/ann_00001.jpeg");
    assert!(listed[1]["timestamp"].as_str().is_some_and(|time| time.ends_with('Z') && time.len() == 30), "{manifest}");
    assert_eq!(buckets.open_uploads(), 0);
    nothing_is_spooled(&harness);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_media_process_leaves_the_images_it_made() {
    let (mut harness, buckets) = beside_a_file(ImageSuffix::Index).await;
    (harness.no_files, harness.destinations) = (true, None);
    let run = harness.run("record-nofile-die").await;
    assert_eq!(done(run).await, ServeOutcome::Served(Delivered::Acknowledged));
    let last = harness.last();
    assert_eq!(last.status(), EgressFailed);
    assert!(last.error.contains("media process"), "{}", last.error);
    assert!(finished(&buckets, &last) >= 2);
    nothing_is_spooled(&harness);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_tasks_images_are_sent_by_another() {
    for same_disk in [true, false] {
        let (harness, buckets) = beside_a_file(ImageSuffix::Index).await;
        let run = harness.run("record-mp4-fast").await;
        until("images are stored", || images(&buckets).len() >= 3).await;
        run.abort();
        let _ = run.await;
        if !same_disk {
            std::fs::remove_dir_all(harness.folder.path().join("spool")).unwrap();
        }
        let salvage = harness.salvage("record-mp4-fast").await;
        assert_eq!(done(salvage).await, ServeOutcome::Served(Delivered::Acknowledged));
        let last = harness.last();
        assert_eq!((last.status(), last.error.as_str()), (EgressFailed, "runner was lost"));
        let told = &last.image_results[0];
        // One may have been stored in the moment before its task died, and the checkpoint does not know it.
        let (count, stored) = (told.image_count as usize, images(&buckets).len());
        assert!(count >= 2 && (stored - 1..=stored).contains(&count), "{stored} are stored: {told:?}");
        assert_eq!(told.filename_prefix, "pics/ann");
        assert!(told.started_at > 0 && told.ended_at > told.started_at, "{told:?}");
        nothing_is_spooled(&harness);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn alone_on_a_disk_as_one_file_that_is_replaced() {
    let mut harness = RunnerHarness::new().await;
    (harness.no_files, harness.images) = (true, vec![(None, ImageSuffix::NoneOverwrite)]);
    harness.upload = json!({ "spool_dir": harness.folder.path().join("spool") });
    let run = harness.run("record-nofile").await;
    harness.heard(EgressActive).await;
    let folder = harness.folder.path().join("pics");
    let read = || std::fs::read_to_string(folder.join("ann.jpeg")).unwrap_or_default();
    until("it is replaced", || read() == "image 3").await;
    harness.call(service::STOP_EGRESS).await.unwrap();
    assert_eq!(done(run).await, ServeOutcome::Served(Delivered::Acknowledged));
    let last = harness.last();
    assert_eq!((last.status(), last.error.as_str()), (EgressComplete, ""));
    assert!(last.image_results[0].image_count >= 2, "{last:?}");
    let manifest = std::fs::read_to_string(folder.join("EG_1.json")).unwrap();
    let manifest: Value = serde_json::from_str(&manifest).unwrap();
    assert_eq!(manifest["images"].as_array().map(Vec::len), Some(1));
    assert_eq!(manifest["images"][0]["location"], folder.join("ann.jpeg").display().to_string());
    assert_eq!(last.manifest_location, folder.join("EG_1.json").display().to_string());
    let mut left: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["EG_1.json", "ann.jpeg"]);
    nothing_is_spooled(&harness);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_refuses_is_told_before_anything_is_recorded() {
    let (mut harness, buckets) = beside_a_file(ImageSuffix::Timestamp).await;
    harness.images[0].0 = Some(Destinations { primary: bucket("backup"), backup: None });
    buckets.over_backup.set_fault_mode(FaultMode::Refusing(StorageErrorKind::Denied));
    let run = harness.run("record-mp4-fast").await;
    assert_eq!(done(run).await, ServeOutcome::Served(Delivered::Acknowledged));
    let last = harness.last();
    assert_eq!((last.status(), last.error_code), (EgressFailed, 400));
    assert!(last.error.contains("refused by the test") && !harness.statuses().contains(&EgressActive), "{last:?}");
    assert!(buckets.primary.keys().is_empty() && buckets.open_uploads() == 0);
}
