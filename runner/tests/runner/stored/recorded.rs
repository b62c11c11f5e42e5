//! Files that are uploaded while they are recorded, through to the result.
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use spillway_bus::{Heartbeats, UploadStates};
use spillway_plan::{LimitRules, Secret};
use spillway_protocol::livekit::EgressStatus::{EgressActive, EgressComplete, EgressFailed, EgressLimitReached};
use spillway_protocol::rpc::service;
use spillway_runner::config::Settings;
use spillway_runner::oneshot::{self, Access};
use spillway_runner::report::Delivered;
use spillway_runner::serve::{self, ServeOutcome};
use spillway_runner::upload::UploadSettings;
use spillway_storage::unreliable::FaultMode;
use spillway_storage::{PartRules, StorageErrorKind};

use super::{Buckets, harness, name, plays, s3};
use crate::harness::{done, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_is_in_the_bucket_while_it_is_made_and_complete_when_it_is_stopped() {
    for (rules, script) in [
        (s3(), "record-mp4-fast"),
        (s3(), "record-fast"),
        (s3(), "record-mp4"),
        (PartRules { uniform: true, ..s3() }, "record-mp4-fast"),
        (PartRules { min_part_bytes: 1, ..s3() }, "record-mp4-fast"),
    ] {
        let (harness, buckets) = harness(rules, false).await;
        let run = harness.run(script).await;
        harness.heard(EgressActive).await;
        until("parts in the bucket", || buckets.primary.counts().puts >= 4).await;
        let (_, beat) = Heartbeats::new(&harness.bus).last(&harness.id).await.unwrap().unwrap();
        assert_eq!(beat.attempt, 1);
        assert!(UploadStates::new(&harness.bus).get(&harness.id).await.unwrap().is_some());
        assert_eq!(harness.spooled().len(), 1);
        let asked = Instant::now();
        harness.call(service::STOP_EGRESS).await.unwrap();
        assert_eq!(done(run).await, ServeOutcome::Served(Delivered::Acknowledged));
        assert!(asked.elapsed() < Duration::from_millis(1500), "{script}: {:?}", asked.elapsed());

        let last = harness.last();
        assert_eq!((last.status(), last.error.as_str()), (EgressComplete, ""), "{script} {rules:?}");
        let object = buckets.primary.object(name(script)).unwrap_or_else(|| panic!("{:?}", buckets.primary.keys()));
        assert!(plays(&object, script.contains("mp4")));
        let file = &last.file_results[0];
        assert_eq!((file.size as usize, file.location.clone()), (object.len(), format!("ram://{}", name(script))));
        assert_eq!((file.filename.as_str(), file.duration > 0), (name(script), true));
        assert_eq!(last.manifest_location, "ram://EG_1.json");
        let manifest = buckets.primary.object("EG_1.json").unwrap();
        assert!(String::from_utf8_lossy(&manifest).contains(&format!("ram://{}", name(script))));
        assert_eq!(buckets.open_uploads(), 0);
        assert!(harness.spooled().is_empty(), "the spool is given back");
        assert!(UploadStates::new(&harness.bus).get(&harness.id).await.unwrap().is_none());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_media_process_costs_nothing_that_was_written() {
    let (harness, buckets) = harness(s3(), false).await;
    let run = harness.run("record-mp4-fast-die").await;
    assert_eq!(done(run).await, ServeOutcome::Served(Delivered::Acknowledged));
    let last = harness.last();
    assert_eq!(last.status(), EgressFailed);
    assert!(last.error.contains("SIGABRT"), "{}", last.error);
    let object = buckets.primary.object("a.mp4").unwrap();
    assert!(!plays(&object, true), "its head is that of a recording that goes on");
    assert!(object.len() > 2_000_000, "everything counts: {}", object.len());
    assert_eq!(last.file_results[0].size as usize, object.len());
    assert!(last.file_results[0].duration > 200_000_000);
    assert!(last.manifest_location.is_empty());
    assert_eq!(buckets.open_uploads(), 0);
    assert!(harness.spooled().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_key_fails_before_the_room_is_joined_and_a_stop_leaves_nothing() {
    let (harness, buckets) = harness(s3(), false).await;
    buckets.over_primary.set_fault_mode(FaultMode::Refusing(StorageErrorKind::Denied));
    let begun = Instant::now();
    let run = harness.run("record").await;
    assert_eq!(done(run).await, ServeOutcome::Served(Delivered::Acknowledged));
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    let last = harness.last();
    assert_eq!((last.status(), last.error_code), (EgressFailed, 400));
    assert!(
        last.error.starts_with("RAM upload failed: ") && last.error.contains("refused by the test"),
        "{}",
        last.error
    );
    assert!(last.room_name == "record" && !harness.statuses().contains(&EgressActive), "no room was joined");

    let (harness, buckets) = self::harness(s3(), false).await;
    let run = harness.run("wait").await;
    until("the upload begun", || buckets.open_uploads() == 1 || buckets.primary.counts().aborted == 1).await;
    harness.call(service::STOP_EGRESS).await.unwrap();
    assert_eq!(done(run).await, ServeOutcome::Served(Delivered::Acknowledged));
    assert_eq!((buckets.open_uploads(), buckets.primary.keys().len()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_spool_gives_back_what_is_stored() {
    let (harness, buckets) = harness(s3(), false).await;
    let run = harness.run("record-fast").await;
    harness.heard(EgressActive).await;
    let spooled = harness.spooled().remove(0);
    until("twelve megabytes", || std::fs::metadata(&spooled).is_ok_and(|file| file.len() > 12_000_000)).await;
    use std::os::unix::fs::MetadataExt;
    let used = std::fs::metadata(&spooled).unwrap().blocks() * 512;
    assert!(used < 8_000_000, "{used} bytes lie there");
    harness.call(service::STOP_EGRESS).await.unwrap();
    done(run).await;
    assert!(plays(&buckets.primary.object("a.ogg").unwrap(), false));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_by_hand_goes_to_its_store_too() {
    let buckets = Buckets::new(s3());
    let folder = tempfile::tempdir().unwrap();
    let upload = json!({"bucket": "primary", "region": "r", "access_key": "k", "secret": "canary"});
    let request = json!({"track": {"room_name": "record-mp4-fast", "track_id": "TR_1",
        "file": {"filepath": "b/{track_id}", "s3": upload}}, "egress_id": "EG_1"});
    let access = Access {
        ws_url: Some("ws://127.0.0.1:1".into()),
        token: Some(Secret::new("room-token".into())),
        ..Access::default()
    };
    let limits = LimitRules::lasting(Some(1_000_000_000));
    let shot = oneshot::prepare(request, &access, limits).unwrap();
    assert!(!format!("{shot:?}").contains("canary"));
    let spool_dir = Some(folder.path().join("spool"));
    let upload = UploadSettings { spool_dir, checkpoint_ms: 200, ..UploadSettings::default() };
    let settings = Settings { local_root: Some(folder.path().into()), upload, ..Settings::default() };
    let info = serve::serve_request(shot, &settings, crate::scripted_media(), Arc::new(buckets.clone())).await.unwrap();
    assert_eq!(info.status(), EgressLimitReached, "{}", info.error);
    let object = buckets.primary.object("b/TR_1.mp4").unwrap();
    assert!(plays(&object, true));
    assert_eq!(info.file_results[0].location, "ram://b/TR_1.mp4");
    assert_eq!(info.manifest_location, "ram://b/EG_1.json");
    assert_eq!(buckets.open_uploads(), 0);
}

/// The publication came back in a codec that the first file cannot take.
#[tokio::test(flavor = "multi_thread")]
async fn a_recording_that_goes_on_in_another_file_is_two_objects() {
    for script in ["record-mp4-fast-again", "record-again"] {
        let (harness, buckets) = harness(s3(), false).await;
        let run = harness.run(script).await;
        harness.heard(EgressActive).await;
        let second = |path: &std::path::PathBuf| path.file_stem().is_some_and(|stem| stem == "1");
        let large = |path: &std::path::PathBuf| std::fs::metadata(path).is_ok_and(|file| file.len() > 1000);
        until("bytes in the second file", || harness.spooled().iter().any(|path| second(path) && large(path))).await;
        harness.call(service::STOP_EGRESS).await.unwrap();
        assert_eq!(done(run).await, ServeOutcome::Served(Delivered::Acknowledged));
        let last = harness.last();
        assert_eq!((last.status(), last.error.as_str()), (EgressComplete, ""), "{script}");
        assert_eq!(last.file_results.len(), 2);
        let second = name(script).replace("a.", "a-2.");
        for (file, expected) in last.file_results.iter().zip([name(script), second.as_str()]) {
            let object = buckets.primary.object(expected).unwrap_or_else(|| panic!("{:?}", buckets.primary.keys()));
            assert!(plays(&object, script.contains("mp4")));
            assert_eq!((file.filename.as_str(), file.location.clone()), (expected, format!("ram://{expected}")));
            assert_eq!(file.size as usize, object.len());
        }
        assert_eq!(buckets.open_uploads(), 0);
        assert!(harness.spooled().is_empty(), "the spool is given back");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_that_ends_as_its_next_file_is_opened_is_complete_without_that_file() {
    let (harness, buckets) = harness(s3(), false).await;
    let run = harness.run("record-mp4-fast-again-closed").await;
    assert_eq!(done(run).await, ServeOutcome::Served(Delivered::Acknowledged));
    let last = harness.last();
    assert_eq!((last.status(), last.error.as_str(), last.file_results.len()), (EgressComplete, "", 1));
    assert!(!last.details.contains("not finished"), "{}", last.details);
    assert_eq!(buckets.primary.keys(), ["EG_1.json", "a.mp4"]);
    assert!(buckets.open_uploads() == 0 && harness.spooled().is_empty());
}
