//! Tasks that die in the middle of a recording, and the ones that go on with it: on a disk that outlives them.

use std::time::Duration;

use serde_json::Value;
use spillway_bus::{Decision, LaunchState, Record};
use spillway_plan::ImageSuffix;
use spillway_protocol::livekit::EgressStatus::{EgressActive, EgressComplete};
use spillway_protocol::livekit::stream_info::Status;
use spillway_protocol::livekit::{EgressInfo, StreamInfo};
use spillway_protocol::rpc::service;
use spillway_runner::report::Delivered;
use spillway_runner::serve::ServeOutcome;
use spillway_runner::ticket::RunnerTask;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::harness::{RunnerHarness, done, until};

async fn harness() -> RunnerHarness {
    let mut harness = RunnerHarness::new().await;
    harness.resumable = true;
    harness
}

fn bytes(harness: &RunnerHarness, name: &str) -> u64 {
    std::fs::metadata(harness.folder.path().join(name)).map_or(0, |file| file.len())
}

/// The whole task dies.
async fn dies(run: JoinHandle<ServeOutcome>) {
    run.abort();
    let _ = run.await;
}

async fn stopped(harness: &RunnerHarness, run: JoinHandle<ServeOutcome>) -> EgressInfo {
    harness.call(service::STOP_EGRESS).await.unwrap();
    over(harness, run).await
}

async fn over(harness: &RunnerHarness, run: JoinHandle<ServeOutcome>) -> EgressInfo {
    assert_eq!(done(run).await, ServeOutcome::Served(Delivered::Acknowledged));
    let statuses = harness.statuses();
    assert!(statuses.is_sorted_by_key(|status| *status as i32), "active once, over once: {statuses:?}");
    harness.last()
}

#[tokio::test(flavor = "multi_thread")]
async fn another_task_goes_on_in_further_files_and_each_gap_is_named() {
    let harness = harness().await;
    let run = harness.run("record").await;
    harness.heard(EgressActive).await;
    until("bytes", || bytes(&harness, "a.ogg") > 500).await;
    dies(run).await;
    let run = harness.resume().await;
    until("bytes in the second file", || bytes(&harness, "a-2.ogg") > 500).await;
    dies(run).await;
    let run = harness.resume().await;
    until("bytes in the third file", || bytes(&harness, "a-3.ogg") > 500).await;
    let last = stopped(&harness, run).await;
    assert_eq!((last.status(), last.error.as_str()), (EgressComplete, ""), "{last:?}");
    let gap = "runner was lost; the recording goes on after a gap of";
    // Of two that are equally long users are told once.
    assert!(last.details.contains(gap), "{}", last.details);
    let names: Vec<&str> = last.file_results.iter().map(|file| file.filename.as_str()).collect();
    assert_eq!(names, ["a.ogg", "a-2.ogg", "a-3.ogg"]);
    for file in &last.file_results {
        assert_eq!(file.size as u64, bytes(&harness, &file.filename), "{file:?}");
        assert!(file.size > 500 && file.duration > 0, "{file:?}");
    }
    let times: Vec<i64> = last.file_results.iter().flat_map(|file| [file.started_at, file.ended_at]).collect();
    assert!(times.is_sorted() && times[0] >= last.started_at, "{times:?}");
    let manifest = std::fs::read(harness.folder.path().join("EG_1.json")).unwrap();
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    assert_eq!(manifest["started_at"].as_i64(), Some(times[0]), "{manifest}");
    let (quality, files) = (&manifest["quality"], manifest["files"].as_array().unwrap().len());
    assert_eq!((quality["gaps"].as_u64(), files), (Some(2), 3), "{manifest}");
    assert!(harness.registry().list_live().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn hls_and_images_count_on_in_the_same_playlist() {
    let mut harness = harness().await;
    harness.no_files = true;
    harness.segments = vec![None];
    harness.images = vec![(None, ImageSuffix::Index)];
    harness.upload = serde_json::json!({ "spool_dir": harness.folder.path().join("spool") });
    let playlist = harness.folder.path().join("hls/index.m3u8");
    let read = || std::fs::read_to_string(&playlist).unwrap_or_default();
    let run = harness.run("record").await;
    harness.heard(EgressActive).await;
    sleep(Duration::from_millis(700)).await;
    dies(run).await;
    assert!(!read().contains("#EXT-X-ENDLIST"), "{}", read());
    let run = harness.resume().await;
    until("it records again", || harness.last().details.contains("after a gap of")).await;
    sleep(Duration::from_millis(700)).await;
    let last = stopped(&harness, run).await;
    assert_eq!((last.status(), last.error.as_str()), (EgressComplete, ""), "{last:?}");
    let text = read();
    assert!(text.ends_with("#EXT-X-ENDLIST\n"), "{text}");
    assert_eq!(text.matches("#EXT-X-DISCONTINUITY\n").count(), 1, "{text}");
    let (first, second) = text.split_once("#EXT-X-DISCONTINUITY\n").unwrap();
    let numbers = |text: &str| -> Vec<u32> {
        let names = text.lines().filter(|line| line.ends_with(".ts"));
        names.map(|name| name.rsplit_once('_').unwrap().1.trim_end_matches(".ts").parse().unwrap()).collect()
    };
    let (first, second) = (numbers(first), numbers(second));
    assert!(first.len() >= 2 && second.len() >= 3, "{text}");
    assert!(first.is_sorted() && second.is_sorted() && first.last() < second.first(), "{text}");
    let segments = &last.segment_results[0];
    assert_eq!(segments.segment_count as usize, first.len() + second.len());
    let dates: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("#EXT-X-PROGRAM-DATE-TIME:")).collect();
    assert!(dates.is_sorted() && segments.ended_at > segments.started_at + 600_000_000, "{text}");
    let pictures = std::fs::read_dir(harness.folder.path().join("pics")).unwrap().flatten();
    let pictures = pictures.filter(|entry| entry.file_name().to_string_lossy().ends_with(".jpeg")).count();
    assert_eq!(pictures, last.image_results[0].image_count as usize, "{last:?}");
    assert!(last.details.contains("after a gap of"), "{}", last.details);
    // Names that were held are free, and the spool is empty.
    let left = std::fs::read_dir(harness.folder.path().join("hls")).unwrap().flatten();
    assert!(left.into_iter().all(|entry| !entry.file_name().to_string_lossy().contains("claim")));
    assert!(!harness.folder.path().join("spool/EG_1").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_published_again_as_they_are_by_then() {
    const GOOD: &str = "rtmp://127.0.0.1:1/app/canary-good-key";
    const REMOVED: &str = "rtmp://127.0.0.1:1/app/canary-removed-key";
    const ADDED: &str = "rtmp://127.0.0.1:1/app/canary-added-key";
    let mut harness = harness().await;
    harness.streams = Some(vec![GOOD, REMOVED]);
    harness.no_files = true;
    let run = harness.run("record").await;
    harness.heard(EgressActive).await;
    harness.update_streams(&[ADDED], &[REMOVED]).await.unwrap();
    // It is kept beside the answer.
    sleep(Duration::from_millis(200)).await;
    dies(run).await;
    assert!(!format!("{:?}", harness.record().await).contains("canary"));
    let run = harness.resume().await;
    let again = || {
        let retried = harness.last().stream_results.iter().filter(|stream| stream.retries > 0).count();
        retried == 2 && harness.last().details.contains("after a gap")
    };
    until("both are connected again", again).await;
    let info = harness.update_streams(&[], &[ADDED]).await.unwrap();
    let statuses: Vec<Status> = info.stream_results.iter().map(StreamInfo::status).collect();
    assert_eq!(statuses, [Status::Active, Status::Finished, Status::Finished]);
    assert_eq!(info.stream_results[1].retries, 0, "it was removed before");
    let last = stopped(&harness, run).await;
    assert_eq!((last.status(), last.stream_results[0].status()), (EgressComplete, Status::Finished), "{last:?}");
    assert!(!format!("{last:?}").contains("canary-"), "{last:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_while_no_task_is_there_ends_a_complete_recording() {
    let harness = harness().await;
    let run = harness.run("record").await;
    harness.heard(EgressActive).await;
    until("bytes", || bytes(&harness, "a.ogg") > 500).await;
    dies(run).await;
    let asked = |record: &mut Record| {
        record.stop_asked = true;
        Decision::Write
    };
    harness.registry().update(&harness.id, asked).await.unwrap();
    let run = harness.resume().await;
    let last = over(&harness, run).await;
    assert_eq!((last.status(), last.error.as_str(), last.file_results.len()), (EgressComplete, "", 1), "{last:?}");
    assert_eq!(last.file_results[0].size as u64, bytes(&harness, "a.ogg"));
    assert!(last.details.starts_with("End reason: StopEgress API"), "{}", last.details);
    assert!(last.details.contains("s are not recorded"), "{}", last.details);
    assert!(!harness.folder.path().join("a-2.ogg").exists());
}

/// Nothing is missing then.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_task_that_has_recorded_nothing_the_recording_begins() {
    let harness = harness().await;
    let (names, ticket) = harness.launch("record").await;
    let run = harness.serve(names, ticket.unwrap(), RunnerTask::Record);
    while !matches!(harness.record().await.state, LaunchState::Running { .. }) {
        sleep(Duration::from_millis(1)).await;
    }
    dies(run).await;
    let run = harness.resume().await;
    harness.heard(EgressActive).await;
    until("bytes", || bytes(&harness, "a.ogg") > 500).await;
    let last = stopped(&harness, run).await;
    assert_eq!((last.status(), last.details.as_str()), (EgressComplete, "End reason: StopEgress API"));
    let names: Vec<&str> = last.file_results.iter().map(|file| file.filename.as_str()).collect();
    assert_eq!(names, ["a.ogg"]);
}

/// It was only away: the number of the one that goes on fences it.
#[tokio::test(flavor = "multi_thread")]
async fn a_zombie_reports_nothing_and_its_file_is_kept() {
    let harness = harness().await;
    let zombie = harness.run("record").await;
    harness.heard(EgressActive).await;
    until("bytes", || bytes(&harness, "a.ogg") > 500).await;
    let run = harness.resume().await;
    assert_eq!(done(zombie).await, ServeOutcome::Served(Delivered::NotOurs));
    until("bytes in the second file", || bytes(&harness, "a-2.ogg") > 500).await;
    let last = stopped(&harness, run).await;
    assert_eq!((last.status(), last.file_results.len()), (EgressComplete, 2), "{last:?}");
    assert!(last.file_results.iter().all(|file| file.size as u64 == bytes(&harness, &file.filename)), "{last:?}");
}
