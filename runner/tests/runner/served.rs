use std::time::{Duration, Instant};

use prost::Message;
use spillway_bus::lifecycle::LaunchEvent;
use spillway_bus::{
    Decision, FaultyLink, Heartbeats, IoClient, LaunchState, LinkFaults, MemoryBroker, Phase, Platform, ProbeOrder,
    Record, Shape, Ticket, Tickets,
};
use spillway_process::Clock;
use spillway_protocol::ledger::{EgressLedger, Fact, Outcome};
use spillway_protocol::livekit::EgressInfo;
use spillway_protocol::livekit::EgressStatus::{
    EgressAborted, EgressActive, EgressComplete, EgressEnding, EgressFailed, EgressStarting,
};
use spillway_protocol::rpc::service;
use spillway_protocol::{Code, RpcError};
use spillway_runner::report::{Delivered, ReportPublisher, Reporter};
use spillway_runner::serve::ServeOutcome;
use spillway_runner::ticket::{self, Names, RunnerTask};
use tokio::time::{sleep, timeout};

use crate::harness::{RunnerHarness, TIMEOUT, done};

#[tokio::test(flavor = "multi_thread")]
async fn one_egress_from_launch_to_acknowledged_end() {
    let harness = RunnerHarness::new().await;
    let run = harness.run("record").await;
    harness.heard(EgressActive).await;
    let record = harness.record().await;
    assert_eq!(record.phase(), Phase::Running);
    let (_, beat) = Heartbeats::new(&harness.bus).last(&harness.id).await.unwrap().unwrap();
    assert_eq!(beat.attempt, 1);

    let asked = Instant::now();
    let first = harness.call(service::STOP_EGRESS).await.unwrap();
    assert!(matches!(first.status(), EgressEnding | EgressComplete), "{:?}", first.status());
    assert_eq!(done(run).await, ServeOutcome::Served(Delivered::Acknowledged));
    assert!(asked.elapsed() < Duration::from_millis(1500), "{:?}", asked.elapsed());

    let statuses = harness.statuses();
    assert!(statuses.is_sorted_by_key(|status| *status as i32), "{statuses:?}");
    assert_eq!(statuses.last(), Some(&EgressComplete));
    let last = harness.last();
    assert_eq!(last.details, "End reason: StopEgress API");
    assert!(last.file_results[0].size > 0 && last.ended_at > 0);
    let record = harness.record().await;
    assert_eq!((record.phase(), EgressInfo::decode(record.info.as_slice()).unwrap()), (Phase::Over, last));
    assert!(harness.registry().list_live().await.unwrap().is_empty(), "finished");
}

/// Redis' time is the one that counts, also for what the media process stamps: the host's wall clock, which that reads, is
/// behind or ahead of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_whose_clock_is_wrong_tells_everything_in_time_and_at_redis_time() {
    const SECOND: i64 = 1_000_000_000;
    for wrong_s in [-3, -600, 600] {
        let broker = MemoryBroker::at(Clock::host_ahead_by(-wrong_s * SECOND));
        let harness = RunnerHarness::beside(broker.clone(), Clock::host()).await;
        let before = broker.clock().unix_ns();
        let run = harness.run("record").await;
        harness.heard(EgressActive).await;
        let active = broker.clock().unix_ns();
        sleep(Duration::from_millis(300)).await;
        harness.call(service::STOP_EGRESS).await.unwrap();
        assert_eq!(done(run).await, ServeOutcome::Served(Delivered::Acknowledged), "{wrong_s} s");
        let after = broker.clock().unix_ns();
        let last = harness.last();
        let file = &last.file_results[0];
        // A millisecond for the way from one process to the other.
        let within = |at: i64, from: i64, to: i64| (from - SECOND / 1000..=to + SECOND / 1000).contains(&at);
        assert!(within(last.started_at, before, active), "{wrong_s} s: {} {before} {active}", last.started_at);
        assert!(
            within(last.updated_at, active, after) && within(last.ended_at, active, after),
            "{wrong_s} s: {last:?}"
        );
        assert!(
            within(file.started_at, before, active) && within(file.ended_at, active, after),
            "{wrong_s} s: {file:?}"
        );
        assert!(last.ended_at - last.started_at >= 300_000_000 - SECOND / 1000, "{wrong_s} s: {last:?}");
        let statuses = harness.statuses();
        assert!(statuses.contains(&EgressActive) && statuses.last() == Some(&EgressComplete), "{statuses:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_is_idempotent_and_an_egress_without_streams_is_not_updated() {
    let harness = RunnerHarness::new().await;
    let run = harness.run("record-deaf").await;
    harness.heard(EgressActive).await;
    let error = harness.call(service::UPDATE_STREAM).await.unwrap_err();
    assert_eq!(error, RpcError::new(Code::InvalidArgument, "UpdateStream called on non-streaming egress"));
    for _ in 0..3 {
        assert_eq!(harness.call(service::STOP_EGRESS).await.unwrap().status(), EgressEnding);
    }
    // The media process ignores the stop and keeps recording: only a standstill has a timeout.
    harness.finished_by_another_writer().await;
    assert_eq!(done(run).await, ServeOutcome::Served(Delivered::NotOurs));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_while_waiting_aborts_at_once() {
    let harness = RunnerHarness::new().await;
    let run = harness.run("wait").await;
    let wait = async {
        while harness.record().await.phase() != Phase::Running {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(TIMEOUT, wait).await.unwrap();
    let info = harness.call(service::STOP_EGRESS).await.unwrap();
    assert_eq!((info.status(), info.error_code), (EgressAborted, 412));
    assert_eq!(done(run).await, ServeOutcome::Served(Delivered::Acknowledged));
    assert_eq!(harness.statuses().last(), Some(&EgressAborted));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_answered_by_a_dispatcher_reaches_the_session() {
    let harness = RunnerHarness::new().await;
    let run = harness.run("record").await;
    harness.heard(EgressActive).await;
    harness
        .registry()
        .update(&harness.id, |record| {
            record.stop_asked = true;
            Decision::Write
        })
        .await
        .unwrap();
    assert_eq!(done(run).await, ServeOutcome::Served(Delivered::Acknowledged));
    assert_eq!(harness.statuses().last(), Some(&EgressComplete));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hanging_media_process_is_dead_and_its_file_kept() {
    let harness = RunnerHarness::new().await;
    let run = harness.run("record-mute").await;
    assert_eq!(done(run).await, ServeOutcome::Served(Delivered::Acknowledged));
    let last = harness.last();
    assert_eq!((last.status(), last.error_code), (EgressFailed, 500));
    assert!(last.error.contains("said nothing"), "{}", last.error);
    assert!(last.file_results[0].size > 0);
    assert!(harness.folder.path().join("a.ogg").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_stopped_or_replaced_before_the_start_reports_nothing() {
    for spoil in [
        |record: &mut Record| record.state = LaunchState::Ended { task: None, asked: true },
        |record: &mut Record| record.stop_asked = true,
        |record: &mut Record| record.attempt = 2,
    ] {
        let harness = RunnerHarness::new().await;
        let (names, ticket) = harness.launch("record").await;
        harness
            .registry()
            .update(&harness.id, |record| {
                spoil(record);
                Decision::Write
            })
            .await
            .unwrap();
        assert_eq!(done(harness.serve(names, ticket.unwrap(), RunnerTask::Record)).await, ServeOutcome::NotOurs);
        assert_eq!(harness.statuses(), []);
        assert!(std::fs::read_dir(harness.folder.path()).unwrap().next().is_none(), "nothing was begun");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_is_taken_once() {
    let harness = RunnerHarness::new().await;
    let (names, ticket) = harness.launch("record").await;
    assert!(ticket.is_some());
    assert!(ticket::take(&harness.tickets, &names, RunnerTask::Record).await.unwrap().is_none());
}

/// Whoever can start a runner must not turn one into the other.
#[tokio::test(flavor = "multi_thread")]
async fn a_probe_records_nothing_and_a_recording_is_no_probe() {
    let harness = RunnerHarness::new().await;
    let recording = harness.ticket("record");
    let shape = Shape { cpu_milli: 250, memory_mib: 512, disk_gib: 20 };
    let order = ProbeOrder { platform: Platform::Fargate, shape, object: "spillway-probe/x".to_owned() };
    let probe = Ticket { probe: Some(order), ..recording.clone() };
    for (given, task, fits) in [
        (&recording, RunnerTask::Record, true),
        (&recording, RunnerTask::Probe, false),
        (&probe, RunnerTask::Probe, true),
        (&probe, RunnerTask::Record, false),
        (&probe, RunnerTask::Salvage, false),
    ] {
        let claim = harness.tickets.put(given, Duration::from_secs(60)).await.unwrap();
        let names = Names { egress_id: harness.id.clone(), attempt: 1, claim };
        let taken = ticket::take(&harness.tickets, &names, task).await.unwrap();
        assert_eq!(taken.is_some(), fits, "{task:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_finished_egress_is_left_without_an_update() {
    let harness = RunnerHarness::new().await;
    let run = harness.run("record").await;
    harness.heard(EgressActive).await;
    harness.finished_by_another_writer().await;
    assert_eq!(done(run).await, ServeOutcome::Served(Delivered::NotOurs));
    assert_eq!(harness.statuses(), [EgressActive]);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_livekit_server_the_end_is_left_for_a_dispatcher() {
    let mut harness = RunnerHarness::new().await;
    if let Some(server) = harness.server.take() {
        server.close().await;
    }
    let run = harness.run("record-closed").await;
    assert_eq!(done(run).await, ServeOutcome::Served(Delivered::Left));
    let record = harness.record().await;
    assert_eq!(record.phase(), Phase::Over);
    assert_eq!(EgressInfo::decode(record.info.as_slice()).unwrap().status(), EgressComplete);
    assert_eq!(harness.registry().list_live().await.unwrap().len(), 1, "still to be delivered");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_record_is_written_again() {
    let harness = RunnerHarness::new().await;
    let run = harness.run("record").await;
    harness.heard(EgressActive).await;
    harness.registry().forget(&harness.id).await.unwrap();
    let wait = async {
        while harness.registry().get(&harness.id).await.unwrap().is_none() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(TIMEOUT, wait).await.unwrap();
    assert_eq!(harness.record().await.phase(), Phase::Running);
    harness.call(service::STOP_EGRESS).await.unwrap();
    assert_eq!(done(run).await, ServeOutcome::Served(Delivered::Acknowledged));
    assert_eq!(harness.statuses().last(), Some(&EgressComplete));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_room_of_the_same_name_is_not_recorded() {
    let harness = RunnerHarness::new().await;
    let run = harness.run("record-other").await;
    assert_eq!(done(run).await, ServeOutcome::Served(Delivered::Acknowledged));
    let last = harness.last();
    assert_eq!(last.status(), EgressAborted);
    assert!(last.details.contains("the room had ended"), "{}", last.details);
}

/// The file is whole; only Redis was away when that was to be said.
#[tokio::test(flavor = "multi_thread")]
async fn a_recording_that_ends_without_redis_waits_and_is_complete_once() {
    let harness = RunnerHarness::new().await;
    let run = harness.run("record-closed").await;
    harness.heard(EgressActive).await;
    harness.broker.cut();
    // Longer than the last report is offered to livekit-server.
    sleep(Duration::from_secs(3)).await;
    assert!(!run.is_finished(), "no other process knows how it ended");
    harness.broker.mend();
    assert_eq!(done(run).await, ServeOutcome::Served(Delivered::Acknowledged));
    assert_eq!(harness.statuses().iter().filter(|status| **status as i32 >= EgressComplete as i32).count(), 1);
    let last = harness.last();
    assert_eq!((last.status(), last.error.as_str()), (EgressComplete, ""));
    assert_eq!(harness.record().await.phase(), Phase::Over);
    assert!(harness.registry().list_live().await.unwrap().is_empty());
}

/// The same for as long as the default allows, in virtual time.
#[tokio::test(start_paused = true)]
async fn a_last_report_waits_ten_minutes_for_redis_and_not_for_ever() {
    for (away, delivered) in [(10, Delivered::Acknowledged), (14, Delivered::Acknowledged), (20, Delivered::Unwritten)]
    {
        let harness = RunnerHarness::new().await;
        harness.launch("record").await;
        let registry = harness.registry();
        let run = |record: &mut Record| {
            record.state = LaunchState::Running { task: None, ending: false };
            Decision::Write
        };
        registry.update(&harness.id, run).await.unwrap();
        let ledger: EgressLedger = serde_json::from_str(&harness.record().await.ledger).unwrap();
        let reporter = Reporter::new(ledger, Duration::from_secs(60), Clock::host());
        let (inbox, _events) = tokio::sync::mpsc::channel(4);
        let io = IoClient::new(&harness.bus);
        io.listen().await.unwrap();
        let settings = spillway_runner::config::Settings::default();
        let publisher = ReportPublisher {
            registry,
            io,
            egress_id: harness.id.clone(),
            attempt: 1,
            record: harness.record().await,
            redis_timeout: Duration::from_millis(settings.last_report_timeout_ms),
            timeout: Duration::from_millis(settings.report_timeout_ms),
            inbox,
        };
        let reports = reporter.reports();
        reporter.report(Fact::Active { started_at: 5 });
        let reporting = tokio::spawn(async move { publisher.run(reports).await });
        harness.heard(EgressActive).await;
        harness.broker.cut();
        reporter.report(Fact::Over(Outcome::Complete));
        sleep(Duration::from_secs(away * 60)).await;
        harness.broker.mend();
        assert_eq!(reporting.await.unwrap(), delivered, "{away} min");
        let over = harness.record().await.phase() == Phase::Over;
        assert_eq!(over, delivered == Delivered::Acknowledged, "{away} min");
        let told = harness.statuses().iter().filter(|status| **status == EgressComplete).count();
        assert_eq!(told, usize::from(over), "{away} min");
    }
}

#[tokio::test(start_paused = true)]
async fn a_ticket_is_taken_although_the_answer_was_lost() {
    let harness = RunnerHarness::new().await;
    let claim = harness.tickets.put(&harness.ticket("record"), Duration::from_secs(60)).await.unwrap();
    let names = Names { egress_id: harness.id.clone(), attempt: 1, claim };
    let way = FaultyLink::new(LinkFaults { answer_lost: 1.0, ..LinkFaults::default() });
    let tickets = Tickets::new(&way.to(&harness.bus), harness.key.clone());
    let calm = async {
        sleep(Duration::from_millis(350)).await;
        way.calm();
    };
    let (taken, ()) = tokio::join!(ticket::take(&tickets, &names, RunnerTask::Record), calm);
    assert_eq!(taken.unwrap().map(|ticket| ticket.attempt), Some(1), "two answers were lost");
    assert!(
        ticket::take(&harness.tickets, &names, RunnerTask::Record).await.unwrap().is_none(),
        "it is taken for others"
    );
}

/// Each command may be done and its answer lost, from the first one to the last.
#[tokio::test(flavor = "multi_thread")]
async fn answers_that_redis_loses_cost_no_recording_and_no_other_end() {
    for seed in 0..4 {
        let link = FaultyLink::new(LinkFaults { seed, answer_lost: 0.15, ..LinkFaults::default() });
        let mut harness = RunnerHarness::new().await;
        harness.reach_redis_over(&link);
        let run = harness.run("record").await;
        harness.heard(EgressActive).await;
        sleep(Duration::from_millis(2500)).await;
        harness.registry().apply(&harness.id, &LaunchEvent::StopAsked).await.unwrap();
        done(run).await;
        // An update may come twice, because a publication whose answer was lost is repeated.
        let mut statuses = harness.statuses();
        statuses.dedup();
        let ends = statuses.iter().filter(|status| !matches!(status, EgressStarting | EgressActive | EgressEnding));
        assert_eq!(ends.collect::<Vec<_>>(), [&EgressComplete], "seed {seed}: {statuses:?}");
        let record = harness.record().await;
        assert!(record.state.is_over(), "seed {seed}: {record:?}");
        assert_eq!(EgressInfo::decode(record.info.as_slice()).unwrap().status(), EgressComplete, "seed {seed}");
    }
}

/// A failover lost the write that made this task the owner, or even the number of its launch.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_lost_its_last_writes_is_written_again_and_the_recording_goes_on() {
    for older in [
        |record: &mut Record| record.state = LaunchState::Asking,
        |record: &mut Record| (record.state, record.attempt) = (LaunchState::Queued { renumber: false }, 0),
    ] {
        let harness = RunnerHarness::new().await;
        let run = harness.run("record").await;
        harness.heard(EgressActive).await;
        let lose = |record: &mut Record| {
            older(record);
            Decision::Write
        };
        harness.registry().update(&harness.id, lose).await.unwrap();
        let restored = async {
            while harness.record().await.phase() != Phase::Running {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(TIMEOUT, restored).await.unwrap();
        assert_eq!(harness.record().await.attempt, 1);
        assert_eq!(harness.call(service::STOP_EGRESS).await.unwrap().status(), EgressEnding);
        assert_eq!(done(run).await, ServeOutcome::Served(Delivered::Acknowledged));
        assert_eq!(harness.statuses().last(), Some(&EgressComplete));
    }
}

/// The publication came back in a codec that the first file cannot take.
#[tokio::test(flavor = "multi_thread")]
async fn a_recording_that_goes_on_in_another_file_has_two_results_and_is_complete() {
    let harness = RunnerHarness::new().await;
    let run = harness.run("record-again").await;
    harness.heard(EgressActive).await;
    let second = harness.folder.path().join("a-2.ogg");
    let wait = async {
        while !std::fs::metadata(&second).is_ok_and(|file| file.len() > 500) {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(TIMEOUT, wait).await.unwrap();
    harness.call(service::STOP_EGRESS).await.unwrap();
    assert_eq!(done(run).await, ServeOutcome::Served(Delivered::Acknowledged));
    let last = harness.last();
    assert_eq!((last.status(), last.error.as_str()), (EgressComplete, ""));
    let names: Vec<&str> = last.file_results.iter().map(|file| file.filename.as_str()).collect();
    assert_eq!(names, ["a.ogg", "a-2.ogg"]);
    for file in &last.file_results {
        let path = harness.folder.path().join(&file.filename);
        assert_eq!(file.location, path.display().to_string());
        assert_eq!(file.size as u64, std::fs::metadata(path).unwrap().len());
        assert!(file.size > 500 && file.duration > 0, "{file:?}");
    }
    assert_eq!(last.file_results[1].started_at, last.file_results[0].ended_at);
    let manifest = std::fs::read_to_string(harness.folder.path().join("EG_1.json")).unwrap();
    assert!(manifest.contains("a.ogg") && manifest.contains("a-2.ogg"), "{manifest}");
}
