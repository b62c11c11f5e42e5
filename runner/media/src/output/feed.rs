//! The way of buffers into a file: into a pipeline's `appsrc`, or, for copied frames of an MP4, straight into our own
//! muxer. Called from the recorder's thread (copied) and the mixers' threads (composed, which block here); encoded
//! frames come back from GStreamer's threads.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use gst::prelude::*;
use gstreamer as gst;
use gstreamer_app as gst_app;
use spillway_ipc::{SpoolError, SpoolFile};

use super::progress::{MediaKind, PipelineEvent, PipelineEventFn, PipelineProgress};
use crate::element::PipelineError;
use crate::mux::{Mp4, Mp4TrackKind};

/// Where composed pictures and sound go: a [`Feed`]; in tests something that looks at them.
pub trait RawSink: Send {
    /// Blocks while enough waits there.
    ///
    /// # Errors
    ///
    /// When nothing more is taken: it ended, broke, or was dropped.
    fn push(&self, buffer: gst::Buffer) -> Result<(), FeedError>;
    /// Nothing comes any more.
    fn end(&self);
}

impl RawSink for Feed {
    fn push(&self, buffer: gst::Buffer) -> Result<(), FeedError> {
        Feed::push(self, buffer)
    }

    fn end(&self) {
        Feed::end(self);
    }
}

/// The pipeline takes nothing more: it ended, broke or was dropped. Not a fault of its own: the reason is in a
/// [`PipelineEvent`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the {0} input of the pipeline is closed")]
pub struct FeedError(pub MediaKind);

/// One input of the pipeline. A raw one holds few buffers and makes its feeder wait; a copied one holds what
/// it is given, for its feeder must not wait, and says how much that is.
#[derive(Clone, Debug)]
pub struct Feed {
    kind: MediaKind,
    way: FeedTarget,
}

#[derive(Clone)]
enum FeedTarget {
    Elements(gst_app::AppSrc),
    /// Nothing between us and the file.
    File {
        out: Arc<Mp4Output>,
        index: usize,
    },
}

impl fmt::Debug for FeedTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Elements(_) => "elements",
            Self::File { .. } => "file",
        })
    }
}

impl Feed {
    pub(super) fn new(kind: MediaKind, appsrc: gst_app::AppSrc) -> Self {
        Self { kind, way: FeedTarget::Elements(appsrc) }
    }

    pub(super) fn direct(kind: MediaKind, index: usize, out: Arc<Mp4Output>) -> Self {
        Self { kind, way: FeedTarget::File { out, index } }
    }

    /// `buffer` has its PTS: nanoseconds since the beginning of the file, already decided by the timeline. Blocks while
    /// a raw input is full.
    ///
    /// # Errors
    ///
    /// When the file takes nothing more: it ended, broke, or was dropped.
    pub fn push(&self, buffer: gst::Buffer) -> Result<(), FeedError> {
        let pushed = match &self.way {
            FeedTarget::Elements(appsrc) => appsrc.push_buffer(buffer).map(|_| ()),
            FeedTarget::File { out, index } => match buffer.pts() {
                Some(at) => out.push(self.kind, *index, &buffer, at.nseconds()),
                None => Ok(()),
            },
        };
        pushed.map_err(|_| FeedError(self.kind))
    }

    /// Nothing comes any more.
    pub fn end(&self) {
        match &self.way {
            // Refused only by an input that is closed already.
            FeedTarget::Elements(appsrc) => drop(appsrc.end_of_stream()),
            FeedTarget::File { out, .. } => out.end(self.kind),
        }
    }

    /// Bytes given and not yet taken by the pipeline.
    pub fn waiting_bytes(&self) -> u64 {
        match &self.way {
            FeedTarget::Elements(appsrc) => appsrc.current_level_bytes(),
            FeedTarget::File { .. } => 0,
        }
    }
}

/// The file and who still writes into it.
pub(super) struct Mp4Output {
    state: Mutex<WriterState>,
    progress: Arc<PipelineProgress>,
    tell: PipelineEventFn,
}

struct WriterState {
    /// `None`: over.
    mp4: Option<Mp4>,
    open: Vec<MediaKind>,
}

impl Mp4Output {
    /// `inputs`: what goes in, in the order of the file's tracks.
    pub fn new(
        file: SpoolFile,
        inputs: &[(MediaKind, Mp4TrackKind)],
        fragment_ms: u64,
        progress: Arc<PipelineProgress>,
        tell: PipelineEventFn,
    ) -> Arc<Self> {
        let kinds: Vec<Mp4TrackKind> = inputs.iter().map(|(_, kind)| *kind).collect();
        let mp4 = Mp4::open(file, &kinds, fragment_ms.max(100) * 1_000_000);
        let open = inputs.iter().map(|(kind, _)| *kind).collect();
        let state = Mutex::new(WriterState { mp4: Some(mp4), open });
        Arc::new(Self { state, progress, tell })
    }

    /// `index` of a track in the file: the order of `inputs` at the beginning.
    ///
    /// # Errors
    ///
    /// `Flushing` when the file is over, `Error` when it broke just now.
    pub fn push(
        &self,
        kind: MediaKind,
        index: usize,
        buffer: &gst::BufferRef,
        at_ns: u64,
    ) -> Result<(), gst::FlowError> {
        let map = buffer.map_readable().map_err(|_| gst::FlowError::Error)?;
        let key = kind == MediaKind::Audio || !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mp4 = state.mp4.as_mut().ok_or(gst::FlowError::Flushing)?;
        if let Err(error) = mp4.push(index, at_ns, key, &map) {
            state.mp4 = None;
            drop(state);
            self.broke(error);
            return Err(gst::FlowError::Error);
        }
        drop(state);
        let end = at_ns + buffer.duration().map_or(0, gst::ClockTime::nseconds);
        self.progress.advance(kind, end, &self.tell);
        Ok(())
    }

    /// The last input that ends makes the file whole.
    pub fn end(&self, kind: MediaKind) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let before = state.open.len();
        state.open.retain(|open| *open != kind);
        if state.open.len() == before || !state.open.is_empty() {
            return;
        }
        let Some(mut mp4) = state.mp4.take() else { return };
        drop(state);
        match mp4.finish() {
            Ok(()) => {
                self.progress.finish();
                (self.tell)(PipelineEvent::Drained);
            }
            Err(error) => self.broke(error),
        }
    }

    /// Nothing more is written.
    pub fn close(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).mp4 = None;
    }

    fn broke(&self, source: SpoolError) {
        self.progress.finish();
        (self.tell)(PipelineEvent::Broke(PipelineError::Write { source }));
    }

    /// The end of an encoder's chain.
    pub fn sink(self: &Arc<Self>, kind: MediaKind, index: usize) -> gst::Element {
        let (frames, ends) = (Arc::downgrade(self), Arc::downgrade(self));
        let callbacks = gst_app::AppSinkCallbacks::builder()
            .new_sample(move |sink| {
                let out = frames.upgrade().ok_or(gst::FlowError::Flushing)?;
                let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
                let (Some(buffer), Some(segment)) = (sample.buffer(), sample.segment()) else {
                    return Ok(gst::FlowSuccess::Ok);
                };
                // Running time: x264enc moves its time stamps and its segment by a thousand hours.
                let segment = segment.downcast_ref::<gst::ClockTime>();
                let at = segment.and_then(|segment| segment.to_running_time(buffer.pts()));
                let Some(at) = at else { return Ok(gst::FlowSuccess::Ok) };
                out.push(kind, index, buffer, at.nseconds()).map(|()| gst::FlowSuccess::Ok)
            })
            .eos(move |_| {
                if let Some(out) = ends.upgrade() {
                    out.end(kind);
                }
            })
            .build();
        let sink = gst_app::AppSink::builder().sync(false).callbacks(callbacks).build();
        sink.set_property("async", false);
        sink.upcast()
    }
}
