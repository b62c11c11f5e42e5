//! A dump gives the same events as the room did.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::super::dump::{Dump, DumpItem, DumpRecord};
use super::*;
use crate::receive::event::{PayloadFormat, Publication, RoomEvent};
use crate::receive::{ReceiveOptions, TrackReceiver};
use crate::track::{Codec, TimelineEvent, TrackSource};
use crate::units::{RtpTime, SeqNo, Ssrc};

const OPTIONS: ReceiveOptions =
    ReceiveOptions { reorder_wait: Duration::from_millis(500), late: Duration::from_millis(500) };

/// A minute of sound with holes, a report every three seconds, a mute and a publication that ends.
fn a_minute() -> Vec<DumpRecord> {
    let publication = Publication {
        sid: "TR_a".to_owned(),
        identity: "alice".to_owned(),
        agent: false,
        side: spillway_plan::StereoSide::Both,
        origin: TrackSource::Microphone,
        size: (0, 0),
        muted: false,
    };
    let form = PayloadFormat { codec: Codec::Opus, clock_rate: 48_000, channels: 2 };
    let mut records =
        vec![DumpRecord::new(Duration::ZERO, DumpItem::Event(RoomEvent::Opened { stream: Ssrc::new(1), publication }))];
    for n in 0..3000u64 {
        let at = Duration::from_millis(20 * n + n * n % 7);
        if n % 31 != 5 && !(1000..1200).contains(&n) {
            let payload = Bytes::from(vec![0x78, n as u8, (n >> 8) as u8]);
            let packet = RoomEvent::Packet {
                stream: Ssrc::new(1),
                seq: SeqNo::new(70_000 + n),
                rtp: RtpTime::new((1 << 32) + 960 * n),
                marker: false,
                form,
                payload,
            };
            records.push(DumpRecord::new(at, DumpItem::Event(packet)));
        }
        if n == 1000 || n == 1200 {
            records.push(DumpRecord::new(
                at,
                DumpItem::Event(RoomEvent::Muted { sid: "TR_a".to_owned(), muted: n == 1000 }),
            ));
        }
        if n % 150 == 99 {
            let report = RoomEvent::Report {
                stream: Ssrc::new(1),
                rtp: (960 * n) as u32,
                ntp: 1_700_000_000_000_000_000 + 20_000_000 * n as i64,
            };
            records.push(DumpRecord::new(at, DumpItem::Event(report)));
        }
        records.push(DumpRecord::new(at, DumpItem::Tick));
    }
    records.push(DumpRecord::new(Duration::from_secs(60), DumpItem::Event(RoomEvent::Left { sid: "TR_a".to_owned() })));
    records.push(DumpRecord::new(Duration::from_secs(61), DumpItem::Finish));
    records
}

#[test]
fn a_dump_gives_the_same_stream_as_the_room_did_and_faster() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("minute.dump");
    let mut dump = Dump::create(&path).expect("a dump");
    let mut live = TrackReceiver::new(OPTIONS);
    let mut expected = Vec::new();
    for record in a_minute() {
        dump.keep(&record).expect("kept");
        let at = record.at();
        match record.what {
            DumpItem::Event(arrival) => live.push(arrival, at),
            DumpItem::Tick => live.tick(at),
            DumpItem::Finish => live.finish(at),
        }
        expected.extend(live.drain());
    }
    dump.finish().expect("flushed");
    let began = Instant::now();
    let mut replay = Replay::open(&path, OPTIONS).expect("a dump");
    let mut got = Vec::new();
    let mut ended = false;
    while let Some(delivery) = replay.recv() {
        match delivery {
            RoomMessage::TimelineEvent(timed) => got.push(timed),
            RoomMessage::Ended(why) => ended = why == MediaEndReason::Stopped,
            _ => {}
        }
    }
    assert!(ended);
    assert!(got == expected, "{} of {} said", got.len(), expected.len());
    for kind in ["Joined", "Lost", "Muted", "Left", "Watermark"] {
        assert!(got.iter().any(|timed| format!("{timed:?}").starts_with(kind)), "no {kind}");
    }
    assert_eq!(got.iter().filter(|timed| matches!(timed, TimelineEvent::Frame(_))).count(), 3000 - 97 - 200 + 6);
    assert!(began.elapsed() < Duration::from_secs(30), "twice as fast as real time even here");
}

#[test]
fn a_dump_cut_short_ends_where_it_was_cut() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("cut.dump");
    let mut dump = Dump::create(&path).expect("a dump");
    for record in a_minute() {
        dump.keep(&record).expect("kept");
    }
    dump.finish().expect("flushed");
    let bytes = std::fs::read(&path).expect("bytes");
    std::fs::write(&path, &bytes[..bytes.len() / 2 + 3]).expect("cut");
    let mut replay = Replay::open(&path, OPTIONS).expect("a dump");
    let last = std::iter::from_fn(|| replay.recv()).last();
    assert_eq!(last, Some(RoomMessage::Ended(MediaEndReason::Stopped)));
}
