//! The second API's request: what of it is planned and where it is stored, and what is refused.

use livekit_protocol as livekit;
use livekit_protocol::audio_route::Match;
use livekit_protocol::media_source::Video;
use livekit_protocol::output::Config;
use livekit_protocol::start_egress_request::{Encoding as Encoded, Source as RequestedSource};
use livekit_protocol::storage_config::Provider as RequestedProvider;
use spillway_protocol::code::Code;
use spillway_protocol::rpc::start_egress_request::EgressRequest;

use super::*;
use crate::destination::{Destination, Local, Provider};
use crate::output_types::*;

type Media = livekit::MediaSource;

const CANARY: &str = "canary-key";
/// The preset PASSTHROUGH.
const COPY: Option<Encoded> = Some(Encoded::Preset(8));

fn start(request: livekit::StartEgressRequest) -> StartEgressRequest {
    StartEgressRequest {
        egress_id: "EG_x".into(),
        room_id: "RM_x".into(),
        request: Some(EgressRequest::Egress(request)),
        ..StartEgressRequest::default()
    }
}

fn output(config: Config) -> livekit::Output {
    livekit::Output { config: Some(config), storage: None }
}

fn file(path: &str, file_type: livekit::EncodedFileType) -> livekit::Output {
    let file = livekit::FileOutput { file_type: file_type.into(), filepath: path.into(), disable_manifest: false };
    output(Config::File(file))
}

fn default_file() -> livekit::Output {
    file("", livekit::EncodedFileType::DefaultFiletype)
}

fn segments() -> livekit::Output {
    let named = livekit::SegmentedFileOutput { filename_prefix: "s".into(), ..Default::default() };
    output(Config::Segments(named))
}

fn images() -> livekit::Output {
    output(Config::Images(livekit::ImageOutput::default()))
}

fn stream(protocol: livekit::StreamProtocol, urls: &[&str]) -> livekit::Output {
    let urls = urls.iter().map(|url| (*url).to_owned()).collect();
    output(Config::Stream(livekit::StreamOutput { protocol: protocol.into(), urls }))
}

fn websocket(url: &str) -> livekit::Output {
    stream(livekit::StreamProtocol::DefaultProtocol, &[url])
}

fn track(sid: &str) -> Option<Video> {
    Some(Video::VideoTrackId(sid.into()))
}

fn participant(identity: &str, prefer_screen_share: bool) -> Option<Video> {
    Some(Video::ParticipantVideo(livekit::ParticipantVideo { identity: identity.into(), prefer_screen_share }))
}

fn routes(routes: &[(Match, livekit::AudioChannel)]) -> Option<livekit::AudioConfig> {
    let route = |(of, channel): &(Match, livekit::AudioChannel)| livekit::AudioRoute {
        channel: (*channel).into(),
        r#match: Some(of.clone()),
    };
    Some(livekit::AudioConfig { capture_all: false, routes: routes.iter().map(route).collect() })
}

fn all() -> Option<livekit::AudioConfig> {
    Some(livekit::AudioConfig { capture_all: true, routes: vec![] })
}

fn one_track(sid: &str) -> Option<livekit::AudioConfig> {
    routes(&[(Match::TrackId(sid.into()), livekit::AudioChannel::Both)])
}

fn request(media: Media, outputs: Vec<livekit::Output>) -> livekit::StartEgressRequest {
    livekit::StartEgressRequest {
        room_name: "sales".into(),
        source: Some(RequestedSource::Media(media)),
        outputs,
        ..Default::default()
    }
}

fn with(request: livekit::StartEgressRequest, defaults: &Defaults) -> Result<EgressPlan, PlanError> {
    plan(&start(request), defaults)
}

fn planned(request: livekit::StartEgressRequest) -> EgressPlan {
    with(request, &Defaults::default()).expect("a plan")
}

fn refused(request: livekit::StartEgressRequest) -> PlanError {
    let error = with(request, &Defaults::default()).expect_err("a refusal");
    assert!(!error.to_string().contains(CANARY), "{error}");
    error
}

fn mixing(plan: &EgressPlan) -> Option<Mixing> {
    match plan.sound.as_ref()? {
        AudioPlan::Copied => None,
        AudioPlan::Mixed { mixing, .. } | AudioPlan::Raw { mixing } => Some(*mixing),
    }
}

fn route(of: AudioMatch, side: StereoSide) -> AudioRoute {
    AudioRoute { of, side }
}

/// Cases "Media" of livekit/egress' own tests (`test/file.go`), and what they leave out.
#[test]
fn a_media_source_is_a_choice_of_tracks_with_a_side_for_each() {
    use livekit::AudioChannel::{Both, Left, Right};
    use livekit::participant_info::Kind::{Agent, Standard};
    let by_track = |channel| routes(&[(Match::TrackId("TR_a".into()), channel)]);
    let kind = |kind: livekit::participant_info::Kind| Match::ParticipantKind(kind.into());
    let (ann, bob) = (|| "ann".to_owned(), || "bob".to_owned());
    let media = |video, audio: Vec<AudioRoute>, other_audio| Source::Media { video, audio, other_audio };
    let cases: Vec<(Media, Source, Option<Mixing>)> = vec![
        (
            Media { video: track("TR_v"), audio: None },
            media(Some(MediaVideo::Track("TR_v".into())), vec![], false),
            None,
        ),
        (
            Media { video: track("TR_v"), audio: by_track(Left) },
            media(
                Some(MediaVideo::Track("TR_v".into())),
                vec![route(AudioMatch::Track("TR_a".into()), StereoSide::Left)],
                false,
            ),
            Some(Mixing::Routed),
        ),
        (
            Media { video: participant("bob", false), audio: routes(&[(Match::ParticipantIdentity(ann()), Both)]) },
            media(
                Some(MediaVideo::Camera(bob())),
                vec![route(AudioMatch::Participant(ann()), StereoSide::Both)],
                false,
            ),
            Some(Mixing::Both),
        ),
        (
            Media { video: None, audio: routes(&[(kind(Standard), Left), (kind(Agent), Right)]) },
            media(
                None,
                vec![route(AudioMatch::Kind(0), StereoSide::Left), route(AudioMatch::Kind(4), StereoSide::Right)],
                false,
            ),
            Some(Mixing::Routed),
        ),
        (
            Media { video: participant("bob", true), audio: all() },
            media(Some(MediaVideo::ScreenShare(bob())), vec![], true),
            Some(Mixing::Both),
        ),
        // As the message says: what no route matches is on both channels.
        (
            Media {
                video: None,
                audio: by_track(Right).map(|audio| livekit::AudioConfig { capture_all: true, ..audio }),
            },
            media(None, vec![route(AudioMatch::Track("TR_a".into()), StereoSide::Right)], true),
            Some(Mixing::Routed),
        ),
        // What a room composite of audio alone takes.
        (Media { video: None, audio: all() }, Source::Room, Some(Mixing::Both)),
        // A kind of a newer livekit-server.
        (
            Media { video: None, audio: routes(&[(Match::ParticipantKind(99), Both)]) },
            media(None, vec![route(AudioMatch::Kind(99), StereoSide::Both)], false),
            Some(Mixing::Both),
        ),
    ];
    for (asked, source, expected) in cases {
        let (has_video, has_audio) = (asked.video.is_some(), asked.audio.is_some());
        let plan = planned(request(asked, vec![default_file()]));
        assert_eq!((plan.kind, &plan.source, mixing(&plan)), (EgressKind::Media, &source, expected));
        let container = if has_video { Container::Mp4 } else { Container::Ogg };
        assert_eq!((plan.picture.is_some(), plan.sound.is_some()), (has_video, has_audio));
        assert_eq!(plan.file(0).and_then(|file| file.container), Some(container));
        let text = serde_json::to_string(&plan).unwrap();
        assert_eq!(serde_json::from_str::<EgressPlan>(&text).unwrap(), plan);
    }
}

/// Cases "Template" of livekit/egress' own tests: a room composite by another name.
#[test]
fn a_template_source_is_a_room_composite() {
    use livekit::EncodedFileType::{DefaultFiletype, Mp4};
    let asked = |template: livekit::TemplateSource, encoding, outputs: Vec<livekit::Output>| {
        let source = Some(RequestedSource::Template(template));
        livekit::StartEgressRequest { room_name: "sales".into(), source, encoding, outputs, ..Default::default() }
    };
    let template = |layout: &str, audio_only, video_only| livekit::TemplateSource {
        layout: layout.into(),
        audio_only,
        video_only,
        ..Default::default()
    };
    let high = livekit::EncodingOptions { video_codec: livekit::VideoCodec::H264High.into(), ..Default::default() };
    for (template, encoding, outputs) in [
        (template("speaker", false, false), None, vec![default_file()]),
        (template("", true, false), None, vec![file("t_{room_name}", DefaultFiletype)]),
        (template("speaker-light", false, true), Some(Encoded::Advanced(high)), vec![file("", Mp4)]),
        (template("grid", false, false), Some(Encoded::Preset(2)), vec![segments(), images(), default_file()]),
        (
            template("single-speaker", false, false),
            None,
            vec![stream(livekit::StreamProtocol::Rtmp, &["rtmp://host/app/canary-key"])],
        ),
    ] {
        use livekit::room_composite_egress_request::Options;
        let mut composite = livekit::RoomCompositeEgressRequest {
            room_name: "sales".into(),
            layout: template.layout.clone(),
            audio_only: template.audio_only,
            video_only: template.video_only,
            options: encoding.map(|encoding| match encoding {
                Encoded::Preset(number) => Options::Preset(number),
                Encoded::Advanced(options) => Options::Advanced(options),
            }),
            ..Default::default()
        };
        for output in &outputs {
            match output.config.clone().unwrap() {
                Config::File(file) => composite.file_outputs.push(livekit::EncodedFileOutput {
                    file_type: file.file_type,
                    filepath: file.filepath,
                    ..Default::default()
                }),
                Config::Segments(segments) => composite.segment_outputs.push(segments),
                Config::Images(images) => composite.image_outputs.push(images),
                Config::Stream(stream) => composite.stream_outputs.push(stream),
            }
        }
        let first = StartEgressRequest {
            request: Some(EgressRequest::RoomComposite(composite)),
            ..start(asked(template.clone(), None, vec![]))
        };
        let expected = plan(&first, &Defaults::default()).expect("a plan");
        assert_eq!(expected.kind, EgressKind::RoomComposite);
        assert_eq!(planned(asked(template, encoding, outputs)), expected);
    }
    // A websocket has no picture.
    let plan = planned(asked(template("grid", false, false), None, vec![websocket("wss://h/a?token=canary-key")]));
    assert_eq!((plan.picture, plan.sound), (None, Some(AudioPlan::Raw { mixing: Mixing::Both })));
    let silent = refused(asked(template("grid", false, true), None, vec![websocket("ws://h")]));
    assert_eq!(silent.to_string(), "format audio/x-raw incompatible with codec video/h264");
    for (request, field) in [
        (asked(template("grid", true, false), None, vec![images(), default_file()]), "audio_only images"),
        (asked(template("grid", false, false), None, vec![]), "output"),
        (
            livekit::StartEgressRequest {
                room_name: String::new(),
                ..asked(template("", false, false), None, vec![default_file()])
            },
            "room_name",
        ),
    ] {
        assert_eq!(refused(request).to_string(), format!("request has missing or invalid field: {field}"));
    }
    let nosuch = refused(asked(template("nosuch", false, false), None, vec![default_file()]));
    assert!(nosuch.to_string().contains("layout"), "{nosuch}");
}

/// Tickets outlive an upgrade.
#[test]
fn a_plan_of_a_media_source_is_this_json() {
    let mut asked = request(
        Media { video: participant("bob", false), audio: one_track("TR_a") },
        vec![file("a.mp4", livekit::EncodedFileType::Mp4)],
    );
    if let Some(RequestedSource::Media(Media { audio: Some(audio), .. })) = &mut asked.source {
        audio.routes[0].channel = livekit::AudioChannel::Left.into();
    }
    let plan = planned(asked);
    let text = concat!(
        r#"{"egress_id":"EG_x","room_name":"sales","room_id":"RM_x","kind":"media","#,
        r#""source":{"media":{"video":{"camera":"bob"},"audio":[{"of":{"track":"TR_a"},"side":"left"}],"#,
        r#""other_audio":false}},"#,
        r#""picture":{"copied_if_possible":{"width":1280,"height":720,"framerate":30,"bitrate":3000,"#,
        r#""profile":"main","key_frame_interval":null}},"#,
        r#""sound":{"mixed":{"codec":"aac","bitrate":128,"frequency":44100,"mixing":"routed"}},"#,
        r#""outputs":[{"file":{"container":"mp4","path":"a.mp4","manifest":true,"stored":false}}],"#,
        r#""limits":{"max_duration_ns":null,"max_file_bytes":null},"retry_count":0}"#,
    );
    assert_eq!(serde_json::to_string(&plan).unwrap(), text);
    assert_eq!(serde_json::from_str::<EgressPlan>(text).unwrap(), plan);
}

#[test]
fn a_media_source_is_encoded_like_a_participant() {
    let picture = |encoding, outputs: Vec<livekit::Output>| {
        let media = Media { video: participant("bob", false), audio: all() };
        planned(livekit::StartEgressRequest { encoding, ..request(media, outputs) }).picture
    };
    assert!(matches!(picture(None, vec![default_file()]), Some(VideoPlan::CopiedIfPossible(_))));
    assert!(matches!(picture(None, vec![segments()]), Some(VideoPlan::Single(_))));
    let Some(VideoPlan::Single(encoding)) = picture(Some(Encoded::Preset(4)), vec![default_file()]) else { panic!() };
    assert_eq!((encoding.width, encoding.height), (720, 1280));
    let high = livekit::EncodingOptions { video_codec: livekit::VideoCodec::H264High.into(), ..Default::default() };
    let Some(VideoPlan::Single(encoding)) = picture(Some(Encoded::Advanced(high)), vec![images(), default_file()])
    else {
        panic!()
    };
    assert_eq!(encoding.profile, H264Profile::High);
}

#[test]
fn outputs_of_every_kind_may_stand_in_any_order() {
    use OutputKind::{File, Images, Segments, Stream};
    let rtmp = || stream(livekit::StreamProtocol::Rtmp, &["rtmp://host/app/canary-key"]);
    let media = || Media { video: track("TR_v"), audio: all() };
    let asked = request(media(), vec![rtmp(), images(), segments(), default_file(), images()]);
    let plan = planned(asked.clone());
    let kinds: Vec<OutputKind> = plan.outputs.iter().map(Output::kind).collect();
    assert_eq!(kinds, [File, Segments, Images, Images, Stream]);
    assert_eq!(destinations(&start(asked.clone()), &StorageConfig::default()).unwrap().len(), 5);
    let urls = stream_urls(&start(asked)).unwrap();
    assert_eq!(urls.iter().map(|url| url.reveal().as_str()).collect::<Vec<_>>(), ["rtmp://host/app/canary-key"]);
    assert!(!serde_json::to_string(&plan).unwrap().contains(CANARY));
    // Images alone have no sound.
    assert_eq!(planned(request(media(), vec![images()])).sound, None);
    let refused = refused(request(Media { video: None, audio: all() }, vec![images(), default_file()]));
    assert_eq!(refused, PlanError::Field("audio_only images"));
}

fn s3(bucket: &str) -> livekit::S3Upload {
    livekit::S3Upload { access_key: "key".into(), secret: "secret".into(), bucket: bucket.into(), ..Default::default() }
}

fn stored(bucket: &str) -> Option<livekit::StorageConfig> {
    Some(livekit::StorageConfig { provider: Some(RequestedProvider::S3(s3(bucket))) })
}

/// Bucket or directory; empty: the runner's disk.
fn places(destinations: &[Destinations]) -> Vec<String> {
    let place = |destinations: &Destinations| match &destinations.primary {
        Destination::Disk => String::new(),
        Destination::Store(store) => match &store.provider {
            Provider::S3(s3) => s3.bucket.clone(),
            Provider::Gcs(gcs) => gcs.bucket.clone(),
            Provider::Azure(azure) => azure.container.clone(),
            Provider::AliOss(oss) => oss.bucket.clone(),
            Provider::Local(local) => local.root.display().to_string(),
        },
    };
    destinations.iter().map(place).collect()
}

#[test]
fn an_output_is_stored_where_it_says_else_where_the_request_says_else_in_the_installation() {
    let none = Some(livekit::StorageConfig { provider: None });
    let own = |mut output: livekit::Output| {
        match &mut output.config {
            Some(Config::Segments(segments)) => {
                segments.output = Some(livekit::segmented_file_output::Output::S3(s3("own")));
            }
            Some(Config::Images(images)) => images.output = Some(livekit::image_output::Output::S3(s3("own"))),
            other => panic!("{other:?}"),
        }
        output
    };
    let installed = |root: &str| StorageConfig {
        primary: Some(Provider::Local(Local { root: root.into() })),
        ..StorageConfig::default()
    };
    let with_storage = |mut output: livekit::Output, storage: &Option<livekit::StorageConfig>| {
        output.storage = storage.clone();
        output
    };
    for (of_output, of_request, installation, expected) in [
        (&None, None, StorageConfig::default(), ["", "", ""]),
        (&None, None, installed("/mnt"), ["/mnt", "/mnt", "/mnt"]),
        (&None, stored("request"), installed("/mnt"), ["request", "request", "request"]),
        (&stored("output"), stored("request"), installed("/mnt"), ["output", "request", "request"]),
        (&stored("output"), None, installed("/mnt"), ["output", "/mnt", "/mnt"]),
        (&stored("output"), None, StorageConfig::default(), ["output", "", ""]),
        // There, and without a provider: the installation's, as in livekit/egress.
        (&none, stored("request"), installed("/mnt"), ["/mnt", "request", "request"]),
        (&None, none.clone(), StorageConfig::default(), ["", "", ""]),
    ] {
        let outputs = vec![with_storage(default_file(), of_output), segments(), images()];
        let media = Media { video: track("TR_v"), audio: all() };
        let asked = livekit::StartEgressRequest { storage: of_request, ..request(media, outputs) };
        let found = destinations(&start(asked.clone()), &installation).unwrap();
        assert_eq!(places(&found), expected);
        let plan = with(asked, &Defaults { storage: installation, ..Defaults::default() }).unwrap();
        for (output, destinations) in plan.outputs.iter().zip(&found) {
            assert_eq!(output.is_stored(), destinations.primary != Destination::Disk);
        }
    }
    // The upload inside an output is of the first API; it is heard where the request names no storage.
    for (of_output, of_request, expected) in [
        (&None, None, ["own", "own"]),
        (&None, stored("request"), ["request", "request"]),
        (&stored("output"), stored("request"), ["output", "output"]),
        (&none, None, ["own", "own"]),
    ] {
        let outputs = [segments(), images()].map(|output| with_storage(own(output), of_output)).to_vec();
        let media = Media { video: track("TR_v"), audio: all() };
        let asked = livekit::StartEgressRequest { storage: of_request, ..request(media, outputs) };
        assert_eq!(places(&destinations(&start(asked), &installed("/mnt")).unwrap()), expected);
    }
    let media = Media { video: None, audio: all() };
    let no_bucket = livekit::StartEgressRequest { storage: stored(""), ..request(media, vec![default_file()]) };
    assert_eq!(refused(no_bucket), PlanError::Field("s3 bucket"));
}

/// A request of the API as livekit-server 1.13.5 passed it on.
#[test]
fn what_the_real_server_sends_is_planned() {
    let capture = include_str!("../../bus/tests/golden-v1.13.5.json");
    let capture: serde_json::Value = serde_json::from_str(capture).unwrap();
    let steps = capture["steps"].as_array().unwrap();
    let step = steps.iter().find(|step| step["step"] == "StartEgress (v2)").unwrap();
    let body = step["messages"][0]["body"]["egress"].clone();
    let asked: livekit::StartEgressRequest = serde_json::from_value(body).unwrap();
    // Its store comes without credentials.
    let storage = StorageConfig { own_buckets: vec!["b".into()], ..StorageConfig::default() };
    let defaults = Defaults { storage: storage.clone(), ..Defaults::default() };
    let plan = with(asked.clone(), &defaults).expect("a plan");
    let video = Some(MediaVideo::Camera("alice".into()));
    assert_eq!(plan.source, Source::Media { video, audio: vec![], other_audio: true });
    let kinds: Vec<OutputKind> = plan.outputs.iter().map(Output::kind).collect();
    assert_eq!(kinds, [OutputKind::File, OutputKind::Segments, OutputKind::Images]);
    assert!(matches!(&plan.picture, Some(VideoPlan::Single(encoding)) if encoding.height == 1280));
    assert_eq!(places(&destinations(&start(asked), &storage).unwrap()), ["b", "b", "b"]);
}

#[test]
fn a_websocket_takes_raw_sound_and_the_request_has_no_picture() {
    use livekit::EncodedFileType::{DefaultFiletype, Mp4};
    let sound = || Media {
        video: track("TR_v"),
        audio: routes(&[(Match::ParticipantIdentity("ann".into()), livekit::AudioChannel::Right)]),
    };
    let plan = planned(request(sound(), vec![websocket("wss://h/a?token=canary-key")]));
    let audio = vec![route(AudioMatch::Participant("ann".into()), StereoSide::Right)];
    assert_eq!(plan.source, Source::Media { video: None, audio, other_audio: false });
    assert_eq!((plan.picture, plan.sound), (None, Some(AudioPlan::Raw { mixing: Mixing::Routed })));
    let streams = StreamsOutput { protocol: StreamProtocol::Websocket, count: 1 };
    assert_eq!(plan.outputs, [Output::Streams(streams)]);
    let named = stream(livekit::StreamProtocol::Websocket, &["ws://h"]);
    assert_eq!(planned(request(Media { video: None, audio: all() }, vec![named])).source, Source::Room);

    let silent = request(Media { video: track("TR_v"), audio: None }, vec![websocket("ws://h")]);
    assert_eq!(refused(silent).to_string(), "format audio/x-raw incompatible with codec video/h264");
    for (other, message) in [
        (file("", Mp4), "format video/mp4 incompatible with codec audio/x-raw"),
        (file("", DefaultFiletype), "no supported file output type is compatible with the selected codecs"),
        (segments(), "format application/x-mpegurl incompatible with codec audio/x-raw"),
        (images(), "request has missing or invalid field: audio_only images"),
        (websocket("ws://h"), "request has missing or invalid field: multiple stream outputs"),
    ] {
        assert_eq!(refused(request(sound(), vec![websocket("ws://h"), other])).to_string(), message);
    }
    for (urls, message) in [
        (&[][..], "request has missing or invalid field: stream url"),
        (&["ws://h", "ws://i"][..], "several URLs of websockets are not supported yet"),
        (&["ws://h", "rtmp://canary-key/a"][..], "invalid url rtmp://{...}: invalid scheme"),
    ] {
        let output = stream(livekit::StreamProtocol::Websocket, urls);
        assert_eq!(refused(request(sound(), vec![output])).to_string(), message);
    }
}

#[test]
fn passthrough_is_one_named_track_copied_into_one_file() {
    let copied = |media: Media, path: &str| {
        let outputs = vec![file(path, livekit::EncodedFileType::DefaultFiletype)];
        planned(livekit::StartEgressRequest { encoding: COPY, ..request(media, outputs) })
    };
    let video = copied(Media { video: track("TR_v"), audio: None }, "pt_{track_id}_{time}.mp4");
    let audio = copied(Media { video: None, audio: one_track("TR_a") }, "");
    // Routes of an empty list are no audio.
    let no_routes = copied(Media { video: track("TR_v"), audio: routes(&[]) }, "a.ivf");
    for (plan, source, container) in [
        (&video, Source::Tracks { audio: None, video: Some("TR_v".into()) }, None),
        (&audio, Source::Tracks { audio: Some("TR_a".into()), video: None }, None),
        (&no_routes, Source::Tracks { audio: None, video: Some("TR_v".into()) }, Some(Container::Ivf)),
    ] {
        assert_eq!((plan.kind, &plan.source), (EgressKind::Track, &source));
        assert_eq!((&plan.picture, &plan.sound), (&Some(VideoPlan::Copied), &Some(AudioPlan::Copied)));
        assert_eq!(plan.file(0).and_then(|file| file.container), container);
    }
    assert_eq!(crate::name::NameFacts::of(&video).track_id, "TR_v");
    assert_eq!(crate::name::NameFacts::of(&audio).track_id, "TR_a");
}

#[test]
fn mistakes_are_answered_with_the_peers_messages() {
    let media = |video, audio| RequestedSource::Media(Media { video, audio });
    let template = RequestedSource::Template;
    let bare = |source| livekit::StartEgressRequest {
        room_name: "sales".into(),
        source: Some(source),
        outputs: vec![default_file()],
        ..Default::default()
    };
    let copy = |source, outputs| livekit::StartEgressRequest { encoding: COPY, outputs, ..bare(source) };
    let both = livekit::TemplateSource { audio_only: true, video_only: true, ..Default::default() };
    let odd_url = livekit::TemplateSource { custom_base_url: "ftp://x".into(), ..Default::default() };
    let both_web =
        livekit::WebSource { url: "https://x".into(), audio_only: true, video_only: true, ..Default::default() };
    let no_match = Some(livekit::AudioConfig { capture_all: false, routes: vec![Default::default()] });
    let odd_channel = Some(livekit::AudioConfig {
        capture_all: false,
        routes: vec![livekit::AudioRoute { channel: 9, r#match: Some(Match::TrackId("TR_a".into())) }],
    });
    let identity = |name: &str| routes(&[(Match::ParticipantIdentity(name.into()), livekit::AudioChannel::Both)]);
    let many = Some(livekit::AudioConfig { capture_all: true, routes: vec![Default::default(); 1001] });
    let two = routes(&[
        (Match::TrackId("TR_a".into()), livekit::AudioChannel::Both),
        (Match::TrackId("TR_b".into()), livekit::AudioChannel::Both),
    ]);
    let video = || media(track("TR_v"), None);
    let one = || vec![default_file()];
    for (request, field) in [
        (livekit::StartEgressRequest { source: None, ..bare(video()) }, "source"),
        (bare(media(None, None)), "audio or video"),
        (bare(media(None, routes(&[]))), "audio or video"),
        (bare(media(track(""), None)), "video_track_id"),
        (bare(media(participant("", false), None)), "participant_video identity"),
        (bare(media(None, no_match)), "audio route match"),
        (bare(media(None, one_track(""))), "audio route track_id"),
        (bare(media(None, identity(""))), "audio route participant_identity"),
        (bare(media(None, odd_channel)), "audio route channel"),
        (bare(media(None, many)), "audio routes (1001 asked, at most 1000)"),
        (livekit::StartEgressRequest { outputs: vec![], ..bare(video()) }, "output"),
        (livekit::StartEgressRequest { outputs: vec![livekit::Output::default()], ..bare(video()) }, "output config"),
        (
            livekit::StartEgressRequest { outputs: vec![segments(), segments()], ..bare(video()) },
            "multiple segmented file outputs",
        ),
        (livekit::StartEgressRequest { encoding: Some(Encoded::Preset(99)), ..bare(video()) }, "preset"),
        (livekit::StartEgressRequest { room_name: String::new(), ..bare(video()) }, "room_name"),
        (bare(template(both.clone())), "audio_only and video_only"),
        (bare(template(odd_url)), "template base url"),
        (bare(RequestedSource::Web(livekit::WebSource::default())), "web url"),
        (bare(RequestedSource::Web(both_web)), "audio_only and video_only"),
        (copy(template(both), one()), "passthrough source"),
        (livekit::StartEgressRequest { source: None, ..copy(video(), one()) }, "passthrough source"),
        (copy(media(track(""), None), one()), "passthrough video_track_id"),
        (copy(media(participant("ann", false), None), one()), "passthrough participant_video"),
        (copy(media(None, all()), one()), "passthrough capture_all"),
        (copy(media(None, two), one()), "passthrough audio routes"),
        (copy(media(None, identity("ann")), one()), "passthrough audio route match"),
        (copy(media(None, one_track("")), one()), "passthrough audio route track_id"),
        (copy(media(None, None), one()), "passthrough track_id"),
        (copy(media(track("TR_v"), one_track("TR_a")), one()), "passthrough track_id"),
        (copy(video(), vec![]), "passthrough outputs"),
        (copy(video(), vec![default_file(), default_file()]), "passthrough outputs"),
        (copy(video(), vec![segments()]), "passthrough output"),
        (copy(video(), vec![file("", livekit::EncodedFileType::Mp4)]), "passthrough file_type"),
    ] {
        let error = refused(request);
        assert_eq!(error.to_string(), format!("request has missing or invalid field: {field}"));
        assert_eq!(error.code(), Code::InvalidArgument);
    }
}

#[test]
fn a_second_attempt_needs_names_of_its_own() {
    let again = |path: &str| {
        let asked =
            request(Media { video: None, audio: all() }, vec![file(path, livekit::EncodedFileType::DefaultFiletype)]);
        let start = StartEgressRequest { retry_count: 2, ..start(asked) };
        plan(&start, &Defaults::default()).map(|plan| plan.retry_count)
    };
    assert_eq!(again("a.ogg"), Err(PlanError::NotRetrySafe));
    assert_eq!(again("a-{retry}.ogg"), Ok(2));
    assert_eq!(again("d/"), Ok(2));
}
