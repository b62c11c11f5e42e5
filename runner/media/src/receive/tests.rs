//! Packets, reports and mutes of two tracks through the whole receiver.

use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::receive::event::PayloadFormat;
use crate::receive::placement::BEYOND_HOPE;
use crate::track::{Codec, Frame};
use crate::units::{MediaTime, RtpTime, SeqNo};

const VIDEO: Ssrc = Ssrc::new(11);
const SOUND: Ssrc = Ssrc::new(22);
const VP8: PayloadFormat = PayloadFormat { codec: Codec::Vp8, clock_rate: 90_000, channels: 0 };
const OPUS: PayloadFormat = PayloadFormat { codec: Codec::Opus, clock_rate: 48_000, channels: 2 };

fn options() -> ReceiveOptions {
    ReceiveOptions { reorder_wait: ms(500), late: ms(500) }
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn publication(sid: &str, origin: TrackSource) -> Publication {
    Publication {
        sid: sid.to_owned(),
        identity: "alice".to_owned(),
        agent: false,
        side: spillway_plan::StereoSide::Both,
        origin,
        size: (640, 360),
        muted: false,
    }
}

fn opened() -> TrackReceiver {
    let mut receiver = TrackReceiver::new(options());
    receiver.push(RoomEvent::Opened { stream: VIDEO, publication: publication("TR_v", TrackSource::Camera) }, ms(0));
    receiver
        .push(RoomEvent::Opened { stream: SOUND, publication: publication("TR_a", TrackSource::Microphone) }, ms(0));
    receiver
}

/// Picture `n` at 25 per second in two packets; every tenth is a key frame. The payload ends with its number.
fn picture(n: u64, half: u64) -> RoomEvent {
    let number = (n as u32).to_be_bytes();
    let mut payload = vec![if half == 0 { 0x10 } else { 0x00 }];
    if half == 0 {
        payload.push(if n.is_multiple_of(10) { 0x10 } else { 0x11 });
        payload.extend_from_slice(&[0x02, 0x00, 0x9d, 0x01, 0x2a, 0x80, 0x02, 0x68, 0x01]);
    }
    payload.extend_from_slice(&number);
    packet(VIDEO, 1000 + 2 * n + half, n * 3600, half == 1, VP8, payload)
}

fn sound(n: u64) -> RoomEvent {
    packet(SOUND, 500 + n, n * 960, false, OPUS, vec![0x78, n as u8, 1, 2])
}

fn packet(stream: Ssrc, seq: u64, rtp: u64, marker: bool, form: PayloadFormat, payload: Vec<u8>) -> RoomEvent {
    let (seq, rtp) = (SeqNo::new(seq), RtpTime::new(rtp + (1 << 32)));
    RoomEvent::Packet { stream, seq, rtp, marker, form, payload: Bytes::from(payload) }
}

fn taken(receiver: &mut TrackReceiver) -> Vec<TimelineEvent> {
    receiver.drain().collect()
}

/// Both tracks for `seconds`, packets of `lost` numbers left out (picture n, half).
fn play(receiver: &mut TrackReceiver, from: u64, to: u64, lost: impl Fn(u64, u64) -> bool) {
    for n in from..to {
        let at = ms(n * 40);
        for half in 0..2 {
            if !lost(n, half) {
                receiver.push(picture(n, half), at);
            }
        }
        receiver.push(sound(2 * n), at);
        receiver.push(sound(2 * n + 1), at + ms(20));
        receiver.tick(at);
        receiver.tick(at + ms(20));
    }
}

fn number(frame: &Frame) -> u32 {
    let data = &frame.data;
    u32::from_be_bytes([data[data.len() - 4], data[data.len() - 3], data[data.len() - 2], data[data.len() - 1]])
}

fn pictures(timed: &[TimelineEvent]) -> Vec<u32> {
    timed
        .iter()
        .filter_map(|timed| match timed {
            TimelineEvent::Frame(frame) if frame.track == TrackId(1) => Some(number(frame)),
            _ => None,
        })
        .collect()
}

#[test]
fn without_loss_every_frame_comes_once_and_the_watermark_follows_closely() {
    let mut receiver = opened();
    play(&mut receiver, 0, 100, |_, _| false);
    let timed = taken(&mut receiver);
    assert_eq!(pictures(&timed), (0..100).collect::<Vec<_>>());
    let complete = timed.iter().rev().find_map(|timed| match timed {
        TimelineEvent::Watermark { at } => Some(at.ns()),
        _ => None,
    });
    assert!(complete.is_some_and(|at| at >= ms(3980 - 180).as_nanos() as u64), "{complete:?} of 3.98 s");
}

#[test]
fn a_lost_packet_costs_the_pictures_up_to_the_next_key_frame_and_is_said() {
    let mut receiver = TrackReceiver::new(ReceiveOptions { reorder_wait: ms(100), ..options() });
    receiver.push(RoomEvent::Opened { stream: VIDEO, publication: publication("TR_v", TrackSource::Camera) }, ms(0));
    receiver
        .push(RoomEvent::Opened { stream: SOUND, publication: publication("TR_a", TrackSource::Microphone) }, ms(0));
    play(&mut receiver, 0, 40, |n, half| n == 13 && half == 1);
    assert!(!receiver.keyframes_wanted().is_empty());
    let timed = taken(&mut receiver);
    let expected: Vec<u32> = (0..13).chain(20..40).collect();
    assert_eq!(pictures(&timed), expected);
    let lost: Vec<&TimelineEvent> = timed.iter().filter(|timed| matches!(timed, TimelineEvent::Lost { .. })).collect();
    assert!(matches!(lost[..], [TimelineEvent::Lost { track: TrackId(1), packets: 1, .. }]), "{lost:?}");
    assert_eq!(
        timed.iter().filter(|timed| matches!(timed, TimelineEvent::Frame(frame) if frame.track == TrackId(2))).count(),
        80
    );
}

#[test]
fn while_a_hole_is_waited_for_the_watermark_waits_too() {
    let mut receiver = opened();
    play(&mut receiver, 0, 20, |n, half| n == 13 && half == 0);
    let timed = taken(&mut receiver);
    let last = timed.iter().rev().find_map(|timed| match timed {
        TimelineEvent::Watermark { at } => Some(at.ns()),
        _ => None,
    });
    assert!(last.is_some_and(|at| at <= ms(13 * 40).as_nanos() as u64), "{last:?}");
    // It comes back: nothing is lost.
    receiver.push(picture(13, 0), ms(800));
    receiver.tick(ms(820));
    assert_eq!(pictures(&taken(&mut receiver)), (13..20).collect::<Vec<_>>());
}

#[test]
fn a_sound_that_is_muted_from_the_start_joins_after_five_seconds_where_it_is_recorded_alone() {
    let muted = Publication { muted: true, ..publication("TR_a", TrackSource::Microphone) };
    let begin = |mut receiver: TrackReceiver| {
        receiver.push(RoomEvent::Published { sid: "TR_a".to_owned(), video: false, muted: true }, ms(900));
        receiver.push(RoomEvent::Opened { stream: SOUND, publication: muted.clone() }, ms(1000));
        receiver.tick(ms(5990));
        assert_eq!(taken(&mut receiver), []);
        receiver.tick(ms(6000));
        receiver
    };
    assert_eq!(begin(TrackReceiver::new(options())).origin(), None, "a room waits for what it can show");

    let mut receiver = begin(TrackReceiver::new(options()).begins_muted(true));
    assert_eq!(receiver.origin(), Some(ms(1000)));
    let timed = taken(&mut receiver);
    let (joined, is_muted) = (&timed[1], &timed[2]);
    assert!(matches!(joined, TimelineEvent::Joined { track, at: MediaTime::ZERO } if track.codec == Codec::Opus));
    assert_eq!(*is_muted, TimelineEvent::Muted { track: TrackId(1), at: MediaTime::ZERO, muted: true });
    assert_eq!(timed[3], TimelineEvent::Watermark { at: MediaTime::from_ns(4_850_000_000) });

    // It is heard from the end of the mute on, where it arrives.
    receiver.push(RoomEvent::Muted { sid: "TR_a".to_owned(), muted: false }, ms(8900));
    for n in 0..100 {
        receiver.push(sound(n), ms(9000 + 20 * n));
        receiver.tick(ms(9000 + 20 * n));
    }
    let timed = taken(&mut receiver);
    assert!(!timed.iter().any(|timed| matches!(timed, TimelineEvent::Joined { .. })), "it has joined");
    let first = timed.iter().find_map(|timed| match timed {
        TimelineEvent::Frame(frame) => Some(frame.at),
        _ => None,
    });
    assert_eq!(first, Some(MediaTime::from_ns(8_000_000_000)));
}

#[test]
fn a_room_in_which_everything_is_muted_begins_after_five_seconds() {
    let publish = |receiver: &mut TrackReceiver, at| {
        receiver.push(RoomEvent::Published { sid: "TR_v".to_owned(), video: true, muted: true }, at);
    };
    let mut receiver = TrackReceiver::new(options()).begins_without_media(EmptyStart::Always);
    publish(&mut receiver, ms(1000));
    receiver.push(RoomEvent::Left { sid: "TR_v".to_owned() }, ms(3000));
    publish(&mut receiver, ms(4000));
    receiver.tick(ms(8990));
    assert_eq!(receiver.origin(), None);
    receiver.tick(ms(9000));
    assert_eq!(receiver.origin(), Some(ms(4000)));
    receiver.tick(ms(9200));
    let timed = taken(&mut receiver);
    let (sid, at) = ("TR_v".to_owned(), MediaTime::ZERO);
    assert_eq!(timed[0], TimelineEvent::Published { sid, video: true, muted: true, at });
    assert_eq!(watermark(&timed), Some(MediaTime::from_ns(5_050_000_000)));
}

#[test]
fn named_tracks_begin_when_all_are_muted_for_five_seconds() {
    let mut receiver = TrackReceiver::new(options()).begins_without_media(EmptyStart::Muted);
    for (sid, video, muted) in [("TR_v", true, true), ("TR_a", false, false)] {
        receiver.push(RoomEvent::Published { sid: sid.to_owned(), video, muted }, ms(1000));
    }
    receiver.tick(ms(9000));
    assert_eq!(receiver.origin(), None, "a sound that is not muted is waited for");
    receiver.push(RoomEvent::Muted { sid: "TR_a".to_owned(), muted: true }, ms(9500));
    receiver.tick(ms(14_490));
    assert_eq!(receiver.origin(), None);
    receiver.tick(ms(14_500));
    assert_eq!(receiver.origin(), Some(ms(9500)));
    let published: Vec<TimelineEvent> = taken(&mut receiver);
    let told = |sid: &str, video| {
        let (sid, muted, at) = (sid.to_owned(), true, MediaTime::ZERO);
        TimelineEvent::Published { sid, video, muted, at }
    };
    assert_eq!(published[..2], [told("TR_a", false), told("TR_v", true)]);
}

#[test]
fn a_publication_has_come_with_its_first_packet() {
    let mut receiver = opened();
    assert!(!receiver.has_come("TR_v"));
    receiver.push(layer(0, None), ms(0));
    assert!(receiver.has_come("TR_v") && !receiver.has_come("TR_a"));
    receiver.push(RoomEvent::Closed { stream: VIDEO }, ms(10));
    let again = publication("TR_w", TrackSource::Camera);
    receiver.push(RoomEvent::Opened { stream: Ssrc::new(33), publication: again }, ms(20));
    assert!(!receiver.has_come("TR_w") && !receiver.has_come("TR_v"));
}

#[test]
fn subscriptions_are_said_before_their_first_frame() {
    let mut receiver = TrackReceiver::new(options());
    let published = |sid: &str, video, muted| RoomEvent::Published { sid: sid.to_owned(), video, muted };
    receiver.push(published("TR_v", true, true), ms(0));
    receiver.push(published("TR_a", false, false), ms(0));
    receiver.push(RoomEvent::Muted { sid: "TR_v".to_owned(), muted: false }, ms(50));
    receiver.push(published("TR_w", true, false), ms(60));
    receiver.push(RoomEvent::Refused { sid: "TR_w".to_owned() }, ms(70));
    receiver.tick(ms(80));
    assert_eq!(taken(&mut receiver), [], "session time begins with the first packet");

    receiver
        .push(RoomEvent::Opened { stream: SOUND, publication: publication("TR_a", TrackSource::Microphone) }, ms(90));
    (0..30).for_each(|n| {
        receiver.push(sound(n), ms(100 + 20 * n));
        receiver.tick(ms(100 + 20 * n));
    });
    let told = |sid: &str, video, muted, at: u64| {
        let at = MediaTime::from_ns(ms(at).as_nanos() as u64);
        TimelineEvent::Published { sid: sid.to_owned(), video, muted, at }
    };
    let timed = taken(&mut receiver);
    assert_eq!(timed[..2], [told("TR_a", false, false, 0), told("TR_v", true, false, 0)]);
    assert!(!timed[2..].iter().any(|timed| matches!(timed, TimelineEvent::Published { .. })));

    receiver.push(RoomEvent::Muted { sid: "TR_v".to_owned(), muted: true }, ms(1100));
    receiver.push(RoomEvent::Left { sid: "TR_v".to_owned() }, ms(1200));
    let over =
        TimelineEvent::Unpublished { sid: "TR_v".to_owned(), at: MediaTime::from_ns(ms(1100).as_nanos() as u64) };
    assert_eq!(taken(&mut receiver), [told("TR_v", true, true, 1000), over]);
}

#[test]
fn blank_frames_never_come_out_and_a_real_key_frame_ends_them() {
    let mut receiver = opened();
    play(&mut receiver, 0, 10, |_, _| false);
    let blank = vec![0x10, 0x10, 0x02, 0x00, 0x9d, 0x01, 0x2a, 0x08, 0x00, 0x08, 0x00];
    for n in 10..16 {
        receiver.push(packet(VIDEO, 1000 + 2 * n, n * 3600, true, VP8, blank.clone()), ms(n * 40));
        receiver.push(packet(VIDEO, 1001 + 2 * n, n * 3600 + 9, true, VP8, vec![0x10, 0x11, 0]), ms(n * 40));
    }
    play(&mut receiver, 16, 30, |_, _| false);
    assert_eq!(pictures(&taken(&mut receiver)), (0..10).chain(20..30).collect::<Vec<_>>());
}

/// Picture `n` at 25 per second in one packet; a key frame where it has a size.
fn layer(n: u64, size: Option<(u16, u16)>) -> RoomEvent {
    let mut payload = vec![0x10, if size.is_some() { 0x10 } else { 0x11 }, 0x02, 0x00, 0x9d, 0x01, 0x2a];
    let (width, height) = size.unwrap_or_default();
    payload.extend([width.to_le_bytes(), height.to_le_bytes()].concat());
    payload.extend_from_slice(&(n as u32).to_be_bytes());
    packet(VIDEO, 1000 + n, n * 3600, true, VP8, payload)
}

/// So many pictures of a camera of 1280×720, and its sound: key frames of these sizes at these numbers.
fn layers(copied: bool, keys: &[(u64, (u16, u16))], count: u64) -> Vec<TimelineEvent> {
    let copied: &[Codec] = if copied { &[Codec::Vp8] } else { &[] };
    let mut receiver = TrackReceiver::new(options()).best_layer_of(copied);
    let video = Publication { size: (1280, 720), ..publication("TR_v", TrackSource::Camera) };
    receiver.push(RoomEvent::Opened { stream: VIDEO, publication: video }, ms(0));
    receiver
        .push(RoomEvent::Opened { stream: SOUND, publication: publication("TR_a", TrackSource::Microphone) }, ms(0));
    for n in 0..count {
        let size = keys.iter().find(|(number, _)| *number == n).map(|(_, size)| *size);
        receiver.push(layer(n, size), ms(n * 40));
        receiver.push(sound(2 * n), ms(n * 40));
        receiver.push(sound(2 * n + 1), ms(n * 40 + 20));
        receiver.tick(ms(n * 40));
    }
    receiver.finish(ms(count * 40));
    taken(&mut receiver)
}

#[test]
fn a_copied_picture_begins_in_its_best_layer_if_that_comes_soon() {
    let climb = [(0, (320, 180)), (10, (640, 360)), (20, (1280, 720))];
    assert_eq!(pictures(&layers(true, &climb, 100)), (20..100).collect::<Vec<_>>());
    assert_eq!(pictures(&layers(false, &climb, 100)), (0..100).collect::<Vec<_>>(), "a composed one does not wait");
    // What comes later is a change of size; nothing is lost, and nothing is placed behind the watermark.
    let timed = layers(true, &[(0, (320, 180)), (80, (1280, 720))], 100);
    assert_eq!(pictures(&timed), (0..100).collect::<Vec<_>>());
    let mut complete = MediaTime::ZERO;
    for event in &timed {
        match event {
            TimelineEvent::Watermark { at } => complete = *at,
            TimelineEvent::Frame(frame) => assert!(frame.at >= complete, "{:?} before {complete:?}", frame.at),
            _ => {}
        }
    }
}

/// A recording that waits 5 s for its first picture is told nothing beyond that before the picture has come: it was there, and
/// waited for its best layer.
#[test]
fn the_watermark_waits_for_a_picture_that_waits_for_its_best_layer() {
    let timed = layers(true, &[(85, (320, 180)), (130, (1280, 720))], 150);
    assert_eq!(pictures(&timed), (130..150).collect::<Vec<_>>());
    let first =
        timed.iter().position(|event| matches!(event, TimelineEvent::Frame(frame) if frame.track == TrackId(1)));
    let complete = watermark(&timed[..first.unwrap()]);
    assert!(complete.is_some_and(|at| at <= MediaTime::from_ns(3_400_000_000)), "{complete:?}");
}

#[test]
fn no_key_frame_is_asked_of_a_picture_that_is_paused() {
    let mut receiver = opened();
    let asked = |receiver: &mut TrackReceiver, from: u64, to: u64| {
        for n in from..to {
            receiver.tick(ms(n * 40));
        }
        receiver.keyframes_wanted().len()
    };
    // The last packets before it stops have a hole.
    play(&mut receiver, 0, 20, |n, half| n == 15 && half == 0);
    receiver.ask_for(TrackId(1), false);
    assert_eq!(asked(&mut receiver, 20, 500), 0);
    receiver.ask_for(TrackId(1), true);
    assert!(asked(&mut receiver, 500, 520) > 0, "it is to come again");
}

/// Before, a publisher that answers no request was asked twice a second, and one that is gone as well.
#[test]
fn key_frames_are_asked_for_ever_more_seldom() {
    let mut receiver = opened();
    let mut sent = 0;
    let mut asked = |from: u64, to: u64, is_sending: bool| {
        let mut asked = vec![];
        for n in from..to {
            if is_sending {
                let delta = vec![0x10, 0x11, 0x02, 0x00, 0x9d, 0x01, 0x2a, 0, 0, 0, 0, 7];
                receiver.push(packet(VIDEO, 1000 + sent, n * 3600, true, VP8, delta), ms(n * 40));
                sent += 1;
            }
            receiver.tick(ms(n * 40));
            if !receiver.keyframes_wanted().is_empty() {
                asked.push(n * 40);
            }
        }
        asked
    };
    assert_eq!(asked(0, 375, true), [320, 840, 1840, 3840, 7840, 11_840]);
    assert_eq!(asked(375, 5000, false), [15_840, 19_840, 23_840, 27_840]);
    assert_eq!(asked(5000, 5001, true), [200_000]);
}

#[test]
fn a_picture_that_says_it_is_huge_is_left_out_and_said_once() {
    let mut receiver = opened();
    for n in 0..20 {
        let size = match n {
            0 | 5 => Some((16_383, 16_383)),
            10 => Some((640, 360)),
            _ => None,
        };
        receiver.push(layer(n, size), ms(n * 40));
        receiver.tick(ms(n * 40));
    }
    assert_eq!(receiver.keyframes_wanted(), [], "another one would come");
    receiver.finish(ms(800));
    assert_eq!(pictures(&taken(&mut receiver)), (10..20).collect::<Vec<_>>());
    assert_eq!(receiver.take_notes(), ["the video of alice is not recorded: 16383×16383 is too large"]);
}

#[test]
fn parameter_sets_without_a_picture_are_not_collected_for_ever() {
    const H264: PayloadFormat = PayloadFormat { codec: Codec::H264, clock_rate: 90_000, channels: 0 };
    let mut receiver = opened();
    let sei = [&[6u8, 5][..], &[7; 1200]].concat();
    for n in 0..1000 {
        receiver.push(packet(VIDEO, n, n * 3600, true, H264, sei.clone()), ms(n));
    }
    let sps = [0x67, 0x42, 0xc0, 0x1e, 0xd9];
    let key = [&[24u8, 0, 5][..], &sps, &[0, 4, 0x68, 0xce, 0x3c, 0x80, 0, 3, 0x65, 0x88, 1]].concat();
    receiver.push(packet(VIDEO, 1000, 1000 * 3600, true, H264, key), ms(1000));
    receiver.finish(ms(1100));
    let bytes = taken(&mut receiver).iter().find_map(|timed| match timed {
        TimelineEvent::Frame(frame) => Some(frame.data.len()),
        _ => None,
    });
    assert!(bytes.is_some_and(|bytes| (1200..66 << 10).contains(&bytes)), "{bytes:?}");
}

#[test]
fn b_frames_are_decoded_in_the_order_they_came_in_and_shown_in_their_own() {
    // 0, then 3 1 2, 6 4 5 …
    let shown = |n: u64| if n == 0 { 0 } else { (n - 1) / 3 * 3 + [3, 1, 2][(n - 1) as usize % 3] };
    let mut receiver = opened();
    for n in 0..61 {
        let mut payload = vec![0x10, if n == 0 { 0x10 } else { 0x11 }, 0x02, 0x00, 0x9d, 0x01, 0x2a, 0x80, 2, 0x68, 1];
        payload.extend_from_slice(&(shown(n) as u32).to_be_bytes());
        receiver.push(packet(VIDEO, 1000 + n, shown(n) * 3600, true, VP8, payload), ms(80 + n * 40));
        receiver.tick(ms(80 + n * 40));
    }
    receiver.finish(ms(2600));
    let frames: Vec<Frame> = taken(&mut receiver)
        .into_iter()
        .filter_map(|timed| match timed {
            TimelineEvent::Frame(frame) => Some(frame),
            _ => None,
        })
        .collect();
    assert_eq!(frames.iter().map(number).collect::<Vec<_>>(), (0..61).map(|n| shown(n) as u32).collect::<Vec<_>>());
    assert!(frames.is_sorted_by(|one, next| one.at < next.at));
    assert_eq!(frames.iter().filter(|frame| frame.offset_ns != 0).count(), 40);
    let place = |frame: &Frame| frame.at.ns() as i64 + frame.offset_ns;
    // The first ones were made before the recording began.
    let place_of_zero = |frame: &Frame| place(frame) - i64::from(number(frame)) * 40_000_000;
    for frame in &frames[6..] {
        let off = place_of_zero(frame) - place_of_zero(&frames[30]);
        assert!(off.abs() < 20_000_000, "{} is {off} ns off", number(frame));
    }
}

/// A hostile publisher. Before, each of its pictures was a B frame, and moved on by a millisecond.
#[test]
fn a_picture_whose_rtp_time_swings_for_ever_is_placed_by_its_arrival() {
    let mut receiver = opened();
    for n in 0..750 {
        let shown = if n < 25 { n } else { 24 - n % 5 };
        let mut payload = vec![0x10, if n == 0 { 0x10 } else { 0x11 }, 0x02, 0x00, 0x9d, 0x01, 0x2a, 0x80, 2, 0x68, 1];
        payload.extend_from_slice(&(n as u32).to_be_bytes());
        receiver.push(packet(VIDEO, 1000 + n, shown * 3600, true, VP8, payload), ms(n * 40));
        receiver.push(sound(2 * n), ms(n * 40));
        receiver.push(sound(2 * n + 1), ms(n * 40 + 20));
        receiver.tick(ms(n * 40 + 20));
    }
    let timed = taken(&mut receiver);
    let last = timed.iter().rev().find_map(|timed| match timed {
        TimelineEvent::Frame(frame) if frame.track == TrackId(1) => Some(frame.at.ns()),
        _ => None,
    });
    assert!(last.is_some_and(|at| at > 25_000_000_000), "{last:?} of 30 s");
}

#[test]
fn a_muted_track_is_absent_until_it_speaks_again() {
    let mut receiver = opened();
    play(&mut receiver, 0, 25, |_, _| false);
    receiver.push(RoomEvent::Muted { sid: "TR_v".to_owned(), muted: true }, ms(990));
    for n in 50..75 {
        receiver.push(sound(2 * (n - 25)), ms(n * 20));
        receiver.tick(ms(n * 20));
    }
    let timed = taken(&mut receiver);
    let absent = timed.iter().find_map(|timed| match timed {
        TimelineEvent::Muted { track: TrackId(1), at, muted: true } => Some(*at),
        _ => None,
    });
    assert!(
        absent.is_some_and(|at| at.ns() > ms(960).as_nanos() as u64 && at.ns() <= ms(1000).as_nanos() as u64 + 1),
        "{absent:?}"
    );
    receiver.push(RoomEvent::Muted { sid: "TR_v".to_owned(), muted: false }, ms(2000));
    play(&mut receiver, 55, 70, |_, _| false);
    let back = pictures(&taken(&mut receiver));
    assert_eq!(back.first(), Some(&60), "begins with a key frame");
}

#[test]
fn after_a_reconnect_the_same_source_keeps_its_track_and_its_time_goes_on() {
    let mut receiver = opened();
    play(&mut receiver, 0, 25, |_, _| false);
    receiver.push(RoomEvent::Interrupted, ms(1100));
    let before = taken(&mut receiver);
    assert!(before.iter().any(|timed| matches!(timed, TimelineEvent::Muted { track: TrackId(1), muted: false, .. })));
    receiver.push(
        RoomEvent::Opened { stream: Ssrc::new(99), publication: publication("TR_new", TrackSource::Camera) },
        ms(6000),
    );
    for n in 0..50 {
        let at = ms(6000 + n * 40);
        let RoomEvent::Packet { payload, .. } = picture(n, 0) else { continue };
        receiver.push(packet(Ssrc::new(99), 7_000_000 + 2 * n, n * 3600 + 999_999, true, VP8, payload.to_vec()), at);
        receiver.tick(at);
    }
    let after = taken(&mut receiver);
    let first = after.iter().find_map(|timed| match timed {
        TimelineEvent::Frame(frame) => Some((frame.track, frame.at.ns(), frame.key)),
        _ => None,
    });
    let Some((TrackId(1), at, true)) = first else { panic!("{first:?}") };
    assert!(at.abs_diff(ms(6000).as_nanos() as u64) < 50_000_000, "{at}");
}

#[test]
fn while_the_connection_is_in_trouble_a_silent_track_becomes_absent_before_the_others_go_on() {
    let mut receiver = opened();
    play(&mut receiver, 0, 25, |_, _| false);
    receiver.push(RoomEvent::Trouble { on: true }, ms(1000));
    for n in 50..150 {
        receiver.tick(ms(n * 20));
    }
    let mut complete = MediaTime::ZERO;
    let mut absent = 0;
    for timed in taken(&mut receiver) {
        match timed {
            TimelineEvent::Watermark { at } => complete = at,
            TimelineEvent::Muted { at, muted, .. } => {
                assert!(!muted, "it is our connection");
                assert!(at >= complete, "{at:?} was said to be complete to {complete:?}");
                absent += 1;
            }
            _ => {}
        }
    }
    assert_eq!(absent, 2);
    assert!(complete.ns() > ms(2700).as_nanos() as u64);
}

#[test]
fn a_picture_that_is_not_asked_for_is_not_waited_for() {
    let end = |is_paused: bool| {
        let mut receiver = opened();
        play(&mut receiver, 0, 25, |_, _| false);
        receiver.ask_for(TrackId(1), !is_paused);
        for n in 50..150 {
            receiver.push(sound(n), ms(n * 20));
            receiver.tick(ms(n * 20));
        }
        (watermark(&taken(&mut receiver)).unwrap(), receiver)
    };
    let (waited, _) = end(false);
    assert!(waited.ns() < ms(2600).as_nanos() as u64, "{waited:?}");
    let (complete, mut receiver) = end(true);
    assert!(complete.ns() > ms(2700).as_nanos() as u64, "{complete:?}");
    // Nor is it while its first picture is on its way.
    receiver.ask_for(TrackId(1), true);
    for n in 150..160 {
        receiver.push(sound(n), ms(n * 20));
        receiver.tick(ms(n * 20));
    }
    let complete = watermark(&taken(&mut receiver)).unwrap();
    assert!(complete.ns() > ms(2900).as_nanos() as u64, "{complete:?}");
}

/// A second of both tracks, which then leave; from there on the recording stands still for 5 s.
fn held() -> TrackReceiver {
    let mut receiver = opened();
    play(&mut receiver, 0, 25, |_, _| false);
    assert!(watermark(&taken(&mut receiver)).is_some());
    receiver.push(RoomEvent::Held { on: true }, ms(1000));
    for sid in ["TR_v", "TR_a"] {
        receiver.push(RoomEvent::Left { sid: sid.to_owned() }, ms(1000));
    }
    for n in 50..300 {
        receiver.tick(ms(n * 20));
    }
    let timed = taken(&mut receiver);
    assert_eq!(watermark(&timed), None);
    assert_eq!(timed.iter().filter(|timed| matches!(timed, TimelineEvent::Left { .. })).count(), 2);
    receiver
}

fn watermark(timed: &[TimelineEvent]) -> Option<MediaTime> {
    timed.iter().rev().find_map(|timed| match timed {
        TimelineEvent::Watermark { at } => Some(*at),
        _ => None,
    })
}

#[test]
fn a_recording_that_stands_still_ends_where_it_stood() {
    let mut receiver = held();
    receiver.finish(ms(6000));
    let end = watermark(&taken(&mut receiver)).expect("an end").ns() / 1_000_000;
    assert!((950..1100).contains(&end), "{end} ms");
}

#[test]
fn a_recording_that_stood_still_catches_up_step_by_step() {
    let mut receiver = held();
    receiver.push(RoomEvent::Held { on: false }, ms(6000));
    let mut before = None;
    for n in 301..376 {
        receiver.tick(ms(n * 20));
        let at = watermark(&taken(&mut receiver)).expect("it goes on").ns() / 1_000_000;
        assert!(before.is_none_or(|before| (1..=120).contains(&(at - before))), "{at} ms after {before:?}");
        before = Some(at);
    }
    assert!(before.is_some_and(|at| (7300..7500).contains(&at)), "{before:?} of 7500 ms");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_order_duplication_and_loss_gives_whole_decodable_frames_in_order(
        fates in prop::collection::vec((0u8..20, 0u64..300), 240),
        mute in prop::option::of(0u64..4000),
    ) {
        let mut arrivals: Vec<(Duration, RoomEvent)> = Vec::new();
        for n in 0..120u64 {
            for half in 0..2 {
                let (fate, late) = fates[(2 * n + half) as usize];
                let at = ms(n * 40);
                match fate {
                    0 => {}
                    1 => arrivals.push((at + ms(late), picture(n, half))),
                    2 => arrivals.extend([(at, picture(n, half)), (at + ms(late), picture(n, half))]),
                    _ => arrivals.push((at, picture(n, half))),
                }
            }
        }
        if let Some(mute) = mute {
            arrivals.push((ms(mute), RoomEvent::Muted { sid: "TR_v".to_owned(), muted: true }));
        }
        arrivals.sort_by_key(|arrival| arrival.0);
        let mut receiver = opened();
        for (at, arrival) in arrivals {
            receiver.push(arrival, at);
            receiver.tick(at);
        }
        receiver.finish(ms(6000));
        let (mut last, mut number_before, mut needs_key, mut complete) = (None, None, true, None);
        for timed in taken(&mut receiver) {
            match timed {
                TimelineEvent::Frame(frame) => {
                    prop_assert!(last.is_none_or(|last| frame.at > last));
                    prop_assert_eq!(frame.data.len(), 18, "whole");
                    let number = number(&frame);
                    prop_assert!(frame.key || (!needs_key && Some(number) == number_before.map(|before: u32| before + 1)));
                    prop_assert_eq!(frame.key, number.is_multiple_of(10));
                    (last, number_before, needs_key) = (Some(frame.at), Some(number), false);
                }
                TimelineEvent::Lost { .. } | TimelineEvent::Muted { .. } => needs_key = true,
                TimelineEvent::Watermark { at } => {
                    prop_assert!(complete.is_none_or(|complete| at > complete));
                    complete = Some(at);
                }
                _ => {}
            }
        }
    }
}

#[test]
fn a_key_frame_is_asked_for_when_a_hole_is_beyond_hope_and_not_before() {
    let mut receiver = TrackReceiver::new(ReceiveOptions { reorder_wait: ms(2000), ..options() });
    receiver.push(RoomEvent::Opened { stream: VIDEO, publication: publication("TR_v", TrackSource::Camera) }, ms(0));
    let mut asked = None;
    for n in 0..60 {
        let at = ms(n * 40);
        for half in 0..2 {
            if (n, half) != (5, 1) {
                receiver.push(picture(n, half), at);
            }
        }
        receiver.tick(at);
        if !receiver.keyframes_wanted().is_empty() {
            asked.get_or_insert(at);
        }
    }
    assert_eq!(asked, Some(ms(5 * 40) + BEYOND_HOPE));
}

#[test]
fn what_is_between_picture_and_sound_is_known_by_their_reports() {
    let mut receiver = opened();
    let offset = |receiver: &TrackReceiver| receiver.stats()[0].av_offset_ms;
    play(&mut receiver, 0, 25, |_, _| false);
    assert_eq!(offset(&receiver), None);
    // At one second of media the picture shows what was to be heard 60 ms before.
    let ntp = 1_700_000_000_000_000_000;
    receiver.push(RoomEvent::Report { stream: VIDEO, rtp: 90_000, ntp: ntp - 60_000_000 }, ms(1000));
    receiver.push(RoomEvent::Report { stream: SOUND, rtp: 48_000, ntp }, ms(1000));
    let before = offset(&receiver);
    assert!(before.is_some_and(|before| (40.0..80.0).contains(&before)), "{before:?}");
    play(&mut receiver, 25, 75, |_, _| false);
    let after = offset(&receiver);
    assert!(after.is_some_and(|after| after.abs() < 1.0), "{after:?}");
}
