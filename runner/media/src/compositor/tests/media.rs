//! Small media made on the spot: pictures of one colour that flash white, and beeps, encoded by GStreamer.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;

use crate::track::{Codec, Frame, TimelineEvent, Track, TrackId, TrackSource};
use crate::units::MediaTime;

pub const MS: u64 = 1_000_000;

pub fn ms(ms: u64) -> MediaTime {
    MediaTime::from_ns(ms * MS)
}

/// What an encoder made of `raw`, buffer by buffer.
pub fn encoded(caps: &str, chain: &str, raw: impl Iterator<Item = Vec<u8>>) -> Vec<(bool, Bytes)> {
    gst::init().unwrap();
    let text = format!(
        "appsrc name=in format=time caps={caps} ! {chain} ! appsink name=out sync=false async=false max-buffers=0"
    );
    let pipeline = gst::parse::launch(&text).unwrap().downcast::<gst::Pipeline>().unwrap();
    let appsrc = pipeline.by_name("in").unwrap().downcast::<gst_app::AppSrc>().unwrap();
    let appsink = pipeline.by_name("out").unwrap().downcast::<gst_app::AppSink>().unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    appsrc.set_property("block", false);
    appsrc.set_max_bytes(0);
    let mut pts = 0;
    for data in raw {
        let mut buffer = gst::Buffer::from_mut_slice(data);
        buffer.make_mut().set_pts(gst::ClockTime::from_mseconds(pts));
        pts += 40;
        appsrc.push_buffer(buffer).unwrap();
    }
    appsrc.end_of_stream().unwrap();
    collected(&pipeline, &appsink)
}

/// What a pipeline text with an appsink called `out` gives.
pub fn drained(text: &str) -> Vec<(bool, Bytes)> {
    gst::init().unwrap();
    let pipeline = gst::parse::launch(text).unwrap().downcast::<gst::Pipeline>().unwrap();
    let appsink = pipeline.by_name("out").unwrap().downcast::<gst_app::AppSink>().unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    collected(&pipeline, &appsink)
}

fn collected(pipeline: &gst::Pipeline, appsink: &gst_app::AppSink) -> Vec<(bool, Bytes)> {
    let mut out = Vec::new();
    while let Ok(sample) = appsink.pull_sample() {
        let buffer = sample.buffer_owned().unwrap();
        let key = !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT);
        if buffer.flags().contains(gst::BufferFlags::HEADER) && buffer.pts().is_none() {
            continue;
        }
        out.push((key, Bytes::copy_from_slice(&buffer.map_readable().unwrap())));
    }
    pipeline.set_state(gst::State::Null).unwrap();
    out
}

/// A picture of one luma; white while it flashes: the first 50 ms of each second.
fn flat(width: usize, height: usize, luma: u8, chroma: [u8; 2]) -> Vec<u8> {
    assert!(width.is_multiple_of(8) && height.is_multiple_of(2), "no padding, as GStreamer lays out I420");
    let mut data = vec![luma; width * height];
    for value in chroma {
        data.extend(std::iter::repeat_n(value, width * height / 4));
    }
    data
}

pub const WHITE: u8 = 220;

pub fn flashes(n: u64, fps: u64) -> bool {
    (n * 1000 / fps) % 1000 < 50
}

/// Frames of one colour that flashes, one key frame a second.
pub fn video(codec: Codec, size: (u32, u32), fps: u64, seconds: u64, luma: u8) -> Vec<(u64, bool, Bytes)> {
    let (w, h) = size;
    let caps = format!("video/x-raw,format=I420,width={w},height={h},framerate={fps}/1");
    let chain = match codec {
        Codec::H264 => format!(
            "x264enc speed-preset=ultrafast bframes=0 threads=1 key-int-max={fps} ! video/x-h264,profile=constrained-baseline,stream-format=byte-stream,alignment=au"
        ),
        Codec::Vp8 => {
            format!("vp8enc deadline=1 cpu-used=8 keyframe-max-dist={fps} auto-alt-ref=false lag-in-frames=0")
        }
        Codec::Vp9 => format!("vp9enc deadline=1 cpu-used=8 keyframe-max-dist={fps} lag-in-frames=0"),
        Codec::Av1 => format!(
            "av1enc cpu-used=8 usage-profile=realtime keyframe-max-dist={fps} lag-in-frames=0 ! av1parse ! video/x-av1,stream-format=obu-stream,alignment=tu"
        ),
        Codec::H265 => format!(
            "x265enc speed-preset=ultrafast tune=zerolatency key-int-max={fps} ! video/x-h265,stream-format=byte-stream,alignment=au"
        ),
        _ => panic!("{codec:?} is no video"),
    };
    let raw = (0..fps * seconds)
        .map(|n| flat(w as usize, h as usize, if flashes(n, fps) { WHITE } else { luma }, [128, 128]));
    let frames = encoded(&caps, &chain, raw);
    assert_eq!(frames.len() as u64, fps * seconds, "{codec:?}");
    frames.into_iter().zip(0u64..).map(|((key, data), n)| (n * 1_000_000_000 / fps, key, data)).collect()
}

/// Beeps of 40 ms at each full second, in packets of 20 ms.
pub fn sound(codec: Codec, seconds: u64) -> Vec<(u64, bool, Bytes)> {
    let rate = if codec == Codec::Opus { 48_000u64 } else { 8000 };
    let channels = if codec == Codec::Opus { 2 } else { 1 };
    let caps = format!("audio/x-raw,format=S16LE,layout=interleaved,rate={rate},channels={channels}");
    let chain = match codec {
        Codec::Opus => "opusenc frame-size=20 bitrate=64000",
        Codec::Pcmu => "mulawenc",
        Codec::Pcma => "alawenc",
        _ => panic!("{codec:?} is no sound"),
    };
    let packet = rate / 50;
    let raw = (0..seconds * 50).map(|n| {
        (n * packet..(n + 1) * packet)
            .flat_map(|sample| {
                let on = sample % rate < rate * 40 / 1000;
                let phase = sample as f64 / rate as f64 * 1000.0 * std::f64::consts::TAU;
                let value = if on { (phase.sin() * 9000.0) as i16 } else { 0 };
                std::iter::repeat_n(value, channels)
            })
            .flat_map(i16::to_le_bytes)
            .collect::<Vec<u8>>()
    });
    let packets = encoded(&caps, chain, raw);
    packets
        .into_iter()
        .take((seconds * 50) as usize)
        .zip(0u64..)
        .map(|((_, data), n)| (n * 20 * MS, true, data))
        .collect()
}

pub fn track(id: u32, codec: Codec, identity: &str, origin: TrackSource) -> Track {
    Track {
        id: TrackId(id),
        sid: format!("TR_{id}"),
        identity: identity.into(),
        agent: false,
        side: spillway_plan::StereoSide::Both,
        origin,
        codec,
        channels: if codec == Codec::Opus { 2 } else { 1 },
    }
}

/// Pictures of one luma each with two B frames between them, 30 a second, in the order of decoding: number of the picture,
/// whether it is a key frame, data.
pub fn with_b_frames(luma: &[u8]) -> Vec<(u64, bool, Bytes)> {
    gst::init().unwrap();
    let text = "appsrc name=in format=time caps=video/x-raw,format=I420,width=160,height=90,framerate=30/1 \
        ! x264enc bframes=2 b-adapt=false b-pyramid=false key-int-max=600 speed-preset=ultrafast threads=1 \
        ! video/x-h264,profile=main,stream-format=byte-stream,alignment=au ! appsink name=out sync=false async=false";
    let pipeline = gst::parse::launch(text).unwrap().downcast::<gst::Pipeline>().unwrap();
    let appsrc = pipeline.by_name("in").unwrap().downcast::<gst_app::AppSrc>().unwrap();
    let appsink = pipeline.by_name("out").unwrap().downcast::<gst_app::AppSink>().unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    appsrc.set_max_bytes(0);
    for (n, luma) in (0u64..).zip(luma) {
        let mut buffer = gst::Buffer::from_mut_slice(flat(160, 90, *luma, [128, 128]));
        buffer.make_mut().set_pts(gst::ClockTime::from_mseconds(n * 40));
        appsrc.push_buffer(buffer).unwrap();
    }
    appsrc.end_of_stream().unwrap();
    let mut frames = Vec::new();
    while let Ok(sample) = appsink.pull_sample() {
        let buffer = sample.buffer().unwrap();
        let key = !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT);
        let data = Bytes::copy_from_slice(&buffer.map_readable().unwrap());
        frames.push((buffer.pts().unwrap().mseconds(), key, data));
    }
    pipeline.set_state(gst::State::Null).unwrap();
    let first = frames.iter().map(|(at, ..)| *at).min().unwrap();
    frames.into_iter().map(|(at, key, data)| ((at - first) / 40, key, data)).collect()
}

/// What is said of a recording, in order of time, without the watermarks.
#[derive(Clone, Default)]
pub struct TestScript(pub Vec<(MediaTime, TimelineEvent)>);

impl TestScript {
    pub fn say(mut self, at: MediaTime, timed: TimelineEvent) -> Self {
        self.0.push((at, timed));
        self
    }

    /// A camera or a microphone of which nothing was received yet.
    pub fn publishes(self, at: MediaTime, track: &Track, muted: bool) -> Self {
        let (sid, video) = (track.sid.clone(), track.codec.is_video());
        self.say(at, TimelineEvent::Published { sid, video, muted, at })
    }

    pub fn joins(self, at: MediaTime, track: Track) -> Self {
        self.say(at, TimelineEvent::Joined { track, at })
    }

    pub fn leaves(self, at: MediaTime, id: u32) -> Self {
        self.say(at, TimelineEvent::Left { track: TrackId(id), at })
    }

    pub fn mutes(self, at: MediaTime, id: u32) -> Self {
        self.say(at, TimelineEvent::Muted { track: TrackId(id), at, muted: true })
    }

    pub fn layout(self, at: MediaTime, name: &str) -> Self {
        self.say(at, TimelineEvent::Layout { at, name: name.into() })
    }

    /// The frames whose own time lies in `[from, to)`, each at its own time.
    pub fn sends(mut self, id: u32, frames: &[(u64, bool, Bytes)], from: MediaTime, to: MediaTime) -> Self {
        for (at, key, data) in frames.iter().filter(|(at, ..)| (from.ns()..to.ns()).contains(at)) {
            let at = MediaTime::from_ns(*at);
            let frame = Frame { track: TrackId(id), at, offset_ns: 0, key: *key, size: None, data: data.clone() };
            self.0.push((at, TimelineEvent::Frame(frame)));
        }
        self
    }

    /// With a watermark each `tick`, as a source says it.
    pub fn ticking(mut self, tick: MediaTime, end: MediaTime) -> Vec<TimelineEvent> {
        self.0.sort_by_key(|(at, _)| *at);
        let mut out = Vec::new();
        let mut said = self.0.into_iter().peekable();
        let mut watermark = 0;
        while watermark < end.ns() {
            watermark = (watermark + tick.ns()).min(end.ns());
            while let Some((_, timed)) = said.next_if(|(at, _)| at.ns() < watermark) {
                out.push(timed);
            }
            out.push(TimelineEvent::Watermark { at: MediaTime::from_ns(watermark) });
        }
        out
    }
}

/// What arrived at a feed.
#[derive(Default)]
pub struct Caught {
    /// PTS and bytes of each buffer.
    pub buffers: Vec<(u64, u64, Bytes)>,
    /// Of pictures: which are marked as repeats of the one before.
    pub repeats: Vec<bool>,
    pub ended: bool,
}

pub type Catch = Arc<Mutex<Caught>>;
