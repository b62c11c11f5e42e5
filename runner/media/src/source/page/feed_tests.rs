use std::sync::mpsc::{Receiver, Sender, channel};

use super::*;
use crate::output::FeedError;
use crate::source::page::units::{PageFrame, PageRect, PageSamples, monotonic};

/// Time, length, first byte of each buffer; `None`: the end.
type Given = Option<(u64, u64, Vec<u8>)>;

struct Collected(Sender<Given>);

impl RawSink for Collected {
    fn push(&self, buffer: gst::Buffer) -> Result<(), FeedError> {
        let at = buffer.pts().unwrap().nseconds();
        let length = buffer.duration().unwrap().nseconds();
        let bytes = buffer.map_readable().unwrap().to_vec();
        self.0.send(Some((at, length, bytes))).unwrap();
        Ok(())
    }

    fn end(&self) {
        self.0.send(None).unwrap();
    }
}

fn sink() -> (Option<Box<dyn RawSink>>, Receiver<Given>) {
    let (given, taken) = channel();
    (Some(Box::new(Collected(given))), taken)
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn frame(at: Duration, number: u8) -> PageFrame {
    PageFrame { at, data: vec![number; 16], damage: PageRect::default() }
}

fn options(repeats: bool) -> PageFeedOptions {
    PageFeedOptions { framerate: 30, repeats, key_grid: None, lead: 0 }
}

/// Output, how many of them, and number of each picture until the end.
fn pictures(taken: &Receiver<Given>) -> Vec<(u64, u64, u8)> {
    let number = |ns: u64| (ns + 16_666_666) / 33_333_333;
    let all = std::iter::from_fn(|| taken.recv_timeout(Duration::from_secs(10)).unwrap());
    all.map(|(at, length, bytes)| (number(at), number(length), bytes[0])).collect()
}

/// A page that began three seconds ago, with these pictures.
fn page(pictures: &[(u64, u8)]) -> (Arc<PictureQueue>, Arc<SampleQueue>, Duration) {
    gst::init().unwrap();
    let began = monotonic() - ms(3000);
    let queue = Arc::new(PictureQueue::new(30, 16));
    queue.begin(began, || vec![0; 16]);
    pictures.iter().for_each(|(at, number)| queue.put(frame(began + ms(*at), *number)));
    (queue, Arc::default(), began)
}

#[test]
fn a_file_gets_a_still_picture_as_long_as_it_stands_but_each_second() {
    let (queue, samples, began) = page(&[(500, 1), (533, 2)]);
    let (video, taken) = sink();
    let feed = PageFeed::start((queue, samples), began, options(false), video, None).unwrap();
    feed.end_at(MediaTime::from_ns(2_700_000_000));
    // The machine is not late: everything lies in the past, so the first is thinned; what stands is shown all the same.
    let given = pictures(&taken);
    assert_eq!(given.iter().map(|(_, length, _)| length).sum::<u64>(), 81);
    assert_eq!((given[0].0, given.last().unwrap().2), (0, 2));
    assert!(given.iter().all(|(_, length, _)| *length <= 33), "{given:?}");
    assert!(given.len() <= 6, "{given:?}");
}

#[test]
fn what_is_watched_gets_a_picture_at_every_output() {
    gst::init().unwrap();
    let (queue, samples) = (Arc::new(PictureQueue::new(30, 16)), Arc::<SampleQueue>::default());
    let began = monotonic();
    queue.begin(began, || vec![7; 16]);
    let (video, taken) = sink();
    let feed = PageFeed::start((queue.clone(), samples), began, options(true), video, None).unwrap();
    std::thread::sleep(ms(100));
    queue.put(frame(began + ms(100), 8));
    feed.end_at(MediaTime::from_ns(300_000_000));
    let given = pictures(&taken);
    assert_eq!(
        given.iter().map(|(slot, length, _)| (*slot, *length)).collect::<Vec<_>>(),
        (0..9).map(|n| (n, 1)).collect::<Vec<_>>()
    );
    assert_eq!(given.iter().map(|(_, _, number)| *number).collect::<Vec<_>>(), [7, 7, 7, 8, 8, 8, 8, 8, 8]);
    let stats = feed.stats();
    assert_eq!((stats.pictures, stats.distinct_frames, stats.frames_skipped), (9, 2, 0));
}

#[test]
fn a_late_machine_makes_fewer_pictures_evenly() {
    let all: Vec<(u64, u8)> = (1..60).map(|n| (n * 1000 / 30, n as u8)).collect();
    let (queue, samples, began) = page(&all);
    let (video, taken) = sink();
    let feed = PageFeed::start((queue, samples), began, options(false), video, None).unwrap();
    feed.end_at(MediaTime::from_ns(2_000_000_000));
    let given = pictures(&taken);
    assert_eq!(given.iter().map(|(_, length, _)| length).sum::<u64>(), 60);
    // 2.7 s late: one of four.
    assert!((14..=35).contains(&given.len()), "{given:?}");
    assert!(given.windows(2).all(|pair| pair[0].0 + pair[0].1 == pair[1].0), "{given:?}");
    let stats = feed.stats();
    assert!(stats.frames_skipped > 20 && stats.longest_lag_ns > 2_000_000_000, "{stats:?}");
}

#[test]
fn sound_comes_whole_from_its_beginning_less_the_lead() {
    let (queue, samples, began) = page(&[]);
    samples.begin(began);
    for n in 0..25u64 {
        let at = began + ms(20 * n);
        samples.put(PageSamples { at, samples: vec![n as f32 / 100.0; 960 * 2] });
    }
    let (audio, taken) = sink();
    let lead = 1115;
    let options = PageFeedOptions { lead, ..options(false) };
    let feed = PageFeed::start((queue, samples), began, options, None, audio).unwrap();
    feed.end_at(MediaTime::from_ns(400_000_000));
    let given: Vec<(u64, u64, Vec<u8>)> =
        std::iter::from_fn(|| taken.recv_timeout(Duration::from_secs(10)).unwrap()).collect();
    let samples: usize = given.iter().map(|(_, _, bytes)| bytes.len() / 8).sum();
    assert_eq!((samples, given.len(), given[0].0, given[1].0), (19_200, 4, 0, 100_000_000));
    let first = f32::from_le_bytes(given[0].2[..4].try_into().unwrap());
    assert!((first - 0.01).abs() < 1e-6, "sample 1115 is of the second block: {first}");
    assert_eq!(feed.stats().sound_ns, 400_000_000);
}

#[test]
fn given_up_it_ends_its_feeds() {
    gst::init().unwrap();
    let (queue, samples) = (Arc::new(PictureQueue::new(30, 16)), Arc::<SampleQueue>::default());
    let ((video, pictures), (audio, sound)) = (sink(), sink());
    let feed = PageFeed::start((queue, samples), monotonic(), options(false), video, audio).unwrap();
    drop(feed);
    assert_eq!((pictures.recv().unwrap(), sound.recv().unwrap()), (None, None));
}
