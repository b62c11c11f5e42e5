//! Tasks that die while they record, where another one is to go on: on spot capacity, as on an operator's own machines.

use std::time::Duration;

use spillway_cost::Capacity;
use spillway_dispatcher::Config;
use spillway_launchers::LaunchError;
use spillway_launchers::simulated::SimulatedOptions;
use spillway_protocol::code::Code;
use spillway_protocol::ids::EgressId;
use spillway_protocol::livekit::EgressStatus;
use spillway_protocol::rpc::service;
use tokio::time::{Instant, sleep};

use crate::harness::{Harness, Play, config, until};
use crate::task_exits::ledger;

const SECOND: Duration = Duration::from_secs(1);

fn slow() -> SimulatedOptions {
    SimulatedOptions { latency: Duration::from_millis(800), ..SimulatedOptions::default() }
}

fn on_spot() -> Config {
    let mut config = config();
    config.targets[0].capacity = Capacity::Spot;
    config
}

async fn records(harness: &Harness, id: &str, tasks: usize) {
    until("it records", || harness.runners.recordings(id).len() == tasks).await;
}

async fn ends_as(harness: &Harness, id: &str, status: EgressStatus) {
    until("it is over", || harness.livekit.status(id) == Some(status)).await;
}

#[tokio::test(start_paused = true)]
async fn another_task_goes_on_with_the_recording_and_each_is_billed_once() {
    let harness = Harness::set(slow()).await;
    let _dispatchers = (harness.dispatcher_with(on_spot()).await, harness.dispatcher_with(on_spot()).await);
    for (play, within) in
        [(Play::DiesRecording, 6 * SECOND), (Play::Reclaimed, 6 * SECOND), (Play::ToldToLeave, 4 * SECOND)]
    {
        for stored in [false, true] {
            let id = format!("EG_{play:?}{stored}");
            harness.runners.play(&id, play);
            if stored {
                harness.livekit.start_stored(&id).await.unwrap();
            } else {
                harness.livekit.start_composite(&id).await.unwrap();
            }
            records(&harness, &id, 1).await;
            let died = Instant::now() + Duration::from_millis(2300);
            records(&harness, &id, 2).await;
            assert!(Instant::now() - died < within, "{id}: {:?}", Instant::now() - died);
            assert_eq!(harness.runners.recordings(&id), [1, 2], "{id}");
            // Its status has not changed meanwhile.
            assert_eq!(harness.livekit.status(&id), Some(EgressStatus::EgressActive), "{id}");
            sleep(5 * SECOND).await;
            harness.livekit.stop(&id).await.unwrap();
            ends_as(&harness, &id, EgressStatus::EgressComplete).await;
            let details = harness.livekit.shows(&id).unwrap().details;
            assert!(details.contains("task 2 goes on"), "{id}: {details}");
        }
    }
    sleep(60 * SECOND).await;
    harness.livekit.assert_each_ended_once();
    assert_eq!(harness.runners.violations(), Vec::<String>::new());
    assert_eq!((ledger(&harness).await.len(), harness.cloud.started()), (12, 12));
}

#[tokio::test(start_paused = true)]
async fn without_resumption_and_on_demand_a_recording_ends_with_its_task() {
    for config in [Config { resume: false, ..on_spot() }, config()] {
        let harness = Harness::set(slow()).await;
        let _dispatcher = harness.dispatcher_with(config).await;
        for (play, status, error) in [
            (
                Play::DiesRecording,
                EgressStatus::EgressFailed,
                "the runner died: signal 9 (killed; often: out of memory)",
            ),
            (Play::Reclaimed, EgressStatus::EgressAborted, "runner interrupted: spot capacity reclaimed"),
            (Play::ToldToLeave, EgressStatus::EgressAborted, "told to leave"),
        ] {
            let id = format!("EG_{play:?}");
            harness.runners.play(&id, play);
            harness.livekit.start_composite(&id).await.unwrap();
            ends_as(&harness, &id, status).await;
            assert_eq!(harness.livekit.shows(&id).unwrap().error, error);
            assert_eq!(harness.runners.recordings(&id), [1]);
        }
        sleep(30 * SECOND).await;
        harness.livekit.assert_each_ended_once();
        assert_eq!(harness.cloud.started(), 3);
    }
}

/// The task that goes on takes ten seconds to start.
#[tokio::test(start_paused = true)]
async fn a_stop_and_an_update_in_between_reach_the_task_that_goes_on() {
    let harness = Harness::set(slow()).await;
    let _dispatchers = (harness.dispatcher_with(on_spot()).await, harness.dispatcher_with(on_spot()).await);
    for id in ["EG_stopped", "EG_updated", "EG_late"] {
        harness.runners.play(id, Play::DiesRecording);
        harness.livekit.start_composite(id).await.unwrap();
        records(&harness, id, 1).await;
        let before = harness.cloud.started();
        *harness.runners.boot.lock().unwrap() = if id == "EG_updated" { 2 * SECOND } else { 10 * SECOND };
        until("another is launched", || harness.cloud.started() > before).await;
        let begun = Instant::now();
        match id {
            "EG_stopped" => {
                let told = harness.livekit.stop(id).await.unwrap();
                assert_eq!(told.status(), EgressStatus::EgressEnding);
                assert!(begun.elapsed() < SECOND / 2, "{:?}", begun.elapsed());
            }
            "EG_updated" => {
                harness.livekit.call_handler(service::UPDATE_STREAM, id).await.unwrap();
                assert_eq!(harness.runners.recordings(id), [1, 2], "it has waited for that");
                harness.livekit.stop(id).await.unwrap();
            }
            _ => {
                let error = harness.livekit.call_handler(service::UPDATE_STREAM, id).await.unwrap_err();
                assert_eq!(error.code, Code::Unavailable);
                assert!(error.message.contains("call again"), "{}", error.message);
                records(&harness, id, 2).await;
                harness.livekit.stop(id).await.unwrap();
            }
        }
        ends_as(&harness, id, EgressStatus::EgressComplete).await;
        assert_eq!(harness.runners.recordings(id), [1, 2], "{id}");
        *harness.runners.boot.lock().unwrap() = Duration::from_millis(300);
    }
    sleep(30 * SECOND).await;
    harness.livekit.assert_each_ended_once();
}

#[tokio::test(start_paused = true)]
async fn what_cannot_go_on_is_saved_and_the_egress_says_both_reasons() {
    let harness = Harness::set(slow()).await;
    let _dispatcher = harness.dispatcher_with(on_spot()).await;
    let message = "the runner died: signal 9 (killed; often: out of memory); the recording could not go on: the runner \
                   left before it started recording: signal 9";
    for (stored, salvages) in [(true, 1), (false, 0)] {
        let id = format!("EG_vain{stored}");
        harness.runners.play(&id, Play::DiesRecording);
        harness.runners.play_resumed(&id, &[Play::DiesWithItsTicket]);
        if stored {
            harness.livekit.start_stored(&id).await.unwrap();
        } else {
            harness.livekit.start_composite(&id).await.unwrap();
        }
        ends_as(&harness, &id, EgressStatus::EgressFailed).await;
        let info = harness.livekit.shows(&id).unwrap();
        assert!(info.error.starts_with(message), "{}", info.error);
        assert_eq!((harness.runners.recordings(&id).len(), harness.runners.salvages(&id)), (1, salvages), "{id}");
        assert_eq!(info.file_results[0].size, if stored { 1234 } else { 0 });
    }
    // No machine is to be had for five minutes.
    let full = || LaunchError::Capacity { message: "no spot".to_owned() };
    harness.runners.play("EG_full", Play::DiesRecording);
    harness.livekit.start_stored("EG_full").await.unwrap();
    records(&harness, "EG_full", 1).await;
    // More than are asked for until then.
    harness.cloud.refuse(&EgressId::parse("EG_full").unwrap(), (0..10_000).map(|_| full()).collect());
    let begun = Instant::now();
    until("it is given up", || {
        harness.livekit.status("EG_full") != Some(EgressStatus::EgressActive) || begun.elapsed() > 320 * SECOND
    })
    .await;
    harness.cloud.refuse(&EgressId::parse("EG_full").unwrap(), vec![]);
    ends_as(&harness, "EG_full", EgressStatus::EgressFailed).await;
    let error = harness.livekit.shows("EG_full").unwrap().error;
    assert!(error.contains("the recording could not go on: not started within 300 s"), "{error}");
    assert_eq!(harness.runners.salvages("EG_full"), 1);
    sleep(60 * SECOND).await;
    harness.livekit.assert_each_ended_once();
    assert_eq!(ledger(&harness).await.len(), harness.cloud.started());
}

#[tokio::test(start_paused = true)]
async fn tasks_that_die_one_after_another_are_followed_by_three_at_most() {
    let harness = Harness::set(slow()).await;
    let _dispatcher = harness.dispatcher_with(on_spot()).await;
    harness.runners.play("EG_loop", Play::DiesRecording);
    harness.runners.play_resumed("EG_loop", &[Play::Reclaimed, Play::ToldToLeave, Play::DiesRecording]);
    harness.livekit.start_stored("EG_loop").await.unwrap();
    ends_as(&harness, "EG_loop", EgressStatus::EgressFailed).await;
    assert_eq!(harness.runners.recordings("EG_loop"), [1, 2, 3, 4]);
    assert_eq!(harness.runners.salvages("EG_loop"), 1);
    sleep(30 * SECOND).await;
    harness.livekit.assert_each_ended_once();
}

/// One that never comes is replaced, and the one in its place goes on.
#[tokio::test(start_paused = true)]
async fn a_task_that_was_to_go_on_and_never_started_is_replaced() {
    let harness = Harness::set(slow()).await;
    let _dispatcher = harness.dispatcher_with(on_spot()).await;
    harness.runners.play("EG_again", Play::Reclaimed);
    harness.runners.play_resumed("EG_again", &[Play::NeverStarts]);
    harness.livekit.start_stored("EG_again").await.unwrap();
    records(&harness, "EG_again", 2).await;
    assert_eq!(harness.runners.recordings("EG_again"), [1, 3]);
    harness.livekit.stop("EG_again").await.unwrap();
    ends_as(&harness, "EG_again", EgressStatus::EgressComplete).await;
    assert_eq!(harness.runners.violations(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_dispatcher_may_die_at_any_moment_of_a_resumption() {
    for after_ms in (0..=8000).step_by(250) {
        let harness = Harness::set(slow()).await;
        let a = harness.dispatcher_with(Config { bid: 1.0, ..on_spot() }).await;
        let _b = harness.dispatcher_with(Config { bid: 0.5, ..on_spot() }).await;
        harness.runners.play("EG_both", Play::DiesRecording);
        harness.livekit.start_stored("EG_both").await.unwrap();
        records(&harness, "EG_both", 1).await;
        sleep(Duration::from_millis(after_ms)).await;
        a.vanish().await;
        records(&harness, "EG_both", 2).await;
        harness.livekit.stop("EG_both").await.unwrap();
        ends_as(&harness, "EG_both", EgressStatus::EgressComplete).await;
        sleep(60 * SECOND).await;
        harness.livekit.assert_each_ended_once();
        assert_eq!(harness.runners.violations(), Vec::<String>::new(), "{after_ms} ms");
        assert_eq!((ledger(&harness).await.len(), harness.cloud.started()), (2, 2), "{after_ms} ms");
    }
}
