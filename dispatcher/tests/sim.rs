//! Egresses from start to end in virtual time: dispatchers, a simulated platform, runners that die at every step.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test, in the harness too")]

mod harness;
#[path = "sim/figures.rs"]
mod figures;
#[path = "sim/task_exits.rs"]
mod task_exits;
#[path = "sim/orphans.rs"]
mod orphans;
#[path = "sim/lost_writes.rs"]
mod lost_writes;
#[path = "sim/resumption.rs"]
mod resumption;
#[path = "sim/storm.rs"]
mod storm;
#[path = "sim/upgrade.rs"]
mod upgrade;
#[path = "sim/console.rs"]
mod console;

use std::time::Duration;

use harness::{Harness, Play, config, until};
use spillway_bus::{FaultyLink, LinkFaults, Registry};
use spillway_dispatcher::Config;
use spillway_launchers::simulated::SimulatedOptions;
use spillway_launchers::{LaunchError, Quota};
use spillway_protocol::code::Code;
use spillway_protocol::ids::EgressId;
use spillway_protocol::livekit::EgressStatus;
use spillway_protocol::rpc::service;
use tokio::time::{Instant, sleep};

const SECOND: Duration = Duration::from_secs(1);

fn slow() -> SimulatedOptions {
    SimulatedOptions { latency: Duration::from_millis(800), ..SimulatedOptions::default() }
}

#[tokio::test(start_paused = true)]
async fn two_hundred_starts_in_two_seconds_within_fargates_quota() {
    let harness = Harness::set(SimulatedOptions { quota: Some(Quota::FARGATE), ..slow() }).await;
    let _dispatcher = harness.dispatcher().await;
    let begun = Instant::now();
    let calls = (0..200u32).map(|n| {
        let livekit = &harness.livekit;
        async move {
            sleep(Duration::from_millis(10) * n).await;
            let asked = Instant::now();
            let info = livekit.start_composite(&format!("EG_{n}")).await.unwrap();
            assert_eq!(info.status(), EgressStatus::EgressStarting);
            asked.elapsed()
        }
    });
    let waits = futures_util::future::join_all(calls).await;
    assert!(waits.iter().all(|wait| *wait < Duration::from_millis(100)), "{:?}", waits.iter().max());

    let all = |status| (0..200).all(|n| harness.livekit.status(&format!("EG_{n}")) == Some(status));
    until("all are active", || all(EgressStatus::EgressActive)).await;
    // 100 at once, 20/s: the last leaves the bucket after 5 s.
    assert!(begun.elapsed() < 9 * SECOND, "{:?}", begun.elapsed());
    assert_eq!(harness.cloud.started(), 200);
    assert!(harness.cloud.calls() < 600, "asked {} times for 200 tasks", harness.cloud.calls());

    let stops = (0..200).map(|n| {
        let livekit = &harness.livekit;
        async move { livekit.stop(&format!("EG_{n}")).await.unwrap() }
    });
    let stopped = futures_util::future::join_all(stops).await;
    assert!(stopped.iter().all(|info| info.status() == EgressStatus::EgressEnding));
    until("all are complete", || all(EgressStatus::EgressComplete)).await;
    harness.livekit.assert_each_ended_once();
}

#[tokio::test(start_paused = true)]
async fn a_repeated_start_gets_the_same_answer_and_no_second_task() {
    let harness = Harness::set(slow()).await;
    let (_a, _b) = (harness.dispatcher().await, harness.dispatcher().await);
    let first = harness.livekit.start_composite("EG_again").await.unwrap();
    for _ in 0..3 {
        let again = harness.livekit.start_composite("EG_again").await.unwrap();
        assert_eq!((&again.egress_id, again.started_at), (&first.egress_id, first.started_at));
        sleep(Duration::from_millis(700)).await;
    }
    let (one, two) =
        tokio::join!(harness.livekit.start_composite("EG_twin"), harness.livekit.start_composite("EG_twin"));
    assert_eq!(one.unwrap().egress_id, two.unwrap().egress_id);
    until("both record", || {
        ["EG_again", "EG_twin"].iter().all(|id| harness.livekit.status(id) == Some(EgressStatus::EgressActive))
    })
    .await;
    assert_eq!(harness.cloud.started(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_mistake_in_the_request_is_refused_at_once_and_leaves_nothing() {
    let harness = Harness::set(slow()).await;
    let _dispatcher = harness.dispatcher().await;
    let begun = Instant::now();
    let error = harness.livekit.start(Default::default()).await.unwrap_err();
    assert_eq!((error.code, error.message.as_str()), (Code::InvalidArgument, "egress id is empty"));
    let nothing =
        spillway_protocol::rpc::StartEgressRequest { egress_id: "EG_nothing".to_owned(), ..Default::default() };
    let error = harness.livekit.start(nothing).await.unwrap_err();
    assert_eq!(error.message, "request has missing or invalid field: request");
    let large = spillway_protocol::rpc::StartEgressRequest {
        egress_id: "EG_large".to_owned(),
        token: "t".repeat(300_000),
        ..Default::default()
    };
    let error = harness.livekit.start(large).await.unwrap_err();
    assert_eq!(error.code, Code::InvalidArgument);
    assert!(error.message.ends_with("bytes, of at most 262144"), "{}", error.message);
    assert!(begun.elapsed() < SECOND);
    assert!(harness.livekit.book().infos.is_empty());
    assert_eq!(harness.cloud.calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_stop_is_answered_at_once_in_every_phase() {
    let harness = Harness::set(slow()).await;
    let _dispatcher = harness.dispatcher_with(Config { max_recordings: Some(2), ..config() }).await;
    let timed = async |id: &str| {
        let begun = Instant::now();
        let answer = harness.livekit.stop(id).await;
        (answer, begun.elapsed())
    };

    // Launching: its launch call is in progress.
    harness.livekit.start_composite("EG_launching").await.unwrap();
    sleep(Duration::from_millis(100)).await;
    let (answer, took) = timed("EG_launching").await;
    let info = answer.unwrap();
    assert_eq!((info.status(), info.error_code), (EgressStatus::EgressAborted, 412));
    assert_eq!(info.error, "Stop called before pipeline could start");
    assert_eq!(info.details, "End reason: StopEgress API");
    assert!(took < Duration::from_millis(50), "{took:?}");
    sleep(3 * SECOND).await;

    // Accepted: two run, the third waits.
    for id in ["EG_one", "EG_two", "EG_waits"] {
        harness.livekit.start_composite(id).await.unwrap();
    }
    sleep(3 * SECOND).await;
    let waits = harness.livekit.shows("EG_waits").unwrap();
    assert_eq!(waits.details, "waiting for a slot: 2 of 2 recordings running, 0 before this one");
    let (answer, took) = timed("EG_waits").await;
    assert_eq!(answer.unwrap().status(), EgressStatus::EgressAborted);
    assert!(took < Duration::from_millis(50), "{took:?}");
    let error = harness.livekit.call_handler(service::UPDATE_STREAM, "EG_waits").await.unwrap_err();
    assert_eq!(error.code, Code::FailedPrecondition);

    // Running: the runner answers.
    let (answer, took) = timed("EG_one").await;
    assert_eq!(answer.unwrap().status(), EgressStatus::EgressEnding);
    assert!(took < Duration::from_millis(50), "{took:?}");
    until("complete", || harness.livekit.status("EG_one") == Some(EgressStatus::EgressComplete)).await;

    // Over.
    sleep(SECOND * 7).await;
    let (answer, took) = timed("EG_one").await;
    let error = answer.unwrap_err();
    assert_eq!(error.code, Code::FailedPrecondition);
    assert_eq!(error.message, "egress with status EGRESS_COMPLETE cannot be stopped");
    assert!(took < Duration::from_millis(50), "{took:?}");

    // Unknown.
    let error = timed("EG_unknown").await.0.unwrap_err();
    assert_eq!(error.message, "no response from servers");
    harness.livekit.stop("EG_two").await.unwrap();
    until("two is over", || harness.livekit.book().ends.len() == 4).await;
    harness.livekit.assert_each_ended_once();
    assert_eq!(harness.cloud.started(), 3, "who was stopped while waiting never started");
}

#[tokio::test(start_paused = true)]
async fn a_stop_at_any_moment_of_a_start_leads_to_one_end() {
    let harness = Harness::set(slow()).await;
    let (_a, _b) = (harness.dispatcher().await, harness.dispatcher().await);
    let lives = (0..150u32).map(|n| {
        let livekit = &harness.livekit;
        async move {
            let id = format!("EG_race{n}");
            livekit.start_composite(&id).await.unwrap();
            sleep(Duration::from_millis(10) * n).await;
            let answer = livekit.stop(&id).await.unwrap();
            assert!(
                matches!(answer.status(), EgressStatus::EgressAborted | EgressStatus::EgressEnding),
                "{id}: {:?}",
                answer.status()
            );
        }
    });
    futures_util::future::join_all(lives).await;
    until("all are over", || harness.livekit.book().ends.len() == 150).await;
    sleep(30 * SECOND).await;
    harness.livekit.assert_each_ended_once();
    let book = harness.livekit.book();
    let ended = |status| book.infos.values().filter(|info| info.status() == status).count();
    assert!(ended(EgressStatus::EgressAborted) > 0 && ended(EgressStatus::EgressComplete) > 0);
}

#[tokio::test(start_paused = true)]
async fn a_runner_may_die_at_any_step_and_is_settled_once_within_fifteen_seconds() {
    let harness = Harness::set(slow()).await;
    let (_a, _b) = (harness.dispatcher().await, harness.dispatcher().await);
    let deaths = [
        (
            Play::DiesBeforeItsTicket,
            EgressStatus::EgressFailed,
            "the runner left before it started recording: signal 9",
        ),
        (Play::DiesWithItsTicket, EgressStatus::EgressFailed, "the runner left before it started recording: signal 9"),
        (Play::DiesRecording, EgressStatus::EgressFailed, "the runner died: signal 9"),
        (Play::DiesEnding, EgressStatus::EgressFailed, "the runner died: signal 9"),
        (Play::DiesBeforeItsLastReport, EgressStatus::EgressComplete, ""),
    ];
    for (play, status, message) in deaths {
        let id = format!("EG_{play:?}");
        harness.runners.play(&id, play);
        harness.livekit.start_composite(&id).await.unwrap();
        if matches!(play, Play::DiesEnding | Play::DiesBeforeItsLastReport) {
            until("it records", || harness.livekit.status(&id) == Some(EgressStatus::EgressActive)).await;
            harness.livekit.stop(&id).await.unwrap();
        }
        let begun = Instant::now();
        until("it is over", || harness.livekit.status(&id) == Some(status)).await;
        assert!(begun.elapsed() < 15 * SECOND, "{play:?} took {:?}", begun.elapsed());
        let info = harness.livekit.shows(&id).unwrap();
        assert!(info.error.starts_with(message), "{play:?}: {}", info.error);
    }
    sleep(60 * SECOND).await;
    harness.livekit.assert_each_ended_once();
    assert_eq!(harness.cloud.started(), deaths.len(), "nothing was started twice");
}

#[tokio::test(start_paused = true)]
async fn uploads_of_a_dead_task_are_salvaged_by_the_next_attempt_and_end_once() {
    let harness = Harness::set(slow()).await;
    let (_a, _b) = (harness.dispatcher().await, harness.dispatcher().await);
    for play in [Play::DiesRecording, Play::DiesEnding, Play::FallsSilent] {
        let id = format!("EG_{play:?}");
        harness.runners.play(&id, play);
        harness.livekit.start_stored(&id).await.unwrap();
        if play == Play::DiesEnding {
            until("it records", || harness.livekit.status(&id) == Some(EgressStatus::EgressActive)).await;
            harness.livekit.stop(&id).await.unwrap();
        }
        until("it is over", || harness.livekit.status(&id) == Some(EgressStatus::EgressFailed)).await;
        let info = harness.livekit.shows(&id).unwrap();
        assert!(info.error.starts_with("the runner "), "{}", info.error);
        assert_eq!((info.file_results[0].size, info.file_results[0].location.len()), (1234, id.len() + 14));
    }
    assert_eq!(harness.cloud.started(), 6);

    // A stop during a salvage run is answered with the current state; a salvage run that dies is followed by another, and
    // the third death ends the egress, once.
    harness.runners.play("EG_twice", Play::DiesRecording);
    harness.runners.play_salvages("EG_twice", &[Play::DiesRecording, Play::DiesWithItsTicket]);
    harness.livekit.start_stored("EG_twice").await.unwrap();
    until("a salvage was started", || harness.cloud.started() == 8).await;
    let told = harness.livekit.stop("EG_twice").await.unwrap();
    assert_eq!(told.status(), EgressStatus::EgressActive);
    until("it is over", || harness.livekit.status("EG_twice") == Some(EgressStatus::EgressFailed)).await;
    let info = harness.livekit.shows("EG_twice").unwrap();
    assert!(info.error.starts_with("the runner died: signal 9"), "{}", info.error);
    assert_eq!((info.file_results[0].size, harness.cloud.started()), (1234, 10));

    harness.runners.play("EG_vain", Play::DiesRecording);
    harness.runners.play_salvages("EG_vain", &[Play::DiesRecording; 3]);
    harness.livekit.start_stored("EG_vain").await.unwrap();
    until("it is over", || harness.livekit.status("EG_vain") == Some(EgressStatus::EgressFailed)).await;
    assert_eq!(harness.cloud.started(), 14);
    let message = harness.livekit.shows("EG_vain").unwrap().error;
    assert!(
        message.starts_with("the runner died: signal 9") && message.contains("could not be completed"),
        "{message}"
    );

    // A recording that ended well is not salvaged, and a launch that cannot succeed is not tried for ever.
    harness.livekit.start_stored("EG_whole").await.unwrap();
    until("it records", || harness.livekit.status("EG_whole") == Some(EgressStatus::EgressActive)).await;
    harness.livekit.stop("EG_whole").await.unwrap();
    until("it is complete", || harness.livekit.status("EG_whole") == Some(EgressStatus::EgressComplete)).await;
    harness.runners.play("EG_never", Play::DiesRecording);
    harness.runners.play_salvages("EG_never", &[Play::Sleeps; 3]);
    harness.livekit.start_stored("EG_never").await.unwrap();
    until("it is given up", || harness.livekit.status("EG_never") == Some(EgressStatus::EgressFailed)).await;
    sleep(60 * SECOND).await;
    harness.livekit.assert_each_ended_once();
    assert_eq!(harness.cloud.started(), 19);
}

#[tokio::test(start_paused = true)]
async fn a_runner_that_never_starts_and_one_that_falls_silent_are_ended() {
    let harness = Harness::set(slow()).await;
    let _dispatcher = harness.dispatcher_with(Config { heartbeat_timeout: 60 * SECOND, ..config() }).await;
    harness.runners.play("EG_sleeps", Play::Sleeps);
    harness.runners.play("EG_silent", Play::FallsSilent);
    for id in ["EG_sleeps", "EG_silent"] {
        harness.livekit.start_composite(id).await.unwrap();
    }
    until("both are over", || harness.livekit.book().ends.len() == 2).await;
    let error = |id| harness.livekit.shows(id).unwrap().error;
    assert_eq!(error("EG_sleeps"), "the runner did not start within 60 s");
    assert!(error("EG_silent").contains("stopped answering for 60 s"), "{}", error("EG_silent"));
    sleep(5 * SECOND).await;
    harness.livekit.assert_each_ended_once();
}

#[tokio::test(start_paused = true)]
async fn a_dispatcher_may_die_at_any_moment_and_another_finishes() {
    for after_ms in (0..=3000).step_by(100) {
        let harness = Harness::set(slow()).await;
        let a = harness.dispatcher_with(Config { bid: 1.0, ..config() }).await;
        // The second one wins only when the first does not bid.
        let _b = harness.dispatcher_with(Config { bid: 0.5, ..config() }).await;
        let start = async {
            sleep(SECOND).await;
            harness.livekit.start_composite("EG_orphan").await
        };
        let death = async {
            // At 1000 the call is in progress.
            sleep(Duration::from_millis(after_ms)).await;
            a.vanish().await;
        };
        let (answer, ()) = tokio::join!(start, death);
        assert_eq!(answer.unwrap().egress_id, "EG_orphan", "death at {after_ms} ms");
        let records = format!("it records after a death at {after_ms} ms");
        until(&records, || harness.livekit.status("EG_orphan") == Some(EgressStatus::EgressActive)).await;
        harness.livekit.stop("EG_orphan").await.unwrap();
        until("it is complete", || harness.livekit.status("EG_orphan") == Some(EgressStatus::EgressComplete)).await;
        sleep(20 * SECOND).await;
        harness.livekit.assert_each_ended_once();
        assert_eq!(harness.cloud.started(), 1, "death at {after_ms} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn when_dispatcher_and_runner_die_together_another_dispatcher_settles_within_fifteen_seconds() {
    let harness = Harness::set(slow()).await;
    let a = harness.dispatcher().await;
    harness.runners.play("EG_both", Play::DiesRecording);
    harness.livekit.start_composite("EG_both").await.unwrap();
    let _b = harness.dispatcher().await;
    until("it records", || harness.livekit.status("EG_both") == Some(EgressStatus::EgressActive)).await;
    sleep(2 * SECOND).await;
    a.vanish().await;
    let begun = Instant::now();
    until("it is settled", || harness.livekit.status("EG_both") == Some(EgressStatus::EgressFailed)).await;
    assert!(begun.elapsed() < 15 * SECOND, "{:?}", begun.elapsed());
    harness.livekit.assert_each_ended_once();
}

#[tokio::test(start_paused = true)]
async fn a_full_dispatcher_queues_then_refuses_with_the_reason_and_gives_up() {
    let harness = Harness::set(slow()).await;
    let bounds = Config { max_recordings: Some(1), queue: 1, queue_deadline: 20 * SECOND, ..config() };
    let _dispatcher = harness.dispatcher_with(bounds).await;
    harness.livekit.start_composite("EG_first").await.unwrap();
    harness.livekit.start_composite("EG_second").await.unwrap();
    let error = harness.livekit.start_composite("EG_third").await.unwrap_err();
    assert_eq!(error.code, Code::ResourceExhausted);
    assert_eq!(error.message, "no slot for another recording: 1 of 1 recordings running, 1 waiting");
    assert_eq!(harness.livekit.status("EG_third"), None);

    harness.livekit.stop("EG_first").await.unwrap();
    until("the second has the place", || harness.livekit.status("EG_second") == Some(EgressStatus::EgressActive)).await;
    harness.livekit.start_composite("EG_fourth").await.unwrap();
    until("the fourth is given up", || harness.livekit.status("EG_fourth") == Some(EgressStatus::EgressFailed)).await;
    let given_up = harness.livekit.shows("EG_fourth").unwrap();
    assert_eq!(given_up.error, "no slot became free within 20 s");
    assert_eq!(given_up.error_code, 429);
}

#[tokio::test(start_paused = true)]
async fn a_dispatcher_with_a_place_goes_before_one_with_a_queue() {
    let harness = Harness::set(slow()).await;
    let one_place = || Config { max_recordings: Some(1), ..config() };
    let (_a, _b) = (harness.dispatcher_with(one_place()).await, harness.dispatcher_with(one_place()).await);
    for id in ["EG_here", "EG_there"] {
        assert_eq!(harness.livekit.start_composite(id).await.unwrap().details, "");
    }
    let begun = Instant::now();
    let queued = harness.livekit.start_composite("EG_nowhere").await.unwrap();
    assert!(queued.details.starts_with("waiting for a slot"), "{}", queued.details);
    assert!(begun.elapsed() < Duration::from_millis(100), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn what_a_launcher_says_is_minded() {
    let harness = Harness::set(slow()).await;
    let _dispatcher = harness.dispatcher().await;
    let passing = || LaunchError::Transient { message: "hiccup".to_owned(), source: None };
    let full = || LaunchError::Capacity { message: "zone is full".to_owned() };
    let throttled = || LaunchError::Throttled { message: "slower".to_owned(), retry_after: Some(3 * SECOND) };
    harness.cloud.refuse(&EgressId::parse("EG_later").unwrap(), vec![passing(), full(), throttled()]);
    let broken = LaunchError::Misconfigured { message: "no such cluster".to_owned(), source: None };
    harness.cloud.refuse(&EgressId::parse("EG_never").unwrap(), vec![broken]);
    for id in ["EG_later", "EG_never"] {
        harness.livekit.start_composite(id).await.unwrap();
    }
    until("it is refused", || harness.livekit.status("EG_never") == Some(EgressStatus::EgressFailed)).await;
    assert_eq!(harness.livekit.shows("EG_never").unwrap().error, "launcher misconfigured: no such cluster");
    let begun = Instant::now();
    until("it records", || harness.livekit.status("EG_later") == Some(EgressStatus::EgressActive)).await;
    assert!(begun.elapsed() > 3 * SECOND, "a pause was asked for: {:?}", begun.elapsed());
}

/// Another zone of the same target is asked at once, with a new attempt number.
#[tokio::test(start_paused = true)]
async fn one_full_place_of_a_target_costs_no_time() {
    let harness = Harness::set(SimulatedOptions::default()).await;
    let _dispatcher = harness.dispatcher().await;
    let here = || LaunchError::ZoneCapacity { message: "zone a is full".to_owned() };
    // More than it takes to open the breaker of a target without any capacity.
    harness.cloud.refuse(&EgressId::parse("EG_zones").unwrap(), (0..5).map(|_| here()).collect());
    let begun = Instant::now();
    harness.livekit.start_composite("EG_zones").await.unwrap();
    until("it records", || harness.livekit.status("EG_zones") == Some(EgressStatus::EgressActive)).await;
    assert!(begun.elapsed() < SECOND, "{:?}", begun.elapsed());
    assert_eq!(harness.runners.recordings("EG_zones"), [6]);
}

#[tokio::test(start_paused = true)]
async fn redis_may_be_away_for_a_while() {
    let harness = Harness::set(slow()).await;
    let _dispatcher = harness.dispatcher().await;
    harness.livekit.start_composite("EG_outage").await.unwrap();
    until("it records", || harness.livekit.status("EG_outage") == Some(EgressStatus::EgressActive)).await;
    harness.broker.cut();
    sleep(30 * SECOND).await;
    harness.broker.mend();
    sleep(30 * SECOND).await;
    assert_eq!(harness.livekit.status("EG_outage"), Some(EgressStatus::EgressActive));
    harness.livekit.stop("EG_outage").await.unwrap();
    until("it is complete", || harness.livekit.status("EG_outage") == Some(EgressStatus::EgressComplete)).await;
    harness.livekit.assert_each_ended_once();
}

/// Redis is down for minutes just when recordings end: for all processes, and for the runners alone.
#[tokio::test(start_paused = true)]
async fn a_recording_that_ends_while_redis_is_away_is_complete_afterwards() {
    for (everybody, minutes) in [(true, 2), (true, 10), (true, 14), (false, 1), (false, 4)] {
        let link = FaultyLink::new(LinkFaults::default());
        let harness = Harness::set_with(slow(), &link).await;
        let _dispatchers = (harness.dispatcher().await, harness.dispatcher().await);
        let ids: Vec<String> = (0..6).map(|n| format!("EG_away{n}")).collect();
        for (id, n) in ids.iter().zip(0u64..) {
            // From well before to well after the begin of the outage.
            harness.runners.play(id, Play::Ends(Duration::from_millis(8_000 + 700 * n)));
            if n % 2 == 0 {
                harness.livekit.start_stored(id).await.unwrap();
            } else {
                harness.livekit.start_composite(id).await.unwrap();
            }
        }
        until("all record", || ids.iter().all(|id| harness.livekit.status(id) == Some(EgressStatus::EgressActive)))
            .await;
        sleep(9 * SECOND).await;
        if everybody {
            harness.broker.cut()
        } else {
            link.cut()
        }
        sleep(minutes * 60 * SECOND).await;
        harness.broker.mend();
        link.mend();
        until("all are over", || harness.livekit.book().ends.len() == ids.len()).await;
        for id in &ids {
            let info = harness.livekit.shows(id).unwrap();
            assert_eq!((info.status(), info.error.as_str()), (EgressStatus::EgressComplete, ""), "{id}, {minutes} min");
            assert_eq!(harness.runners.salvages(id), 0, "{id}");
        }
        sleep(60 * SECOND).await;
        harness.livekit.assert_each_ended_once();
        assert_eq!(harness.cloud.started(), ids.len(), "nothing was launched twice");
    }
}

/// A failover to a replica without the last write: the record is `Running` again, and its runner has exited.
#[tokio::test(start_paused = true)]
async fn a_record_that_loses_its_end_is_not_told_as_another_end() {
    let harness = Harness::set(slow()).await;
    let _dispatcher = harness.dispatcher().await;
    let registry = Registry::new(&harness.bus());
    for (name, stored) in [("EG_local", false), ("EG_stored", true)] {
        let id = EgressId::parse(name).unwrap();
        if stored {
            harness.livekit.start_stored(name).await.unwrap();
        } else {
            harness.livekit.start_composite(name).await.unwrap();
        }
        until("it records", || harness.livekit.status(name) == Some(EgressStatus::EgressActive)).await;
        sleep(2 * SECOND).await;
        let before = registry.get(&id).await.unwrap().unwrap();
        harness.livekit.stop(name).await.unwrap();
        until("it is complete", || harness.livekit.status(name) == Some(EgressStatus::EgressComplete)).await;
        sleep(5 * SECOND).await;
        registry.forget(&id).await.unwrap();
        registry.create(&before).await.unwrap();
        sleep(30 * SECOND).await;
        assert_eq!(harness.livekit.status(name), Some(EgressStatus::EgressComplete));
        assert!(registry.list_live().await.unwrap().is_empty(), "{name} is settled");
        assert_eq!(harness.runners.salvages(name), 0, "{name}");
    }
    harness.livekit.assert_each_ended_once();
}

#[tokio::test(start_paused = true)]
async fn a_drain_takes_no_more_finishes_what_waits_and_leaves_recordings_alone() {
    let harness = Harness::set(slow()).await;
    let a = harness.dispatcher().await;
    harness.livekit.start_composite("EG_old").await.unwrap();
    assert!(a.drained().await);
    assert!(a.leave().await);
    assert_eq!(harness.cloud.started(), 1, "what was accepted was launched");
    let begun = Instant::now();
    let b = harness.dispatcher().await;
    harness.livekit.start_composite("EG_new").await.unwrap();
    assert!(begun.elapsed() < SECOND);
    until("both record", || {
        ["EG_old", "EG_new"].iter().all(|id| harness.livekit.status(id) == Some(EgressStatus::EgressActive))
    })
    .await;
    sleep(10 * SECOND).await;
    for id in ["EG_old", "EG_new"] {
        harness.livekit.stop(id).await.unwrap();
    }
    until("both are complete", || harness.livekit.book().ends.len() == 2).await;
    harness.livekit.assert_each_ended_once();
    drop(b);
}
