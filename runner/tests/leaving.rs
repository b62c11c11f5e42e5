//! A task that its platform tells to leave. In a process of its own: the signal is for all of it.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "runner/harness.rs"]
#[allow(dead_code, reason = "it is that of the other tests")]
mod harness;

use std::path::PathBuf;

use harness::{RunnerHarness, done, until};
use rustix::process::{Signal, getpid, kill_process};
use spillway_bus::{Decision, LaunchState};
use spillway_protocol::livekit::EgressStatus::{EgressAborted, EgressActive, EgressComplete};
use spillway_protocol::rpc::service;
use spillway_runner::report::Delivered;
use spillway_runner::serve::ServeOutcome;

/// Cargo builds examples before tests, beside them.
fn scripted_media() -> PathBuf {
    let tests = std::env::current_exe().expect("we have a path");
    tests.ancestors().nth(2).expect("target folder").join("examples/scripted_media")
}

fn told_to_leave() {
    kill_process(getpid(), Signal::TERM).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn another_task_goes_on_or_the_egress_is_aborted_and_a_stop_is_none_of_it() {
    let bytes = |harness: &RunnerHarness, name: &str| {
        std::fs::metadata(harness.folder.path().join(name)).map_or(0, |file| file.len())
    };
    // Another one goes on.
    let mut harness = RunnerHarness::new().await;
    harness.resumable = true;
    let run = harness.run("record").await;
    harness.heard(EgressActive).await;
    until("bytes", || bytes(&harness, "a.ogg") > 500).await;
    told_to_leave();
    assert_eq!(done(run).await, ServeOutcome::Served(Delivered::HandedOver));
    let record = harness.record().await;
    assert_eq!((record.state.clone(), record.is_resuming()), (LaunchState::Interrupted, true));
    assert!(record.ledger.contains("a.ogg"), "{}", record.ledger);
    let run = harness.resume().await;
    until("bytes in the second file", || bytes(&harness, "a-2.ogg") > 500).await;
    until("the gap is named", || harness.last().details.contains("after a gap of")).await;
    harness.call(service::STOP_EGRESS).await.unwrap();
    assert_eq!(done(run).await, ServeOutcome::Served(Delivered::Acknowledged));
    let last = harness.last();
    assert_eq!((last.status(), last.error.as_str()), (EgressComplete, ""), "{last:?}");
    assert!(last.details.contains("the platform stopped the recording task"), "{}", last.details);
    let names: Vec<&str> = last.file_results.iter().map(|file| file.filename.as_str()).collect();
    assert_eq!(names, ["a.ogg", "a-2.ogg"]);
    assert!(last.file_results.iter().all(|file| file.size as u64 == bytes(&harness, &file.filename)), "{last:?}");

    // None does.
    let harness = RunnerHarness::new().await;
    let run = harness.run("record").await;
    harness.heard(EgressActive).await;
    until("bytes", || bytes(&harness, "a.ogg") > 500).await;
    told_to_leave();
    assert_eq!(done(run).await, ServeOutcome::Served(Delivered::Acknowledged));
    let last = harness.last();
    assert_eq!((last.status(), last.error.as_str()), (EgressAborted, "the platform stopped the recording task"));
    assert_eq!(last.details, "End reason: Process killed");
    assert_eq!(last.file_results[0].size as u64, bytes(&harness, "a.ogg"), "what is recorded is kept");

    // A dispatcher has asked for its end, and then the platform.
    let harness = RunnerHarness::new().await;
    let run = harness.run("record").await;
    harness.heard(EgressActive).await;
    let asked = |record: &mut spillway_bus::Record| {
        record.stop_asked = true;
        Decision::Write
    };
    harness.registry().update(&harness.id, asked).await.unwrap();
    told_to_leave();
    assert_eq!(done(run).await, ServeOutcome::Served(Delivered::Acknowledged));
    assert_eq!((harness.last().status(), harness.last().error.as_str()), (EgressComplete, ""));
}
