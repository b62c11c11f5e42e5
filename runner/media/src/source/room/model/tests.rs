//! The model of a room under the messages a server sends.

use super::*;
use spillway_plan::{AudioMatch, AudioRoute, MediaVideo};

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn track(sid: &str, kind: TrackType, source: LkTrackSource) -> TrackInfo {
    TrackInfo { sid: sid.to_owned(), r#type: kind as i32, source: source as i32, ..TrackInfo::default() }
}

fn camera(sid: &str) -> TrackInfo {
    track(sid, TrackType::Video, LkTrackSource::Camera)
}

fn microphone(sid: &str) -> TrackInfo {
    track(sid, TrackType::Audio, LkTrackSource::Microphone)
}

fn participant(sid: &str, version: u32, tracks: &[TrackInfo]) -> ParticipantInfo {
    ParticipantInfo {
        sid: sid.to_owned(),
        identity: sid.trim_start_matches("PA_").to_owned(),
        version,
        state: participant_info::State::Active as i32,
        tracks: tracks.to_vec(),
        ..ParticipantInfo::default()
    }
}

fn gone(sid: &str) -> ParticipantInfo {
    ParticipantInfo { state: participant_info::State::Disconnected as i32, ..participant(sid, 99, &[]) }
}

fn me() -> ParticipantInfo {
    ParticipantInfo { sid: "PA_me".to_owned(), ..ParticipantInfo::default() }
}

fn model(source: Source) -> RoomModel {
    with_grace(source, Duration::ZERO)
}

fn with_grace(source: Source, return_grace: Duration) -> RoomModel {
    RoomModel::new(source, true, true, RoomWaits { appear: Duration::from_secs(30), return_grace })
}

fn subscribed(changes: &[RoomChange]) -> Vec<&str> {
    changes
        .iter()
        .filter_map(|change| match change {
            RoomChange::Subscribe(sid) => Some(sid.as_str()),
            _ => None,
        })
        .collect()
}

fn over(changes: &[RoomChange]) -> Option<&MediaEndReason> {
    changes.iter().find_map(|change| match change {
        RoomChange::Over(why) => Some(why),
        _ => None,
    })
}

#[test]
fn subscribed_pictures_are_counted_for_the_size_of_their_places() {
    let mut model = model(Source::Room);
    let tracks = [camera("TR_1"), microphone("TR_2")];
    model.joined(&me(), &[participant("PA_a", 1, &tracks), participant("PA_b", 1, &[camera("TR_3")])], ms(0));
    assert_eq!(model.pictures(), 2);
    assert_eq!((model.picture("TR_1"), model.picture("TR_2"), model.picture("TR_9")), (Some(false), None, None));
}

/// Before, every count looked for each picture among all participants.
#[test]
fn pictures_of_a_large_room_are_counted_quickly() {
    let mut model = model(Source::Room);
    let others: Vec<ParticipantInfo> =
        (0..500).map(|n| participant(&format!("PA_{n}"), 1, &[camera(&format!("TR_{n}"))])).collect();
    model.joined(&me(), &others, ms(0));
    let counted = std::time::Instant::now();
    for _ in 0..500 {
        assert_eq!(model.pictures(), 500);
    }
    assert!(counted.elapsed() < ms(250), "{:?}", counted.elapsed());
}

#[test]
fn a_picture_does_not_come_back_as_a_sound() {
    let mut model = model(Source::Room);
    let unknown = |sid: &str, kind| track(sid, kind, LkTrackSource::Unknown);
    let (video, audio) = (unknown("TR_1", TrackType::Video), unknown("TR_2", TrackType::Audio));
    model.joined(&me(), &[participant("PA_a", 1, &[video])], ms(0));
    let changes = model.rejoined(&me(), &[participant("PA_a", 1, &[audio])], false, ms(1000));
    // Chosen as any other, and the picture is still waited for.
    assert_eq!((subscribed(&changes), model.pictures()), (vec!["TR_2"], 1));
    let changes = model.update(&[participant("PA_a", 2, &[unknown("TR_3", TrackType::Video)])], ms(2000));
    assert_eq!((subscribed(&changes), model.pictures()), (vec!["TR_3"], 1));
}

#[test]
fn a_named_picture_of_which_nothing_comes_ends_what_has_not_begun() {
    let tracks = [camera("TR_1"), microphone("TR_2")];
    let waited = Duration::from_secs(30);
    let of = |source: Source, kind| {
        let mut model = model(source);
        let ann = ParticipantInfo { kind, ..participant("PA_ann", 1, &tracks) };
        model.joined(&me(), &[ann], ms(0));
        model
    };
    let (standard, agent) = (participant_info::Kind::Standard.into(), participant_info::Kind::Agent.into());
    let named = || Source::Tracks { audio: Some("TR_2".to_owned()), video: Some("TR_1".to_owned()) };
    let model = of(named(), standard);
    assert!(model.sends_at_once("TR_1") && model.sends_at_once("TR_2") && !model.sends_at_once("TR_9"));
    let message = "no video has come of track TR_1 of ann for 30 s".to_owned();
    let failed = MediaEndReason::Failed { code: "unavailable".to_owned(), message };
    assert_eq!(over(&model.given_up("TR_1", waited, false)), Some(&failed));
    assert_eq!((model.given_up("TR_1", waited, true), model.given_up("TR_2", waited, false)), (vec![], vec![]));
    let mut still = self::model(Source::Track { track_id: "TR_s".to_owned() });
    let screen = track("TR_s", TrackType::Video, LkTrackSource::ScreenShare);
    still.joined(&me(), &[participant("PA_ann", 1, &[screen])], ms(0));
    assert!(still.sends_at_once("TR_s") && still.given_up("TR_s", waited, false).is_empty(), "it may stand still");
    let of_agent = of(named(), agent);
    assert!(of_agent.sends_at_once("TR_1") && !of_agent.sends_at_once("TR_2"), "it may never speak");
    let room = of(Source::Room, standard);
    assert!(room.sends_at_once("TR_1") && !room.sends_at_once("TR_2"));
    assert_eq!(room.given_up("TR_1", waited, false), vec![]);
}

#[test]
fn a_room_takes_every_track_also_late_ones_and_never_ends_by_itself() {
    let mut model = model(Source::Room);
    let changes = model.joined(&me(), &[participant("PA_a", 1, &[camera("TR_1")])], ms(0));
    assert_eq!(subscribed(&changes), ["TR_1"]);
    let changes = model.update(&[participant("PA_a", 2, &[camera("TR_1"), microphone("TR_2")])], ms(100));
    assert_eq!(subscribed(&changes), ["TR_2"]);
    let changes = model.update(&[gone("PA_a")], ms(200));
    assert!(changes.contains(&RoomChange::Left { sid: "TR_1".to_owned() }));
    assert_eq!(over(&changes), None);
}

#[test]
fn a_participants_camera_and_microphone_or_its_screen_share() {
    let screen = track("TR_s", TrackType::Video, LkTrackSource::ScreenShare);
    let tracks = [camera("TR_1"), microphone("TR_2"), screen];
    for (screen_share, expected) in [(false, vec!["TR_1", "TR_2"]), (true, vec!["TR_s"])] {
        let mut model = model(Source::Participant { identity: "a".to_owned(), screen_share });
        let changes =
            model.joined(&me(), &[participant("PA_a", 1, &tracks), participant("PA_b", 1, &[camera("TR_9")])], ms(0));
        assert_eq!(subscribed(&changes), expected);
        assert_eq!(over(&model.update(&[participant("PA_a", 2, &[])], ms(10))), None, "unpublishing does not end it");
        let changes = model.update(&[gone("PA_a")], ms(20));
        assert!(
            matches!(over(&changes), Some(MediaEndReason::SourceClosed { message }) if message == "participant a left")
        );
    }
}

#[test]
fn what_does_not_appear_is_not_found_by_its_name() {
    let mut track = model(Source::Track { track_id: "TR_x".to_owned() });
    let changes = track.joined(&me(), &[], ms(0));
    assert_eq!(changes, [RoomChange::Waiting("waiting for track TR_x".to_owned())]);
    assert_eq!(over(&track.tick(ms(29_999))), None);
    let failed = |message: &str| MediaEndReason::Failed { code: "not_found".to_owned(), message: message.to_owned() };
    assert_eq!(over(&track.tick(ms(30_000))), Some(&failed("track TR_x not found")));
    let mut participant = model(Source::Participant { identity: "x".to_owned(), screen_share: false });
    participant.joined(&me(), &[], ms(0));
    assert_eq!(over(&participant.tick(ms(30_000))), Some(&failed("participant x not found")));
}

#[test]
fn a_microphone_named_as_the_video_track_is_refused() {
    let mut model = model(Source::Tracks { audio: None, video: Some("TR_2".to_owned()) });
    let changes = model.joined(&me(), &[participant("PA_a", 1, &[microphone("TR_2")])], ms(0));
    let message = "track TR_2 is audio, but was named as the video track".to_owned();
    assert_eq!(over(&changes), Some(&MediaEndReason::Failed { code: "invalid_argument".to_owned(), message }));
}

#[test]
fn two_named_tracks_end_with_the_last_of_them() {
    let mut model = model(Source::Tracks { audio: Some("TR_2".to_owned()), video: Some("TR_1".to_owned()) });
    model.joined(&me(), &[participant("PA_a", 1, &[camera("TR_1"), microphone("TR_2")])], ms(0));
    assert_eq!(over(&model.update(&[participant("PA_a", 2, &[microphone("TR_2")])], ms(10))), None);
    let changes = model.update(&[participant("PA_a", 3, &[])], ms(20));
    assert!(
        matches!(over(&changes), Some(MediaEndReason::SourceClosed { message }) if message == "track TR_1 and TR_2 ended")
    );
}

#[test]
fn older_news_of_a_participant_change_nothing() {
    let mut model = model(Source::Room);
    model.joined(&me(), &[participant("PA_a", 5, &[camera("TR_1")])], ms(0));
    assert_eq!(model.update(&[participant("PA_a", 4, &[])], ms(10)), []);
}

#[test]
fn after_a_rejoin_the_same_source_under_a_new_sid_goes_on() {
    let mut model = model(Source::Track { track_id: "TR_1".to_owned() });
    model.joined(&me(), &[participant("PA_a", 1, &[camera("TR_1")])], ms(0));
    let changes = model.rejoined(&me(), &[], true, ms(5000));
    assert_eq!((subscribed(&changes), over(&changes)), (vec![], None), "the server was restarted and is still empty");
    let changes = model.update(&[participant("PA_a2", 1, &[])], ms(9000));
    assert_eq!(over(&changes), None);
    let returned = ParticipantInfo { identity: "a".to_owned(), ..participant("PA_a2", 2, &[camera("TR_7")]) };
    let changes = model.update(&[returned], ms(9500));
    assert_eq!((subscribed(&changes), over(&changes)), (vec!["TR_7"], None));
    assert_eq!(over(&model.tick(ms(60_000))), None);
}

#[test]
fn a_room_that_stays_empty_after_a_join_is_joined_again_once() {
    let mut model = model(Source::Room);
    model.joined(&me(), &[], ms(0));
    let asks = |changes: &[RoomChange]| changes.contains(&RoomChange::JoinAgain);
    assert!(!asks(&model.tick(ms(4999))) && asks(&model.tick(ms(5000))) && !asks(&model.tick(ms(5001))));
    // It is still the one: nobody is missed, and what comes and goes is recorded as before.
    assert_eq!(over(&model.joined_again(&me(), &[], ms(5050))), None);
    assert!(!asks(&model.tick(ms(60_000))));
    let changes = model.update(&[participant("PA_a", 1, &[camera("TR_1")])], ms(60_100));
    assert_eq!(subscribed(&changes), ["TR_1"]);
    let changes = model.update(&[gone("PA_a")], ms(61_000));
    assert!(changes.contains(&RoomChange::Left { sid: "TR_1".to_owned() }), "{changes:?}");
    assert!(!asks(&model.tick(ms(70_000))), "the server tells the end of a room in which somebody was");
    model.rejoined(&me(), &[], false, ms(80_000));
    assert!(asks(&model.tick(ms(85_000))), "after every join of ours");
}

#[test]
fn a_room_in_which_somebody_was_is_not_joined_again() {
    let mut model = model(Source::Room);
    model.joined(&me(), &[participant("PA_a", 1, &[])], ms(0));
    model.tick(ms(1000));
    model.update(&[gone("PA_a")], ms(2000));
    assert!(!model.tick(ms(5000)).contains(&RoomChange::JoinAgain));
}

#[test]
fn who_does_not_come_back_after_a_rejoin_ends_the_recording() {
    let mut model = model(Source::Participant { identity: "a".to_owned(), screen_share: false });
    model.joined(&me(), &[participant("PA_a", 1, &[camera("TR_1")])], ms(0));
    model.rejoined(&me(), &[], true, ms(5000));
    assert_eq!(over(&model.tick(ms(34_999))), None);
    assert!(matches!(over(&model.tick(ms(35_000))), Some(MediaEndReason::SourceClosed { .. })));
}

#[test]
fn a_participant_that_returns_in_time_goes_on_in_the_same_recording() {
    let mut model = with_grace(Source::Participant { identity: "a".to_owned(), screen_share: false }, ms(10_000));
    model.joined(&me(), &[participant("PA_a", 1, &[camera("TR_1"), microphone("TR_2")])], ms(0));
    let changes = model.update(&[gone("PA_a")], ms(5000));
    assert!(changes.contains(&RoomChange::Left { sid: "TR_1".to_owned() }));
    assert_eq!(over(&changes), None, "a page that is loaded anew is back in a second");
    assert!(changes.contains(&RoomChange::Away));
    assert_eq!(model.tick(ms(14_999)), []);
    let returned = ParticipantInfo { identity: "a".to_owned(), ..participant("PA_a2", 1, &[]) };
    let changes = model.update(&[returned], ms(14_999));
    let away = TimeAway { since: ms(5000), lasted: ms(9999) };
    assert_eq!(changes, [RoomChange::Returned { identity: "a".to_owned(), away }]);
    let published = ParticipantInfo { identity: "a".to_owned(), ..participant("PA_a2", 2, &[camera("TR_7")]) };
    assert_eq!(subscribed(&model.update(&[published], ms(15_500))), ["TR_7"]);
    assert_eq!(model.tick(ms(60_000)), []);
    // The next time counts anew.
    model.update(&[ParticipantInfo { sid: "PA_a2".to_owned(), ..gone("PA_a") }], ms(60_000));
    assert_eq!(over(&model.tick(ms(69_999))), None);
    let message = "participant a left and did not return within 10 s".to_owned();
    assert_eq!(over(&model.tick(ms(70_000))), Some(&MediaEndReason::SourceClosed { message }));
}

#[test]
fn a_participant_that_was_removed_is_not_waited_for() {
    let mut model = with_grace(Source::Participant { identity: "a".to_owned(), screen_share: false }, ms(10_000));
    model.joined(&me(), &[participant("PA_a", 1, &[camera("TR_1")]), participant("PA_b", 1, &[])], ms(0));
    let removed = |sid| ParticipantInfo { disconnect_reason: DisconnectReason::ParticipantRemoved.into(), ..gone(sid) };
    assert_eq!(over(&model.update(&[removed("PA_b")], ms(10))), None, "that is another one");
    let message = "participant a was removed from the room".to_owned();
    let changes = model.update(&[removed("PA_a")], ms(20));
    assert_eq!(over(&changes), Some(&MediaEndReason::SourceClosed { message }));
}

#[test]
fn while_our_own_connection_was_lost_a_participant_was_not_away() {
    let mut model = with_grace(Source::Participant { identity: "a".to_owned(), screen_share: false }, ms(10_000));
    model.joined(&me(), &[participant("PA_a", 1, &[camera("TR_1")])], ms(0));
    assert_eq!(model.rejoined(&me(), &[], true, ms(5000)), []);
    assert_eq!(model.tick(ms(20_000)), [RoomChange::JoinAgain], "everyone has 30 s after a restart of the server");
    let returned = ParticipantInfo { identity: "a".to_owned(), ..participant("PA_a2", 1, &[camera("TR_7")]) };
    assert_eq!(model.update(&[returned], ms(21_000)), [RoomChange::Subscribe("TR_7".to_owned())]);
}

#[test]
fn our_own_metadata_is_a_layout_and_speakers_are_loudest_first() {
    let mut model = model(Source::Room);
    model.joined(&me(), &[participant("PA_a", 1, &[]), participant("PA_b", 1, &[])], ms(0));
    let own = ParticipantInfo { metadata: r#"{"layout":"speaker-light"}"#.to_owned(), ..me() };
    assert_eq!(model.update(std::slice::from_ref(&own), ms(1)), [RoomChange::Layout("speaker-light".to_owned())]);
    assert_eq!(model.update(&[own], ms(2)), []);
    let speaker = |sid: &str, level, active| SpeakerInfo { sid: sid.to_owned(), level, active };
    model.speakers(&[speaker("PA_a", 0.2, true)]);
    let loud = model.speakers(&[speaker("PA_b", 0.7, true)]);
    assert_eq!(loud, [RoomChange::Speakers(vec!["b".to_owned(), "a".to_owned()])]);
    assert_eq!(model.speakers(&[speaker("PA_b", 0.0, false)]), [RoomChange::Speakers(vec!["a".to_owned()])]);
}

fn encrypted(track: TrackInfo) -> TrackInfo {
    TrackInfo { encryption: livekit_protocol::encryption::Type::Gcm.into(), ..track }
}

#[test]
fn an_end_to_end_encrypted_room_is_refused_at_once() {
    let failed = |message: &str| MediaEndReason::Failed {
        code: "failed_precondition".to_owned(),
        message: format!("{message}: without its key it cannot be recorded"),
    };
    let mut room = model(Source::Room);
    room.joined(&me(), &[participant("PA_a", 1, &[])], ms(0));
    let published = [participant("PA_a", 2, &[encrypted(camera("TR_1")), encrypted(microphone("TR_2"))])];
    let changes = room.update(&published, ms(10));
    assert_eq!(over(&changes), Some(&failed("the room is end-to-end encrypted (track TR_1 of a)")));
    assert_eq!(subscribed(&changes), Vec::<&str>::new());

    let mut participants = model(Source::Participant { identity: "a".to_owned(), screen_share: false });
    let others = [participant("PA_a", 1, &[encrypted(microphone("TR_2"))]), participant("PA_b", 1, &[camera("TR_3")])];
    let changes = participants.joined(&me(), &others, ms(0));
    assert_eq!(over(&changes), Some(&failed("participant a is end-to-end encrypted (track TR_2 of a)")));

    let sound = RoomWaits { appear: Duration::from_secs(30), return_grace: Duration::ZERO };
    let mut sound = RoomModel::new(Source::Room, false, true, sound);
    let changes = sound.joined(&me(), &[participant("PA_a", 1, &[encrypted(camera("TR_1"))])], ms(0));
    assert_eq!(over(&changes), None, "what is not asked for does not count");
}

#[test]
fn where_something_is_recorded_an_encrypted_track_is_only_noted() {
    let mut model = model(Source::Room);
    let others = [participant("PA_a", 1, &[encrypted(camera("TR_1"))]), participant("PA_b", 1, &[microphone("TR_2")])];
    let changes = model.joined(&me(), &others, ms(0));
    assert_eq!((subscribed(&changes), over(&changes)), (vec!["TR_2"], None));
    let noted = |sid: &str| RoomChange::Noted(format!("track {sid} is end-to-end encrypted and cannot be recorded"));
    assert!(changes.contains(&noted("TR_1")));
    // Also when that has gone, and while we come back.
    assert_eq!(over(&model.update(&[gone("PA_b")], ms(10))), None);
    let changes = model.rejoined(&me(), &[participant("PA_a", 1, &[encrypted(camera("TR_9"))])], false, ms(20));
    assert_eq!(changes, [noted("TR_9")]);
}

fn of_kind(sid: &str, kind: participant_info::Kind, tracks: &[TrackInfo]) -> ParticipantInfo {
    ParticipantInfo { kind: kind.into(), ..participant(sid, 1, tracks) }
}

fn route(of: AudioMatch, side: StereoSide) -> AudioRoute {
    AudioRoute { of, side }
}

fn sides(model: &RoomModel) -> Vec<(String, StereoSide)> {
    model.subscribed().into_iter().map(|sid| (sid.clone(), model.publication(&sid).unwrap().side)).collect()
}

#[test]
fn a_media_source_takes_its_video_and_what_its_routes_match_each_on_its_side() {
    use StereoSide::{Both, Left, Right};
    use participant_info::Kind::{Agent, Standard};
    let screen = track("TR_screen", TrackType::Video, LkTrackSource::ScreenShare);
    let room = [
        of_kind("PA_ann", Standard, &[camera("TR_cam"), microphone("TR_mic"), screen]),
        of_kind("PA_bot", Agent, &[microphone("TR_bot")]),
        of_kind("PA_bob", Standard, &[camera("TR_bob"), microphone("TR_mike")]),
    ];
    let ann = || "ann".to_owned();
    let to = |sid: &str| AudioMatch::Track(sid.to_owned());
    type Case = (Option<MediaVideo>, Vec<AudioRoute>, bool, &'static [(&'static str, StereoSide)]);
    let cases: [Case; 7] = [
        (Some(MediaVideo::Camera(ann())), vec![], false, &[("TR_cam", Both)]),
        (Some(MediaVideo::ScreenShare(ann())), vec![], false, &[("TR_screen", Both)]),
        (
            Some(MediaVideo::Track("TR_bob".to_owned())),
            vec![route(to("TR_mike"), Left)],
            false,
            &[("TR_bob", Both), ("TR_mike", Left)],
        ),
        // The first that matches decides.
        (
            None,
            vec![route(to("TR_mic"), Right), route(AudioMatch::Participant(ann()), Left)],
            false,
            &[("TR_mic", Right)],
        ),
        (
            None,
            vec![route(AudioMatch::Kind(Standard.into()), Left), route(AudioMatch::Kind(Agent.into()), Right)],
            false,
            &[("TR_bot", Right), ("TR_mic", Left), ("TR_mike", Left)],
        ),
        (
            Some(MediaVideo::Camera(ann())),
            vec![route(AudioMatch::Participant("bot".to_owned()), Right)],
            true,
            &[("TR_bot", Right), ("TR_cam", Both), ("TR_mic", Both), ("TR_mike", Both)],
        ),
        (None, vec![route(AudioMatch::Kind(99), Left)], false, &[]),
    ];
    for (video, audio, other_audio, expected) in cases {
        let mut model = model(Source::Media { video, audio, other_audio });
        model.joined(&me(), &room, ms(0));
        let found = sides(&model);
        let found: Vec<(&str, StereoSide)> = found.iter().map(|(sid, side)| (sid.as_str(), *side)).collect();
        assert_eq!(found, expected);
    }
}

#[test]
fn a_media_source_waits_for_what_it_names_and_ends_with_the_room() {
    let source = Source::Media {
        video: Some(MediaVideo::Camera("b".to_owned())),
        audio: vec![route(AudioMatch::Track("TR_2".to_owned()), StereoSide::Left)],
        other_audio: false,
    };
    let mut never = model(source.clone());
    let changes = never.joined(&me(), &[], ms(0));
    assert_eq!(changes, [RoomChange::Waiting("waiting for participant b and track TR_2".to_owned())]);
    // One of the two was there, and has left again.
    never.update(&[participant("PA_b", 1, &[])], ms(10));
    never.update(&[gone("PA_b")], ms(20));
    let missing = MediaEndReason::Failed { code: "not_found".to_owned(), message: "track TR_2 not found".to_owned() };
    assert_eq!(over(&never.tick(ms(29_999))), None);
    assert_eq!(over(&never.tick(ms(30_000))), Some(&missing));

    let mut model = model(source);
    let room = [participant("PA_a", 1, &[microphone("TR_2")]), participant("PA_b", 1, &[camera("TR_1")])];
    assert_eq!(subscribed(&model.joined(&me(), &room, ms(0))), ["TR_2", "TR_1"]);
    let changes = model.update(&[gone("PA_a"), gone("PA_b")], ms(20));
    assert!(changes.contains(&RoomChange::Left { sid: "TR_1".to_owned() }));
    assert_eq!((over(&changes), over(&model.tick(ms(60_000)))), (None, None));
    // The camera under another sid is the same choice, the named microphone is not.
    let room = [participant("PA_b", 100, &[camera("TR_7"), microphone("TR_8")])];
    assert_eq!(subscribed(&model.update(&room, ms(70_000))), ["TR_7"]);
}

#[test]
fn a_named_track_of_a_media_source_must_be_what_it_was_named_as() {
    let of = |video: Option<MediaVideo>, audio: Vec<AudioRoute>| {
        let mut model = model(Source::Media { video, audio, other_audio: false });
        let changes = model.joined(&me(), &[participant("PA_a", 1, &[camera("TR_1"), microphone("TR_2")])], ms(0));
        match over(&changes) {
            Some(MediaEndReason::Failed { code, message }) => format!("{code}: {message}"),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(
        of(Some(MediaVideo::Track("TR_2".to_owned())), vec![]),
        "invalid_argument: track TR_2 is audio, but was named as the video track"
    );
    assert_eq!(
        of(None, vec![route(AudioMatch::Track("TR_1".to_owned()), StereoSide::Both)]),
        "invalid_argument: track TR_1 is video, but was named as the audio track"
    );
}

#[test]
fn only_a_track_that_is_named_ends_a_media_source_when_it_cannot_be_recorded() {
    let mut model = model(Source::Media {
        video: Some(MediaVideo::Camera("a".to_owned())),
        audio: vec![route(AudioMatch::Track("TR_2".to_owned()), StereoSide::Both)],
        other_audio: false,
    });
    model.joined(&me(), &[participant("PA_a", 1, &[camera("TR_1"), microphone("TR_2")])], ms(0));
    assert!(matches!(model.refused("TR_1", "codec").as_slice(), [RoomChange::Noted(_)]));
    assert!(over(&model.refused("TR_2", "codec")).is_some());
}

#[test]
fn after_a_rejoin_a_track_keeps_the_side_of_its_route() {
    let mut model = model(Source::Media {
        video: None,
        audio: vec![route(AudioMatch::Track("TR_1".to_owned()), StereoSide::Right)],
        other_audio: true,
    });
    model.joined(&me(), &[participant("PA_a", 1, &[microphone("TR_1")])], ms(0));
    let returned = ParticipantInfo { identity: "a".to_owned(), ..participant("PA_a2", 1, &[microphone("TR_9")]) };
    assert_eq!(subscribed(&model.rejoined(&me(), &[returned], false, ms(5000))), ["TR_9"]);
    assert_eq!(sides(&model), [("TR_9".to_owned(), StereoSide::Right)]);
}

#[test]
fn a_room_is_recorded_up_to_a_bound_and_the_rest_follows() {
    let mut model = model(Source::Room);
    let tracks: Vec<TrackInfo> = (0..choice::MAX_TRACKS + 2).map(|n| microphone(&format!("TR_{n:04}"))).collect();
    let noted = |changes: &[RoomChange]| changes.iter().filter(|change| matches!(change, RoomChange::Noted(_))).count();
    let changes = model.joined(&me(), &[participant("PA_a", 1, &tracks)], ms(0));
    assert_eq!((subscribed(&changes).len(), noted(&changes)), (choice::MAX_TRACKS, 1));
    let changes = model.update(&[participant("PA_a", 2, &tracks[1..])], ms(100));
    assert_eq!((subscribed(&changes).len(), noted(&changes)), (1, 0));
}
