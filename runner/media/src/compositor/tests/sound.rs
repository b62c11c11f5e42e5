//! What is heard.

use super::*;

#[test]
fn agents_are_heard_left_and_everybody_else_right() {
    let speaks = sound(Codec::Opus, 2);
    let agent = Track { agent: true, ..track(2, Codec::Opus, "bot", TrackSource::Microphone) };
    let script = TestScript::default()
        .joins(ms(0), track(1, Codec::Opus, "ann", TrackSource::Microphone))
        .joins(ms(0), agent)
        .sends(1, &speaks, ms(0), ms(1900))
        .sends(2, &speaks, ms(500), ms(2000));
    let sound = Some(AudioMixerOptions { mixing: Mixing::AgentsLeft, lead: 0 });
    let made = make(
        CompositorOptions { picture: None, sound, ..options(Arrangement::Single) },
        script.ticking(ms(20), ms(2000)),
        ms(2000),
    );
    assert_eq!(onsets(&made.left()).len(), 1, "the agent's only beep");
}

#[test]
fn a_track_is_heard_on_the_side_of_its_route() {
    let speaks = sound(Codec::Opus, 2);
    let on = |id, side| Track { side, ..track(id, Codec::Opus, "ann", TrackSource::Microphone) };
    let script = TestScript::default()
        .joins(ms(0), on(1, StereoSide::Left))
        .joins(ms(0), on(2, StereoSide::Right))
        .sends(1, &speaks, ms(0), ms(2000))
        .sends(2, &speaks, ms(500), ms(2000));
    let sound = Some(AudioMixerOptions { mixing: Mixing::Routed, lead: 0 });
    let made = make(
        CompositorOptions { picture: None, sound, ..options(Arrangement::Single) },
        script.ticking(ms(20), ms(2000)),
        ms(2000),
    );
    let (left, right) = (onsets(&made.left()), onsets(&made.right()));
    // A beep each second; of the track on the right the first is not sent.
    assert_eq!((left.len(), right.len()), (2, 1), "{left:?} {right:?}");
}

#[test]
fn the_encoders_delay_is_taken_out() {
    let lead = encoder_delay(spillway_plan::AudioCodec::Aac, 48_000);
    assert_eq!(lead, 1024);
    let with = |lead| {
        let sound = Some(AudioMixerOptions { mixing: Mixing::Both, lead });
        let script = one_of_each(Codec::Vp8, 2).ticking(ms(20), ms(2000));
        make(CompositorOptions { sound, ..options(Arrangement::Single) }, script, ms(2000)).left()
    };
    let (plain, led) = (with(0), with(lead));
    assert_eq!(plain.len(), led.len());
    let (plain, led) = (onsets(&plain), onsets(&led));
    assert_eq!(plain[1] - led[1], 1024);
}
