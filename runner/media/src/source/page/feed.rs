//! A page's pictures and sound into the recording's encoders: the output side that a compositor has for a room. In: the page's
//! queues. Out: raw pictures and sound with times from 0 on, into [`RawSink`]s. Two threads of its own, which wait for the
//! encoders and for no one else.
//!
//! A file gets a picture that stands still as one long picture, and again each second; what is watched gets it at every output
//! time. A machine that cannot keep up costs pictures evenly and never sound.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use gstreamer as gst;

use super::pictures::{PictureQueue, PictureTurn};
use super::samples::SampleQueue;
use super::slots::slot_ns;
use super::units::monotonic;
use crate::compositor::{CompositorStats, DegradationBounds, DegradationPolicy, LiveRule, StatsCounter};
use crate::key_grid::KeyGrid;
use crate::output::{RawSink, sound_buffer};
use crate::units::{MediaTime, SampleIndex};

/// The queue of pictures holds 2 s, and a picture is made 0.3 s after its time: before it is full, fewer are made.
const BOUNDS: DegradationBounds =
    DegradationBounds { half_above_ns: 700_000_000, lower_above_ns: u64::MAX, quarter_above_ns: 1_200_000_000 };
/// Below −60 dB it is silence.
const HEARD: f32 = 0.001;
/// Stereo samples given at once.
const PARCEL: usize = 4800;

/// How pictures are made.
#[derive(Clone, Copy, Debug)]
pub struct PageFeedOptions {
    /// Output times a second.
    pub framerate: u32,
    /// A picture that stands still is made at every output time.
    pub repeats: bool,
    /// Where pictures are needed whatever the machine can do.
    pub key_grid: Option<KeyGrid>,
    /// Samples at 48 kHz by which the encoders of the sound delay without saying so.
    pub lead: u32,
}

/// What the threads share with their owner.
struct FeedState {
    pictures: Arc<PictureQueue>,
    samples: Arc<SampleQueue>,
    stats: StatsCounter,
    live: Mutex<LiveRule>,
    picture_lag_ns: AtomicU64,
    max_lag_ns: AtomicU64,
}

/// Both threads. Dropping it gives them up: the feeds are ended.
pub struct PageFeed {
    state: Arc<FeedState>,
    /// CLOCK_MONOTONIC of output time 0.
    began: Duration,
    lead: u32,
    threads: Vec<JoinHandle<()>>,
}

impl PageFeed {
    /// Feeds what there is a sink for. `began`: the moment of output time 0, CLOCK_MONOTONIC.
    ///
    /// # Errors
    ///
    /// The system has no thread left. Nothing runs then.
    pub fn start(
        (pictures, samples): (Arc<PictureQueue>, Arc<SampleQueue>),
        began: Duration,
        options: PageFeedOptions,
        video: Option<Box<dyn RawSink>>,
        audio: Option<Box<dyn RawSink>>,
    ) -> io::Result<Self> {
        let state = Arc::new(FeedState {
            pictures,
            samples,
            stats: StatsCounter::default(),
            live: Mutex::default(),
            picture_lag_ns: AtomicU64::new(0),
            max_lag_ns: AtomicU64::new(0),
        });
        let mut feed = Self { state, began, lead: options.lead, threads: vec![] };
        match video {
            Some(sink) => {
                let thread = PictureThread::new(feed.state.clone(), options, sink);
                feed.threads.push(spawn("page pictures", move || thread.run())?);
            }
            None => feed.state.pictures.close(),
        }
        match audio {
            Some(sink) => {
                let (state, sink) = (feed.state.clone(), EndedSink(sink));
                feed.threads.push(spawn("page sound out", move || feed_sound(&state, options.lead, sink.0.as_ref()))?);
            }
            None => feed.state.samples.close(),
        }
        Ok(feed)
    }

    /// The recording ends at this moment; the first end counts. What belongs before it is made, then the feeds are ended.
    pub fn end_at(&self, end: MediaTime) {
        let at = self.began + Duration::from_nanos(end.ns());
        self.state.pictures.end_at(at);
        self.state.samples.end_at(at, self.lead);
    }

    /// Whether a stream is watched; pictures left out are counted as its.
    pub fn set_live(&self, live: LiveRule) {
        *self.state.live.lock().unwrap_or_else(PoisonError::into_inner) = live;
    }

    /// Counters at this moment; cheap, from any thread.
    pub fn stats(&self) -> CompositorStats {
        let (mut stats, picture_at, _) = self.state.stats.read();
        stats.started = Some(MediaTime::ZERO);
        stats.picture_ns = picture_at.map_or(0, MediaTime::ns);
        stats.lag_ns = self.state.picture_lag_ns.load(Relaxed);
        stats.longest_lag_ns = stats.longest_lag_ns.max(self.state.max_lag_ns.load(Relaxed));
        stats.frames_skipped += self.state.pictures.no_room();
        stats
    }

    /// The moment of the recording that is now.
    pub fn now(&self) -> MediaTime {
        monotonic().saturating_sub(self.began).into()
    }

    /// Silence that stands for sound which never came.
    pub fn missing_sound_ms(&self) -> u64 {
        self.state.samples.missing_ms()
    }
}

impl Drop for PageFeed {
    fn drop(&mut self) {
        self.state.pictures.close();
        self.state.samples.close();
        for thread in self.threads.drain(..) {
            // A panic is told by its thread's end, which ends the feed.
            let _ = thread.join();
        }
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    // What a thread says belongs to the recording that started it.
    let span = tracing::Span::current();
    Builder::new().name(name.to_owned()).spawn(move || span.in_scope(work))
}

/// Ends its feed however the thread ends.
struct EndedSink(Box<dyn RawSink>);

impl Drop for EndedSink {
    fn drop(&mut self) {
        self.0.end();
    }
}

struct PictureThread {
    state: Arc<FeedState>,
    options: PageFeedOptions,
    sink: EndedSink,
    degradation: DegradationPolicy,
}

/// What is shown now.
struct ShownPicture {
    picture: gst::Buffer,
    /// The first output that it is not made for yet.
    from: u64,
    /// It was not made at all yet.
    is_new: bool,
}

impl PictureThread {
    fn new(state: Arc<FeedState>, options: PageFeedOptions, sink: Box<dyn RawSink>) -> Self {
        Self { state, options, sink: EndedSink(sink), degradation: DegradationPolicy::default() }
    }

    fn run(mut self) {
        let mut shown: Option<ShownPicture> = None;
        loop {
            let still_to = shown.as_ref().map_or(u64::MAX, |shown| shown.from + self.still());
            let turn = self.state.pictures.next(still_to);
            let goes_on = match (turn, &mut shown) {
                (PictureTurn::Picture(queued), shown) => {
                    self.look_at_lag(queued.slot);
                    let earliest = shown.as_ref().map_or(queued.slot, |shown| shown.from.max(queued.slot));
                    let from = self.next_made(earliest);
                    let goes_on = shown.as_mut().is_none_or(|shown| self.make(shown, from));
                    let picture = gst::Buffer::from_mut_slice(queued.picture);
                    *shown = Some(ShownPicture { picture, from, is_new: true });
                    goes_on
                }
                (PictureTurn::Still, Some(shown)) => {
                    self.look_at_lag(still_to);
                    self.make(shown, still_to)
                }
                (PictureTurn::Over(end), shown) => {
                    if let Some(shown) = shown {
                        self.make(shown, end);
                    }
                    false
                }
                (PictureTurn::Closed, _) => false,
                (PictureTurn::Still, None) => true,
            };
            if !goes_on {
                return;
            }
        }
    }

    fn look_at_lag(&mut self, slot: u64) {
        let lag = u64::try_from(self.state.pictures.lag(slot).as_nanos()).unwrap_or(u64::MAX);
        self.state.picture_lag_ns.store(lag, Relaxed);
        self.state.max_lag_ns.fetch_max(lag, Relaxed);
        self.degradation.on(lag, BOUNDS);
    }

    /// The first output from `slot` on that is made at this lag.
    fn next_made(&self, slot: u64) -> u64 {
        // Of four outputs one is always made.
        (slot..slot.saturating_add(4)).find(|slot| self.is_made(*slot)).unwrap_or(slot)
    }

    fn is_made(&self, slot: u64) -> bool {
        let at = |slot| slot_ns(slot, self.options.framerate);
        let has_line = |grid: KeyGrid| grid.has_line_in(if slot == 0 { 0 } else { at(slot - 1) + 1 }, at(slot) + 1);
        !self.degradation.skips(slot) || self.options.key_grid.is_some_and(has_line)
    }

    /// Shows it up to and without this output. False: the feed takes nothing more.
    fn make(&self, shown: &mut ShownPicture, to: u64) -> bool {
        if to <= shown.from {
            // Another one takes its place before it was seen.
            self.skipped(u64::from(shown.is_new));
            return true;
        }
        while shown.from < to {
            let from = shown.from;
            let until = to.min(from + self.still());
            if self.options.repeats && !self.is_made(from) {
                self.skipped(1);
                shown.from = until;
            } else if !self.push(shown, from, until) {
                return false;
            }
        }
        true
    }

    /// Outputs for which a picture that stands still is made once.
    fn still(&self) -> u64 {
        if self.options.repeats { 1 } else { u64::from(self.options.framerate.max(1)) }
    }

    fn push(&self, shown: &mut ShownPicture, from: u64, to: u64) -> bool {
        let at = |slot| slot_ns(slot, self.options.framerate);
        let moment = MediaTime::from_ns(at(from));
        self.state.stats.on_picture_time(moment, 0);
        // A page that stands still is no freeze.
        self.state.stats.on_picture(moment, shown.is_new, false, None);
        (shown.is_new, shown.from) = (false, to);
        let mut picture = shown.picture.copy();
        // A copy that shares memory: its times are ours to write.
        let fresh = picture.make_mut();
        fresh.set_pts(gst::ClockTime::from_nseconds(at(from)));
        fresh.set_duration(gst::ClockTime::from_nseconds(at(to) - at(from)));
        self.sink.0.push(picture).is_ok()
    }

    fn skipped(&self, pictures: u64) {
        let live = *self.state.live.lock().unwrap_or_else(PoisonError::into_inner);
        self.state.stats.on_skipped(pictures, live.is_on());
    }
}

fn feed_sound(state: &FeedState, lead: u32, sink: &dyn RawSink) {
    // The encoders delay by the lead: so much of the beginning is never heard.
    let mut unheard = 2 * lead as usize;
    let (mut parcel, mut given): (Vec<f32>, i64) = (Vec::with_capacity(2 * PARCEL), 0);
    loop {
        let samples = state.samples.next();
        let is_over = samples.is_none();
        for sample in samples.unwrap_or_default() {
            if unheard > 0 {
                unheard -= 1;
                continue;
            }
            parcel.push(sample);
            if parcel.len() == 2 * PARCEL && !push_sound(state, &mut parcel, &mut given, sink) {
                return;
            }
        }
        if is_over {
            push_sound(state, &mut parcel, &mut given, sink);
            return;
        }
    }
}

/// False: the feed takes nothing more.
fn push_sound(state: &FeedState, parcel: &mut Vec<f32>, given: &mut i64, sink: &dyn RawSink) -> bool {
    let length = (parcel.len() / 2) as i64;
    if length == 0 {
        return true;
    }
    let output = |sample: i64| SampleIndex::new(sample).time();
    let (from, to) = (output(*given), output(*given + length));
    *given += length;
    let is_heard = parcel.iter().any(|sample| sample.abs() > HEARD);
    state.stats.on_sound(from, to.ns_since(from), is_heard, 0);
    let buffer = sound_buffer(parcel, from.ns(), to.ns());
    parcel.clear();
    sink.push(buffer).is_ok()
}

#[cfg(test)]
#[path = "feed_tests.rs"]
mod tests;
