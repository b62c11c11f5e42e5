//! Which pictures reach the encoder, and that the last one does.

use std::sync::Arc;

use super::*;

const SECOND_NS: u64 = 1_000_000_000;

fn time(n: u64, framerate: u64) -> u64 {
    n * SECOND_NS / framerate
}

/// Milliseconds of the pictures that pass, of this many seconds; `changes` says which picture is a new one.
fn passed(rate: RepeatRate, framerate: u64, seconds: u64, changes: impl Fn(u64) -> bool) -> Vec<u64> {
    let mut repeats = Repeats::new(rate);
    let pass = |n: &u64| repeats.passes(time(*n, framerate), time(n + 1, framerate), !changes(*n));
    (0..seconds * framerate).filter(pass).map(|n| time(n, framerate) / 1_000_000).collect()
}

#[test]
fn what_moves_is_encoded_whole() {
    for rate in [RepeatRate::Recorded, RepeatRate::Streamed] {
        assert_eq!(passed(rate, 30, 2, |_| true).len(), 60);
    }
}

#[test]
fn of_a_slower_camera_only_its_own_pictures_are_encoded() {
    for rate in [RepeatRate::Recorded, RepeatRate::Streamed] {
        // 15, 10 and 7.5 pictures a second; beyond a tenth of a second between them one is repeated.
        for (every, expected) in [(2, 30), (3, 20), (4, 30)] {
            assert_eq!(passed(rate, 30, 2, |n| n % every == 0).len(), expected, "one of {every}, {rate:?}");
        }
        // 25 shown at 30.
        let pictures = passed(rate, 30, 2, |n| n % 6 != 5);
        assert_eq!(pictures.len(), 50);
    }
}

#[test]
fn what_stands_still_settles_and_is_then_encoded_twice_a_second() {
    let expected = [0, 100, 200, 300, 400, 500, 1000, 1500, 2000, 2500];
    assert_eq!(passed(RepeatRate::Recorded, 30, 3, |n| n == 0), expected);
    let after_a_change = passed(RepeatRate::Recorded, 30, 4, |n| n == 0 || n == 60);
    assert_eq!(after_a_change[..8], [0, 100, 200, 300, 400, 500, 1000, 1500]);
    assert_eq!(after_a_change[8..], [2000, 2100, 2200, 2300, 2400, 2500, 3000, 3500]);
    assert_eq!(passed(RepeatRate::Streamed, 30, 3, |n| n == 0).len(), 30);
}

#[test]
fn two_a_second_are_encoded_at_any_rate() {
    for framerate in [1, 2, 3, 7, 12, 15, 24, 25, 30, 60] {
        let pictures = passed(RepeatRate::Recorded, framerate, 20, |n| n == 0);
        let longest = pictures.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default();
        assert!(longest <= 501.max(1000 / framerate + 1), "{longest} ms at {framerate} a second");
    }
}

#[derive(Clone, Default)]
struct Encoded(Arc<Mutex<(Vec<u64>, bool)>>);

impl RawSink for Encoded {
    fn push(&self, buffer: gst::Buffer) -> Result<(), FeedError> {
        self.0.lock().unwrap().0.push(buffer.pts().unwrap().mseconds());
        Ok(())
    }

    fn end(&self) {
        self.0.lock().unwrap().1 = true;
    }
}

#[test]
fn a_recording_ends_with_its_last_picture() {
    gst::init().unwrap();
    for (pictures, expected) in
        [(30, vec![0, 100, 200, 300, 400, 500, 966]), (31, vec![0, 100, 200, 300, 400, 500, 1000])]
    {
        let encoded = Encoded::default();
        let way = VariableRate::new(Box::new(encoded.clone()), RepeatRate::Recorded, PictureBits::default());
        for n in 0..pictures {
            let mut buffer = gst::Buffer::with_size(16).unwrap();
            let fresh = buffer.get_mut().unwrap();
            fresh.set_pts(gst::ClockTime::from_nseconds(time(n, 30)));
            fresh.set_duration(gst::ClockTime::from_nseconds(time(n + 1, 30) - time(n, 30)));
            if n > 0 {
                fresh.set_flags(gst::BufferFlags::DROPPABLE);
            }
            way.push(buffer).unwrap();
        }
        way.end();
        assert_eq!(*encoded.0.lock().unwrap(), (expected, true));
    }
}
