//! Image outputs with real encoders and a fan-out around them.

use std::fs;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use gstreamer as gst;

use super::*;
use crate::output::{Fanout, PipelineEvent, RawPictures, RawSink, TakerId, TakerStart};

const SECOND_NS: u64 = 1_000_000_000;
const FROM: (u32, u32) = (320, 180);

type Told = Arc<Mutex<Vec<CapturedImage>>>;

struct Output {
    fanout: Arc<Fanout>,
    taker: TakerId,
    way: Option<Box<dyn RawTaker>>,
    told: Told,
    events: Receiver<PipelineEvent>,
    next_n: Arc<AtomicU32>,
}

fn output(folder: &std::path::Path, next_n: u32) -> Output {
    gst::init().unwrap();
    let (tell, events) = channel();
    let tell = Mutex::new(tell);
    let fanout = Fanout::with_raw_pictures(vec![], move |event| drop(tell.lock().unwrap().send(event)));
    let options = ImageTakerOptions {
        output: 2,
        folder: folder.to_owned(),
        codec: ImageCodec::Jpeg,
        interval_ns: SECOND_NS,
        from: FROM,
        to: (160, 90),
        next_n: Arc::new(AtomicU32::new(next_n)),
        facts: TrackFacts { publisher_identity: "ann".into(), ..TrackFacts::default() },
    };
    let (told, next_n) = (Told::default(), options.next_n.clone());
    let tell = told.clone();
    let (id, reporter) = fanout.reserve();
    let progress = Arc::<TakerProgress>::default();
    let report: ImageReportFn = Arc::new(move |image| tell.lock().unwrap().push(image));
    let (taker, way) = start(options, reporter, progress.clone(), report).unwrap();
    let streams = fanout.raw_pictures().into_iter().collect();
    fanout.add(TakerStart { id, streams, taker: Box::new(taker), progress });
    Output { fanout, taker: id, way: Some(way), told, events, next_n }
}

fn picture(at_ns: u64) -> gst::Buffer {
    let mut picture = gst::Buffer::from_mut_slice(vec![128u8; (FROM.0 * FROM.1 * 3 / 2) as usize]);
    let fresh = picture.make_mut();
    fresh.set_pts(gst::ClockTime::from_nseconds(at_ns));
    fresh.set_duration(gst::ClockTime::from_nseconds(SECOND_NS / 10));
    picture
}

/// Waits until so many images are made.
fn made(told: &Told, count: usize) {
    for _ in 0..500 {
        if told.lock().unwrap().len() >= count {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("{:?}", told.lock().unwrap());
}

fn events(events: &Receiver<PipelineEvent>, count: usize) -> Vec<String> {
    let next = || events.recv_timeout(Duration::from_secs(5)).map(|event| format!("{event:?}"));
    (0..count).map(|_| next().unwrap()).collect()
}

#[test]
fn a_picture_a_second_becomes_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let mut output = output(folder.path(), 0);
    let way: Vec<_> = output.way.take().into_iter().collect();
    let pictures = RawPictures::new(None, way, output.fanout.clone());
    for n in 0..31 {
        pictures.push(picture(n * SECOND_NS / 10)).unwrap();
        // The next one must not replace it.
        made(&output.told, (n / 10 + 1) as usize);
    }
    pictures.end();
    assert_eq!(events(&output.events, 3), ["Flowing", "TakerEnded(TakerId(0))", "Drained"]);
    let told = output.told.lock().unwrap();
    let said: Vec<_> = told.iter().map(|image| (image.output, image.n, image.at_ns / SECOND_NS)).collect();
    assert_eq!(said, [(2, 0, 0), (2, 1, 1), (2, 2, 2), (2, 3, 3)]);
    assert_eq!(told[0].facts.as_ref().map(|facts| facts.publisher_identity.as_str()), Some("ann"));
    assert!(told[1].facts.is_none());
    for image in told.iter() {
        let file = fs::read(folder.path().join(format!("2-{}.jpeg", image.n))).unwrap();
        assert_eq!((file.len() as u64, &file[..3]), (image.bytes, &b"\xff\xd8\xff"[..]));
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 4);
    assert_eq!(output.fanout.progress().media_ns(), 3 * SECOND_NS + SECOND_NS / 10);
}

#[test]
fn another_recorder_goes_on_counting() {
    let folder = tempfile::tempdir().unwrap();
    let mut output = output(folder.path(), 7);
    output.way.take().unwrap().take(&picture(0));
    made(&output.told, 1);
    output.fanout.remove(output.taker);
    assert_eq!(events(&output.events, 1), ["TakerEnded(TakerId(0))"]);
    assert!(folder.path().join("2-7.jpeg").is_file());
    assert_eq!(output.next_n.load(Ordering::Relaxed), 8);
}

#[test]
fn a_disk_that_takes_nothing_is_the_end_after_three_images() {
    let folder = tempfile::tempdir().unwrap();
    let mut output = output(&folder.path().join("none"), 0);
    let way = output.way.take().unwrap();
    let failed = (0..50).find_map(|n| {
        way.take(&picture(n * SECOND_NS));
        output.events.recv_timeout(Duration::from_millis(200)).ok()
    });
    assert!(matches!(failed, Some(PipelineEvent::TakerFailed(_, TakerError::Write(_)))), "{failed:?}");
    assert!(output.told.lock().unwrap().is_empty());
}
