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

/// A word each second that begins with a beep, in a room that is not quite silent, and what DTX sends between them.
fn speech(update: impl Fn(u8) -> Option<Vec<u8>>) -> Vec<(u64, bool, Bytes)> {
    let (second, rate) = (50, 48_000);
    let raw = (0..4 * second).map(|number| {
        (number * 960..(number + 1) * 960)
            .flat_map(|sample| {
                let tone = |hertz: f64| (sample as f64 / rate as f64 * hertz * std::f64::consts::TAU).sin();
                let beep = if sample % rate < rate / 25 { tone(900.0) * 4900.0 } else { 0.0 };
                let value = (beep + tone(220.0) * 650.0) as i16;
                value.to_le_bytes()
            })
            .collect::<Vec<u8>>()
    });
    let caps = "audio/x-raw,format=S16LE,layout=interleaved,rate=48000,channels=1";
    let all = media::encoded(caps, "opusenc frame-size=20 bitrate=64000", raw);
    let mut packets = Vec::new();
    for (number, (key, data)) in all.into_iter().take(4 * second).enumerate() {
        let at = number as u64 * 20_000_000;
        match number % second {
            0..12 => packets.push((at, key, data)),
            32 => packets.extend(update(data[0]).map(|update| (at, key, Bytes::from(update)))),
            _ => {}
        }
    }
    packets
}

#[test]
fn packets_of_dtx_do_not_lower_the_next_word() {
    let loudest =
        |packets: &[(u64, bool, Bytes)]| {
            let script = TestScript::default()
                .joins(ms(0), track(1, Codec::Opus, "ann", TrackSource::Microphone))
                .sends(1, packets, ms(0), ms(4000));
            let sound = Some(AudioMixerOptions { mixing: Mixing::Both, lead: 0 });
            let made = make(
                CompositorOptions { picture: None, sound, ..options(Arrangement::Single) },
                script.ticking(ms(20), ms(4000)),
                ms(4000),
            );
            let left = made.left();
            let peak =
                |from: usize, to: usize| left[from..to].iter().fold(0.0f32, |peak, sample| peak.max(sample.abs()));
            // The second and the third word, and where the decoder might invent something.
            [peak(47_500, 51_000), peak(95_500, 99_000), peak(60_000, 90_000)]
        };
    let plain = loudest(&speech(|_| None));
    assert!(plain[0] > 0.12 && plain[1] > 0.12, "{plain:?}");
    for update in [|toc: u8| vec![toc & 0xfc], |toc: u8| vec![toc & 0xfc | 3, 1], |toc: u8| vec![toc & 0xfc | 2, 0]] {
        let with = loudest(&speech(|toc| Some(update(toc))));
        assert_eq!(with, plain);
    }
}
