//! Streams of an egress, through UpdateStream and the EgressInfo that livekit-server hears of.

use std::time::Duration;

use spillway_bus::Heartbeats;
use spillway_protocol::livekit::EgressStatus::{EgressAborted, EgressActive, EgressComplete, EgressFailed};
use spillway_protocol::livekit::stream_info::Status;
use spillway_protocol::livekit::{EgressInfo, StreamInfo};
use spillway_protocol::rpc::service;
use spillway_protocol::{Code, RpcError};
use spillway_runner::report::Delivered;
use spillway_runner::serve::ServeOutcome;
use tokio::time::{sleep, timeout};

use crate::harness::{RunnerHarness, done};

const GOOD: &str = "rtmp://127.0.0.1:1/app/canary-good-key";
const BAD: &str = "rtmp://127.0.0.1:1/app/canary-bad-key";
const ADDED: &str = "rtmps://127.0.0.1:1/app/canary-added-key?token=canary";

async fn harness(urls: &[&'static str], has_file: bool) -> RunnerHarness {
    let mut harness = RunnerHarness::new().await;
    harness.streams = Some(urls.to_vec());
    harness.no_files = !has_file;
    harness
}

/// Waits for an update that livekit-server hears of.
async fn heard(harness: &RunnerHarness, what: impl Fn(&EgressInfo) -> bool) -> EgressInfo {
    let wait = async {
        loop {
            if let Some(info) = harness.heard.all().into_iter().find(&what) {
                return info;
            }
            sleep(Duration::from_millis(5)).await;
        }
    };
    let heard = timeout(Duration::from_secs(20), wait).await;
    heard.unwrap_or_else(|_| panic!("not heard: {:?}", harness.heard.all()))
}

fn statuses(info: &EgressInfo) -> Vec<Status> {
    info.stream_results.iter().map(StreamInfo::status).collect()
}

fn connected(info: &EgressInfo) -> bool {
    info.stream_results.iter().all(|stream| stream.started_at > 0)
}

/// What every stream that is over has, and that no update has shown a key.
fn check(harness: &RunnerHarness, last: &EgressInfo) {
    for stream in &last.stream_results {
        assert_ne!(stream.status(), Status::Active);
        assert!(stream.started_at > 0 && stream.ended_at >= stream.started_at, "{stream:?}");
        assert_eq!(stream.error.is_empty(), stream.status() == Status::Finished, "{stream:?}");
    }
    for info in harness.heard.all() {
        assert!(!format!("{info:?}").contains("canary-"), "{info:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_shown_as_they_get_on_and_end_with_the_egress() {
    let harness = harness(&[GOOD, ADDED], false).await;
    let run = harness.run("record").await;
    let active = heard(&harness, |info| info.status() == EgressActive && connected(info)).await;
    assert_eq!(active.stream_results[0].url, "rtmp://127.0.0.1:1/app/{can...key}");
    assert_eq!(active.stream_results[1].url, "rtmps://127.0.0.1:1/app/{can...key}?token={...}");
    let lags = async {
        loop {
            let (_, beat) = Heartbeats::new(&harness.bus).last(&harness.id).await.unwrap().unwrap();
            if let Some(lags) = beat.extra.get("stream_lag_ms") {
                return lags.clone();
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    let lags = timeout(Duration::from_secs(10), lags).await.expect("the heartbeat knows of streams");
    assert_eq!(lags, serde_json::json!({ "0": 40, "1": 40 }));
    harness.call(service::STOP_EGRESS).await.unwrap();
    assert_eq!(done(run).await, ServeOutcome::Served(Delivered::Acknowledged));
    let last = harness.last();
    assert_eq!((last.status(), last.error.as_str()), (EgressComplete, ""));
    assert_eq!(statuses(&last), [Status::Finished; 2]);
    assert!(last.file_results.is_empty(), "{last:?}");
    check(&harness, &last);
}

/// livekit/egress' EmptyStreamBin.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_fails_beside_others_leaves_the_egress_well() {
    let harness = harness(&[GOOD, BAD], true).await;
    let run = harness.run("record-fail1").await;
    let failed = heard(&harness, |info| statuses(info) == [Status::Active, Status::Failed]).await;
    assert_eq!(failed.status(), EgressActive);
    assert_eq!(failed.stream_results[1].error, "the server refused the stream");
    let info = harness.update_streams(&[], &[GOOD]).await.unwrap();
    assert_eq!((info.status(), statuses(&info)), (EgressActive, vec![Status::Finished, Status::Failed]));
    sleep(Duration::from_millis(100)).await;
    assert!(!run.is_finished(), "there is a file");
    harness.call(service::STOP_EGRESS).await.unwrap();
    assert_eq!(done(run).await, ServeOutcome::Served(Delivered::Acknowledged));
    let last = harness.last();
    assert_eq!((last.status(), last.error.as_str()), (EgressComplete, ""));
    assert_eq!(last.details, "End reason: StopEgress API");
    assert!(last.file_results[0].size > 0);
    check(&harness, &last);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_and_hls_need_no_file_and_hls_goes_on_alone() {
    let mut harness = harness(&[BAD], false).await;
    harness.segments = vec![None];
    harness.upload = serde_json::json!({ "spool_dir": harness.folder.path().join("spool") });
    let run = harness.run("record-fail0").await;
    heard(&harness, |info| statuses(info) == [Status::Failed]).await;
    sleep(Duration::from_millis(300)).await;
    assert!(!run.is_finished(), "there are segments");
    harness.call(service::STOP_EGRESS).await.unwrap();
    assert_eq!(done(run).await, ServeOutcome::Served(Delivered::Acknowledged));
    let last = harness.last();
    assert_eq!((last.status(), last.error.as_str()), (EgressComplete, ""));
    assert!(last.segment_results[0].segment_count >= 3 && last.file_results.is_empty(), "{last:?}");
    let playlist = std::fs::read_to_string(harness.folder.path().join("hls/index.m3u8")).unwrap();
    assert!(playlist.ends_with("#EXT-X-ENDLIST\n"), "{playlist}");
    check(&harness, &last);
}

/// livekit/egress' RtmpFailure.
#[tokio::test(flavor = "multi_thread")]
async fn an_egress_fails_with_its_only_stream() {
    let harness = harness(&[BAD], false).await;
    let run = harness.run("record-fail0").await;
    assert_eq!(done(run).await, ServeOutcome::Served(Delivered::Acknowledged));
    let last = harness.last();
    assert_eq!((last.status(), last.error_code), (EgressFailed, 503));
    assert_eq!(last.error, "the server refused the stream");
    assert_eq!(statuses(&last), [Status::Failed]);
    check(&harness, &last);
    let statuses = harness.statuses();
    assert!(statuses.is_sorted_by_key(|status| *status as i32), "{statuses:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_stream_that_is_removed_ends_the_egress_well() {
    let harness = harness(&[GOOD], false).await;
    let run = harness.run("record").await;
    heard(&harness, |info| info.status() == EgressActive && connected(info)).await;
    let info = harness.update_streams(&[], &[GOOD]).await.unwrap();
    assert_eq!(statuses(&info), [Status::Finished]);
    assert_eq!(done(run).await, ServeOutcome::Served(Delivered::Acknowledged));
    let last = harness.last();
    assert_eq!((last.status(), last.error.as_str()), (EgressComplete, ""));
    assert_eq!(last.details, "End reason: All streams stopped");
    check(&harness, &last);
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_come_and_go_while_it_records() {
    let harness = harness(&[], true).await;
    let run = harness.run("record").await;
    harness.heard(EgressActive).await;
    // Twice: a caller that has lost the answer.
    for _ in 0..2 {
        let info = harness.update_streams(&[ADDED], &[]).await.unwrap();
        assert_eq!(statuses(&info), [Status::Active]);
    }
    heard(&harness, |info| info.stream_results.len() == 1 && connected(info)).await;
    let refused = harness.update_streams(&["srt://h:1?streamid=canary-x", BAD], &[GOOD]).await.unwrap_err();
    let message = "invalid url srt://{...}: invalid scheme\nstream rtmp://{...} not found";
    assert_eq!(refused, RpcError::new(Code::InvalidArgument, message));
    heard(&harness, |info| statuses(info) == [Status::Active, Status::Active]).await;
    let (add, remove) =
        (["rtmp://canary-key", "srt://canary-host?mode=listener"], ["rtmp://h/app/canary-key/", "canary-key"]);
    let refused = harness.update_streams(&add, &remove).await.unwrap_err();
    assert!(refused.message.lines().count() == 4 && !refused.message.contains("canary"), "{refused}");
    let refused = harness.update_streams(&[], &[GOOD]).await.unwrap_err();
    assert_eq!(refused.code, Code::NotFound);
    for _ in 0..2 {
        let info = harness.update_streams(&[], &[ADDED, BAD]).await.unwrap();
        assert_eq!((info.status(), statuses(&info)), (EgressActive, vec![Status::Finished, Status::Finished]));
    }
    // The output of the streams is empty, and takes another.
    let info = harness.update_streams(&[GOOD], &[]).await.unwrap();
    assert_eq!(statuses(&info), [Status::Finished, Status::Finished, Status::Active]);
    harness.call(service::STOP_EGRESS).await.unwrap();
    assert_eq!(done(run).await, ServeOutcome::Served(Delivered::Acknowledged));
    let last = harness.last();
    assert_eq!((last.status(), last.stream_results.len()), (EgressComplete, 3));
    check(&harness, &last);
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_change_before_the_first_media() {
    let harness = harness(&[GOOD], false).await;
    let run = harness.run("wait").await;
    heard(&harness, |info| info.details.contains("waiting for the first track")).await;
    let info = harness.update_streams(&[ADDED], &[GOOD]).await.unwrap();
    assert_eq!(statuses(&info), [Status::Finished, Status::Active]);
    harness.update_streams(&[], &[ADDED]).await.unwrap();
    assert_eq!(done(run).await, ServeOutcome::Served(Delivered::Acknowledged));
    let last = harness.last();
    assert_eq!((last.status(), last.error_code), (EgressAborted, 412));
    assert!(last.details.contains("All streams stopped"), "{}", last.details);
    check(&harness, &last);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_and_an_update_at_once_are_both_answered() {
    for _ in 0..3 {
        let harness = harness(&[GOOD], false).await;
        let run = harness.run("record").await;
        harness.heard(EgressActive).await;
        let (stopped, updated) =
            tokio::join!(harness.call(service::STOP_EGRESS), harness.update_streams(&[ADDED], &[]));
        assert!(stopped.is_ok(), "{stopped:?}");
        // It was in time, or is told that it was not, or found no runner.
        if let Err(error) = &updated {
            assert_ne!(error.code, Code::Internal, "{error}");
        }
        assert_eq!(done(run).await, ServeOutcome::Served(Delivered::Acknowledged));
        let last = harness.last();
        assert_eq!(last.status(), EgressComplete, "{last:?}");
        check(&harness, &last);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_tried_again_says_why() {
    let harness = harness(&[GOOD], true).await;
    let run = harness.run("record-wedge").await;
    let retried = heard(&harness, |info| info.stream_results.iter().any(|stream| stream.retries > 0)).await;
    assert_eq!((retried.stream_results[0].error.as_str(), statuses(&retried)), ("no answer", vec![Status::Active]));
    harness.call(service::STOP_EGRESS).await.unwrap();
    assert_eq!(done(run).await, ServeOutcome::Served(Delivered::Acknowledged));
    check(&harness, &harness.last());
}

/// A track's sound over a websocket: one URL, which stays.
#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_is_a_stream_that_cannot_be_updated() {
    const WEBSOCKET: &str = "wss://user:canary-password@127.0.0.1:1/audio?token=canary-token";
    let harness = harness(&[WEBSOCKET], false).await;
    let run = harness.run("record").await;
    let active = heard(&harness, |info| info.status() == EgressActive && connected(info)).await;
    assert_eq!(active.stream_results.len(), 1);
    assert_eq!(active.stream_results[0].url, "wss://{...}@127.0.0.1:1/audio?token={...}");
    let refused = harness.update_streams(&["ws://127.0.0.1:1/canary-other"], &[]).await.unwrap_err();
    assert_eq!(refused, RpcError::new(Code::InvalidArgument, "UpdateStream called on non-streaming egress"));
    harness.call(service::STOP_EGRESS).await.unwrap();
    assert_eq!(done(run).await, ServeOutcome::Served(Delivered::Acknowledged));
    let last = harness.last();
    assert_eq!((last.status(), statuses(&last)), (EgressComplete, vec![Status::Finished]));
    check(&harness, &last);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_egress_fails_with_its_websocket() {
    let harness = harness(&["ws://127.0.0.1:1/audio"], false).await;
    let run = harness.run("record-fail0").await;
    assert_eq!(done(run).await, ServeOutcome::Served(Delivered::Acknowledged));
    let last = harness.last();
    assert_eq!((last.status(), last.error.as_str()), (EgressFailed, "the server refused the stream"));
    assert_eq!(statuses(&last), [Status::Failed]);
    check(&harness, &last);
}
