//! Media processes that die or hang in the middle of a recording, and the ones that take their place.

use std::time::Duration;

use serde_json::Value;
use spillway_plan::ImageSuffix;
use spillway_protocol::livekit::EgressStatus::{EgressActive, EgressComplete, EgressFailed};
use spillway_protocol::livekit::stream_info::Status;
use spillway_protocol::livekit::{EgressInfo, StreamInfo};
use spillway_protocol::rpc::service;
use spillway_runner::report::Delivered;
use spillway_runner::serve::ServeOutcome;
use tokio::time::{sleep, timeout};

use crate::harness::{RunnerHarness, TIMEOUT, done, until};

async fn harness() -> RunnerHarness {
    let mut harness = RunnerHarness::new().await;
    harness.media_restarts = 3;
    harness
}

fn bytes(harness: &RunnerHarness, name: &str) -> u64 {
    std::fs::metadata(harness.folder.path().join(name)).map_or(0, |file| file.len())
}

async fn stopped(harness: &RunnerHarness, run: tokio::task::JoinHandle<ServeOutcome>) -> EgressInfo {
    harness.call(service::STOP_EGRESS).await.unwrap();
    assert_eq!(done(run).await, ServeOutcome::Served(Delivered::Acknowledged));
    let last = harness.last();
    let statuses = harness.statuses();
    assert!(statuses.is_sorted_by_key(|status| *status as i32), "active once, over once: {statuses:?}");
    last
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_goes_on_in_another_file_and_the_gap_is_named() {
    for (script, why) in [
        ("record-die-once-tokens", "media process was killed by signal 6 (SIGABRT)"),
        ("record-exit3-once", "media process ended with exit code 3"),
        ("record-mute-once", "media process said nothing for 0 s and was ended"),
    ] {
        let harness = harness().await;
        let run = harness.run(script).await;
        harness.heard(EgressActive).await;
        until("bytes in the second file", || bytes(&harness, "a-2.ogg") > 500).await;
        let last = stopped(&harness, run).await;
        assert_eq!((last.status(), last.error.as_str()), (EgressComplete, ""), "{script}");
        let gap = format!("{why}; the recording goes on after a gap of");
        assert!(last.details.contains(&gap), "{script}: {}", last.details);
        if script.contains("tokens") {
            assert!(last.details.contains("1 newer tokens"), "the newest joins: {}", last.details);
        }
        let names: Vec<&str> = last.file_results.iter().map(|file| file.filename.as_str()).collect();
        assert_eq!(names, ["a.ogg", "a-2.ogg"], "{script}");
        for file in &last.file_results {
            assert_eq!(file.size as u64, bytes(&harness, &file.filename), "{file:?}");
            assert!(file.size > 500 && file.duration > 0, "{file:?}");
        }
        let [first, second] = &last.file_results[..] else { panic!("{last:?}") };
        assert!(first.ended_at < second.started_at && second.started_at - first.ended_at < 2_500_000_000, "{last:?}");
        // The egress starts with its request, the recording with its first media.
        assert!(first.started_at >= last.started_at, "{last:?}");
        let manifest = std::fs::read(harness.folder.path().join("EG_1.json")).unwrap();
        let manifest: Value = serde_json::from_slice(&manifest).unwrap();
        assert_eq!(manifest["started_at"].as_i64(), Some(first.started_at), "{manifest}");
        let (quality, files) = (&manifest["quality"], manifest["files"].as_array().unwrap().len());
        assert_eq!((quality["gaps"].as_u64(), files), (Some(1), 2), "{manifest}");
        assert!(quality["degraded"][0].as_str().unwrap().starts_with(&gap), "{manifest}");
        assert!(quality["media_ms"].as_u64().unwrap() > 0, "of the process that told it: {manifest}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_restarts_a_death_is_the_end() {
    let harness = RunnerHarness::new().await;
    let run = harness.run("record-die-once").await;
    assert_eq!(done(run).await, ServeOutcome::Served(Delivered::Acknowledged));
    let last = harness.last();
    assert_eq!((last.status(), last.error.as_str()), (EgressFailed, "media process was killed by signal 6 (SIGABRT)"));
    assert!(last.file_results[0].size > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_loop_ends_with_what_is_kept() {
    let harness = harness().await;
    let run = harness.run("record-die").await;
    assert_eq!(done(run).await, ServeOutcome::Served(Delivered::Acknowledged));
    let last = harness.last();
    assert_eq!((last.status(), last.error.as_str()), (EgressFailed, "media process was killed by signal 6 (SIGABRT)"));
    let names: Vec<&str> = last.file_results.iter().map(|file| file.filename.as_str()).collect();
    assert_eq!(names, ["a.ogg", "a-2.ogg", "a-3.ogg", "a-4.ogg"]);
    assert!(last.file_results.iter().all(|file| file.size > 0 && file.duration > 0), "{last:?}");
}

/// Nothing is recorded yet, so that nothing is missing, and the file has its own name.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_dies_before_the_first_media_leaves_no_gap() {
    let harness = harness().await;
    let run = harness.run("record-stillborn-once").await;
    harness.heard(EgressActive).await;
    let last = stopped(&harness, run).await;
    assert_eq!((last.status(), last.details.as_str()), (EgressComplete, "End reason: StopEgress API"));
    let names: Vec<&str> = last.file_results.iter().map(|file| file.filename.as_str()).collect();
    assert_eq!(names, ["a.ogg"]);
    assert!(!harness.folder.path().join("a-2.ogg").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_in_the_gap_is_a_complete_recording_without_its_end() {
    let harness = harness().await;
    let run = harness.run("record-die-once-away").await;
    harness.heard(EgressActive).await;
    // The file is closed, and the next process is in the room.
    sleep(Duration::from_millis(900)).await;
    assert!(!run.is_finished());
    let last = stopped(&harness, run).await;
    assert_eq!((last.status(), last.error.as_str(), last.file_results.len()), (EgressComplete, "", 1), "{last:?}");
    assert!(last.details.contains("s are not recorded"), "{}", last.details);
    assert!(last.file_results[0].size > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn hls_and_images_count_on_in_the_same_playlist() {
    let mut harness = harness().await;
    harness.no_files = true;
    harness.segments = vec![None];
    harness.images = vec![(None, ImageSuffix::Index)];
    harness.upload = serde_json::json!({ "spool_dir": harness.folder.path().join("spool") });
    let run = harness.run("record-die-once").await;
    harness.heard(EgressActive).await;
    let playlist = harness.folder.path().join("hls/index.m3u8");
    let read = || std::fs::read_to_string(&playlist).unwrap_or_default();
    sleep(Duration::from_millis(1200)).await;
    let last = stopped(&harness, run).await;
    assert_eq!((last.status(), last.error.as_str()), (EgressComplete, ""), "{last:?}");
    let text = read();
    assert!(text.ends_with("#EXT-X-ENDLIST\n"), "{text}");
    assert_eq!(text.matches("#EXT-X-DISCONTINUITY\n").count(), 1, "{text}");
    let (before, behind) = text.split_once("#EXT-X-DISCONTINUITY\n").unwrap();
    let numbers = |text: &str| -> Vec<u32> {
        let names = text.lines().filter(|line| line.ends_with(".ts"));
        names.map(|name| name.rsplit_once('_').unwrap().1.trim_end_matches(".ts").parse().unwrap()).collect()
    };
    let (before, behind) = (numbers(before), numbers(behind));
    assert!(before.len() >= 2 && behind.len() >= 3, "{text}");
    assert!(before.is_sorted() && behind.is_sorted() && before.last() < behind.first(), "{text}");
    let segments = &last.segment_results[0];
    assert_eq!(segments.segment_count as usize, before.len() + behind.len());
    // Dates go on behind the gap.
    let dates: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("#EXT-X-PROGRAM-DATE-TIME:")).collect();
    assert!(dates.is_sorted() && segments.ended_at > segments.started_at + 600_000_000, "{text}");
    let images = &last.image_results[0];
    assert!(images.image_count >= 6, "{images:?}");
    let mut pictures: Vec<String> = std::fs::read_dir(harness.folder.path().join("pics"))
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.ends_with(".jpeg"))
        .collect();
    pictures.sort();
    assert_eq!(pictures.len(), images.image_count as usize, "{pictures:?}");
    let last_number = pictures.last().unwrap().trim_end_matches(".jpeg").rsplit_once('_').unwrap().1.parse::<usize>();
    assert_eq!(last_number, Ok(pictures.len() - 1), "{pictures:?}");
    assert!(last.details.contains("after a gap of"), "{}", last.details);
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_published_again_as_they_are_by_then() {
    const GOOD: &str = "rtmp://127.0.0.1:1/app/canary-good-key";
    const REMOVED: &str = "rtmp://127.0.0.1:1/app/canary-removed-key";
    const ADDED: &str = "rtmp://127.0.0.1:1/app/canary-added-key";
    let mut harness = harness().await;
    harness.streams = Some(vec![GOOD, REMOVED]);
    harness.no_files = true;
    let run = harness.run("record-aged-die-once").await;
    harness.heard(EgressActive).await;
    harness.update_streams(&[ADDED], &[REMOVED]).await.unwrap();
    let again = async {
        while !harness.last().stream_results.iter().any(|stream| stream.retries > 0) {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(TIMEOUT, again).await.unwrap();
    sleep(Duration::from_millis(300)).await;
    let info = harness.update_streams(&[], &[ADDED]).await.unwrap();
    let statuses: Vec<Status> = info.stream_results.iter().map(StreamInfo::status).collect();
    assert_eq!(statuses, [Status::Active, Status::Finished, Status::Finished]);
    let good = &info.stream_results[0];
    assert_eq!((good.retries, good.error.as_str()), (1, ""), "it is connected again");
    assert_eq!(info.stream_results[1].retries, 0);
    let last = stopped(&harness, run).await;
    assert_eq!((last.status(), last.stream_results[0].status()), (EgressComplete, Status::Finished), "{last:?}");
    assert!(!format!("{last:?}").contains("canary-"), "{last:?}");
}
