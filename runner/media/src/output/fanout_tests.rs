//! The fan-out with takers that do what they are told; no GStreamer.

use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::encoded::MediaKind;
use crate::track::Codec;

const VIDEO: StreamNumber = StreamNumber(0);
const AUDIO: StreamNumber = StreamNumber(1);

/// What a taker was given: stream and time of each unit.
type Taken = Arc<Mutex<Vec<(u8, u64)>>>;

#[derive(Default)]
struct TestTaker {
    taken: Taken,
    /// Refuses the unit after so many.
    breaks_after: Option<usize>,
    end: Option<TakerEnd>,
    ended_at: Arc<Mutex<Vec<u64>>>,
    on_drop: OnDrop,
}

#[derive(Default)]
struct OnDrop {
    dropped: Arc<Mutex<u32>>,
    /// Told and waited for, as a pipeline waits for its threads.
    thread: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Drop for OnDrop {
    fn drop(&mut self) {
        if let Some((go, thread)) = self.thread.take() {
            go.send(()).unwrap();
            thread.join().unwrap();
        }
        *self.dropped.lock().unwrap() += 1;
    }
}

impl OutputTaker for TestTaker {
    fn take(&mut self, unit: &EncodedUnit) -> Result<(), TakerError> {
        let mut taken = self.taken.lock().unwrap();
        if self.breaks_after.is_some_and(|most| taken.len() >= most) {
            return Err(TakerError::Stream { message: "full".into() });
        }
        taken.push((unit.stream.0, unit.at_ns));
        Ok(())
    }

    fn end(&mut self, end_ns: u64) -> Result<TakerEnd, TakerError> {
        self.ended_at.lock().unwrap().push(end_ns);
        self.end.ok_or_else(|| TakerError::Stream { message: "no end".into() })
    }
}

fn whole() -> TestTaker {
    TestTaker { end: Some(TakerEnd::Whole), ..TestTaker::default() }
}

fn formats() -> Vec<EncodedFormat> {
    vec![
        EncodedFormat::Video { codec: Codec::H264, size: (320, 180), framerate: Some(30), bitrate_kbps: Some(400) },
        EncodedFormat::Aac { rate: 48_000, bitrate_kbps: 128 },
    ]
}

fn fanout() -> (Arc<Fanout>, Receiver<PipelineEvent>) {
    let (tell, told) = channel();
    let tell = Mutex::new(tell);
    (Fanout::new(formats(), move |event| drop(tell.lock().unwrap().send(event))), told)
}

fn add(fanout: &Arc<Fanout>, streams: &[StreamNumber], taker: TestTaker) -> TakerId {
    let (id, _) = fanout.reserve();
    fanout.add(TakerStart { id, streams: streams.to_vec(), taker: Box::new(taker), progress: Arc::default() });
    id
}

fn unit(stream: StreamNumber, at_ns: u64) -> EncodedUnit {
    let kind = if stream == VIDEO { MediaKind::Video } else { MediaKind::Audio };
    EncodedUnit { stream, kind, key: true, at_ns, offset_ns: 0, duration_ns: 10, data: Bytes::from_static(b"unit") }
}

/// What was told, without its texts.
fn events(told: &Receiver<PipelineEvent>) -> Vec<String> {
    let name = |event: PipelineEvent| match event {
        PipelineEvent::TakerEnded(id) => format!("ended {}", id.0),
        PipelineEvent::TakerFailed(id, error) => format!("failed {} {error}", id.0),
        other => format!("{other:?}"),
    };
    told.try_iter().map(name).collect()
}

#[test]
fn every_output_is_given_the_streams_it_wants_in_order() {
    let (fanout, told) = fanout();
    let (both, sound) = (whole(), whole());
    let (both_taken, sound_taken) = (both.taken.clone(), sound.taken.clone());
    let (both_end, sound_end) = (both.ended_at.clone(), sound.ended_at.clone());
    add(&fanout, &[VIDEO, AUDIO], both);
    add(&fanout, &[AUDIO], sound);
    for at in [0, 100, 200] {
        fanout.push(unit(VIDEO, at)).unwrap();
        fanout.push(unit(AUDIO, at)).unwrap();
    }
    fanout.push(unit(VIDEO, 300)).unwrap();
    fanout.end_stream(AUDIO);
    assert_eq!(events(&told), ["Flowing", "ended 1"], "an output of sound does not wait for pictures");
    fanout.end_stream(AUDIO);
    fanout.end_stream(VIDEO);
    assert_eq!(events(&told), ["ended 0", "Drained"]);
    assert_eq!(*both_taken.lock().unwrap(), [(0, 0), (1, 0), (0, 100), (1, 100), (0, 200), (1, 200), (0, 300)]);
    assert_eq!(*sound_taken.lock().unwrap(), [(1, 0), (1, 100), (1, 200)]);
    assert_eq!((&*both_end.lock().unwrap(), &*sound_end.lock().unwrap()), (&vec![310], &vec![210]));
    assert!(fanout.progress().wait_over(Duration::ZERO));
}

#[test]
fn an_output_that_fails_is_dropped_and_reported_once_and_alone() {
    let (fanout, told) = fanout();
    let (good, bad, last) = (whole(), TestTaker { breaks_after: Some(2), ..whole() }, TestTaker::default());
    let (good_taken, bad_taken, dropped) = (good.taken.clone(), bad.taken.clone(), bad.on_drop.dropped.clone());
    add(&fanout, &[VIDEO], bad);
    add(&fanout, &[VIDEO], good);
    add(&fanout, &[VIDEO], last);
    (0..5).for_each(|at| fanout.push(unit(VIDEO, at)).unwrap());
    assert_eq!(events(&told), ["Flowing", "failed 0 full"]);
    assert_eq!(*dropped.lock().unwrap(), 1);
    assert_eq!((good_taken.lock().unwrap().len(), bad_taken.lock().unwrap().len()), (5, 2));
    fanout.end_stream(VIDEO);
    assert_eq!(events(&told), ["ended 1", "failed 2 no end"], "the sound has not ended");
    fanout.end_stream(AUDIO);
    assert_eq!(events(&told), ["Drained"]);
}

#[test]
fn without_outputs_units_still_go_on() {
    let (fanout, told) = fanout();
    add(&fanout, &[VIDEO], TestTaker { breaks_after: Some(0), ..whole() });
    fanout.push(unit(VIDEO, 0)).unwrap();
    fanout.push(unit(VIDEO, 1)).unwrap();
    assert_eq!(events(&told), ["Flowing", "failed 0 full"]);
    let later = whole();
    let taken = later.taken.clone();
    add(&fanout, &[VIDEO], later);
    fanout.push(unit(VIDEO, 2)).unwrap();
    assert_eq!(*taken.lock().unwrap(), [(0, 2)]);
    assert_eq!(fanout.progress().media_ns(), 12);
}

#[test]
fn outputs_come_and_go_in_the_middle() {
    let (fanout, told) = fanout();
    let (file, stream) = (whole(), whole());
    let (file_taken, stream_taken) = (file.taken.clone(), stream.taken.clone());
    add(&fanout, &[VIDEO], file);
    fanout.push(unit(VIDEO, 0)).unwrap();
    let id = add(&fanout, &[VIDEO], stream);
    fanout.push(unit(VIDEO, 1)).unwrap();
    fanout.remove(id);
    fanout.remove(id);
    fanout.push(unit(VIDEO, 2)).unwrap();
    assert_eq!(file_taken.lock().unwrap().len(), 3);
    assert_eq!(*stream_taken.lock().unwrap(), [(0, 1)]);
    assert_eq!(events(&told), ["Flowing", "ended 1"]);
    fanout.end_stream(VIDEO);
    add(&fanout, &[VIDEO], whole());
    assert_eq!(events(&told), ["ended 0", "ended 2"], "too late: ended at once");
}

#[test]
fn the_end_waits_for_those_that_end_later() {
    let (fanout, told) = fanout();
    let (id, reporter) = fanout.reserve();
    let taker = Box::new(TestTaker { end: Some(TakerEnd::Later), ..TestTaker::default() });
    fanout.add(TakerStart { id, streams: vec![VIDEO, AUDIO], taker, progress: Arc::default() });
    fanout.end_stream(VIDEO);
    fanout.end_stream(AUDIO);
    assert_eq!(events(&told), [""; 0]);
    reporter.ended();
    reporter.ended();
    reporter.failed(TakerError::Stream { message: "late".into() });
    assert_eq!(events(&told), ["ended 0", "Drained"]);
    assert!(matches!(fanout.push(unit(VIDEO, 0)), Ok(())));
    fanout.close();
    assert_eq!(fanout.push(unit(VIDEO, 0)), Err(gst::FlowError::Flushing));
    assert_eq!(events(&told), ["Flowing"]);
}

#[test]
fn raw_pictures_end_as_a_stream_behind_all_others() {
    let (tell, told) = channel();
    let tell = Mutex::new(tell);
    let fanout = Fanout::with_raw_pictures(formats(), move |event| drop(tell.lock().unwrap().send(event)));
    let pictures = fanout.raw_pictures().unwrap();
    assert_eq!(pictures, StreamNumber(2));
    add(&fanout, &[VIDEO, AUDIO], whole());
    add(&fanout, &[pictures], whole());
    fanout.raw_picture_to(40);
    assert_eq!(events(&told), [""; 0], "encoded units say how far the recording is");
    fanout.end_stream(VIDEO);
    fanout.end_stream(AUDIO);
    assert_eq!(events(&told), ["ended 0"], "the pictures have not ended");
    fanout.end_raw_pictures();
    fanout.end_raw_pictures();
    assert_eq!(events(&told), ["ended 1", "Drained"]);
}

#[test]
fn a_closed_fan_out_drops_what_it_has() {
    let (fanout, told) = fanout();
    let taker = whole();
    let dropped = taker.on_drop.dropped.clone();
    add(&fanout, &[VIDEO], taker);
    fanout.close();
    assert_eq!(*dropped.lock().unwrap(), 1);
    let late = whole();
    let dropped = late.on_drop.dropped.clone();
    add(&fanout, &[VIDEO], late);
    assert_eq!(*dropped.lock().unwrap(), 1);
    fanout.end_stream(VIDEO);
    fanout.end_stream(AUDIO);
    assert_eq!(events(&told), [""; 0]);
}

/// Two muxers end at once, and the first is still being dropped when the second has been told of.
#[test]
fn the_end_is_told_when_every_output_has_been_told_of() {
    let (fanout, told) = fanout();
    let (go, gone) = channel::<()>();
    let (dropping, dropped) = channel::<()>();
    let thread = std::thread::spawn(move || {
        gone.recv().unwrap();
        dropped.recv_timeout(Duration::from_secs(20)).unwrap();
    });
    let on_drop = OnDrop { dropped: Arc::default(), thread: Some((go, thread)) };
    let later = |on_drop| Box::new(TestTaker { end: Some(TakerEnd::Later), on_drop, ..TestTaker::default() });
    let ((slow, slow_reporter), (quick, quick_reporter)) = (fanout.reserve(), fanout.reserve());
    for (id, taker) in [(slow, later(on_drop)), (quick, later(OnDrop::default()))] {
        fanout.add(TakerStart { id, streams: vec![VIDEO], taker, progress: Arc::default() });
    }
    fanout.end_stream(VIDEO);
    fanout.end_stream(AUDIO);
    let slow = std::thread::spawn(move || slow_reporter.ended());
    let until = std::time::Instant::now() + Duration::from_secs(20);
    while fanout.state().ending.len() > 1 && std::time::Instant::now() < until {
        std::thread::yield_now();
    }
    quick_reporter.ended();
    assert_eq!(events(&told), ["ended 1"]);
    dropping.send(()).unwrap();
    slow.join().unwrap();
    assert_eq!(events(&told), ["ended 0", "Drained"]);
}

/// As a muxer's pipeline does: dropping it joins a thread that reports at this moment.
#[test]
fn an_output_is_dropped_while_its_own_thread_reports() {
    let (fanout, told) = fanout();
    let (id, reporter) = fanout.reserve();
    let (go, gone) = channel::<()>();
    let thread = std::thread::spawn(move || {
        gone.recv().unwrap();
        reporter.failed(TakerError::Stream { message: "echo".into() });
    });
    let on_drop = OnDrop { dropped: Arc::default(), thread: Some((go, thread)) };
    let taker = TestTaker { breaks_after: Some(0), on_drop, ..whole() };
    fanout.add(TakerStart { id, streams: vec![VIDEO], taker: Box::new(taker), progress: Arc::default() });
    let (done, finished) = channel();
    std::thread::spawn(move || {
        fanout.push(unit(VIDEO, 0)).unwrap();
        done.send(()).unwrap();
    });
    finished.recv_timeout(Duration::from_secs(20)).expect("no deadlock");
    assert_eq!(events(&told), ["Flowing", "failed 0 full"]);
}

#[test]
fn who_is_told_may_call_back() {
    let itself: Arc<OnceLock<Weak<Fanout>>> = Arc::default();
    let (weak, (tell, told)) = (itself.clone(), channel());
    let tell = Mutex::new(tell);
    let fanout = Fanout::new(formats(), move |event| {
        if let Some(fanout) = weak.get().and_then(Weak::upgrade) {
            fanout.remove(TakerId(1));
        }
        drop(tell.lock().unwrap().send(event));
    });
    itself.set(Arc::downgrade(&fanout)).unwrap();
    add(&fanout, &[VIDEO], TestTaker { breaks_after: Some(0), ..whole() });
    add(&fanout, &[VIDEO], whole());
    fanout.push(unit(VIDEO, 0)).unwrap();
    let told = events(&told);
    assert!(told.contains(&"ended 1".to_owned()) && told.contains(&"failed 0 full".to_owned()), "{told:?}");
}

/// Both encoders at once, one output that fails, one that is removed, one that comes later.
#[test]
fn two_threads_lose_nothing() {
    const UNITS: u64 = 2000;
    let (fanout, told) = fanout();
    let good = whole();
    let taken = good.taken.clone();
    add(&fanout, &[VIDEO, AUDIO], good);
    add(&fanout, &[VIDEO, AUDIO], TestTaker { breaks_after: Some(700), ..whole() });
    let removed = add(&fanout, &[AUDIO], whole());
    std::thread::scope(|threads| {
        for stream in [VIDEO, AUDIO] {
            let fanout = &fanout;
            threads.spawn(move || {
                (0..UNITS).for_each(|at| fanout.push(unit(stream, at)).unwrap());
                fanout.end_stream(stream);
            });
        }
        threads.spawn(|| {
            fanout.remove(removed);
            add(&fanout, &[AUDIO], whole());
        });
    });
    let taken = taken.lock().unwrap();
    for stream in [0, 1] {
        let times: Vec<u64> = taken.iter().filter(|(of, _)| *of == stream).map(|(_, at)| *at).collect();
        assert!(times.iter().copied().eq(0..UNITS), "stream {stream}");
    }
    let mut told = events(&told);
    told.sort();
    assert_eq!(told, ["Drained", "Flowing", "ended 0", "ended 2", "ended 3", "failed 1 full"]);
}
