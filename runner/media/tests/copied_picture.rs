//! Copied pictures, alone and beside sound: every frame that goes in comes out of the file, unchanged and at its time.

#![allow(clippy::unwrap_used)]

mod common;

use gst::prelude::*;
use gstreamer as gst;
use gstreamer_app as gst_app;

use common::strict::StrictVideo;
use common::{
    FilePlan, click_at, click_blocks, complaints, described, drained, encoded, file_seconds, packets,
    plays_from_the_middle, record, start, with_b_frames,
};
use spillway_ipc::SpoolReader;
use spillway_ipc::restart::RestartPoints;
use spillway_media::encode::{AudioInputFormat, VideoInputFormat, black};
use spillway_media::passthrough::{Copied, Passthrough, container};
use spillway_media::track::{Codec, Frame, TrackId};
use spillway_media::units::MediaTime;
use spillway_plan::{AudioCodec, Container};

#[test]
fn every_codec_goes_into_its_container_frame_by_frame() {
    let dir = tempfile::tempdir().unwrap();
    for codec in [Codec::H264, Codec::H265, Codec::Vp8, Codec::Vp9, Codec::Av1, Codec::Opus, Codec::Pcmu, Codec::Pcma] {
        let Some(frames) = encoded(codec, (320, 180), 90) else {
            eprintln!("no encoder for {codec:?} here");
            continue;
        };
        let path = dir.path().join(format!("{codec:?}"));
        record(&frames, codec, container(codec), &path);
        assert_eq!(complaints(&path), "", "{codec:?}");
        let packets = packets(&path);
        if !matches!(codec, Codec::Pcmu | Codec::Pcma) {
            assert_eq!(packets.len(), frames.len(), "{codec:?}");
        }
        let first = packets[0].0;
        for (packet, frame) in packets.iter().zip(&frames) {
            let wanted = (frame.at.ns() - frames[0].at.ns()) as f64 / 1e9;
            assert!((packet.0 - first - wanted).abs() < 0.0012, "{codec:?}: {} {wanted}", packet.0 - first);
        }
    }
}

/// GStreamer's own chain for the same frames.
fn plainly(video: &[Frame], audio: &[Frame], path: &std::path::Path) {
    let pipeline = gst::parse::launch(&format!(
        "appsrc name=video format=time caps=video/x-h264,stream-format=byte-stream,alignment=au ! h264parse \
         ! video/x-h264,stream-format=avc ! queue max-size-time=0 max-size-bytes=0 max-size-buffers=0 ! mp4mux name=mux ! filesink location={} \
         appsrc name=audio format=time caps=audio/x-opus,rate=48000,channels=2,channel-mapping-family=0 ! opusparse \
         ! queue max-size-time=0 max-size-bytes=0 max-size-buffers=0 ! mux.",
        path.display()
    ));
    let pipeline = pipeline.unwrap().downcast::<gst::Pipeline>().unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    for (name, frames) in [("video", video), ("audio", audio)] {
        let input: gst_app::AppSrc = pipeline.by_name(name).unwrap().downcast().unwrap();
        input.set_max_bytes(0);
        for frame in frames {
            let mut buffer = gst::Buffer::from_slice(frame.data.clone());
            let writable = buffer.get_mut().unwrap();
            writable.set_pts(gst::ClockTime::from_nseconds(frame.at.ns()));
            writable.set_dts(gst::ClockTime::from_nseconds(frame.at.ns()));
            input.push_buffer(buffer).unwrap();
        }
        input.end_of_stream().unwrap();
    }
    let bus = pipeline.bus().unwrap();
    let types = [gst::MessageType::Eos, gst::MessageType::Error];
    let message = bus.timed_pop_filtered(gst::ClockTime::from_seconds(20), &types).unwrap();
    assert!(matches!(message.view(), gst::MessageView::Eos(_)), "{message:?}");
    pipeline.set_state(gst::State::Null).unwrap();
}

#[test]
fn a_clean_file_is_packet_by_packet_what_a_plain_muxer_makes() {
    let dir = tempfile::tempdir().unwrap();
    let video = encoded(Codec::H264, (320, 180), 120).unwrap();
    let audio = encoded(Codec::Opus, (0, 0), 200).unwrap();
    let (ours, plain) = (dir.path().join("ours.mp4"), dir.path().join("plain.mp4"));
    let plan = FilePlan {
        video: Some(VideoInputFormat::Copied { codec: Codec::H264, size: (320, 180) }),
        audio: Some(AudioInputFormat::Copied { codec: Codec::Opus, channels: 2 }),
        container: Container::Mp4,
        fragment_ms: 1000,
    };
    let (pipeline, feeds, told) = start(&plan, &ours);
    let mut picture = Passthrough::new(feeds.video.unwrap(), Codec::H264, MediaTime::ZERO);
    let mut sound = Passthrough::new(feeds.audio.unwrap(), Codec::Opus, MediaTime::ZERO);
    // As they happen: neither is far ahead.
    let mut heard = audio.iter().peekable();
    for frame in &video {
        while let Some(frame) = heard.next_if(|heard| heard.at <= frame.at) {
            sound.frame(frame).unwrap();
        }
        picture.frame(frame).unwrap();
    }
    heard.try_for_each(|frame| sound.frame(frame).map(|_| ())).unwrap();
    picture.end();
    sound.end();
    drained(&told);
    drop(pipeline);
    plainly(&video, &audio, &plain);

    for (stream, count) in [("v", video.len()), ("a", audio.len())] {
        let (ours, plain) = (described(&ours, stream), described(&plain, stream));
        assert_eq!((ours.len(), plain.len()), (count, count), "{stream}");
        for (ours, plain) in ours.iter().zip(&plain) {
            assert_eq!(ours.1, plain.1, "{stream}: flags or contents");
            assert_eq!(ours.0.len(), plain.0.len());
            assert!(ours.0.iter().zip(&plain.0).all(|(a, b)| (a - b).abs() < 0.0002), "{ours:?} {plain:?}");
        }
    }
}

#[test]
fn ivf_carries_the_three_free_codecs() {
    let dir = tempfile::tempdir().unwrap();
    for codec in [Codec::Vp8, Codec::Vp9, Codec::Av1] {
        let Some(frames) = encoded(codec, (320, 180), 60) else { continue };
        let path = dir.path().join(format!("{codec:?}.ivf"));
        record(&frames, codec, Container::Ivf, &path);
        assert_eq!(complaints(&path), "", "{codec:?}");
        assert_eq!(packets(&path).len(), frames.len());
    }
}

/// As `what_is_left_of_a_recording_plays_by_itself` of the mixed ones.
#[test]
fn what_is_left_of_a_copied_track_plays_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    for codec in [Codec::Vp8, Codec::Vp9, Codec::H264] {
        let frames = encoded(codec, (320, 180), 300).unwrap();
        let container = container(codec);
        let path = dir.path().join(format!("{codec:?}.{}", container.extension().trim_start_matches('.')));
        let plan = FilePlan {
            video: Some(VideoInputFormat::Copied { codec, size: frames[0].size.unwrap() }),
            audio: None,
            container,
            fragment_ms: 1000,
        };
        let (pipeline, feeds, told) = start(&plan, &path);
        let mut copy = Passthrough::new(feeds.video.unwrap(), codec, frames[0].at);
        let (mut points, reader) = (RestartPoints::new(container), SpoolReader::open(&path).unwrap());
        let (first, second) = frames.split_at(150);
        first.iter().for_each(|frame| assert_eq!(copy.frame(frame).unwrap(), Copied::Written));
        common::until("some of it is walked", || {
            points.advance(&reader, pipeline.written().sealed_to()).unwrap();
            points.walked_to() > 10_000
        });
        second.iter().for_each(|frame| assert_eq!(copy.frame(frame).unwrap(), Copied::Written));
        copy.end();
        drained(&told);
        drop(pipeline);
        plays_from_the_middle(&path, points, 0);
    }
    for codec in [Codec::Vp8, Codec::Vp9, Codec::Av1] {
        let Some(frames) = encoded(codec, (320, 180), 300) else { continue };
        let path = dir.path().join(format!("{codec:?}.ivf"));
        record(&frames, codec, Container::Ivf, &path);
        plays_from_the_middle(&path, RestartPoints::new(Container::Ivf), 0);
    }
}

#[test]
fn a_mute_is_a_long_frame_and_a_new_size_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    for codec in [Codec::H264, Codec::Vp8] {
        let mut frames = encoded(codec, (320, 180), 60).unwrap();
        let mut more = encoded(codec, (640, 360), 60).unwrap();
        let shift = frames.last().unwrap().at.ns() + 5_000_000_000;
        more.iter_mut().for_each(|frame| frame.at = frame.at.plus_ns(shift));
        frames.append(&mut more);
        let path = dir.path().join(format!("{codec:?}"));
        record(&frames, codec, container(codec), &path);
        assert_eq!(complaints(&path), "", "{codec:?}");
        let packets = packets(&path);
        assert_eq!(packets.len(), 120);
        let hole = packets[60].0 - packets[59].0;
        assert!((hole - 5.0).abs() < 0.002, "{codec:?} {hole}");
    }
}

/// Layers of simulcast, and the black of a mute between them. Before, all that stood behind the first change was rubble for
/// a decoder that believes the sample description: 334 errors in ten seconds.
#[test]
fn every_size_of_a_copied_picture_is_decoded_by_its_sample_description() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("layers.mp4");
    let mut frames: Vec<Frame> = vec![];
    for (size, count) in [((320, 180), 30), ((640, 360), 60), ((320, 180), 15)] {
        let from = frames.last().map_or(0, |last| last.at.ns() + 33_333_333);
        let layer = encoded(Codec::H264, size, count).unwrap().into_iter();
        frames.extend(layer.map(|frame| Frame { at: frame.at.plus_ns(from), ..frame }));
    }
    let plan = FilePlan {
        video: Some(VideoInputFormat::Copied { codec: Codec::H264, size: (320, 180) }),
        audio: None,
        container: Container::Mp4,
        fragment_ms: 1000,
    };
    let (pipeline, feeds, told) = start(&plan, &path);
    let mut copy = Passthrough::new(feeds.video.unwrap(), Codec::H264, MediaTime::ZERO);
    for (n, frame) in frames.iter().enumerate() {
        copy.frame(frame).unwrap();
        if n == 89 {
            copy.fill_with(black(Codec::H264, (640, 360)).unwrap());
            copy.absent(frame.at.plus_ns(5_000_000)).unwrap();
        }
    }
    copy.end();
    drained(&told);
    drop(pipeline);
    assert_eq!(complaints(&path), "");
    let video = StrictVideo::read(&path);
    let labels: Vec<(u32, u32)> = video.descriptions.iter().map(|(_, size)| *size).collect();
    assert_eq!(labels, [(320, 180), (640, 360), (640, 360)], "small, large, black; small is there already");
    assert_eq!(video.size, (640, 360), "shown longest");
    let mut numbers: Vec<usize> = video.samples.iter().map(|(description, _)| *description).collect();
    numbers.dedup();
    assert_eq!(numbers, [0, 1, 2, 0]);
    let (said, sizes) = video.decode(dir.path());
    assert_eq!(said, "");
    let wanted = [vec![(320, 180); 30], vec![(640, 360); 61], vec![(320, 180); 15]].concat();
    assert_eq!(sizes, wanted);
}

/// Before, B frames stood a millisecond behind the picture that they are shown before.
#[test]
fn b_frames_are_shown_at_their_times() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("b.mp4");
    let plan = FilePlan {
        video: Some(VideoInputFormat::Copied { codec: Codec::H264, size: (320, 180) }),
        audio: None,
        container: Container::Mp4,
        fragment_ms: 1000,
    };
    let (pipeline, feeds, told) = start(&plan, &path);
    let mut copy = Passthrough::new(feeds.video.unwrap(), Codec::H264, MediaTime::ZERO);
    let mut newest = 0;
    let frames = with_b_frames(60);
    for (shown, key, data) in &frames {
        // As the timeline places them.
        let at = if newest == 0 { *shown } else { (*shown).max(newest + 1_000_000) };
        newest = at;
        let size = key.then_some((320, 180));
        let (track, at, offset_ns) = (TrackId(1), MediaTime::from_ns(at), *shown as i64 - at as i64);
        copy.frame(&Frame { track, at, offset_ns, key: *key, size, data: data.clone() }).unwrap();
    }
    copy.end();
    drained(&told);
    drop(pipeline);
    assert_eq!(complaints(&path), "");
    let video = StrictVideo::read(&path);
    let shown: Vec<u64> = video.times.iter().map(|(_, shown)| *shown).collect();
    assert!(!shown.is_sorted(), "x264 makes B frames here");
    for (ticks, (ns, ..)) in shown.iter().zip(&frames) {
        assert!(ticks.abs_diff(ns * 9 / 100_000) <= 2, "{ticks} {ns}");
    }
    let mut shown_by_ffprobe: Vec<f64> = packets(&path).iter().map(|(at, _)| *at).collect();
    shown_by_ffprobe.sort_by(f64::total_cmp);
    for (n, at) in shown_by_ffprobe.iter().enumerate() {
        assert!((at - shown_by_ffprobe[0] - n as f64 / 30.0).abs() < 0.002, "{n}: {at}");
    }
}

/// A picture beside sound that is encoded, as a recorder makes it.
#[test]
fn a_copied_picture_and_mixed_sound_stand_where_they_were_given_in_a_webm() {
    let dir = tempfile::tempdir().unwrap();
    for codec in [Codec::Vp8, Codec::Vp9, Codec::Av1] {
        let Some(frames) = encoded(codec, (320, 180), 60) else {
            eprintln!("no encoder for {codec:?} here");
            continue;
        };
        let path = dir.path().join(format!("{codec:?}.webm"));
        let plan = FilePlan {
            video: Some(VideoInputFormat::Copied { codec, size: (320, 180) }),
            audio: Some(AudioInputFormat::Raw {
                codec: AudioCodec::Opus,
                bitrate: 128,
                frequency: 48_000,
                separate: false,
            }),
            container: Container::Webm,
            fragment_ms: 1000,
        };
        let (pipeline, feeds, told) = start(&plan, &path);
        let mut picture = Passthrough::new(feeds.video.unwrap(), codec, MediaTime::ZERO);
        frames.iter().for_each(|frame| assert_eq!(picture.frame(frame).unwrap(), Copied::Written));
        let sound = feeds.audio.unwrap();
        click_blocks(48_000).for_each(|block| sound.push(block).unwrap());
        picture.end();
        sound.end();
        drained(&told);
        drop(pipeline);
        assert_eq!(complaints(&path), "", "{codec:?}");
        let pictures = described(&path, "v");
        assert_eq!(pictures.len(), frames.len(), "{codec:?}");
        for (picture, frame) in pictures.iter().zip(&frames) {
            assert!((picture.0[0] - frame.at.ns() as f64 / 1e9).abs() < 0.0012, "{codec:?} {picture:?}");
        }
        let at = click_at(&path);
        // The first sample above the bound is a little earlier or later than the click, as codecs ring.
        assert!((at - 48_000).abs() <= 96, "{codec:?}: the click stands at {at}");
    }
}

/// As `what_is_left_of_a_copied_track_plays_by_itself`, with sound in every cluster.
#[test]
fn what_is_left_of_a_webm_with_sound_plays_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.webm");
    let video = encoded(Codec::Vp8, (320, 180), 300).unwrap();
    let audio = encoded(Codec::Opus, (0, 0), 500).unwrap();
    let plan = FilePlan {
        video: Some(VideoInputFormat::Copied { codec: Codec::Vp8, size: (320, 180) }),
        audio: Some(AudioInputFormat::Copied { codec: Codec::Opus, channels: 2 }),
        container: Container::Webm,
        fragment_ms: 1000,
    };
    let (pipeline, feeds, told) = start(&plan, &path);
    let mut picture = Passthrough::new(feeds.video.unwrap(), Codec::Vp8, MediaTime::ZERO);
    let mut sound = Passthrough::new(feeds.audio.unwrap(), Codec::Opus, MediaTime::ZERO);
    let (mut points, reader) = (RestartPoints::new(Container::Webm), SpoolReader::open(&path).unwrap());
    let mut heard = audio.iter().peekable();
    for (n, frame) in video.iter().enumerate() {
        while let Some(frame) = heard.next_if(|heard| heard.at <= frame.at) {
            sound.frame(frame).unwrap();
        }
        picture.frame(frame).unwrap();
        if n == 150 {
            common::until("some of it is walked", || {
                points.advance(&reader, pipeline.written().sealed_to()).unwrap();
                points.walked_to() > 10_000
            });
        }
    }
    heard.for_each(|frame| assert!(sound.frame(frame).is_ok()));
    picture.end();
    sound.end();
    drained(&told);
    drop(pipeline);
    plays_from_the_middle(&path, points, 0);
}

/// A screen that stands still, or a camera that is muted and recorded alone: nothing comes in the 48 s before the stop.
#[test]
fn a_copied_picture_lasts_until_the_stop() {
    let dir = tempfile::tempdir().unwrap();
    for codec in [Codec::H264, Codec::Vp8, Codec::Vp9, Codec::Av1] {
        let Some(frames) = encoded(codec, (320, 180), 60) else {
            eprintln!("no encoder for {codec:?} here");
            continue;
        };
        let path = dir.path().join(format!("still{}", container(codec).extension()));
        let plan = FilePlan {
            video: Some(VideoInputFormat::Copied { codec, size: (320, 180) }),
            audio: None,
            container: container(codec),
            fragment_ms: 1000,
        };
        let (pipeline, feeds, told) = start(&plan, &path);
        let mut copy = Passthrough::new(feeds.video.unwrap(), codec, MediaTime::ZERO);
        frames.iter().for_each(|frame| assert_eq!(copy.frame(frame).unwrap(), Copied::Written));
        copy.lasts_to(MediaTime::from_ns(50_000_000_000)).unwrap();
        copy.end();
        drained(&told);
        assert_eq!(pipeline.progress().media_ns(), 50_000_000_000, "{codec:?}");
        drop(pipeline);
        assert_eq!(complaints(&path), "", "{codec:?}");
        assert_eq!(packets(&path).len(), frames.len(), "{codec:?}");
        let seconds = file_seconds(&path);
        assert!((seconds - 50.0).abs() < 0.01, "{codec:?}: {seconds} s");
    }
}
