//! Requests as users send them, and what they get: a plan or a refusal in livekit/egress' words.

use livekit_protocol as livekit;
use proptest::prelude::*;
use prost::Message;
use spillway_plan::*;
use spillway_protocol::code::Code;
use spillway_protocol::rpc::StartEgressRequest;
use spillway_protocol::rpc::start_egress_request::EgressRequest;

fn start(request: EgressRequest) -> StartEgressRequest {
    StartEgressRequest {
        egress_id: "EG_x".into(),
        room_id: "RM_x".into(),
        request: Some(request),
        ..StartEgressRequest::default()
    }
}

fn file(path: &str, file_type: livekit::EncodedFileType) -> Vec<livekit::EncodedFileOutput> {
    vec![livekit::EncodedFileOutput { file_type: file_type.into(), filepath: path.into(), ..Default::default() }]
}

fn composite() -> livekit::RoomCompositeEgressRequest {
    livekit::RoomCompositeEgressRequest {
        room_name: "sales".into(),
        file_outputs: file("", livekit::EncodedFileType::DefaultFiletype),
        ..Default::default()
    }
}

fn tracks() -> livekit::TrackCompositeEgressRequest {
    livekit::TrackCompositeEgressRequest {
        room_name: "sales".into(),
        audio_track_id: "TR_a".into(),
        video_track_id: "TR_v".into(),
        file_outputs: file("", livekit::EncodedFileType::DefaultFiletype),
        ..Default::default()
    }
}

fn participant() -> livekit::ParticipantEgressRequest {
    livekit::ParticipantEgressRequest {
        room_name: "sales".into(),
        identity: "ann".into(),
        file_outputs: file("", livekit::EncodedFileType::DefaultFiletype),
        ..Default::default()
    }
}

fn track(path: &str) -> livekit::TrackEgressRequest {
    let output = livekit::DirectFileOutput { filepath: path.into(), ..Default::default() };
    livekit::TrackEgressRequest {
        room_name: "sales".into(),
        track_id: "TR_x".into(),
        output: Some(livekit::track_egress_request::Output::File(output)),
        ..Default::default()
    }
}

fn media() -> livekit::StartEgressRequest {
    let route = livekit::AudioRoute {
        channel: livekit::AudioChannel::Left.into(),
        r#match: Some(livekit::audio_route::Match::TrackId("TR_a".into())),
    };
    let source = livekit::MediaSource {
        video: Some(livekit::media_source::Video::VideoTrackId("TR_v".into())),
        audio: Some(livekit::AudioConfig { capture_all: true, routes: vec![route] }),
    };
    let file = livekit::output::Config::File(livekit::FileOutput::default());
    livekit::StartEgressRequest {
        room_name: "sales".into(),
        source: Some(livekit::start_egress_request::Source::Media(source)),
        outputs: vec![livekit::Output { config: Some(file), storage: None }],
        ..Default::default()
    }
}

fn planned(request: EgressRequest) -> EgressPlan {
    plan(&start(request), &Defaults::default()).expect("a plan")
}

fn refused(request: EgressRequest) -> (Code, String) {
    let error = plan(&start(request), &Defaults::default()).expect_err("a refusal");
    (error.code(), error.to_string())
}

fn missing(field: &str) -> (Code, String) {
    (Code::InvalidArgument, format!("request has missing or invalid field: {field}"))
}

fn mixed(codec: AudioCodec, frequency: u32, mixing: Mixing) -> AudioPlan {
    AudioPlan::Mixed { codec, bitrate: 128, frequency, mixing, also: vec![] }
}

fn container(plan: &EgressPlan) -> Option<Container> {
    plan.file(0).expect("a file").container
}

#[test]
fn a_room_composite_with_nothing_said_is_the_grid_at_720p30() {
    let plan = planned(EgressRequest::RoomComposite(composite()));
    assert_eq!((plan.kind, plan.source.clone()), (EgressKind::RoomComposite, Source::Room));
    let Some(VideoPlan::Composed { layout, encoding }) = &plan.picture else { panic!("{:?}", plan.picture) };
    assert_eq!(*layout, LayoutName { shape: LayoutShape::Grid, light: false });
    assert_eq!((encoding.width, encoding.height, encoding.framerate, encoding.bitrate), (1280, 720, 30, 3000));
    assert_eq!((encoding.profile, encoding.key_frame_interval), (H264Profile::Main, None));
    assert_eq!(plan.sound, Some(mixed(AudioCodec::Aac, 44_100, Mixing::Both)));
    assert_eq!(container(&plan), Some(Container::Mp4));
    let json = serde_json::to_string(&plan).unwrap();
    assert_eq!(serde_json::from_str::<EgressPlan>(&json).unwrap(), plan);
}

#[test]
fn sound_alone_is_opus_in_ogg_unless_asked_otherwise() {
    let audio_only = livekit::RoomCompositeEgressRequest { audio_only: true, audio_mixing: 1, ..composite() };
    let plan = planned(EgressRequest::RoomComposite(audio_only.clone()));
    assert_eq!((plan.picture.clone(), container(&plan)), (None, Some(Container::Ogg)));
    assert_eq!(plan.sound, Some(mixed(AudioCodec::Opus, 48_000, Mixing::AgentsLeft)));
    let mp3 = livekit::RoomCompositeEgressRequest {
        file_outputs: file("a", livekit::EncodedFileType::Mp3),
        ..audio_only.clone()
    };
    assert_eq!(container(&planned(EgressRequest::RoomComposite(mp3.clone()))), Some(Container::Mp3));
    let mp3_with_aac = livekit::RoomCompositeEgressRequest {
        options: Some(livekit::room_composite_egress_request::Options::Advanced(livekit::EncodingOptions {
            audio_codec: livekit::AudioCodec::Aac.into(),
            ..Default::default()
        })),
        ..mp3
    };
    assert_eq!(
        refused(EgressRequest::RoomComposite(mp3_with_aac)),
        (Code::InvalidArgument, "format audio/mpeg incompatible with codec audio/aac".into())
    );
}

#[test]
fn one_source_is_copied_unless_its_picture_was_asked_to_be_something() {
    use livekit::track_composite_egress_request::Options;
    let picture = |options| {
        planned(EgressRequest::TrackComposite(livekit::TrackCompositeEgressRequest { options, ..tracks() })).picture
    };
    let advanced = |options| Some(Options::Advanced(options));
    assert!(matches!(picture(None), Some(VideoPlan::CopiedIfPossible(_))));
    // The first of the enumeration, yet on the wire: asked for.
    assert!(matches!(picture(Some(Options::Preset(0))), Some(VideoPlan::Single(_))));
    // Only the sound was asked for.
    let sound = livekit::EncodingOptions { audio_codec: 1, audio_bitrate: 64, depth: 24, ..Default::default() };
    assert!(matches!(picture(advanced(sound)), Some(VideoPlan::CopiedIfPossible(_))));
    assert!(matches!(picture(Some(Options::Preset(2))), Some(VideoPlan::Single(_))));
    let zero = livekit::EncodingOptions::default();
    for options in [
        livekit::EncodingOptions { width: 640, ..zero },
        livekit::EncodingOptions { height: 360, ..zero },
        livekit::EncodingOptions { framerate: 15, ..zero },
        livekit::EncodingOptions { video_bitrate: 500, ..zero },
        livekit::EncodingOptions { video_codec: livekit::VideoCodec::H264High.into(), ..zero },
        livekit::EncodingOptions { key_frame_interval: 4.0, ..zero },
    ] {
        assert!(matches!(picture(advanced(options)), Some(VideoPlan::Single(_))), "{options:?}");
    }
    let Some(VideoPlan::Single(encoding)) = picture(advanced(livekit::EncodingOptions { width: 640, ..zero })) else {
        panic!()
    };
    assert_eq!((encoding.width, encoding.height), (640, 720), "what is not named stays the default");

    let audio_only = livekit::TrackCompositeEgressRequest { video_track_id: String::new(), ..tracks() };
    let plan = planned(EgressRequest::TrackComposite(audio_only));
    assert_eq!((plan.picture.clone(), container(&plan)), (None, Some(Container::Ogg)));
    assert_eq!(plan.source, Source::Tracks { audio: Some("TR_a".into()), video: None });
    // A participant has a picture even while nobody looks into the camera.
    assert!(planned(EgressRequest::Participant(participant())).picture.is_some());
}

/// The API has no file type of WebM.
#[test]
fn webm_is_asked_for_by_the_name_of_a_file_whose_picture_may_be_copied() {
    use livekit::track_composite_egress_request::Options;
    let named = |path: &str| file(path, livekit::EncodedFileType::DefaultFiletype);
    let tracks_into = |file_outputs| livekit::TrackCompositeEgressRequest { file_outputs, ..tracks() };
    let mut of_media = media();
    let into = livekit::FileOutput { filepath: "a.webm".into(), ..Default::default() };
    of_media.outputs[0].config = Some(livekit::output::Config::File(into));
    let of_participant = livekit::ParticipantEgressRequest { file_outputs: named("d/{time}.webm"), ..participant() };
    let mut two = named("a.webm");
    two.extend(file("", livekit::EncodedFileType::Ogg));
    for request in [
        EgressRequest::TrackComposite(tracks_into(named("a.webm"))),
        EgressRequest::TrackComposite(tracks_into(two)),
        EgressRequest::Participant(of_participant),
        EgressRequest::Egress(of_media),
    ] {
        let plan = planned(request);
        assert!(matches!(plan.picture, Some(VideoPlan::CopiedIfPossible(_))), "{plan:?}");
        assert_eq!((container(&plan), plan.container_follows_codec()), (None, true));
        let Some(AudioPlan::Mixed { codec: AudioCodec::Aac, frequency: 44_100, also, .. }) = &plan.sound else {
            panic!("{:?}", plan.sound)
        };
        assert_eq!(also, &[AudioEncoding { codec: AudioCodec::Opus, bitrate: 128, frequency: 48_000 }]);
        let (file, sound) = (plan.file(0).unwrap(), plan.sound.as_ref().unwrap());
        assert_eq!(file.audio_in(Container::Webm, sound), Some(AudioCodec::Opus));
        assert_eq!(file.audio_in(Container::Mp4, sound), Some(AudioCodec::Aac));
        let json = serde_json::to_string(&plan).unwrap();
        assert_eq!(serde_json::from_str::<EgressPlan>(&json).unwrap(), plan);
    }

    let with = |options| {
        let advanced = Some(Options::Advanced(options));
        planned(EgressRequest::TrackComposite(livekit::TrackCompositeEgressRequest {
            options: advanced,
            ..tracks_into(named("a.webm"))
        }))
    };
    let zero = livekit::EncodingOptions::default();
    let opus = with(livekit::EncodingOptions { audio_codec: livekit::AudioCodec::Opus.into(), ..zero });
    assert_eq!((container(&opus), opus.sound), (None, Some(mixed(AudioCodec::Opus, 48_000, Mixing::Both))));
    let silent = livekit::TrackCompositeEgressRequest { audio_track_id: String::new(), ..tracks_into(named("a.webm")) };
    let silent = planned(EgressRequest::TrackComposite(silent));
    assert_eq!((container(&silent), silent.sound), (None, None));

    let room = livekit::RoomCompositeEgressRequest { file_outputs: named("a.webm"), ..composite() };
    for plan in [
        planned(EgressRequest::RoomComposite(room)),
        planned(EgressRequest::TrackComposite(tracks_into(file("a.webm", livekit::EncodedFileType::Mp4)))),
        planned(EgressRequest::TrackComposite(tracks_into(named("a")))),
        // One MP4 would have the picture encoded for both.
        planned(EgressRequest::TrackComposite(tracks_into([named("a.webm"), named("b.mp4")].concat()))),
        with(livekit::EncodingOptions { audio_codec: livekit::AudioCodec::Aac.into(), ..zero }),
        with(livekit::EncodingOptions { width: 640, ..zero }),
    ] {
        assert_eq!((container(&plan), plan.container_follows_codec()), (Some(Container::Mp4), false), "{plan:?}");
        assert_eq!(plan.sound, Some(mixed(AudioCodec::Aac, 44_100, Mixing::Both)));
    }
}

#[test]
fn a_track_is_copied_and_its_codec_decides_the_container() {
    let plan = planned(EgressRequest::Track(track("a/{track_id}.mp4")));
    assert_eq!((plan.picture.clone(), plan.sound.clone()), (Some(VideoPlan::Copied), Some(AudioPlan::Copied)));
    assert_eq!(container(&plan), None);
    assert_eq!(container(&planned(EgressRequest::Track(track("a.ivf")))), Some(Container::Ivf));
}

/// The peer refuses more than one.
#[test]
fn a_request_may_have_several_files() {
    let files = [livekit::EncodedFileType::Mp4, livekit::EncodedFileType::Ogg].map(|of| file("", of).remove(0));
    let request = livekit::RoomCompositeEgressRequest { file_outputs: files.to_vec(), ..composite() };
    let plan = planned(EgressRequest::RoomComposite(request));
    let containers: Vec<_> = plan.files().map(|file| file.container).collect();
    assert_eq!(containers, [Some(Container::Mp4), Some(Container::Ogg)]);
}

#[test]
fn mistakes_are_answered_with_the_peers_messages() {
    type Composite = livekit::RoomCompositeEgressRequest;
    type Change = fn(&mut Composite);
    let advanced = |options| Some(livekit::room_composite_egress_request::Options::Advanced(options));
    let cases: Vec<(Change, &str)> = vec![
        (|r| r.file_outputs.clear(), "output"),
        (|r| (r.audio_only, r.video_only) = (true, true), "audio_only and video_only"),
        (|r| r.custom_base_url = "ftp://x".into(), "template base url"),
        (|r| r.custom_base_url = "not a url".into(), "template base url"),
        (|r| r.file_outputs = vec![r.file_outputs[0].clone(); 9], "file_outputs (9 asked, at most 8)"),
        (|r| r.stream_outputs = vec![Default::default(); 2], "multiple stream outputs"),
        (|r| r.segment_outputs = vec![Default::default(); 2], "multiple segmented file outputs"),
        (|r| r.file_outputs[0].file_type = 77, "file_type"),
        (|r| r.file_outputs[0].filepath = "a\0b".into(), "filepath"),
        (|r| r.file_outputs[0].filepath = "x".repeat(300), "filepath"),
        (|r| r.audio_mixing = 9, "audio_mixing"),
        (|r| r.room_name.clear(), "room_name"),
    ];
    for (change, field) in cases {
        let mut request = composite();
        change(&mut request);
        assert_eq!(refused(EgressRequest::RoomComposite(request)), missing(field));
    }
    let zero = livekit::EncodingOptions::default();
    for (options, message) in [
        (livekit::EncodingOptions { width: 15, ..zero }, "width"),
        (livekit::EncodingOptions { height: 721, ..zero }, "height"),
        (livekit::EncodingOptions { width: 20_000, ..zero }, "width (20000 asked, at most 4096)"),
        (livekit::EncodingOptions { depth: 12, ..zero }, "depth"),
        (livekit::EncodingOptions { framerate: 1000, ..zero }, "framerate (1000 asked, at most 120)"),
        (
            livekit::EncodingOptions { video_bitrate: i32::MAX, ..zero },
            "video_bitrate (2147483647 asked, at most 100000)",
        ),
        (livekit::EncodingOptions { audio_bitrate: 600, ..zero }, "audio_bitrate (600 asked, at most 510)"),
        (livekit::EncodingOptions { video_codec: 99, ..zero }, "video_codec"),
        (livekit::EncodingOptions { audio_codec: 99, ..zero }, "audio_codec"),
        (livekit::EncodingOptions { key_frame_interval: -1.0, ..zero }, "key_frame_interval"),
        (livekit::EncodingOptions { key_frame_interval: f64::NAN, ..zero }, "key_frame_interval"),
    ] {
        let request = Composite { options: advanced(options), ..composite() };
        assert_eq!(refused(EgressRequest::RoomComposite(request)), missing(message));
    }
    let unset = livekit::EncodingOptions { width: -5, height: 0, framerate: -1, ..zero };
    planned(EgressRequest::RoomComposite(Composite { options: advanced(unset), ..composite() }));
    let odd = livekit::EncodingOptions { audio_frequency: 12_345, ..zero };
    let (code, message) = refused(EgressRequest::RoomComposite(Composite { options: advanced(odd), ..composite() }));
    assert!(code == Code::InvalidArgument && message.contains("audio_frequency (12345 asked"), "{message}");

    let nobody = livekit::ParticipantEgressRequest { identity: String::new(), ..participant() };
    assert_eq!(refused(EgressRequest::Participant(nobody)), missing("identity"));
    let no_track = livekit::TrackEgressRequest { track_id: String::new(), ..track("") };
    assert_eq!(refused(EgressRequest::Track(no_track)), missing("track_id"));
    let no_output = livekit::TrackEgressRequest { output: None, ..track("") };
    assert_eq!(refused(EgressRequest::Track(no_output)), missing("output"));
    let no_ids = livekit::TrackCompositeEgressRequest {
        audio_track_id: String::new(),
        video_track_id: String::new(),
        ..tracks()
    };
    assert_eq!(refused(EgressRequest::TrackComposite(no_ids)), missing("audio_track_id or video_track_id"));
    let ogg =
        livekit::ParticipantEgressRequest { file_outputs: file("", livekit::EncodedFileType::Ogg), ..participant() };
    assert_eq!(
        refused(EgressRequest::Participant(ogg)),
        (Code::InvalidArgument, "no supported codec is compatible with all outputs".into())
    );
    let bad_preset = livekit::ParticipantEgressRequest {
        options: Some(livekit::participant_egress_request::Options::Preset(99)),
        ..participant()
    };
    assert_eq!(refused(EgressRequest::Participant(bad_preset)), missing("preset"));
    // PASSTHROUGH is for one track of a media source.
    let passthrough = livekit::ParticipantEgressRequest {
        options: Some(livekit::participant_egress_request::Options::Preset(8)),
        ..participant()
    };
    assert_eq!(refused(EgressRequest::Participant(passthrough)), missing("preset"));

    let defaults = Defaults::default();
    assert_eq!(plan(&StartEgressRequest::default(), &defaults), Err(PlanError::Field("egressID")));
    let empty = StartEgressRequest { egress_id: "EG_x".into(), ..Default::default() };
    assert_eq!(plan(&empty, &defaults), Err(PlanError::Field("request")));
}

#[test]
fn what_the_installation_lacks_is_named() {
    let request = start(EgressRequest::RoomComposite(composite()));
    let poor = Defaults { mints_tokens: false, knows_server: false, ..Defaults::default() };
    assert_eq!(plan(&request, &poor), Err(PlanError::Field("token or api key/secret")));
    let with_token = StartEgressRequest { token: "t".into(), ..request.clone() };
    assert_eq!(plan(&with_token, &poor), Err(PlanError::Field("ws_url")));
    let complete = StartEgressRequest { ws_url: "ws://x".into(), ..with_token };
    assert!(plan(&complete, &poor).is_ok());
    let no_disk = StorageConfig { disallow_local: true, ..StorageConfig::default() };
    let no_disk = Defaults { storage: no_disk, ..Defaults::default() };
    assert_eq!(plan(&request, &no_disk), Err(PlanError::Field("output")));

    let again = |path: &str| {
        let mut request = composite();
        request.file_outputs[0].filepath = path.into();
        plan(
            &StartEgressRequest { retry_count: 1, ..start(EgressRequest::RoomComposite(request)) },
            &Defaults::default(),
        )
    };
    assert_eq!(again("a.mp4").expect_err("refused").code(), Code::FailedPrecondition);
    assert!(again("").is_ok() && again("d/").is_ok() && again("a-{retry}.mp4").is_ok());
}

#[test]
fn the_plan_knows_whether_a_file_stays_on_this_machine() {
    let stored = |request: livekit::RoomCompositeEgressRequest, defaults: &Defaults| {
        plan(&start(EgressRequest::RoomComposite(request)), defaults).map(|plan| plan.outputs[0].is_stored())
    };
    let uploaded = |bucket: &str| {
        let mut request = composite();
        let (access_key, secret) = ("key".into(), "secret".into());
        let s3 = livekit::S3Upload { access_key, secret, bucket: bucket.into(), ..Default::default() };
        request.file_outputs[0].output = Some(livekit::encoded_file_output::Output::S3(s3));
        request
    };
    let usual = Defaults::default();
    assert_eq!(stored(composite(), &usual), Ok(false));
    assert_eq!(stored(uploaded("b"), &usual), Ok(true));
    assert_eq!(stored(uploaded(""), &usual), Err(PlanError::Field("s3 bucket")));
    let primary = Some(Provider::Local(spillway_plan::destination::Local { root: "/mnt/share".into() }));
    let shared = Defaults { storage: StorageConfig { primary, ..StorageConfig::default() }, ..Defaults::default() };
    assert_eq!(stored(composite(), &shared), Ok(true));
}

#[test]
fn what_is_not_there_yet_is_refused_by_name() {
    let (code, message) = refused(EgressRequest::Replay(livekit::ExportReplayRequest::default()));
    assert_eq!((code, message.as_str()), (Code::Unimplemented, "replay export is not supported yet"));
}

/// `CreateRoom.egress`, or the room's configuration in a token: what livekit-server 1.13.5 makes of it, as JSON. It fills in
/// room and identity or track, and puts `-{track_id}` into the path of tracks.
#[test]
fn auto_egress_of_rooms_participants_and_tracks_is_ordinary() {
    let auto = |request: serde_json::Value| {
        let start = StartEgressRequest { egress_id: "EG_x".into(), ..start_request(request).unwrap() };
        assert!(start.token.is_empty() && start.ws_url.is_empty() && start.retry_count == 0);
        plan(&start, &Defaults::default()).expect("a plan")
    };
    let room = auto(serde_json::json!({
        "roomId": "RM_KU2LaT8mzqwn",
        "roomComposite": {"roomName": "auto-room", "layout": "grid", "fileOutputs": [{"filepath": "a.mp4"}]},
    }));
    assert_eq!(
        (room.kind, room.room_name.as_str(), room.room_id.as_str()),
        (EgressKind::RoomComposite, "auto-room", "RM_KU2LaT8mzqwn")
    );
    let alice = auto(serde_json::json!({
        "roomId": "RM_2X7mdKChetGq",
        "participant": {
            "roomName": "auto-pub", "identity": "alice", "fileOutputs": [{"filepath": "p/{publisher_identity}.mp4"}],
        },
    }));
    assert_eq!(alice.source, Source::Participant { identity: "alice".into(), screen_share: false });
    let track = auto(serde_json::json!({
        "roomId": "RM_2X7mdKChetGq",
        "track": {"roomName": "auto-pub", "trackId": "TR_AM5ygXrRnmEuXU", "file": {"filepath": "t/x-{track_id}.ogg"}},
    }));
    assert_eq!(track.source, Source::Track { track_id: "TR_AM5ygXrRnmEuXU".into() });
    let now = chrono::NaiveDate::from_ymd_opt(2026, 8, 30).unwrap().and_hms_opt(1, 2, 3).unwrap();
    let facts = name::NameFacts::of(&track);
    let file = track.file(0).expect("a file");
    assert_eq!(name::resolve(file, Container::Ogg, &facts, now), "t/x-TR_AM5ygXrRnmEuXU.ogg");
}

/// As the version wrote it that had files only: tickets outlive an upgrade, in both directions.
#[test]
fn a_plan_with_a_file_is_the_json_it_has_always_been() {
    let composite = concat!(
        r#"{"egress_id":"EG_x","room_name":"sales","room_id":"RM_x","kind":"room_composite","source":"room","#,
        r#""picture":{"composed":{"layout":{"shape":"grid","light":false},"encoding":{"width":1280,"height":720,"#,
        r#""framerate":30,"bitrate":3000,"profile":"main","key_frame_interval":null}}},"#,
        r#""sound":{"mixed":{"codec":"aac","bitrate":128,"frequency":44100,"mixing":"both"}},"#,
        r#""outputs":[{"file":{"container":"mp4","path":"","manifest":true,"stored":false}}],"#,
        r#""limits":{"max_duration_ns":null,"max_file_bytes":null},"retry_count":0}"#,
    );
    let track = concat!(
        r#"{"egress_id":"EG_x","room_name":"sales","room_id":"RM_x","kind":"track","source":{"track":{"track_id":"TR_x"}},"#,
        r#""picture":"copied","sound":"copied","#,
        r#""outputs":[{"file":{"container":null,"path":"a/b","manifest":true,"stored":false}}],"#,
        r#""limits":{"max_duration_ns":null,"max_file_bytes":null},"retry_count":0}"#,
    );
    for (text, request) in [
        (composite, EgressRequest::RoomComposite(self::composite())),
        (track, EgressRequest::Track(self::track("a/b"))),
    ] {
        let plan = planned(request);
        assert_eq!(serde_json::to_string(&plan).unwrap(), text);
        assert_eq!(serde_json::from_str::<EgressPlan>(text).unwrap(), plan);
    }
    // Older still: without `stored`.
    let text = composite.replace(r#","stored":false"#, "");
    assert!(!serde_json::from_str::<EgressPlan>(&text).unwrap().outputs[0].is_stored());
}

#[test]
fn the_single_output_of_old_sdks_still_counts() {
    #[expect(deprecated, reason = "old SDKs")]
    let output = livekit::room_composite_egress_request::Output::File(livekit::EncodedFileOutput {
        filepath: "old.mp4".into(),
        ..Default::default()
    });
    let old = livekit::RoomCompositeEgressRequest { file_outputs: vec![], output: Some(output), ..composite() };
    let plan = planned(EgressRequest::RoomComposite(old));
    let file = plan.file(0).expect("a file");
    assert_eq!((file.path.as_str(), file.manifest), ("old.mp4", true));
}

proptest! {
    #[test]
    fn no_bytes_make_a_plan_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        if let Ok(start) = StartEgressRequest::decode(bytes.as_slice()) {
            let _ = plan(&start, &Defaults::default());
        }
    }

    #[test]
    fn no_damage_to_a_request_makes_a_plan_panic(
        which in 0..5u8, at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>(),
    ) {
        let request = match which {
            0 => EgressRequest::RoomComposite(composite()),
            1 => EgressRequest::Participant(participant()),
            2 => EgressRequest::TrackComposite(tracks()),
            3 => EgressRequest::Egress(media()),
            _ => EgressRequest::Track(track("a.ivf")),
        };
        let mut bytes = start(request).encode_to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        for damaged in [bytes.as_slice(), &bytes[..cut.index(bytes.len())]] {
            if let Ok(start) = StartEgressRequest::decode(damaged) {
                let _ = plan(&start, &Defaults::default());
            }
        }
    }

    #[test]
    fn whatever_is_planned_can_be_made(
        width in any::<i32>(), height in any::<i32>(), framerate in any::<i32>(), video_bitrate in any::<i32>(),
        audio_bitrate in any::<i32>(), audio_frequency in any::<i32>(), key_frame_interval in any::<f64>(),
        audio_codec in -1..5, video_codec in -1..6, small in any::<bool>(), file_type in -1..5,
    ) {
        let shrink = |value: i32| if small { value.rem_euclid(5000) } else { value };
        let options = livekit::EncodingOptions {
            width: shrink(width) & !1, height: shrink(height) & !1, framerate: shrink(framerate) % 200,
            video_bitrate: shrink(video_bitrate), audio_bitrate: shrink(audio_bitrate) % 600,
            audio_frequency: if small { 48_000 } else { audio_frequency },
            key_frame_interval: if small { 2.5 } else { key_frame_interval },
            audio_codec, video_codec, ..Default::default()
        };
        let mut request = livekit::RoomCompositeEgressRequest {
            options: Some(livekit::room_composite_egress_request::Options::Advanced(options)),
            ..composite()
        };
        request.file_outputs[0].file_type = file_type;
        if let Ok(plan) = plan(&start(EgressRequest::RoomComposite(request)), &Defaults::default()) {
            let Some(VideoPlan::Composed { encoding, .. }) = plan.picture else { panic!() };
            prop_assert!((16..=4096).contains(&encoding.width) && encoding.width % 2 == 0);
            prop_assert!((16..=4096).contains(&encoding.height) && encoding.height % 2 == 0);
            prop_assert!((1..=120).contains(&encoding.framerate) && encoding.bitrate >= 1);
            prop_assert!(encoding.key_frame_interval.is_none_or(|seconds| seconds.is_finite() && seconds > 0.0));
            let Some(AudioPlan::Mixed { frequency, bitrate, .. }) = plan.sound else { panic!() };
            prop_assert!((8000..=96_000).contains(&frequency) && (1..=510).contains(&bitrate));
        }
    }
}
