//! While a stream is watched and the machine is too slow: pictures go early, sound and time never.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::thread::yield_now;
use std::time::Instant;

use super::*;
use crate::compositor::policy::pacing::output_time;
use crate::key_grid::KeyGrid;

/// A machine that does nothing but take pictures, and has a clock of its own: it shows how long that has taken. Media
/// comes by this clock, so that what is measured does not depend on the machine the test runs on.
#[derive(Default)]
struct StarvedMachine {
    clock_ns: AtomicU64,
    /// Media that has come.
    fed_ns: AtomicU64,
    /// The most that a picture was behind it.
    worst_lag_ns: AtomicU64,
}

impl StarvedMachine {
    /// Waits until media of `edge_ns` comes: by the clock, or at once when all pictures are made.
    fn feed(&self, edge_ns: u64, made_ns: impl Fn() -> u64) {
        let began = Instant::now();
        while self.clock_ns.load(SeqCst) < edge_ns {
            // A picture wants to know half an interval more, and that nothing is moved ahead that far.
            if made_ns() + 51 * MS + FURTHEST_NS as u64 >= self.fed_ns.load(SeqCst) {
                self.clock_ns.fetch_max(edge_ns, SeqCst);
            }
            assert!(began.elapsed() < TIMEOUT, "{edge_ns}");
            yield_now();
        }
    }
}

/// An encoder on that machine.
struct StarvedSink {
    catch: Catch,
    machine: Arc<StarvedMachine>,
    cost_ns: u64,
    end_ns: u64,
}

impl RawSink for StarvedSink {
    fn push(&self, buffer: gst::Buffer) -> Result<(), FeedError> {
        let (pts, duration) = (buffer.pts().unwrap().nseconds(), buffer.duration().unwrap().nseconds());
        let lag_ns = self.machine.fed_ns.load(SeqCst).saturating_sub(pts);
        self.machine.worst_lag_ns.fetch_max(lag_ns, SeqCst);
        lock(&self.catch).buffers.push((pts, duration, Bytes::new()));
        let until = self.machine.clock_ns.fetch_add(self.cost_ns, SeqCst) + self.cost_ns;
        let began = Instant::now();
        while self.machine.fed_ns.load(SeqCst) + 10 * MS < until.min(self.end_ns) && began.elapsed() < TIMEOUT {
            yield_now();
        }
        Ok(())
    }

    fn end(&self) {
        lock(&self.catch).ended = true;
    }
}

/// What becomes of `script` on a machine that takes `cost_ms` for a picture, and the most that a picture was late.
fn starved(
    options: CompositorOptions,
    live: LiveRule,
    cost_ms: u64,
    (script, end): (TestScript, MediaTime),
) -> (ComposedFile, u64) {
    let machine = Arc::new(StarvedMachine::default());
    let (pictures, sound) = (Catch::default(), Catch::default());
    let (cost_ns, end_ns) = (cost_ms * MS, end.ns());
    let video: Box<dyn RawSink> =
        Box::new(StarvedSink { catch: pictures.clone(), machine: machine.clone(), cost_ns, end_ns });
    let audio: Box<dyn RawSink> =
        Box::new(TestSink { catch: sound.clone(), slow: Duration::ZERO, breaks_after: usize::MAX });
    let (tell, events) = mpsc::channel();
    let tell = move |event| drop(tell.send(event));
    let compositor = Compositor::start(options, Some(video), Some(audio), tell).unwrap();
    compositor.set_live(live);
    let run = TestRun { compositor, pictures, sound, events };
    for timed in script.ticking(ms(10), end) {
        if let TimelineEvent::Watermark { at } = timed {
            machine.feed(at.ns(), || run.compositor.stats().picture_ns);
            run.compositor.take(timed);
            machine.fed_ns.store(at.ns(), SeqCst);
        } else {
            run.compositor.take(timed);
        }
    }
    run.compositor.end_at(end);
    (run.finish(), machine.worst_lag_ns.load(SeqCst))
}

#[test]
fn a_starved_machine_leaves_out_pictures_for_a_stream_and_nothing_else() {
    // 40 % of what every picture takes: half of them are not enough.
    let script = (one_of_each(Codec::H264, 24), ms(24_000));
    let (made, worst_lag_ns) = starved(options(Arrangement::Single), LiveRule::Thin, 83, script);
    let CompositorStats { pictures, frames_skipped, frames_thinned, .. } = made.stats;
    assert!((4000 * MS..4500 * MS).contains(&worst_lag_ns), "{worst_lag_ns}");
    assert_eq!((pictures + frames_skipped, frames_thinned), (24 * 30, frames_skipped));
    assert!(frames_skipped > 300, "{frames_skipped}");
    let times: Vec<u64> = made.pictures.buffers.iter().map(|(pts, ..)| *pts).collect();
    assert!(times.windows(2).all(|pair| pair[1] - pair[0] < 134 * MS), "no hole but that of pictures left out");
    assert!(times.last().is_some_and(|last| *last > 23_860 * MS));
    assert_eq!(made.left().len(), 24 * 48_000);
    assert_eq!(onsets(&made.left()).len(), 24);
}

#[test]
fn streams_alone_jump_where_a_quarter_of_the_pictures_is_too_much() {
    // Each picture takes twelve times its length.
    let script = (one_of_each(Codec::H264, 24), ms(24_000));
    let (made, worst_lag_ns) = starved(options(Arrangement::Single), LiveRule::Jump, 400, script);
    let CompositorStats { pictures, frames_skipped, frames_thinned, jumps, .. } = made.stats;
    assert!(worst_lag_ns < 6200 * MS, "{worst_lag_ns}");
    assert_eq!((pictures + frames_skipped, frames_thinned), (24 * 30, frames_skipped));
    assert!(jumps >= 2, "{jumps}");
    let times: Vec<u64> = made.pictures.buffers.iter().map(|(pts, ..)| *pts).collect();
    let holes = times.windows(2).filter(|pair| pair[1] - pair[0] > 4000 * MS).count();
    assert!(holes as u64 >= jumps - 1 && times.windows(2).all(|pair| pair[0] < pair[1]), "{times:?}");
    assert_eq!(made.left().len(), 24 * 48_000);
    assert_eq!(onsets(&made.left()).len(), 24);
}

#[test]
fn without_a_viewer_every_picture_is_made_however_late() {
    let script = (one_of_each(Codec::H264, 10), ms(10_000));
    let (made, worst_lag_ns) = starved(options(Arrangement::Single), LiveRule::Off, 83, script);
    let CompositorStats { pictures, frames_skipped, frames_thinned, .. } = made.stats;
    assert_eq!((pictures, frames_skipped, frames_thinned), (300, 0, 0));
    assert!(worst_lag_ns > 5500 * MS, "{worst_lag_ns}");
    assert_eq!(made.left().len(), 10 * 48_000);
}

#[test]
fn a_picture_on_a_line_of_the_grid_is_never_left_out() {
    let (script, end) = busy_room(4);
    let bounds = DegradationBounds { half_above_ns: 0, lower_above_ns: 0, quarter_above_ns: 0 };
    // Every half second, and segments of 5 s with key frames each 5/3 s.
    for (grid, pictures) in [(KeyGrid::new(500 * MS, 500 * MS), 15), (KeyGrid::new(5000 * MS, 2000 * MS), 50)] {
        let mut options = CompositorOptions { degradation: bounds, ..options(tiles(LayoutShape::Grid)) };
        options.picture = options.picture.map(|picture| VideoMixerOptions { key_grid: Some(grid), ..picture });
        let run = TestRun::new(options, Duration::ZERO, usize::MAX);
        script.clone().ticking(end, end).into_iter().for_each(|timed| run.compositor.take(timed));
        run.compositor.end_at(end);
        let made: Vec<u64> = run.finish().pictures.buffers.iter().map(|(pts, ..)| *pts).collect();
        let wanted = (0..120u64).filter(|n| n.is_multiple_of(4) || n.is_multiple_of(pictures));
        assert_eq!(made, wanted.map(|n| output_time(n, 30)).collect::<Vec<_>>(), "{grid:?}");
    }
}
