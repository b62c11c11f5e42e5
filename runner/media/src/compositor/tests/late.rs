//! From packets as they arrive to samples: sound whose RTP time stood still, and sound that came too late.

use std::time::Instant;

use super::*;
use crate::receive::event::{PayloadFormat, Publication, RoomEvent};
use crate::receive::{ReceiveOptions, TrackReceiver};
use crate::track::Frame;
use crate::units::{RtpTime, SeqNo, Ssrc};

const PACKET_MS: u64 = 20;

fn sound_only() -> CompositorOptions {
    CompositorOptions {
        picture: None,
        sound: Some(AudioMixerOptions { mixing: Mixing::Both, lead: 0 }),
        ..options(Arrangement::Single)
    }
}

/// Captured in the pauses: nothing; RTP time counts what was sent.
fn received(clip: &[(u64, bool, Bytes)], pauses: &[(u64, u64)]) -> (Vec<TimelineEvent>, MediaTime) {
    let mut receiver =
        TrackReceiver::new(ReceiveOptions { reorder_wait: Duration::from_secs(2), late: Duration::from_secs(10) });
    let publication = Publication {
        sid: "TR_1".into(),
        identity: "ann".into(),
        agent: false,
        side: spillway_plan::StereoSide::Both,
        origin: TrackSource::Microphone,
        size: (0, 0),
        muted: false,
    };
    let form = PayloadFormat { codec: Codec::Opus, clock_rate: 48_000, channels: 2 };
    receiver.push(RoomEvent::Opened { stream: Ssrc::new(1), publication }, Duration::ZERO);
    let mut sent = 0;
    for (n, (.., payload)) in clip.iter().enumerate() {
        let captured = n as u64 * PACKET_MS;
        let at = Duration::from_millis(captured + 30);
        if !pauses.iter().any(|(from, length)| (*from..from + length).contains(&captured)) {
            let (seq, rtp, payload) = (SeqNo::new(sent), RtpTime::new((1 << 32) + sent * 960), payload.clone());
            receiver.push(RoomEvent::Packet { stream: Ssrc::new(1), seq, rtp, marker: false, form, payload }, at);
            sent += 1;
        }
        receiver.tick(at);
    }
    receiver.finish(Duration::from_millis(clip.len() as u64 * PACKET_MS + 1000));
    let timed = receiver.drain().collect();
    (timed, ms(clip.len() as u64 * PACKET_MS))
}

#[test]
fn sound_whose_rtp_stood_still_is_heard_in_its_place() {
    let clip = sound(Codec::Opus, 60);
    let sentences = (0..20).map(|n| (2100 + n * 2600, 600)).collect();
    let cases: [Vec<(u64, u64)>; 5] = [
        vec![(10_100, 260)],
        vec![(10_100, 1000)],
        vec![(10_100, 3000), (20_100, 1000)],
        vec![(10_100, 20_000)],
        sentences,
    ];
    for pauses in cases {
        let (timed, end) = received(&clip, &pauses);
        let made = make(sound_only(), timed, end);
        let heard: Vec<f64> = onsets(&made.left()).into_iter().map(|at| at as f64 / 48.0).collect();
        let spoken = |second: &u64| {
            let at = second * 1000;
            !pauses.iter().any(|(from, length)| (*from..from + length + PACKET_MS).contains(&at))
        };
        let wanted: Vec<u64> = (1..59).filter(spoken).collect();
        let missing: Vec<&u64> = wanted
            .iter()
            .filter(|second| !heard.iter().any(|at| (at - **second as f64 * 1000.0).abs() < 30.0))
            .collect();
        assert!(missing.is_empty(), "{pauses:?}: {} of {} missing: {missing:?}", missing.len(), wanted.len());
    }
}

#[test]
fn sound_that_comes_when_its_time_is_mixed_is_counted_for_its_participant() {
    let clip = sound(Codec::Opus, 6);
    let run = TestRun::new(sound_only(), Duration::ZERO, usize::MAX);
    let says = |track: u32, from: usize, to: usize| {
        for (at, key, data) in clip[from..to].iter().cloned() {
            let (track, at) = (TrackId(track), MediaTime::from_ns(at));
            run.compositor.take(TimelineEvent::Frame(Frame { track, at, offset_ns: 0, key, size: None, data }));
        }
    };
    for (id, who) in [(1, "ann"), (2, "bob")] {
        let track = track(id, Codec::Opus, who, TrackSource::Microphone);
        run.compositor.take(TimelineEvent::Joined { track, at: ms(0) });
    }
    says(1, 0, 50);
    says(2, 0, 250);
    run.compositor.take(TimelineEvent::Watermark { at: ms(5000) });
    let give_up_at = Instant::now() + TIMEOUT;
    while run.compositor.stats().sound_ns < 4_000 * MS && Instant::now() < give_up_at {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(run.compositor.late_sound_ms(), []);
    // Two seconds of ann's come now.
    says(1, 50, 150);
    run.compositor.end_at(ms(6000));
    run.compositor.wait();
    assert_eq!(run.compositor.late_sound_ms(), [("ann".to_owned(), 2000)]);
}
