//! Where recordings begin, by what is known of the room.

use super::*;

const CAMERA: TrackId = TrackId(1);
const MICROPHONE: TrackId = TrackId(2);
const BOTH: [StartRule; 2] = [StartRule::Composite, StartRule::FirstMedium];

fn at(ms: u64) -> MediaTime {
    MediaTime::from_ns(ms * MS)
}

fn candidate(prelude: &Prelude, rule: StartRule) -> Candidate {
    prelude.candidate(rule, true, at(20_000)).unwrap()
}

/// A microphone that is heard from `ms` on.
fn heard(ms: u64) -> Prelude {
    let mut prelude = Prelude::default();
    prelude.joined(MICROPHONE, "TR_a", false, at(ms));
    prelude.frame(MICROPHONE, false, at(ms));
    prelude
}

#[test]
fn an_empty_room_never_starts() {
    assert_eq!(Prelude::default().candidate(StartRule::Composite, true, at(60_000)), None);
}

#[test]
fn without_a_published_video_a_moment_of_sound_decides() {
    let prelude = heard(200);
    assert_eq!(
        candidate(&prelude, StartRule::Composite),
        Candidate { at: at(200), picture_before: at(700) },
        "and the half second is not lost"
    );
    assert_eq!(candidate(&prelude, StartRule::FirstMedium), Candidate { at: at(200), picture_before: at(1200) });
}

#[test]
fn a_video_that_sends_is_waited_for_up_to_five_seconds() {
    let mut prelude = heard(0);
    prelude.joined(CAMERA, "TR_v", true, at(0));
    for rule in BOTH {
        assert_eq!(candidate(&prelude, rule), Candidate { at: at(0), picture_before: at(5000) });
    }
}

#[test]
fn a_published_video_is_waited_for_before_its_first_frame() {
    for (published, muted, composite, single) in [
        (at(0), false, 5000, 5000),
        (at(400), false, 5000, 5000),
        // Published when the recording has begun.
        (at(900), false, 500, 5000),
        (at(1100), false, 500, 1000),
        (at(0), true, 500, 1000),
    ] {
        let mut prelude = heard(0);
        prelude.published("TR_v", true, muted, published);
        for (rule, before) in BOTH.into_iter().zip([composite, single]) {
            let expected = Candidate { at: at(0), picture_before: at(before) };
            assert_eq!(candidate(&prelude, rule), expected, "{published:?} muted={muted} {rule:?}");
        }
    }
    let mut prelude = heard(0);
    prelude.published("TR_b", false, false, at(0));
    assert_eq!(candidate(&prelude, StartRule::Composite).picture_before, at(500), "another microphone is no video");
}

#[test]
fn the_wait_ends_when_the_publication_does() {
    let over: [fn(&mut Prelude); 2] =
        [|prelude| prelude.unpublished("TR_v", at(2000)), |prelude| prelude.published("TR_v", true, true, at(2000))];
    for over in over {
        let mut prelude = heard(0);
        prelude.published("TR_v", true, false, at(0));
        over(&mut prelude);
        for rule in BOTH {
            assert_eq!(candidate(&prelude, rule), Candidate { at: at(0), picture_before: at(2000) });
        }
    }
    let mut prelude = heard(0);
    prelude.published("TR_v", true, false, at(0));
    prelude.joined(CAMERA, "TR_v", true, at(1500));
    prelude.gone(CAMERA, at(2000));
    assert_eq!(candidate(&prelude, StartRule::Composite).picture_before, at(2000), "its stay goes on as the track's");
}

#[test]
fn an_unmuted_video_is_waited_for_from_its_unmute_on() {
    let mut prelude = heard(0);
    prelude.published("TR_v", true, true, at(0));
    prelude.published("TR_v", true, false, at(300));
    assert_eq!(candidate(&prelude, StartRule::Composite).picture_before, at(5000));
}

#[test]
fn a_camera_that_was_muted_before_the_start_is_waited_for_again() {
    let mut prelude = heard(0);
    prelude.published("TR_v", true, false, at(0));
    prelude.joined(CAMERA, "TR_v", true, at(100));
    prelude.published("TR_v", true, true, at(200));
    prelude.gone(CAMERA, at(250));
    prelude.published("TR_v", true, false, at(450));
    assert_eq!(candidate(&prelude, StartRule::Composite).picture_before, at(5000));
    prelude.gone(CAMERA, at(3000));
    assert_eq!(candidate(&prelude, StartRule::Composite).picture_before, at(3000));
    prelude.frame(CAMERA, true, at(2990));
    assert_eq!(candidate(&prelude, StartRule::Composite).picture_before, at(3000), "sent before it went");
    prelude.frame(CAMERA, true, at(3000));
    assert_eq!(candidate(&prelude, StartRule::Composite).picture_before, at(5000));
}

#[test]
fn one_of_two_videos_is_reason_enough_to_wait() {
    let mut prelude = heard(0);
    prelude.published("TR_v", true, false, at(0));
    prelude.published("TR_w", true, false, at(0));
    prelude.unpublished("TR_v", at(1000));
    assert_eq!(candidate(&prelude, StartRule::Composite).picture_before, at(5000));
    prelude.published("TR_w", true, true, at(3000));
    assert_eq!(candidate(&prelude, StartRule::Composite).picture_before, at(3000));
}

#[test]
fn what_is_not_known_yet_is_not_decided() {
    let mut prelude = heard(0);
    prelude.published("TR_v", true, false, at(0));
    let before = |known| prelude.candidate(StartRule::Composite, true, at(known)).unwrap().picture_before;
    assert!([0, 600, 3000, 4999].into_iter().all(|known| before(known) > at(known)));
    assert_eq!(before(5000), at(5000), "then it begins anyway");
}

#[test]
fn a_muted_camera_is_not_waited_for() {
    let mut prelude = heard(300);
    prelude.joined(CAMERA, "TR_v", true, at(0));
    prelude.gone(CAMERA, at(0));
    assert_eq!(candidate(&prelude, StartRule::Composite).picture_before, at(800));
}

#[test]
fn participants_without_anything_start_it_after_five_seconds() {
    let joins: [fn(&mut Prelude); 2] = [
        |prelude| prelude.joined(CAMERA, "TR_v", true, at(1000)),
        |prelude| prelude.published("TR_v", true, true, at(1000)),
    ];
    for joins in joins {
        let mut prelude = Prelude::default();
        joins(&mut prelude);
        assert_eq!(candidate(&prelude, StartRule::Composite), Candidate { at: at(6000), picture_before: at(6000) });
    }
}

#[test]
fn a_start_decided_elsewhere_is_obeyed_even_in_an_empty_room() {
    let rule = StartRule::At(at(700));
    assert_eq!(candidate(&Prelude::default(), rule), Candidate { at: at(700), picture_before: at(700) });
}

#[test]
fn audio_only_starts_at_its_first_sound() {
    let candidate = heard(300).candidate(StartRule::Composite, false, at(400)).unwrap();
    assert_eq!(candidate, Candidate { at: at(300), picture_before: at(300) });
}
