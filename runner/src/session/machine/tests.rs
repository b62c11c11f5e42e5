use super::*;
use proptest::prelude::*;
use spillway_ipc::MediaEndReason;
use spillway_plan::{EgressPlan, Output, StreamProtocol, StreamsOutput};

const SECOND: Duration = Duration::from_secs(1);

fn rules() -> SessionRules {
    SessionRules {
        max_duration: Some(60 * SECOND),
        max_file_bytes: Some(1_000_000),
        max_segment_bytes: Some(2_000_000),
        start_timeout: Some(40 * SECOND),
        hang_after: 10 * SECOND,
        drain_timeout: 30 * SECOND,
        max_restarts: 0,
        hand_over: false,
    }
}

fn alive(media_ns: u64) -> SessionEvent {
    SessionEvent::Media(MediaEvent::Alive { media_ns, lag_ms: 0, backlog_bytes: 0, streams: vec![] })
}

fn started() -> SessionEvent {
    SessionEvent::Media(MediaEvent::Started { at: 5, facts: None })
}

fn ended(why: MediaEndReason) -> SessionEvent {
    SessionEvent::Media(MediaEvent::Ended { why })
}

/// With outputs 0 to `outputs` - 1.
fn joining(outputs: u32, now: Instant) -> Session {
    Session::new(rules(), OpenOutputs { open: (0..outputs).collect(), ..OpenOutputs::default() }, now)
}

fn recording(now: Instant) -> Session {
    recording_to(1, now)
}

fn recording_to(outputs: u32, now: Instant) -> Session {
    let mut session = joining(outputs, now);
    assert_eq!(session.on(started(), now), [SessionEffect::Report(Fact::Active { started_at: 5 })]);
    session
}

fn outcome(effects: &[SessionEffect]) -> Option<&Outcome> {
    effects.iter().find_map(|effect| match effect {
        SessionEffect::Finish(outcome) => Some(outcome),
        _ => None,
    })
}

/// Ticks and signs of life for `seconds`; the first effects that come of it, and the time they came.
fn live(session: &mut Session, from: Instant, seconds: u64) -> Option<(Vec<SessionEffect>, u64)> {
    (1..=seconds).find_map(|second| {
        let now = from + second as u32 * SECOND;
        session.on(alive(second), now);
        let effects = session.on(SessionEvent::Tick, now);
        (!effects.is_empty()).then_some((effects, second))
    })
}

#[test]
fn a_stop_drains_and_completes_and_a_second_one_changes_nothing() {
    let now = Instant::now();
    let mut session = recording(now);
    assert_eq!(
        session.on(SessionEvent::StopAsked(StopSource::Api), now),
        [SessionEffect::StopMedia, SessionEffect::Report(Fact::Ending(EgressEndReason::StopAsked))]
    );
    assert_eq!(session.on(SessionEvent::StopAsked(StopSource::Api), now), []);
    assert_eq!(session.on(ended(MediaEndReason::Stopped), now), [SessionEffect::Finish(Outcome::Complete)]);
    assert_eq!(session.on(SessionEvent::MediaExited("late".to_owned()), now), []);
}

#[test]
fn a_full_spool_ends_the_recording_cleanly_with_its_reason() {
    let now = Instant::now();
    let mut session = recording(now);
    let full = || SessionEvent::OutputFull { output: 0, message: "no room".to_owned() };
    let effects = session.on(full(), now);
    assert_eq!(effects, [SessionEffect::StopMedia, SessionEffect::Report(Fact::Ending(EgressEndReason::Failure))]);
    assert_eq!(session.on(full(), now), []);
    let failed = Outcome::Failed { code: Code::ResourceExhausted, message: "no room".to_owned() };
    assert_eq!(session.on(ended(MediaEndReason::Stopped), now), [SessionEffect::Finish(failed)]);
}

#[test]
fn a_stop_before_the_first_media_aborts_at_once() {
    let now = Instant::now();
    let mut session = joining(1, now);
    let effects = session.on(SessionEvent::StopAsked(StopSource::Api), now);
    assert_eq!(
        outcome(&effects),
        Some(&Outcome::Aborted { message: "Stop called before pipeline could start".to_owned() })
    );
}

#[test]
fn the_room_ending_before_the_first_media_aborts() {
    let now = Instant::now();
    let mut session = joining(1, now);
    let effects = session.on(ended(MediaEndReason::SourceClosed { message: "room closed".to_owned() }), now);
    assert_eq!(outcome(&effects), Some(&Outcome::Aborted { message: "Start signal not received".to_owned() }));
    assert!(effects.contains(&SessionEffect::Report(Fact::Noted("room closed".to_owned()))));
}

#[test]
fn the_time_limit_ends_with_what_was_recorded() {
    let now = Instant::now();
    let mut session = recording(now);
    let (effects, at) = live(&mut session, now, 70).unwrap();
    assert_eq!(
        (effects, at),
        (vec![SessionEffect::StopMedia, SessionEffect::Report(Fact::Ending(EgressEndReason::Limit))], 60)
    );
    assert_eq!(session.on(ended(MediaEndReason::Stopped), now), [SessionEffect::Finish(Outcome::LimitReached)]);
}

#[test]
fn the_size_limit_ends_with_what_was_recorded() {
    let now = Instant::now();
    let mut session = recording(now);
    let wrote = MediaEvent::Wrote { file: 0, end: 1_000_000, sealed_to: 0, media_ns: 1 };
    assert_eq!(session.on(SessionEvent::Media(wrote), now)[0], SessionEffect::StopMedia);
    assert_eq!(session.on(ended(MediaEndReason::Stopped), now), [SessionEffect::Finish(Outcome::LimitReached)]);
}

#[test]
fn the_size_limit_of_segments_counts_all_of_one_output() {
    let now = Instant::now();
    let mut session = recording_to(2, now);
    let mut segment = |output, n, bytes| {
        let segment = MediaEvent::Segment { output, n, at_ns: 0, length_ns: 1, bytes, gap: bytes == 0 };
        session.on(SessionEvent::Media(segment), now)
    };
    assert_eq!([segment(0, 0, 1_500_000), segment(1, 0, 1_500_000), segment(0, 1, 0)], [vec![], vec![], vec![]]);
    let limit = SessionEffect::Report(Fact::Ending(EgressEndReason::Limit));
    assert_eq!(segment(0, 2, 500_000), [SessionEffect::StopMedia, limit]);
}

#[test]
fn without_a_publisher_it_ends_at_the_start_timeout() {
    let now = Instant::now();
    let mut session = joining(1, now);
    let (effects, at) = live(&mut session, now, 50).unwrap();
    assert_eq!(at, 40);
    assert!(matches!(outcome(&effects), Some(Outcome::Aborted { .. })));
}

#[test]
fn silence_is_death_but_our_own_absence_is_not_silence() {
    let now = Instant::now();
    let mut session = recording(now);
    // We were stopped for a minute: the first tick comes before anything could be read.
    assert_eq!(session.on(SessionEvent::Tick, now + 55 * SECOND), []);
    for second in 56..65 {
        assert_eq!(outcome(&session.on(SessionEvent::Tick, now + second * SECOND)), None);
    }
    let effects = session.on(SessionEvent::Tick, now + 65 * SECOND);
    assert_eq!(
        outcome(&effects),
        Some(&Outcome::Failed {
            code: Code::Internal,
            message: "media process said nothing for 10 s and was ended".to_owned()
        })
    );
}

#[test]
fn draining_may_take_long_but_not_stand_still() {
    let now = Instant::now();
    let mut session = recording(now);
    session.on(SessionEvent::StopAsked(StopSource::Signal), now);
    assert_eq!(live(&mut session, now, 59), None);
    // Alive, yet the media time stays where it is.
    let from = now + 59 * SECOND;
    let given_up = (1..40).find(|second| {
        let now = from + *second * SECOND;
        session.on(alive(59), now);
        outcome(&session.on(SessionEvent::Tick, now)).is_some()
    });
    assert_eq!(given_up, Some(30));
}

#[test]
fn a_dead_media_process_is_a_failure_with_its_reason() {
    let now = Instant::now();
    let mut session = recording(now);
    assert_eq!(
        session.on(SessionEvent::MediaExited("media process was killed by signal 9 (SIGKILL)".to_owned()), now),
        [
            SessionEffect::Report(Fact::Ending(EgressEndReason::Failure)),
            SessionEffect::Finish(Outcome::Failed {
                code: Code::Internal,
                message: "media process was killed by signal 9 (SIGKILL)".to_owned()
            })
        ]
    );
}

fn exited() -> SessionEvent {
    SessionEvent::MediaExited("it died".to_owned())
}

/// Whose media process is started again up to three times.
fn resilient(mut session: Session) -> Session {
    session.rules.max_restarts = 3;
    session
}

#[test]
fn a_media_process_is_started_again_and_a_crash_loop_is_the_end() {
    let now = Instant::now();
    for recorded in [false, true] {
        let mut session = resilient(if recorded { recording(now) } else { joining(1, now) });
        for second in 1..=3 {
            let effects = session.on(exited(), now + second * SECOND);
            assert_eq!(effects, [SessionEffect::RestartMedia("it died".to_owned())]);
            assert_eq!(session.on(SessionEvent::Tick, now + second * SECOND), []);
        }
        let effects = session.on(exited(), now + 4 * SECOND);
        let failed = Outcome::Failed { code: Code::Internal, message: "it died".to_owned() };
        assert_eq!(outcome(&effects), Some(&failed));
    }
    // What was an hour ago is forgotten.
    let mut session = resilient(recording(now));
    session.rules.max_duration = None;
    for hours in 0..9 {
        let effects = session.on(exited(), now + hours * 1300 * SECOND);
        assert_eq!(effects, [SessionEffect::RestartMedia("it died".to_owned())], "{hours}");
    }
}

#[test]
fn silence_has_the_media_process_started_again_too() {
    let now = Instant::now();
    let mut session = resilient(recording(now));
    let effects: Vec<_> = (1..=9).flat_map(|second| session.on(SessionEvent::Tick, now + second * SECOND)).collect();
    assert_eq!(effects, []);
    let message = "media process said nothing for 10 s and was ended".to_owned();
    let effects = session.on(SessionEvent::Tick, now + 10 * SECOND);
    assert_eq!(effects, [SessionEffect::RestartMedia(message.clone())]);
    // Its own silence counts from then on; where none can be started that is the end.
    assert_eq!(session.on(SessionEvent::Tick, now + 11 * SECOND), []);
    let effects = session.not_restarted(message.clone());
    assert_eq!(outcome(&effects), Some(&Outcome::Failed { code: Code::Internal, message }));
    assert_eq!(session.not_restarted("again".to_owned()), []);
}

#[test]
fn a_death_while_files_are_finished_is_the_end() {
    let now = Instant::now();
    let mut session = resilient(recording(now));
    session.on(SessionEvent::StopAsked(StopSource::Api), now);
    assert!(matches!(outcome(&session.on(exited(), now)), Some(Outcome::Failed { .. })));
}

#[test]
fn a_recording_that_goes_on_is_active_once_and_complete_in_the_end() {
    let now = Instant::now();
    let mut session = resilient(recording(now));
    session.on(exited(), now);
    assert_eq!(session.on(started(), now), [], "it was active before");
    session.on(SessionEvent::StopAsked(StopSource::Api), now);
    assert_eq!(session.on(ended(MediaEndReason::Stopped), now), [SessionEffect::Finish(Outcome::Complete)]);
}

/// What is recorded may end while no media process is there to see it.
#[test]
fn a_source_that_is_gone_when_the_next_process_looks_for_it_is_an_ordinary_end() {
    let now = Instant::now();
    let not_found =
        || ended(MediaEndReason::Failed { code: "not_found".to_owned(), message: "ann not found".to_owned() });
    let closed = SessionEffect::Report(Fact::Ending(EgressEndReason::SourceClosed));
    let mut session = resilient(recording(now));
    session.on(exited(), now);
    let complete = SessionEffect::Finish(Outcome::Complete);
    assert_eq!(session.on(not_found(), now), [closed.clone(), noted("ann not found"), complete]);

    let mut session = resilient(recording(now));
    session.on(exited(), now);
    let effects = session.on(SessionEvent::WrongRoom, now);
    let complete = SessionEffect::Finish(Outcome::Complete);
    assert_eq!(effects, [noted(OTHER_ROOM), SessionEffect::StopMedia, closed, complete]);

    // Once it records again, and from the beginning, it is an error.
    for mut session in [recording(now), joining(1, now)].map(resilient) {
        session.on(exited(), now);
        session.on(started(), now);
        assert!(matches!(outcome(&session.on(not_found(), now)), Some(Outcome::Failed { .. })));
    }
}

#[test]
fn a_stop_while_nobody_records_has_nothing_to_wait_for() {
    let now = Instant::now();
    let mut session = resilient(recording(now));
    session.on(exited(), now);
    let asked = SessionEffect::Report(Fact::Ending(EgressEndReason::StopAsked));
    let complete = SessionEffect::Finish(Outcome::Complete);
    assert_eq!(session.on(SessionEvent::StopAsked(StopSource::Api), now), [SessionEffect::StopMedia, asked, complete]);
}

/// The task before it has recorded 50 s of 60, 600 kB of a file and 1.5 MB of segments.
#[test]
fn limits_count_what_other_tasks_have_recorded_too() {
    let now = Instant::now();
    let resumed = || {
        let mut session = joining(2, now);
        session.go_on(50 * SECOND, &[(0, 0, 600_000)], &[(1, 1_500_000)]);
        session.begin(now);
        assert_eq!(session.on(started(), now), [], "it is active already");
        session
    };
    let mut session = resumed();
    let (effects, second) = live(&mut session, now, 30).unwrap();
    assert_eq!((effects[0].clone(), second), (SessionEffect::StopMedia, 10));
    assert_eq!(session.on(ended(MediaEndReason::Stopped), now), [SessionEffect::Finish(Outcome::LimitReached)]);

    let (container, facts) = (spillway_plan::Container::Mp4, spillway_ipc::TrackFacts::default());
    let opening = SessionEvent::Media(MediaEvent::Opening { file: 2, output: Some(0), container, facts });
    let wrote = |end| SessionEvent::Media(MediaEvent::Wrote { file: 2, end, sealed_to: 0, media_ns: 1 });
    let mut session = resumed();
    session.on(opening, now);
    assert_eq!(session.on(wrote(399_999), now), []);
    assert_eq!(session.on(wrote(400_000), now)[0], SessionEffect::StopMedia);

    let segment = |bytes| MediaEvent::Segment { output: 1, n: 9, at_ns: 0, length_ns: 1, bytes, gap: false };
    let mut session = resumed();
    assert_eq!(session.on(SessionEvent::Media(segment(499_999)), now), []);
    assert_eq!(session.on(SessionEvent::Media(segment(1)), now)[0], SessionEffect::StopMedia);
}

/// A task that may hand its recording over to another one.
fn leaving(mut session: Session) -> Session {
    session.rules.hand_over = true;
    session
}

fn told_to_leave() -> SessionEvent {
    SessionEvent::StopAsked(StopSource::Host)
}

fn handed_over(effects: &[SessionEffect]) -> bool {
    effects.iter().any(|effect| matches!(effect, SessionEffect::HandOver(why) if why.contains("the platform")))
}

#[test]
fn a_task_that_is_told_to_leave_closes_its_files_and_hands_over() {
    let now = Instant::now();
    let mut session = leaving(recording(now));
    assert_eq!(session.on(told_to_leave(), now), [SessionEffect::StopMedia], "the egress does not end");
    assert_eq!(session.on(told_to_leave(), now), []);
    assert!(handed_over(&session.on(ended(MediaEndReason::Stopped), now)) && session.is_over());
    // Whatever becomes of the media process.
    for event in [exited(), ended(MediaEndReason::Full { message: "full".to_owned() })] {
        let mut session = leaving(recording(now));
        session.on(told_to_leave(), now);
        assert!(handed_over(&session.on(event, now)));
    }
    let mut session = leaving(recording(now));
    session.on(told_to_leave(), now);
    assert!((0..40).any(|second| handed_over(&session.on(SessionEvent::Tick, now + second * SECOND))));
    // There is nothing to close.
    assert!(handed_over(&leaving(joining(1, now)).on(told_to_leave(), now)));
    let mut session = leaving(resilient(recording(now)));
    session.on(exited(), now);
    assert!(handed_over(&session.on(told_to_leave(), now)));
}

#[test]
fn an_egress_that_ends_while_its_task_leaves_ends_with_it() {
    let now = Instant::now();
    let complete = SessionEffect::Finish(Outcome::Complete);
    let mut session = leaving(recording(now));
    session.on(told_to_leave(), now);
    let asked = SessionEffect::Report(Fact::Ending(EgressEndReason::StopAsked));
    assert_eq!(session.on(SessionEvent::StopAsked(StopSource::Api), now), [asked]);
    assert_eq!(session.on(ended(MediaEndReason::Stopped), now), std::slice::from_ref(&complete));

    let mut session = leaving(recording(now));
    session.on(told_to_leave(), now);
    let closed = SessionEffect::Report(Fact::Ending(EgressEndReason::SourceClosed));
    let gone = ended(MediaEndReason::SourceClosed { message: "room closed".to_owned() });
    assert_eq!(session.on(gone, now), [closed, complete]);
}

#[test]
fn without_another_task_an_egress_is_aborted_with_the_reason() {
    let now = Instant::now();
    let aborted = |effects: &[SessionEffect]| {
        let message = "the platform stopped the recording task".to_owned();
        outcome(effects) == Some(&Outcome::Aborted { message })
    };
    let mut session = recording(now);
    let killed = SessionEffect::Report(Fact::Ending(EgressEndReason::Killed));
    assert_eq!(session.on(told_to_leave(), now), [SessionEffect::StopMedia, killed]);
    assert!(aborted(&session.on(ended(MediaEndReason::Stopped), now)));
    assert!(aborted(&joining(1, now).on(told_to_leave(), now)));
    // A failure says more.
    let mut session = recording(now);
    session.on(told_to_leave(), now);
    assert!(matches!(outcome(&session.on(exited(), now)), Some(Outcome::Failed { .. })));
}

#[test]
fn the_size_limit_counts_all_files_of_an_output() {
    let now = Instant::now();
    let mut session = resilient(recording_to(2, now));
    let opening = |file, output| {
        let (container, facts) = (spillway_plan::Container::Mp4, spillway_ipc::TrackFacts::default());
        SessionEvent::Media(MediaEvent::Opening { file, output: Some(output), container, facts })
    };
    let wrote = |file, end| SessionEvent::Media(MediaEvent::Wrote { file, end, sealed_to: 0, media_ns: 1 });
    for event in [opening(0, 0), opening(1, 1), wrote(0, 600_000), wrote(1, 900_000), exited(), opening(2, 0)] {
        assert!(!session.on(event, now).contains(&SessionEffect::StopMedia));
    }
    assert_eq!(session.on(wrote(2, 399_999), now), []);
    assert_eq!(session.on(wrote(2, 400_000), now)[0], SessionEffect::StopMedia);
}

#[test]
fn outputs_that_have_ended_are_not_begun_again() {
    let now = Instant::now();
    let mut session = with_streams(now);
    session.outputs.open.insert(2);
    session.on(failed(0, "no space"), now);
    session.on(failed(1, "refused"), now);
    assert_eq!(session.ended_outputs(3), [0].into(), "a stream may be added");
}

fn failed(output: u32, message: &str) -> SessionEvent {
    SessionEvent::OutputEnded { output, failure: Some((Code::InvalidArgument, message.to_owned())) }
}

fn media_failed(output: u32) -> SessionEvent {
    SessionEvent::Media(MediaEvent::OutputFailed {
        output,
        file: None,
        full: true,
        code: "internal".to_owned(),
        message: "no space".to_owned(),
    })
}

fn noted(message: &str) -> SessionEffect {
    SessionEffect::Report(Fact::Noted(message.to_owned()))
}

#[test]
fn an_output_that_fails_alone_is_closed_and_the_egress_fails_in_the_end_with_its_reason() {
    let now = Instant::now();
    for (limit, full) in [(false, false), (true, false), (false, true)] {
        let mut session = recording_to(3, now);
        let (event, code, message) = if full {
            (media_failed(1), Code::ResourceExhausted, "no space")
        } else {
            (failed(1, "b.mp4: refused"), Code::InvalidArgument, "b.mp4: refused")
        };
        let effects = session.on(event.clone(), now);
        assert_eq!(effects, [SessionEffect::CloseOutput(1), noted(&format!("{message}; the other outputs go on"))]);
        assert_eq!(session.on(event, now), [], "it is told once");
        assert_eq!(session.on(failed(7, "no output"), now), []);
        if limit {
            let wrote = MediaEvent::Wrote { file: 0, end: 1_000_000, sealed_to: 0, media_ns: 1 };
            session.on(SessionEvent::Media(wrote), now);
        } else {
            session.on(SessionEvent::StopAsked(StopSource::Api), now);
        }
        let effects = session.on(ended(MediaEndReason::Stopped), now);
        assert_eq!(outcome(&effects), Some(&Outcome::Failed { code, message: message.to_owned() }));
    }
}

#[test]
fn a_file_that_fails_alone_is_told_by_its_place_in_the_egress_info() {
    let now = Instant::now();
    let file = serde_json::json!({"file": {"container": null, "path": "a", "manifest": true}});
    let text = serde_json::json!({
        "egress_id": "EG_1", "room_name": "r", "room_id": "", "kind": "room_composite", "source": "room",
        "picture": null, "sound": null, "outputs": [file, file],
        "limits": {"max_duration_ns": null, "max_file_bytes": null}, "retry_count": 0
    });
    let mut plan: EgressPlan = serde_json::from_value(text).unwrap();
    plan.outputs.insert(0, Output::Streams(StreamsOutput { protocol: StreamProtocol::Rtmp, count: 1 }));
    let file_failed = |index, message: &str| SessionEffect::Report(Fact::FileFailed { index, message: message.into() });

    let mut session = Session::new(rules(), OpenOutputs::of(&plan), now);
    session.on(started(), now);
    let effects = session.on(failed(2, "b.mp4: refused"), now);
    let note = noted("b.mp4: refused; the other outputs go on");
    assert_eq!(effects, [SessionEffect::CloseOutput(2), file_failed(1, "b.mp4: refused"), note]);
    session.on(SessionEvent::StopAsked(StopSource::Api), now);
    assert_eq!(
        session.on(failed(1, "a.mp4: no space"), now),
        [file_failed(0, "a.mp4: no space"), noted("a.mp4: no space")]
    );
}

#[test]
fn the_last_output_that_fails_ends_the_recording_whatever_the_order() {
    let now = Instant::now();
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let mut session = recording_to(3, now);
        for output in &order[..2] {
            let effects = session.on(failed(*output, &format!("output {output}")), now);
            assert_eq!(effects[0], SessionEffect::CloseOutput(*output));
            assert_eq!(outcome(&effects), None);
        }
        let last = format!("output {}", order[2]);
        assert_eq!(
            session.on(failed(order[2], &last), now),
            [SessionEffect::StopMedia, SessionEffect::Report(Fact::Ending(EgressEndReason::Failure))]
        );
        let effects = session.on(ended(MediaEndReason::Stopped), now);
        assert_eq!(outcome(&effects), Some(&Outcome::Failed { code: Code::InvalidArgument, message: last }));

        let mut session = joining(3, now);
        for output in &order[..2] {
            assert_eq!(outcome(&session.on(failed(*output, "x"), now)), None);
        }
        let effects = session.on(failed(order[2], "last"), now);
        let failed = Outcome::Failed { code: Code::InvalidArgument, message: "last".to_owned() };
        assert_eq!(outcome(&effects), Some(&failed), "nothing is recorded yet: at once");
    }
}

#[test]
fn an_output_that_fails_while_it_drains_changes_the_outcome_only() {
    let now = Instant::now();
    let mut session = recording_to(2, now);
    session.on(SessionEvent::StopAsked(StopSource::Api), now);
    assert_eq!(session.on(failed(0, "a"), now), [noted("a")]);
    assert_eq!(session.on(SessionEvent::OutputFull { output: 1, message: "full".to_owned() }, now), []);
    assert_eq!(session.on(failed(1, "b"), now), []);
    let effects = session.on(ended(MediaEndReason::Stopped), now);
    let failed = Outcome::Failed { code: Code::InvalidArgument, message: "b".to_owned() };
    assert_eq!(effects, [SessionEffect::Finish(failed)]);
}

#[test]
fn outputs_that_were_asked_to_end_are_no_failure() {
    let now = Instant::now();
    let mut session = recording_to(2, now);
    let asked = |output| SessionEvent::OutputEnded { output, failure: None };
    assert_eq!(session.on(asked(1), now), []);
    assert_eq!(
        session.on(asked(0), now),
        [SessionEffect::StopMedia, SessionEffect::Report(Fact::Ending(EgressEndReason::StreamsStopped))]
    );
    assert_eq!(session.on(ended(MediaEndReason::Stopped), now), [SessionEffect::Finish(Outcome::Complete)]);
}

/// A file at 0, streams at 1.
fn with_streams(now: Instant) -> Session {
    let open = OpenOutputs { open: [0, 1].into(), streams: Some(1), ..OpenOutputs::default() };
    let mut session = Session::new(rules(), open, now);
    session.on(started(), now);
    session
}

#[test]
fn streams_that_fail_beside_a_file_leave_the_egress_well() {
    let now = Instant::now();
    let mut session = with_streams(now);
    assert_eq!(session.on(failed(1, "refused"), now), []);
    session.on(SessionEvent::StopAsked(StopSource::Api), now);
    assert_eq!(session.on(ended(MediaEndReason::Stopped), now), [SessionEffect::Finish(Outcome::Complete)]);

    // The last ones fail it, whatever came before.
    let mut session = with_streams(now);
    let effects = session.on(failed(0, "no space"), now);
    assert_eq!(effects[0], SessionEffect::CloseOutput(0));
    let unavailable = (Code::Unavailable, "refused".to_owned());
    let event = SessionEvent::OutputEnded { output: 1, failure: Some(unavailable) };
    let effects = session.on(event, now);
    assert_eq!(effects, [SessionEffect::StopMedia, SessionEffect::Report(Fact::Ending(EgressEndReason::Failure))]);
    let effects = session.on(ended(MediaEndReason::Stopped), now);
    let failed = Outcome::Failed { code: Code::Unavailable, message: "refused".to_owned() };
    assert_eq!(effects, [SessionEffect::Finish(failed)]);
}

#[test]
fn streams_that_come_back_keep_the_recording_going() {
    let now = Instant::now();
    let removed = || SessionEvent::OutputEnded { output: 1, failure: None };
    let mut session = with_streams(now);
    assert_eq!(session.on(removed(), now), []);
    assert_eq!(session.on(SessionEvent::OutputOpened { output: 1 }, now), []);
    let effects = session.on(failed(0, "no space"), now);
    assert_eq!(outcome(&effects), None);
    assert_eq!(
        session.on(removed(), now),
        [SessionEffect::StopMedia, SessionEffect::Report(Fact::Ending(EgressEndReason::StreamsStopped))]
    );
    let effects = session.on(ended(MediaEndReason::Stopped), now);
    assert!(matches!(outcome(&effects), Some(Outcome::Failed { .. })), "the file had failed");
}

#[test]
fn streams_without_a_url_are_not_waited_for() {
    let plan = |count| EgressPlan {
        egress_id: "EG_x".to_owned(),
        room_name: "room".to_owned(),
        room_id: String::new(),
        kind: spillway_plan::EgressKind::RoomComposite,
        source: spillway_plan::Source::Room,
        picture: None,
        sound: None,
        outputs: vec![spillway_plan::Output::Streams(StreamsOutput {
            protocol: spillway_plan::StreamProtocol::Rtmp,
            count,
        })],
        limits: spillway_plan::Limits::default(),
        retry_count: 0,
        sheets: None,
    };
    let streams = |open| OpenOutputs { open, streams: Some(0), ..OpenOutputs::default() };
    assert_eq!((OpenOutputs::of(&plan(0)), OpenOutputs::of(&plan(2))), (streams([].into()), streams([0].into())));
}

fn any_event() -> impl Strategy<Value = SessionEvent> {
    let text = || Just("message".to_owned());
    prop_oneof![
        Just(SessionEvent::StopAsked(StopSource::Api)),
        Just(SessionEvent::StopAsked(StopSource::Signal)),
        Just(SessionEvent::StopAsked(StopSource::Host)),
        text().prop_map(SessionEvent::MediaExited),
        Just(SessionEvent::WrongRoom),
        text().prop_map(SessionEvent::CannotWrite),
        (0u32..3, text()).prop_map(|(output, message)| SessionEvent::OutputFull { output, message }),
        (0u32..3).prop_map(|output| SessionEvent::OutputEnded { output, failure: None }),
        (0u32..3, text()).prop_map(|(output, message)| failed(output, &message)),
        (0u32..3).prop_map(media_failed),
        (0u32..3).prop_map(|output| SessionEvent::OutputOpened { output }),
        text().prop_map(SessionEvent::Noted),
        Just(SessionEvent::OwnershipLost),
        Just(SessionEvent::Tick),
        Just(SessionEvent::Tick),
        Just(started()),
        any::<u64>().prop_map(alive),
        (any::<u64>(), any::<u64>()).prop_map(|(end, media_ns)| SessionEvent::Media(MediaEvent::Wrote {
            file: 0,
            end,
            sealed_to: 0,
            media_ns
        })),
        text().prop_map(|what| SessionEvent::Media(MediaEvent::Waiting { what })),
        text().prop_map(|message| SessionEvent::Media(MediaEvent::Noted { message })),
        Just(ended(MediaEndReason::Stopped)),
        Just(ended(MediaEndReason::Evicted)),
        text().prop_map(|message| ended(MediaEndReason::SourceClosed { message })),
        text().prop_map(|message| ended(MediaEndReason::Full { message })),
        text().prop_map(|message| ended(MediaEndReason::Failed { code: "internal".to_owned(), message })),
    ]
}

proptest! {
    #[test]
    fn whatever_events_arrive_in_whatever_order_a_session_exits_at_most_once(
        events in prop::collection::vec((any_event(), 0u64..20_000), 0..80),
        hand_over in any::<bool>(),
    ) {
        let mut now = Instant::now();
        let mut session = resilient(joining(3, now));
        session.rules.hand_over = hand_over;
        let (mut finished, mut ending, mut active) = (0, 0, 0);
        for (event, later) in events {
            now += Duration::from_millis(later);
            for effect in session.on(event, now) {
                prop_assert_eq!(finished, 0, "{:?} after the end", effect);
                match effect {
                    SessionEffect::Finish(_) | SessionEffect::Leave | SessionEffect::HandOver(_) => finished += 1,
                    SessionEffect::Report(Fact::Ending(_)) => ending += 1,
                    SessionEffect::Report(Fact::Active { .. }) => active += 1,
                    _ => {}
                }
            }
            prop_assert_eq!(session.is_over(), finished == 1);
        }
        prop_assert!(ending <= 1 && active <= 1);
    }

    #[test]
    fn a_session_left_alone_always_ends(
        events in prop::collection::vec((any_event(), 0u64..2_000), 0..40),
    ) {
        let mut now = Instant::now();
        let mut session = joining(3, now);
        session.rules = SessionRules { max_duration: None, start_timeout: None, max_restarts: 3, ..rules() };
        for (event, later) in events {
            now += Duration::from_millis(later);
            session.on(event, now);
        }
        for _ in 0..60 {
            now += SECOND;
            session.on(SessionEvent::Tick, now);
        }
        prop_assert!(session.is_over());
    }
}
