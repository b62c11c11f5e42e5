//! HLS segments as they leave the segmenter, judged by ffmpeg: whole, torn, and across the wrap of the time stamps.

#![allow(clippy::unwrap_used)]

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use common::{complaints, packets};
use spillway_ipc::TsTail;
use spillway_media::output::segments::{ClosedSegment, SegmentEffect, SegmentVideo, Segmenter, SegmenterPlan};
use spillway_media::units::MediaTime;
use spillway_plan::segment_name::SegmentFormat;

const SECOND: u64 = 1_000_000_000;
const RATE: u64 = 44_100;

/// 15 seconds of H264 at 30 pictures a second with a key frame each second, and of AAC.
struct Clip {
    pictures: Vec<Vec<u8>>,
    /// With ADTS headers.
    sound: Vec<Vec<u8>>,
}

static CLIP: LazyLock<Clip> = LazyLock::new(|| {
    let video = ffmpeg(&[
        "-f lavfi -i testsrc2=size=320x180:rate=30 -t 15 -c:v libx264 -preset ultrafast -tune zerolatency -bf 0",
        "-g 30 -keyint_min 30 -sc_threshold 0 -x264-params aud=1:sliced-threads=0 -pix_fmt yuv420p -f h264 -",
    ]);
    let audio = ffmpeg(&["-f lavfi -i sine=frequency=440:sample_rate=44100 -t 15 -c:a aac -ac 2 -b:a 128k -f adts -"]);
    let delimiter: &[u8] = &[0, 0, 0, 1, 9];
    let mut begins: Vec<usize> = (0..video.len()).filter(|at| video[*at..].starts_with(delimiter)).collect();
    begins.push(video.len());
    let pictures: Vec<Vec<u8>> = begins.windows(2).map(|pair| video[pair[0]..pair[1]].to_vec()).collect();
    let (mut sound, mut at) = (vec![], 0);
    while at < audio.len() {
        let length = u32::from_be_bytes([0, audio[at + 3] & 3, audio[at + 4], audio[at + 5]]) as usize >> 5;
        sound.push(audio[at..at + length].to_vec());
        at += length;
    }
    assert_eq!(pictures.len(), 450);
    Clip { pictures, sound }
});

fn ffmpeg(arguments: &[&str]) -> Vec<u8> {
    let arguments = arguments.iter().flat_map(|line| line.split(' '));
    let out = Command::new("ffmpeg").args(["-v", "warning"]).args(arguments).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    out.stdout
}

/// One elementary stream of a file, as it is in there.
fn copied(path: &Path, codec: &str, format: &str) -> Vec<u8> {
    let out = Command::new("ffmpeg")
        .args(["-v", "warning", "-i"])
        .arg(path)
        .args([codec, "copy", "-f", format, "-"])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&out.stderr), "");
    out.stdout
}

/// Segments of the clip, one file for each.
struct Cut {
    folder: tempfile::TempDir,
    segments: Vec<(ClosedSegment, PathBuf)>,
    /// Of fragmented MP4.
    init: Vec<u8>,
}

/// The clip from media time `begin_ns` on, in segments of four seconds.
fn cut(format: SegmentFormat, begin_ns: u64, video: bool, audio: bool) -> Cut {
    let video = video.then_some(SegmentVideo { framerate: 30, size: (320, 180) });
    let plan = SegmenterPlan { format, length_ns: 4 * SECOND, video, aac_rate: audio.then_some(RATE as u32) };
    let mut segmenter = Segmenter::new(plan).unwrap();
    let mut written: Vec<Vec<u8>> = vec![];
    let (mut closed, mut init) = (vec![], vec![]);
    let mut apply = |effects: Vec<SegmentEffect>| {
        for effect in effects {
            match effect {
                SegmentEffect::Init(bytes) => init = bytes,
                SegmentEffect::Open { .. } => written.push(vec![]),
                SegmentEffect::Append(bytes) => written.last_mut().unwrap().extend(bytes),
                SegmentEffect::Close(segment) => closed.push(segment),
            }
        }
    };
    // A second of key frame distance: only every fourth may cut.
    let mut sound = CLIP.sound.iter().enumerate().peekable();
    for (number, picture) in CLIP.pictures.iter().enumerate() {
        let at = begin_ns + number as u64 * SECOND / 30;
        // Pictures leave an encoder later than sound.
        while let Some((number, frame)) = sound.next_if(|(number, _)| sound_at(begin_ns, *number) < at + SECOND / 5) {
            apply(segmenter.audio(MediaTime::from_ns(sound_at(begin_ns, number)), &frame[7..]));
        }
        apply(segmenter.video(MediaTime::from_ns(at), number % 30 == 0, picture));
    }
    apply(segmenter.finish());
    let folder = tempfile::tempdir().unwrap();
    let extension = if format == SegmentFormat::MpegTs { "ts" } else { "mp4" };
    let files = closed.into_iter().zip(&written).map(|(segment, bytes)| {
        let path = folder.path().join(format!("{:05}.{extension}", segment.index));
        std::fs::write(&path, [init.as_slice(), bytes].concat()).unwrap();
        assert_eq!(segment.bytes, bytes.len() as u64);
        (segment, path)
    });
    let segments = files.collect();
    Cut { folder, segments, init }
}

impl Cut {
    /// All segments behind one another, and the init segment before them.
    fn together(&self) -> PathBuf {
        let path = self.folder.path().join("all").with_extension(self.segments[0].1.extension().unwrap());
        let bytes = self.segments.iter().map(|(_, path)| std::fs::read(path).unwrap().split_off(self.init.len()));
        std::fs::write(&path, [self.init.clone(), bytes.collect::<Vec<_>>().concat()].concat()).unwrap();
        path
    }

    fn lengths_ms(&self) -> Vec<u64> {
        self.segments.iter().map(|(segment, _)| (segment.length_ns + 500_000) / 1_000_000).collect()
    }
}

fn sound_at(begin_ns: u64, number: usize) -> u64 {
    begin_ns + number as u64 * 1024 * SECOND / RATE
}

/// Checksum of what a decoder makes of a stream.
fn decoded(path: &Path, stream: &str) -> String {
    let path = path.to_str().unwrap();
    String::from_utf8(ffmpeg(&["-i", path, "-map", stream, "-f md5 -"])).unwrap()
}

/// Times of the packets of one stream.
fn times(path: &Path, stream: &str) -> Vec<f64> {
    let out = Command::new("ffprobe")
        .args(["-v", "warning", "-select_streams", stream, "-show_entries", "packet=pts_time", "-of", "csv=p=0"])
        .arg(path)
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&out.stderr), "");
    String::from_utf8_lossy(&out.stdout).lines().filter_map(|line| line.trim_end_matches(',').parse().ok()).collect()
}

fn even_steps(times: &[f64], step: f64) {
    for pair in times.windows(2) {
        assert!((pair[1] - pair[0] - step).abs() < 0.0001, "{pair:?}");
    }
}

#[test]
fn segments_put_together_are_what_the_encoders_gave() {
    let cut = cut(SegmentFormat::MpegTs, 500_000_000, true, true);
    assert_eq!(cut.lengths_ms(), [4000, 4000, 4000, 3000]);
    let all = cut.together();
    // A counter that jumps is "Packet corrupt", a warning.
    assert!(copied(&all, "-c:v", "h264") == CLIP.pictures.concat());
    assert!(copied(&all, "-c:a", "adts") == CLIP.sound.concat());
    assert_eq!(complaints(&all), "");
    let video = times(&all, "v");
    assert_eq!(video.len(), CLIP.pictures.len());
    assert!((video[0] - 1.2).abs() < 0.0001, "0.5 s and the delay of the clock: {}", video[0]);
    even_steps(&video, 1.0 / 30.0);
    even_steps(&times(&all, "a"), 1024.0 / RATE as f64);
}

#[test]
fn each_segment_plays_alone_and_has_the_sound_of_its_time() {
    for (format, delay) in [(SegmentFormat::MpegTs, 0.7), (SegmentFormat::FragmentedMp4, 0.0)] {
        for (segment, path) in &cut(format, 0, true, true).segments {
            assert_eq!(complaints(path), "");
            let begin = segment.at.ns() as f64 / 1e9 + delay;
            let (video, audio) = (times(path, "v"), times(path, "a"));
            assert!((video[0] - begin).abs() < 0.0001, "{format:?}: {} {begin}", video[0]);
            assert!((0.0..0.024).contains(&(audio[0] - begin)), "{format:?}: {} {begin}", audio[0]);
            let end = begin + segment.length_ns as f64 / 1e9;
            // The encoder's sound is a frame longer than its pictures.
            assert!((end - 0.024..end + 0.024).contains(audio.last().unwrap()));
        }
    }
}

#[test]
fn fragments_put_together_are_what_the_encoders_gave() {
    let cut = cut(SegmentFormat::FragmentedMp4, 500_000_000, true, true);
    assert_eq!(cut.lengths_ms(), [4000, 4000, 4000, 3000]);
    let all = cut.together();
    assert_eq!(complaints(&all), "");
    assert!(copied(&all, "-c:a", "adts") == CLIP.sound.concat());
    let raw = cut.folder.path().join("raw.h264");
    std::fs::write(&raw, CLIP.pictures.concat()).unwrap();
    assert_eq!(decoded(&all, "0:v"), decoded(&raw, "0:v"));
    let video = times(&all, "v");
    assert!((video[0] - 0.5).abs() < 0.0001, "{}", video[0]);
    even_steps(&video, 1.0 / 30.0);
    even_steps(&times(&all, "a"), 1024.0 / RATE as f64);
}

#[test]
fn sound_alone_is_a_stream_of_segments_too() {
    for format in [SegmentFormat::MpegTs, SegmentFormat::FragmentedMp4] {
        let cut = cut(format, 0, false, true);
        assert_eq!(cut.segments.len(), 4);
        assert!(cut.segments.iter().take(3).all(|(segment, _)| segment.length_ns.abs_diff(4 * SECOND) < SECOND / 40));
        let all = cut.together();
        assert!(copied(&all, "-c:a", "adts") == CLIP.sound.concat());
        even_steps(&times(&all, "a"), 1024.0 / RATE as f64);
    }
}

#[test]
fn a_recording_goes_on_when_its_time_stamps_wrap() {
    // The time stamps of pictures wrap 7 seconds later, the clock 7.7.
    let wrap_ns = (1u64 << 33) * 100_000 / 9;
    let begin_ns = wrap_ns - 7_700_000_000;
    assert_eq!(begin_ns / (SECOND * 360), 265, "26.5 hours");
    for format in [SegmentFormat::MpegTs, SegmentFormat::FragmentedMp4] {
        let cut = cut(format, begin_ns, true, true);
        assert_eq!(cut.lengths_ms(), [4000, 4000, 4000, 3000]);
        let all = cut.together();
        assert_eq!(complaints(&all), "");
        assert_eq!(times(&all, "v").len(), CLIP.pictures.len());
        even_steps(&times(&all, "v"), 1.0 / 30.0);
        even_steps(&times(&all, "a"), 1024.0 / RATE as f64);
        assert_eq!(packets(&all).len(), CLIP.pictures.len() + CLIP.sound.len());
    }
}

#[test]
fn a_segment_that_a_kill_tore_is_cut_behind_its_last_whole_picture() {
    let cut = cut(SegmentFormat::MpegTs, 0, true, true);
    let (whole, path) = &cut.segments[1];
    let bytes = std::fs::read(path).unwrap();
    let tail = TsTail::of(&bytes).unwrap();
    assert_eq!(tail.bytes, whole.bytes);
    assert!(tail.length.as_nanos().abs_diff(u128::from(whole.length_ns)) < 20_000);
    let torn = cut.folder.path().join("torn.ts");
    let largest = CLIP.pictures.iter().map(Vec::len).max().unwrap() * 188 / 184 + 376;
    for number in 1..24 {
        let to = bytes.len() * number / 24 + number * 7;
        let tail = TsTail::of(&bytes[..to]).unwrap();
        let end = tail.bytes as usize;
        assert!(end <= to && to - end <= largest, "everything that was whole is kept");
        std::fs::write(&torn, &bytes[..end]).unwrap();
        assert_eq!(complaints(&torn), "", "torn at {to}");
        // To the end of the last picture, or of the sound where that is ahead: the clip's is by up to a PES packet of five
        // frames, of which the first is counted.
        let (pictures, sound) = (times(&torn, "v"), times(&torn, "a"));
        let shown = pictures.len() as f64 / 30.0;
        let heard = sound.last().map_or(0.0, |last| last - pictures[0] + 1024.0 / 48_000.0);
        let length = tail.length.as_secs_f64();
        let is_between = length > shown - 0.0001 && length < shown.max(heard) + 0.0001;
        assert!(is_between && length > heard - 0.1, "torn at {to}: {length} of {shown} s shown, {heard} s heard");
    }
}
