//! One HLS output of a recording, as the controller knows it. Its segments are written by the threads that give units, and
//! told of by them, on the controller's channel.

use std::sync::Arc;
use std::sync::mpsc::Sender;

use spillway_ipc::{MediaEvent, Quality};

use super::input::RecorderInput;
use super::recorded_file::FileError;
use crate::output::segments::{SegmentEventFn, SegmentsTaker, SegmentsTakerOptions};
use crate::output::{Fanout, TakerId, TakerProgress, TakerStart};

/// One output that is cut into segments.
pub struct RecordedSegments {
    /// Of the plan.
    pub output: u32,
    /// What writes it.
    pub taker: TakerId,
    progress: Arc<TakerProgress>,
}

impl RecordedSegments {
    /// Adds the output to the others. Its segments are reported into `tell` before anything else of the same unit is.
    ///
    /// # Errors
    ///
    /// When the streams do not go into segments.
    pub fn open(
        fanout: &Arc<Fanout>,
        options: SegmentsTakerOptions,
        tell: &Sender<RecorderInput>,
    ) -> Result<Self, FileError> {
        let (output, tell) = (options.output, tell.clone());
        let report: SegmentEventFn = Arc::new(move |event| {
            // Refused only when the controller is gone.
            let _ = tell.send(RecorderInput::Media(event));
        });
        let (taker, streams) = SegmentsTaker::new(fanout.formats(), options, report)?;
        let (id, _) = fanout.reserve();
        let progress = Arc::<TakerProgress>::default();
        fanout.add(TakerStart { id, streams, taker: Box::new(taker), progress: progress.clone() });
        Ok(Self { output, taker: id, progress })
    }

    /// It grows no more.
    pub fn ended(&self, quality: Quality) -> MediaEvent {
        MediaEvent::SegmentsEnded { output: self.output, quality }
    }

    /// Length by its encoded frames, nanoseconds.
    pub fn media_ns(&self) -> u64 {
        self.progress.media_ns()
    }
}
