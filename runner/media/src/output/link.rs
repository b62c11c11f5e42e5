//! Puts a file's pipeline together: the inputs, their encoders, and the muxer or our own MP4 writer behind them. Runs
//! once per file; the probes it installs run in GStreamer's threads.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use gst::prelude::*;
use gstreamer as gst;
use gstreamer_app as gst_app;
use spillway_ipc::SpoolFile;
use spillway_plan::{AudioCodec, Container};

use super::feed::{Feed, Mp4Output};
use super::progress::{MediaKind, PipelineEventFn, PipelineProgress};
use crate::element::{PipelineError, build};
use crate::encode::{self, AudioInputFormat, VideoInputFormat};
use crate::mux::{self, Mp4TrackKind, SpoolSink};
use crate::track::Codec;

/// What goes in and what comes out.
#[derive(Clone, Debug)]
pub struct PipelinePlan {
    /// Pictures, if the file has any.
    pub video: Option<VideoInputFormat>,
    /// Sound, if the file has any.
    pub audio: Option<AudioInputFormat>,
    /// What the file is.
    pub container: Container,
    /// Fragment length of MP4, milliseconds.
    pub fragment_ms: u64,
}

/// The ways in; what is not in the plan has none.
#[derive(Clone, Debug, Default)]
pub struct Feeds {
    /// For pictures.
    pub video: Option<Feed>,
    /// For sound.
    pub audio: Option<Feed>,
}

impl Feeds {
    fn set(&mut self, kind: MediaKind, feed: Feed) {
        match kind {
            MediaKind::Video => self.video = Some(feed),
            MediaKind::Audio => self.audio = Some(feed),
        }
    }
}

/// What writes the file.
pub(super) enum FileWriter {
    Sink(SpoolSink),
    Mp4(Arc<Mp4Output>),
}

/// Inputs that meet in a muxer of GStreamer's.
pub(super) fn muxed(
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
    let video = plan.video.as_ref().map(encode::video).transpose()?;
    let audio = plan.audio.as_ref().map(encode::audio).transpose()?;
    let two = video.is_some() && audio.is_some();
    let mut feeds = Feeds::default();
    for (kind, chain) in [(MediaKind::Video, video), (MediaKind::Audio, audio)] {
        let Some((appsrc, mut chain)) = chain else { continue };
        if two {
            chain.push(encode::queue()?);
        }
        let out = connect(pipeline, &appsrc, chain, &mux)?;
        if kind == MediaKind::Video
            && let Some(pad) = out.peer()
        {
            keep_first_caps(&pad);
        }
        let (progress, tell) = (progress.clone(), tell.clone());
        watch_buffers(&out, move |end_ns| progress.advance(kind, end_ns, &tell));
        feeds.set(kind, Feed::new(kind, appsrc));
    }
    Ok((FileWriter::Sink(sink), feeds))
}

/// Inputs that meet in our own MP4: encoded ones at the end of their encoder, copied ones directly.
pub(super) fn fragmented(
    plan: &PipelinePlan,
    pipeline: &gst::Pipeline,
    file: SpoolFile,
    progress: &Arc<PipelineProgress>,
    tell: &PipelineEventFn,
) -> Result<(FileWriter, Feeds), PipelineError> {
    let mut inputs = vec![];
    match &plan.video {
        Some(raw @ VideoInputFormat::Raw { encoding, .. }) => {
            let track = Mp4TrackKind::Video { codec: Codec::H264, size: (encoding.width, encoding.height) };
            inputs.push((MediaKind::Video, track, Some(encode::video(raw)?)));
        }
        Some(VideoInputFormat::Copied { codec, size }) => {
            inputs.push((MediaKind::Video, Mp4TrackKind::Video { codec: *codec, size: *size }, None));
        }
        None => {}
    }
    match &plan.audio {
        Some(AudioInputFormat::Raw { codec: AudioCodec::Mp3, .. }) => return Err(build("MP3 does not go into an MP4")),
        Some(raw @ AudioInputFormat::Raw { codec, frequency, .. }) => {
            let aac = *codec == AudioCodec::Aac;
            let track = if aac { Mp4TrackKind::Aac { rate: *frequency } } else { Mp4TrackKind::Opus };
            inputs.push((MediaKind::Audio, track, Some(encode::audio(raw)?)));
        }
        Some(AudioInputFormat::Copied { .. }) => inputs.push((MediaKind::Audio, Mp4TrackKind::Opus, None)),
        None => {}
    }
    let tracks: Vec<_> = inputs.iter().map(|(kind, track, _)| (*kind, *track)).collect();
    let out = Mp4Output::new(file, &tracks, plan.fragment_ms, progress.clone(), tell.clone());
    let mut feeds = Feeds::default();
    for (index, (kind, _, encoder)) in inputs.into_iter().enumerate() {
        let feed = match encoder {
            Some((appsrc, chain)) => {
                let sink = out.sink(kind, index);
                pipeline.add(&sink).map_err(build)?;
                connect(pipeline, &appsrc, chain, &sink)?;
                Feed::new(kind, appsrc)
            }
            None => Feed::direct(kind, index, out.clone()),
        };
        feeds.set(kind, feed);
    }
    Ok((FileWriter::Mp4(out), feeds))
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

/// A picture that changes its size may bring new caps, which muxers refuse. Key frames say their size themselves, so
/// the first label will do.
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
fn watch_buffers(pad: &gst::Pad, seen: impl Fn(u64) + Send + Sync + 'static) {
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
