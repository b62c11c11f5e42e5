use super::*;

const PERIOD: i64 = 33_333_333;
const MS: i64 = 1_000_000;
/// Some time after boot.
const START: i64 = 5_000_000_000_000;

/// A page paints at these times (nanoseconds, in order); gives, per picture read, when it was shown, when it was read and
/// which paint it shows.
fn record(slots: &mut FrameSlots, paints: &[i64]) -> Vec<(i64, i64, usize)> {
    let mut shown = Vec::new();
    let mut next = 0;
    while next < paints.len() {
        // Damaged by this paint; more of them may come before the display is read.
        let mut now = paints[next];
        while let Some(until) = slots.wait_until(time(now)) {
            assert!(nanos(until) > now, "waits for what has passed");
            now = nanos(until);
        }
        let newest = paints.partition_point(|paint| *paint <= now) - 1;
        shown.push((nanos(slots.take(time(now), (newest + 1 - next) as u32)), now, newest));
        next = newest + 1;
    }
    shown
}

/// Deviations in a fixed irregular order, from `-most` to `most`.
fn jitter(most: i64) -> impl Iterator<Item = i64> {
    let mut state = 12_345u64;
    std::iter::repeat_with(move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as i64 % (2 * most + 1) - most
    })
}

fn paints(count: i64, period: i64, jitter_ns: i64) -> Vec<i64> {
    (0..count).zip(jitter(jitter_ns)).map(|(n, off)| START + n * period + off).collect()
}

fn check_times(shown: &[(i64, i64, usize)], period: i64) {
    for pair in shown.windows(2) {
        let distance = pair[1].0 - pair[0].0;
        assert!(distance >= period - PULL_NS, "{distance} ns between two pictures");
        let off = (distance + period / 2).rem_euclid(period) - period / 2;
        assert!(off.abs() <= PULL_NS, "{off} ns beside the grid");
    }
}

#[test]
fn a_page_at_the_output_rate_loses_nothing() {
    for (period, jitter_ns) in [(PERIOD, 5 * MS), (PERIOD, 0), (33_222_591, 5 * MS), (33_444_816, 5 * MS)] {
        let (mut slots, paints) = (FrameSlots::new(30), paints(9_000, period, jitter_ns));
        let shown = record(&mut slots, &paints);
        check_times(&shown, PERIOD);
        assert_eq!(shown.len(), paints.len(), "period {period}");
        // 0.3 % away from the output rate: the grid goes along, and no time is invented.
        for (at, read, paint) in &shown {
            assert!((at - paints[*paint]).abs() < 26 * MS, "{} ms", (at - paints[*paint]) / MS);
            assert!(read - paints[*paint] < 17 * MS);
        }
    }
}

#[test]
fn two_pictures_in_one_slot_are_one_slot_apart_and_the_lag_is_paid_back() {
    let mut slots = FrameSlots::new(30);
    let paints: Vec<i64> = [0, 10 * MS].into_iter().chain((1..900).map(|n| n * PERIOD)).map(|at| START + at).collect();
    let shown = record(&mut slots, &paints);
    check_times(&shown, PERIOD);
    assert_eq!(shown.len(), paints.len(), "nothing is lost");
    assert_eq!(shown[0].0, START);
    assert_eq!((shown[1].0 - START + MS) / PERIOD, 1);
    // The third one found its slot taken too.
    assert_eq!((shown[2].0 - START + MS) / PERIOD, 2);
    assert!(shown[2].1 - paints[2] < 17 * MS);
    assert!(shown.iter().all(|(at, _, paint)| at - paints[*paint] <= PERIOD + MS));
    let (at, read, paint) = shown[899];
    assert!(read == paints[paint] && at - read < 3 * MS, "{} ms late", (at - read) / MS);
}

#[test]
fn of_more_pictures_than_slots_the_newest_one_wins() {
    for (rate, jitter_ns) in [(60, 0), (60, 3 * MS), (45, 3 * MS), (120, MS), (1_000, 0)] {
        let (mut slots, paints) = (FrameSlots::new(30), paints(rate * 60, 1_000_000_000 / rate, jitter_ns));
        let shown = record(&mut slots, &paints);
        check_times(&shown, PERIOD);
        assert!((1_795..=1_805).contains(&shown.len()), "{rate} a second gave {} in a minute", shown.len());
        for (_, read, paint) in &shown {
            assert!(paints.get(paint + 1).is_none_or(|later| later > read), "a newer picture was there");
        }
    }
}

#[test]
fn nothing_is_read_while_nothing_changes_and_the_grid_begins_anew() {
    let mut slots = FrameSlots::new(30);
    let first = slots.take(time(START), 1);
    assert_eq!(nanos(first), START);
    let later = START + 1_234 * MS;
    assert_eq!(slots.wait_until(time(later)), None);
    assert_eq!(nanos(slots.take(time(later), 1)), later);
    // Within half a second it stays.
    let soon = later + 10 * PERIOD + 4 * MS;
    let shown = nanos(slots.take(time(soon), 1));
    assert_eq!(shown, later + 10 * PERIOD + 4 * MS / PULL_PART);
}

#[test]
fn every_other_slot_halves_the_rate_evenly() {
    let mut slots = FrameSlots::new(30);
    slots.set_halved(true);
    let shown = record(&mut slots, &paints(900, PERIOD, 4 * MS));
    check_times(&shown, PERIOD);
    assert!((440..=455).contains(&shown.len()), "{} of 900", shown.len());
    for pair in shown.windows(2) {
        let slots = (pair[1].0 - pair[0].0 + PERIOD / 2) / PERIOD;
        assert!((2..=3).contains(&slots), "{slots} slots apart");
    }
    slots.set_halved(false);
    let again: Vec<i64> = paints(90, PERIOD, 4 * MS).iter().map(|at| at + 30_000 * MS).collect();
    assert_eq!(record(&mut slots, &again).len(), 90);
}
