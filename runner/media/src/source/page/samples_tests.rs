use proptest::prelude::*;

use super::*;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// From one moment to another, each sample the number of milliseconds since `zero`, as far as f32 has them.
fn block(zero: Duration, from: u64, to: u64) -> PageSamples {
    let samples = (from * 48..to * 48).flat_map(|sample| [(sample / 48) as f32; 2]).collect();
    PageSamples { at: zero + ms(from), samples }
}

/// Everything until the end, one side of it.
fn all(queue: &SampleQueue) -> Vec<f32> {
    let mut all = vec![];
    while let Some(samples) = queue.next() {
        assert_eq!(samples.len() % 2, 0);
        all.extend(samples.iter().step_by(2));
    }
    all
}

#[test]
fn every_sample_from_beginning_to_end_comes_once() {
    let queue = SampleQueue::default();
    let zero = monotonic() - ms(5000);
    queue.put(block(zero, 0, 100));
    queue.begin(zero + ms(150));
    queue.begin(zero + ms(1));
    queue.put(block(zero, 100, 200));
    queue.put(block(zero, 200, 290));
    queue.end_at(zero + ms(250), 0);
    queue.end_at(zero + ms(280), 0);
    let all = all(&queue);
    assert_eq!(all.len(), 100 * 48);
    assert_eq!((all[0], all[47], all[48], all[4799]), (150.0, 150.0, 151.0, 249.0));
    assert_eq!(queue.missing_ms(), 0);
}

#[test]
fn a_lead_is_given_beyond_the_end() {
    let queue = SampleQueue::default();
    let zero = monotonic() - ms(5000);
    queue.begin(zero);
    queue.put(block(zero, 0, 300));
    queue.end_at(zero + ms(100), 1115);
    let all = all(&queue);
    assert_eq!((all.len(), all[4800 + 1114]), (4800 + 1115, 123.0));
}

#[test]
fn holes_are_silent_and_what_comes_twice_is_heard_once() {
    let queue = SampleQueue::default();
    let zero = monotonic() - ms(5000);
    queue.begin(zero);
    queue.put(block(zero, 0, 100));
    queue.put(block(zero, 300, 400));
    queue.put(block(zero, 350, 500));
    queue.put(block(zero, 380, 390));
    queue.end_at(zero + ms(500), 0);
    let all = all(&queue);
    assert_eq!(all.len(), 500 * 48);
    let at = |ms: usize| all[ms * 48];
    assert_eq!(
        (at(99), at(100), at(299), at(300), at(399), at(400), at(499)),
        (99.0, 0.0, 0.0, 300.0, 399.0, 400.0, 499.0)
    );
    assert_eq!(queue.missing_ms(), 200);
}

#[test]
fn without_a_server_it_goes_on_silently_to_its_end() {
    let queue = SampleQueue::default();
    let zero = monotonic() - ms(5000);
    queue.begin(zero);
    queue.put(block(zero, 0, 50));
    queue.over();
    queue.end_at(zero + ms(250), 0);
    let all = all(&queue);
    assert_eq!((all.len(), all[49 * 48], all[50 * 48]), (250 * 48, 49.0, 0.0));
    assert_eq!(queue.missing_ms(), 200);
}

#[test]
fn a_late_server_is_waited_for_and_a_queue_that_is_closed_gives_nothing() {
    let queue = std::sync::Arc::new(SampleQueue::default());
    let zero = monotonic();
    queue.begin(zero);
    let server = queue.clone();
    let thread = std::thread::spawn(move || {
        std::thread::sleep(ms(50));
        server.put(block(zero, 0, 20));
    });
    assert_eq!(queue.next().map(|samples| samples.len()), Some(20 * 48 * 2));
    thread.join().unwrap();
    queue.close();
    assert_eq!(queue.next(), None);
}

proptest! {
    /// Whatever comes, as many samples are given as the recording is long.
    #[test]
    fn there_are_as_many_samples_as_time(
        blocks in prop::collection::vec((0u64..900, 1u64..300), 0..20),
        length in 1u64..1000,
        lead in 0u32..2000,
    ) {
        let queue = SampleQueue::default();
        let zero = monotonic() - ms(30_000);
        queue.begin(zero);
        for (from, length) in blocks {
            queue.put(block(zero, from, from + length));
        }
        queue.end_at(zero + ms(length), lead);
        prop_assert_eq!(all(&queue).len() as u64, length * 48 + u64::from(lead));
    }
}
