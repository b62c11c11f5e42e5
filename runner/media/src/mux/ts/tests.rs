use std::collections::BTreeMap;

use super::packet::PACKET_BYTES;
use super::*;

const SECOND: u64 = 1_000_000_000;
const SETS: [u8; 12] = [0, 0, 0, 1, 0x67, 1, 2, 0, 0, 1, 0x68, 3];

/// What a packet says.
struct Packet<'a> {
    pid: u16,
    start: bool,
    counter: u8,
    random_access: bool,
    clock: Option<u64>,
    payload: &'a [u8],
}

fn packets(stream: &[u8]) -> Vec<Packet<'_>> {
    assert_eq!(stream.len() % PACKET_BYTES, 0);
    stream.chunks(PACKET_BYTES).map(packet).collect()
}

fn packet(bytes: &[u8]) -> Packet<'_> {
    assert_eq!(bytes[0], 0x47);
    let (has_field, has_payload) = (bytes[3] & 0x20 != 0, bytes[3] & 0x10 != 0);
    let field = if has_field { &bytes[5..5 + usize::from(bytes[4])] } else { &[] };
    let flags = field.first().copied().unwrap_or(0);
    let clock = (flags & 0x10 != 0)
        .then(|| u64::from(u32::from_be_bytes(field[1..5].try_into().unwrap())) << 1 | u64::from(field[5] >> 7));
    let start = 4 + if has_field { 1 + field.len() } else { 0 };
    assert_eq!(has_payload, start < PACKET_BYTES);
    Packet {
        pid: u16::from_be_bytes([bytes[1] & 0x1f, bytes[2]]),
        start: bytes[1] & 0x40 != 0,
        counter: bytes[3] & 15,
        random_access: flags & 0x40 != 0,
        clock,
        payload: &bytes[start..],
    }
}

/// PES packets of a PID: time stamp and data.
fn pes(stream: &[u8], pid: u16) -> Vec<(u64, Vec<u8>)> {
    let mut all: Vec<Vec<u8>> = vec![];
    for packet in packets(stream).iter().filter(|packet| packet.pid == pid) {
        if packet.start {
            all.push(vec![]);
        }
        all.last_mut().unwrap().extend_from_slice(packet.payload);
    }
    let read = |pes: Vec<u8>| {
        assert_eq!((&pes[..3], &pes[6..9]), (&[0, 0, 1][..], &[0x84, 0x80, 5][..]));
        let length = usize::from(u16::from_be_bytes([pes[4], pes[5]]));
        assert!(length == pes.len() - 6 || (length == 0 && pes.len() - 6 > 65_535));
        let at = |index: usize| u64::from(pes[index]);
        assert_eq!((pes[9] & 0xf1, pes[11] & 1, pes[13] & 1), (0x21, 1, 1));
        let pts = (at(9) >> 1 & 7) << 30 | at(10) << 22 | at(11) >> 1 << 15 | at(12) << 7 | at(13) >> 1;
        (pts, pes[14..].to_vec())
    };
    all.into_iter().map(read).collect()
}

fn key_frame(bytes: usize) -> Vec<u8> {
    let mut unit = SETS.to_vec();
    unit.extend_from_slice(&[0, 0, 1, 0x65]);
    unit.resize(unit.len() + bytes, 0x55);
    unit
}

fn picture(bytes: usize) -> Vec<u8> {
    let mut unit = vec![0, 0, 0, 1, 0x41];
    unit.resize(5 + bytes, 0x77);
    unit
}

fn at(ms: u64) -> MediaTime {
    MediaTime::from_ns(ms * 1_000_000)
}

fn frame_at(frame: u64) -> MediaTime {
    MediaTime::from_ns(frame * 1024 * SECOND / 48_000)
}

/// Every length of an access unit leaves another rest in its last packet.
#[test]
fn access_units_of_every_length_come_back_as_they_were() {
    let mut muxer = TsMuxer::new(true, None).unwrap();
    let mut out = vec![];
    let lengths = (1..400).chain([65_000, 65_521, 65_522, 65_523, 70_000]);
    let pushed: Vec<Vec<u8>> = lengths.map(picture).collect();
    for (number, unit) in pushed.iter().enumerate() {
        muxer.video(at(number as u64 * 40), false, unit, &mut out);
    }
    let read = pes(&out, VIDEO_PID);
    assert_eq!(read.len(), pushed.len());
    for (number, ((pts, data), unit)) in read.iter().zip(&pushed).enumerate() {
        assert_eq!(*pts, number as u64 * 3600 + PTS_DELAY);
        assert_eq!(data[..6], ACCESS_UNIT_DELIMITER);
        assert!(data[6..] == unit[..], "unit {number}");
    }
}

#[test]
fn counters_go_on_over_the_borders_of_segments() {
    let mut muxer = TsMuxer::new(true, Some(48_000)).unwrap();
    let mut out = vec![];
    let mut sound = 0;
    for segment in 0..9 {
        muxer.begin_segment(&mut out);
        for number in 0..7 {
            let time = at(segment * 280 + number * 40);
            muxer.video(time, number == 0, &if number == 0 { key_frame(900) } else { picture(300) }, &mut out);
            while frame_at(sound) <= time {
                muxer.audio(frame_at(sound), &[0x21; 300], &mut out);
                sound += 1;
            }
        }
        muxer.end_segment(&mut out);
    }
    let mut next = BTreeMap::new();
    for packet in packets(&out) {
        let expected = next.get(&packet.pid).copied().unwrap_or(0);
        if packet.payload.is_empty() {
            assert_eq!((packet.counter + 1) & 15, expected, "a packet without data does not count");
            continue;
        }
        assert_eq!(packet.counter, expected, "PID {}", packet.pid);
        next.insert(packet.pid, (expected + 1) & 15);
    }
    assert_eq!(next.keys().copied().collect::<Vec<_>>(), [0, VIDEO_PID, AUDIO_PID, 0x1000]);
    // Tables once at each begin, not again before the key frame; here never by time.
    assert_eq!(packets(&out).iter().filter(|packet| packet.pid == 0).count(), 9);
}

#[test]
fn the_tables_have_a_checksum_that_leaves_nothing() {
    let mut out = vec![];
    TsMuxer::new(true, Some(44_100)).unwrap().begin_segment(&mut out);
    let tables = packets(&out);
    assert_eq!(tables.iter().map(|packet| packet.pid).collect::<Vec<_>>(), [0, 0x1000]);
    for table in tables {
        let section = &table.payload[1..];
        let length = 3 + usize::from(u16::from_be_bytes([section[1] & 0x0f, section[2]]));
        let mut crc = u32::MAX;
        for bit in section[..length].iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1)) {
            let carry = (crc >> 31) as u8 ^ bit;
            crc = crc << 1 ^ if carry == 1 { 0x04c1_1db7 } else { 0 };
        }
        assert_eq!(crc, 0);
    }
}

#[test]
fn parameter_sets_and_delimiters_are_added_where_they_lack() {
    let mut muxer = TsMuxer::new(true, None).unwrap();
    let mut out = vec![];
    let bare = [0, 0, 1, 0x65, 9, 9, 9];
    let delimited = [0, 0, 1, 9, 0x10, 0, 0, 1, 0x65, 8, 8];
    muxer.video(at(0), true, &key_frame(3), &mut out);
    muxer.video(at(40), true, &bare, &mut out);
    muxer.video(at(80), true, &delimited, &mut out);
    muxer.video(at(120), false, &[0, 0, 0, 1, 9, 0x30, 0, 0, 1, 0x41, 7], &mut out);
    let read = pes(&out, VIDEO_PID);
    // The second start code has four bytes when it is ours.
    let sets = [0, 0, 0, 1, 0x67, 1, 2, 0, 0, 0, 1, 0x68, 3];
    assert_eq!(read[1].1, [&ACCESS_UNIT_DELIMITER[..], &sets, &bare].concat());
    assert_eq!(read[2].1, [&delimited[..5], &sets, &delimited[5..]].concat());
    assert_eq!(read[3].1, [0, 0, 0, 1, 9, 0x30, 0, 0, 1, 0x41, 7]);
    let keys: Vec<bool> =
        packets(&out).iter().filter(|p| p.pid == VIDEO_PID && p.start).map(|p| p.random_access).collect();
    assert_eq!(keys, [true, true, true, false]);
}

#[test]
fn time_stamps_and_clock_wrap_after_twenty_six_and_a_half_hours() {
    let mut muxer = TsMuxer::new(true, Some(48_000)).unwrap();
    let mut out = vec![];
    let wrap = 1u64 << 33;
    let begin = wrap - 2 * PTS_DELAY;
    let ticks_per_second = u64::from(TICKS_PER_SECOND);
    assert_eq!(begin / ticks_per_second / 60, 1590);
    for number in 0..100u64 {
        let ns = (begin + number * 3600) * (SECOND / ticks_per_second) + (begin + number * 3600) / 9;
        let time = MediaTime::from_ns(ns);
        assert_eq!(ticks(time), begin + number * 3600);
        muxer.video(time, number % 25 == 0, &key_frame(100), &mut out);
        muxer.audio(time, &[0x21; 30], &mut out);
    }
    let times: Vec<u64> = pes(&out, VIDEO_PID).into_iter().map(|(pts, _)| pts).collect();
    let expected: Vec<u64> = (0..100).map(|number| (begin + PTS_DELAY + number * 3600) % wrap).collect();
    assert_eq!(times, expected);
    assert!(times.contains(&(wrap - PTS_DELAY)) && times.iter().any(|pts| *pts < 3600));
    let clocks: Vec<u64> = packets(&out).iter().filter_map(|packet| packet.clock).collect();
    assert!(clocks.windows(2).all(|pair| (pair[1].wrapping_sub(pair[0]) & (wrap - 1)) <= 3600));
    assert!(clocks[0] == begin && *clocks.last().unwrap() < wrap / 2);
}

#[test]
fn frames_of_sound_share_a_packet_and_a_hole_begins_another() {
    let mut muxer = TsMuxer::new(false, Some(48_000)).unwrap();
    let mut out = vec![];
    muxer.begin_segment(&mut out);
    for frame in 0..10 {
        muxer.audio(frame_at(frame), &[0x21; 50], &mut out);
    }
    muxer.audio(frame_at(13), &[0x21; 50], &mut out);
    muxer.end_segment(&mut out);
    let read = pes(&out, AUDIO_PID);
    let frames: Vec<usize> = read.iter().map(|(_, data)| data.len() / 57).collect();
    assert_eq!(frames, [4, 4, 2, 1]);
    let times: Vec<u64> = read.iter().map(|(pts, _)| pts - PTS_DELAY).collect();
    assert_eq!(times, [0, 4 * 1920, 8 * 1920, 13 * 1920]);
    let clocks: Vec<u64> = packets(&out).iter().filter_map(|packet| packet.clock).collect();
    assert_eq!(clocks.len(), 4);
}

/// A shared screen that stands still, or an encoder that is late, while the sound goes on.
#[test]
fn the_clock_goes_on_without_pictures() {
    let mut muxer = TsMuxer::new(true, Some(48_000)).unwrap();
    let mut out = vec![];
    muxer.video(at(0), true, &key_frame(100), &mut out);
    for frame in 0..300 {
        muxer.audio(frame_at(frame), &[0x21; 100], &mut out);
    }
    muxer.video(at(6000), false, &picture(10), &mut out);
    let read = packets(&out);
    let clocks: Vec<u64> =
        read.iter().filter(|packet| packet.pid == VIDEO_PID).filter_map(|packet| packet.clock).collect();
    assert!(clocks.len() > 50);
    // It waits for the picture a little, then follows the sound.
    assert!(clocks.windows(2).all(|pair| pair[0] <= pair[1] && pair[1] - pair[0] < 10_000), "{clocks:?}");
    let tables = read.iter().filter(|packet| packet.pid == 0).count();
    assert_eq!(tables, 1 + 299 / 19, "every 400 ms, rounded up to whole frames");
}

#[test]
fn what_cannot_be_described_is_not_begun() {
    assert!(TsMuxer::new(true, Some(44_101)).is_none());
    assert!(TsMuxer::new(false, None).is_none());
    let mut muxer = TsMuxer::new(false, Some(8000)).unwrap();
    let mut out = vec![];
    muxer.audio(at(0), &[0; 9000], &mut out);
    muxer.video(at(0), true, &key_frame(10), &mut out);
    muxer.end_segment(&mut out);
    assert!(pes(&out, AUDIO_PID).is_empty() && pes(&out, VIDEO_PID).is_empty());
}
