//! Files as they leave the pipeline: whole after a clean end, playable when cut anywhere.

#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use gstreamer as gst;
use spillway_media::outlet::Keeper;
use spillway_media::pipeline::{AudioIn, Colour, Feeds, Pipeline, PipelineEvent, PipelinePlan, VideoIn};
use spillway_plan::{AudioCodec, Container, H264Profile, VideoEncoding};

struct Disk(File);

impl Keeper for Disk {
    fn write_at(&mut self, at: u64, bytes: &[u8]) -> std::io::Result<()> {
        self.0.write_all_at(bytes, at)
    }
}

fn encoding() -> VideoEncoding {
    VideoEncoding {
        width: 320,
        height: 180,
        framerate: 30,
        bitrate: 400,
        profile: H264Profile::Main,
        key_frame_interval: None,
    }
}

fn start(plan: &PipelinePlan, path: &Path) -> (Pipeline, Feeds, Receiver<PipelineEvent>) {
    gst::init().unwrap();
    let (tell, told) = channel();
    let tell = std::sync::Mutex::new(tell);
    let keeper = Box::new(Disk(File::create(path).unwrap()));
    let (pipeline, feeds) = Pipeline::start(plan, keeper, move |event| {
        let _ = tell.lock().unwrap().send(event);
    })
    .unwrap();
    (pipeline, feeds, told)
}

/// Seconds of pictures in which every picture differs, and of a tone.
fn feed_raw(feeds: &Feeds, seconds: u32) {
    let video = feeds.video.clone();
    let audio = feeds.audio.clone();
    std::thread::scope(|threads| {
        if let Some(video) = video {
            threads.spawn(move || {
                for n in 0..u64::from(seconds) * 30 {
                    let mut data = vec![128u8; 320 * 180 * 3 / 2];
                    for (i, y) in data[..320 * 180].iter_mut().enumerate() {
                        *y = 16 + ((i as u64 + n * 7) % 200) as u8;
                    }
                    let mut buffer = gst::Buffer::from_mut_slice(data);
                    let b = buffer.get_mut().unwrap();
                    b.set_pts(gst::ClockTime::from_nseconds(n * 1_000_000_000 / 30));
                    b.set_duration(gst::ClockTime::from_nseconds(1_000_000_000 / 30));
                    video.push(buffer).unwrap();
                }
                video.end();
            });
        }
        if let Some(audio) = audio {
            threads.spawn(move || {
                for n in 0..u64::from(seconds) * 50 {
                    let samples = (0..960).flat_map(|i| {
                        let t = (n * 960 + i) as f32 / 48_000.0;
                        let s = (t * 440.0 * std::f32::consts::TAU).sin() * 0.3;
                        [s, s]
                    });
                    let data: Vec<u8> = samples.flat_map(f32::to_le_bytes).collect();
                    let mut buffer = gst::Buffer::from_mut_slice(data);
                    let b = buffer.get_mut().unwrap();
                    b.set_pts(gst::ClockTime::from_mseconds(n * 20));
                    b.set_duration(gst::ClockTime::from_mseconds(20));
                    audio.push(buffer).unwrap();
                }
                audio.end();
            });
        }
    });
}

fn drained(told: &Receiver<PipelineEvent>) {
    match told.recv_timeout(Duration::from_secs(60)).unwrap() {
        PipelineEvent::Drained => {}
        PipelineEvent::Broke(error) => panic!("{error}"),
    }
}

fn raw(container: Container, video: bool, codec: AudioCodec) -> PipelinePlan {
    PipelinePlan {
        video: video.then(|| VideoIn::Raw { encoding: encoding(), colour: Colour::Bt601 }),
        audio: Some(AudioIn::Raw { codec, bitrate: 128, frequency: 48_000 }),
        container,
        fragment_ms: 1000,
    }
}

/// What ffmpeg complains about when it decodes the whole file.
fn complaints(path: &Path) -> String {
    let out = Command::new("ffmpeg").args(["-v", "error", "-i"]).arg(path).args(["-f", "null", "-"]).output().unwrap();
    String::from_utf8_lossy(&out.stderr).into_owned()
}

fn seconds(path: &Path) -> f64 {
    let out = Command::new("ffprobe")
        .args(["-v", "error", "-show_entries", "packet=pts_time,duration_time", "-of", "csv=p=0"])
        .arg(path)
        .output()
        .unwrap();
    String::from_utf8_lossy(&out.stdout)
        .lines()
        .filter_map(|line| line.split(',').next()?.parse::<f64>().ok())
        .fold(0.0, f64::max)
}

#[test]
fn a_clean_end_leaves_a_whole_file_of_every_container() {
    let dir = tempfile::tempdir().unwrap();
    for (container, video, codec, name) in [
        (Container::Mp4, true, AudioCodec::Aac, "a.mp4"),
        (Container::Mp4, true, AudioCodec::Opus, "b.mp4"),
        (Container::Mp4, false, AudioCodec::Aac, "c.mp4"),
        (Container::Ogg, false, AudioCodec::Opus, "d.ogg"),
        (Container::Mp3, false, AudioCodec::Mp3, "e.mp3"),
    ] {
        let path = dir.path().join(name);
        let (pipeline, feeds, told) = start(&raw(container, video, codec), &path);
        feed_raw(&feeds, 3);
        drained(&told);
        assert_eq!(pipeline.written(), std::fs::metadata(&path).unwrap().len());
        drop(pipeline);
        assert_eq!(complaints(&path), "", "{name}");
        let end = seconds(&path);
        assert!((2.9..3.1).contains(&end), "{name} ends at {end}");
    }
}
