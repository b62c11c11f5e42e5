//! Publishers whose RTP time stands still while they are quiet, and everything that only looks like it.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::receive::event::PayloadFormat;
use crate::track::Codec;
use crate::units::{RtpTime, SeqNo};

const SOUND: Ssrc = Ssrc::new(1);
const PICTURE: Ssrc = Ssrc::new(2);
const OPUS: PayloadFormat = PayloadFormat { codec: Codec::Opus, clock_rate: 48_000, channels: 2 };
const VP8: PayloadFormat = PayloadFormat { codec: Codec::Vp8, clock_rate: 90_000, channels: 0 };
/// The way of a packet that waits nowhere.
const WAY: i64 = 30;
const NTP: i64 = 1_700_000_000_000;

/// Milliseconds, as everything here.
type Pauses = Vec<(i64, i64)>;

/// What one participant does and what the way does to it.
struct Session {
    seconds: i64,
    /// From when, how long nothing is captured of the sound, and of the picture.
    sound: Pauses,
    picture: Option<Pauses>,
    /// In a pause RTP time goes on, as it should.
    sound_counts: bool,
    picture_counts: bool,
    reports: bool,
    /// A report in a pause has the RTP time of the last frame, where libwebrtc and pion extrapolate.
    frozen_reports: bool,
    jitter: i64,
    /// Longer way of what is sent at this moment.
    queue: Box<dyn Fn(i64) -> i64>,
    /// The publisher's clock minus ours.
    clock: Box<dyn Fn(i64) -> i64>,
    /// Packets never arrive closer than this.
    spacing: i64,
    seed: u64,
}

impl Default for Session {
    fn default() -> Self {
        Self {
            seconds: 40,
            sound: vec![],
            picture: None,
            sound_counts: false,
            picture_counts: false,
            reports: true,
            frozen_reports: false,
            jitter: 20,
            queue: Box::new(|_| 0),
            clock: Box::new(|_| 0),
            spacing: 0,
            seed: 7,
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct PlacedFrame {
    captured: i64,
    arrived: i64,
    /// In arrival time.
    at: i64,
    /// Everything up to here was declared complete before.
    complete: i64,
}

impl PlacedFrame {
    fn off(&self) -> i64 {
        self.at - self.captured - WAY
    }
}

struct Came {
    at: i64,
    captured: i64,
    arrival: RoomEvent,
}

fn ms(n: i64) -> Duration {
    Duration::from_millis(n as u64)
}

impl Session {
    fn chance(&mut self) -> i64 {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        if self.jitter == 0 { 0 } else { (self.seed >> 11) as i64 % (self.jitter + 1) }
    }

    fn track(&mut self, stream: Ssrc, step: i64, pauses: &Pauses, counts: bool) -> Vec<Came> {
        let form = if stream == SOUND { OPUS } else { VP8 };
        let ticks = i64::from(form.clock_rate) / 1000;
        let (mut media, mut number, mut last) = (0, 0u32, 0);
        // Media time and capture of the last frame.
        let mut sent = (0, 0);
        let mut out = vec![];
        // Publisher's reports: what they say, and when the server had them. libwebrtc: each 5 s for sound, 1 s for
        // pictures.
        let mut reports: Vec<(i64, i64, i64)> = vec![];
        let every = if stream == SOUND { 5000 } else { 1000 };
        for captured in (0..self.seconds * 1000).step_by(step as usize) {
            let paused = pauses.iter().any(|(from, length)| (*from..from + length).contains(&captured));
            if captured % every == 700 / step * step {
                let ntp = NTP + captured + (self.clock)(captured);
                let said = if self.frozen_reports { media } else { sent.0 + captured - sent.1 };
                reports.push((said, ntp, captured + (self.queue)(captured)));
            }
            if !paused {
                let at = captured + WAY + (self.queue)(captured) + self.chance();
                last = at.max(last + if number == 0 { 0 } else { self.spacing });
                let mut payload = vec![0x78];
                if stream == PICTURE {
                    payload = vec![0x10, if number.is_multiple_of(10) { 0x10 } else { 0x11 }];
                    payload.extend_from_slice(&[0x02, 0x00, 0x9d, 0x01, 0x2a, 0x80, 0x02, 0x68, 0x01]);
                }
                payload.extend_from_slice(&number.to_be_bytes());
                let rtp = RtpTime::new((1 << 32) + (media * ticks) as u64);
                let seq = SeqNo::new(1000 + u64::from(number));
                let marker = stream == PICTURE;
                let arrival = RoomEvent::Packet { stream, seq, rtp, marker, form, payload: payload.into() };
                out.push(Came { at: last, captured, arrival });
                number += 1;
                sent = (media, captured);
            }
            media += if paused && !counts { 0 } else { step };
        }
        // The server's: each 3 s, its newest one extrapolated to now.
        for tick in (100..self.seconds * 1000).step_by(3000) {
            let newest = reports.iter().rfind(|(.., had)| *had <= tick);
            if let Some((media, ntp, had)) = newest.filter(|_| self.reports) {
                let rtp = ((1u64 << 32) + ((media + tick - had) * ticks) as u64) as u32;
                let arrival = RoomEvent::Report { stream, rtp, ntp: (ntp + tick - had) * 1_000_000 };
                out.push(Came { at: tick + WAY, captured: -1, arrival });
            }
        }
        out
    }

    /// Where sound and pictures were placed, and everything as it was said.
    fn play(mut self) -> Outcome {
        let (pauses, counts) = (self.sound.clone(), self.sound_counts);
        let mut came = self.track(SOUND, 20, &pauses, counts);
        if let Some(pauses) = self.picture.clone() {
            let counts = self.picture_counts;
            came.extend(self.track(PICTURE, 40, &pauses, counts));
        }
        came.sort_by_key(|came| came.at);
        let mut receiver = TrackReceiver::new(ReceiveOptions { reorder_wait: ms(2000), late: ms(10_000) });
        for (stream, origin) in [(SOUND, TrackSource::Microphone), (PICTURE, TrackSource::Camera)] {
            if stream == SOUND || self.picture.is_some() {
                let publication = Publication {
                    sid: format!("TR_{stream}"),
                    identity: "alice".to_owned(),
                    agent: false,
                    side: spillway_plan::StereoSide::Both,
                    origin,
                    size: (640, 360),
                    muted: false,
                };
                receiver.push(RoomEvent::Opened { stream, publication }, ms(0));
            }
        }
        let mut outcome = Outcome::default();
        let mut numbers: [Vec<(i64, i64)>; 2] = [vec![], vec![]];
        for one in &came {
            if let RoomEvent::Packet { stream, .. } = &one.arrival {
                numbers[stream.get() as usize - 1].push((one.captured, one.at));
            }
        }
        let zero = came.first().map_or(0, |came| came.at);
        let mut next = 0;
        for one in came {
            while next <= one.at {
                receiver.tick(ms(next));
                outcome.take(&mut receiver, zero, &numbers);
                next += 20;
            }
            receiver.push(one.arrival, ms(one.at));
            outcome.take(&mut receiver, zero, &numbers);
        }
        receiver.finish(ms(next + 1000));
        outcome.take(&mut receiver, zero, &numbers);
        outcome
    }
}

#[derive(Default)]
struct Outcome {
    sound: Vec<PlacedFrame>,
    picture: Vec<PlacedFrame>,
    complete: i64,
}

impl Outcome {
    fn take(&mut self, receiver: &mut TrackReceiver, zero: i64, numbers: &[Vec<(i64, i64)>; 2]) {
        for timed in receiver.drain() {
            match timed {
                TimelineEvent::Watermark { at } => self.complete = at.ns() as i64 / 1_000_000 + zero,
                TimelineEvent::Frame(frame) => {
                    let number = frame.data.last_chunk::<4>().map_or(0, |bytes| u32::from_be_bytes(*bytes));
                    let sound = frame.size.is_none() && frame.data.len() == 5;
                    let (captured, arrived) = numbers[usize::from(!sound)][number as usize];
                    let at = frame.at.ns() as i64 / 1_000_000 + zero;
                    let placed = PlacedFrame { captured, arrived, at, complete: self.complete };
                    if sound { self.sound.push(placed) } else { self.picture.push(placed) }
                }
                _ => {}
            }
        }
    }
}

/// Frames captured in the span that are more than 100 ms from where they belong.
fn wrong(placed: &[PlacedFrame], from: i64, to: i64) -> Vec<PlacedFrame> {
    let within = placed.iter().filter(|one| (from..to).contains(&one.captured));
    within.filter(|one| one.off().abs() > 100).copied().collect()
}

/// Frames behind the watermark: a composite cannot use them any more.
fn late(placed: &[PlacedFrame]) -> Vec<PlacedFrame> {
    placed.iter().filter(|one| one.at < one.complete).copied().collect()
}

fn assert_right(name: &str, placed: &[PlacedFrame]) {
    assert!(placed.len() > 400, "{name}: {}", placed.len());
    let wrong = wrong(placed, 0, i64::MAX);
    assert!(wrong.is_empty(), "{name}: {} of {} wrong, first {:?}", wrong.len(), placed.len(), wrong[0]);
    let late = late(placed);
    assert!(late.is_empty(), "{name}: {} late, first {:?}", late.len(), late[0]);
}

const GAPS: [i64; 6] = [250, 350, 1000, 3000, 5000, 20_000];

#[test]
fn sound_whose_rtp_stood_still_goes_on_where_it_arrives() {
    for gap in GAPS {
        for reports in [true, false] {
            for jitter in [0, 20, 50] {
                let name = format!("{gap} ms, reports {reports}, jitter {jitter}");
                let session =
                    Session { seconds: 60, sound: vec![(15_000, gap)], reports, jitter, ..Session::default() };
                assert_right(&name, &session.play().sound);
            }
        }
    }
}

#[test]
fn a_picture_whose_rtp_stood_still_goes_on_beside_its_sound() {
    for gap in GAPS {
        for reports in [true, false] {
            let session = Session {
                seconds: 60,
                picture: Some(vec![(15_000, gap)]),
                sound: vec![],
                reports,
                ..Session::default()
            };
            let outcome = session.play();
            assert_right(&format!("{gap} ms, reports {reports}"), &outcome.picture);
            assert_right(&format!("{gap} ms, reports {reports}"), &outcome.sound);
        }
    }
}

#[test]
fn a_laptop_that_slept_wakes_in_sync() {
    for gap in GAPS {
        // libwebrtc's sound stands still and its picture goes on by the clock; a bot's may both stand still.
        for picture_counts in [true, false] {
            let pauses = vec![(15_000, gap)];
            let session = Session {
                seconds: 60,
                picture: Some(pauses.clone()),
                sound: pauses,
                picture_counts,
                ..Session::default()
            };
            let outcome = session.play();
            let name = format!("{gap} ms, picture counts {picture_counts}");
            assert_right(&name, &outcome.sound);
            assert_right(&name, &outcome.picture);
            for picture in outcome.picture.iter().filter(|one| one.captured > 15_000 + gap) {
                let beside = outcome.sound.iter().find(|one| one.captured == picture.captured);
                let apart = beside.map_or(0, |sound| picture.off() - sound.off());
                assert!(apart.abs() <= 40, "{name}: {apart} ms at {}", picture.captured);
            }
        }
    }
}

#[test]
fn pauses_that_come_again_and_again_do_not_add_up() {
    let sentences = (0..60).map(|n| (2000 + n * 2400, 600)).collect();
    let stalls = (0..7).map(|n| (20_000 + n * 20_000, 250)).collect();
    let breaths = (0..40).map(|n| (5000 + n * 3000, 120)).collect();
    let cases: [(&str, Pauses); 3] = [("sentences", sentences), ("stalls", stalls), ("breaths", breaths)];
    for (name, pauses) in cases {
        for reports in [true, false] {
            let session = Session { seconds: 160, sound: pauses.clone(), reports, ..Session::default() };
            assert_right(&format!("{name}, reports {reports}"), &session.play().sound);
        }
    }
}

#[test]
fn a_pause_in_which_rtp_goes_on_moves_nothing() {
    for gap in GAPS {
        let session =
            Session { seconds: 60, sound: vec![(15_000, gap)], sound_counts: true, jitter: 40, ..Session::default() };
        let outcome = session.play();
        assert_right(&format!("{gap} ms"), &outcome.sound);
        let offs = outcome.sound.iter().map(PlacedFrame::off);
        let (min, max) = (offs.clone().min().unwrap_or(0), offs.max().unwrap_or(0));
        assert!(max - min < 45, "{gap} ms: {min} to {max}");
    }
}

/// Sent all the same, and stands still on the way until `to`.
fn stall(from: i64, to: i64) -> Box<dyn Fn(i64) -> i64> {
    Box::new(move |at| if (from..to).contains(&at) { to - at } else { 0 })
}

#[test]
fn a_burst_that_catches_up_moves_nothing() {
    for length in [150, 300, 1000, 1900] {
        // All at once, or as fast as a way of twice the rate carries it.
        for spacing in [0, 10] {
            for reports in [true, false] {
                let session = Session {
                    picture: Some(vec![]),
                    queue: stall(15_000, 15_000 + length),
                    spacing,
                    reports,
                    ..Session::default()
                };
                let outcome = session.play();
                let name = format!("{length} ms, spacing {spacing}, reports {reports}");
                assert_right(&name, &outcome.sound);
                assert_right(&name, &outcome.picture);
            }
        }
    }
}

/// Sentences of `speaks` each `every`, sent by a bot in parts, each when it begins.
fn bot(speaks: i64, every: i64, part: i64, reports: bool, sound_counts: bool) -> Session {
    let sound = (0..60_000 / every).map(|n| (n * every + speaks, every - speaks)).collect();
    Session {
        seconds: 60,
        sound,
        sound_counts,
        reports,
        queue: Box::new(move |at| -(at % every % part)),
        ..Session::default()
    }
}

#[test]
fn sentences_that_come_at_once_are_heard_from_their_arrival_on() {
    for (speaks, every) in [(500, 3000), (1000, 5000), (1500, 3000), (3000, 6000), (3000, 3000)] {
        for reports in [true, false] {
            for sound_counts in [true, false] {
                let name = format!("{speaks} of {every} ms, reports {reports}, counts {sound_counts}");
                assert_right(&name, &bot(speaks, every, every, reports, sound_counts).play().sound);
            }
        }
    }
}

/// As of a live source, the last frame of each part is on time.
#[test]
fn sentences_that_come_in_parts_are_not_placed_before_them() {
    for reports in [true, false] {
        let placed = bot(3000, 6000, 200, reports, false).play().sound;
        assert!(placed.iter().all(|one| one.off().abs() <= 220), "{:?}", placed.iter().map(PlacedFrame::off).min());
        assert!(late(&placed).len() < 4, "{} late, first {:?}", late(&placed).len(), late(&placed).first());
    }
}

#[test]
fn a_bot_that_speaks_live_is_no_bot_any_more() {
    for stalls in [false, true] {
        let sound = (0..10).map(|n| (n * 3000 + 1500, 1500)).collect();
        let queue = move |at: i64| match at {
            ..30_000 => -(at % 3000),
            40_000..41_000 if stalls => 41_000 - at,
            _ => 0,
        };
        let session = Session { seconds: 60, sound, queue: Box::new(queue), ..Session::default() };
        assert_right(&format!("stalls {stalls}"), &session.play().sound);
    }
}

#[test]
fn an_uplink_that_queues_for_half_a_minute_costs_nothing() {
    let queue = |at: i64| match at {
        ..10_000 => 0,
        10_000..15_000 => (at - 10_000) / 2,
        15_000..40_000 => 2500,
        40_000..45_000 => (45_000 - at) / 2,
        _ => 0,
    };
    let session = Session { seconds: 70, picture: Some(vec![]), queue: Box::new(queue), ..Session::default() };
    let outcome = session.play();
    assert!(late(&outcome.sound).is_empty(), "{} sounds too late", late(&outcome.sound).len());
    assert!(late(&outcome.picture).is_empty(), "{} pictures too late", late(&outcome.picture).len());
    let worst = outcome.sound.iter().map(|one| one.off().abs()).max();
    assert!(worst.is_some_and(|worst| worst < 200), "{worst:?} ms");
}

#[test]
fn a_clock_that_is_set_moves_nothing() {
    for by in [-5000, -1000, -400, -200, 200, 400, 1000, 3_600_000] {
        let clock = move |at: i64| if at < 20_000 { 0 } else { by };
        let session = Session { seconds: 70, picture: Some(vec![]), clock: Box::new(clock), ..Session::default() };
        let outcome = session.play();
        assert_right(&format!("set by {by} ms"), &outcome.sound);
        assert_right(&format!("set by {by} ms"), &outcome.picture);
    }
}

#[test]
fn media_time_that_runs_away_never_leads_far_from_its_arrival() {
    for pace in [2, 20, 3000] {
        let mut receiver = TrackReceiver::new(ReceiveOptions { reorder_wait: ms(2000), late: ms(10_000) });
        let publication = Publication {
            sid: "TR_1".to_owned(),
            identity: "mallory".to_owned(),
            agent: false,
            side: spillway_plan::StereoSide::Both,
            origin: TrackSource::Microphone,
            size: (0, 0),
            muted: false,
        };
        receiver.push(RoomEvent::Opened { stream: SOUND, publication }, ms(0));
        for n in 0..3000u64 {
            let at = ms(20 * n as i64);
            let payload = vec![0x78, 1, 2, 3].into();
            let (seq, rtp) = (SeqNo::new(n), RtpTime::new((1 << 32) + n * 960 * pace));
            receiver.push(RoomEvent::Packet { stream: SOUND, seq, rtp, marker: false, form: OPUS, payload }, at);
            receiver.tick(at);
            for timed in receiver.drain() {
                if let TimelineEvent::Frame(frame) = timed {
                    let ahead = frame.at.ns() as i64 - at.as_nanos() as i64;
                    // Times of one track rise by at least 1 ms a frame.
                    assert!(ahead <= 2_001_000_000, "pace {pace}: {} ms ahead at {n}", ahead / 1_000_000);
                }
            }
        }
    }
}

/// A stream whose reports and RTP agree on a place that nothing can use any more.
#[test]
fn what_stays_behind_the_watermark_goes_on_where_it_arrives() {
    let queue = |at: i64| if at < 15_000 { 0 } else { (at - 15_000).min(13_000) };
    let session = Session { seconds: 60, queue: Box::new(queue), ..Session::default() };
    assert_never_behind_for_long(&session.play().sound).unwrap();
}

fn assert_never_behind_for_long(placed: &[PlacedFrame]) -> Result<(), String> {
    let mut since = None;
    for one in placed {
        if one.at >= one.complete {
            since = None;
        } else if one.arrived - *since.get_or_insert(one.arrived) > 540 {
            return Err(format!("behind since {since:?}: {one:?}"));
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn whatever_the_pauses_everything_is_right_a_second_later(
        pauses in prop::collection::vec((300i64..6000, 250i64..20_000), 1..6),
        jitter in 0i64..45,
        reports in any::<bool>(),
        frozen_reports in any::<bool>(),
        pictures in 0usize..4,
        seed in 1u64..u64::MAX,
    ) {
        let mut at = 2500;
        let pauses: Pauses = pauses.into_iter().map(|(talk, length)| {
            // Captured in whole frames.
            let pause = ((at + talk) / 40 * 40, length / 40 * 40);
            at = pause.0 + pause.1;
            pause
        }).collect();
        let session = Session {
            seconds: at / 1000 + 15,
            sound: pauses.clone(),
            picture: [None, Some(vec![]), Some(pauses.clone()), Some(pauses.clone())][pictures].clone(),
            picture_counts: pictures == 3,
            reports,
            frozen_reports,
            jitter,
            seed,
            ..Session::default()
        };
        let outcome = session.play();
        for placed in [&outcome.sound, &outcome.picture] {
            prop_assert_eq!(assert_never_behind_for_long(placed), Ok(()));
            for one in placed {
                let second_later = pauses.iter().all(|(from, length)| !(*from..from + length + 1000).contains(&one.captured));
                prop_assert!(!second_later || one.off().abs() <= 100, "{:?} off {}", one, one.off());
            }
        }
        // And hardly anything is wrong meanwhile.
        let share = wrong(&outcome.sound, 0, i64::MAX).len() as f64 / outcome.sound.len() as f64;
        prop_assert!(share < 0.01, "{}", share);
    }
}
