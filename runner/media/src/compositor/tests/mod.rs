//! The whole scene, from encoded frames to raw pictures and samples.

mod media;
mod cost;
mod chance;
mod late;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::mpsc;
use std::time::Duration;

use bytes::Bytes;
use gstreamer as gst;
use spillway_plan::{LayoutShape, Mixing};

use super::*;
use crate::output::{FeedError, MediaKind};
use crate::track::{Codec, TrackSource};
use media::{Catch, Caught, MS, TestScript, WHITE, ms, sound, track, video};

const SIZE: Size = Size { width: 320, height: 180 };
/// Nothing here takes longer, however busy the machine is; a scene that hangs fails instead of standing still.
const REORDER_WAIT: Duration = Duration::from_secs(120);

struct TestNetwork {
    catch: Catch,
    slow: Duration,
    breaks_after: usize,
}

impl RawSink for TestNetwork {
    fn push(&self, buffer: gst::Buffer) -> Result<(), FeedError> {
        std::thread::sleep(self.slow);
        let mut caught = lock(&self.catch);
        if caught.buffers.len() >= self.breaks_after {
            return Err(FeedError(MediaKind::Video));
        }
        let data = Bytes::copy_from_slice(&buffer.map_readable().unwrap());
        let (pts, duration) = (buffer.pts().unwrap().nseconds(), buffer.duration().unwrap().nseconds());
        caught.buffers.push((pts, duration, data));
        Ok(())
    }

    fn end(&self) {
        lock(&self.catch).ended = true;
    }
}

fn options(arrangement: Arrangement) -> CompositorOptions {
    gst::init().unwrap();
    CompositorOptions {
        picture: Some(VideoMixerOptions { size: SIZE, framerate: 30, arrangement, hold_ns: 3000 * MS }),
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
            Box::new(TestNetwork { catch: catch.clone(), slow, breaks_after })
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
            events.push(self.events.recv_timeout(REORDER_WAIT).expect("the scene comes to its end"));
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

#[test]
fn a_room_shows_who_is_there_from_the_exact_picture_on() {
    let (script, end) = busy_room(5);
    let made = make(options(tiles(LayoutShape::Grid)), script.ticking(ms(20), end), end);
    assert_eq!(made.pictures.buffers.len(), 150);
    let at = |millis: usize, x, y| made.luma(millis * 30 / 1000, x, y);
    // Alone: the whole frame. Picture 30 is the first of the second participant.
    assert!(near(made.luma(29, 300, 90), 40));
    assert!(near(made.luma(35, 80, 90), 40) && near(made.luma(35, 240, 90), 80), "two side by side");
    // A screen share takes the stage; the two others stand in the carousel.
    assert!(near(at(2400, 200, 90), 120) && near(at(2400, 20, 10), 40));
    assert!(near(at(2400, 20, 45), 80));
    // ann stalls: her last picture is held. bob is muted at 3.0 exactly.
    assert!(near(made.luma(89, 20, 45), 80) && near(made.luma(90, 20, 45), 16));
    assert!(near(at(3700, 160, 90), 40), "alone again after the screen share left");
    // From the exact picture the speaker layout is asked for, ann has the stage.
    assert!(near(made.luma(125, 80, 90), 40) && near(made.luma(125, 240, 90), 80));
    assert!(near(made.luma(126, 240, 90), 40) && near(made.luma(126, 20, 10), 80));
    assert!(near(at(4650, 20, 10), 40), "bob left");
    // Her microphone was muted in between: the beeps are those she sent. (At 3.0 s before, at 4.0 s after the mute.)
    let beeps = onsets(&made.left());
    assert_eq!(beeps.len(), 5, "{beeps:?}");
}

#[test]
fn a_picture_is_shown_at_the_output_time_nearest_to_it() {
    let by = |offset: u64| -> Vec<(u64, bool, Bytes)> {
        let clip = video(Codec::H264, (160, 90), 30, 3, 60);
        clip.into_iter().map(|(at, key, data)| (at + offset * MS, key, data)).collect()
    };
    // The output begins with ann's first picture: hers are exact. bob's come 10 ms after hers, eve's 20 ms after them.
    let script = ["ann", "bob", "eve"].iter().zip([0, 10, 20]).zip(1..).fold(
        TestScript::default(),
        |script, ((identity, offset), id)| {
            script.joins(ms(0), track(id, Codec::H264, identity, TrackSource::Camera)).sends(
                id,
                &by(offset),
                ms(0),
                ms(3000),
            )
        },
    );
    let made = make(options(tiles(LayoutShape::Grid)), script.ticking(ms(20), ms(3000)), ms(3000));
    assert_eq!(made.start(), ms(0));
    let flashes = |x, y| (20..89usize).filter(|n| near(made.luma(*n, x, y), WHITE)).collect::<Vec<_>>();
    assert_eq!(flashes(80, 45), [30, 31, 60, 61]);
    assert_eq!(flashes(240, 45), [30, 31, 60, 61]);
    assert_eq!(flashes(80, 135), [31, 32, 61, 62]);
}

#[test]
fn the_same_session_gives_the_same_recording_however_it_arrives() {
    let (script, end) = busy_room(4);
    let arrangement = options(tiles(LayoutShape::Speaker));
    let usual = make(arrangement.clone(), script.clone().ticking(ms(20), end), end);
    let coarse = make(arrangement.clone(), script.clone().ticking(ms(700), end), end);
    assert_eq!(usual.hash(), coarse.hash());

    // A feed that is slow, as under an encoder that gets no processor, and a backlog that goes to disk.
    let dir = tempfile::tempdir().unwrap();
    let tight = CompositorOptions { backlog_bytes: 2000, spill_dir: Some(dir.path().to_owned()), ..arrangement };
    let run = TestRun::new(tight, Duration::from_millis(4), usize::MAX);
    script.ticking(ms(100), end).into_iter().for_each(|timed| run.compositor.take(timed));
    assert!(run.compositor.stats().backlog.spilled > 0);
    run.compositor.end_at(end);
    let slow = run.finish();
    assert_eq!(usual.hash(), slow.hash());
    assert_eq!(slow.stats.backlog.memory + slow.stats.backlog.spilled, 0);
    assert_eq!(slow.stats.backlog.refused_frames, 0);
}

#[test]
fn fed_at_the_live_edge_it_is_the_same_recording() {
    let (script, end) = busy_room(4);
    let at_once = make(options(tiles(LayoutShape::Grid)), script.clone().ticking(ms(20), end), end);
    let run = TestRun::new(options(tiles(LayoutShape::Grid)), Duration::ZERO, usize::MAX);
    for timed in script.ticking(ms(10), end) {
        let edge = if let TimelineEvent::Watermark { at } = timed { at.ns() } else { 0 };
        run.compositor.take(timed);
        let began = std::time::Instant::now();
        // The next tick comes when everything that can be made is made: a picture wants to know half an interval more;
        // sound is let into its decoder 100 ms at a time, mixed 100 ms at a time, and wants to know 20 ms more. Both want
        // to know that nothing is moved ahead that far.
        let ahead = FURTHEST_NS as u64;
        let behind = |stats: CompositorStats| {
            stats.picture_ns + 51 * MS + ahead < edge || stats.sound_ns + 240 * MS + ahead < edge
        };
        while behind(run.compositor.stats()) {
            assert!(began.elapsed() < REORDER_WAIT, "{edge}: {:?}", run.compositor.stats());
            std::thread::yield_now();
        }
    }
    run.compositor.end_at(end);
    assert_eq!(at_once.hash(), run.finish().hash());
}

#[test]
fn a_resolution_that_changes_is_only_another_picture() {
    for codec in [Codec::H264, Codec::Vp8] {
        let (small, large) = (video(codec, (160, 90), 30, 2, 60), video(codec, (640, 360), 30, 2, 100));
        let script = TestScript::default()
            .joins(ms(0), track(1, codec, "ann", TrackSource::Camera))
            .sends(1, &small, ms(0), ms(1000))
            .sends(1, &large, ms(1000), ms(2000));
        let made = make(options(Arrangement::Single), script.ticking(ms(20), ms(2000)), ms(2000));
        let middle = made.middle();
        assert!(near(middle[29], 60) && near(middle[30], WHITE) && near(middle[59], 100), "{codec:?}: {middle:?}");
        assert_eq!(made.stats.broken_frames, 0);
    }
}

#[test]
fn every_codec_is_decoded() {
    for codec in [Codec::Vp9, Codec::Av1, Codec::H265] {
        let frames = video(codec, (160, 90), 30, 1, 60);
        let script = TestScript::default().joins(ms(0), track(1, codec, "ann", TrackSource::Camera)).sends(
            1,
            &frames,
            ms(0),
            ms(1000),
        );
        let made = make(options(Arrangement::Single), script.ticking(ms(20), ms(1000)), ms(1000));
        let middle = made.middle();
        assert!(near(middle[0], WHITE) && near(middle[29], 60), "{codec:?}: {middle:?}");
    }
    for codec in [Codec::Pcmu, Codec::Pcma] {
        let script = TestScript::default().joins(ms(0), track(1, codec, "ann", TrackSource::Microphone)).sends(
            1,
            &sound(codec, 3),
            ms(0),
            ms(3000),
        );
        let made = make(
            CompositorOptions { picture: None, ..options(Arrangement::Single) },
            script.ticking(ms(20), ms(3000)),
            ms(3000),
        );
        let beeps = onsets(&made.left());
        assert_eq!(beeps.len(), 3, "{codec:?}: {beeps:?}");
        assert!(beeps.iter().enumerate().all(|(n, beep)| beep.abs_diff(n * 48_000) < 240), "{codec:?}: {beeps:?}");
    }
}

#[test]
fn a_broken_track_costs_its_own_tile_and_asks_for_a_key_frame() {
    let good = video(Codec::Vp8, (160, 90), 30, 3, 60);
    let mut bad = video(Codec::Vp8, (160, 90), 30, 3, 100);
    for (n, (_, key, data)) in bad.iter_mut().enumerate() {
        if (40..50).contains(&n) {
            *key = n == 40;
            *data = Bytes::from(vec![(n * 37 % 251) as u8 & !1; 300]);
        }
    }
    let script = TestScript::default()
        .joins(ms(0), track(1, Codec::Vp8, "ann", TrackSource::Camera))
        .joins(ms(0), track(2, Codec::Vp8, "bob", TrackSource::Camera))
        .sends(1, &good, ms(0), ms(3000))
        .sends(2, &bad, ms(0), ms(3000));
    let made = make(options(tiles(LayoutShape::Grid)), script.ticking(ms(20), ms(3000)), ms(3000));
    assert_eq!(made.pictures.buffers.len(), 90);
    assert!((0..90).all(|n| near(made.luma(n, 80, 90), if n % 30 < 2 { WHITE } else { 60 })));
    assert!(near(made.luma(89, 240, 90), 100), "decoded again after the next key frame");
    assert!(
        made.events.contains(&CompositorEvent::LayerRequest(LayerRequest::KeyFrame { track: TrackId(2) })),
        "{:?}",
        made.events
    );
    assert!(made.stats.broken_frames > 0);
}

#[test]
fn overload_skips_every_second_picture_and_never_sound() {
    let (script, end) = busy_room(3);
    let bounds = DegradationBounds { half_above_ns: 1000 * MS, lower_above_ns: 60_000 * MS };
    let run = TestRun::new(
        CompositorOptions { degradation: bounds, ..options(tiles(LayoutShape::Grid)) },
        Duration::ZERO,
        usize::MAX,
    );
    // Everything at once: three seconds behind from the first picture on, until half a second is left.
    script.ticking(end, end).into_iter().for_each(|timed| run.compositor.take(timed));
    run.compositor.end_at(end);
    let made = run.finish();
    let CompositorStats { pictures, frames_skipped, .. } = made.stats;
    assert_eq!(pictures + frames_skipped, 90);
    assert!((36..=38).contains(&frames_skipped), "{frames_skipped}");
    assert_eq!(made.pictures.buffers[1].0, 66_666_666, "a gap, not a shift");
    assert_eq!(made.left().len(), 3 * 48_000);
    assert_eq!(made.stats.longest_lag_ns, 3000 * MS);
}

#[test]
fn an_unmuted_video_is_shown_and_another_live_one_when_it_goes() {
    let (ann, share) = (video(Codec::Vp8, (160, 90), 30, 3, 60), video(Codec::Vp8, (160, 90), 30, 3, 100));
    let script = TestScript::default()
        .joins(ms(0), track(1, Codec::Vp8, "ann", TrackSource::Camera))
        .joins(ms(900), track(2, Codec::Vp8, "ann", TrackSource::Unknown))
        .sends(1, &ann, ms(0), ms(3000))
        .sends(2, &share, ms(1000), ms(2000))
        .mutes(ms(2000), 2);
    let made = make(options(Arrangement::Single), script.ticking(ms(20), ms(3000)), ms(3000));
    let middle = made.middle();
    assert!(near(middle[29], 60) && near(middle[40], 100) && near(middle[59], 100), "{middle:?}");
    assert!(near(middle[65], 60), "livekit/egress would be black from here on: {middle:?}");
}

#[test]
fn a_picture_is_held_for_a_while_and_then_the_tile_goes() {
    let ann = video(Codec::Vp8, (320, 180), 30, 1, 60);
    let script = TestScript::default().joins(ms(0), track(1, Codec::Vp8, "ann", TrackSource::Camera)).sends(
        1,
        &ann,
        ms(0),
        ms(1000),
    );
    let made = make(options(Arrangement::Single), script.ticking(ms(20), ms(6000)), ms(6000));
    let middle = made.middle();
    assert!(middle[29..119].iter().all(|luma| near(*luma, 60)), "{middle:?}");
    assert!(middle[121..].iter().all(|luma| near(*luma, 16)), "{middle:?}");
    assert!((2900 * MS..3100 * MS).contains(&made.stats.longest_freeze_ns), "{:?}", made.stats);
    assert_eq!(made.stats.distinct_frames, 31, "thirty, and the one without the tile");
}

#[test]
fn a_room_without_a_picture_starts_with_its_sound_and_waits_for_a_live_camera() {
    let speaks = sound(Codec::Opus, 3);
    let microphone = track(2, Codec::Opus, "ann", TrackSource::Microphone);
    let script = TestScript::default().joins(ms(200), microphone.clone()).sends(2, &speaks, ms(1000), ms(3000));
    let made = make(options(tiles(LayoutShape::Grid)), script.ticking(ms(20), ms(3000)), ms(3000));
    assert_eq!(made.start(), ms(1000));
    assert_eq!(made.pictures.buffers.len(), 60);
    assert!(made.middle().iter().all(|luma| *luma == 16));

    let camera = video(Codec::H264, (160, 90), 30, 3, 60);
    let script = TestScript::default()
        .joins(ms(200), microphone)
        .joins(ms(200), track(1, Codec::H264, "ann", TrackSource::Camera))
        .sends(2, &speaks, ms(400), ms(3000))
        .sends(1, &camera, ms(2000), ms(3000));
    let made = make(options(tiles(LayoutShape::Grid)), script.ticking(ms(20), ms(3000)), ms(3000));
    assert_eq!(made.start(), ms(2000));
    assert_eq!((made.pictures.buffers.len(), made.left().len()), (30, 48_000));
}

#[test]
fn the_first_picture_of_a_file_is_a_real_one_when_a_video_is_published() {
    let speaks = sound(Codec::Opus, 4);
    let (microphone, camera) =
        (track(2, Codec::Opus, "ann", TrackSource::Microphone), track(1, Codec::H264, "ann", TrackSource::Camera));
    let clip = video(Codec::H264, (320, 180), 30, 4, 60);
    // The microphone is heard at once, the camera's next key frame is three seconds away.
    let script = |muted| {
        TestScript::default()
            .publishes(ms(0), &camera, muted)
            .joins(ms(0), microphone.clone())
            .sends(2, &speaks, ms(0), ms(4000))
            .joins(ms(3000), camera.clone())
            .sends(1, &clip, ms(3000), ms(4000))
            .ticking(ms(20), ms(4000))
    };
    for (arrangement, start) in
        [(tiles(LayoutShape::Grid), StartRule::Composite), (Arrangement::Single, StartRule::FirstMedium)]
    {
        let with = |muted| make(CompositorOptions { start, ..options(arrangement) }, script(muted), ms(4000));
        let made = with(false);
        assert_eq!(made.start(), ms(3000), "{start:?}");
        assert_eq!((made.pictures.buffers.len(), made.left().len()), (30, 48_000));
        assert!(near(made.middle()[0], WHITE), "{:?}", made.middle());
        assert!(onsets(&made.left())[0] < 24, "the sound of the same moment");
        let made = with(true);
        assert_eq!((made.start(), made.middle()[0]), (ms(0), 16), "a muted camera is not waited for");
    }
}

#[test]
fn a_published_video_that_never_comes_does_not_keep_a_recording_from_its_start() {
    let speaks = sound(Codec::Opus, 7);
    let script = TestScript::default()
        .publishes(ms(0), &track(1, Codec::H264, "ann", TrackSource::Camera), false)
        .joins(ms(0), track(2, Codec::Opus, "ann", TrackSource::Microphone))
        .sends(2, &speaks, ms(0), ms(7000))
        .ticking(ms(20), ms(7000));
    let run = TestRun::new(options(tiles(LayoutShape::Grid)), Duration::ZERO, usize::MAX);
    script.into_iter().for_each(|timed| run.compositor.take(timed));
    let started = run.events.recv_timeout(REORDER_WAIT).unwrap();
    assert_eq!(started, CompositorEvent::Started { at: ms(0) }, "before its end is told, and no sound is lost");
    run.compositor.end_at(ms(7000));
    assert_eq!(run.finish().left().len(), 7 * 48_000);
}

#[test]
fn an_upright_camera_is_seen_whole_also_when_it_is_turned_while_recording() {
    let (lying, upright) = (video(Codec::Vp8, (320, 180), 30, 2, 60), video(Codec::Vp8, (96, 160), 30, 2, 100));
    for (arrangement, shape) in [
        (tiles(LayoutShape::Grid), "grid"),
        (tiles(LayoutShape::Speaker), "speaker"),
        (tiles(LayoutShape::SingleSpeaker), "single-speaker"),
    ] {
        let script = TestScript::default()
            .joins(ms(0), track(1, Codec::Vp8, "ann", TrackSource::Camera))
            .sends(1, &lying, ms(0), ms(1000))
            .sends(1, &upright, ms(1000), ms(2000));
        let made = make(options(arrangement), script.ticking(ms(20), ms(2000)), ms(2000));
        // Lying: to both edges. Upright: 108 of 320 columns in the middle, and all lines.
        assert!([10, 160, 310].iter().all(|x| near(made.luma(20, *x, 90), 60)), "{shape}");
        for (x, wanted) in [(10, 16), (100, 16), (112, 100), (160, 100), (208, 100), (220, 16), (310, 16)] {
            for y in [2, 90, 177] {
                let luma = made.luma(50, x, y);
                assert!(near(luma, wanted), "{shape} at {x},{y}: {luma}");
            }
        }
    }
}

#[test]
fn a_camera_with_a_picture_in_three_seconds_does_not_freeze_and_a_stalled_one_does() {
    let clip = video(Codec::Vp8, (320, 180), 30, 20, 60);
    // Key frames stand at whole seconds.
    let freeze = |seconds: &[u64]| {
        let frames: Vec<_> = clip
            .iter()
            .filter(|(at, ..)| seconds.contains(&(at / 1_000_000_000)) && at.is_multiple_of(1_000_000_000))
            .cloned()
            .collect();
        let script = TestScript::default().joins(ms(0), track(1, Codec::Vp8, "ann", TrackSource::Camera)).sends(
            1,
            &frames,
            ms(0),
            ms(20_000),
        );
        let options = options(tiles(LayoutShape::Grid));
        let picture = options.picture.clone().map(|picture| VideoMixerOptions { hold_ns: HOLD_NS, ..picture });
        let made = make(CompositorOptions { picture, ..options }, script.ticking(ms(100), ms(20_000)), ms(20_000));
        made.stats.longest_freeze_ns / MS
    };
    assert!(freeze(&[0, 3, 6, 9, 12, 15, 18]) <= 1000);
    assert!((8900..9100).contains(&freeze(&[0, 1, 2, 3, 4, 13, 14, 15, 16, 17, 18, 19])));
}

#[test]
fn agents_are_heard_left_and_everybody_else_right() {
    let speaks = sound(Codec::Opus, 2);
    let agent = Track { agent: true, ..track(2, Codec::Opus, "bot", TrackSource::Microphone) };
    let script = TestScript::default()
        .joins(ms(0), track(1, Codec::Opus, "ann", TrackSource::Microphone))
        .joins(ms(0), agent)
        .sends(1, &speaks, ms(0), ms(1900))
        .sends(2, &speaks, ms(500), ms(2000));
    let sound = Some(AudioMixerOptions { mixing: Mixing::AgentsLeft, lead: 0 });
    let made = make(
        CompositorOptions { picture: None, sound, ..options(Arrangement::Single) },
        script.ticking(ms(20), ms(2000)),
        ms(2000),
    );
    assert_eq!(onsets(&made.left()).len(), 1, "the agent's only beep");
}

#[test]
fn the_encoders_delay_is_taken_out() {
    let lead = encoder_delay(spillway_plan::AudioCodec::Aac, 48_000);
    assert_eq!(lead, 1024);
    let with = |lead| {
        let sound = Some(AudioMixerOptions { mixing: Mixing::Both, lead });
        let script = one_of_each(Codec::Vp8, 2).ticking(ms(20), ms(2000));
        make(CompositorOptions { sound, ..options(Arrangement::Single) }, script, ms(2000)).left()
    };
    let (plain, led) = (with(0), with(lead));
    assert_eq!(plain.len(), led.len());
    let (plain, led) = (onsets(&plain), onsets(&led));
    assert_eq!(plain[1] - led[1], 1024);
}

#[test]
fn nobody_waits_for_a_scene_that_is_dropped_or_whose_feed_is_closed() {
    let (script, end) = busy_room(2);
    for end_before in [ms(0), ms(0)] {
        let made = make(options(tiles(LayoutShape::Grid)), Vec::new(), end_before);
        assert!(made.pictures.ended && made.sound.ended && made.pictures.buffers.is_empty());
    }
    let run = TestRun::new(options(tiles(LayoutShape::Grid)), Duration::ZERO, 5);
    script.clone().ticking(ms(20), end).into_iter().for_each(|timed| run.compositor.take(timed));
    let made = run.finish();
    assert_eq!(made.pictures.buffers.len(), 5);

    let run = TestRun::new(options(tiles(LayoutShape::Grid)), Duration::from_millis(50), usize::MAX);
    script.ticking(ms(20), end).into_iter().for_each(|timed| run.compositor.take(timed));
    let TestRun { compositor, events, pictures, .. } = run;
    drop(compositor);
    while events.recv_timeout(REORDER_WAIT).expect("it says its end") != CompositorEvent::Ended {}
    assert!(lock(&pictures).ended);
}
