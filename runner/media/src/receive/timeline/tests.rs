//! Publishers with clocks of their own, over paths that delay and lose, and where their frames are placed.

use std::ops::Range;
use std::time::Duration;

use proptest::prelude::*;

use super::mapping::NtpMapping;
use super::*;

const SECOND: i64 = 1_000_000_000;
const ONE: Ssrc = Ssrc::new(1);

/// A publisher on paper: its clock, its drift, and what the way does to packets and reports.
struct TestPublisher {
    identity: &'static str,
    /// Its clock minus ours at our zero.
    clock: i64,
    ppm: f64,
    /// Picture is made this much earlier than it is sent (encoder and pacer).
    video_lag: i64,
    audio_lag: i64,
    jitter: i64,
    seed: u64,
}

impl TestPublisher {
    /// Pseudo-random, 0..1.
    fn chance(&mut self) -> f64 {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        (self.seed >> 11) as f64 / (1u64 << 53) as f64
    }

    fn its_clock(&self, ours: i64) -> i64 {
        self.clock + ours + (ours as f64 * self.ppm * 1e-6) as i64
    }
}

struct PlacedStreams {
    /// (our true capture time, place) per frame
    video: Vec<(i64, i64)>,
    audio: Vec<(i64, i64)>,
}

/// Runs publishers for `seconds` and returns where their frames were placed.
fn run(publishers: &mut [TestPublisher], seconds: i64, loss: f64) -> Vec<PlacedStreams> {
    run_stopped(publishers, seconds, loss, 0..0)
}

/// The same when our process stands still meanwhile: what came is read at the end of it.
fn run_stopped(publishers: &mut [TestPublisher], seconds: i64, loss: f64, stopped: Range<i64>) -> Vec<PlacedStreams> {
    #[derive(Debug)]
    enum TestEvent {
        Frame { captured: i64, rtp: u64 },
        Report { rtp: u32, ntp: i64 },
    }
    let mut events: Vec<(i64, usize, u32, TestEvent)> = Vec::new();
    for (place, publisher) in publishers.iter_mut().enumerate() {
        for (stream, rate, step, lag, first_report) in [
            (2 * place as u32, 90_000i64, SECOND / 30, publisher.video_lag, SECOND),
            (2 * place as u32 + 1, 48_000, SECOND / 50, publisher.audio_lag, 4 * SECOND),
        ] {
            let rtp_of = |clock: i64| {
                (1 << 33)
                    + ((i128::from(clock) + i128::from(10_000 * SECOND)) * i128::from(rate) / i128::from(SECOND)) as u64
            };
            let mut captured = 0;
            while captured < seconds * SECOND {
                let clock = publisher.its_clock(captured);
                let jitter = (publisher.chance() * publisher.jitter as f64) as i64;
                if publisher.chance() >= loss {
                    events.push((
                        captured + lag + jitter + 30_000_000,
                        place,
                        stream,
                        TestEvent::Frame { captured, rtp: rtp_of(clock) },
                    ));
                }
                captured += step;
            }
            let mut sent = first_report;
            while sent < seconds * SECOND {
                let clock = publisher.its_clock(sent);
                let jitter = (publisher.chance() * publisher.jitter as f64) as i64;
                events.push((
                    sent + 30_000_000 + jitter,
                    place,
                    stream,
                    TestEvent::Report { rtp: rtp_of(clock) as u32, ntp: clock },
                ));
                sent += 3 * SECOND;
            }
        }
    }
    for event in events.iter_mut().filter(|event| stopped.contains(&event.0)) {
        event.0 = stopped.end;
    }
    events.sort_by_key(|event| event.0);
    let mut timeline = Timeline::default();
    for (place, publisher) in publishers.iter().enumerate() {
        timeline.open(Ssrc::new(2 * place as u32), publisher.identity, false, 90_000);
        timeline.open(Ssrc::new(2 * place as u32 + 1), publisher.identity, true, 48_000);
    }
    let mut out: Vec<PlacedStreams> =
        publishers.iter().map(|_| PlacedStreams { video: vec![], audio: vec![] }).collect();
    let mut held: Vec<Vec<(i64, u64)>> = publishers.iter().flat_map(|_| [vec![], vec![]]).collect();
    let mut highest: Vec<u64> = vec![0; held.len()];
    for (at, place, stream, what) in events {
        let at = Duration::from_nanos(at as u64 + 7 * SECOND as u64);
        match what {
            TestEvent::Report { rtp, ntp } => timeline.report(Ssrc::new(stream), rtp, ntp, at),
            TestEvent::Frame { captured, rtp } => {
                // The jitter buffer would have put it back in order; here what comes too late is lost.
                if rtp <= highest[stream as usize] {
                    continue;
                }
                highest[stream as usize] = rtp;
                let before = timeline.arrive(Ssrc::new(stream), RtpTime::new(rtp), at);
                let mut placed = |timeline: &mut Timeline, held: &mut Vec<(i64, u64)>| {
                    for (captured, rtp) in held.drain(..) {
                        let time = timeline.place(Ssrc::new(stream), RtpTime::new(rtp), at).ns() as i64;
                        let list = if stream % 2 == 0 { &mut out[place].video } else { &mut out[place].audio };
                        list.push((captured, time));
                    }
                };
                if before {
                    placed(&mut timeline, &mut held[stream as usize]);
                }
                held[stream as usize].push((captured, rtp));
                if timeline.is_open(Ssrc::new(stream), at) {
                    placed(&mut timeline, &mut held[stream as usize]);
                }
            }
        }
    }
    out
}

/// Picture minus sound, nanoseconds, for frames captured in the span.
fn lip_errors(heard: &PlacedStreams, from: i64, to: i64) -> Vec<i64> {
    let offset_near = |list: &[(i64, i64)], captured: i64| {
        let at = list.partition_point(|frame| frame.0 < captured).min(list.len() - 1);
        list[at].1 - list[at].0
    };
    heard
        .video
        .iter()
        .filter(|frame| (from..to).contains(&frame.0))
        .map(|frame| frame.1 - frame.0 - offset_near(&heard.audio, frame.0))
        .collect()
}

fn quantile(errors: &[i64], share: f64) -> i64 {
    let mut sorted: Vec<i64> = errors.iter().map(|error| error.abs()).collect();
    sorted.sort_unstable();
    sorted[((sorted.len() - 1) as f64 * share) as usize]
}

fn publisher(identity: &'static str, clock: i64, ppm: f64, seed: u64) -> TestPublisher {
    TestPublisher {
        identity,
        clock,
        ppm,
        video_lag: 60_000_000,
        audio_lag: 10_000_000,
        jitter: 20_000_000,
        seed: seed | 1,
    }
}

#[test]
fn sound_and_picture_that_travel_differently_are_in_sync_after_the_first_reports() {
    let mut publishers = [publisher("alice", 3 * SECOND, 200.0, 1)];
    let heard = run(&mut publishers, 60, 0.0);
    let errors = lip_errors(&heard[0], 7 * SECOND, 60 * SECOND);
    assert!(quantile(&errors, 0.5) < 2_000_000, "median {}", quantile(&errors, 0.5));
    assert!(quantile(&errors, 0.99) < 5_000_000, "p99 {}", quantile(&errors, 0.99));
}

#[test]
fn two_publishers_whose_clocks_are_hours_apart_stand_side_by_side() {
    let mut publishers = [publisher("alice", 3600 * SECOND, 200.0, 1), publisher("bob", -3600 * SECOND, -200.0, 9)];
    let heard = run(&mut publishers, 120, 0.0);
    let delay = |heard: &PlacedStreams| heard.audio.last().map(|frame| frame.1 - frame.0).unwrap_or_default();
    let apart = delay(&heard[0]) - delay(&heard[1]);
    assert!(apart.abs() < 30_000_000, "{apart} ns apart");
}

#[test]
fn a_burst_of_old_packets_does_not_set_the_clock() {
    let mut timeline = Timeline::default();
    timeline.open(ONE, "alice", true, 48_000);
    let mut placed = Vec::new();
    let mut held = Vec::new();
    for n in 0..100u64 {
        // The first 20 packets come at once, 400 ms late; the rest as they are made.
        let at = Duration::from_millis(if n < 20 { 400 } else { n * 20 });
        assert!(!timeline.arrive(ONE, RtpTime::new(n * 960), at));
        held.push((n, n * 960));
        if timeline.is_open(ONE, at) {
            placed.extend(held.drain(..).map(|(n, rtp)| (n, timeline.place(ONE, RtpTime::new(rtp), at).ns())));
        }
    }
    let first_live = placed.iter().find(|frame| frame.0 == 20).map(|frame| frame.1);
    assert!(
        first_live.is_some_and(|time| time < 30_000_000),
        "{first_live:?}: packet 20 arrived at the recording's zero"
    );
}

#[test]
fn rtp_time_that_jumps_ahead_moves_nothing() {
    for by in [200u64, 400, 1000, 10_000] {
        let mut timeline = Timeline::default();
        timeline.open(ONE, "alice", true, 48_000);
        for n in 0..1000 {
            let (at, jumped) = (n * 20 + n % 3, if n < 500 { 0 } else { by });
            let rtp = RtpTime::new((n * 20 + jumped) * 48);
            assert!(!timeline.arrive(ONE, rtp, Duration::from_millis(at)));
            if timeline.is_open(ONE, Duration::from_millis(at)) {
                let place = timeline.place(ONE, rtp, Duration::from_millis(at)).ns() / 1_000_000;
                assert!(place.abs_diff(at) < 50, "{by} ms: packet {n} of {at} ms stands at {place} ms");
            }
        }
    }
}

#[test]
fn a_b_frame_is_shown_beside_its_picture_where_the_stream_was_moved_between_them() {
    let ms = Duration::from_millis;
    let mut timeline = Timeline::default();
    timeline.open(ONE, "alice", false, 90_000);
    let place = |timeline: &mut Timeline, shown: u64, at: u64| {
        let _ = timeline.arrive(ONE, RtpTime::new(shown * 90), ms(at));
        timeline.is_open(ONE, ms(at));
        timeline.place(ONE, RtpTime::new(shown * 90), ms(at))
    };
    for n in 0..11 {
        place(&mut timeline, n * 40, n * 40);
    }
    // It came 3 s late, is lost behind the watermark, and from here on the stream stands where it arrives.
    let picture = place(&mut timeline, 520, 3520);
    timeline.catch_up(ONE);
    assert!(place(&mut timeline, 440, 3521) > picture);
    assert!((-250_000_000..=0).contains(&timeline.offset_ns(ONE)), "{} ns", timeline.offset_ns(ONE));
}

#[test]
fn one_rtp_time_has_one_place() {
    let mut timeline = Timeline::default();
    timeline.open(ONE, "alice", false, 90_000);
    assert!(!timeline.arrive(ONE, RtpTime::new(0), Duration::ZERO));
    assert!(timeline.is_open(ONE, Duration::from_secs(1)));
    let first = timeline.place(ONE, RtpTime::new(9000), Duration::from_millis(100));
    timeline.report(ONE, 9000, 5 * SECOND, Duration::from_millis(110));
    assert_eq!(timeline.place(ONE, RtpTime::new(9000), Duration::from_millis(400)), first);
}

#[test]
fn a_single_wild_report_moves_nothing() {
    let mut mapping = NtpMapping::default();
    for n in 0..4 {
        mapping.report(n * SECOND, n * SECOND + 77, Duration::from_secs(n as u64));
    }
    assert_eq!(mapping.report(4 * SECOND, 5 * SECOND, Duration::from_secs(4)), ReportOutcome::Doubted);
    assert_eq!(mapping.offset(), Some(77));
    mapping.report(5 * SECOND, 6 * SECOND, Duration::from_secs(5));
    assert_eq!(mapping.offset(), Some(SECOND), "the second one agrees");
}

#[test]
fn a_process_that_was_stopped_goes_on_where_the_session_is() {
    for seconds in [2, 5, 10] {
        let mut publishers = [publisher("alice", 0, 0.0, 1), publisher("bob", 3600 * SECOND, 0.0, 3)];
        let heard = run_stopped(&mut publishers, 40, 0.0, 12 * SECOND..(12 + seconds) * SECOND);
        for heard in &heard {
            for list in [&heard.video, &heard.audio] {
                let places = list.iter().filter(|frame| frame.0 > 8 * SECOND).map(|frame| frame.1 - frame.0);
                let (first, last) = (places.clone().min().unwrap(), places.max().unwrap());
                assert!(last - first < 30_000_000, "{seconds} s: {first} to {last}");
            }
        }
    }
}

/// Where a composite would notice: pictures of 30 a second come closer together, or further apart.
fn roughest(heard: &PlacedStreams) -> i64 {
    // Nothing is before the recording's zero, not even what was read late at the very beginning.
    let steps = heard
        .video
        .windows(2)
        .filter(|pair| pair[0].1 > 0 && pair[0].0 > SECOND / 10)
        .map(|pair| (pair[1].1 - pair[0].1) - (pair[1].0 - pair[0].0));
    steps.map(i64::abs).max().unwrap_or_default()
}

#[test]
fn reports_that_say_lips_are_far_off_move_the_picture_at_once() {
    let mut publishers = [TestPublisher { video_lag: 150_000_000, jitter: 0, ..publisher("alice", 0, 0.0, 1) }];
    let heard = run(&mut publishers, 10, 0.0);
    let errors = lip_errors(&heard[0], 5 * SECOND, 10 * SECOND);
    assert!(quantile(&errors, 1.0) < 2_000_000, "{}", quantile(&errors, 1.0));
    assert!(roughest(&heard[0]) > 2_000_000);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn sync_holds_for_any_clock_drift_jitter_and_loss(
        clock in -3 * SECOND..3 * SECOND,
        ppm in -200.0..200.0f64,
        video_lag in 0..150_000_000i64,
        audio_lag in 0..60_000_000i64,
        jitter in 0..60_000_000i64,
        loss in 0.0..0.1f64,
        seed in any::<u64>(),
    ) {
        let mut publishers = [
            TestPublisher { identity: "alice", clock, ppm, video_lag, audio_lag, jitter, seed: seed | 1 },
            publisher("bob", 0, -ppm, seed.wrapping_add(3)),
        ];
        let heard = run(&mut publishers, 40, loss);
        for heard in &heard {
            prop_assert!(heard.video.windows(2).all(|pair| pair[1].1 > pair[0].1));
            prop_assert!(heard.audio.windows(2).all(|pair| pair[1].1 > pair[0].1));
            // Before the reports: no worse than what the way itself did.
            let before = lip_errors(heard, 0, 4 * SECOND);
            prop_assert!(quantile(&before, 1.0) < 300_000_000, "before: {}", quantile(&before, 1.0));
            let after = lip_errors(heard, 6 * SECOND, 40 * SECOND);
            prop_assert!(quantile(&after, 0.5) < 15_000_000, "median {}", quantile(&after, 0.5));
            prop_assert!(quantile(&after, 0.99) < 40_000_000, "p99 {}", quantile(&after, 0.99));
        }
    }

    #[test]
    fn reports_move_pictures_so_gently_that_none_is_repeated_or_left_out(
        clock in -3 * SECOND..3 * SECOND,
        ppm in -200.0..200.0f64,
        video_lag in 0..40_000_000i64,
        audio_lag in 0..40_000_000i64,
        jitter in 0..6_000_000i64,
        late in 0..40_000_000i64,
        seed in any::<u64>(),
    ) {
        let mut publishers = [
            TestPublisher { identity: "alice", clock, ppm, video_lag, audio_lag, jitter, seed: seed | 1 },
            publisher("bob", 0, -ppm, seed.wrapping_add(3)),
        ];
        // A busy machine reads the first frames late.
        let start = 30_000_000;
        let heard = run_stopped(&mut publishers, 20, 0.0, start..start + late);
        prop_assert!(roughest(&heard[0]) < 2_000_000, "{} ns", roughest(&heard[0]));
        let moved = heard[0].video.iter().skip(4).map(|(captured, place)| place - captured);
        let (least, most) = (moved.clone().min().unwrap(), moved.max().unwrap());
        prop_assert!(most - least < 65_000_000, "{least} to {most}");
    }
}
