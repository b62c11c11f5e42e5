//! Key frames of our encoder stand on the lines of the grid, whatever pictures are missing.

#![allow(clippy::unwrap_used)]

use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gstreamer as gst;
use spillway_media::encode::{Colour, VideoInputFormat};
use spillway_media::encoded::{EncodedUnit, StreamNumber};
use spillway_media::key_grid::KeyGrid;
use spillway_media::output::{
    Fanout, Feeds, OutputTaker, Pipeline, PipelineEvent, PipelinePlan, RawSink, RepeatRate, TakerEnd, TakerError,
    TakerStart, VariableRate,
};
use spillway_plan::{H264Profile, VideoEncoding};

const SECOND: u64 = 1_000_000_000;

#[derive(Clone, Default)]
struct Collected(Arc<Mutex<Vec<EncodedUnit>>>);

impl OutputTaker for Collected {
    fn take(&mut self, unit: &EncodedUnit) -> Result<(), TakerError> {
        self.0.lock().unwrap().push(unit.clone());
        Ok(())
    }

    fn end(&mut self, _: u64) -> Result<TakerEnd, TakerError> {
        Ok(TakerEnd::Whole)
    }
}

/// Picture `n`: every one differs.
fn picture(n: u64, at: u64) -> gst::Buffer {
    let mut data = vec![128u8; 320 * 180 * 3 / 2];
    for (i, y) in data[..320 * 180].iter_mut().enumerate() {
        *y = 16 + ((i as u64 + n * 7) % 200) as u8;
    }
    let mut buffer = gst::Buffer::from_mut_slice(data);
    let writable = buffer.get_mut().unwrap();
    writable.set_pts(gst::ClockTime::from_nseconds(at));
    writable.set_duration(gst::ClockTime::from_mseconds(33));
    buffer
}

/// An encoder, the ways into it, what comes out, and what it says.
type Running = (Pipeline, Feeds, Collected, Receiver<PipelineEvent>);

fn running(framerate: u32, grid: Option<KeyGrid>) -> Running {
    gst::init().unwrap();
    let encoding = VideoEncoding {
        width: 320,
        height: 180,
        framerate,
        bitrate: 400,
        profile: H264Profile::Main,
        key_frame_interval: None,
    };
    let video = VideoInputFormat::Raw { encoding, colour: Colour::Bt601 };
    let plan = PipelinePlan { video: Some(video), audio: vec![], key_grid: grid };
    let (tell, told) = channel();
    let tell = Mutex::new(tell);
    let fanout = Fanout::new(plan.formats(), move |event| drop(tell.lock().unwrap().send(event)));
    let collected = Collected::default();
    let (id, _) = fanout.reserve();
    let taker = Box::new(collected.clone());
    fanout.add(TakerStart { id, streams: vec![StreamNumber(0)], taker, progress: Arc::default() });
    let (pipeline, feeds) = Pipeline::start(&plan, fanout).unwrap();
    (pipeline, feeds, collected, told)
}

/// What the encoder makes of pictures at these times. `ask_before`: someone asks for a key frame before this picture.
fn encoded(framerate: u32, times: &[u64], grid: Option<KeyGrid>, ask_before: Option<usize>) -> Vec<EncodedUnit> {
    let (pipeline, feeds, collected, told) = running(framerate, grid);
    let feed = feeds.video.unwrap();
    for (n, at) in times.iter().enumerate() {
        if ask_before == Some(n) {
            // The second one is within a second of the first.
            pipeline.key_frames().now();
            pipeline.key_frames().now();
        }
        feed.push(picture(n as u64, *at)).unwrap();
    }
    feed.end();
    all_of(&collected, &told)
}

fn all_of(collected: &Collected, told: &Receiver<PipelineEvent>) -> Vec<EncodedUnit> {
    loop {
        match told.recv_timeout(Duration::from_secs(60)).unwrap() {
            PipelineEvent::Drained => break,
            PipelineEvent::Broke(error) => panic!("{error}"),
            _ => {}
        }
    }
    std::mem::take(&mut *collected.0.lock().unwrap())
}

fn keys(units: &[EncodedUnit]) -> Vec<u64> {
    units.iter().filter(|unit| unit.key).map(|unit| unit.at_ns).collect()
}

/// The first picture at each line or later.
fn on_lines(grid: KeyGrid, times: &[u64]) -> Vec<u64> {
    let lines = (0..).map(|n| grid.line(n)).map_while(|line| times.iter().find(|at| **at >= line));
    let mut keys: Vec<u64> = lines.copied().collect();
    keys.dedup();
    keys
}

fn times(framerate: u64, seconds: u64, is_there: impl Fn(u64) -> bool) -> Vec<u64> {
    (0..seconds * framerate).filter(|n| is_there(*n)).map(|n| n * SECOND / framerate).collect()
}

#[test]
fn every_line_has_its_key_frame_and_nothing_else_has() {
    type Pattern = (&'static str, fn(u64) -> bool);
    let patterns: [Pattern; 3] = [("all", |_| true), ("every second", |n| n % 2 == 0), ("one of four", |n| n % 4 == 0)];
    for framerate in [30, 25, 15] {
        for (pattern, is_there) in patterns {
            for grid in [KeyGrid::new(2 * SECOND, 2 * SECOND), KeyGrid::new(5 * SECOND, 2 * SECOND)] {
                let times = times(framerate, 11, is_there);
                let units = encoded(framerate as u32, &times, Some(grid), None);
                assert!(units.iter().map(|unit| unit.at_ns).eq(times.iter().copied()), "every picture, at its time");
                assert_eq!(keys(&units), on_lines(grid, &times), "{pattern} of {framerate}, {grid:?}");
            }
        }
    }
}

#[test]
fn a_key_frame_that_a_stream_asks_for_moves_no_other() {
    let grid = KeyGrid::new(2 * SECOND, 2 * SECOND);
    let times = times(30, 9, |_| true);
    let mut keys = keys(&encoded(30, &times, Some(grid), Some(100)));
    let off: Vec<u64> = keys.extract_if(.., |at| *at % (2 * SECOND) != 0).collect();
    assert_eq!(keys, on_lines(grid, &times));
    assert_eq!(off.len(), 1, "{off:?}");
    // Pictures that were inside of the encoder are not key frames any more.
    assert!((times[96]..=times[101]).contains(&off[0]), "{off:?}");
}

/// The encoder counts pictures, of which there are few then.
#[test]
fn a_picture_that_stands_still_has_key_frames_all_the_same() {
    let times = times(30, 12, |n| n < 15 || n.is_multiple_of(15));
    let keys = keys(&encoded(30, &times, None, None));
    assert!(keys.len() >= 4 && keys[0] == 0, "{keys:?}");
    let mut apart = keys.windows(2).map(|pair| pair[1] - pair[0]);
    // Two seconds, and the distance of two pictures.
    assert!(apart.all(|ns| (2 * SECOND..=3 * SECOND).contains(&ns)), "{keys:?}");
}

/// A picture of noise, which needs more bits than there are.
fn noise(n: u64, at: u64) -> gst::Buffer {
    let mut random = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut noisy = vec![128u8; 320 * 180 * 3 / 2];
    for y in &mut noisy[..320 * 180] {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        *y = 80 + (random % 64) as u8;
    }
    let mut buffer = gst::Buffer::from_mut_slice(noisy);
    let writable = buffer.get_mut().unwrap();
    writable.set_pts(gst::ClockTime::from_nseconds(at));
    writable.set_duration(gst::ClockTime::from_nseconds(SECOND / 30));
    buffer
}

/// A camera of 15 pictures a second in a recording of 30 gets the bits that were asked for.
#[test]
fn pictures_that_are_encoded_get_the_bits_of_those_left_out() {
    let bytes = |is_new: fn(u64) -> bool| {
        let (_pipeline, feeds, collected, told) = running(30, None);
        let way = VariableRate::new(Box::new(feeds.video.unwrap()), RepeatRate::Recorded, feeds.bits);
        for (n, at) in (0..).zip(times(30, 12, |_| true)) {
            let mut picture = noise(n, at);
            if !is_new(n) {
                picture.get_mut().unwrap().set_flags(gst::BufferFlags::DROPPABLE);
            }
            way.push(picture).unwrap();
        }
        way.end();
        let units = all_of(&collected, &told);
        // Without the beginning, in which the encoder finds its rate.
        let settled = units.iter().filter(|unit| unit.at_ns >= 4 * SECOND);
        (units.len(), settled.map(|unit| unit.data.len()).sum::<usize>())
    };
    let (all, half) = (bytes(|_| true), bytes(|n| n % 2 == 0));
    println!("{all:?} of all pictures, {half:?} of half of them");
    assert_eq!((all.0, half.0), (360, 181), "and the last one");
    let share = half.1 as f64 / all.1 as f64;
    assert!((0.75..1.25).contains(&share), "{share:.2}");
}

#[test]
fn the_same_pictures_give_the_same_bytes() {
    let times = times(30, 5, |_| true);
    for grid in [None, Some(KeyGrid::new(2 * SECOND, 2 * SECOND))] {
        let bytes = || -> Vec<_> { encoded(30, &times, grid, None).into_iter().map(|unit| unit.data).collect() };
        assert!(bytes() == bytes(), "{grid:?}");
    }
}
