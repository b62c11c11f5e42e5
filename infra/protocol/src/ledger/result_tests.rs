//! Results of every kind: what a request gets from the beginning, what each fact does to it, and the end.

use livekit::stream_info::Status;
use prost::Message;

use super::*;
use crate::rpc::StartEgressRequest;
use crate::rpc::start_egress_request::EgressRequest;

const SECOND: i64 = 1_000_000_000;
const CANARY: &str = "canary-canary-canary";

fn streams(urls: &[&str]) -> livekit::StreamOutput {
    livekit::StreamOutput { protocol: 0, urls: urls.iter().map(|url| (*url).to_owned()).collect() }
}

fn participant() -> livekit::ParticipantEgressRequest {
    livekit::ParticipantEgressRequest { room_name: "sales".into(), identity: "ann".into(), ..Default::default() }
}

fn start(request: EgressRequest) -> StartEgressRequest {
    StartEgressRequest { egress_id: "EG_x".into(), request: Some(request), ..Default::default() }
}

/// One file, one segment output, two image outputs and two streams, accepted at 1000.
fn everything() -> EgressLedger {
    let request = livekit::ParticipantEgressRequest {
        file_outputs: vec![livekit::EncodedFileOutput::default()],
        segment_outputs: vec![livekit::SegmentedFileOutput::default()],
        image_outputs: vec![
            livekit::ImageOutput { filename_prefix: "shot/{room_name}".into(), ..Default::default() },
            livekit::ImageOutput::default(),
        ],
        stream_outputs: vec![streams(&["rtmp://one/live/abcdefghi", "rtmp://two/live/abcdefghi"])],
        ..participant()
    };
    EgressLedger::accept(&start(EgressRequest::Participant(request)), 1000)
}

/// ACTIVE since 2000.
fn active() -> EgressLedger {
    let mut ledger = everything();
    ledger.on(Fact::Active { started_at: 2000 }, 2001);
    ledger
}

fn ended(id: u32, at: i64, failure: Option<&str>) -> Fact {
    Fact::StreamEnded { id, at, failure: failure.map(str::to_owned) }
}

fn retried(id: u32, at: i64) -> Fact {
    Fact::StreamRetried { id, at, message: "connection reset".into() }
}

fn failed() -> Fact {
    Fact::Over(Outcome::Failed { code: Code::Unavailable, message: "no more room".into() })
}

#[test]
fn every_output_has_a_result_from_the_beginning() {
    let ledger = everything();
    let info = ledger.info();
    assert_eq!((info.file_results.len(), info.segment_results.len()), (1, 1));
    let prefixes: Vec<_> = info.image_results.iter().map(|images| images.filename_prefix.as_str()).collect();
    assert_eq!(prefixes, ["shot/{room_name}", ""]);
    let expected = ["rtmp://one/live/{abc...ghi}", "rtmp://two/live/{abc...ghi}"]
        .map(|url| livekit::StreamInfo { url: url.into(), ..Default::default() });
    assert_eq!(info.stream_results, expected);
    assert_eq!(info.stream_results[0].status(), Status::Active);
    assert_eq!(info.result, None, "more than one output");
}

#[test]
#[expect(deprecated, reason = "clients of the single-output days still read it")]
fn the_single_result_is_there_for_one_output_of_one_kind() {
    use livekit::egress_info::Result::{File, Segments, Stream};
    use livekit::room_composite_egress_request::Output;
    let room = |output: Option<Output>| livekit::RoomCompositeEgressRequest { output, ..Default::default() };
    let stream = || streams(&["rtmp://h/a/key", "rtmp://h/a/other"]);
    let image = livekit::ImageOutput::default;
    let second_api = |configs: Vec<livekit::output::Config>| {
        let outputs = configs.into_iter().map(|config| livekit::Output { config: Some(config), storage: None });
        EgressRequest::Egress(livekit::StartEgressRequest { outputs: outputs.collect(), ..Default::default() })
    };
    let track = |output| EgressRequest::Track(livekit::TrackEgressRequest { output, ..Default::default() });
    // Files, segments, images, URLs; kind of the single result.
    let cases: Vec<(EgressRequest, [usize; 4], &str)> = vec![
        (EgressRequest::RoomComposite(room(Some(Output::File(Default::default())))), [1, 0, 0, 0], "file"),
        (EgressRequest::RoomComposite(room(Some(Output::Segments(Default::default())))), [0, 1, 0, 0], "segments"),
        (EgressRequest::RoomComposite(room(Some(Output::Stream(stream())))), [0, 0, 0, 2], "stream"),
        (
            // The list counts, and the single output of the same kind does not.
            EgressRequest::RoomComposite(livekit::RoomCompositeEgressRequest {
                stream_outputs: vec![streams(&["rtmp://h/a/third"])],
                ..room(Some(Output::Stream(stream())))
            }),
            [0, 0, 0, 1],
            "stream",
        ),
        (
            EgressRequest::RoomComposite(livekit::RoomCompositeEgressRequest {
                stream_outputs: vec![streams(&[])],
                ..room(Some(Output::File(Default::default())))
            }),
            [1, 0, 0, 0],
            "",
        ),
        (
            EgressRequest::Participant(livekit::ParticipantEgressRequest {
                image_outputs: vec![image()],
                ..participant()
            }),
            [0, 0, 1, 0],
            "",
        ),
        (
            EgressRequest::TrackComposite(livekit::TrackCompositeEgressRequest {
                file_outputs: vec![livekit::EncodedFileOutput::default(), livekit::EncodedFileOutput::default()],
                ..Default::default()
            }),
            [2, 0, 0, 0],
            "",
        ),
        (
            // One URL twice is one stream.
            EgressRequest::Web(livekit::WebEgressRequest {
                stream_outputs: vec![streams(&["rtmp://h/a/key", "rtmp://h/a/other", "rtmp://h/a/key"])],
                ..Default::default()
            }),
            [0, 0, 0, 2],
            "stream",
        ),
        (
            track(Some(livekit::track_egress_request::Output::WebsocketUrl("wss://h/audio".into()))),
            [0, 0, 0, 1],
            "stream",
        ),
        (track(Some(livekit::track_egress_request::Output::File(Default::default()))), [1, 0, 0, 0], "file"),
        (track(None), [0, 0, 0, 0], ""),
        (second_api(vec![livekit::output::Config::Segments(Default::default())]), [0, 1, 0, 0], "segments"),
        (
            second_api(vec![livekit::output::Config::Images(image()), livekit::output::Config::Stream(stream())]),
            [0, 0, 1, 2],
            "",
        ),
    ];
    for (request, counts, single) in cases {
        let ledger = EgressLedger::accept(&start(request.clone()), 1000);
        let info = ledger.info();
        let lists =
            [info.file_results.len(), info.segment_results.len(), info.image_results.len(), info.stream_results.len()];
        let found = match &info.result {
            Some(File(_)) => "file",
            Some(Segments(_)) => "segments",
            Some(Stream(list)) => {
                assert_eq!(list.info, info.stream_results);
                "stream"
            }
            None => "",
        };
        assert_eq!((lists, found), (counts, single), "{request:?}");
        assert_eq!(stream_urls(&request).len(), counts[3]);
    }
}

#[test]
fn the_single_result_follows_the_facts() {
    let request =
        livekit::ParticipantEgressRequest { stream_outputs: vec![streams(&["rtmp://h/a/k"])], ..participant() };
    let mut ledger = EgressLedger::accept(&start(EgressRequest::Participant(request)), 1000);
    ledger.on(Fact::stream_added(1, "rtmp://h/a/second"), 1001);
    ledger.on(Fact::StreamConnected { id: 1, at: 1002 }, 1002);
    #[expect(deprecated, reason = "clients of the single-output days still read it")]
    let Some(livekit::egress_info::Result::Stream(list)) = &ledger.info().result else { panic!() };
    assert_eq!((list.info.len(), list.info[1].started_at), (2, 1002));
}

#[test]
fn what_each_fact_changes_and_whether_it_is_sent() {
    type Case = (&'static str, Vec<Fact>, bool, fn(&livekit::EgressInfo));
    let cases: Vec<Case> = vec![
        (
            "segments are opened",
            vec![Fact::SegmentsOpened { index: 0, playlist: "a.m3u8".into(), live_playlist: Some("live.m3u8".into()) }],
            false,
            |info| {
                let segments = &info.segment_results[0];
                assert_eq!(segments.playlist_name, "a.m3u8");
                assert_eq!((segments.live_playlist_name.as_str(), segments.started_at), ("live.m3u8", 2000));
            },
        ),
        (
            "segments grow",
            vec![
                Fact::SegmentsProgress { index: 0, count: 1, bytes: 700, duration_ns: 4000 },
                Fact::SegmentsProgress { index: 0, count: 2, bytes: u64::MAX, duration_ns: 8000 },
            ],
            false,
            |info| {
                let segments = &info.segment_results[0];
                assert_eq!((segments.segment_count, segments.size, segments.duration), (2, i64::MAX, 8000));
                assert_eq!(segments.ended_at, 0);
            },
        ),
        (
            "segments are stored",
            vec![
                Fact::SegmentsProgress { index: 0, count: 2, bytes: 9, duration_ns: 7000 },
                Fact::SegmentsStored {
                    index: 0,
                    playlist_location: "https://s/a.m3u8".into(),
                    live_location: None,
                    started_at: 2100,
                    ended_at: 10_100,
                },
            ],
            false,
            |info| {
                let segments = &info.segment_results[0];
                assert_eq!(segments.playlist_location, "https://s/a.m3u8");
                assert_eq!(segments.live_playlist_location, "");
                assert_eq!((segments.started_at, segments.ended_at, segments.duration), (2100, 10_100, 8000));
                assert_eq!((segments.segment_count, segments.size), (2, 9));
            },
        ),
        ("images are opened", vec![Fact::ImagesOpened { index: 0, prefix: "shot/sales".into() }], false, |info| {
            let images = &info.image_results[0];
            assert_eq!((images.filename_prefix.as_str(), images.started_at), ("shot/sales", 2000));
        }),
        (
            "images are stored",
            vec![
                Fact::ImagesProgress { index: 1, count: 3 },
                Fact::ImagesStored { index: 1, started_at: 2100, ended_at: 2000 },
            ],
            false,
            |info| {
                let images = &info.image_results[1];
                assert_eq!((images.image_count, images.started_at, images.ended_at), (3, 2100, 2100));
                assert_eq!(info.image_results[0].image_count, 0);
            },
        ),
        ("a stream is added", vec![Fact::stream_added(2, "rtmp://three/live/abcdefghi")], true, |info| {
            let stream = &info.stream_results[2];
            assert_eq!((stream.url.as_str(), stream.started_at), ("rtmp://three/live/{abc...ghi}", 0));
            assert_eq!(stream.status(), Status::Active);
        }),
        ("a known stream is added", vec![Fact::stream_added(1, "rtmp://two/live/abcdefghi")], false, |info| {
            assert_eq!(info.stream_results.len(), 2);
        }),
        (
            "a known stream is shown in another form",
            vec![Fact::stream_added(1, "rtmps://resolved:443/app/abcdefghi")],
            true,
            |info| assert_eq!(info.stream_results[1].url, "rtmps://resolved:443/app/{abc...ghi}"),
        ),
        (
            "streams are in the order of their ids",
            vec![Fact::stream_added(9, "srt://nine"), Fact::stream_added(4, "srt://four")],
            true,
            |info| {
                let urls: Vec<_> = info.stream_results.iter().skip(2).map(|stream| stream.url.as_str()).collect();
                assert_eq!(urls, ["srt://four", "srt://nine"]);
            },
        ),
        ("a stream connects", vec![Fact::StreamConnected { id: 1, at: 2500 }], true, |info| {
            assert_eq!((info.stream_results[0].started_at, info.stream_results[1].started_at), (0, 2500));
        }),
        ("a stream that is not known", vec![Fact::StreamConnected { id: 7, at: 2500 }], false, |info| {
            assert_eq!(info.stream_results.len(), 2);
        }),
        ("a stream is lost", vec![Fact::StreamConnected { id: 1, at: 2500 }, retried(1, 2600)], true, |info| {
            let stream = &info.stream_results[1];
            assert_eq!((stream.retries, stream.last_retry_at, stream.started_at), (1, 2600, 2500));
            assert_eq!((stream.error.as_str(), stream.status()), ("connection reset", Status::Active));
        }),
        (
            "a stream is back",
            vec![
                Fact::StreamConnected { id: 1, at: 2500 },
                retried(1, 2600),
                Fact::StreamConnected { id: 1, at: 2700 },
            ],
            true,
            |info| {
                let stream = &info.stream_results[1];
                assert_eq!((stream.retries, stream.started_at, stream.error.as_str()), (1, 2500, ""));
            },
        ),
        (
            "a stream is removed",
            vec![Fact::StreamConnected { id: 0, at: 2500 }, retried(0, 2600), ended(0, 2900, None)],
            true,
            |info| {
                let stream = &info.stream_results[0];
                assert_eq!((stream.status(), stream.error.as_str()), (Status::Finished, ""));
                assert_eq!((stream.started_at, stream.ended_at, stream.duration), (2500, 2900, 400));
            },
        ),
        ("a stream never connects", vec![ended(1, 2900, Some("refused"))], true, |info| {
            let stream = &info.stream_results[1];
            assert_eq!((stream.status(), stream.error.as_str()), (Status::Failed, "refused"));
            assert_eq!((stream.started_at, stream.ended_at, stream.duration), (1000, 2900, 0));
            assert_eq!((info.status(), info.error.as_str()), (EgressStatus::EgressActive, ""));
        }),
        ("a failure without a text", vec![ended(1, 2900, Some(""))], true, |info| {
            assert_eq!(info.stream_results[1].error, "failed");
        }),
        (
            "a stream that failed stays so",
            vec![
                ended(1, 2900, Some("refused")),
                Fact::stream_added(1, "srt://other"),
                retried(1, 3000),
                ended(1, 3000, None),
                Fact::StreamConnected { id: 1, at: 3000 },
            ],
            false,
            |info| {
                let stream = &info.stream_results[1];
                assert_eq!((stream.status(), stream.error.as_str()), (Status::Failed, "refused"));
                assert_eq!((stream.retries, stream.ended_at), (0, 2900));
                assert_eq!(stream.url, "rtmp://two/live/{abc...ghi}");
            },
        ),
        ("a file grows", vec![Fact::FileProgress { index: 0, bytes: 700 }], false, |info| {
            let file = &info.file_results[0];
            assert_eq!((file.size, file.duration, file.ended_at), (700, 0, 0));
        }),
        (
            "a file that is stored does not grow",
            vec![
                Fact::FileStored { index: 0, size: 77, started_at: 1100, ended_at: 3100, location: "/a.mp4".into() },
                Fact::FileProgress { index: 0, bytes: 700 },
            ],
            false,
            |info| assert_eq!(info.file_results[0].size, 77),
        ),
        (
            "a further file, after a change of codec or a death",
            vec![Fact::FileOpened { index: 3, filename: "a-2.mp4".into(), location: "/a-2.mp4".into() }],
            true,
            |info| {
                assert_eq!((info.file_results[3].filename.as_str(), info.file_results[3].started_at), ("a-2.mp4", 3000))
            },
        ),
        ("a file fails alone", vec![Fact::FileFailed { index: 0, message: "a.mp4: no space".into() }], false, |info| {
            assert_eq!((info.status(), info.error.as_str()), (EgressStatus::EgressActive, ""))
        }),
        (
            "an index beyond the bound",
            vec![
                Fact::ImagesProgress { index: usize::MAX, count: 1 },
                Fact::SegmentsProgress { index: 1000, count: 1, bytes: 1, duration_ns: 1 },
            ],
            false,
            |info| assert_eq!((info.image_results.len(), info.segment_results.len()), (2, 1)),
        ),
    ];
    for (name, facts, last_is_sent, check) in cases {
        println!("{name}");
        let mut ledger = active();
        let sent: Vec<bool> = (3000..).zip(facts).map(|(at, fact)| ledger.on(fact, at).is_some()).collect();
        assert_eq!(sent.last(), Some(&last_is_sent));
        check(ledger.info());
    }
}

#[test]
fn progress_goes_out_with_other_updates_only() {
    let mut ledger = everything();
    ledger.on(Fact::Active { started_at: 2000 }, SECOND);
    for second in 2..=200u64 {
        let progress = [
            Fact::FileProgress { index: 0, bytes: 100 * second },
            Fact::SegmentsProgress { index: 0, count: second / 4, bytes: 90 * second, duration_ns: second },
            Fact::ImagesProgress { index: 1, count: second / 5 },
        ];
        for fact in progress {
            assert_eq!(ledger.on(fact, second as i64 * SECOND), None, "a webhook would be called for it");
        }
    }
    let update = ledger.on(Fact::Noted("p0 left".into()), 201 * SECOND).unwrap();
    assert_eq!((update.status(), update.file_results[0].size), (EgressStatus::EgressActive, 20_000));
    assert_eq!((update.segment_results[0].segment_count, update.image_results[1].image_count), (50, 40));
    ledger.on(Fact::Over(Outcome::Complete), 301 * SECOND);
    assert_eq!(ledger.info().file_results[0].size, 0, "nothing was stored");
}

#[test]
fn retries_are_told_once_a_minute_and_their_end_only_if_they_were() {
    let mut ledger = active();
    let sent = |ledger: &mut EgressLedger, fact: Fact, at: i64| ledger.on(fact, at).is_some();
    let connected = |at| Fact::StreamConnected { id: 0, at };
    assert!(sent(&mut ledger, connected(SECOND), SECOND));
    // A connection that is lost each second for two minutes.
    let mut updates = 0;
    for second in 1..=120 {
        let at = second * SECOND;
        updates += u32::from(sent(&mut ledger, retried(0, at), at));
        updates += u32::from(sent(&mut ledger, connected(at), at));
    }
    assert_eq!(updates, 4, "two losses and their ends");
    assert_eq!(ledger.info().stream_results[0].retries, 120);
    // Another stream has a minute of its own.
    let at = 120 * SECOND + 1;
    assert!(sent(&mut ledger, retried(1, at), at));
    // An update for another reason showed the loss, so its end is told.
    assert!(!sent(&mut ledger, retried(0, at), at));
    assert!(sent(&mut ledger, Fact::Noted("a gap".into()), at));
    assert!(sent(&mut ledger, connected(at), at));
    // A clock that steps back does not silence it for long.
    assert!(sent(&mut ledger, retried(0, 1000), 1000));
}

#[test]
fn the_end_of_the_egress_ends_every_stream() {
    let reached = (EgressEndReason::Limit, 5000);
    for (ending, outcome, status, error, ended_at) in [
        ((EgressEndReason::StopAsked, 5000), Fact::Over(Outcome::Complete), Status::Finished, "", 6000),
        (reached, Fact::Over(Outcome::Complete), Status::Finished, "", 5000),
        (reached, failed(), Status::Failed, "no more room", 6000),
        ((EgressEndReason::Failure, 5000), failed(), Status::Failed, "no more room", 6000),
    ] {
        let mut ledger = active();
        ledger.on(Fact::StreamConnected { id: 0, at: 2500 }, 2500);
        ledger.on(Fact::stream_added(2, "srt://three"), 2600);
        ledger.on(ended(1, 2700, Some("refused")), 2700);
        ledger.on(Fact::Ending(ending.0), ending.1);
        let last = ledger.on(outcome, 6000).expect("the last update");
        let [first, second, third] = last.stream_results.as_slice() else { panic!("{last:?}") };
        assert_eq!((first.status(), first.error.as_str(), first.ended_at), (status, error, ended_at));
        assert_eq!((first.started_at, first.duration), (2500, ended_at - 2500));
        assert_eq!((second.status(), second.error.as_str(), second.ended_at), (Status::Failed, "refused", 2700));
        assert_eq!((third.status(), third.started_at, third.ended_at), (status, 2600, ended_at));
        assert_eq!(third.duration, 0, "it never connected");
    }
    let mut aborted = everything();
    let last = aborted.on(Fact::Over(Outcome::stopped_before_start()), 6000).expect("the last update");
    assert_eq!(last.status(), EgressStatus::EgressAborted);
    assert!(last.stream_results.iter().all(|stream| stream.status() == Status::Finished && stream.ended_at == 6000));
}

#[test]
fn a_server_that_closes_before_we_do_is_no_failure() {
    let mut ledger = active();
    ledger.on(Fact::StreamConnected { id: 0, at: 2500 }, 2500);
    ledger.on(Fact::Ending(EgressEndReason::StopAsked), 5000);
    // It goes out with the terminal update.
    assert_eq!(ledger.on(ended(0, 5100, Some("connection reset")), 5100), None);
    let last = ledger.on(Fact::Over(Outcome::Complete), 9000).expect("the last update");
    let stream = &last.stream_results[0];
    assert_eq!((stream.status(), stream.error.as_str(), stream.ended_at), (Status::Finished, "", 5100));

    let mut ledger = active();
    ledger.on(Fact::Ending(EgressEndReason::Failure), 5000);
    ledger.on(ended(0, 5100, Some("connection reset")), 5100);
    assert_eq!(ledger.info().stream_results[0].status(), Status::Failed);
}

#[test]
fn an_egress_that_lost_a_file_does_not_complete() {
    let lost = |message: &str| Fact::FileFailed { index: 0, message: message.into() };
    for (ending, over) in [
        (EgressEndReason::StopAsked, Outcome::Complete),
        (EgressEndReason::Limit, Outcome::Complete),
        (EgressEndReason::Limit, Outcome::LimitReached),
    ] {
        let mut ledger = active();
        ledger.on(lost("a.mp4: no space"), 3000);
        ledger.on(lost("a.mp4: and more"), 3001);
        ledger.on(Fact::Ending(ending), 3002);
        let stored =
            Fact::FileStored { index: 0, size: 7, started_at: 2000, ended_at: 2900, location: "/out/a.mp4".into() };
        ledger.on(stored, 3003);
        let last = ledger.on(Fact::Over(over), 3004).expect("the last update");
        assert_eq!((last.status(), last.error.as_str()), (EgressStatus::EgressFailed, "a.mp4: no space"));
        assert_eq!(last.details, format!("End reason: {}", ending.message()));
        assert_eq!(last.file_results[0].size, 7, "what is kept");
    }
    // Its own text is better than ours.
    let mut ledger = active();
    ledger.on(lost("a.mp4: no space"), 3000);
    ledger.on(failed(), 3001);
    assert_eq!((ledger.info().error.as_str(), ledger.info().error_code), ("no more room", 503));
    let mut ledger = everything();
    ledger.on(lost("a.mp4: no space"), 3000);
    ledger.on(Fact::Over(Outcome::Complete), 3001);
    assert_eq!(ledger.status(), EgressStatus::EgressAborted, "nothing was recorded");
}

#[test]
fn no_key_of_a_stream_is_in_an_info_or_in_the_stored_ledger() {
    let url = |n: u32| match n {
        0 => format!("rtmp://host/live/{CANARY}"),
        1 => format!("srt://host:99?streamid={CANARY}&passphrase={CANARY}"),
        2 => format!("wss://me:{CANARY}@host/audio?token={CANARY}"),
        3 => format!("mux://{CANARY}"),
        4 => format!("rtmps://host/live/{CANARY}?sign={CANARY} live=1"),
        _ => CANARY.to_owned(),
    };
    let clean = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes);
        assert!(!text.contains(CANARY), "{text}");
    };
    let requested = [url(0), url(1), url(2)];
    let requested: Vec<&str> = requested.iter().map(String::as_str).collect();
    let request = livekit::ParticipantEgressRequest { stream_outputs: vec![streams(&requested)], ..participant() };
    let mut ledger = EgressLedger::accept(&start(EgressRequest::Participant(request)), 1000);
    clean(&ledger.info().encode_to_vec());
    let facts = (0..6).flat_map(|id| {
        let added = Fact::stream_added(id, &url(id));
        clean(format!("{added:?}").as_bytes());
        [added, Fact::StreamConnected { id, at: 1001 }, retried(id, 1002), ended(id, 1003, Some("lost"))]
    });
    for fact in facts.chain([Fact::Active { started_at: 1000 }, failed()]) {
        if let Some(info) = ledger.on(fact, 1001) {
            clean(&info.encode_to_vec());
        }
        clean(&ledger.info().encode_to_vec());
        clean(serde_json::to_string(&ledger).unwrap().as_bytes());
        clean(format!("{ledger:?}").as_bytes());
    }
    assert_eq!(ledger.info().stream_results.len(), 6);
}

/// Of the version before results of other kinds than files.
const STORED_BEFORE: &str = include_str!("../../tests/ledger-ac07b2e.json");

#[test]
fn a_ledger_of_the_version_before_is_read_and_goes_on() {
    let text = STORED_BEFORE.trim_end();
    let mut ledger: EgressLedger = serde_json::from_str(text).unwrap();
    // It is stored as it was, so that version reads what this one writes.
    assert_eq!(serde_json::to_string(&ledger).unwrap(), text);
    assert_eq!((ledger.status(), ledger.info().room_name.as_str()), (EgressStatus::EgressActive, "sales"));
    assert_eq!(ledger.unfinished().collect::<Vec<_>>(), [(0, "/out/a.mp4")]);

    let mut streaming = ledger.clone();
    assert!(streaming.on(Fact::stream_added(0, "rtmp://h/live/abcdefghi"), 2000).is_some());
    assert!(streaming.on(Fact::StreamConnected { id: 0, at: 2001 }, 2001).is_some());

    let stored =
        Fact::FileStored { index: 0, size: 77, started_at: 1100, ended_at: 3100, location: "/out/a.mp4".into() };
    ledger.on(stored, 4000);
    let last = ledger.on(Fact::Over(Outcome::Complete), 4001).expect("the last update");
    assert_eq!((last.status(), last.ended_at), (EgressStatus::EgressComplete, 4001));
    assert_eq!((last.file_results[0].size, last.file_results[0].duration), (77, 2000));
    assert_eq!(last.details, "End reason: Source closed; reconnected to the room after 5.1 s");
}

#[test]
fn streams_survive_a_process_of_the_version_before() {
    let mut ledger = active();
    ledger.on(Fact::StreamConnected { id: 1, at: 2500 }, 2500);
    let mut json: serde_json::Value = serde_json::to_value(&ledger).unwrap();
    // That version keeps the info and drops what it does not know.
    json.as_object_mut().unwrap().remove("streams").unwrap();
    let mut ledger: EgressLedger = serde_json::from_value(json).unwrap();
    assert!(ledger.on(ended(1, 2600, None), 2600).is_some());
    ledger.on(Fact::Over(Outcome::Complete), 3000);
    let [first, second] = ledger.info().stream_results.as_slice() else { panic!() };
    assert_eq!((second.started_at, second.ended_at, second.duration), (2500, 2600, 100));
    assert_eq!((first.started_at, first.ended_at, first.status()), (1000, 3000, Status::Finished));
}
