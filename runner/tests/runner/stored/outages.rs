//! Stores that fail for a while or for good: the recording waits in the spool, the backup takes over, or the result says why.
use std::time::{Duration, Instant};

use serde_json::json;
use spillway_bus::Heartbeats;
use spillway_protocol::livekit::EgressStatus::{EgressActive, EgressComplete, EgressEnding, EgressFailed};
use spillway_protocol::rpc::service;
use spillway_runner::report::Delivered;
use spillway_runner::serve::ServeOutcome;
use spillway_storage::StorageErrorKind;
use spillway_storage::unreliable::FaultMode;
use tokio::time::{sleep, timeout};

use super::{harness, is_stored_whole, plays, s3};
use crate::harness::{TIMEOUT, done, until};

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_during_and_at_the_end_costs_nothing_and_blocks_nothing() {
    for fault_mode in [FaultMode::Down, FaultMode::Stalling(Duration::from_millis(300))] {
        let (harness, buckets) = harness(s3(), false).await;
        let run = harness.run("record-mp4-fast").await;
        until("parts in the bucket", || buckets.primary.counts().puts >= 2).await;
        buckets.over_primary.set_fault_mode(fault_mode);
        let spooled = harness.spooled().remove(0);
        let bytes = || std::fs::metadata(&spooled).map_or(0, |metadata| metadata.len());
        let before = bytes();
        until("the recording goes on", || bytes() > before + 4_000_000).await;
        let beats = Heartbeats::new(&harness.bus);
        let seen = timeout(TIMEOUT, async {
            while !beats.last(&harness.id).await.unwrap().unwrap().1.extra.contains_key("upload_error") {
                sleep(Duration::from_millis(50)).await;
            }
        });
        seen.await.unwrap();
        let asked = Instant::now();
        harness.call(service::STOP_EGRESS).await.unwrap();
        assert!(asked.elapsed() < Duration::from_millis(1300), "control answers: {:?}", asked.elapsed());
        sleep(Duration::from_millis(700)).await;
        buckets.over_primary.set_fault_mode(FaultMode::Fine);
        assert_eq!(done(run).await, ServeOutcome::Served(Delivered::Acknowledged));
        let last = harness.last();
        assert_eq!((last.status(), last.error.as_str()), (EgressComplete, ""));
        assert!(plays(&buckets.primary.object("a.mp4").unwrap(), true));
        assert_eq!(buckets.open_uploads(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_without_end_fails_with_the_stores_message_and_the_spool_stays() {
    let (harness, buckets) = harness(s3(), false).await;
    let run = harness.run("record-fast").await;
    until("parts in the bucket", || buckets.primary.counts().puts >= 2).await;
    buckets.over_primary.set_fault_mode(FaultMode::Down);
    harness.call(service::STOP_EGRESS).await.unwrap();
    assert_eq!(done(run).await, ServeOutcome::Served(Delivered::Acknowledged));
    let last = harness.last();
    assert_eq!((last.status(), last.error_code), (EgressFailed, 400));
    assert!(last.error.starts_with("RAM upload failed: ") && last.error.contains("503"), "{}", last.error);
    assert_eq!(harness.spooled().len(), 1);
    assert!(last.details.contains("what is not stored lies on the recorder's disk"), "{}", last.details);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_backup_takes_over_from_a_store_that_fails() {
    // From the first second, in the middle, and while only time is lost.
    for (early, fault_mode) in [
        (true, FaultMode::Refusing(StorageErrorKind::NotFound)),
        (false, FaultMode::Refusing(StorageErrorKind::Expired)),
        (false, FaultMode::Down),
    ] {
        let (harness, buckets) = harness(s3(), true).await;
        if early {
            buckets.over_primary.set_fault_mode(fault_mode);
        }
        let run = harness.run("record-mp4-fast").await;
        harness.heard(EgressActive).await;
        if !early {
            until("parts in the bucket", || buckets.primary.counts().puts >= 2).await;
            buckets.over_primary.set_fault_mode(fault_mode);
        }
        until("parts in the other bucket", || buckets.backup.counts().puts >= 2).await;
        harness.call(service::STOP_EGRESS).await.unwrap();
        assert_eq!(done(run).await, ServeOutcome::Served(Delivered::Acknowledged));
        let last = harness.last();
        assert_eq!((last.status(), last.error.as_str()), (EgressComplete, ""), "{fault_mode:?}");
        assert!(last.backup_storage_used);
        assert!(plays(&buckets.backup.object("a.mp4").unwrap(), true));
        assert!(buckets.backup.object("EG_1.json").is_some(), "the manifest is beside it");
        assert!(buckets.primary.keys().is_empty());
        assert_eq!(buckets.backup.open_uploads(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_stores_that_fail_both_say_why() {
    let (harness, buckets) = harness(s3(), true).await;
    let run = harness.run("record-fast").await;
    until("parts in the bucket", || buckets.primary.counts().puts >= 2).await;
    buckets.over_primary.set_fault_mode(FaultMode::Refusing(StorageErrorKind::Expired));
    buckets.over_backup.set_fault_mode(FaultMode::Refusing(StorageErrorKind::Denied));
    harness.call(service::STOP_EGRESS).await.unwrap();
    assert_eq!(done(run).await, ServeOutcome::Served(Delivered::Acknowledged));
    let last = harness.last();
    assert_eq!((last.status(), last.error_code), (EgressFailed, 400));
    let message: Vec<&str> = last.error.split('\n').collect();
    assert!(message.len() == 2 && message[0].starts_with("primary: RAM upload failed"), "{}", last.error);
    assert!(message[1].starts_with("backup: RAM upload failed"), "{}", last.error);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_spool_ends_the_recording_and_what_was_recorded_is_stored() {
    let (mut harness, buckets) = harness(s3(), false).await;
    harness.upload["spool_cap_bytes"] = json!(5_000_000);
    let run = harness.run("record-mp4-fast").await;
    until("parts in the bucket", || buckets.primary.counts().puts >= 2).await;
    buckets.over_primary.set_fault_mode(FaultMode::Down);
    harness.heard(EgressEnding).await;
    buckets.over_primary.set_fault_mode(FaultMode::Fine);
    assert_eq!(done(run).await, ServeOutcome::Served(Delivered::Acknowledged));
    let last = harness.last();
    assert_eq!((last.status(), last.error_code), (EgressFailed, 429));
    assert!(last.error.contains("the spool holds no more") && last.error.contains("503"), "{}", last.error);
    assert_eq!(last.file_results[0].filename, "a.mp4");
    is_stored_whole(&buckets, &last.file_results[0]);
}
