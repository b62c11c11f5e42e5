//! What the tests of this crate share: frames made by real encoders, and what real players say about a file.

#![allow(dead_code, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use bytes::Bytes;
use gst::prelude::*;
use gstreamer as gst;
use gstreamer_app as gst_app;
use spillway_ipc::restart::RestartPoints;
use spillway_ipc::{SpoolFile, SpoolReader};
use spillway_media::output::{Feeds, Pipeline, PipelineEvent, PipelinePlan};
use spillway_media::track::{Codec, Frame, TrackId};
use spillway_media::units::MediaTime;

pub fn start(plan: &PipelinePlan, path: &Path) -> (Pipeline, Feeds, Receiver<PipelineEvent>) {
    gst::init().unwrap();
    let (tell, told) = channel();
    let tell = std::sync::Mutex::new(tell);
    // Some tests make one file again and again; the writer itself never takes an existing one.
    let _ = std::fs::remove_file(path);
    let file = SpoolFile::create(path, plan.container).unwrap();
    let (pipeline, feeds) = Pipeline::start(plan, file, move |event| {
        let _ = tell.lock().unwrap().send(event);
    })
    .unwrap();
    (pipeline, feeds, told)
}

pub fn drained(told: &Receiver<PipelineEvent>) {
    loop {
        match told.recv_timeout(Duration::from_secs(60)).unwrap() {
            PipelineEvent::Flowing => {}
            PipelineEvent::Drained => return,
            PipelineEvent::Broke(error) => panic!("{error}"),
        }
    }
}

/// What ffmpeg complains about when it decodes the whole file.
pub fn complaints(path: &Path) -> String {
    let out = Command::new("ffmpeg")
        .args(["-v", "error", "-i"])
        .arg(path)
        .args(["-fps_mode", "passthrough", "-enc_time_base", "-1", "-f", "null", "-"])
        .output()
        .unwrap();
    String::from_utf8_lossy(&out.stderr).into_owned()
}

/// Time (seconds) and payload hash of every packet, in the order of the file.
pub fn packets(path: &Path) -> Vec<(f64, String)> {
    let out = Command::new("ffprobe")
        .args(["-v", "error", "-show_data_hash", "md5", "-show_entries", "packet=pts_time,data_hash", "-of", "csv=p=0"])
        .arg(path)
        .output()
        .unwrap();
    String::from_utf8_lossy(&out.stdout)
        .lines()
        .filter_map(|line| {
            let (at, hash) = line.split_once(',')?;
            Some((at.parse().ok()?, hash.to_owned()))
        })
        .collect()
}

/// Payload hash of every packet of each stream, in the order of the file.
fn by_stream(path: &Path) -> BTreeMap<u32, Vec<String>> {
    let out = Command::new("ffprobe")
        .args(["-v", "error", "-show_data_hash", "md5", "-show_entries", "packet=stream_index,data_hash", "-of"])
        .arg("csv=p=0")
        .arg(path)
        .output()
        .unwrap();
    let mut streams = BTreeMap::<u32, Vec<String>>::new();
    for line in String::from_utf8_lossy(&out.stdout).lines() {
        // Lines of side data (samples to skip) have other fields.
        let mut fields = line.split(',');
        if let (Some(Ok(stream)), Some(hash)) = (fields.next().map(str::parse), fields.next())
            && hash.starts_with("MD5:")
        {
            streams.entry(stream).or_default().push(hash.to_owned());
        }
    }
    streams
}

/// Waits for a state, not for a time.
pub fn until(what: &str, mut reached: impl FnMut() -> bool) {
    let give_up = Instant::now() + Duration::from_secs(20);
    while !reached() {
        assert!(Instant::now() < give_up, "never: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// `count` frames from GStreamer's encoder; `None` when this machine has none for the codec.
pub fn encoded(codec: Codec, (width, height): (u32, u32), count: u32) -> Option<Vec<Frame>> {
    gst::init().unwrap();
    let video = format!(
        "videotestsrc num-buffers={count} pattern=ball ! video/x-raw,format=I420,width={width},height={height},framerate=30/1"
    );
    let audio = |rate: u32, channels: u32| {
        let samples = rate / 50;
        format!(
            "audiotestsrc num-buffers={count} samplesperbuffer={samples} ! audio/x-raw,rate={rate},channels={channels}"
        )
    };
    let chain = match codec {
        Codec::H264 => format!(
            "{video} ! x264enc bframes=0 key-int-max=30 speed-preset=ultrafast tune=zerolatency ! video/x-h264,stream-format=byte-stream,alignment=au"
        ),
        Codec::H265 => format!(
            "{video} ! x265enc key-int-max=30 speed-preset=ultrafast tune=zerolatency ! h265parse config-interval=-1 ! video/x-h265,stream-format=byte-stream,alignment=au"
        ),
        Codec::Vp8 => format!("{video} ! vp8enc deadline=1 cpu-used=8 keyframe-max-dist=30"),
        Codec::Vp9 => format!("{video} ! vp9enc deadline=1 cpu-used=8 keyframe-max-dist=30"),
        Codec::Av1 => format!(
            "{video} ! av1enc cpu-used=8 usage-profile=realtime ! av1parse ! video/x-av1,stream-format=obu-stream,alignment=tu"
        ),
        Codec::Opus => format!("{} ! opusenc", audio(48_000, 2)),
        Codec::Pcmu => format!("{} ! mulawenc", audio(8000, 1)),
        Codec::Pcma => format!("{} ! alawenc", audio(8000, 1)),
    };
    let pipeline = gst::parse::launch(&format!("{chain} ! appsink name=out sync=false")).ok()?;
    let pipeline = pipeline.downcast::<gst::Pipeline>().unwrap();
    let out: gst_app::AppSink = pipeline.by_name("out").unwrap().downcast().unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let mut frames: Vec<Frame> = vec![];
    let mut first = None;
    while let Ok(sample) = out.pull_sample() {
        let buffer = sample.buffer().unwrap();
        let key = !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT);
        let at = buffer.pts().unwrap().nseconds();
        let first = *first.get_or_insert(at);
        // As RTP has it: the encoder shortens its first packet by what the decoder is to skip.
        let at = if codec.is_video() { at - first } else { frames.len() as u64 * 20_000_000 };
        frames.push(Frame {
            track: TrackId(1),
            at: MediaTime::from_ns(at),
            key,
            size: (codec.is_video() && key).then_some((width, height)),
            data: Bytes::copy_from_slice(&buffer.map_readable().unwrap()),
        });
    }
    pipeline.set_state(gst::State::Null).unwrap();
    Some(frames)
}

/// Objects that begin in the middle of the finished file at `path`: a real player takes each, and finds the end of what
/// the file has. `points` has seen the file before it was finished. `forgiven`: lines a decoder may say at the seam.
pub fn plays_from_the_middle(path: &Path, mut points: RestartPoints, forgiven: usize) {
    let reader = SpoolReader::open(path).unwrap();
    let end = reader.end().unwrap();
    points.advance(&reader, end).unwrap();
    assert!(points.walked_to() > end / 10 * 9, "{}: {} of {end}", path.display(), points.walked_to());
    let all = packets(path);
    let mut begun = vec![];
    for tenth in [3, 5, 8] {
        let from = points.before(end * tenth / 10, 32 << 20).unwrap();
        assert!(from > end / 10, "{}: only its beginning", path.display());
        begun.push(from);
        let origin = points.origin(from).unwrap();
        let to = origin.in_object(points.walked_to());
        let object = origin.read(&reader, 0..to, &points.offsets_in(from..end)).unwrap();
        let second = path.with_file_name("second").with_extension(path.extension().unwrap_or_default());
        std::fs::write(&second, &object).unwrap();
        let told = complaints(&second);
        assert!(told.lines().count() <= forgiven, "{} from {from}: {told}", path.display());
        let rest = packets(&second);
        assert!(
            rest.len() > all.len() * (9 - tenth as usize) / 10,
            "{}: {} of {}",
            path.display(),
            rest.len(),
            all.len()
        );
        // Stream by stream: how a reader interleaves them differs between a whole file and fragments.
        let (rest, all) = (by_stream(&second), by_stream(path));
        assert_eq!(rest.len(), all.len(), "{}: a stream is missing", path.display());
        for (rest, all) in rest.values().zip(all.values()) {
            let same = rest.iter().rev().zip(all.iter().rev()).take_while(|(rest, all)| rest == all).count();
            assert!(same + forgiven >= rest.len(), "{}: {same} of {}", path.display(), rest.len());
        }
    }
    assert!(begun[0] < begun[2], "{}: {begun:?} of {end}", path.display());
}
