use proptest::prelude::*;

use super::*;

/// 20 ms of a constant, so that every sample says which packet it came from.
fn packet(value: f32) -> Vec<f32> {
    vec![value; 2 * BLOCK as usize]
}

fn heard(runs: &mut Runs, from: i64, blocks: usize) -> Vec<f32> {
    let mut left = Vec::new();
    for n in 0..blocks as i64 {
        let mut mix = vec![0.0; 2 * BLOCK as usize];
        runs.forget_before(from + n * BLOCK);
        runs.add(from + n * BLOCK, &mut mix, Side::Both);
        left.extend(mix.chunks_exact(2).map(|frame| frame[0]));
    }
    left
}

#[test]
fn packets_that_follow_are_one_run_between_two_fades() {
    let mut runs = Runs::default();
    for n in 0..5 {
        runs.place(1000 + n * BLOCK, packet(0.5), false);
    }
    let heard = heard(&mut runs, 0, 8);
    assert!(heard[..1001].iter().all(|sample| *sample == 0.0));
    assert!(heard[1000 + FADE..5800 - FADE].iter().all(|sample| *sample == 0.5), "and nothing inside is touched");
    assert!(heard[5799..].iter().all(|sample| *sample == 0.0));
    let steepest = heard.windows(2).map(|pair| (pair[0] - pair[1]).abs()).fold(0.0, f32::max);
    assert!(steepest < 0.01, "no crack: {steepest}");
}

#[test]
fn a_lost_packet_leaves_its_hole_where_it_was() {
    let mut runs = Runs::default();
    for n in [0, 1, 3, 4] {
        runs.place(n * BLOCK, packet(0.5), false);
    }
    let heard = heard(&mut runs, 0, 5);
    let hole: Vec<_> = heard.iter().enumerate().filter(|(_, s)| **s == 0.0).map(|(n, _)| n as i64).collect();
    assert!(hole.iter().filter(|n| **n > 0 && **n < 4799).all(|n| (2 * BLOCK - 1..=3 * BLOCK).contains(n)), "{hole:?}");
    assert_eq!(heard[3 * BLOCK as usize + FADE], 0.5);
}

#[test]
fn drift_is_stretched_away_without_a_cut() {
    let mut runs = Runs::default();
    // The publisher's clock runs 2 ms per second fast, for 4 s.
    let mut placed = Vec::new();
    for n in 0..200 {
        runs.place(n * BLOCK + n * 2, packet(0.5), false);
        placed.push(runs.next.unwrap() - (n * BLOCK + n * 2 + BLOCK));
    }
    assert!(placed.iter().all(|off| off.abs() <= 5), "{placed:?}");
    assert!(runs.pieces.iter().skip(1).all(|piece| !piece.fresh));
}

#[test]
fn what_comes_too_late_is_heard_from_now_on_only() {
    let mut runs = Runs::default();
    runs.forget_before(500);
    runs.place(0, packet(0.5), false);
    let mut mix = vec![0.0; 200];
    runs.add(500, &mut mix, Side::Both);
    assert!(mix.iter().all(|sample| *sample == 0.5), "amid the packet, without a fade");
    runs.forget_before(5000);
    runs.place(1000, packet(0.5), false);
    assert!(runs.pieces.is_empty());
    // The second packet went on where the first one ended, 40 samples early, and was stretched towards its own time.
    assert_eq!(runs.dropped, 500 + BLOCK + STRETCH_PER_BLOCK, "what is missing is counted");
}

#[test]
fn what_lies_before_the_beginning_is_not_missing_and_what_came_before_its_track_was_mixed_may_be() {
    let mut runs = Runs { begin: 2000, ..Runs::default() };
    for n in 0..10 {
        runs.place(n * BLOCK, packet(0.5), false);
    }
    runs.forget_before(4800);
    assert_eq!(runs.dropped, 2800);
    let mut runs = Runs { begin: 4800, ..Runs::default() };
    runs.place(0, packet(0.5), false);
    runs.forget_before(4800);
    runs.place(BLOCK, packet(0.5), false);
    assert_eq!(runs.dropped, 0);
}

#[test]
fn sides_hear_the_mean_of_both_channels() {
    let mut runs = Runs::default();
    runs.place(0, [0.2, 0.6].repeat(BLOCK as usize), false);
    let mut mix = vec![0.0; 2 * BLOCK as usize];
    runs.add(0, &mut mix, Side::Right);
    assert_eq!(mix[2 * 400], 0.0);
    assert!((mix[2 * 400 + 1] - 0.4).abs() < 1e-6);
}

#[test]
fn moments_and_samples_agree() {
    for sample in [0, 1, 47_999, 48_000, 172_800_001] {
        assert_eq!(sample_at(time_of(sample)), sample);
    }
}

proptest! {
    #[test]
    fn runs_never_overlap_and_nothing_is_louder_than_it_was(
        steps in prop::collection::vec((-2000i64..6000, 1i64..6000, any::<bool>()), 1..40),
    ) {
        let mut runs = Runs::default();
        let mut at = 0;
        for (step, length, cut) in steps {
            at = (at + step).max(0);
            runs.place(at, vec![0.5; 2 * length as usize], cut);
            for (one, next) in runs.pieces.iter().zip(runs.pieces.iter().skip(1)) {
                prop_assert!(one.end() <= next.at);
            }
        }
        let loudest = heard(&mut runs, 0, 60).into_iter().fold(0.0, f32::max);
        prop_assert!(loudest <= 0.5);
    }
}
