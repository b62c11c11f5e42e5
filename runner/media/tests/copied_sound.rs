//! Copied sound, alone and beside a picture that does not come: every packet is in the file at its time, and heard as long
//! as it took.

#![allow(clippy::unwrap_used)]

mod common;

use std::time::Duration;

use gstreamer as gst;

use common::{
    FilePlan, complaints, described, drained, encoded, heard_seconds, one_chain, packets, record, start, times,
};
use spillway_media::encode::{AudioInputFormat, VideoInputFormat, black};
use spillway_media::passthrough::{Copied, Passthrough, container};
use spillway_media::receive::event::{PayloadFormat, Publication, RoomEvent};
use spillway_media::receive::{ReceiveOptions, TrackReceiver};
use spillway_media::track::{Codec, Frame, TimelineEvent, TrackSource};
use spillway_media::units::{MediaTime, RtpTime, SeqNo, Ssrc};
use spillway_plan::{Container, StereoSide};

/// What no container of ours carries becomes Opus in the pipeline and goes from there to the muxer.
#[test]
fn a_g711_track_is_packet_by_packet_what_one_chain_makes() {
    let dir = tempfile::tempdir().unwrap();
    for (codec, chain) in [(Codec::Pcmu, "audio/x-mulaw"), (Codec::Pcma, "audio/x-alaw")] {
        let mut frames = encoded(codec, (0, 0), 90).unwrap();
        // Not a multiple of an Opus packet.
        let last = frames.last_mut().unwrap();
        last.data = last.data.slice(..60);
        let (ours, plain) = (dir.path().join("ours.ogg"), dir.path().join("plain.ogg"));
        record(&frames, codec, Container::Ogg, &ours);
        let buffers = frames.iter().map(|frame| {
            let mut buffer = gst::Buffer::from_slice(frame.data.clone());
            let writable = buffer.get_mut().unwrap();
            writable.set_pts(gst::ClockTime::from_nseconds(frame.at.ns()));
            writable.set_dts(gst::ClockTime::from_nseconds(frame.at.ns()));
            buffer
        });
        let decoder = if codec == Codec::Pcmu { "mulawdec" } else { "alawdec" };
        let chain = format!(
            "caps={chain},rate=8000,channels=1 ! {decoder} ! audiorate skip-to-first=true ! audioconvert \
             ! audioresample ! opusenc bitrate=128000 complexity=7 ! opusparse ! oggmux"
        );
        one_chain(&chain, buffers, &plain);
        assert_eq!(times(&ours), times(&plain), "{codec:?}");
        assert_eq!(described(&ours, "a"), described(&plain, "a"), "{codec:?}");
    }
}

/// Ten seconds of sound beside a picture that is muted at 2 s and comes back at the end.
fn muted(codec: Codec, video: &[Frame], path: &std::path::Path) {
    let container = container(codec);
    let audio = encoded(Codec::Opus, (0, 0), 500).unwrap();
    let plan = FilePlan {
        video: Some(VideoInputFormat::Copied { codec, size: (320, 180) }),
        audio: Some(AudioInputFormat::Copied { codec: Codec::Opus, channels: 2 }),
        container,
        fragment_ms: 500,
    };
    let (pipeline, feeds, told) = start(&plan, path);
    let origin = MediaTime::ZERO;
    let mut picture = Passthrough::new(feeds.video.unwrap(), codec, origin);
    picture.fill_with(black(codec, (320, 180)).unwrap());
    let mut sound = Passthrough::new(feeds.audio.unwrap(), Codec::Opus, origin);
    for frame in video {
        picture.frame(frame).unwrap();
    }
    picture.absent(MediaTime::from_ns(2_000_000_000)).unwrap();
    for frame in &audio {
        sound.frame(frame).unwrap();
        picture.complete_to(frame.at).unwrap();
    }
    // Ten seconds of sound against two of picture, and a kill at this moment would keep nearly all of it.
    let killed = path.with_file_name("killed").with_extension(path.extension().unwrap());
    common::until("the sound is in the file", || {
        std::fs::copy(path, &killed).unwrap();
        packets(&killed).iter().map(|p| p.0).fold(0.0, f64::max) > if container == Container::Mp4 { 9.2 } else { 8.8 }
    });
    assert_eq!(complaints(&killed), "", "{codec:?}");
    // It goes on where it is.
    let mut later = video[0].clone();
    later.at = audio.last().unwrap().at.plus_ns(50_000_000);
    assert_eq!(picture.frame(&later).unwrap(), Copied::Written);
    picture.end();
    sound.end();
    drained(&told);
    drop(pipeline);
    assert_eq!(complaints(path), "", "{codec:?}");
    // Black at 2.0, 3.0 … 10.0, and the last picture.
    assert_eq!(packets(path).len(), video.len() + 10 + audio.len(), "{codec:?}");
}

#[test]
fn a_muted_picture_is_black_and_does_not_hold_up_the_sound() {
    let dir = tempfile::tempdir().unwrap();
    for codec in [Codec::H264, Codec::Vp8, Codec::Vp9, Codec::Av1] {
        let Some(video) = encoded(codec, (320, 180), 60) else {
            eprintln!("no encoder for {codec:?} here");
            continue;
        };
        muted(codec, &video, &dir.path().join(format!("a{}", container(codec).extension())));
    }
    assert!(black(Codec::Opus, (320, 180)).is_err());
}

/// A shared screen of Firefox or Safari that stands still: it is not muted, and nothing comes of it. Before, all sound behind
/// its last picture waited in memory.
#[test]
fn sound_does_not_wait_for_a_picture_that_stands_still() {
    let dir = tempfile::tempdir().unwrap();
    for codec in [Codec::Vp8, Codec::Vp9, Codec::Av1] {
        let Some(video) = encoded(codec, (320, 180), 26) else {
            eprintln!("no encoder for {codec:?} here");
            continue;
        };
        let audio = encoded(Codec::Opus, (0, 0), 500).unwrap();
        let path = dir.path().join(format!("{codec:?}.webm"));
        let plan = FilePlan {
            video: Some(VideoInputFormat::Copied { codec, size: (320, 180) }),
            audio: Some(AudioInputFormat::Copied { codec: Codec::Opus, channels: 2 }),
            container: Container::Webm,
            fragment_ms: 1000,
        };
        let (pipeline, feeds, told) = start(&plan, &path);
        let mut picture = Passthrough::new(feeds.video.unwrap(), codec, MediaTime::ZERO);
        let mut sound = Passthrough::new(feeds.audio.unwrap(), Codec::Opus, MediaTime::ZERO);
        let (last, first) = video.split_last().unwrap();
        first.iter().for_each(|frame| assert_eq!(picture.frame(frame).unwrap(), Copied::Written));
        audio.iter().for_each(|frame| assert_eq!(sound.frame(frame).unwrap(), Copied::Written));
        // A kill at this moment would keep all but the half second that pictures have to come.
        let killed = dir.path().join("killed.webm");
        std::fs::copy(&path, &killed).unwrap();
        assert_eq!(complaints(&killed), "", "{codec:?}");
        let kept = described(&killed, "a");
        assert!((470..audio.len()).contains(&kept.len()), "{codec:?}: {} packets", kept.len());
        assert_eq!(described(&killed, "v").len(), 25, "{codec:?}");
        // It moves again, with a picture that needs the one before.
        let later = Frame { at: MediaTime::from_ns(10_050_000_000), ..last.clone() };
        assert_eq!(picture.frame(&later).unwrap(), Copied::Written);
        picture.end();
        sound.end();
        drained(&told);
        drop(pipeline);
        assert_eq!(complaints(&path), "", "{codec:?}");
        let (shown, heard) = (described(&path, "v"), described(&path, "a"));
        assert_eq!((shown.len(), heard.len()), (26, audio.len()), "{codec:?}");
        let at = shown[25].0[0];
        assert!((at - 10.05).abs() < 0.002, "{codec:?}: {at}");
    }
}

/// Twelve seconds of which a publisher sends less: a pause of DTX from 2 to 4 s, with a packet each 400 ms, a mute from 6
/// to 10 s, and nothing from 11 s on.
const PAUSES_LAST: f64 = 12.0;

fn with_pauses(codec: Codec) -> Vec<Frame> {
    let sent = |n: usize| match n {
        100..200 => n.is_multiple_of(20),
        300..500 | 550.. => false,
        _ => true,
    };
    let all = encoded(codec, (0, 0), 600).unwrap().into_iter().enumerate();
    all.filter(|(n, _)| sent(*n)).map(|(_, frame)| frame).collect()
}

/// As a recording takes them, up to a stop. `meanwhile` is called each 20 ms of the recording.
fn take_with_pauses(sound: &mut Passthrough, frames: &[Frame], mut meanwhile: impl FnMut(MediaTime)) {
    let mut frames = frames.iter().peekable();
    for ms in (0..12_000).step_by(20) {
        let now = MediaTime::from_ns(ms * 1_000_000);
        meanwhile(now);
        while let Some(frame) = frames.next_if(|frame| frame.at <= now) {
            assert_eq!(sound.frame(frame).unwrap(), Copied::Written);
        }
        if ms == 6000 {
            sound.muted();
        }
        sound.complete_to(now.minus_ns(150_000_000)).unwrap();
    }
    sound.lasts_to(MediaTime::from_ns(12_000_000_000)).unwrap();
    sound.end();
}

fn lasts_as_long_as_it_took(path: &std::path::Path) {
    for decoder in ["opus", "libopus"] {
        let seconds = heard_seconds(path, decoder);
        assert!((seconds - PAUSES_LAST).abs() <= 0.02, "{decoder}: {seconds} s of {}", path.display());
    }
}

/// Decoders count samples: before, eight of these twelve seconds were heard.
#[test]
fn a_copied_sound_with_pauses_is_heard_as_long_as_it_took() {
    let dir = tempfile::tempdir().unwrap();
    let frames = with_pauses(Codec::Opus);
    for container in [Container::Ogg, Container::Webm, Container::Mp4] {
        let path = dir.path().join(format!("a{}", container.extension()));
        let audio = Some(AudioInputFormat::Copied { codec: Codec::Opus, channels: 2 });
        let plan = FilePlan { video: None, audio, container, fragment_ms: 1000 };
        let (pipeline, feeds, told) = start(&plan, &path);
        let mut sound = Passthrough::new(feeds.audio.unwrap(), Codec::Opus, MediaTime::ZERO);
        take_with_pauses(&mut sound, &frames, |_| {});
        drained(&told);
        drop(pipeline);
        assert_eq!(complaints(&path), "", "{container:?}");
        lasts_as_long_as_it_took(&path);
        let packets = packets(&path);
        assert_eq!(packets.len(), 600, "{container:?}");
        let first = packets[0].0;
        for (number, (at, _)) in packets.iter().enumerate() {
            let off = at - first - number as f64 * 0.02;
            assert!(off.abs() < 0.0012, "{container:?}: packet {number} is off by {off} s");
        }
    }
}

#[test]
fn a_copied_sound_with_pauses_lasts_beside_a_copied_picture() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.mp4");
    let plan = FilePlan {
        video: Some(VideoInputFormat::Copied { codec: Codec::H264, size: (320, 180) }),
        audio: Some(AudioInputFormat::Copied { codec: Codec::Opus, channels: 2 }),
        container: Container::Mp4,
        fragment_ms: 1000,
    };
    let video = encoded(Codec::H264, (320, 180), 360).unwrap();
    let (pipeline, feeds, told) = start(&plan, &path);
    let mut picture = Passthrough::new(feeds.video.unwrap(), Codec::H264, MediaTime::ZERO);
    let mut sound = Passthrough::new(feeds.audio.unwrap(), Codec::Opus, MediaTime::ZERO);
    let mut shown = video.iter().peekable();
    take_with_pauses(&mut sound, &with_pauses(Codec::Opus), |now| {
        while let Some(frame) = shown.next_if(|frame| frame.at <= now) {
            picture.frame(frame).unwrap();
        }
    });
    shown.for_each(|frame| assert!(picture.frame(frame).is_ok()));
    picture.end();
    drained(&told);
    drop(pipeline);
    assert_eq!(complaints(&path), "");
    lasts_as_long_as_it_took(&path);
    assert_eq!((described(&path, "v").len(), described(&path, "a").len()), (360, 600));
}

/// The same from packets: with jitter, one that is retransmitted after 0.8 s, and a stall of 0.6 s of which all comes at
/// once. Nothing overlaps the silence, and nothing is missing.
#[test]
fn what_comes_late_is_not_silent_already() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.ogg");
    let frames = with_pauses(Codec::Opus);
    let ms = Duration::from_millis;
    let form = PayloadFormat { codec: Codec::Opus, clock_rate: 48_000, channels: 2 };
    let muted = |muted| RoomEvent::Muted { sid: "TR_a".to_owned(), muted };
    let mut arrivals = vec![(ms(6020), muted(true)), (ms(9990), muted(false))];
    for (index, frame) in (0u64..).zip(&frames) {
        let number = frame.at.ns() / 20_000_000;
        let sent = if (220..250).contains(&number) { 250 } else { number };
        let on_its_way = if index == 40 { 830 } else { 30 + number * number % 7 };
        arrivals.push((
            ms(sent * 20 + on_its_way),
            RoomEvent::Packet {
                stream: Ssrc::new(1),
                seq: SeqNo::new(70_000 + index),
                rtp: RtpTime::new((1 << 32) + number * 960),
                marker: false,
                form,
                payload: frame.data.clone(),
            },
        ));
    }
    arrivals.sort_by_key(|(at, _)| *at);
    let publication = Publication {
        sid: "TR_a".to_owned(),
        identity: "alice".to_owned(),
        agent: false,
        side: StereoSide::Both,
        origin: TrackSource::Microphone,
        size: (0, 0),
        muted: false,
    };
    let mut receiver = TrackReceiver::new(ReceiveOptions { reorder_wait: ms(2000), late: ms(10_000) });
    receiver.push(RoomEvent::Opened { stream: Ssrc::new(1), publication }, ms(0));
    let stopped = ms(12_000);
    let mut events = vec![];
    let mut arrivals = arrivals.into_iter().peekable();
    for tick in (0..12_000).step_by(40).map(ms) {
        while let Some((at, event)) = arrivals.next_if(|(at, _)| *at <= tick) {
            receiver.push(event, at);
        }
        receiver.tick(tick);
        events.extend(receiver.drain());
    }
    receiver.finish(stopped);
    events.extend(receiver.drain());
    let stopped_at = MediaTime::from(stopped - receiver.origin().unwrap());

    let audio = Some(AudioInputFormat::Copied { codec: Codec::Opus, channels: 2 });
    let plan = FilePlan { video: None, audio, container: Container::Ogg, fragment_ms: 1000 };
    let (pipeline, feeds, told) = start(&plan, &path);
    let first = events.iter().find_map(|event| match event {
        TimelineEvent::Frame(frame) => Some(frame.at),
        _ => None,
    });
    let origin = first.unwrap();
    let mut sound = Passthrough::new(feeds.audio.unwrap(), Codec::Opus, origin);
    let (mut written, mut mutes) = (0, 0);
    for event in &events {
        match event {
            TimelineEvent::Frame(frame) => {
                assert_eq!(sound.frame(frame).unwrap(), Copied::Written, "at {:?}", frame.at);
                written += 1;
            }
            TimelineEvent::Muted { .. } => {
                sound.muted();
                mutes += 1;
            }
            TimelineEvent::Watermark { at } => sound.complete_to(*at).unwrap(),
            _ => {}
        }
    }
    sound.lasts_to(stopped_at).unwrap();
    sound.end();
    drained(&told);
    drop(pipeline);
    assert_eq!((written, mutes, sound.late_sound_ms()), (frames.len(), 1, 0));
    let (seconds, took) = (heard_seconds(&path, "opus"), stopped_at.ns_since(origin) as f64 / 1e9);
    assert!((seconds - took).abs() <= 0.02, "{seconds} s of {took} s");
}

/// It becomes Opus, which has no holes either.
#[test]
fn a_g711_track_with_pauses_is_heard_as_long_as_it_took() {
    let dir = tempfile::tempdir().unwrap();
    for codec in [Codec::Pcmu, Codec::Pcma] {
        let path = dir.path().join(format!("{codec:?}.ogg"));
        let audio = Some(AudioInputFormat::Copied { codec, channels: 1 });
        let plan = FilePlan { video: None, audio, container: Container::Ogg, fragment_ms: 1000 };
        let (pipeline, feeds, told) = start(&plan, &path);
        let mut sound = Passthrough::new(feeds.audio.unwrap(), codec, MediaTime::ZERO);
        take_with_pauses(&mut sound, &with_pauses(codec), |_| {});
        drained(&told);
        drop(pipeline);
        assert_eq!(complaints(&path), "", "{codec:?}");
        lasts_as_long_as_it_took(&path);
    }
}
