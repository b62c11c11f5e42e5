//! The encoders of a recording and the fan-out behind them: raw or copied frames in, units to every output out. Its one
//! watcher turns an error of an element into [`PipelineEvent::Broke`](super::PipelineEvent::Broke).
//!
//! No clock is asked anywhere: buffers carry their PTS, sinks do not wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use gst::prelude::*;
use gstreamer as gst;

use super::fanout::Fanout;
use super::key_frames::KeyFrameRequests;
use super::link::{Feeds, PipelinePlan, encoders};
use super::progress::PipelineProgress;
use crate::element::{PipelineError, build, element_error};

/// What encodes a recording. Dropping it stops everything at once and closes the fan-out with all that its outputs have
/// open; the bytes written so far stay written.
pub struct Pipeline {
    gst: gst::Pipeline,
    fanout: Arc<Fanout>,
    key_frames: KeyFrameRequests,
}

impl Pipeline {
    /// `fanout` is of [`PipelinePlan::formats`] of this plan. Outputs that are added before are given everything.
    ///
    /// # Errors
    ///
    /// When an element is missing. The fan-out is closed, what its outputs have open stays as it is.
    pub fn start(plan: &PipelinePlan, fanout: Arc<Fanout>) -> Result<(Self, Feeds), PipelineError> {
        let mut pipeline = Self { gst: gst::Pipeline::new(), fanout, key_frames: KeyFrameRequests::default() };
        let (feeds, key_frames) = encoders(plan, &pipeline.gst, &pipeline.fanout)?;
        pipeline.key_frames = key_frames;
        pipeline.watch_bus()?;
        pipeline.gst.set_state(gst::State::Playing).map_err(build)?;
        Ok((pipeline, feeds))
    }

    /// Where its outputs are.
    pub fn fanout(&self) -> &Arc<Fanout> {
        &self.fanout
    }

    /// Asks its encoder for key frames.
    pub fn key_frames(&self) -> KeyFrameRequests {
        self.key_frames.clone()
    }

    /// How far the recording has come; readable after the pipeline is gone.
    pub fn progress(&self) -> Arc<PipelineProgress> {
        self.fanout.progress()
    }

    /// Waits for the end of all outputs, drained or broken; false when it did not come.
    pub fn wait_drained(&self, timeout: Duration) -> bool {
        self.progress().wait_over(timeout)
    }

    /// The one place where the encoders' bus messages are read.
    fn watch_bus(&self) -> Result<(), PipelineError> {
        let bus = self.gst.bus().ok_or_else(|| build("no bus"))?;
        let (weak, fanout) = (self.gst.downgrade(), Arc::downgrade(&self.fanout));
        let broken = AtomicBool::new(false);
        bus.set_sync_handler(move |_, message| {
            // One fault makes several elements complain; the first one is the reason.
            if let gst::MessageView::Error(error) = message.view()
                && !broken.swap(true, Ordering::AcqRel)
            {
                if let Some(pipeline) = weak.upgrade() {
                    // Feeders that wait at a full input are let go. Not from here: this is a streaming thread.
                    pipeline.call_async(|pipeline| {
                        let _ = pipeline.set_state(gst::State::Null);
                    });
                }
                if let Some(fanout) = fanout.upgrade() {
                    fanout.broke(element_error(error));
                }
            }
            gst::BusSyncReply::Drop
        });
        Ok(())
    }
}

impl Drop for Pipeline {
    /// After [`PipelineEvent::Drained`](super::PipelineEvent::Drained) every file is whole; before, it is what a
    /// `kill -9` would have left.
    fn drop(&mut self) {
        // Going down cannot fail for our elements, and there is no listener left.
        let _ = self.gst.set_state(gst::State::Null);
        if let Some(bus) = self.gst.bus() {
            bus.unset_sync_handler();
        }
        self.fanout.close();
    }
}
