//! Every codec, and what a decoder does not understand.

use super::media::with_b_frames;
use super::*;
use crate::track::Frame;

#[test]
fn every_codec_is_decoded() {
    for codec in [Codec::Vp9, Codec::Av1, Codec::H265] {
        let frames = video(codec, (160, 90), 30, 1, 60);
        let script = TestScript::default().joins(ms(0), track(1, codec, "ann", TrackSource::Camera)).sends(
            1,
            &frames,
            ms(0),
            ms(1000),
        );
        let made = make(options(Arrangement::Single), script.ticking(ms(20), ms(1000)), ms(1000));
        let middle = made.middle();
        assert!(near(middle[0], WHITE) && near(middle[29], 60), "{codec:?}: {middle:?}");
    }
    for codec in [Codec::Pcmu, Codec::Pcma] {
        let script = TestScript::default().joins(ms(0), track(1, codec, "ann", TrackSource::Microphone)).sends(
            1,
            &sound(codec, 3),
            ms(0),
            ms(3000),
        );
        let made = make(
            CompositorOptions { picture: None, ..options(Arrangement::Single) },
            script.ticking(ms(20), ms(3000)),
            ms(3000),
        );
        let beeps = onsets(&made.left());
        assert_eq!(beeps.len(), 3, "{codec:?}: {beeps:?}");
        assert!(beeps.iter().enumerate().all(|(n, beep)| beep.abs_diff(n * 48_000) < 240), "{codec:?}: {beeps:?}");
    }
}

#[test]
fn a_broken_track_costs_its_own_tile_and_asks_for_a_key_frame() {
    let good = video(Codec::Vp8, (160, 90), 30, 3, 60);
    let mut bad = video(Codec::Vp8, (160, 90), 30, 3, 100);
    for (n, (_, key, data)) in bad.iter_mut().enumerate() {
        if (40..50).contains(&n) {
            *key = n == 40;
            *data = Bytes::from(vec![(n * 37 % 251) as u8 & !1; 300]);
        }
    }
    let script = TestScript::default()
        .joins(ms(0), track(1, Codec::Vp8, "ann", TrackSource::Camera))
        .joins(ms(0), track(2, Codec::Vp8, "bob", TrackSource::Camera))
        .sends(1, &good, ms(0), ms(3000))
        .sends(2, &bad, ms(0), ms(3000));
    let made = make(options(tiles(LayoutShape::Grid)), script.ticking(ms(20), ms(3000)), ms(3000));
    assert_eq!(made.pictures.buffers.len(), 90);
    assert!((0..90).all(|n| near(made.luma(n, 80, 90), if n % 30 < 2 { WHITE } else { 60 })));
    assert!(near(made.luma(89, 240, 90), 100), "decoded again after the next key frame");
    assert!(
        made.events.contains(&CompositorEvent::LayerRequest(LayerRequest::KeyFrame { track: TrackId(2) })),
        "{:?}",
        made.events
    );
    assert!(made.stats.broken_frames > 0);
}

/// Before, every picture that is decoded ahead of its B frames was left out.
#[test]
fn b_frames_are_shown_in_their_order() {
    let luma: Vec<u8> = (0..90).map(|n| [50, 110, 170][n % 3]).collect();
    let frames = with_b_frames(&luma);
    let shown = |n: u64| n * 1_000_000_000 / 30;
    assert!(!frames.is_sorted_by_key(|(n, ..)| *n), "x264 makes B frames here");
    let mut script = TestScript::default().joins(ms(0), track(1, Codec::H264, "ann", TrackSource::Camera));
    let mut newest = None;
    for (index, (n, key, data)) in frames.iter().enumerate() {
        // As the timeline places them; the watermark waits for what is shown earlier.
        let at = newest.map_or(shown(*n), |newest: u64| shown(*n).max(newest + MS));
        newest = Some(at);
        let said = frames[index..].iter().map(|(n, ..)| shown(*n)).min().unwrap();
        let offset_ns = shown(*n) as i64 - at as i64;
        let (track, at, data) = (TrackId(1), MediaTime::from_ns(at), data.clone());
        let frame = Frame { track, at, offset_ns, key: *key, size: None, data };
        script = script.say(MediaTime::from_ns(said), TimelineEvent::Frame(frame));
    }
    let made = make(options(Arrangement::Single), script.ticking(ms(20), ms(3000)), ms(3000));
    // Before the first B frame nobody knows of them, and the last pictures stay in the decoder.
    for (n, shown) in made.middle().into_iter().enumerate().take(84).skip(9) {
        assert!(near(shown, luma[n]), "picture {n}: {shown} instead of {}", luma[n]);
    }
}
