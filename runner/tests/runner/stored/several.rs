//! Recordings of several files: one client per store, a name each, and every file ends by itself.
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use serde_json::json;
use spillway_plan::Destinations;
use spillway_protocol::livekit::EgressInfo;
use spillway_protocol::livekit::EgressStatus::{EgressActive, EgressComplete, EgressFailed};
use spillway_protocol::rpc::service;
use spillway_runner::report::Delivered;
use spillway_runner::serve::ServeOutcome;
use spillway_storage::StorageErrorKind;
use spillway_storage::unreliable::FaultMode;

use super::{Buckets, bucket, harness, is_stored_whole, plays, s3};
use crate::harness::{RunnerHarness, done, until};

/// With a second file in one of the buckets.
async fn two(path: &'static str, to: &str) -> (RunnerHarness, Buckets) {
    let (mut harness, buckets) = harness(s3(), false).await;
    harness.more = vec![(path, Some(Destinations { primary: bucket(to), backup: None }))];
    (harness, buckets)
}

fn names(info: &EgressInfo) -> Vec<&str> {
    info.file_results.iter().map(|file| file.filename.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_files_are_two_objects_with_a_manifest_beside_each() {
    // The second one is opened first, and has the name; or has it since before the tracks were known.
    let in_one_folder = ["a-2.mp4", "a.mp4"];
    for (path, expected) in [
        ("d/b", ["a.mp4", "d/b.mp4"]),
        ("d/b.mp4", ["a.mp4", "d/b.mp4"]),
        ("a", in_one_folder),
        ("a.mp4", in_one_folder),
    ] {
        let (harness, buckets) = two(path, "primary").await;
        let run = harness.run("record-mp4-fast-two").await;
        until("parts of both", || buckets.primary.counts().puts >= 8).await;
        assert_eq!(buckets.opened.load(Ordering::Relaxed), 1, "one client for one destination");
        assert_eq!(harness.spooled().len(), 2);
        harness.call(service::STOP_EGRESS).await.unwrap();
        assert_eq!(done(run).await, ServeOutcome::Served(Delivered::Acknowledged));
        let last = harness.last();
        assert_eq!((last.status(), last.error.as_str()), (EgressComplete, ""));
        assert_eq!(names(&last), expected);
        for file in &last.file_results {
            is_stored_whole(&buckets, file);
            assert_eq!(file.location, format!("ram://{}", file.filename));
        }
        assert_eq!(last.manifest_location, "ram://EG_1.json");
        let beside = if path.starts_with('a') { "EG_1.json" } else { "d/EG_1.json" };
        assert_eq!(buckets.primary.object("EG_1.json"), buckets.primary.object(beside));
        assert!(buckets.open_uploads() == 0 && harness.spooled().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_tasks_files_are_all_completed_by_another() {
    for same_disk in [true, false] {
        for (script, first, expected) in
            [("record-mp4-fast-two", ["a.mp4", "d/b.mp4"], 2), ("record-fast-two-again", ["a.ogg", "d/b.ogg"], 4)]
        {
            let (harness, buckets) = two("d/b", "primary").await;
            let run = harness.run(script).await;
            harness.heard(EgressActive).await;
            // Those that are closed are stored by then.
            let last = (expected - 1).to_string();
            let is_last = |path: &PathBuf| path.file_stem().is_some_and(|stem| *stem == *last);
            until("the last file", || harness.spooled().iter().any(is_last)).await;
            let puts = buckets.primary.counts().puts;
            until("parts of all", || buckets.primary.counts().puts > puts + 40).await;
            run.abort();
            let _ = run.await;
            if !same_disk {
                std::fs::remove_dir_all(harness.folder.path().join("spool")).unwrap();
            }
            assert_eq!(done(harness.salvage(script).await).await, ServeOutcome::Served(Delivered::Acknowledged));
            let last = harness.last();
            assert_eq!((last.status(), last.error.as_str()), (EgressFailed, "runner was lost"), "{script}");
            assert_eq!(names(&last)[..2], first);
            assert_eq!(last.file_results.len(), expected);
            for file in &last.file_results {
                let object =
                    buckets.primary.object(&file.filename).unwrap_or_else(|| panic!("{:?}", last.file_results));
                plays(&object, script.contains("mp4"));
                assert_eq!(file.size as usize, object.len());
            }
            assert!(buckets.open_uploads() == 0 && harness.spooled().is_empty());
        }
    }
}

/// Redis was away until the runner gave up: the manifests say that it had finished.
#[tokio::test(flavor = "multi_thread")]
async fn files_in_two_folders_that_were_finished_and_never_reported_are_complete() {
    let (mut harness, buckets) = two("d/b", "primary").await;
    harness.last_report_timeout_ms = 200;
    let script = "record-mp4-fast-two-closed";
    let run = harness.run(script).await;
    harness.heard(EgressActive).await;
    harness.broker.cut();
    assert_eq!(done(run).await, ServeOutcome::Served(Delivered::Unwritten));
    harness.broker.mend();
    assert!(!harness.record().await.state.is_over());
    assert_eq!(done(harness.salvage(script).await).await, ServeOutcome::Served(Delivered::Acknowledged));
    let last = harness.last();
    assert_eq!((last.status(), last.error.as_str()), (EgressComplete, ""));
    assert_eq!(names(&last), ["a.mp4", "d/b.mp4"]);
    for file in &last.file_results {
        is_stored_whole(&buckets, file);
        assert!(file.duration > 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_refuses_costs_its_own_file_only() {
    let (mut harness, buckets) = two("b", "backup").await;
    harness.upload["spool_cap_bytes"] = json!(40_000_000);
    let run = harness.run("record-mp4-fast-two").await;
    until("parts of both", || buckets.primary.counts().puts >= 2 && buckets.backup.counts().puts >= 2).await;
    buckets.over_backup.set_fault_mode(FaultMode::Refusing(StorageErrorKind::Denied));
    let told = || harness.heard.all().iter().any(|info| info.details.contains("the other outputs go on"));
    until("it is told while the other goes on", told).await;
    let puts = buckets.primary.counts().puts;
    until("the other goes on", || buckets.primary.counts().puts > puts + 4).await;
    harness.call(service::STOP_EGRESS).await.unwrap();
    assert_eq!(done(run).await, ServeOutcome::Served(Delivered::Acknowledged));
    let last = harness.last();
    assert_eq!((last.status(), last.error_code), (EgressFailed, 429));
    assert!(last.error.starts_with("b.mp4: ") && last.error.contains("the spool holds no more"), "{}", last.error);
    is_stored_whole(&buckets, &last.file_results[0]);
    assert_eq!(names(&last), ["a.mp4", "b.mp4"]);
    assert_eq!(harness.spooled().len(), 1, "what is not stored stays");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_refuses_before_anything_is_recorded_leaves_nothing_in_the_other() {
    let (harness, buckets) = two("b.mp4", "backup").await;
    buckets.over_primary.set_fault_mode(FaultMode::Refusing(StorageErrorKind::Denied));
    let run = harness.run("record-mp4-fast-two").await;
    assert_eq!(done(run).await, ServeOutcome::Served(Delivered::Acknowledged));
    let last = harness.last();
    assert_eq!((last.status(), last.error_code), (EgressFailed, 400));
    assert!(last.error.contains("refused by the test"), "{}", last.error);
    assert!(!harness.statuses().contains(&EgressActive));
    assert_eq!((buckets.backup.counts().begun, buckets.backup.counts().aborted, buckets.open_uploads()), (1, 1, 0));
    assert!(buckets.primary.keys().is_empty() && buckets.backup.keys().is_empty());
}
