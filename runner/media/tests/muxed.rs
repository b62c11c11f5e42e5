//! Files as they leave the pipeline: whole after a clean end, playable when cut anywhere.

#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;
use std::process::Command;

use common::{
    FileFeeds, FilePlan, click_at, click_blocks, complaints, described, drained, one_chain, plays_from_the_middle,
    start, times,
};
use gstreamer as gst;
use spillway_ipc::SpoolReader;
use spillway_ipc::restart::RestartPoints;
use spillway_media::compositor::encoder_delay;
use spillway_media::encode::{AudioInputFormat, Colour, VideoInputFormat};
use spillway_media::output::{Feed, PictureBits, RawSink, RepeatRate, VariableRate};
use spillway_plan::{AudioCodec, Container, H264Profile, VideoEncoding};

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

/// Seconds of pictures in which every picture differs, and of a tone.
fn feed_raw(feeds: &FileFeeds, seconds: u32) {
    feed_some(feeds, seconds, 0.3);
    feeds.video.iter().for_each(Feed::end);
    feeds.audio.iter().for_each(Feed::end);
}

/// The same without an end.
fn feed_some(feeds: &FileFeeds, seconds: u32, loud: f32) {
    std::thread::scope(|threads| {
        if let Some(video) = &feeds.video {
            threads.spawn(move || (0..u64::from(seconds) * 30).for_each(|n| video.push(picture(n)).unwrap()));
        }
        if let Some(audio) = &feeds.audio {
            threads.spawn(move || (0..u64::from(seconds) * 50).for_each(|n| audio.push(block(n, loud)).unwrap()));
        }
    });
}

/// As mixers do that work up to one watermark: where the bytes of a moment lie in the file does not depend on threads.
fn feed_together(feeds: &FileFeeds, seconds: u32, loud: f32) {
    let mut pictures = 0..u64::from(seconds) * 30;
    for n in 0..u64::from(seconds) * 50 {
        if let Some(video) = &feeds.video {
            while pictures.start * 50 <= n * 30
                && let Some(picture_number) = pictures.next()
            {
                video.push(picture(picture_number)).unwrap();
            }
        }
        feeds.audio.iter().for_each(|audio| audio.push(block(n, loud)).map(drop).unwrap());
    }
}

/// Picture `n` of 30 a second.
fn picture(n: u64) -> gst::Buffer {
    let mut data = vec![128u8; 320 * 180 * 3 / 2];
    for (i, y) in data[..320 * 180].iter_mut().enumerate() {
        *y = 16 + ((i as u64 + n * 7) % 200) as u8;
    }
    let mut buffer = gst::Buffer::from_mut_slice(data);
    let b = buffer.get_mut().unwrap();
    b.set_pts(gst::ClockTime::from_nseconds(n * 1_000_000_000 / 30));
    b.set_duration(gst::ClockTime::from_nseconds(1_000_000_000 / 30));
    buffer
}

/// Block `n` of 20 ms of a tone.
fn block(n: u64, loud: f32) -> gst::Buffer {
    let samples = (0..960).flat_map(|i| {
        let t = (n * 960 + i) as f32 / 48_000.0;
        let s = (t * 440.0 * std::f32::consts::TAU).sin() * loud;
        [s, s]
    });
    let data: Vec<u8> = samples.flat_map(f32::to_le_bytes).collect();
    let mut buffer = gst::Buffer::from_mut_slice(data);
    let b = buffer.get_mut().unwrap();
    b.set_pts(gst::ClockTime::from_mseconds(n * 20));
    b.set_duration(gst::ClockTime::from_mseconds(20));
    buffer
}

fn raw(container: Container, video: bool, codec: AudioCodec) -> FilePlan {
    FilePlan {
        video: video.then(|| VideoInputFormat::Raw { encoding: encoding(), colour: Colour::Bt601 }),
        audio: Some(AudioInputFormat::Raw { codec, bitrate: 128, frequency: 48_000, separate: false }),
        container,
        fragment_ms: 1000,
    }
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
        assert_eq!(pipeline.written().end(), std::fs::metadata(&path).unwrap().len());
        drop(pipeline);
        assert_eq!(complaints(&path), "", "{name}");
        let end = seconds(&path);
        assert!((2.9..3.1).contains(&end), "{name} ends at {end}");
    }
}

/// Few pictures of it are in the file; the last one says how long it lasts.
#[test]
fn a_picture_that_stands_still_lasts_as_long_as_the_recording() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("still.mp4");
    let (pipeline, feeds, told) = start(&raw(Container::Mp4, true, AudioCodec::Aac), &path);
    let FileFeeds { video, audio } = feeds;
    let way = VariableRate::new(Box::new(video.unwrap()), RepeatRate::Recorded, PictureBits::default());
    let audio = audio.unwrap();
    std::thread::scope(|threads| {
        threads.spawn(|| {
            (0..200).for_each(|n| audio.push(block(n, 0.3)).unwrap());
            audio.end();
        });
        for n in 0..119u64 {
            let mut still = picture(0);
            let writable = still.get_mut().unwrap();
            writable.set_pts(gst::ClockTime::from_nseconds(n * 1_000_000_000 / 30));
            if n > 0 {
                writable.set_flags(gst::BufferFlags::DROPPABLE);
            }
            way.push(still).unwrap();
        }
        way.end();
    });
    drained(&told);
    drop(pipeline);
    assert_eq!(complaints(&path), "");
    let pictures: Vec<Vec<f64>> = described(&path, "v").into_iter().map(|(times, _)| times).collect();
    let shown: Vec<u64> = pictures.iter().map(|times| (times[0] * 1000.0).round() as u64).collect();
    assert_eq!(shown, [0, 100, 200, 300, 400, 500, 1000, 1500, 2000, 2500, 3000, 3500, 3933]);
    let last = &pictures[pictures.len() - 1];
    assert!((last[0] + last[2] - 119.0 / 30.0).abs() < 0.001, "{last:?}");
    assert!(pictures.windows(2).all(|pair| (pair[0][0] + pair[0][2] - pair[1][0]).abs() < 0.001), "{pictures:?}");
}

/// Encoder and muxer have a fan-out between them; nothing of what the muxer must know is lost on the way.
#[test]
fn sound_is_packet_by_packet_what_one_chain_makes() {
    const RAW: &str = "caps=audio/x-raw,format=F32LE,layout=interleaved,rate=48000,channels=2,channel-mask=(bitmask)3 \
                       ! audioconvert ! audioresample ! audio/x-raw,rate=48000,channels=2";
    let dir = tempfile::tempdir().unwrap();
    for (container, codec, chain, name) in [
        (Container::Ogg, AudioCodec::Opus, "opusenc bitrate=128000 complexity=7 ! opusparse ! oggmux", "a.ogg"),
        (
            Container::Mp3,
            AudioCodec::Mp3,
            "lamemp3enc target=bitrate cbr=true bitrate=128 ! mpegaudioparse ! xingmux",
            "a.mp3",
        ),
    ] {
        // A recording ends anywhere: seven packets and a bit.
        let blocks = || {
            (0..8).map(|n| {
                let mut whole = block(n, 0.3);
                if n == 7 {
                    let writable = whole.get_mut().unwrap();
                    writable.set_size(8 * 247);
                    writable.set_duration(gst::ClockTime::from_nseconds(247 * 1_000_000_000 / 48_000));
                }
                whole
            })
        };
        let (ours, plain) = (dir.path().join(name), dir.path().join(format!("plain-{name}")));
        let (pipeline, feeds, told) = start(&raw(container, false, codec), &ours);
        let feed = feeds.audio.unwrap();
        blocks().for_each(|block| feed.push(block).unwrap());
        feed.end();
        drained(&told);
        drop(pipeline);
        one_chain(&format!("{RAW} ! {chain}"), blocks(), &plain);
        assert_eq!(times(&ours), times(&plain), "{name}");
        assert_eq!(described(&ours, "a"), described(&plain, "a"), "{name}");
    }
}

/// Left and right of a file at 48 kHz, full scale at 1.
fn samples(path: &Path) -> Vec<[f64; 2]> {
    let out = Command::new("ffmpeg")
        .args(["-v", "error", "-i"])
        .arg(path)
        .args(["-ac", "2", "-ar", "48000", "-f", "s16le", "-"])
        .output()
        .unwrap();
    let side = |bytes: &[u8]| f64::from(i16::from_le_bytes([bytes[0], bytes[1]])) / 32_768.0;
    out.stdout.chunks_exact(4).map(|both| [side(&both[..2]), side(&both[2..])]).collect()
}

/// The search that is left out at this rate gains nothing that can be measured: at most 1 dB more of noise.
#[test]
fn opus_is_as_good_as_with_its_full_search() {
    let dir = tempfile::tempdir().unwrap();
    // Different voices on the sides and a common one, each with overtones.
    let voice = |t: f64, hertz: f64| {
        (1..8).map(|n| (t * hertz * f64::from(n) * std::f64::consts::TAU).sin() / f64::from(n)).sum::<f64>()
    };
    let source = |at: u64| {
        let t = at as f64 / 48_000.0;
        let common = voice(t, 196.0);
        [0.1 * (voice(t, 262.0) + common), 0.1 * (voice(t, 349.0) + common)]
    };
    let blocks = || common::sound_blocks(move |at| source(at).map(|sample| sample as f32));
    let (ours, full) = (dir.path().join("a.ogg"), dir.path().join("full.ogg"));
    let (pipeline, feeds, told) = start(&raw(Container::Ogg, false, AudioCodec::Opus), &ours);
    let feed = feeds.audio.unwrap();
    blocks().for_each(|block| feed.push(block).unwrap());
    feed.end();
    drained(&told);
    drop(pipeline);
    let chain = "caps=audio/x-raw,format=F32LE,layout=interleaved,rate=48000,channels=2,channel-mask=(bitmask)3 \
                 ! audioconvert ! audioresample ! opusenc bitrate=128000 complexity=10 ! opusparse ! oggmux";
    one_chain(chain, blocks(), &full);
    let noise = |path: &Path| {
        let heard = samples(path);
        let inside = heard.iter().zip(0u64..).take(86_400).skip(9_600);
        let error = |(heard, at): (&[f64; 2], u64)| {
            let wanted = source(at);
            (heard[0] - wanted[0]).powi(2) + (heard[1] - wanted[1]).powi(2)
        };
        10.0 * (inside.map(error).sum::<f64>() / 76_800.0).log10()
    };
    let (ours, full) = (noise(&ours), noise(&full));
    println!("noise of Opus at 128 kbit/s: {ours:.2} dB, with the full search {full:.2} dB");
    assert!(ours < full + 1.0, "{ours:.2} dB, {full:.2} dB");
}

/// An upload may be aborted by others in the middle of a recording; what goes on in another object has to play.
#[test]
fn what_is_left_of_a_recording_plays_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    for (container, video, codec, name, forgiven) in [
        (Container::Mp4, true, AudioCodec::Aac, "a.mp4", 0),
        (Container::Mp4, true, AudioCodec::Opus, "b.mp4", 0),
        (Container::Mp4, false, AudioCodec::Aac, "c.mp4", 0),
        (Container::Ogg, false, AudioCodec::Opus, "d.ogg", 0),
        // The first frame may need bits of the one before it.
        (Container::Mp3, false, AudioCodec::Mp3, "e.mp3", 2),
    ] {
        let path = dir.path().join(name);
        let mut plan = raw(container, video, codec);
        if let Some(VideoInputFormat::Raw { encoding, .. }) = &mut plan.video {
            encoding.key_frame_interval = Some(1.0);
        }
        let (pipeline, feeds, told) = start(&plan, &path);
        let mut points = RestartPoints::new(container);
        let reader = SpoolReader::open(&path).unwrap();
        std::thread::scope(|threads| {
            threads.spawn(|| feed_together(&feeds, 12, 0.3));
            common::until("half of it is walked", || {
                points.advance(&reader, pipeline.written().sealed_to()).unwrap();
                points.walked_to() > 20_000
            });
        });
        feeds.video.iter().for_each(Feed::end);
        feeds.audio.iter().for_each(Feed::end);
        drained(&told);
        drop(pipeline);
        plays_from_the_middle(&path, points, forgiven);
    }
}

/// What a kill leaves that tears the write ending at `length`: the `mdat` being written has no size yet.
fn torn(bytes: &[u8], length: usize) -> Vec<u8> {
    let mut left = bytes[..length].to_vec();
    let (mut at, mut open) = (0, None);
    while at + 8 <= length {
        let size = u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        match &bytes[at + 4..at + 8] {
            b"mdat" => open = Some(at),
            b"moof" if at + size <= length => open = None,
            _ => {}
        }
        at += size;
    }
    if let Some(at) = open {
        left[at..at + 4].fill(0);
    }
    left
}

/// When the last packet begins that lies before `length` of a file, seconds.
fn seconds_before(packets: &[(f64, u64)], length: usize) -> f64 {
    packets.iter().filter(|(_, end)| *end <= length as u64).map(|(at, _)| *at).fold(0.0, f64::max)
}

/// Every packet's time and where it ends in the file.
fn packets(path: &Path) -> Vec<(f64, u64)> {
    let out = Command::new("ffprobe")
        .args(["-v", "error", "-show_entries", "packet=pts_time,size,pos", "-of", "csv=p=0"])
        .arg(path)
        .output()
        .unwrap();
    String::from_utf8_lossy(&out.stdout)
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(',');
            let at = fields.next()?.parse().ok()?;
            let size: u64 = fields.next()?.parse().ok()?;
            Some((at, fields.next()?.parse::<u64>().ok()? + size))
        })
        .collect()
}

#[test]
fn a_file_cut_anywhere_plays_without_a_complaint() {
    let dir = tempfile::tempdir().unwrap();
    for (container, video, codec, name) in
        [(Container::Mp4, true, AudioCodec::Aac, "a.mp4"), (Container::Mp4, false, AudioCodec::Aac, "c.mp4")]
    {
        for loud in [0.3, 0.0] {
            let path = dir.path().join(name);
            let (pipeline, feeds, told) = start(&raw(container, video, codec), &path);
            // Not ended: what stands in the file is what a kill leaves.
            feed_some(&feeds, 8, loud);
            let progress = pipeline.progress();
            common::until("most of it is muxed", || progress.complete_ns(video, true) > 7_000_000_000);
            drop(pipeline);
            drop(told);
            let bytes = std::fs::read(&path).unwrap();
            let whole = seconds(&path);
            assert!(whole > 5.5, "{name}: {whole}");
            let packets = packets(&path);
            for n in 1..12 {
                let length = bytes.len() * (n * 83 % 100) / 100;
                let cut = dir.path().join("cut.mp4");
                std::fs::write(&cut, torn(&bytes, length)).unwrap();
                let told = complaints(&cut);
                let kept = seconds(&cut);
                let expected = seconds_before(&packets, length) - 2.0;
                if expected > 0.0 {
                    assert_eq!(told, "", "{name} cut at {length} of {}", bytes.len());
                    assert!(kept >= expected, "{name} cut at {length}: {kept} of {expected}");
                }
            }
        }
    }
}

#[test]
fn a_click_stands_where_it_was_given_once_the_encoder_is_reckoned_with() {
    let dir = tempfile::tempdir().unwrap();
    for frequency in [48_000, 44_100] {
        let path = dir.path().join("click.mp4");
        let mut plan = raw(Container::Mp4, false, AudioCodec::Aac);
        plan.audio = Some(AudioInputFormat::Raw { codec: AudioCodec::Aac, bitrate: 128, frequency, separate: false });
        let (pipeline, feeds, told) = start(&plan, &path);
        let click = 48_000 - u64::from(encoder_delay(AudioCodec::Aac, frequency));
        let feed = feeds.audio.unwrap();
        click_blocks(click).for_each(|buffer| feed.push(buffer).unwrap());
        feed.end();
        drained(&told);
        drop(pipeline);
        let first = click_at(&path);
        assert!((first - 48_000).abs() <= 96, "at {frequency} Hz the click stands at {first}");
    }
}
