//! The whole compositor, from encoded frames to raw pictures and samples.

mod media;
mod pictures;
mod sound;
mod begin;
mod decoders;
mod pace;
mod live;
mod chance;
mod late;
mod cost;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::mpsc;
use std::time::Duration;

use bytes::Bytes;
use gstreamer as gst;
use spillway_plan::{LayoutShape, Mixing, StereoSide};

use super::policy::pacing::FURTHEST_NS;
use super::sync::lock::lock;
use super::*;
use crate::encoded::MediaKind;
use crate::output::{FeedError, RawSink};
use crate::track::{Codec, TimelineEvent, Track, TrackId, TrackSource};
use crate::units::{MediaTime, SampleIndex};
use media::{Catch, Caught, MS, TestScript, WHITE, ms, sound, track, video};

const SIZE: Size = Size { width: 320, height: 180 };
/// Nothing here takes longer, however busy the machine is; a compositor that hangs fails instead of standing still.
const TIMEOUT: Duration = Duration::from_secs(120);

struct TestSink {
    catch: Catch,
    slow: Duration,
    breaks_after: usize,
}

impl RawSink for TestSink {
    fn push(&self, buffer: gst::Buffer) -> Result<(), FeedError> {
        std::thread::sleep(self.slow);
        let mut caught = lock(&self.catch);
        if caught.buffers.len() >= self.breaks_after {
            return Err(FeedError(MediaKind::Video));
        }
        let data = Bytes::copy_from_slice(&buffer.map_readable().unwrap());
        let (pts, duration) = (buffer.pts().unwrap().nseconds(), buffer.duration().unwrap().nseconds());
        caught.buffers.push((pts, duration, data));
        caught.repeats.push(buffer.flags().contains(gst::BufferFlags::DROPPABLE));
        Ok(())
    }

    fn end(&self) {
        lock(&self.catch).ended = true;
    }
}

fn options(arrangement: Arrangement) -> CompositorOptions {
    gst::init().unwrap();
    CompositorOptions {
        picture: Some(VideoMixerOptions { size: SIZE, framerate: 30, arrangement, key_grid: None }),
        sound: Some(AudioMixerOptions { mixing: Mixing::Both, lead: 0 }),
        start: StartRule::Composite,
        degradation: DegradationBounds::NEVER,
        backlog_bytes: 64 << 20,
        spill_dir: None,
    }
}

fn tiles(shape: LayoutShape) -> Arrangement {
    Arrangement::Tiles(spillway_plan::LayoutName { shape, light: false })
}

struct ComposedFile {
    pictures: Caught,
    sound: Caught,
    events: Vec<CompositorEvent>,
    stats: CompositorStats,
}

impl ComposedFile {
    /// Luma of picture `n` at a point.
    fn luma(&self, n: usize, x: usize, y: usize) -> u8 {
        self.pictures.buffers[n].2[y * SIZE.width as usize + x]
    }

    fn middle(&self) -> Vec<u8> {
        (0..self.pictures.buffers.len()).map(|n| self.luma(n, 160, 90)).collect()
    }

    fn left(&self) -> Vec<f32> {
        let bytes = self.sound.buffers.iter().flat_map(|(.., data)| data.chunks_exact(8));
        bytes.map(|frame| f32::from_le_bytes([frame[0], frame[1], frame[2], frame[3]])).collect()
    }

    fn right(&self) -> Vec<f32> {
        let bytes = self.sound.buffers.iter().flat_map(|(.., data)| data.chunks_exact(8));
        bytes.map(|frame| f32::from_le_bytes([frame[4], frame[5], frame[6], frame[7]])).collect()
    }

    fn hash(&self) -> (u64, u64) {
        [&self.pictures, &self.sound]
            .map(|caught| {
                let mut hasher = DefaultHasher::new();
                caught.buffers.hash(&mut hasher);
                hasher.finish()
            })
            .into()
    }

    fn start(&self) -> MediaTime {
        self.stats.started.unwrap()
    }
}

struct TestRun {
    compositor: Compositor,
    pictures: Catch,
    sound: Catch,
    events: mpsc::Receiver<CompositorEvent>,
}

impl TestRun {
    fn new(options: CompositorOptions, slow: Duration, breaks_after: usize) -> Self {
        let (pictures, sound) = (Catch::default(), Catch::default());
        let net = |catch: &Catch, slow| -> Box<dyn RawSink> {
            Box::new(TestSink { catch: catch.clone(), slow, breaks_after })
        };
        let (tell, events) = mpsc::channel();
        let video = options.picture.is_some().then(|| net(&pictures, slow));
        let audio = options.sound.is_some().then(|| net(&sound, Duration::ZERO));
        let compositor = Compositor::start(options, video, audio, move |event| drop(tell.send(event))).unwrap();
        Self { compositor, pictures, sound, events }
    }

    fn finish(self) -> ComposedFile {
        let mut events = Vec::new();
        while events.last() != Some(&CompositorEvent::Ended) {
            events.push(self.events.recv_timeout(TIMEOUT).expect("the compositor comes to its end"));
        }
        self.compositor.wait();
        let stats = self.compositor.stats();
        let [pictures, sound] = [&self.pictures, &self.sound].map(|catch| std::mem::take(&mut *lock(catch)));
        ComposedFile { pictures, sound, events, stats }
    }
}

fn make(options: CompositorOptions, script: Vec<TimelineEvent>, end: MediaTime) -> ComposedFile {
    let run = TestRun::new(options, Duration::ZERO, usize::MAX);
    script.into_iter().for_each(|timed| run.compositor.take(timed));
    run.compositor.end_at(end);
    run.finish()
}

fn near(a: u8, b: u8) -> bool {
    a.abs_diff(b) <= 6
}

/// Sample positions at which a beep begins: sound after at least 100 ms of silence.
fn onsets(left: &[f32]) -> Vec<usize> {
    let mut quiet = 4800;
    let mut onsets = Vec::new();
    for (n, sample) in left.iter().enumerate() {
        if sample.abs() < 0.02 {
            quiet += 1;
        } else {
            if quiet >= 4800 {
                onsets.push(n);
            }
            quiet = 0;
        }
    }
    onsets
}

fn one_of_each(codec: Codec, seconds: u64) -> TestScript {
    let (end, camera) = (ms(seconds * 1000), video(codec, (320, 180), 30, seconds, 60));
    TestScript::default()
        .joins(ms(0), track(1, codec, "ann", TrackSource::Camera))
        .joins(ms(0), track(2, Codec::Opus, "ann", TrackSource::Microphone))
        .sends(1, &camera, ms(0), end)
        .sends(2, &sound(Codec::Opus, seconds), ms(0), end)
}

#[test]
fn one_participant_is_recorded_to_the_picture_and_to_the_sample() {
    let script = one_of_each(Codec::H264, 3).ticking(ms(20), ms(3000));
    let made = make(options(Arrangement::Single), script, ms(3000));
    assert_eq!(made.start(), ms(0));
    assert_eq!(made.pictures.buffers.len(), 90);
    for (n, (pts, duration, _)) in made.pictures.buffers.iter().enumerate() {
        assert_eq!(*pts, n as u64 * 1_000_000_000 / 30);
        assert_eq!(pts + duration, (n as u64 + 1) * 1_000_000_000 / 30);
    }
    for (n, luma) in made.middle().into_iter().enumerate() {
        let wanted = if n % 30 < 2 { WHITE } else { 60 };
        assert!(near(luma, wanted), "picture {n}: {luma}");
    }
    assert_eq!(made.left().len(), 3 * 48_000);
    let beeps = onsets(&made.left());
    assert_eq!(beeps.len(), 3, "{beeps:?}");
    // A codec may ring a little before a beep; half a millisecond is nothing.
    for (n, beep) in beeps.iter().enumerate() {
        assert!(beep.abs_diff(n * 48_000) < 24, "{beeps:?}");
    }
    assert!(made.pictures.ended && made.sound.ended);
    assert_eq!(made.stats.distinct_frames, 90);
    assert!(made.stats.silence_ns > 2500 * MS && made.stats.silence_ns < 2900 * MS, "{:?}", made.stats);
}

/// Joins, leaves, mutes, a stall, a layout change, two codecs, and sound beside it.
fn busy_room(seconds: u64) -> (TestScript, MediaTime) {
    let end = ms(seconds * 1000);
    let of = |codec, luma| video(codec, (320, 180), 30, seconds, luma);
    let (ann, bob, eve) = (of(Codec::H264, 40), of(Codec::Vp8, 80), video(Codec::H264, (160, 90), 15, seconds, 120));
    let speaks = sound(Codec::Opus, seconds);
    let script = TestScript::default()
        .joins(ms(0), track(1, Codec::H264, "ann", TrackSource::Camera))
        .joins(ms(0), track(2, Codec::Opus, "ann", TrackSource::Microphone))
        .joins(ms(900), track(3, Codec::Vp8, "bob", TrackSource::Camera))
        .joins(ms(1900), track(4, Codec::H264, "eve", TrackSource::ScreenShare))
        .sends(1, &ann, ms(0), ms(2500))
        .sends(1, &ann, ms(4000), end) // stalls in between
        .sends(2, &speaks, ms(0), ms(3100))
        .mutes(ms(3100), 2)
        .sends(2, &speaks, ms(4000), end)
        .sends(3, &bob, ms(1000), ms(3000))
        .mutes(ms(3000), 3)
        .sends(3, &bob, ms(4000), ms(4600))
        .leaves(ms(4600), 3)
        .sends(4, &eve, ms(2000), ms(3500))
        .leaves(ms(3500), 4)
        .layout(ms(4200), "speaker");
    (script, end)
}
