//! Recordings of several files on this machine's disk.
use std::time::Duration;

use spillway_protocol::livekit::EgressStatus::{EgressActive, EgressComplete, EgressFailed};
use spillway_protocol::livekit::{EgressInfo, FileInfo};
use spillway_protocol::rpc::service;
use spillway_runner::report::Delivered;
use spillway_runner::serve::ServeOutcome;
use tokio::time::{sleep, timeout};

use crate::harness::{RunnerHarness, TIMEOUT, done};

/// A recording of so many files, stopped after some bytes are in each that `paths` names.
async fn recorded_to(harness: &RunnerHarness, script: &str, paths: &[&str]) -> EgressInfo {
    let run = harness.run(script).await;
    harness.heard(EgressActive).await;
    let large = |path: &&str| std::fs::metadata(harness.folder.path().join(path)).is_ok_and(|file| file.len() > 500);
    let wait = async {
        while !paths.iter().all(large) {
            sleep(Duration::from_millis(5)).await;
        }
        // Beyond what the script waits for before it does anything.
        sleep(Duration::from_millis(500)).await;
    };
    timeout(TIMEOUT, wait).await.unwrap();
    harness.call(service::STOP_EGRESS).await.unwrap();
    assert_eq!(done(run).await, ServeOutcome::Served(Delivered::Acknowledged));
    harness.last()
}

fn is_whole(harness: &RunnerHarness, file: &FileInfo) {
    let path = harness.folder.path().join(&file.filename);
    assert_eq!(file.location, path.display().to_string());
    assert_eq!(file.size as u64, std::fs::metadata(path).unwrap().len());
    assert!(file.size > 500 && file.duration > 300_000_000, "{file:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_files_are_two_results_in_the_order_of_the_request_with_a_manifest_beside_each() {
    let mut harness = RunnerHarness::new().await;
    harness.more = vec![("d/b.ogg", None)];
    let last = recorded_to(&harness, "record-two", &["a.ogg", "d/b.ogg"]).await;
    assert_eq!((last.status(), last.error.as_str()), (EgressComplete, ""));
    let names: Vec<&str> = last.file_results.iter().map(|file| file.filename.as_str()).collect();
    assert_eq!(names, ["a.ogg", "d/b.ogg"]);
    last.file_results.iter().for_each(|file| is_whole(&harness, file));
    let manifest =
        |folder: &str| std::fs::read_to_string(harness.folder.path().join(folder).join("EG_1.json")).unwrap();
    assert_eq!(manifest(""), manifest("d"));
    let read: serde_json::Value = serde_json::from_str(&manifest("")).unwrap();
    let listed: Vec<&str> = read["files"].as_array().unwrap().iter().filter_map(|f| f["filename"].as_str()).collect();
    assert_eq!(listed, names);
    assert_eq!(last.manifest_location, harness.folder.path().join("EG_1.json").display().to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_files_go_on_in_two_others() {
    let mut harness = RunnerHarness::new().await;
    harness.more = vec![("b.ogg", None)];
    let last = recorded_to(&harness, "record-two-again", &["a-2.ogg", "b-2.ogg"]).await;
    assert_eq!((last.status(), last.error.as_str()), (EgressComplete, ""));
    let mut names: Vec<&str> = last.file_results.iter().map(|file| file.filename.as_str()).collect();
    assert_eq!(names[..2], ["a.ogg", "b.ogg"]);
    names.sort_unstable();
    assert_eq!(names, ["a-2.ogg", "a.ogg", "b-2.ogg", "b.ogg"]);
    last.file_results.iter().for_each(|file| is_whole(&harness, file));
}

/// A path that is a pipe, and one below a file.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_cannot_be_made_costs_only_itself_and_is_told() {
    for (broken, kept, message) in [(0, "x/b.ogg", "a place that is a pipe"), (1, "a.ogg", "cannot create the folder")]
    {
        let mut harness = RunnerHarness::new().await;
        harness.more = vec![("x/b.ogg", None)];
        let root = harness.folder.path();
        if broken == 0 {
            assert!(std::process::Command::new("mkfifo").arg(root.join("a.ogg")).status().unwrap().success());
        } else {
            std::fs::write(root.join("x"), "no folder").unwrap();
        }
        let last = recorded_to(&harness, "record-two", &[kept]).await;
        assert_eq!((last.status(), last.error_code), (EgressFailed, 400));
        assert!(last.error.contains(message), "{}", last.error);
        assert!(last.details.contains(message) && last.details.contains("the other outputs go on"), "{}", last.details);
        let result = &last.file_results[1 - broken];
        assert_eq!(result.filename, kept);
        is_whole(&harness, result);
        assert_eq!(last.file_results.get(broken).map_or(0, |file| file.size), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_egress_of_which_no_file_can_be_made_fails_at_once() {
    let mut harness = RunnerHarness::new().await;
    harness.more = vec![("x/b.ogg", None)];
    let root = harness.folder.path();
    assert!(std::process::Command::new("mkfifo").arg(root.join("a.ogg")).status().unwrap().success());
    std::fs::write(root.join("x"), "no folder").unwrap();
    let run = harness.run("record-two").await;
    assert_eq!(done(run).await, ServeOutcome::Served(Delivered::Acknowledged));
    let last = harness.last();
    assert_eq!((last.status(), last.error_code), (EgressFailed, 400));
    assert!(!harness.statuses().contains(&EgressActive), "{:?}", harness.statuses());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_output_that_fails_alone_ends_alone_and_the_egress_fails_with_its_reason() {
    let mut harness = RunnerHarness::new().await;
    harness.more = vec![("b.ogg", None)];
    let last = recorded_to(&harness, "record-two-lose1", &["a.ogg", "b.ogg"]).await;
    assert_eq!((last.status(), last.error_code), (EgressFailed, 429));
    assert_eq!(last.error, "b.ogg: no space left on the disk");
    assert!(last.details.contains("b.ogg: no space left on the disk; the other outputs go on"), "{}", last.details);
    last.file_results.iter().for_each(|file| is_whole(&harness, file));
    assert!(last.file_results[0].size > last.file_results[1].size, "{:?}", last.file_results);
    assert!(last.manifest_location.is_empty(), "it failed");
}
