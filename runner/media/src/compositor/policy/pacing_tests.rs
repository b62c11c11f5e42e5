//! Cameras of several rates and phases: which output time each picture gets, and how sound follows.

use proptest::prelude::*;

use super::*;

const MS: i64 = 1_000_000;
const SECOND: i64 = 1_000_000_000;

fn session(at: i64) -> MediaTime {
    MediaTime::from_ns(at as u64)
}

/// Numbers of the output times (30 a second) at which pictures of these times are shown.
fn ticks(pictures: impl IntoIterator<Item = i64>) -> (Vec<i64>, FramePacing) {
    let mut step = FramePacing::new(30);
    let ticks = pictures
        .into_iter()
        .map(|at| {
            let queued = step.show(session(at));
            assert_eq!(step.show(session(at)), queued);
            (queued.ns() as f64 * 30.0 / 1e9).round() as i64
        })
        .collect();
    (ticks, step)
}

/// Output times without a picture of their own, and pictures without an output time of their own.
fn repeated_and_left_out(ticks: &[i64]) -> (i64, usize) {
    let steps: Vec<i64> = ticks.windows(2).map(|pair| pair[1] - pair[0]).collect();
    (steps.iter().map(|step| (step - 1).max(0)).sum(), steps.iter().filter(|step| **step < 1).count())
}

#[test]
fn a_camera_without_a_phase_takes_the_nearest_output_time() {
    let (ticks, step) = ticks((0..3000).map(|n| n * 40 * MS + 7 * MS));
    assert_eq!(repeated_and_left_out(&ticks).1, 0);
    let worst = ticks.iter().zip(0..).skip(100).map(|(tick, n)| tick * SECOND / 30 - (n * 40 * MS + 7 * MS));
    assert!(worst.map(i64::abs).max().is_some_and(|worst| worst < 25 * MS));
    assert!(step.late().is_some_and(|late| late.abs() < 8 * MS), "{:?}", step.late());
}

#[test]
fn a_camera_that_drifts_leaves_one_out_where_it_must() {
    // 1000 ppm fast: 30 pictures too many in 1000 s.
    let (ticks, _) = ticks((0..30_000).map(|n| n * SECOND / 30 * 999 / 1000 + 5 * MS));
    let (repeated, left_out) = repeated_and_left_out(&ticks);
    assert!(repeated == 0 && (27..=31).contains(&left_out), "{repeated} {left_out}");
}

#[test]
fn a_faster_camera_keeps_its_time() {
    let mut step = FramePacing::new(30);
    let last = (0..300).map(|n| step.show(session(n * SECOND / 60)).ns() as i64 - n * SECOND / 60).last();
    assert!(last.is_some_and(|off| off.abs() < MS), "{last:?}");
}

#[test]
fn sound_follows_its_pictures_slowly() {
    let mut follow = LipSync::default();
    let mut at = 0;
    let mut shift = |late: Option<i64>| {
        at += 20 * MS;
        follow.shift(session(at), late).ns() as i64 - at
    };
    assert_eq!(shift(None), 0);
    assert_eq!(shift(Some(12 * MS)), 12 * MS, "at once while it has hardly begun");
    for _ in 0..100 {
        shift(Some(12 * MS));
    }
    let moves: Vec<i64> = (0..200).map(|_| shift(Some(-8 * MS))).collect();
    assert!(moves.windows(2).all(|pair| (pair[0] - pair[1]) <= MS / 10), "{moves:?}");
    assert!(moves.last().is_some_and(|last| (-8 * MS..=-7 * MS).contains(last)), "{moves:?}");
    assert_eq!(shift(None), *moves.last().unwrap(), "and stays there when they go");
}

proptest! {
    #[test]
    fn no_correction_and_no_jitter_repeats_or_leaves_out_a_picture(
        phase in 0..SECOND / 30,
        jitter in 0..14 * MS,
        corrections in prop::collection::vec((-30 * MS..30 * MS, 30usize..200), 0..4),
        seed in any::<u64>(),
    ) {
        let mut seed = seed | 1;
        let mut chance = || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            (seed >> 11) as f64 / (1u64 << 53) as f64 - 0.5
        };
        // There and back, so that the sum stays within what is promised.
        let (mut is, mut sign) = (0i64, 1);
        let mut changes: Vec<(usize, i64)> = Vec::new();
        let mut when = 0;
        for (by, later) in corrections {
            when += later;
            changes.push((when, if sign == 1 { by } else { 0 }));
            sign = -sign;
        }
        let mut goals = changes.into_iter().peekable();
        let mut goal = 0i64;
        let mut times = Vec::new();
        for n in 0..900usize {
            if let Some((_, next)) = goals.next_if(|(when, _)| *when <= n) {
                goal = next;
            }
            // As the timeline moves pictures: 2 %.
            is += (goal - is).clamp(-666_667, 666_667);
            times.push(100 * MS + n as i64 * SECOND / 30 + phase + is + (chance() * jitter as f64) as i64);
        }
        let (ticks, step) = ticks(times.iter().copied());
        prop_assert_eq!(repeated_and_left_out(&ticks), (0, 0));
        // What sound goes along with is what is seen.
        let tail = ticks.iter().zip(&times).rev().take(60).map(|(tick, at)| tick * SECOND / 30 - at);
        let mean = tail.sum::<i64>() / 60;
        prop_assert!((mean - step.late().unwrap()).abs() < 5 * MS, "{mean} {:?}", step.late());
    }
}

#[test]
fn the_number_of_a_picture_is_that_of_its_time() {
    for framerate in [15, 24, 25, 30, 60] {
        for n in [0, 1, 2, 7, 29, 30, 1_000_001] {
            let at = output_time(n, framerate);
            assert_eq!((output_number(at, framerate), output_number(at + 1, framerate)), (n, n + 1), "{framerate}");
        }
    }
}
