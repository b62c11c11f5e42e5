//! What is seen: who has a tile, which picture of it, and how it is drawn.

use super::*;
use crate::key_grid::KeyGrid;

#[test]
fn a_room_shows_who_is_there_from_the_exact_picture_on() {
    let (script, end) = busy_room(5);
    let made = make(options(tiles(LayoutShape::Grid)), script.ticking(ms(20), end), end);
    assert_eq!(made.pictures.buffers.len(), 150);
    let at = |millis: usize, x, y| made.luma(millis * 30 / 1000, x, y);
    // Alone: the whole frame. Picture 30 is the first of the second participant.
    assert!(near(made.luma(29, 300, 90), 40));
    assert!(near(made.luma(35, 80, 90), 40) && near(made.luma(35, 240, 90), 80), "two side by side");
    // A screen share is shown large; the two others stand in the carousel.
    assert!(near(at(2400, 200, 90), 120) && near(at(2400, 20, 10), 40));
    assert!(near(at(2400, 20, 45), 80));
    // ann stalls: her last picture is held. bob is muted at 3.0 exactly.
    assert!(near(made.luma(89, 20, 45), 80) && near(made.luma(90, 20, 45), 16));
    assert!(near(at(3700, 160, 90), 40), "alone again after the screen share left");
    // From the exact picture the speaker layout is asked for, ann is shown large.
    assert!(near(made.luma(125, 80, 90), 40) && near(made.luma(125, 240, 90), 80));
    assert!(near(made.luma(126, 240, 90), 40) && near(made.luma(126, 20, 10), 80));
    assert!(near(at(4650, 20, 10), 40), "bob left");
    // Her microphone was muted in between: the beeps are those she sent. (At 3.0 s before, at 4.0 s after the mute.)
    let beeps = onsets(&made.left());
    assert_eq!(beeps.len(), 5, "{beeps:?}");
}

#[test]
fn a_picture_is_shown_at_the_output_time_nearest_to_it() {
    let by = |offset: u64| -> Vec<(u64, bool, Bytes)> {
        let clip = video(Codec::H264, (160, 90), 30, 3, 60);
        clip.into_iter().map(|(at, key, data)| (at + offset * MS, key, data)).collect()
    };
    // The output begins with ann's first picture: hers are exact. bob's come 10 ms after hers, eve's 20 ms after them.
    let script = ["ann", "bob", "eve"].iter().zip([0, 10, 20]).zip(1..).fold(
        TestScript::default(),
        |script, ((identity, offset), id)| {
            script.joins(ms(0), track(id, Codec::H264, identity, TrackSource::Camera)).sends(
                id,
                &by(offset),
                ms(0),
                ms(3000),
            )
        },
    );
    let made = make(options(tiles(LayoutShape::Grid)), script.ticking(ms(20), ms(3000)), ms(3000));
    assert_eq!(made.start(), ms(0));
    let flashes = |x, y| (20..89usize).filter(|n| near(made.luma(*n, x, y), WHITE)).collect::<Vec<_>>();
    assert_eq!(flashes(80, 45), [30, 31, 60, 61]);
    assert_eq!(flashes(240, 45), [30, 31, 60, 61]);
    assert_eq!(flashes(80, 135), [31, 32, 61, 62]);
}

#[test]
fn a_resolution_that_changes_is_only_another_picture() {
    for codec in [Codec::H264, Codec::Vp8] {
        let (small, large) = (video(codec, (160, 90), 30, 2, 60), video(codec, (640, 360), 30, 2, 100));
        let script = TestScript::default()
            .joins(ms(0), track(1, codec, "ann", TrackSource::Camera))
            .sends(1, &small, ms(0), ms(1000))
            .sends(1, &large, ms(1000), ms(2000));
        let made = make(options(Arrangement::Single), script.ticking(ms(20), ms(2000)), ms(2000));
        let middle = made.middle();
        assert!(near(middle[29], 60) && near(middle[30], WHITE) && near(middle[59], 100), "{codec:?}: {middle:?}");
        assert_eq!(made.stats.broken_frames, 0);
    }
}

#[test]
fn an_unmuted_video_is_shown_and_another_live_one_when_it_goes() {
    let (ann, share) = (video(Codec::Vp8, (160, 90), 30, 3, 60), video(Codec::Vp8, (160, 90), 30, 3, 100));
    let script = TestScript::default()
        .joins(ms(0), track(1, Codec::Vp8, "ann", TrackSource::Camera))
        .joins(ms(900), track(2, Codec::Vp8, "ann", TrackSource::Unknown))
        .sends(1, &ann, ms(0), ms(3000))
        .sends(2, &share, ms(1000), ms(2000))
        .mutes(ms(2000), 2);
    let made = make(options(Arrangement::Single), script.ticking(ms(20), ms(3000)), ms(3000));
    let middle = made.middle();
    assert!(near(middle[29], 60) && near(middle[40], 100) && near(middle[59], 100), "{middle:?}");
    assert!(near(middle[65], 60), "livekit/egress would be black from here on: {middle:?}");
}

#[test]
fn a_camera_that_stands_still_keeps_its_last_picture_until_it_is_muted_or_leaves() {
    let ann = video(Codec::Vp8, (320, 180), 30, 1, 60);
    let script = TestScript::default().joins(ms(0), track(1, Codec::Vp8, "ann", TrackSource::Camera)).sends(
        1,
        &ann,
        ms(0),
        ms(1000),
    );
    let script = script.mutes(ms(25_000), 1);
    let made = make(options(Arrangement::Single), script.ticking(ms(20), ms(26_000)), ms(26_000));
    let middle = made.middle();
    assert!(middle[29..749].iter().all(|luma| near(*luma, 60)), "{middle:?}");
    assert!(middle[751..].iter().all(|luma| near(*luma, 16)), "{middle:?}");
    assert!((23_900 * MS..24_100 * MS).contains(&made.stats.longest_freeze_ns), "{:?}", made.stats);
    assert_eq!(made.stats.distinct_frames, 31, "thirty, and the one without the tile");
}

#[test]
fn a_repeat_is_the_picture_before_it_and_no_line_of_the_key_grid_is_one() {
    let (script, end) = busy_room(5);
    let grid = Some(KeyGrid::new(1000 * MS, 1000 * MS));
    let mut options = options(tiles(LayoutShape::Grid));
    options.picture = options.picture.map(|picture| VideoMixerOptions { key_grid: grid, ..picture });
    let made = make(options, script.ticking(ms(20), end), end);
    let Caught { buffers, repeats, .. } = &made.pictures;
    assert_eq!((buffers.len(), repeats.len(), made.stats.pictures), (150, 150, 150), "all are made");
    for n in (1..150).filter(|n| repeats[*n]) {
        assert!(buffers[n].2 == buffers[n - 1].2, "picture {n} is another one");
    }
    assert!((0..5).all(|second| !repeats[second * 30]), "{repeats:?}");
    // Pictures of one colour that flash: between the flashes all are equal, and sent 30 times a second.
    let marked = repeats.iter().filter(|repeat| **repeat).count();
    assert!(marked >= 20, "{marked}: {repeats:?}");
    // What the sources send: half a second nobody sends, and in the half before 15 pictures a second come.
    assert!((125..=133).contains(&made.stats.distinct_frames), "{:?}", made.stats);
}

#[test]
fn an_upright_camera_is_seen_whole_also_when_it_is_turned_while_recording() {
    let (lying, upright) = (video(Codec::Vp8, (320, 180), 30, 2, 60), video(Codec::Vp8, (96, 160), 30, 2, 100));
    for (arrangement, shape) in [
        (tiles(LayoutShape::Grid), "grid"),
        (tiles(LayoutShape::Speaker), "speaker"),
        (tiles(LayoutShape::SingleSpeaker), "single-speaker"),
    ] {
        let script = TestScript::default()
            .joins(ms(0), track(1, Codec::Vp8, "ann", TrackSource::Camera))
            .sends(1, &lying, ms(0), ms(1000))
            .sends(1, &upright, ms(1000), ms(2000));
        let made = make(options(arrangement), script.ticking(ms(20), ms(2000)), ms(2000));
        // Lying: to both edges. Upright: 108 of 320 columns in the middle, and all lines.
        assert!([10, 160, 310].iter().all(|x| near(made.luma(20, *x, 90), 60)), "{shape}");
        for (x, wanted) in [(10, 16), (100, 16), (112, 100), (160, 100), (208, 100), (220, 16), (310, 16)] {
            for y in [2, 90, 177] {
                let luma = made.luma(50, x, y);
                assert!(near(luma, wanted), "{shape} at {x},{y}: {luma}");
            }
        }
    }
}

#[test]
fn a_camera_with_a_picture_in_three_seconds_does_not_freeze_and_a_stalled_one_does() {
    let clip = video(Codec::Vp8, (320, 180), 30, 20, 60);
    // Key frames stand at whole seconds.
    let freeze = |seconds: &[u64]| {
        let frames: Vec<_> = clip
            .iter()
            .filter(|(at, ..)| seconds.contains(&(at / 1_000_000_000)) && at.is_multiple_of(1_000_000_000))
            .cloned()
            .collect();
        let script = TestScript::default().joins(ms(0), track(1, Codec::Vp8, "ann", TrackSource::Camera)).sends(
            1,
            &frames,
            ms(0),
            ms(20_000),
        );
        let made = make(options(tiles(LayoutShape::Grid)), script.ticking(ms(100), ms(20_000)), ms(20_000));
        made.stats.longest_freeze_ns / MS
    };
    assert!(freeze(&[0, 3, 6, 9, 12, 15, 18]) <= 1000);
    assert!((8900..9100).contains(&freeze(&[0, 1, 2, 3, 4, 13, 14, 15, 16, 17, 18, 19])));
}

#[test]
fn who_has_no_place_is_not_asked_for_and_comes_back_by_speaking() {
    let luma = |id: u32| 30 + 25 * id as u8;
    let script = (1..=6).fold(TestScript::default(), |script, id| {
        let clip = video(Codec::Vp8, (160, 90), 10, 10, luma(id));
        // The server does as it is asked.
        let until = if id >= 5 { 5500 } else { 10_000 };
        let joined = script.joins(ms(0), track(id, Codec::Vp8, &format!("p{id}"), TrackSource::Camera));
        joined.sends(id, &clip, ms(0), ms(until))
    });
    let script = script.say(ms(9000), TimelineEvent::Speakers { at: ms(9000), identities: vec!["p6".to_owned()] });
    let made = make(options(tiles(LayoutShape::Speaker)), script.ticking(ms(20), ms(10_000)), ms(10_000));
    let asked: Vec<LayerRequest> = made
        .events
        .iter()
        .filter_map(|event| match event {
            CompositorEvent::LayerRequest(request @ (LayerRequest::Prefer { .. } | LayerRequest::Pause { .. })) => {
                Some(*request)
            }
            _ => None,
        })
        .collect();
    let paused: Vec<TrackId> = asked
        .iter()
        .filter_map(|request| match request {
            LayerRequest::Pause { track } => Some(*track),
            _ => None,
        })
        .collect();
    assert_eq!(paused, [TrackId(5), TrackId(6)], "{asked:?}");
    let shown_large =
        |request: &LayerRequest| matches!(request, LayerRequest::Prefer { track: TrackId(6), width: 200..=300, .. });
    assert!(asked.iter().any(shown_large), "{asked:?}");
    let stage = |ms: usize| made.luma(ms * 30 / 1000, 200, 90);
    assert!(near(stage(8900), luma(1)));
    // Its last picture stands until a newer one is there.
    assert!(near(stage(9500), luma(6)), "{}", stage(9500));
}
