//! Runs, holes, drift and late packets, sample by sample.

use proptest::prelude::*;

use super::*;

/// 20 ms of a constant, so that every sample says which packet it came from.
fn packet(value: f32) -> Vec<f32> {
    vec![value; 2 * BLOCK as usize]
}

fn heard(timeline: &mut SampleTimeline, from: i64, blocks: usize) -> Vec<f32> {
    let mut left = Vec::new();
    for n in 0..blocks as i64 {
        let mut mix = vec![0.0; 2 * BLOCK as usize];
        timeline.forget_before(SampleIndex::new(from + n * BLOCK));
        timeline.add(SampleIndex::new(from + n * BLOCK), &mut mix, StereoSide::Both);
        left.extend(mix.chunks_exact(2).map(|frame| frame[0]));
    }
    left
}

#[test]
fn packets_that_follow_are_one_run_between_two_fades() {
    let mut timeline = SampleTimeline::default();
    for n in 0..5 {
        timeline.place(SampleIndex::new(1000 + n * BLOCK), packet(0.5), false);
    }
    let heard = heard(&mut timeline, 0, 8);
    assert!(heard[..1001].iter().all(|sample| *sample == 0.0));
    assert!(heard[1000 + FADE..5800 - FADE].iter().all(|sample| *sample == 0.5), "and nothing inside is touched");
    assert!(heard[5799..].iter().all(|sample| *sample == 0.0));
    let steepest = heard.windows(2).map(|pair| (pair[0] - pair[1]).abs()).fold(0.0, f32::max);
    assert!(steepest < 0.01, "no crack: {steepest}");
}

#[test]
fn a_lost_packet_leaves_its_hole_where_it_was() {
    let mut timeline = SampleTimeline::default();
    for n in [0, 1, 3, 4] {
        timeline.place(SampleIndex::new(n * BLOCK), packet(0.5), false);
    }
    let heard = heard(&mut timeline, 0, 5);
    let hole: Vec<_> = heard.iter().enumerate().filter(|(_, s)| **s == 0.0).map(|(n, _)| n as i64).collect();
    assert!(hole.iter().filter(|n| **n > 0 && **n < 4799).all(|n| (2 * BLOCK - 1..=3 * BLOCK).contains(n)), "{hole:?}");
    assert_eq!(heard[3 * BLOCK as usize + FADE], 0.5);
}

#[test]
fn drift_is_stretched_away_without_a_cut() {
    let mut timeline = SampleTimeline::default();
    // The publisher's clock runs 2 ms per second fast, for 4 s.
    let mut placed = Vec::new();
    for n in 0..200 {
        timeline.place(SampleIndex::new(n * BLOCK + n * 2), packet(0.5), false);
        placed.push(timeline.next.unwrap() - SampleIndex::new(n * BLOCK + n * 2 + BLOCK));
    }
    assert!(placed.iter().all(|off| off.abs() <= 5), "{placed:?}");
    assert!(timeline.chunks.iter().skip(1).all(|chunk| !chunk.fresh));
}

#[test]
fn what_comes_too_late_is_heard_from_now_on_only() {
    let mut timeline = SampleTimeline::default();
    timeline.forget_before(SampleIndex::new(500));
    timeline.place(SampleIndex::new(0), packet(0.5), false);
    let mut mix = vec![0.0; 200];
    timeline.add(SampleIndex::new(500), &mut mix, StereoSide::Both);
    assert!(mix.iter().all(|sample| *sample == 0.5), "amid the packet, without a fade");
    timeline.forget_before(SampleIndex::new(5000));
    timeline.place(SampleIndex::new(1000), packet(0.5), false);
    assert!(timeline.chunks.is_empty());
    // The second packet went on where the first one ended, 40 samples early, and was stretched towards its own time.
    assert_eq!(timeline.dropped, 500 + BLOCK + STRETCH_PER_BLOCK, "what is missing is counted");
}

#[test]
fn what_lies_before_the_beginning_is_not_missing_and_what_came_before_its_track_was_mixed_may_be() {
    let mut timeline = SampleTimeline { begin: SampleIndex::new(2000), ..SampleTimeline::default() };
    for n in 0..10 {
        timeline.place(SampleIndex::new(n * BLOCK), packet(0.5), false);
    }
    timeline.forget_before(SampleIndex::new(4800));
    assert_eq!(timeline.dropped, 2800);
    let mut timeline = SampleTimeline { begin: SampleIndex::new(4800), ..SampleTimeline::default() };
    timeline.place(SampleIndex::new(0), packet(0.5), false);
    timeline.forget_before(SampleIndex::new(4800));
    timeline.place(SampleIndex::new(BLOCK), packet(0.5), false);
    assert_eq!(timeline.dropped, 0);
}

#[test]
fn sides_hear_the_mean_of_both_channels() {
    let mut timeline = SampleTimeline::default();
    timeline.place(SampleIndex::new(0), [0.2, 0.6].repeat(BLOCK as usize), false);
    let mut mix = vec![0.0; 2 * BLOCK as usize];
    timeline.add(SampleIndex::new(0), &mut mix, StereoSide::Right);
    assert_eq!(mix[2 * 400], 0.0);
    assert!((mix[2 * 400 + 1] - 0.4).abs() < 1e-6);
}

proptest! {
    #[test]
    fn runs_never_overlap_and_nothing_is_louder_than_it_was(
        steps in prop::collection::vec((-2000i64..6000, 1i64..6000, any::<bool>()), 1..40),
    ) {
        let mut timeline = SampleTimeline::default();
        let mut at = 0;
        for (step, length, cut) in steps {
            at = (at + step).max(0);
            timeline.place(SampleIndex::new(at), vec![0.5; 2 * length as usize], cut);
            for (one, next) in timeline.chunks.iter().zip(timeline.chunks.iter().skip(1)) {
                prop_assert!(one.end() <= next.at);
            }
        }
        let loudest = heard(&mut timeline, 0, 60).into_iter().fold(0.0, f32::max);
        prop_assert!(loudest <= 0.5);
    }
}
