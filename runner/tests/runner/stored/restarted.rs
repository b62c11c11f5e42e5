//! A media process that dies while its files are uploaded: what it wrote is stored meanwhile, and another file follows.

use spillway_protocol::livekit::EgressStatus::{EgressActive, EgressComplete};
use spillway_protocol::rpc::service;
use spillway_runner::report::Delivered;
use spillway_runner::serve::ServeOutcome;

use super::{harness, plays, s3};
use crate::harness::{done, until};

#[tokio::test(flavor = "multi_thread")]
async fn both_files_are_stored_and_the_first_while_the_second_is_recorded() {
    let (mut harness, buckets) = harness(s3(), false).await;
    harness.media_restarts = 3;
    let run = harness.run("record-mp4-fast-die-once").await;
    harness.heard(EgressActive).await;
    until("the first object", || buckets.primary.object("a.mp4").is_some()).await;
    assert!(!run.is_finished());
    until("parts of the second", || buckets.primary.open_uploads() == 1).await;
    harness.call(service::STOP_EGRESS).await.unwrap();
    assert_eq!(done(run).await, ServeOutcome::Served(Delivered::Acknowledged));
    let last = harness.last();
    assert_eq!((last.status(), last.error.as_str()), (EgressComplete, ""));
    assert!(last.details.contains("after a gap of"), "{}", last.details);
    for (file, (name, is_whole)) in last.file_results.iter().zip([("a.mp4", false), ("a-2.mp4", true)]) {
        assert_eq!((file.filename.as_str(), file.location.as_str()), (name, format!("ram://{name}").as_str()));
        let object = buckets.primary.object(name).unwrap();
        assert_eq!((plays(&object, true), object.len()), (is_whole, file.size as usize), "{name}");
        assert!(file.duration > 0, "{file:?}");
    }
    assert_eq!(last.manifest_location, "ram://EG_1.json");
    let mut keys = buckets.primary.keys();
    keys.sort();
    assert_eq!(keys, ["EG_1.json", "a-2.mp4", "a.mp4"]);
    assert!(buckets.open_uploads() == 0 && harness.spooled().is_empty());
}

/// Its upload was begun when the store was tried, and its name is free again.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_dies_before_the_first_media_leaves_one_object() {
    let (mut harness, buckets) = harness(s3(), false).await;
    harness.media_restarts = 3;
    let run = harness.run("record-mp4-fast-unopened-once").await;
    harness.heard(EgressActive).await;
    until("parts", || buckets.primary.counts().puts >= 3).await;
    harness.call(service::STOP_EGRESS).await.unwrap();
    assert_eq!(done(run).await, ServeOutcome::Served(Delivered::Acknowledged));
    let last = harness.last();
    assert_eq!((last.status(), last.details.as_str()), (EgressComplete, "End reason: StopEgress API"));
    let mut keys = buckets.primary.keys();
    keys.sort();
    assert_eq!((last.file_results.len(), keys), (1, vec!["EG_1.json".to_owned(), "a.mp4".to_owned()]));
    assert!(plays(&buckets.primary.object("a.mp4").unwrap(), true));
    assert!(buckets.open_uploads() == 0 && harness.spooled().is_empty());
}
