//! Streams of three seconds, and how they are published: what the tests of every protocol share.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use bytes::Bytes;
use gst::prelude::*;
use gstreamer as gst;
use gstreamer_app as gst_app;
use spillway_guard::GuardRules;
use spillway_ipc::{MediaSettings, StreamSettings, StreamStart};
use spillway_media::encoded::{EncodedFormat, EncodedUnit, MediaKind, StreamNumber};
use spillway_media::output::{StreamEnd, StreamEvent, Streams};
use spillway_media::track::{Codec, Frame};
use spillway_plan::Secret;

use super::encoded;

pub const PICTURES: u64 = 90;
pub const SIZE: (u32, u32) = (320, 180);
pub const VIDEO: EncodedFormat =
    EncodedFormat::Video { codec: Codec::H264, size: SIZE, framerate: Some(30), bitrate_kbps: Some(400) };
pub const TIMEOUT: Duration = Duration::from_secs(20);

pub fn unit(kind: MediaKind, at_ns: u64, key: bool, data: Bytes) -> EncodedUnit {
    let stream = StreamNumber(u8::from(kind == MediaKind::Audio));
    EncodedUnit { stream, kind, key, at_ns, offset_ns: 0, duration_ns: 0, data }
}

/// Three seconds of pictures.
pub fn pictures() -> Vec<EncodedUnit> {
    let frames = encoded(Codec::H264, SIZE, PICTURES as u32).unwrap();
    let unit = |(n, frame): (u64, Frame)| unit(MediaKind::Video, n * 1_000_000_000 / 30, frame.key, frame.data);
    (0..).zip(frames).map(unit).collect()
}

/// Three seconds of a tone.
pub fn tone() -> Vec<EncodedUnit> {
    gst::init().unwrap();
    let chain = "audiotestsrc num-buffers=141 samplesperbuffer=1024 ! audio/x-raw,rate=48000,channels=2 ! avenc_aac ! \
                 audio/mpeg,stream-format=raw ! appsink name=out sync=false";
    let pipeline = gst::parse::launch(chain).unwrap().downcast::<gst::Pipeline>().unwrap();
    let out: gst_app::AppSink = pipeline.by_name("out").unwrap().downcast().unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let mut units = vec![];
    while let Ok(sample) = out.pull_sample() {
        let data = Bytes::copy_from_slice(&sample.buffer().unwrap().map_readable().unwrap());
        let at_ns = units.len() as u64 * 1024 * 1_000_000_000 / 48_000;
        units.push(unit(MediaKind::Audio, at_ns, true, data));
    }
    pipeline.set_state(gst::State::Null).unwrap();
    units
}

/// To servers on this machine.
fn streams(formats: &[EncodedFormat], settings: StreamSettings) -> (Streams, Receiver<StreamEvent>) {
    let guard = GuardRules { allow: vec!["127.0.0.1".to_owned()] };
    guarded(formats, MediaSettings { streams: settings, guard, ..MediaSettings::default() })
}

fn guarded(formats: &[EncodedFormat], settings: MediaSettings) -> (Streams, Receiver<StreamEvent>) {
    let (tell, events) = channel();
    let said = move |_, event| {
        let _ = tell.send(event);
    };
    (Streams::start(formats.into(), &settings, Arc::new(no_key_frame), Arc::new(said)).unwrap(), events)
}

fn no_key_frame() {
    panic!("a key frame is wanted");
}

/// Publishes the units faster than real time, from when the server has accepted the stream.
pub fn publish(url: &str, formats: &[EncodedFormat], settings: StreamSettings, mut units: Vec<EncodedUnit>) {
    units.sort_by_key(|unit| unit.at_ns);
    let (mut streams, events) = streams(formats, settings);
    let ring = streams.add(StreamStart { id: 0, output: 0, url: Secret::new(url.to_owned()) });
    // A connection that begins with a key frame at hand asks for none.
    ring.put(units.remove(0));
    assert_eq!(events.recv_timeout(TIMEOUT).unwrap(), StreamEvent::Connecting);
    assert_eq!(events.recv_timeout(TIMEOUT).unwrap(), StreamEvent::Active);
    for unit in units {
        ring.put(unit);
        std::thread::sleep(Duration::from_millis(2));
    }
    assert_eq!(ring.stats().dropped, 0);
    streams.remove(0);
    assert_eq!(events.recv_timeout(TIMEOUT).unwrap(), StreamEvent::Ended(StreamEnd::Finished));
}

/// How a stream ends whose server is not reached.
pub fn end(url: &str, settings: StreamSettings) -> StreamEnd {
    ended(url, streams(&[VIDEO], settings))
}

/// How a stream ends of an installation that opens nothing.
pub fn unopened(url: &str) -> StreamEnd {
    ended(url, guarded(&[VIDEO], MediaSettings::default()))
}

fn ended(url: &str, (mut streams, events): (Streams, Receiver<StreamEvent>)) -> StreamEnd {
    let ring = streams.add(StreamStart { id: 0, output: 0, url: Secret::new(url.to_owned()) });
    ring.put(unit(MediaKind::Video, 0, true, Bytes::new()));
    loop {
        if let StreamEvent::Ended(end) = events.recv_timeout(TIMEOUT).unwrap() {
            return end;
        }
    }
}

/// Time in milliseconds of every packet of a stream (`v` or `a`).
pub fn times_ms(file: &Path, stream: &str) -> Vec<u64> {
    let out = Command::new("ffprobe")
        .args(["-v", "error", "-select_streams", stream, "-show_entries", "packet=pts_time", "-of", "csv=p=0"])
        .arg(file)
        .output()
        .unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    let ms = |line: &str| (line.trim_end_matches(',').parse::<f64>().unwrap() * 1000.0).round() as u64;
    text.lines().map(ms).collect()
}
