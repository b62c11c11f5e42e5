//! From raw or encoded lanes to a file's bytes: `feed` (the ways in), `encode` (what GStreamer makes of them), and the
//! pipeline itself, whose one watcher turns bus messages into [`PipelineEvent`]s.
//!
//! No clock is asked anywhere: lanes carry their PTS, sinks do not wait.

mod black;
mod encode;
mod feed;
mod fragmented;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use gst::element_factory::ElementBuilder;
use gst::prelude::*;
use gstreamer as gst;
use gstreamer_app as gst_app;
use spillway_ipc::{SpoolError, SpoolFile};
use spillway_plan::{AudioCodec, Container, VideoEncoding};

pub use black::black;
pub use feed::{Feed, FeedError, MediaKind};
use fragmented::Fragmented;

use crate::mux::{self, Mp4TrackKind, SpoolSink, WriteProgress};
use crate::track::Codec;

/// What goes in and what comes out.
#[derive(Clone, Debug)]
pub struct PipelinePlan {
    pub video: Option<VideoInputFormat>,
    pub audio: Option<AudioInputFormat>,
    pub container: Container,
    /// Fragment length of MP4, milliseconds.
    pub fragment_ms: u64,
}

#[derive(Clone, Debug)]
pub enum VideoInputFormat {
    /// I420 pictures of exactly this size, one per output time.
    Raw { encoding: VideoEncoding, colour: Colour },
    /// Frames as [`crate::track::Frame`] defines them; `size` of the first key frame.
    Copied { codec: Codec, size: (u32, u32) },
}

#[derive(Clone, Debug)]
pub enum AudioInputFormat {
    /// F32 interleaved stereo at 48 kHz.
    Raw {
        codec: AudioCodec,
        /// Kilobits per second.
        bitrate: u32,
        /// Hertz.
        frequency: u32,
    },
    /// Opus goes in untouched; PCMU and PCMA, which no container of ours carries, become Opus.
    Copied { codec: Codec, channels: u8 },
}

/// What the pictures' numbers mean. A label only: nothing is converted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Colour {
    /// What WebRTC sends.
    #[default]
    Bt601,
    Bt709,
}

/// The ways in; a lane that is not in the plan has none.
#[derive(Clone, Debug, Default)]
pub struct Feeds {
    pub video: Option<Feed>,
    pub audio: Option<Feed>,
}

#[derive(Debug)]
pub enum PipelineEvent {
    /// The first encoded frame is on its way into the file.
    Flowing,
    /// Every lane ended and the muxer has written its last byte.
    Drained,
    /// Nothing is written any more; what was written stays.
    Broke(PipelineError),
}

#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    #[error("GStreamer has no element {name}")]
    Missing { name: &'static str },
    #[error("the pieces of the pipeline do not fit: {message}")]
    Build { message: String },
    #[error("{element}: {message}")]
    Element { element: String, message: String },
    #[error("keep the recording")]
    Write { source: SpoolError },
}

/// How far the file has come; readable from any thread.
#[derive(Debug, Default)]
pub struct PipelineProgress {
    video_ns: AtomicU64,
    audio_ns: AtomicU64,
    pictures: AtomicU64,
    flowing: AtomicBool,
    over: Mutex<bool>,
    over_now: Condvar,
}

type PipelineEventFn = Arc<dyn Fn(PipelineEvent) + Send + Sync>;

impl PipelineProgress {
    /// Where the file ends by its encoded frames, nanoseconds.
    pub fn media_ns(&self) -> u64 {
        self.video_ns.load(Ordering::Relaxed).max(self.audio_ns.load(Ordering::Relaxed))
    }

    /// Grows whenever either lane does: a picture far behind its sound is still work.
    pub fn worked(&self) -> u64 {
        self.video_ns.load(Ordering::Relaxed).saturating_add(self.audio_ns.load(Ordering::Relaxed))
    }

    /// The lane that is behind the other; what the muxer has surely seen of both.
    pub fn complete_ns(&self, video: bool, audio: bool) -> u64 {
        let of = |kind: &AtomicU64, there| if there { kind.load(Ordering::Relaxed) } else { u64::MAX };
        match of(&self.video_ns, video).min(of(&self.audio_ns, audio)) {
            u64::MAX => 0,
            ns => ns,
        }
    }

    pub fn pictures(&self) -> u64 {
        self.pictures.load(Ordering::Relaxed)
    }

    fn finish(&self) {
        *self.over.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.over_now.notify_all();
    }

    fn flow(&self, tell: &PipelineEventFn) {
        if !self.flowing.swap(true, Ordering::Relaxed) {
            tell(PipelineEvent::Flowing);
        }
    }
}

/// One file being made. Dropping it stops everything at once and closes the file; the bytes written so far stay written.
pub struct Pipeline {
    gst: gst::Pipeline,
    end: FileWriter,
    progress: Arc<PipelineProgress>,
}

/// What writes the file.
enum FileWriter {
    Sink(SpoolSink),
    Fragmented(Arc<Fragmented>),
}

impl Pipeline {
    /// `tell` is called from GStreamer's threads and must not wait.
    pub fn start(
        plan: &PipelinePlan,
        file: SpoolFile,
        tell: impl Fn(PipelineEvent) + Send + Sync + 'static,
    ) -> Result<(Self, Feeds), PipelineError> {
        let tell: PipelineEventFn = Arc::new(tell);
        let progress = Arc::new(PipelineProgress::default());
        let pipeline = gst::Pipeline::new();
        let (end, feeds) = if plan.container == Container::Mp4 {
            fragmented(plan, &pipeline, file, &progress, &tell)?
        } else {
            muxed(plan, &pipeline, file, &progress, &tell)?
        };
        let pipeline = Self { gst: pipeline, end, progress };
        pipeline.watch_bus(tell)?;
        pipeline.gst.set_state(gst::State::Playing).map_err(build)?;
        Ok((pipeline, feeds))
    }

    pub fn progress(&self) -> Arc<PipelineProgress> {
        self.progress.clone()
    }

    pub fn written(&self) -> Arc<WriteProgress> {
        match &self.end {
            FileWriter::Sink(sink) => sink.written(),
            FileWriter::Fragmented(out) => out.written(),
        }
    }

    /// Waits for the end of the file, drained or broken; false when it did not come.
    pub fn wait_drained(&self, reorder_wait: Duration) -> bool {
        let over = self.progress.over.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.progress.over_now.wait_timeout_while(over, reorder_wait, |over| !*over);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Stops and closes the file. After [`PipelineEvent::Drained`] it is whole; before, it is what a `kill -9` would
    /// have left.
    fn halt(&self) {
        // Going down cannot fail for our elements, and there is nobody to tell.
        let _ = self.gst.set_state(gst::State::Null);
        if let Some(bus) = self.gst.bus() {
            bus.unset_sync_handler();
        }
        match &self.end {
            FileWriter::Sink(sink) => sink.close(),
            FileWriter::Fragmented(out) => out.close(),
        }
    }

    /// The one place where bus messages are read.
    fn watch_bus(&self, tell: PipelineEventFn) -> Result<(), PipelineError> {
        let bus = self.gst.bus().ok_or_else(|| PipelineError::Build { message: "no bus".into() })?;
        let weak = self.gst.downgrade();
        let (written, progress) = (self.written(), self.progress.clone());
        let muxed = matches!(self.end, FileWriter::Sink(_));
        let broken = AtomicBool::new(false);
        bus.set_sync_handler(move |_, message| {
            match message.view() {
                // The end of the encoders is not yet the end of an MP4, which says it itself.
                gst::MessageView::Eos(_) if muxed => {
                    progress.finish();
                    tell(PipelineEvent::Drained);
                }
                // One fault makes several elements complain; the first one is the reason.
                gst::MessageView::Error(error) if !broken.swap(true, Ordering::AcqRel) => {
                    if let Some(pipeline) = weak.upgrade() {
                        // Feeders that wait in a full lane are let go. Not from here: this is a streaming thread.
                        pipeline.call_async(|pipeline| {
                            let _ = pipeline.set_state(gst::State::Null);
                        });
                    }
                    progress.finish();
                    tell(PipelineEvent::Broke(fault(error, &written)));
                }
                _ => {}
            }
            gst::BusSyncReply::Drop
        });
        Ok(())
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        self.halt();
    }
}

fn fault(error: &gst::message::Error, written: &WriteProgress) -> PipelineError {
    if error.error().matches(gst::ResourceError::Write)
        && let Some(source) = written.take_error()
    {
        return PipelineError::Write { source };
    }
    let element = error.src().map(|source| source.name().to_string()).unwrap_or_default();
    let message = match error.debug() {
        Some(debug) => format!("{} ({debug})", error.error()),
        None => error.error().to_string(),
    };
    PipelineError::Element { element, message }
}

/// Lanes that meet in a muxer of GStreamer's.
fn muxed(
    plan: &PipelinePlan,
    pipeline: &gst::Pipeline,
    file: SpoolFile,
    progress: &Arc<PipelineProgress>,
    tell: &PipelineEventFn,
) -> Result<(FileWriter, Feeds), PipelineError> {
    let sink = SpoolSink::new(file);
    let mux = mux::muxer(plan.container)?;
    pipeline.add_many([&mux, sink.upcast_ref()]).map_err(build)?;
    mux.link(&sink).map_err(build)?;
    let mut feeds = Feeds::default();
    let two = plan.video.is_some() && plan.audio.is_some();
    if let Some(video) = &plan.video {
        let (appsrc, mut chain) = encode::video(video)?;
        if two {
            chain.push(encode::queue()?);
        }
        let out = connect(pipeline, &appsrc, chain, &mux)?;
        if let Some(pad) = out.peer() {
            keep_first_caps(&pad);
        }
        let (progress, tell) = (progress.clone(), tell.clone());
        watch_lane(&out, move |ns| {
            progress.video_ns.fetch_max(ns, Ordering::Relaxed);
            progress.pictures.fetch_add(1, Ordering::Relaxed);
            progress.flow(&tell);
        });
        feeds.video = Some(Feed::new(MediaKind::Video, appsrc));
    }
    if let Some(audio) = &plan.audio {
        let (appsrc, mut chain) = encode::audio(audio)?;
        if two {
            chain.push(encode::queue()?);
        }
        let out = connect(pipeline, &appsrc, chain, &mux)?;
        let (progress, tell) = (progress.clone(), tell.clone());
        watch_lane(&out, move |ns| {
            progress.audio_ns.fetch_max(ns, Ordering::Relaxed);
            progress.flow(&tell);
        });
        feeds.audio = Some(Feed::new(MediaKind::Audio, appsrc));
    }
    Ok((FileWriter::Sink(sink), feeds))
}

/// Lanes that meet in our own MP4: encoded ones at the end of their encoder, copied ones directly.
fn fragmented(
    plan: &PipelinePlan,
    pipeline: &gst::Pipeline,
    file: SpoolFile,
    progress: &Arc<PipelineProgress>,
    tell: &PipelineEventFn,
) -> Result<(FileWriter, Feeds), PipelineError> {
    let mut lanes = vec![];
    match &plan.video {
        Some(VideoInputFormat::Raw { encoding, .. }) => {
            let size = (encoding.width, encoding.height);
            lanes.push((MediaKind::Video, Mp4TrackKind::Video { codec: Codec::H264, size }));
        }
        Some(VideoInputFormat::Copied { codec, size }) => {
            lanes.push((MediaKind::Video, Mp4TrackKind::Video { codec: *codec, size: *size }));
        }
        None => {}
    }
    match &plan.audio {
        Some(AudioInputFormat::Raw { codec: AudioCodec::Aac, frequency, .. }) => {
            lanes.push((MediaKind::Audio, Mp4TrackKind::Aac { rate: *frequency }));
        }
        Some(AudioInputFormat::Raw { codec: AudioCodec::Mp3, .. }) => return Err(build("MP3 does not go into an MP4")),
        Some(_) => lanes.push((MediaKind::Audio, Mp4TrackKind::Opus)),
        None => {}
    }
    let out = Fragmented::new(file, &lanes, plan.fragment_ms, progress.clone(), tell.clone());
    let mut feeds = Feeds::default();
    for (index, (kind, _)) in lanes.into_iter().enumerate() {
        let encoded = match kind {
            MediaKind::Video => {
                plan.video.as_ref().filter(|video| matches!(video, VideoInputFormat::Raw { .. })).map(encode::video)
            }
            MediaKind::Audio => {
                plan.audio.as_ref().filter(|audio| matches!(audio, AudioInputFormat::Raw { .. })).map(encode::audio)
            }
        };
        let feed = match encoded.transpose()? {
            Some((appsrc, chain)) => {
                let sink = out.sink(kind, index, &gst::Caps::new_any());
                pipeline.add(&sink).map_err(build)?;
                connect(pipeline, &appsrc, chain, &sink)?;
                Feed::new(kind, appsrc)
            }
            None => Feed::straight(kind, index, out.clone()),
        };
        match kind {
            MediaKind::Video => feeds.video = Some(feed),
            MediaKind::Audio => feeds.audio = Some(feed),
        }
    }
    Ok((FileWriter::Fragmented(out), feeds))
}

/// Links `appsrc`, the chain and what follows; gives the pad before that.
fn connect(
    pipeline: &gst::Pipeline,
    appsrc: &gst_app::AppSrc,
    chain: Vec<gst::Element>,
    next: &gst::Element,
) -> Result<gst::Pad, PipelineError> {
    pipeline.add(appsrc).map_err(build)?;
    let mut last: gst::Element = appsrc.clone().upcast();
    for element in chain {
        pipeline.add(&element).map_err(build)?;
        last.link(&element).map_err(build)?;
        last = element;
    }
    last.link(next).map_err(build)?;
    last.static_pad("src").ok_or_else(|| PipelineError::Build { message: "a chain without an end".into() })
}

/// A picture that changes its size may bring new caps, which muxers refuse. Key frames say their size themselves, so the
/// first label will do.
fn keep_first_caps(pad: &gst::Pad) {
    let seen = AtomicBool::new(false);
    pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| match &info.data {
        Some(gst::PadProbeData::Event(event))
            if event.type_() == gst::EventType::Caps && seen.swap(true, Ordering::Relaxed) =>
        {
            // Taken rather than dropped: the event was released twice otherwise (GStreamer 1.22).
            info.data = None;
            gst::PadProbeReturn::Handled
        }
        _ => gst::PadProbeReturn::Ok,
    });
}

/// Calls `seen` with the running time at the end of every buffer. Running time, because x264enc moves its time stamps
/// and its segment by a thousand hours.
fn watch_lane(pad: &gst::Pad, seen: impl Fn(u64) + Send + Sync + 'static) {
    let segment = Mutex::new(gst::FormattedSegment::<gst::ClockTime>::new());
    pad.add_probe(gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
        let Ok(mut segment) = segment.lock() else { return gst::PadProbeReturn::Ok };
        match &info.data {
            Some(gst::PadProbeData::Event(event)) => {
                if let gst::EventView::Segment(new) = event.view()
                    && let Some(new) = new.segment().downcast_ref::<gst::ClockTime>()
                {
                    *segment = new.clone();
                }
            }
            Some(gst::PadProbeData::Buffer(buffer)) => {
                if let Some(at) = segment.to_running_time(buffer.pts()) {
                    seen((at + buffer.duration().unwrap_or_default()).nseconds());
                }
            }
            _ => {}
        }
        gst::PadProbeReturn::Ok
    });
}

fn build(error: impl std::fmt::Display) -> PipelineError {
    PipelineError::Build { message: error.to_string() }
}

/// An element by its factory's name.
pub(crate) fn make(
    name: &'static str,
    set: impl for<'a> FnOnce(ElementBuilder<'a>) -> ElementBuilder<'a>,
) -> Result<gst::Element, PipelineError> {
    set(gst::ElementFactory::make(name)).build().map_err(|_| PipelineError::Missing { name })
}
