//! Several outputs of one pipeline: each is what it would be alone.

#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use common::{click_at, click_blocks, complaints, encoded, packets, sound_blocks, tone};
use gstreamer as gst;
use spillway_ipc::SpoolFile;
use spillway_media::compositor::encoder_delay;
use spillway_media::encode::{AudioInputFormat, VideoInputFormat};
use spillway_media::encoded::{EncodedUnit, StreamNumber};
use spillway_media::output::{
    Fanout, FileTakerOptions, OutputTaker, Pipeline, PipelineEvent, PipelinePlan, RawFanout, RawSink, RingBounds,
    RingTaker, TakerEnd, TakerError, TakerId, TakerProgress, TakerStart, UnitRing, add_file,
};
use spillway_media::passthrough::Passthrough;
use spillway_media::track::{Codec, Frame};
use spillway_media::units::MediaTime;
use spillway_plan::{AudioCodec, Container};

const VIDEO: StreamNumber = StreamNumber(0);
const AUDIO: StreamNumber = StreamNumber(1);

/// A recording whose outputs are added before it starts.
struct Outputs {
    fanout: Arc<Fanout>,
    told: Receiver<PipelineEvent>,
}

impl Outputs {
    fn of(plan: &PipelinePlan) -> Self {
        gst::init().unwrap();
        let (tell, told) = channel();
        let tell = std::sync::Mutex::new(tell);
        let fanout = Fanout::new(plan.formats(), move |event| drop(tell.lock().unwrap().send(event)));
        Self { fanout, told }
    }

    fn file(&self, path: &Path, container: Container, streams: &[StreamNumber]) -> (TakerId, Arc<TakerProgress>) {
        let file = SpoolFile::create(path, container).unwrap();
        let options = FileTakerOptions { streams: streams.to_vec(), container, fragment_ms: 1000 };
        add_file(&self.fanout, file, &options).unwrap()
    }

    /// Until the end of all; what ended and what failed.
    fn drained(&self) -> (Vec<TakerId>, Vec<TakerId>) {
        let (mut ended, mut failed) = (vec![], vec![]);
        loop {
            match self.told.recv_timeout(Duration::from_secs(60)).unwrap() {
                PipelineEvent::Flowing => {}
                PipelineEvent::TakerEnded(id) => ended.push(id),
                PipelineEvent::TakerFailed(id, _) => failed.push(id),
                PipelineEvent::Drained => return (ended, failed),
                PipelineEvent::Broke(error) => panic!("{error}"),
            }
        }
    }
}

/// Takes so many units, then no more.
struct Breaking(usize);

impl OutputTaker for Breaking {
    fn take(&mut self, _: &EncodedUnit) -> Result<(), TakerError> {
        self.0 = self.0.checked_sub(1).ok_or_else(|| TakerError::Stream { message: "gone".into() })?;
        Ok(())
    }

    fn end(&mut self, _: u64) -> Result<TakerEnd, TakerError> {
        Ok(TakerEnd::Whole)
    }
}

fn copied_plan() -> PipelinePlan {
    PipelinePlan {
        video: Some(VideoInputFormat::Copied { codec: Codec::H264, size: (320, 180) }),
        audio: vec![AudioInputFormat::Copied { codec: Codec::Opus, channels: 2 }],
        key_grid: None,
    }
}

/// As they happen: neither is far ahead. From one thread, so that two recordings get the same order.
fn copy(outputs: &Outputs, plan: &PipelinePlan, video: &[Frame], audio: &[Frame]) -> (Vec<TakerId>, Vec<TakerId>) {
    let (pipeline, feeds) = Pipeline::start(plan, outputs.fanout.clone()).unwrap();
    let mut picture = Passthrough::new(feeds.video.unwrap(), Codec::H264, MediaTime::ZERO);
    let mut sound = Passthrough::new(feeds.audio[0].clone(), Codec::Opus, MediaTime::ZERO);
    let mut heard = audio.iter().peekable();
    for frame in video {
        while let Some(frame) = heard.next_if(|heard| heard.at <= frame.at) {
            sound.frame(frame).unwrap();
        }
        picture.frame(frame).unwrap();
    }
    heard.for_each(|frame| assert!(sound.frame(frame).is_ok()));
    picture.end();
    sound.end();
    let over = outputs.drained();
    drop(pipeline);
    over
}

#[test]
fn an_mp4_is_byte_by_byte_the_same_beside_a_stream_whose_server_takes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let video = encoded(Codec::H264, (320, 180), 240).unwrap();
    let audio = encoded(Codec::Opus, (0, 0), 400).unwrap();
    let plan = copied_plan();
    let [alone_path, beside_path] = ["alone.mp4", "beside.mp4"].map(|name| dir.path().join(name));

    let alone = Outputs::of(&plan);
    let (only, _) = alone.file(&alone_path, Container::Mp4, &[VIDEO, AUDIO]);
    assert_eq!(copy(&alone, &plan, &video, &audio), (vec![only], vec![]));

    let both = Outputs::of(&plan);
    let (stream, reporter) = both.fanout.reserve();
    let ring = Arc::new(UnitRing::new(RingBounds::Pictures));
    let taker = Box::new(RingTaker::new(ring.clone()));
    both.fanout.add(TakerStart { id: stream, streams: vec![VIDEO, AUDIO], taker, progress: Arc::default() });
    let (file, _) = both.file(&beside_path, Container::Mp4, &[VIDEO, AUDIO]);
    let task = std::thread::spawn(move || {
        while ring.ended_for().is_none() {
            std::thread::sleep(Duration::from_millis(5));
        }
        let stats = ring.stats();
        reporter.ended();
        stats
    });
    let (mut ended, failed) = copy(&both, &plan, &video, &audio);
    ended.sort();
    assert_eq!((ended, failed), (vec![stream, file], vec![]));
    // Eight seconds were put into a ring of five.
    let stats = task.join().unwrap();
    assert!(stats.dropped > 0, "{stats:?}");
    assert!(std::fs::read(alone_path).unwrap() == std::fs::read(beside_path).unwrap(), "they differ");
}

#[test]
fn an_mp4_is_byte_by_byte_the_same_beside_four_other_outputs() {
    let dir = tempfile::tempdir().unwrap();
    let video = encoded(Codec::H264, (320, 180), 120).unwrap();
    let audio = encoded(Codec::Opus, (0, 0), 200).unwrap();
    let plan = copied_plan();
    let path = |name: &str| dir.path().join(name);

    let alone = Outputs::of(&plan);
    let (only, _) = alone.file(&path("alone.mp4"), Container::Mp4, &[VIDEO, AUDIO]);
    assert_eq!(copy(&alone, &plan, &video, &audio), (vec![only], vec![]));

    let many = Outputs::of(&plan);
    let (broken, _) = many.fanout.reserve();
    let taker = Box::new(Breaking(50));
    many.fanout.add(TakerStart { id: broken, streams: vec![VIDEO, AUDIO], taker, progress: Arc::default() });
    let (ogg, ogg_progress) = many.file(&path("a.ogg"), Container::Ogg, &[AUDIO]);
    let (first, first_progress) = many.file(&path("first.mp4"), Container::Mp4, &[VIDEO, AUDIO]);
    let (second, _) = many.file(&path("second.mp4"), Container::Mp4, &[VIDEO, AUDIO]);
    let (silent, _) = many.file(&path("silent.mp4"), Container::Mp4, &[VIDEO]);
    let (mut ended, failed) = copy(&many, &plan, &video, &audio);
    ended.sort();
    assert_eq!((ended, failed), (vec![ogg, first, second, silent], vec![broken]));

    let bytes = std::fs::read(path("alone.mp4")).unwrap();
    for name in ["first.mp4", "second.mp4"] {
        assert!(std::fs::read(path(name)).unwrap() == bytes, "{name} differs");
    }
    assert_eq!(first_progress.written.as_ref().unwrap().end(), bytes.len() as u64);
    for (name, count) in [("a.ogg", audio.len()), ("silent.mp4", 120)] {
        assert_eq!(complaints(&path(name)), "", "{name}");
        assert_eq!(packets(&path(name)).len(), count, "{name}");
    }
    assert_eq!(ogg_progress.media_ns(), audio.len() as u64 * 20_000_000);
    assert_eq!(ogg_progress.waiting_bytes(), 0);
}

#[test]
fn an_output_may_begin_and_end_in_the_middle() {
    let dir = tempfile::tempdir().unwrap();
    let video = encoded(Codec::H264, (320, 180), 120).unwrap();
    let plan = PipelinePlan { audio: vec![], ..copied_plan() };
    let outputs = Outputs::of(&plan);
    let (whole, _) = outputs.file(&dir.path().join("whole.mp4"), Container::Mp4, &[VIDEO]);
    let (pipeline, feeds) = Pipeline::start(&plan, outputs.fanout.clone()).unwrap();
    let mut picture = Passthrough::new(feeds.video.unwrap(), Codec::H264, MediaTime::ZERO);
    let part = dir.path().join("part.mp4");
    let mut added = None;
    for (index, frame) in video.iter().enumerate() {
        if index == 40 {
            added = Some(outputs.file(&part, Container::Mp4, &[VIDEO]).0);
        }
        if index == 90 {
            pipeline.fanout().remove(added.unwrap());
        }
        picture.frame(frame).unwrap();
    }
    picture.end();
    let (ended, failed) = outputs.drained();
    assert_eq!((ended, failed), (vec![added.unwrap(), whole], vec![]));
    drop(pipeline);
    assert_eq!(complaints(&part), "");
    // From the first key frame on (one a second), to where it was taken out.
    assert_eq!(packets(&part).len(), 30);
    assert_eq!(packets(&dir.path().join("whole.mp4")).len(), 120);
}

#[test]
fn one_track_is_copied_into_two_files() {
    let dir = tempfile::tempdir().unwrap();
    let frames = encoded(Codec::Vp8, (320, 180), 60).unwrap();
    let video = VideoInputFormat::Copied { codec: Codec::Vp8, size: (320, 180) };
    let plan = PipelinePlan { video: Some(video), audio: vec![], key_grid: None };
    let outputs = Outputs::of(&plan);
    let (webm, ivf) = (dir.path().join("a.webm"), dir.path().join("a.ivf"));
    outputs.file(&webm, Container::Webm, &[VIDEO]);
    outputs.file(&ivf, Container::Ivf, &[VIDEO]);
    let (pipeline, feeds) = Pipeline::start(&plan, outputs.fanout.clone()).unwrap();
    let mut picture = Passthrough::new(feeds.video.unwrap(), Codec::Vp8, MediaTime::ZERO);
    frames.iter().for_each(|frame| assert!(picture.frame(frame).is_ok()));
    picture.end();
    let (ended, failed) = outputs.drained();
    assert_eq!((ended.len(), failed.len()), (2, 0));
    drop(pipeline);
    let hashes = |path| packets(path).into_iter().map(|(_, hash)| hash).collect::<Vec<_>>();
    assert_eq!(hashes(&webm), hashes(&ivf));
    assert_eq!(hashes(&ivf).len(), 60);
}

/// The mixer is ahead for AAC, whose encoder delays and does not say so; Opus says it.
#[test]
fn a_click_stands_where_it_was_given_in_every_encoding() {
    let dir = tempfile::tempdir().unwrap();
    for frequency in [48_000, 44_100] {
        let ahead = encoder_delay(AudioCodec::Aac, frequency);
        let raw = |codec, frequency| AudioInputFormat::Raw { codec, bitrate: 128, frequency, separate: false };
        let audio = vec![raw(AudioCodec::Aac, frequency), raw(AudioCodec::Opus, 48_000)];
        let plan = PipelinePlan { video: None, audio, key_grid: None };
        let outputs = Outputs::of(&plan);
        let path = |name: &str| dir.path().join(format!("{frequency}-{name}"));
        let files = [("aac.mp4", Container::Mp4, 0), ("opus.ogg", Container::Ogg, 1), ("opus.mp4", Container::Mp4, 1)];
        for (name, container, stream) in files {
            outputs.file(&path(name), container, &[StreamNumber(stream)]);
        }
        let (pipeline, feeds) = Pipeline::start(&plan, outputs.fanout.clone()).unwrap();
        let mixer = RawFanout::new(feeds.audio.into_iter().zip([0, ahead]));
        let click = 48_000 - u64::from(ahead);
        click_blocks(click).for_each(|buffer| mixer.push(buffer).unwrap());
        mixer.end();
        assert_eq!(outputs.drained().1, []);
        drop(pipeline);
        for (name, ..) in files {
            assert_eq!(complaints(&path(name)), "", "{name}");
            let at = click_at(&path(name));
            // The first sample above the bound is a little earlier or later than the click, as codecs ring.
            assert!((at - 48_000).abs() <= 96, "{name} at {frequency} Hz: the click stands at {at}");
        }
    }
}

/// An agent on one side and the people on the other, each loud for 40 ms of 200: what is on one side is not on the other.
#[test]
fn sides_stay_apart_in_every_encoding() {
    let dir = tempfile::tempdir().unwrap();
    let raw = |codec, frequency| AudioInputFormat::Raw { codec, bitrate: 128, frequency, separate: true };
    let audio = vec![raw(AudioCodec::Aac, 44_100), raw(AudioCodec::Opus, 48_000)];
    let plan = PipelinePlan { video: None, audio, key_grid: None };
    let outputs = Outputs::of(&plan);
    let files = [("aac.mp4", Container::Mp4, 0), ("opus.ogg", Container::Ogg, 1)];
    for (name, container, stream) in files {
        outputs.file(&dir.path().join(name), container, &[StreamNumber(stream)]);
    }
    let (pipeline, feeds) = Pipeline::start(&plan, outputs.fanout.clone()).unwrap();
    let mixer = RawFanout::new(feeds.audio.into_iter().zip([0, 0]));
    let sound = |at: u64| {
        let loud = if at % 9600 < 1920 { 0.5 } else { 0.01 };
        [600.0, 900.0].map(|hertz| (std::f64::consts::TAU * hertz * at as f64 / 48_000.0).sin() as f32 * loud)
    };
    sound_blocks(sound).for_each(|buffer| mixer.push(buffer).unwrap());
    mixer.end();
    assert_eq!(outputs.drained().1, []);
    drop(pipeline);
    for (name, ..) in files {
        let path = dir.path().join(name);
        for (hertz, own) in [(600.0, 0), (900.0, 1)] {
            let heard = tone(&path, 0, hertz);
            let decibels = 20.0 * (heard[1 - own] / heard[own]).log10();
            println!("{name}: {hertz} Hz is {decibels:.1} dB on the other side");
            assert!(decibels < -30.0, "{name}: {hertz} Hz is {decibels:.1} dB on the other side");
        }
    }
}
