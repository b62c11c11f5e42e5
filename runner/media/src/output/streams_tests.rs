//! The frame around streams, with streams that go nowhere.

use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use bytes::Bytes;
use spillway_plan::Secret;

use super::*;
use crate::encoded::{EncodedUnit, MediaKind, StreamNumber};

const TIMEOUT: Duration = Duration::from_secs(10);

/// `null://count` says at its end how many frames came, in the text of a failure; `null://panic` panics;
/// `null://unread` takes nothing until the end.
pub(super) async fn null(context: StreamContext) -> StreamEnd {
    context.reporter.report(StreamEvent::Active);
    let mut frames = 0;
    match context.url.reveal().as_str() {
        "null://panic" => panic!("asked for"),
        "null://unread" => context.ring.ended().await,
        _ => {
            while context.ring.next().await.is_some() {
                frames += 1;
            }
        }
    }
    StreamEnd::unavailable(frames.to_string())
}

fn streams() -> (Streams, Receiver<(u32, StreamEvent)>) {
    let formats = [EncodedFormat::Aac { rate: 48_000, bitrate_kbps: 128 }];
    let (tell, events) = channel();
    let said = move |id, event| {
        let _ = tell.send((id, event));
    };
    let streams = Streams::start(formats.into(), &MediaSettings::default(), Arc::new(|| {}), Arc::new(said)).unwrap();
    (streams, events)
}

fn start(id: u32, url: &str) -> StreamStart {
    StreamStart { id, output: 0, url: Secret::new(url.to_owned()) }
}

fn sound(at_ms: u64) -> EncodedUnit {
    let data = Bytes::from_static(&[0; 300]);
    EncodedUnit {
        stream: StreamNumber(0),
        kind: MediaKind::Audio,
        key: true,
        at_ns: at_ms * 1_000_000,
        offset_ns: 0,
        duration_ns: 0,
        data,
    }
}

/// How stream `id` ended; what else is said is passed over.
fn end(events: &Receiver<(u32, StreamEvent)>, id: u32) -> StreamEnd {
    loop {
        if let (of, StreamEvent::Ended(end)) = events.recv_timeout(TIMEOUT).unwrap()
            && of == id
        {
            return end;
        }
    }
}

#[test]
fn streams_come_and_go_one_by_one() {
    let (mut streams, events) = streams();
    let first = streams.add(start(0, "null://count"));
    let second = streams.add(start(5, "NULL://count"));
    for at_ms in 0..10 {
        first.put(sound(at_ms));
        second.put(sound(at_ms));
    }
    streams.remove(0);
    streams.remove(77);
    assert_eq!(end(&events, 0), StreamEnd::unavailable("10".to_owned()));
    first.put(sound(10));
    second.put(sound(10));
    // The same id is the same stream, also when it has ended.
    assert!(Arc::ptr_eq(&first, &streams.add(start(0, "null://count"))));
    streams.remove(5);
    assert_eq!(end(&events, 5), StreamEnd::unavailable("11".to_owned()));
    assert!(events.recv_timeout(Duration::from_millis(50)).is_err());
    assert_eq!(streams.lags_ms().collect::<Vec<_>>(), [(0, 0), (5, 0)]);
}

#[test]
fn a_stream_that_fails_is_told_and_leaves_the_others() {
    let (mut streams, events) = streams();
    let good = streams.add(start(0, "null://count"));
    for (id, url) in [(1, "null://panic"), (2, "gopher://host/canary"), (3, "rtmp://host/canary")] {
        streams.add(start(id, url)).put(sound(0));
    }
    let codes = [1, 2, 3].map(|id| match end(&events, id) {
        StreamEnd::Failed { code, message } if !message.contains("canary") => code,
        other => panic!("{other:?}"),
    });
    assert_eq!(codes, ["internal", "unimplemented", "invalid_argument"]);
    good.put(sound(0));
    streams.remove(0);
    assert_eq!(end(&events, 0), StreamEnd::unavailable("1".to_owned()));
}

#[test]
fn a_drop_waits_for_no_stream() {
    let (mut streams, events) = streams();
    streams.add(start(0, "null://unread")).put(sound(0));
    assert_eq!(events.recv_timeout(TIMEOUT).unwrap(), (0, StreamEvent::Active));
    drop(streams);
    assert!(events.recv_timeout(Duration::from_millis(50)).is_err());
}

#[test]
fn a_stream_begins_with_its_first_frame() {
    let (mut streams, events) = streams();
    streams.add(start(0, "null://count"));
    assert!(events.recv_timeout(Duration::from_millis(50)).is_err());
    streams.remove(0);
    assert_eq!(events.recv_timeout(TIMEOUT).unwrap(), (0, StreamEvent::Ended(StreamEnd::Finished)));
}
