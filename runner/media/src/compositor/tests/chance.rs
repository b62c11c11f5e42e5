//! Random sessions: tracks join, mute, leave, come back, stall or speak at any moment, with any watermark, and the
//! compositor comes to its end with every picture and every sample, and makes the same of it twice.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Deed {
    Join(u32),
    Leave(u32),
    Mute(u32),
    Speak(u32),
    Layout(&'static str),
}

fn deeds() -> impl Strategy<Value = Vec<(u64, Deed)>> {
    let deed = prop_oneof![
        4 => (0u32..6).prop_map(Deed::Join),
        1 => (0u32..6).prop_map(Deed::Leave),
        2 => (0u32..6).prop_map(Deed::Mute),
        1 => (0u32..6).prop_map(Deed::Speak),
        1 => prop_oneof![Just("grid"), Just("speaker-light"), Just("single-speaker"), Just("nonsense")].prop_map(Deed::Layout),
    ];
    prop::collection::vec((0u64..2000, deed), 1..25)
}

/// Tracks 0–3 are videos (one of them a screen share), 4 and 5 microphones. A track in the room that was muted or
/// came back sends again from its next key frame on.
fn script(deeds: &[(u64, Deed)], clips: &[Vec<(u64, bool, Bytes)>]) -> TestScript {
    let mut script = TestScript::default();
    let mut deeds = deeds.to_vec();
    deeds.sort_by_key(|(at, _)| *at);
    for id in 0..6u32 {
        let codec = [Codec::Vp8, Codec::H264, Codec::Vp8, Codec::H264, Codec::Opus, Codec::Opus][id as usize];
        let origin = if id == 3 { TrackSource::ScreenShare } else { TrackSource::Camera };
        let mut joined = false;
        let mut sends_from = None;
        let own: Vec<_> = deeds
            .iter()
            .filter(|(_, deed)| matches!(deed, Deed::Join(x) | Deed::Leave(x) | Deed::Mute(x) if *x == id))
            .collect();
        for (n, (at, deed)) in own.iter().enumerate() {
            let until = own.get(n + 1).map_or(2000, |(next, _)| *next);
            match deed {
                Deed::Join(_) => {
                    script = script.joins(ms(*at), track(id, codec, &format!("p{id}"), origin));
                    joined = true;
                }
                Deed::Leave(_) if joined => {
                    script = script.leaves(ms(*at), id);
                    joined = false;
                }
                Deed::Mute(_) if joined => script = script.mutes(ms(*at), id),
                _ => {}
            }
            sends_from = joined.then_some(*at).or(sends_from);
            if joined {
                let clip = &clips[id as usize];
                let key =
                    clip.iter().find(|(time, key, _)| *key && *time >= at * MS).map_or(u64::MAX, |(time, ..)| *time);
                script = script.sends(id, clip, MediaTime::from_ns(key), ms(until));
            }
        }
    }
    for (at, deed) in &deeds {
        script = match deed {
            Deed::Layout(name) => script.layout(ms(*at), name),
            Deed::Speak(who) => {
                let said = TimelineEvent::Speakers { at: ms(*at), identities: vec![format!("p{who}")] };
                script.say(ms(*at), said)
            }
            _ => script,
        };
    }
    script
}

#[test]
fn any_session_ends_whole_and_is_made_the_same_twice() {
    gst::init().unwrap();
    let clip = |codec, size, luma| video(codec, size, 30, 2, luma);
    let clips = vec![
        clip(Codec::Vp8, (160, 90), 40),
        clip(Codec::H264, (320, 180), 70),
        clip(Codec::Vp8, (96, 160), 100),
        clip(Codec::H264, (160, 120), 130),
        sound(Codec::Opus, 2),
        sound(Codec::Opus, 2),
    ];
    let mut config = ProptestConfig::with_cases(16);
    config.failure_persistence = None;
    config.max_shrink_iters = 0;
    proptest!(config, |(deeds in deeds(), ticks in (5u64..500, 5u64..2000), single in any::<bool>())| {
        let arrangement = if single { Arrangement::Single } else { tiles(LayoutShape::Grid) };
        let end = ms(2000);
        let [one, two] = [ticks.0, ticks.1]
            .map(|tick| make(options(arrangement), script(&deeds, &clips).ticking(ms(tick), end), end));
        prop_assert_eq!(one.hash(), two.hash());
        prop_assert_eq!(one.stats.started, two.stats.started);
        prop_assert!(one.pictures.ended && one.sound.ended);
        if let Some(start) = one.stats.started {
            let pictures = (end.ns_since(start) * 30).div_ceil(1_000_000_000);
            prop_assert_eq!(one.pictures.buffers.len() as u64, pictures);
            prop_assert_eq!(one.left().len() as i64, SampleIndex::at(end) - SampleIndex::at(start));
        }
    });
}
