//! Where fragments are cut.

use spillway_ipc::SpoolReader;
use spillway_ipc::restart::RestartPoints;
use spillway_plan::Container;

use super::*;
use crate::track::Codec;

/// An access unit, long enough that the points of a walk are not spaced further than fragments.
fn access_unit(key: bool) -> Vec<u8> {
    const KEY: &[u8] = &[0, 0, 1, 0x67, 0x42, 0xc0, 0x1e, 0xd9, 0, 0, 1, 0x68, 0xce, 0x3c, 0x80, 0, 0, 1, 0x65];
    const DELTA: &[u8] = &[0, 0, 1, 0x41];
    [if key { KEY } else { DELTA }, &[7; 4000]].concat()
}

/// As of an encoder that is busy: its pictures come when the sound has long been there.
#[test]
fn keyframes_begin_fragments_when_the_sound_is_seconds_ahead() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.mp4");
    let file = SpoolFile::create(&path, Container::Mp4).unwrap();
    let written = file.written();
    let video = Mp4TrackKind::Video { codec: Codec::H264, size: (320, 180) };
    let mut mp4 = Mp4::open(file, &[video, Mp4TrackKind::Opus], 1_000_000_000);
    for n in 0..150 {
        mp4.push(1, n * 20_000_000, true, &[0xfc; 40]).unwrap();
    }
    let mut fragments = vec![];
    for n in 0..=90 {
        mp4.push(0, n * 1_000_000_000 / 30, n % 30 == 0, &access_unit(n % 30 == 0)).unwrap();
        if n == 30 || n == 60 {
            // What is written from here on begins with this keyframe.
            fragments.push(written.end());
        }
    }
    let mut points = RestartPoints::new(Container::Mp4);
    points.advance(&SpoolReader::open(&path).unwrap(), written.end()).unwrap();
    for at in fragments {
        assert_eq!(points.before(at, u64::MAX), Some(at), "a fragment with a keyframe begins there");
    }
}

/// What stands behind the last box of this name.
fn last_box<'a>(file: &'a [u8], name: &[u8; 4]) -> &'a [u8] {
    let at = file.windows(4).rposition(|four| four == name).unwrap();
    &file[at + 4..]
}

fn number(data: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(data[at..at + 4].try_into().unwrap())
}

/// A muted camera that is recorded for a day. Before, its 32 bits overflowed, and all behind it stood 13 hours too early.
#[test]
fn a_picture_may_stand_still_for_longer_than_a_duration_can_say() {
    const HOUR_NS: u64 = 3_600_000_000_000;
    let dir = tempfile::tempdir().unwrap();
    for (hours, timescale) in [(13, 90_000), (14, 9000), (140, 900)] {
        let path = dir.path().join(format!("{hours}.mp4"));
        let file = SpoolFile::create(&path, Container::Mp4).unwrap();
        let video = Mp4TrackKind::Video { codec: Codec::H264, size: (320, 180) };
        let mut mp4 = Mp4::open(file, &[video], 1_000_000_000);
        mp4.push(0, 0, true, &access_unit(true)).unwrap();
        mp4.push(0, hours * HOUR_NS, false, &access_unit(false)).unwrap();
        mp4.push(0, hours * HOUR_NS + 40_000_000, true, &access_unit(true)).unwrap();
        mp4.lasts(0, hours * HOUR_NS + HOUR_NS);
        mp4.finish().unwrap();
        let bytes = std::fs::read(&path).unwrap();
        // Version 1: two times of 64 bits before it.
        let media = last_box(&bytes, b"mdhd");
        assert_eq!((media[0], number(media, 20)), (1, timescale), "{hours} h");
        let table = last_box(&bytes, b"stts");
        let durations: Vec<u64> = (0..3)
            .map(|n| {
                assert_eq!(number(table, 8 + n * 8), 1, "each is another one");
                u64::from(number(table, 12 + n * 8))
            })
            .collect();
        let (still, between) = (hours * 3600 * u64::from(timescale), u64::from(timescale) / 25);
        assert_eq!((number(table, 4), durations[..2].to_vec()), (3, vec![still, between]), "{hours} h");
        let length = u64::from(number(media, 24)) << 32 | u64::from(number(media, 28));
        let whole = (hours + 1) * 3600 * u64::from(timescale);
        assert_eq!((durations.iter().sum::<u64>(), length), (whole, whole), "{hours} h");
        let run = bytes.windows(4).position(|four| four == b"trun").unwrap();
        let in_ticks = hours * 3600 * 90_000;
        assert_eq!(u64::from(number(&bytes, run + 16)), in_ticks.min(u64::from(u32::MAX)), "of the first fragment");
    }
}

/// A slide that changes just before the stop. Before, it was shown as long as the one before, ten minutes.
#[test]
fn the_last_picture_does_not_last_as_long_as_the_pause_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.mp4");
    let file = SpoolFile::create(&path, Container::Mp4).unwrap();
    let video = Mp4TrackKind::Video { codec: Codec::H264, size: (320, 180) };
    let mut mp4 = Mp4::open(file, &[video], 1_000_000_000);
    mp4.push(0, 0, true, &access_unit(true)).unwrap();
    mp4.push(0, 600_000_000_000, false, &access_unit(false)).unwrap();
    mp4.finish().unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let media = last_box(&bytes, b"mdhd");
    assert_eq!((number(media, 24), number(media, 28)), (0, 601 * 90_000));
}
