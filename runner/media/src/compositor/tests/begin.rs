//! Where a recording begins.

use super::*;

#[test]
fn a_room_without_a_picture_starts_with_its_sound_and_waits_for_a_live_camera() {
    let speaks = sound(Codec::Opus, 3);
    let microphone = track(2, Codec::Opus, "ann", TrackSource::Microphone);
    let script = TestScript::default().joins(ms(200), microphone.clone()).sends(2, &speaks, ms(1000), ms(3000));
    let made = make(options(tiles(LayoutShape::Grid)), script.ticking(ms(20), ms(3000)), ms(3000));
    assert_eq!(made.start(), ms(1000));
    assert_eq!(made.pictures.buffers.len(), 60);
    assert!(made.middle().iter().all(|luma| *luma == 16));

    let camera = video(Codec::H264, (160, 90), 30, 3, 60);
    let script = TestScript::default()
        .joins(ms(200), microphone)
        .joins(ms(200), track(1, Codec::H264, "ann", TrackSource::Camera))
        .sends(2, &speaks, ms(400), ms(3000))
        .sends(1, &camera, ms(2000), ms(3000));
    let made = make(options(tiles(LayoutShape::Grid)), script.ticking(ms(20), ms(3000)), ms(3000));
    assert_eq!(made.start(), ms(2000));
    assert_eq!((made.pictures.buffers.len(), made.left().len()), (30, 48_000));
}

#[test]
fn the_first_picture_of_a_file_is_a_real_one_when_a_video_is_published() {
    let speaks = sound(Codec::Opus, 4);
    let (microphone, camera) =
        (track(2, Codec::Opus, "ann", TrackSource::Microphone), track(1, Codec::H264, "ann", TrackSource::Camera));
    let clip = video(Codec::H264, (320, 180), 30, 4, 60);
    // The microphone is heard at once, the camera's next key frame is three seconds away.
    let script = |muted| {
        TestScript::default()
            .publishes(ms(0), &camera, muted)
            .joins(ms(0), microphone.clone())
            .sends(2, &speaks, ms(0), ms(4000))
            .joins(ms(3000), camera.clone())
            .sends(1, &clip, ms(3000), ms(4000))
            .ticking(ms(20), ms(4000))
    };
    for (arrangement, start) in
        [(tiles(LayoutShape::Grid), StartRule::Composite), (Arrangement::Single, StartRule::FirstMedium)]
    {
        let with = |muted| make(CompositorOptions { start, ..options(arrangement) }, script(muted), ms(4000));
        let made = with(false);
        assert_eq!(made.start(), ms(3000), "{start:?}");
        assert_eq!((made.pictures.buffers.len(), made.left().len()), (30, 48_000));
        assert!(near(made.middle()[0], WHITE), "{:?}", made.middle());
        assert!(onsets(&made.left())[0] < 24, "the sound of the same moment");
        let made = with(true);
        assert_eq!((made.start(), made.middle()[0]), (ms(0), 16), "a muted camera is not waited for");
    }
}

#[test]
fn a_published_video_that_never_comes_does_not_keep_a_recording_from_its_start() {
    let speaks = sound(Codec::Opus, 7);
    let script = TestScript::default()
        .publishes(ms(0), &track(1, Codec::H264, "ann", TrackSource::Camera), false)
        .joins(ms(0), track(2, Codec::Opus, "ann", TrackSource::Microphone))
        .sends(2, &speaks, ms(0), ms(7000))
        .ticking(ms(20), ms(7000));
    let run = TestRun::new(options(tiles(LayoutShape::Grid)), Duration::ZERO, usize::MAX);
    script.into_iter().for_each(|timed| run.compositor.take(timed));
    let started = run.events.recv_timeout(TIMEOUT).unwrap();
    assert_eq!(started, CompositorEvent::Started { at: ms(0) }, "before its end is told, and no sound is lost");
    run.compositor.end_at(ms(7000));
    assert_eq!(run.finish().left().len(), 7 * 48_000);
}
