//! Every kind of output, in every combination: what is planned.

use livekit_protocol as livekit;
use livekit_protocol::room_composite_egress_request::Options;
use spillway_protocol::code::Code;
use spillway_protocol::rpc::start_egress_request::EgressRequest;

use super::*;
use crate::destination::{Destination, Local, Provider};
use crate::output_types::*;

type Composite = livekit::RoomCompositeEgressRequest;

const CANARY: &str = "canary-key";

fn start(request: EgressRequest) -> StartEgressRequest {
    StartEgressRequest { egress_id: "EG_x".into(), request: Some(request), ..StartEgressRequest::default() }
}

fn file(path: &str, file_type: livekit::EncodedFileType) -> livekit::EncodedFileOutput {
    livekit::EncodedFileOutput { file_type: file_type.into(), filepath: path.into(), ..Default::default() }
}

fn default_file() -> livekit::EncodedFileOutput {
    file("", livekit::EncodedFileType::DefaultFiletype)
}

fn segments(prefix: &str, playlist: &str, live: &str) -> livekit::SegmentedFileOutput {
    livekit::SegmentedFileOutput {
        filename_prefix: prefix.into(),
        playlist_name: playlist.into(),
        live_playlist_name: live.into(),
        ..Default::default()
    }
}

fn rtmp() -> livekit::StreamOutput {
    livekit::StreamOutput { protocol: 0, urls: vec![format!("rtmp://host/app/{CANARY}")] }
}

fn composite() -> Composite {
    Composite { room_name: "sales".into(), ..Default::default() }
}

/// One output of each kind whose bit is set: file, segments, images, streams.
fn combined(kinds: u8) -> Composite {
    let has = |bit: u8| usize::from(kinds & bit != 0);
    Composite {
        file_outputs: vec![default_file(); has(1)],
        segment_outputs: vec![segments("d/a", "", ""); has(2)],
        image_outputs: vec![livekit::ImageOutput::default(); has(4)],
        stream_outputs: vec![rtmp(); has(8)],
        ..composite()
    }
}

fn with(request: EgressRequest, defaults: &Defaults) -> Result<EgressPlan, PlanError> {
    plan(&start(request), defaults)
}

fn planned(request: Composite) -> EgressPlan {
    with(EgressRequest::RoomComposite(request), &Defaults::default()).expect("a plan")
}

fn refused(request: Composite) -> PlanError {
    let error = with(EgressRequest::RoomComposite(request), &Defaults::default()).expect_err("a refusal");
    assert!(!error.to_string().contains(CANARY), "{error}");
    error
}

fn kinds(plan: &EgressPlan) -> Vec<OutputKind> {
    plan.outputs.iter().map(Output::kind).collect()
}

fn codecs(plan: &EgressPlan) -> Vec<Option<AudioCodec>> {
    let Some(sound) = &plan.sound else { return vec![] };
    plan.outputs.iter().map(|output| output.audio(sound)).collect()
}

#[test]
fn every_combination_has_a_destination_for_each_output_in_its_order() {
    let order = [OutputKind::File, OutputKind::Segments, OutputKind::Images, OutputKind::Stream];
    let primary = Some(Provider::Local(Local { root: "/mnt".into() }));
    let stored = StorageConfig { primary, ..StorageConfig::default() };
    for asked in 1..16 {
        let request = EgressRequest::RoomComposite(combined(asked));
        let plan = with(request.clone(), &Defaults { storage: stored.clone(), ..Defaults::default() }).unwrap();
        let expected: Vec<OutputKind> =
            order.into_iter().enumerate().filter(|(bit, _)| asked & (1 << bit) != 0).map(|(_, kind)| kind).collect();
        assert_eq!(kinds(&plan), expected, "{asked}");
        let destinations = destinations(&start(request), &stored).unwrap();
        assert_eq!(destinations.len(), plan.outputs.len());
        for (output, destinations) in plan.outputs.iter().zip(destinations) {
            assert_eq!(destinations.primary != Destination::Disk, output.is_stored());
            assert_eq!(output.is_stored(), output.leaves_files());
        }
        let text = serde_json::to_string(&plan).unwrap();
        assert_eq!(serde_json::from_str::<EgressPlan>(&text).unwrap(), plan);
        assert!(!text.contains(CANARY) && !text.contains("rtmp:"), "{text}");
        // Images alone have no sound.
        assert_eq!(plan.sound.is_some(), asked != 4);
        assert_eq!(plan.files().count(), usize::from(asked & 1 != 0));
    }
    assert_eq!(refused(combined(0)), PlanError::Field("output"));
}

#[test]
fn urls_are_read_from_the_request_alone() {
    let both = livekit::StreamOutput { protocol: 1, urls: vec!["rtmp://h/a/1".into(), "rtmps://h/a/2".into()] };
    let request = start(EgressRequest::RoomComposite(Composite { stream_outputs: vec![both], ..combined(1) }));
    let read = |start: &StartEgressRequest| -> Vec<String> {
        stream_urls(start).unwrap().iter().map(|url| url.reveal().clone()).collect()
    };
    assert_eq!(read(&request), ["rtmp://h/a/1", "rtmps://h/a/2"]);
    assert_eq!(read(&start(EgressRequest::RoomComposite(combined(7)))), Vec::<String>::new());
    #[expect(deprecated, reason = "old SDKs")]
    let single = Some(livekit::room_composite_egress_request::Output::Stream(rtmp()));
    let old = Composite { output: single, ..composite() };
    assert_eq!(read(&start(EgressRequest::RoomComposite(old.clone()))), [format!("rtmp://host/app/{CANARY}")]);
    assert_eq!(kinds(&planned(old)), [OutputKind::Stream]);
    let websocket = start(track_websocket("wss://h/a"));
    assert_eq!(read(&websocket), ["wss://h/a"]);
}

fn track_websocket(url: &str) -> EgressRequest {
    EgressRequest::Track(livekit::TrackEgressRequest {
        room_name: "sales".into(),
        track_id: "TR_x".into(),
        output: Some(livekit::track_egress_request::Output::WebsocketUrl(url.into())),
        ..Default::default()
    })
}

#[test]
fn a_websocket_takes_raw_sound() {
    let plan = with(track_websocket("wss://host/a?token=canary-key"), &Defaults::default()).unwrap();
    assert_eq!((plan.picture, plan.sound), (None, Some(AudioPlan::Raw { mixing: Mixing::Both })));
    let websocket = StreamsOutput { protocol: StreamProtocol::Websocket, count: 1 };
    assert_eq!(plan.outputs, [Output::Streams(websocket)]);
    for url in ["", "rtmp://host/app/canary-key", "http://canary-key"] {
        let refused = with(track_websocket(url), &Defaults::default()).expect_err(url).to_string();
        assert!(refused.ends_with(": invalid scheme") && !refused.contains(CANARY), "{refused}");
    }
    // Storage is no matter of a stream's.
    let no_disk = StorageConfig { disallow_local: true, ..StorageConfig::default() };
    assert!(with(track_websocket("wss://h"), &Defaults { storage: no_disk, ..Defaults::default() }).is_ok());
}

#[test]
fn outputs_share_a_codec_where_there_is_one() {
    use AudioCodec::{Aac, Mp3 as Mpeg, Opus};
    use livekit::EncodedFileType::{Mp3, Mp4, Ogg};
    let audio_only = |request: Composite| Composite { audio_only: true, ..request };
    let files = |types: &[livekit::EncodedFileType]| types.iter().map(|of| file("", *of)).collect::<Vec<_>>();

    let plan = planned(audio_only(combined(3)));
    assert_eq!((plan.file(0).unwrap().container, codecs(&plan)), (Some(Container::Mp4), vec![Some(Aac); 2]));
    assert_eq!(plan.file(0).unwrap().audio, None);

    let plan = planned(Composite { file_outputs: files(&[Mp4, Mp4, Ogg]), ..composite() });
    assert_eq!(codecs(&plan), [Some(Aac), Some(Aac), Some(Opus)]);
    let opus = AudioEncoding { codec: Opus, bitrate: 128, frequency: 48_000 };
    let Some(AudioPlan::Mixed { codec: Aac, frequency: 44_100, also, .. }) = &plan.sound else {
        panic!("{:?}", plan.sound)
    };
    assert_eq!(also, &[opus]);
    assert_eq!(plan.outputs.iter().map(Output::takes_encoded_video).collect::<Vec<_>>(), [true, true, false]);
    let text = serde_json::to_string(&plan).unwrap();
    assert_eq!(serde_json::from_str::<EgressPlan>(&text).unwrap(), plan);

    let plan = planned(audio_only(Composite { file_outputs: files(&[Ogg, Mp3]), ..combined(8) }));
    assert_eq!(codecs(&plan), [Some(Opus), Some(Mpeg), Some(Aac)]);
    // Images have none.
    assert_eq!(codecs(&planned(combined(15))), [Some(Aac), Some(Aac), None, Some(Aac)]);

    let advanced = livekit::EncodingOptions { audio_codec: livekit::AudioCodec::Opus.into(), ..Default::default() };
    let request = Composite { options: Some(Options::Advanced(advanced)), ..combined(2) };
    assert_eq!(refused(request.clone()).to_string(), "format application/x-mpegurl incompatible with codec audio/opus");
    let overridden = planned(Composite { stream_outputs: vec![rtmp()], ..request });
    assert_eq!(codecs(&overridden), [Some(Aac), Some(Aac)]);
}

#[test]
fn segments_and_streams_have_the_picture_encoded_and_images_do_not() {
    let participant = |kinds: u8| {
        let Composite { file_outputs, segment_outputs, image_outputs, stream_outputs, .. } = combined(kinds);
        let request = livekit::ParticipantEgressRequest {
            room_name: "sales".into(),
            identity: "ann".into(),
            file_outputs,
            segment_outputs,
            image_outputs,
            stream_outputs,
            ..Default::default()
        };
        with(EgressRequest::Participant(request), &Defaults::default()).unwrap().picture
    };
    for kinds in 1..16 {
        let encoded = kinds & (2 | 8) != 0;
        let picture = participant(kinds);
        assert_eq!(matches!(picture, Some(VideoPlan::Single(_))), encoded, "{kinds} {picture:?}");
        assert_eq!(matches!(picture, Some(VideoPlan::CopiedIfPossible(_))), !encoded, "{kinds} {picture:?}");
    }
}

#[test]
fn a_file_may_be_one_of_eight() {
    let files = |count: usize| Composite { file_outputs: vec![default_file(); count], ..composite() };
    assert_eq!(kinds(&planned(files(8))), [OutputKind::File; 8]);
    let message = "request has missing or invalid field: file_outputs (9 asked, at most 8)";
    assert_eq!(refused(files(9)).to_string(), message);
    let images = Composite { image_outputs: vec![livekit::ImageOutput::default(); 9], ..composite() };
    assert!(refused(images).to_string().contains("image_outputs (9 asked, at most 8)"));
    let urls = livekit::StreamOutput { protocol: 1, urls: vec!["rtmp://h/a/k".into(); 33] };
    let message = refused(Composite { stream_outputs: vec![urls], ..composite() }).to_string();
    assert!(message.contains("urls (33 asked, at most 32)"), "{message}");
}

#[test]
fn mistakes_in_outputs_are_answered_with_the_peers_messages() {
    let stream = |protocol: i32, urls: &[&str]| livekit::StreamOutput {
        protocol,
        urls: urls.iter().map(|url| (*url).to_owned()).collect(),
    };
    let streamed = |protocol, urls: &[&str]| Composite { stream_outputs: vec![stream(protocol, urls)], ..composite() };
    let image = |image: livekit::ImageOutput| Composite { image_outputs: vec![image], ..composite() };
    let segmented = |output: livekit::SegmentedFileOutput| Composite { segment_outputs: vec![output], ..composite() };
    let imaged = livekit::ImageOutput::default;
    for (request, field) in [
        (Composite { stream_outputs: vec![rtmp(); 2], ..composite() }, "multiple stream outputs"),
        (
            Composite { segment_outputs: vec![segments("", "", ""); 2], ..composite() },
            "multiple segmented file outputs",
        ),
        (streamed(0, &[]), "stream protocol"),
        (streamed(9, &["rtmp://h/a/k"]), "stream protocol"),
        (streamed(1, &[]), "stream url"),
        (streamed(3, &[]), "stream url"),
        (Composite { audio_only: true, ..streamed(0, &["ws://h"]) }, "output type"),
        (Composite { audio_only: true, ..combined(5) }, "audio_only images"),
        (image(livekit::ImageOutput { filename_suffix: 9, ..imaged() }), "filename_suffix"),
        (image(livekit::ImageOutput { width: 5000, ..imaged() }), "width (5000 asked, at most 4096)"),
        (image(livekit::ImageOutput { height: 5000, ..imaged() }), "height (5000 asked, at most 4096)"),
        (image(livekit::ImageOutput { filename_prefix: "a\0".into(), ..imaged() }), "filename_prefix"),
        (segmented(segments("", "d/a", "e/b")), "live_playlist_name must be in same directory as playlist_name"),
        (segmented(segments("", "d/a", "d/a.m3u8")), "live_playlist_name cannot be identical to playlist_name"),
        (segmented(segments("a\0", "", "")), "filename_prefix"),
        (segmented(segments("", "a\0", "")), "playlist_name"),
        (segmented(segments("", "a", "b\0")), "live_playlist_name"),
        (segmented(livekit::SegmentedFileOutput { filename_suffix: 9, ..Default::default() }), "filename_suffix"),
        (segmented(livekit::SegmentedFileOutput { protocol: 9, ..Default::default() }), "protocol"),
        (
            segmented(livekit::SegmentedFileOutput { segment_duration: 601, ..Default::default() }),
            "segment_duration (601 asked, at most 600)",
        ),
    ] {
        let error = refused(request);
        assert_eq!(error.to_string(), format!("request has missing or invalid field: {field}"));
        assert_eq!(error.code(), Code::InvalidArgument);
    }
    for (request, message) in [
        (streamed(0, &["canary-key"]), "invalid url {...}: invalid protocol"),
        (streamed(0, &["ftp://canary-key"]), "invalid url {...}: invalid protocol"),
        (streamed(1, &["srt://h:1?passphrase=canary-key"]), "invalid url srt://{...}: invalid scheme"),
        (streamed(0, &["rtmp://h/a/k", "srt://canary-key"]), "invalid url srt://{...}: invalid scheme"),
        (streamed(3, &["ws://canary-key/a"]), "invalid url ws://{...}: invalid scheme"),
        (streamed(0, &["ws://h/canary-key"]), "format audio/x-raw incompatible with codec video/h264"),
        (
            streamed(0, &["rtmp://h/canary-key"]),
            "invalid url rtmp://{...}: rtmp urls must be of format rtmp(s)://{host}(/{path})/{app}/{stream_key}\
             ( live=1)",
        ),
        (
            image(livekit::ImageOutput { image_codec: 9, ..imaged() }),
            "no supported codec is compatible with all outputs",
        ),
    ] {
        let error = refused(request);
        assert_eq!((error.to_string().as_str(), error.code()), (message, Code::InvalidArgument));
    }
    // Urls may come later, beside another output.
    let later = planned(Composite { stream_outputs: vec![stream(2, &[])], ..combined(2) });
    assert_eq!(later.outputs[1], Output::Streams(StreamsOutput { protocol: StreamProtocol::Srt, count: 0 }));

    let s3 = livekit::S3Upload::default();
    let no_bucket = livekit::SegmentedFileOutput {
        output: Some(livekit::segmented_file_output::Output::S3(s3.clone())),
        ..Default::default()
    };
    assert_eq!(refused(segmented(no_bucket)), PlanError::Field("s3 bucket"));
    let no_bucket = livekit::ImageOutput { output: Some(livekit::image_output::Output::S3(s3)), ..imaged() };
    assert_eq!(refused(image(no_bucket)), PlanError::Field("s3 bucket"));
    let no_disk = StorageConfig { disallow_local: true, ..StorageConfig::default() };
    let no_disk = Defaults { storage: no_disk, ..Defaults::default() };
    for kinds in [1, 2, 4] {
        let request = EgressRequest::RoomComposite(combined(kinds));
        assert_eq!(with(request, &no_disk), Err(PlanError::Field("output")), "{kinds}");
    }
}

#[test]
fn a_second_attempt_writes_over_no_segments() {
    let again = |output: livekit::SegmentedFileOutput| {
        let request = EgressRequest::RoomComposite(Composite { segment_outputs: vec![output], ..composite() });
        plan(&StartEgressRequest { retry_count: 1, ..start(request) }, &Defaults::default()).map(drop)
    };
    assert_eq!(again(segments("a", "", "")), Err(PlanError::NotRetrySafe));
    assert_eq!(again(segments("", "b", "")), Err(PlanError::NotRetrySafe));
    assert_eq!(again(segments("a-{retry}", "b", "")), Ok(()));
    assert_eq!(again(segments("", "b-{retry}", "")), Ok(()));
    assert_eq!(again(segments("", "", "")), Ok(()));
}

#[test]
fn what_is_left_out_has_the_peers_defaults() {
    let plan = planned(combined(6));
    let [Output::Segments(segments), Output::Images(images)] = plan.outputs.as_slice() else {
        panic!("{:?}", plan.outputs)
    };
    assert_eq!((segments.segment_ns, segments.naming.suffix), (4_000_000_000, SegmentSuffix::Index));
    assert_eq!((segments.naming.prefix.as_str(), segments.naming.format), ("d/a", SegmentFormat::MpegTs));
    assert!(segments.manifest && images.manifest && !segments.stored && !images.stored);
    assert_eq!((images.interval_ns, images.size), (10_000_000_000, None));
    assert_eq!((images.suffix, images.codec), (ImageSuffix::Index, ImageCodec::Jpeg));

    let image = livekit::ImageOutput {
        capture_interval: 5,
        width: 640,
        height: 361,
        filename_prefix: "../a/./b".into(),
        filename_suffix: 2,
        image_codec: 1,
        disable_manifest: true,
        output: None,
    };
    let narrow = livekit::ImageOutput { height: 0, ..image.clone() };
    let plan = planned(Composite { image_outputs: vec![image, narrow], ..composite() });
    let [Output::Images(image), Output::Images(narrow)] = plan.outputs.as_slice() else { panic!("{:?}", plan.outputs) };
    let expected = ImagesOutput {
        prefix: "a/b".into(),
        interval_ns: 5_000_000_000,
        size: Some((640, 361)),
        suffix: ImageSuffix::NoneOverwrite,
        codec: ImageCodec::Jpeg,
        manifest: false,
        stored: false,
    };
    assert_eq!((image, narrow), (&expected, &ImagesOutput { size: None, ..expected.clone() }));
}

#[test]
fn sheets_lie_beside_a_file_or_a_playlist() {
    let rules = SheetRules { poster: true, contact_sheet: false, thumbnails_ns: Some(5) };
    let defaults = Defaults { sheets: rules, ..Defaults::default() };
    // Bits of `combined`.
    for (kinds, output) in [(1, Some(0)), (2, Some(0)), (3, Some(0)), (6, Some(0)), (4, None), (8, None), (12, None)] {
        let request = || EgressRequest::RoomComposite(combined(kinds));
        let plan = with(request(), &defaults).unwrap();
        assert_eq!(plan.sheets, output.map(|output| SheetsPlan { output, rules }), "{kinds}");
        let text = serde_json::to_string(&plan).unwrap();
        assert_eq!(serde_json::from_str::<EgressPlan>(&text).unwrap(), plan);
        let usual = with(request(), &Defaults::default()).unwrap();
        assert!(usual.sheets.is_none() && !serde_json::to_string(&usual).unwrap().contains("sheets"));
    }
    let audio = livekit::RoomCompositeEgressRequest { audio_only: true, ..combined(1) };
    assert_eq!(with(EgressRequest::RoomComposite(audio), &defaults).unwrap().sheets, None);
}

#[test]
fn sheets_lie_beside_the_first_file_with_pictures_or_the_playlist() {
    let file = |container| {
        let (path, manifest, stored) = (String::new(), false, false);
        Output::File(FileOutput { container, audio: None, path, manifest, stored })
    };
    let of = |container| file(Some(container));
    let segments = || {
        let naming = SegmentNaming::default();
        Output::Segments(SegmentsOutput { naming, segment_ns: 1, manifest: false, stored: false })
    };
    let rules = SheetRules { poster: true, ..SheetRules::default() };
    let streams = Output::Streams(StreamsOutput { protocol: StreamProtocol::Rtmp, count: 1 });
    let encoding = VideoEncoding {
        width: 1280,
        height: 720,
        framerate: 30,
        bitrate: 3000,
        profile: H264Profile::Main,
        key_frame_interval: None,
    };
    let picture = VideoPlan::CopiedIfPossible(encoding);
    for (outputs, output) in [
        (vec![of(Container::Mp4), segments()], Some(0)),
        (vec![of(Container::Ogg), of(Container::Mp4)], Some(1)),
        (vec![of(Container::Mp3), segments()], Some(1)),
        (vec![streams], None),
        // A copied picture decides what it is.
        (vec![file(None)], Some(0)),
    ] {
        let planned = rules.of(Some(&picture), &outputs);
        assert_eq!(planned, output.map(|output| SheetsPlan { output, rules }), "{outputs:?}");
        assert_eq!(SheetRules::default().of(Some(&picture), &outputs), None);
        assert_eq!(rules.of(Some(&VideoPlan::Copied), &outputs), None);
        assert_eq!(rules.of(None, &outputs), None);
    }
}

#[test]
fn the_shortest_limit_of_its_kinds_ends_a_recording() {
    let rules = LimitRules {
        file_max_duration_ns: Some(40),
        stream_max_duration_ns: Some(30),
        segment_max_duration_ns: None,
        image_max_duration_ns: Some(10),
        file_max_bytes: Some(1000),
        segment_max_bytes: Some(2000),
    };
    let limits = |kinds: u8| {
        let defaults = Defaults { limits: rules.clone(), ..Defaults::default() };
        with(EgressRequest::RoomComposite(combined(kinds)), &defaults).unwrap().limits
    };
    for (kinds, max_duration_ns, max_file_bytes, max_segment_bytes) in [
        (1, Some(40), Some(1000), None),
        (2, None, None, Some(2000)),
        (3, Some(40), Some(1000), Some(2000)),
        (4, Some(10), None, None),
        (8, Some(30), None, None),
        (9, Some(30), Some(1000), None),
        (15, Some(10), Some(1000), Some(2000)),
    ] {
        assert_eq!(limits(kinds), Limits { max_duration_ns, max_file_bytes, max_segment_bytes }, "{kinds}");
    }
    let defaults = Defaults { limits: rules, ..Defaults::default() };
    assert_eq!(with(track_websocket("ws://h"), &defaults).unwrap().limits.max_duration_ns, Some(30));
    let lasting = LimitRules::lasting(Some(7));
    for kinds in 1..16 {
        assert_eq!(
            lasting.of(&planned(combined(kinds)).outputs),
            Limits { max_duration_ns: Some(7), ..Limits::default() }
        );
    }
}

#[test]
fn the_gate_names_what_is_not_recorded_yet() {
    for kinds in 1..16 {
        let planned = plan(&start(EgressRequest::RoomComposite(combined(kinds))), &Defaults::default()).unwrap();
        assert_eq!(planned.outputs.len(), kinds.count_ones() as usize);
    }
    let with_stream = |protocol: i32, urls: &[&str], kinds: u8| {
        let urls = urls.iter().map(|url| (*url).to_owned()).collect();
        let stream_outputs = vec![livekit::StreamOutput { protocol, urls }];
        let request = EgressRequest::RoomComposite(Composite { stream_outputs, ..combined(kinds) });
        plan(&start(request), &Defaults::default())
    };
    for (protocol, urls, kinds, text) in [
        (0, &["nosuch://h"][..], 1, "invalid url {...}: invalid protocol"),
        (0, &[][..], 1, "request has missing or invalid field: stream protocol"),
        (1, &[][..], 0, "request has missing or invalid field: stream url"),
        (2, &["srt://h:1?mode=listener"][..], 1, "invalid url srt://{...}: only mode=caller is supported"),
    ] {
        assert_eq!(with_stream(protocol, urls, kinds).unwrap_err().to_string(), text);
    }
    // Alone and beside a file and HLS, with URLs and with those that come later.
    for (number, protocol, urls, kinds, place) in [
        (1, StreamProtocol::Rtmp, &["rtmp://h/a/k", "mux://key"][..], 0, 0),
        (1, StreamProtocol::Rtmp, &["rtmps://h/a/k"][..], 3, 2),
        (1, StreamProtocol::Rtmp, &[][..], 1, 1),
        (0, StreamProtocol::Srt, &["srt://h:1?streamid=x", "srt://h:2"][..], 0, 0),
        (2, StreamProtocol::Srt, &[][..], 3, 2),
    ] {
        let plan = with_stream(number, urls, kinds).unwrap();
        let count = u32::try_from(urls.len()).unwrap();
        assert_eq!(plan.streams(), Some((place, StreamsOutput { protocol, count })));
        assert!(plan.streams().unwrap().1.can_be_updated());
    }
    assert_eq!(planned(combined(7)).streams(), None);
    let websocket = plan(&start(track_websocket("ws://h")), &Defaults::default()).unwrap().streams().unwrap();
    assert_eq!(websocket, (0, StreamsOutput { protocol: StreamProtocol::Websocket, count: 1 }));
    assert!(!websocket.1.can_be_updated());
}
