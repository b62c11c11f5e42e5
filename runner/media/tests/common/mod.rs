//! What the tests of this crate share: frames made by real encoders, and what real players say about a file.

#![allow(dead_code, clippy::unwrap_used)]

pub mod streamed;
pub mod strict;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use bytes::Bytes;
use gst::prelude::*;
use gstreamer as gst;
use gstreamer_app as gst_app;
use spillway_ipc::restart::RestartPoints;
use spillway_ipc::{SpoolFile, SpoolReader, WriteProgress};
use spillway_media::encode::{AudioInputFormat, VideoInputFormat};
use spillway_media::encoded::StreamNumber;
use spillway_media::output::{
    Fanout, Feed, FileTakerOptions, Pipeline, PipelineEvent, PipelinePlan, PipelineProgress, TakerProgress, add_file,
};
use spillway_media::passthrough::Passthrough;
use spillway_media::track::{Codec, Frame, TrackId};
use spillway_media::units::MediaTime;
use spillway_plan::Container;

/// A recording with one file.
pub struct FilePlan {
    pub video: Option<VideoInputFormat>,
    pub audio: Option<AudioInputFormat>,
    pub container: Container,
    pub fragment_ms: u64,
}

/// The ways into it.
pub struct FileFeeds {
    pub video: Option<Feed>,
    pub audio: Option<Feed>,
}

/// A pipeline with one file; dropping it closes the file.
pub struct OneFile {
    pub pipeline: Pipeline,
    file: Arc<TakerProgress>,
}

impl OneFile {
    pub fn written(&self) -> Arc<WriteProgress> {
        self.file.written.clone().unwrap()
    }

    pub fn progress(&self) -> Arc<PipelineProgress> {
        self.pipeline.progress()
    }
}

pub fn start(plan: &FilePlan, path: &Path) -> (OneFile, FileFeeds, Receiver<PipelineEvent>) {
    gst::init().unwrap();
    let (tell, told) = channel();
    let tell = std::sync::Mutex::new(tell);
    // Some tests make one file again and again; the writer itself never takes an existing one.
    let _ = std::fs::remove_file(path);
    let file = SpoolFile::create(path, plan.container).unwrap();
    let inputs =
        PipelinePlan { video: plan.video.clone(), audio: plan.audio.iter().cloned().collect(), key_grid: None };
    let fanout = Fanout::new(inputs.formats(), move |event| {
        let _ = tell.lock().unwrap().send(event);
    });
    let streams = (0u8..).map(StreamNumber).take(fanout.formats().len()).collect();
    let options = FileTakerOptions { streams, container: plan.container, fragment_ms: plan.fragment_ms };
    let (_, file) = add_file(&fanout, file, &options).unwrap();
    let (pipeline, feeds) = Pipeline::start(&inputs, fanout).unwrap();
    let feeds = FileFeeds { video: feeds.video, audio: feeds.audio.into_iter().next() };
    (OneFile { pipeline, file }, feeds, told)
}

/// Records `frames` of one track.
pub fn record(frames: &[Frame], codec: Codec, container: Container, path: &Path) {
    let size = frames[0].size.unwrap_or_default();
    let plan = FilePlan {
        video: codec.is_video().then_some(VideoInputFormat::Copied { codec, size }),
        audio: (!codec.is_video()).then_some(AudioInputFormat::Copied { codec, channels: 2 }),
        container,
        fragment_ms: 1000,
    };
    let (pipeline, feeds, told) = start(&plan, path);
    let feed = feeds.video.or(feeds.audio).unwrap();
    let mut copy = Passthrough::new(feed, codec, frames[0].at);
    for frame in frames {
        if copy.frame(frame).is_err() {
            break;
        }
    }
    copy.end();
    drained(&told);
    drop(pipeline);
}

pub fn drained(told: &Receiver<PipelineEvent>) {
    loop {
        match told.recv_timeout(Duration::from_secs(60)).unwrap() {
            PipelineEvent::Flowing | PipelineEvent::TakerEnded(_) => {}
            PipelineEvent::Drained => return,
            PipelineEvent::TakerFailed(_, error) => panic!("{error}"),
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

/// Presentation and decoding time, duration, flags and contents of every packet of one stream.
pub fn described(path: &Path, stream: &str) -> Vec<(Vec<f64>, String)> {
    let entries = "packet=pts_time,dts_time,duration_time,flags,data_hash";
    let out = Command::new("ffprobe")
        .args(["-v", "error", "-select_streams", stream, "-show_data_hash", "md5"])
        .args(["-show_entries", entries, "-of", "csv=p=0"])
        .arg(path)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let fields = |line: &str| {
        let (numbers, message): (Vec<&str>, Vec<&str>) =
            line.split(',').partition(|field| field.parse::<f64>().is_ok());
        (numbers.into_iter().map(|number| number.parse().unwrap()).collect(), message.join(","))
    };
    text.lines().map(fields).collect()
}

/// Begin and length of the file and of each stream, as players see them.
pub fn times(path: &Path) -> String {
    let out = Command::new("ffprobe")
        .args(["-v", "error", "-show_entries", "format=start_time,duration:stream=start_time,duration,initial_padding"])
        .args(["-of", "compact"])
        .arg(path)
        .output()
        .unwrap();
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// Length of the file by its header, seconds.
pub fn file_seconds(path: &Path) -> f64 {
    let out = Command::new("ffprobe")
        .args(["-v", "error", "-show_entries", "format=duration", "-of", "csv=p=0"])
        .arg(path)
        .output()
        .unwrap();
    String::from_utf8_lossy(&out.stdout).trim().parse().unwrap()
}

/// Two seconds of stereo in blocks of 20 ms: silence, and a click of a millisecond from this sample at 48 kHz on.
pub fn click_blocks(click: u64) -> impl Iterator<Item = gst::Buffer> {
    sound_blocks(move |at| if (click..click + 48).contains(&at) { [0.9; 2] } else { [0.0; 2] })
}

/// Two seconds of sound at 48 kHz, from the number of a sample.
pub fn sound_blocks(sample: impl Fn(u64) -> [f32; 2]) -> impl Iterator<Item = gst::Buffer> {
    (0..100u64).map(move |n| {
        let data: Vec<u8> = (n * 960..(n + 1) * 960).flat_map(&sample).flat_map(f32::to_le_bytes).collect();
        let mut buffer = gst::Buffer::from_mut_slice(data);
        let writable = buffer.get_mut().unwrap();
        writable.set_pts(gst::ClockTime::from_mseconds(n * 20));
        writable.set_duration(gst::ClockTime::from_mseconds(20));
        buffer
    })
}

/// How loud a tone is on each side of a file, in the second from `from_s` on.
pub fn tone(path: &Path, from_s: usize, hertz: f64) -> [f64; 2] {
    let out = Command::new("ffmpeg")
        .args(["-v", "error", "-i"])
        .arg(path)
        .args(["-ac", "2", "-ar", "48000", "-f", "s16le", "-"])
        .output()
        .unwrap();
    let samples: Vec<[f64; 2]> = out
        .stdout
        .chunks_exact(4)
        .map(|four| [0, 2].map(|at| f64::from(i16::from_le_bytes([four[at], four[at + 1]]))))
        .skip(from_s * 48_000)
        .take(48_000)
        .collect();
    [0, 1].map(|side| {
        let turn = |at: usize| std::f64::consts::TAU * hertz * at as f64 / 48_000.0;
        let sum =
            |of: fn(f64) -> f64| samples.iter().enumerate().map(|(at, both)| both[side] * of(turn(at))).sum::<f64>();
        sum(f64::sin).hypot(sum(f64::cos)) / samples.len() as f64
    })
}

/// Where the first loud sample of a file stands, at 48 kHz.
pub fn click_at(path: &Path) -> i64 {
    let out = Command::new("ffmpeg")
        .args(["-v", "error", "-i"])
        .arg(path)
        .args(["-ac", "1", "-ar", "48000", "-f", "s16le", "-"])
        .output()
        .unwrap();
    let loud = out.stdout.chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]]).unsigned_abs());
    loud.enumerate().find(|(_, loud)| *loud > 12_000).unwrap().0 as i64
}

/// Length of a file's sound by the samples that an Opus decoder of ffmpeg's makes of it (`opus`, its own, or `libopus`),
/// seconds. Time stamps are not looked at, as in most that decodes a file to its end.
pub fn heard_seconds(path: &Path, decoder: &str) -> f64 {
    let out = Command::new("ffmpeg")
        .args(["-v", "error", "-c:a", decoder, "-i"])
        .arg(path)
        .args(["-map", "0:a", "-ac", "1", "-ar", "48000", "-f", "s16le", "-"])
        .output()
        .unwrap();
    assert!(out.status.success(), "{decoder} {}: {}", path.display(), String::from_utf8_lossy(&out.stderr));
    out.stdout.len() as f64 / 2.0 / 48_000.0
}

/// Everything in one chain of GStreamer's: `chain` begins with the caps of its `appsrc`.
pub fn one_chain(chain: &str, buffers: impl Iterator<Item = gst::Buffer>, path: &Path) {
    gst::init().unwrap();
    let pipeline = gst::parse::launch(&format!(
        "appsrc name=in format=time max-bytes=0 {chain} ! filesink location={}",
        path.display()
    ));
    let pipeline = pipeline.unwrap().downcast::<gst::Pipeline>().unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let input: gst_app::AppSrc = pipeline.by_name("in").unwrap().downcast().unwrap();
    for buffer in buffers {
        input.push_buffer(buffer).unwrap();
    }
    input.end_of_stream().unwrap();
    let types = [gst::MessageType::Eos, gst::MessageType::Error];
    let message = pipeline.bus().unwrap().timed_pop_filtered(gst::ClockTime::from_seconds(20), &types).unwrap();
    assert!(matches!(message.view(), gst::MessageView::Eos(_)), "{message:?}");
    pipeline.set_state(gst::State::Null).unwrap();
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
            offset_ns: 0,
            key,
            size: (codec.is_video() && key).then_some((width, height)),
            data: Bytes::copy_from_slice(&buffer.map_readable().unwrap()),
        });
    }
    pipeline.set_state(gst::State::Null).unwrap();
    Some(frames)
}

/// H264 with two B frames between its pictures, as OBS sends it by WHIP: 30 a second, in the order of decoding, each with when
/// it is shown in nanoseconds from the first one.
pub fn with_b_frames(count: u32) -> Vec<(u64, bool, Bytes)> {
    gst::init().unwrap();
    let chain = format!(
        "videotestsrc num-buffers={count} pattern=ball ! video/x-raw,format=I420,width=320,height=180,framerate=30/1 \
         ! x264enc bframes=2 b-adapt=false key-int-max=30 speed-preset=ultrafast ! video/x-h264,profile=main,stream-format=byte-stream,alignment=au \
         ! appsink name=out sync=false"
    );
    let pipeline = gst::parse::launch(&chain).unwrap().downcast::<gst::Pipeline>().unwrap();
    let out: gst_app::AppSink = pipeline.by_name("out").unwrap().downcast().unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let mut frames = vec![];
    while let Ok(sample) = out.pull_sample() {
        let buffer = sample.buffer().unwrap();
        let key = !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT);
        let data = Bytes::copy_from_slice(&buffer.map_readable().unwrap());
        frames.push((buffer.pts().unwrap().nseconds(), key, data));
    }
    pipeline.set_state(gst::State::Null).unwrap();
    let first = frames.iter().map(|(at, ..)| *at).min().unwrap();
    frames.into_iter().map(|(at, key, data)| (at - first, key, data)).collect()
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
