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
