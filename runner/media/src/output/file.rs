//! One file being made: raw or encoded frames in, the bytes of a file out. Its one watcher turns bus messages into
//! [`PipelineEvent`]s.
//!
//! No clock is asked anywhere: buffers carry their PTS, sinks do not wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use gst::prelude::*;
use gstreamer as gst;
use spillway_ipc::{SpoolFile, WriteProgress};
use spillway_plan::Container;

use super::link::{Feeds, FileWriter, PipelinePlan, fragmented, muxed};
use super::progress::{PipelineEvent, PipelineEventFn, PipelineProgress};
use crate::element::{PipelineError, build};
use crate::mux::SpoolSink;

/// One file being made. Dropping it stops everything at once and closes the file; the bytes written so far stay
/// written.
pub struct Pipeline {
    gst: gst::Pipeline,
    end: FileWriter,
    progress: Arc<PipelineProgress>,
    written: Arc<WriteProgress>,
}

impl Pipeline {
    /// `tell` is called from GStreamer's threads and must not wait.
    ///
    /// # Errors
    ///
    /// When an element is missing, or the inputs do not go into the container. The file is closed and stays empty.
    pub fn start(
        plan: &PipelinePlan,
        file: SpoolFile,
        tell: impl Fn(PipelineEvent) + Send + Sync + 'static,
    ) -> Result<(Self, Feeds), PipelineError> {
        let tell: PipelineEventFn = Arc::new(tell);
        let progress = Arc::new(PipelineProgress::default());
        let (pipeline, written) = (gst::Pipeline::new(), file.written());
        let (end, feeds) = if plan.container == Container::Mp4 {
            fragmented(plan, &pipeline, file, &progress, &tell)?
        } else {
            muxed(plan, &pipeline, file, &progress, &tell)?
        };
        let pipeline = Self { gst: pipeline, end, progress, written };
        pipeline.watch_bus(tell)?;
        pipeline.gst.set_state(gst::State::Playing).map_err(build)?;
        Ok((pipeline, feeds))
    }

    /// How far the file has come; readable after the pipeline is gone.
    pub fn progress(&self) -> Arc<PipelineProgress> {
        self.progress.clone()
    }

    /// How many bytes it has; readable after the pipeline is gone.
    pub fn written(&self) -> Arc<WriteProgress> {
        self.written.clone()
    }

    /// Waits for the end of the file, drained or broken; false when it did not come.
    pub fn wait_drained(&self, timeout: Duration) -> bool {
        self.progress.wait_over(timeout)
    }

    /// Stops and closes the file. After [`PipelineEvent::Drained`] it is whole; before, it is what a `kill -9` would
    /// have left.
    fn halt(&self) {
        // Going down cannot fail for our elements, and there is no listener left.
        let _ = self.gst.set_state(gst::State::Null);
        if let Some(bus) = self.gst.bus() {
            bus.unset_sync_handler();
        }
        match &self.end {
            FileWriter::Sink(sink) => sink.close(),
            FileWriter::Mp4(out) => out.close(),
        }
    }

    /// The one place where bus messages are read.
    fn watch_bus(&self, tell: PipelineEventFn) -> Result<(), PipelineError> {
        let bus = self.gst.bus().ok_or_else(|| PipelineError::Build { message: "no bus".into() })?;
        let weak = self.gst.downgrade();
        let progress = self.progress.clone();
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
                        // Feeders that wait at a full input are let go. Not from here: this is a streaming thread.
                        pipeline.call_async(|pipeline| {
                            let _ = pipeline.set_state(gst::State::Null);
                        });
                    }
                    progress.finish();
                    tell(PipelineEvent::Broke(fault(error)));
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

fn fault(error: &gst::message::Error) -> PipelineError {
    let sink = error.src().and_then(|source| source.downcast_ref::<SpoolSink>());
    if let Some(source) = sink.and_then(SpoolSink::take_error) {
        return PipelineError::Write { source };
    }
    let element = error.src().map(|source| source.name().to_string()).unwrap_or_default();
    let message = match error.debug() {
        Some(debug) => format!("{} ({debug})", error.error()),
        None => error.error().to_string(),
    };
    PipelineError::Element { element, message }
}
