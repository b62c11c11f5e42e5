//! Which streams a plan makes, and which file gets which.

use spillway_plan::{
    EgressKind, FileOutput, H264Profile, ImageCodec, ImageSuffix, ImagesOutput, LayoutName, LayoutShape, Limits,
    SegmentsOutput, Source, StreamProtocol, StreamsOutput,
};

use super::*;
use crate::recorder::mode::FileStart;
use crate::track::{Codec, Track, TrackId, TrackSource};
use crate::units::MediaTime;

const MAIN: AudioEncoding = AudioEncoding { codec: AudioCodec::Aac, bitrate: 128, frequency: 48_000 };

fn file(container: Container, audio: Option<AudioCodec>) -> Output {
    Output::File(FileOutput { container: Some(container), audio, path: String::new(), manifest: false, stored: false })
}

fn plan(main: AudioEncoding, also: Vec<AudioEncoding>, picture: bool, outputs: Vec<Output>) -> EgressPlan {
    let encoding = VideoEncoding {
        width: 1280,
        height: 720,
        framerate: 30,
        bitrate: 3000,
        profile: H264Profile::Main,
        key_frame_interval: None,
    };
    let layout = LayoutName { shape: LayoutShape::Grid, light: false };
    let AudioEncoding { codec, bitrate, frequency } = main;
    EgressPlan {
        egress_id: "EG_x".into(),
        room_name: "room".into(),
        room_id: String::new(),
        kind: EgressKind::RoomComposite,
        source: Source::Room,
        picture: picture.then_some(VideoPlan::Composed { encoding, layout }),
        sound: Some(AudioPlan::Mixed { codec, bitrate, frequency, mixing: Mixing::Both, also }),
        outputs,
        limits: Limits::default(),
        retry_count: 0,
        sheets: None,
    }
}

fn streams(plan: &EgressPlan, output: u32, container: Container) -> Vec<u8> {
    streams_of(&RecordingMode::Composed, plan, output, container)
}

fn streams_of(mode: &RecordingMode, plan: &EgressPlan, output: u32, container: Container) -> Vec<u8> {
    let inputs = inputs(mode, plan);
    file_streams(&inputs.formats(), plan, output, container).into_iter().map(|stream| stream.0).collect()
}

fn composed_lead(plan: &EgressPlan) -> Option<u32> {
    sound_options(&inputs(&RecordingMode::Composed, plan), plan).map(|options| options.lead)
}

fn copied(codec: Codec) -> RecordingMode {
    let track = Track {
        id: TrackId(1),
        sid: "TR_1".into(),
        identity: "ann".into(),
        agent: false,
        origin: TrackSource::Camera,
        codec,
        channels: 0,
        side: spillway_plan::StereoSide::Both,
    };
    RecordingMode::CopiedPicture { track, first: FileStart { at: MediaTime::ZERO, size: (320, 180) } }
}

#[test]
fn a_file_gets_the_encoding_it_can_hold() {
    let opus = AudioEncoding { codec: AudioCodec::Opus, bitrate: 128, frequency: 48_000 };
    let outputs =
        vec![file(Container::Mp4, None), file(Container::Ogg, Some(AudioCodec::Opus)), file(Container::Mp4, None)];
    let plan = self::plan(MAIN, vec![opus], true, outputs);
    assert_eq!(inputs(&RecordingMode::Composed, &plan).formats().len(), 3);
    assert_eq!(streams(&plan, 0, Container::Mp4), [0, 1]);
    assert_eq!(streams(&plan, 1, Container::Ogg), [2], "no pictures in an Ogg");
    assert_eq!(streams(&plan, 2, Container::Mp4), [0, 1], "one encoding for both");
}

#[test]
fn sound_alone_is_numbered_from_0() {
    let mp3 = AudioEncoding { codec: AudioCodec::Mp3, bitrate: 128, frequency: 44_100 };
    let opus = AudioEncoding { codec: AudioCodec::Opus, bitrate: 128, frequency: 48_000 };
    let outputs = vec![file(Container::Ogg, None), file(Container::Mp3, Some(AudioCodec::Mp3))];
    let plan = self::plan(opus, vec![mp3], false, outputs);
    assert_eq!((streams(&plan, 0, Container::Ogg), streams(&plan, 1, Container::Mp3)), (vec![0], vec![1]));
    assert_eq!(composed_lead(&plan), Some(0));
}

#[test]
fn sound_is_encoded_for_the_container_that_a_copied_picture_decides() {
    use AudioCodec::{Aac, Opus};
    let opus = AudioEncoding { codec: AudioCodec::Opus, bitrate: 128, frequency: 48_000 };
    let open = |audio| {
        let (path, manifest, stored) = (String::new(), false, false);
        Output::File(FileOutput { container: None, audio, path, manifest, stored })
    };
    let if_possible = |outputs| {
        let plan = self::plan(MAIN, vec![opus], true, outputs);
        let Some(VideoPlan::Composed { encoding, .. }) = plan.picture.clone() else { panic!("{plan:?}") };
        EgressPlan { picture: Some(VideoPlan::CopiedIfPossible(encoding)), ..plan }
    };
    let encoded = |mode: &RecordingMode, plan: &EgressPlan| {
        let sound = |format: &EncodedFormat| match format {
            EncodedFormat::Aac { .. } => Some(AudioCodec::Aac),
            EncodedFormat::Opus { .. } => Some(AudioCodec::Opus),
            _ => None,
        };
        inputs(mode, plan).formats().iter().filter_map(sound).collect::<Vec<_>>()
    };
    let (mp4, webm, ogg) = (Container::Mp4, Container::Webm, Container::Ogg);
    let alone = if_possible(vec![open(None)]);
    for (mode, codec, container, lead) in [
        (RecordingMode::Composed, Aac, mp4, 1024),
        (copied(Codec::H264), Aac, mp4, 1024),
        (copied(Codec::Vp8), Opus, webm, 0),
        (copied(Codec::Vp9), Opus, webm, 0),
        (copied(Codec::Av1), Opus, webm, 0),
    ] {
        assert_eq!(encoded(&mode, &alone), [codec], "{mode:?}");
        assert_eq!(streams_of(&mode, &alone, 0, container), [0, 1]);
        assert_eq!(sound_options(&inputs(&mode, &alone), &alone).map(|options| options.lead), Some(lead));
    }
    let formats = inputs(&copied(Codec::Vp9), &alone).formats();
    assert!(matches!(formats[0], EncodedFormat::Video { codec: Codec::Vp9, size: (320, 180), .. }), "{formats:?}");

    let beside = if_possible(vec![open(None), file(ogg, Some(Opus))]);
    assert_eq!(encoded(&copied(Codec::Vp8), &beside), [Opus]);
    assert_eq!(streams_of(&copied(Codec::Vp8), &beside, 0, webm), [0, 1]);
    assert_eq!(streams_of(&copied(Codec::Vp8), &beside, 1, ogg), [1], "one encoding for both");
    assert_eq!(encoded(&copied(Codec::H264), &beside), [Aac, Opus]);
    assert_eq!(streams_of(&copied(Codec::H264), &beside, 1, ogg), [2]);
}

#[test]
fn the_mixer_is_ahead_for_the_encoder_that_delays_most() {
    let opus = AudioEncoding { codec: AudioCodec::Opus, bitrate: 128, frequency: 48_000 };
    for (main, also) in [(MAIN, vec![opus]), (opus, vec![MAIN])] {
        let outputs = vec![file(Container::Mp4, Some(AudioCodec::Aac)), file(Container::Ogg, Some(AudioCodec::Opus))];
        let plan = self::plan(main, also, false, outputs);
        assert_eq!(composed_lead(&plan), Some(1024));
        let mut leads: Vec<u32> = inputs(&RecordingMode::Composed, &plan).audio.iter().map(lead).collect();
        leads.sort_unstable();
        assert_eq!(leads, [0, 1024]);
    }
}

#[test]
fn key_frames_have_a_grid_where_pictures_are_cut_or_joined_or_an_interval_is_asked_for() {
    let segments = |segment_ns| {
        Output::Segments(SegmentsOutput { naming: Default::default(), segment_ns, manifest: false, stored: false })
    };
    let streams = Output::Streams(StreamsOutput { protocol: StreamProtocol::Rtmp, count: 1 });
    let mp4 = || file(Container::Mp4, None);
    let second = 1_000_000_000;
    for (outputs, interval, expected) in [
        (vec![mp4()], None, None),
        (vec![mp4()], Some(4.0), Some(KeyGrid::new(4 * second, 4 * second))),
        (vec![mp4(), streams.clone()], None, Some(KeyGrid::new(2 * second, 2 * second))),
        (vec![streams.clone()], Some(4.0), Some(KeyGrid::new(4 * second, 4 * second))),
        (vec![segments(6 * second), streams], Some(4.0), Some(KeyGrid::new(6 * second, 3 * second))),
        (vec![mp4(), segments(5 * second)], None, Some(KeyGrid::new(5 * second, 2 * second))),
    ] {
        let mut plan = self::plan(MAIN, vec![], true, outputs);
        if let Some(VideoPlan::Composed { encoding, .. }) = &mut plan.picture {
            encoding.key_frame_interval = interval;
        }
        assert_eq!(key_grid(&plan), expected);
        assert_eq!(picture_options(&plan).and_then(|options| options.key_grid), expected);
    }
    assert_eq!(key_grid(&self::plan(MAIN, vec![], false, vec![segments(6 * second)])), None, "no pictures");
}

#[test]
fn what_viewers_wait_for_is_waited_for_less() {
    let streams = |protocol, count| Output::Streams(StreamsOutput { protocol, count });
    let (rtmp, srt) = (streams(StreamProtocol::Rtmp, 0), streams(StreamProtocol::Srt, 2));
    let mp4 = || file(Container::Mp4, None);
    let settings = MediaSettings { reorder_ms: 3000, live_reorder_ms: 400, ..MediaSettings::default() };
    let late = Some(Duration::from_secs(2));
    for (outputs, reorder_ms, late) in [
        (vec![mp4(), images()], 3000, None),
        (vec![streams(StreamProtocol::Websocket, 1)], 3000, None),
        (vec![rtmp.clone()], 400, late),
        (vec![srt], 400, late),
        (vec![images(), rtmp.clone()], 400, late),
        (vec![mp4(), rtmp], 400, None),
    ] {
        let waits = join_waits(&plan(MAIN, vec![], true, outputs), &settings);
        assert_eq!(waits, (Duration::from_millis(reorder_ms), late));
    }
}

#[test]
fn only_what_is_not_watched_may_stand_still() {
    let watched = |outputs| is_watched(&plan(MAIN, vec![], true, outputs));
    let mp4 = || file(Container::Mp4, None);
    assert!(!watched(vec![mp4(), images()]));
    let segments = SegmentsOutput { naming: Default::default(), segment_ns: 1, manifest: false, stored: false };
    assert!(watched(vec![mp4(), Output::Segments(segments)]));
    assert!(watched(vec![mp4(), Output::Streams(StreamsOutput { protocol: StreamProtocol::Rtmp, count: 0 })]));
}

#[test]
fn a_page_stands_still_in_files_alone() {
    let page = |outputs| {
        let kind = spillway_plan::PageKind::Web;
        let plan = self::plan(MAIN, vec![], true, outputs);
        let Some(VideoPlan::Composed { encoding, .. }) = plan.picture.clone() else { panic!("{plan:?}") };
        let source = Source::Page(spillway_plan::PagePlan { kind, awaits_start: false });
        EgressPlan { kind: EgressKind::Web, source, picture: Some(VideoPlan::Single(encoding)), ..plan }
    };
    let mode = RecordingMode::Page { began: Duration::ZERO };
    let mp4 = || file(Container::Mp4, None);
    let streams = || Output::Streams(StreamsOutput { protocol: StreamProtocol::Srt, count: 1 });
    for (outputs, repeats) in
        [(vec![mp4()], false), (vec![mp4(), streams()], true), (vec![mp4(), images()], true), (vec![images()], true)]
    {
        let plan = page(outputs);
        let inputs = inputs(&mode, &plan);
        let feed = page_feed(&inputs, &plan);
        assert_eq!((feed.framerate, feed.repeats, feed.key_grid), (30, repeats, inputs.key_grid), "{:?}", plan.outputs);
        let lead = sound_options(&inputs, &plan).map_or(0, |sound| sound.lead);
        assert_eq!(feed.lead, lead);
        // A display is read as BT.709; without an encoder there is no picture to encode.
        let colour = inputs.video.map(|video| matches!(video, VideoInputFormat::Raw { colour: Colour::Bt709, .. }));
        assert_eq!(colour, plan.encoder_needed().then_some(true), "{:?}", plan.outputs);
    }
    let plan = page(vec![mp4()]);
    assert_eq!(streams_of(&mode, &plan, 0, Container::Mp4), [0, 1]);
}

#[test]
fn a_stream_gets_more_pictures_that_repeat_than_a_file() {
    let rate = |outputs| repeat_rate(&plan(MAIN, vec![], true, outputs));
    let mp4 = || file(Container::Mp4, None);
    let segments = SegmentsOutput { naming: Default::default(), segment_ns: 1, manifest: false, stored: false };
    assert_eq!(rate(vec![mp4(), Output::Segments(segments), images()]), RepeatRate::Recorded);
    let streams = StreamsOutput { protocol: StreamProtocol::Srt, count: 0 };
    assert_eq!(rate(vec![mp4(), Output::Streams(streams)]), RepeatRate::Streamed);
}

fn images() -> Output {
    Output::Images(ImagesOutput {
        prefix: String::new(),
        interval_ns: 1_000_000_000,
        size: None,
        suffix: ImageSuffix::Index,
        codec: ImageCodec::Jpeg,
        manifest: false,
        stored: false,
    })
}

#[test]
fn images_alone_need_no_encoder() {
    let alone = EgressPlan { sound: None, ..plan(MAIN, vec![], true, vec![images()]) };
    assert!(inputs(&RecordingMode::Composed, &alone).formats().is_empty());
    let beside = plan(MAIN, vec![], true, vec![file(Container::Mp4, None), images()]);
    assert_eq!(inputs(&RecordingMode::Composed, &beside).formats().len(), 2);
    assert_eq!(streams(&beside, 0, Container::Mp4), [0, 1]);
}

#[test]
fn images_are_as_large_as_the_picture_is_published_unless_it_is_encoded() {
    let composed = plan(MAIN, vec![], true, vec![images()]);
    let Some(VideoPlan::Composed { encoding, .. }) = composed.picture.clone() else { panic!("{composed:?}") };
    let of =
        |picture: VideoPlan, outputs: Vec<Output>| EgressPlan { picture: Some(picture), outputs, ..composed.clone() };
    let size = |mode: &RecordingMode, plan: &EgressPlan| {
        canvas(mode, plan, Some((641, 363))).map(|options| (options.size.width, options.size.height))
    };
    let copied = copied(Codec::H264);
    let (mp4, if_possible) = (file(Container::Mp4, None), VideoPlan::CopiedIfPossible(encoding.clone()));
    let both = of(if_possible.clone(), vec![mp4, images()]);
    assert_eq!(size(&copied, &both), Some((320, 180)));
    assert_eq!(size(&RecordingMode::Composed, &both), Some((1280, 720)), "as the file");
    assert_eq!(size(&RecordingMode::Composed, &of(if_possible, vec![images()])), Some((640, 362)));
    assert_eq!(size(&RecordingMode::Composed, &of(VideoPlan::Single(encoding), vec![images()])), Some((1280, 720)));
    assert_eq!(size(&RecordingMode::Composed, &composed), Some((1280, 720)));
}

#[test]
fn raw_sound_goes_to_servers_as_it_is() {
    let websocket = Output::Streams(StreamsOutput { protocol: StreamProtocol::Websocket, count: 1 });
    let mut plan = self::plan(MAIN, vec![], false, vec![websocket]);
    plan.sound = Some(AudioPlan::Raw { mixing: Mixing::Both });
    let formats = inputs(&RecordingMode::Composed, &plan).formats();
    assert_eq!(formats, [EncodedFormat::Pcm]);
    assert_eq!(stream_numbers(&formats), [StreamNumber(0)]);
    assert!(file_streams(&formats, &plan, 0, Container::Ogg).is_empty());
    assert!(plan.streams().is_some());
    assert_eq!(composed_lead(&plan), Some(0));
}
