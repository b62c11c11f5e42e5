//! The same recording however fast its packets and its encoder are, and an end whatever happens.

use super::*;

#[test]
fn the_same_session_gives_the_same_recording_however_it_arrives() {
    let (script, end) = busy_room(4);
    let arrangement = options(tiles(LayoutShape::Speaker));
    let usual = make(arrangement.clone(), script.clone().ticking(ms(20), end), end);
    let coarse = make(arrangement.clone(), script.clone().ticking(ms(700), end), end);
    assert_eq!(usual.hash(), coarse.hash());

    // A feed that is slow, as under an encoder that gets no processor, and a backlog that goes to disk.
    let dir = tempfile::tempdir().unwrap();
    let tight = CompositorOptions { backlog_bytes: 2000, spill_dir: Some(dir.path().to_owned()), ..arrangement };
    let run = TestRun::new(tight, Duration::from_millis(4), usize::MAX);
    script.ticking(ms(100), end).into_iter().for_each(|timed| run.compositor.take(timed));
    assert!(run.compositor.stats().backlog.spilled > 0);
    run.compositor.end_at(end);
    let slow = run.finish();
    assert_eq!(usual.hash(), slow.hash());
    assert_eq!(slow.stats.backlog.memory + slow.stats.backlog.spilled, 0);
    assert_eq!(slow.stats.backlog.refused_frames, 0);
}

#[test]
fn fed_at_the_live_edge_it_is_the_same_recording() {
    let (script, end) = busy_room(4);
    let at_once = make(options(tiles(LayoutShape::Grid)), script.clone().ticking(ms(20), end), end);
    let run = TestRun::new(options(tiles(LayoutShape::Grid)), Duration::ZERO, usize::MAX);
    for timed in script.ticking(ms(10), end) {
        let edge = if let TimelineEvent::Watermark { at } = timed { at.ns() } else { 0 };
        run.compositor.take(timed);
        let began = std::time::Instant::now();
        // The next tick comes when everything that can be made is made: a picture wants to know half an interval more;
        // sound is let into its decoder 100 ms at a time, mixed 100 ms at a time, and wants to know 20 ms more. Both
        // want to know that nothing is moved ahead that far.
        let ahead = FURTHEST_NS as u64;
        let behind = |stats: CompositorStats| {
            stats.picture_ns + 51 * MS + ahead < edge || stats.sound_ns + 240 * MS + ahead < edge
        };
        while behind(run.compositor.stats()) {
            assert!(began.elapsed() < TIMEOUT, "{edge}: {:?}", run.compositor.stats());
            std::thread::yield_now();
        }
    }
    run.compositor.end_at(end);
    assert_eq!(at_once.hash(), run.finish().hash());
}

#[test]
fn overload_skips_every_second_picture_and_never_sound() {
    let (script, end) = busy_room(3);
    let bounds = DegradationBounds { half_above_ns: 1000 * MS, lower_above_ns: 60_000 * MS };
    let run = TestRun::new(
        CompositorOptions { degradation: bounds, ..options(tiles(LayoutShape::Grid)) },
        Duration::ZERO,
        usize::MAX,
    );
    // Everything at once: three seconds behind from the first picture on, until half a second is left.
    script.ticking(end, end).into_iter().for_each(|timed| run.compositor.take(timed));
    run.compositor.end_at(end);
    let made = run.finish();
    let CompositorStats { pictures, frames_skipped, .. } = made.stats;
    assert_eq!(pictures + frames_skipped, 90);
    assert!((36..=38).contains(&frames_skipped), "{frames_skipped}");
    assert_eq!(made.pictures.buffers[1].0, 66_666_666, "a gap, not a shift");
    assert_eq!(made.left().len(), 3 * 48_000);
    assert_eq!(made.stats.longest_lag_ns, 3000 * MS);
}

#[test]
fn nobody_waits_for_a_compositor_that_is_dropped_or_whose_feed_is_closed() {
    let (script, end) = busy_room(2);
    for end_before in [ms(0), ms(0)] {
        let made = make(options(tiles(LayoutShape::Grid)), Vec::new(), end_before);
        assert!(made.pictures.ended && made.sound.ended && made.pictures.buffers.is_empty());
    }
    let run = TestRun::new(options(tiles(LayoutShape::Grid)), Duration::ZERO, 5);
    script.clone().ticking(ms(20), end).into_iter().for_each(|timed| run.compositor.take(timed));
    let made = run.finish();
    assert_eq!(made.pictures.buffers.len(), 5);

    let run = TestRun::new(options(tiles(LayoutShape::Grid)), Duration::from_millis(50), usize::MAX);
    script.ticking(ms(20), end).into_iter().for_each(|timed| run.compositor.take(timed));
    let TestRun { compositor, events, pictures, .. } = run;
    drop(compositor);
    while events.recv_timeout(TIMEOUT).expect("it says its end") != CompositorEvent::Ended {}
    assert!(lock(&pictures).ended);
}
