//! The ledger against single facts and random sequences of them.

use proptest::prelude::*;

use super::*;
use crate::rpc::StartEgressRequest;
use crate::rpc::start_egress_request::EgressRequest;

fn start() -> StartEgressRequest {
    StartEgressRequest {
        egress_id: "EG_x".into(),
        room_id: "RM_x".into(),
        request: Some(EgressRequest::RoomComposite(livekit::RoomCompositeEgressRequest {
            room_name: "sales".into(),
            layout: "speaker".into(),
            file_outputs: vec![livekit::EncodedFileOutput::default()],
            ..Default::default()
        })),
        ..Default::default()
    }
}

fn opened() -> Fact {
    Fact::FileOpened { index: 0, filename: "a.mp4".into(), location: "/out/a.mp4".into() }
}

fn stored() -> Fact {
    Fact::FileStored { index: 0, size: 77, started_at: 1100, ended_at: 3100, location: "/out/a.mp4".into() }
}

/// Everything that came out, in order.
fn applied(facts: Vec<Fact>) -> (EgressLedger, Vec<livekit::EgressInfo>) {
    let mut ledger = EgressLedger::accept(&start(), 1000);
    let sent = (1001..).zip(facts).filter_map(|(at, fact)| ledger.on(fact, at)).collect();
    (ledger, sent)
}

#[test]
fn an_ordinary_recording() {
    let ledger = EgressLedger::accept(&start(), 1000);
    let info = ledger.info();
    assert_eq!(
        (info.status(), info.started_at, info.updated_at, info.ended_at),
        (EgressStatus::EgressStarting, 1000, 1000, 0)
    );
    assert_eq!((info.room_name.as_str(), info.room_id.as_str()), ("sales", "RM_x"));
    assert_eq!((info.source_type(), info.file_results.len()), (livekit::EgressSourceType::Web, 1));

    let (ledger, sent) = applied(vec![
        Fact::Waiting("waiting for the first track".into()),
        opened(),
        Fact::Active { started_at: 1100 },
        Fact::Ending(EgressEndReason::StopAsked),
        stored(),
        Fact::ManifestStored { location: "/out/EG_x.json".into() },
        Fact::Over(Outcome::Complete),
    ]);
    let statuses: Vec<_> = sent.iter().map(|info| info.status()).collect();
    use EgressStatus::*;
    assert_eq!(statuses, [EgressStarting, EgressActive, EgressEnding, EgressComplete]);
    assert_eq!(sent[0].details, "waiting for the first track");
    assert_eq!(sent[1].details, "");
    let last = ledger.info();
    assert_eq!((last.details.as_str(), last.error.as_str(), last.error_code), ("End reason: StopEgress API", "", 0));
    assert_eq!((last.ended_at, last.manifest_location.as_str()), (1007, "/out/EG_x.json"));
    let file = &last.file_results[0];
    assert_eq!(
        (file.filename.as_str(), file.size, file.duration, file.location.as_str()),
        ("a.mp4", 77, 2000, "/out/a.mp4")
    );
    #[expect(deprecated, reason = "clients of the single-output days still read it")]
    let Some(livekit::egress_info::Result::File(single)) = &last.result else { panic!() };
    assert_eq!(single, file);
}

#[test]
fn an_end_before_the_beginning_is_aborted() {
    for (facts, message, details) in [
        (
            vec![Fact::Ending(EgressEndReason::StopAsked), Fact::Over(Outcome::stopped_before_start())],
            "Stop called before pipeline could start",
            "End reason: StopEgress API",
        ),
        (
            vec![Fact::Waiting("waiting for ann".into()), Fact::Over(Outcome::Complete)],
            "Start signal not received",
            "End reason: Source closed; waiting for ann",
        ),
        (
            vec![Fact::Over(Outcome::LimitReached)],
            "Session limit reached before start signal",
            "End reason: Session limit reached",
        ),
    ] {
        let (ledger, _) = applied(facts);
        let info = ledger.info();
        assert_eq!((info.status(), info.error_code), (EgressStatus::EgressAborted, 412));
        assert_eq!((info.error.as_str(), info.details.as_str()), (message, details));
        assert_ne!(info.ended_at, 0);
    }
}

#[test]
fn a_limit_ends_when_it_was_reached_not_when_the_file_was_stored() {
    let (ledger, sent) = applied(vec![
        Fact::Active { started_at: 1000 },
        Fact::Ending(EgressEndReason::Limit),
        stored(),
        Fact::Over(Outcome::Complete),
    ]);
    let info = ledger.info();
    assert_eq!((info.status(), info.error_code, info.ended_at), (EgressStatus::EgressLimitReached, 413, 1002));
    assert_eq!(
        (info.error.as_str(), info.details.as_str()),
        ("Session limit reached", "End reason: Session limit reached")
    );
    assert_eq!(sent.len(), 3);
}

#[test]
fn a_failure_says_what_where_and_what_is_left() {
    let (ledger, sent) = applied(vec![
        opened(),
        Fact::Active { started_at: 1000 },
        Fact::Noted("reconnected to the room after 5.1 s".into()),
        Fact::Over(Outcome::Failed { code: Code::Internal, message: "signal: killed".into() }),
    ]);
    let info = ledger.info();
    assert_eq!(
        (info.status(), info.error.as_str(), info.error_code),
        (EgressStatus::EgressFailed, "signal: killed", 500)
    );
    assert_eq!(
        info.details,
        "End reason: Failure; reconnected to the room after 5.1 s; not finished properly: /out/a.mp4"
    );
    assert_eq!(info.file_results[0].location, "/out/a.mp4");
    assert_eq!(sent.len(), 3, "ACTIVE, the note, FAILED");
    let silent = applied(vec![Fact::Over(Outcome::Failed { code: Code::NotFound, message: String::new() })]).0;
    assert_eq!((silent.info().error.as_str(), silent.info().error_code), ("failed", 404));
}

#[test]
fn the_end_asked_for_while_the_first_media_was_on_its_way() {
    let (_, sent) = applied(vec![Fact::Ending(EgressEndReason::StopAsked), Fact::Active { started_at: 1000 }]);
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].status(), EgressStatus::EgressEnding);
}

#[test]
fn notes_are_bounded_and_said_once() {
    let mut ledger = EgressLedger::accept(&start(), 1000);
    for n in 0..40 {
        ledger.on(Fact::Noted(format!("note {}", n / 2)), 1000);
    }
    assert!(ledger.info().details.ends_with("note 11; and 16 more"), "{}", ledger.info().details);
}

#[test]
fn what_is_unfinished_is_known_to_a_salvage() {
    let (mut ledger, _) = applied(vec![opened()]);
    assert_eq!(ledger.unfinished().collect::<Vec<_>>(), [(0, "/out/a.mp4")]);
    ledger.on(stored(), 2000);
    assert_eq!(ledger.unfinished().count(), 0);
}

fn fact() -> impl Strategy<Value = Fact> {
    let message = "[a-c]{0,2}";
    prop_oneof![
        message.prop_map(Fact::Waiting),
        (message, message).prop_map(|(room_id, room_name)| Fact::Joined { room_id, room_name }),
        (0..3usize, message, message).prop_map(|(index, filename, location)| Fact::FileOpened {
            index,
            filename,
            location
        }),
        any::<i64>().prop_map(|started_at| Fact::Active { started_at }),
        prop_oneof![
            Just(EgressEndReason::StopAsked),
            Just(EgressEndReason::Limit),
            Just(EgressEndReason::SourceClosed),
            Just(EgressEndReason::Killed)
        ]
        .prop_map(Fact::Ending),
        (any::<usize>(), any::<u64>(), any::<i64>(), any::<i64>(), message).prop_map(
            |(index, size, started_at, ended_at, location)| Fact::FileStored {
                index: index % 4,
                size,
                started_at,
                ended_at,
                location
            }
        ),
        message.prop_map(Fact::Noted),
        result_fact(),
        stream_fact(),
        message.prop_map(|location| Fact::ManifestStored { location }),
        prop_oneof![
            Just(Outcome::Complete),
            Just(Outcome::LimitReached),
            message.prop_map(|message| Outcome::Aborted { message }),
            message.prop_map(|message| Outcome::Failed { code: Code::Unknown, message }),
        ]
        .prop_map(Fact::Over),
    ]
}

fn result_fact() -> impl Strategy<Value = Fact> {
    let (message, index) = ("[a-c]{0,2}", 0..3usize);
    prop_oneof![
        (index.clone(), message).prop_map(|(index, message)| Fact::FileFailed { index, message }),
        (index.clone(), any::<u64>()).prop_map(|(index, bytes)| Fact::FileProgress { index, bytes }),
        (index.clone(), message, proptest::option::of(message))
            .prop_map(|(index, playlist, live_playlist)| { Fact::SegmentsOpened { index, playlist, live_playlist } }),
        (index.clone(), any::<u64>(), any::<u64>(), any::<u64>()).prop_map(|(index, count, bytes, duration_ns)| {
            Fact::SegmentsProgress { index, count, bytes, duration_ns }
        }),
        (index.clone(), message, any::<i64>(), any::<i64>()).prop_map(
            |(index, playlist_location, started_at, ended_at)| Fact::SegmentsStored {
                index,
                playlist_location,
                live_location: None,
                started_at,
                ended_at
            }
        ),
        (index.clone(), message).prop_map(|(index, prefix)| Fact::ImagesOpened { index, prefix }),
        (index.clone(), any::<u64>()).prop_map(|(index, count)| Fact::ImagesProgress { index, count }),
        (index, any::<i64>(), any::<i64>()).prop_map(|(index, started_at, ended_at)| Fact::ImagesStored {
            index,
            started_at,
            ended_at
        }),
    ]
}

fn stream_fact() -> impl Strategy<Value = Fact> {
    let (message, id) = ("[a-c]{0,2}", 0..4u32);
    prop_oneof![
        (id.clone(), message).prop_map(|(id, key)| Fact::stream_added(id, &format!("rtmp://h/live/{key}"))),
        (id.clone(), any::<i64>()).prop_map(|(id, at)| Fact::StreamConnected { id, at }),
        (id.clone(), any::<i64>(), message).prop_map(|(id, at, message)| Fact::StreamRetried { id, at, message }),
        (id, any::<i64>(), proptest::option::of(message)).prop_map(|(id, at, failure)| Fact::StreamEnded {
            id,
            at,
            failure
        }),
    ]
}

/// A request with no output but a file, or with streams as well.
fn request(streams: usize) -> StartEgressRequest {
    let mut start = start();
    let Some(EgressRequest::RoomComposite(request)) = &mut start.request else { panic!() };
    if streams > 0 {
        let urls = (0..streams).map(|n| format!("rtmp://h/live/{n}")).collect();
        request.stream_outputs.push(livekit::StreamOutput { urls, ..Default::default() });
    }
    start
}

/// Streams of an info that are over: a stream ends once, and nothing changes it afterwards.
fn over(info: &livekit::EgressInfo) -> impl Iterator<Item = &livekit::StreamInfo> {
    info.stream_results.iter().filter(|stream| stream.status() != livekit::stream_info::Status::Active)
}

fn step(status: EgressStatus) -> u8 {
    match status {
        EgressStatus::EgressStarting => 0,
        EgressStatus::EgressActive => 1,
        EgressStatus::EgressEnding => 2,
        _ => 3,
    }
}

proptest! {
    #[test]
    fn there_is_one_end_whatever_the_order_of_facts(
        facts in proptest::collection::vec((fact(), any::<i64>()), 0..40), hand_over in any::<prop::sample::Index>(),
        streams in 0..3usize,
    ) {
        let mut ledger = EgressLedger::accept(&request(streams), 1000);
        let mut sent: Vec<livekit::EgressInfo> = Vec::new();
        let hand_over = hand_over.index(facts.len() + 1);
        for (n, (fact, at)) in facts.into_iter().enumerate() {
            if n == hand_over {
                // Another process goes on from here.
                let json = serde_json::to_string(&ledger).unwrap();
                let other: EgressLedger = serde_json::from_str(&json).unwrap();
                prop_assert_eq!(&other, &ledger);
                ledger = other;
            }
            let before = ledger.clone();
            let out = ledger.on(fact, at);
            if before.is_over() {
                prop_assert!(out.is_none());
                prop_assert_eq!(&before, &ledger);
            }
            prop_assert!(step(before.status()) <= step(ledger.status()));
            prop_assert_eq!(ledger.info().file_results.len(), ledger.files.len());
            prop_assert_eq!(ledger.info().stream_results.len(), ledger.streams.len());
            for stream in over(before.info()) {
                prop_assert!(ledger.info().stream_results.contains(stream));
            }
            for stream in over(ledger.info()) {
                let failed = stream.status() == livekit::stream_info::Status::Failed;
                prop_assert_eq!(failed, !stream.error.is_empty());
                prop_assert!(stream.started_at > 0 && stream.ended_at >= stream.started_at);
                prop_assert!((0..=stream.ended_at - stream.started_at).contains(&stream.duration));
            }
            sent.extend(out);
        }
        if ledger.is_over() {
            prop_assert_eq!(over(ledger.info()).count(), ledger.info().stream_results.len());
        }
        prop_assert!(sent.windows(2).all(|two| two[0].updated_at < two[1].updated_at || two[0].updated_at == i64::MAX));
        prop_assert!(sent.iter().filter(|info| step(info.status()) == 3).count() <= 1);
        for info in &sent {
            let over = step(info.status()) == 3;
            prop_assert_eq!(over, info.ended_at != 0);
            prop_assert!(!over || info.ended_at >= info.started_at);
            prop_assert_eq!(!info.error.is_empty(), over && info.status() != EgressStatus::EgressComplete);
        }
    }
}
