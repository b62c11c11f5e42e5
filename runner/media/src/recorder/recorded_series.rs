//! One output of many files, HLS segments or images, as the controller knows it. Segments are written by the threads that
//! give units, images by a thread of their own; both are told of on the controller's channel.

use std::sync::Arc;
use std::sync::mpsc::Sender;

use spillway_ipc::{MediaEvent, Quality};

use super::input::RecorderInput;
use super::recorded_file::FileError;
use crate::output::images::{self, ImageReportFn, ImageTakerOptions};
use crate::output::segments::{SegmentEventFn, SegmentsTaker, SegmentsTakerOptions};
use crate::output::{Fanout, RawTaker, TakerId, TakerProgress, TakerStart};

/// What files these are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeriesKind {
    /// An HLS stream.
    Segments,
    /// Single pictures.
    Images,
}

/// One output of many files.
pub struct RecordedSeries {
    /// Of the plan.
    pub output: u32,
    /// What files.
    pub kind: SeriesKind,
    /// What writes it.
    pub taker: TakerId,
    progress: Arc<TakerProgress>,
}

impl RecordedSeries {
    /// Adds segments to the other outputs. They are reported into `tell` before anything else of the same unit is.
    ///
    /// # Errors
    ///
    /// When the streams do not go into segments.
    pub fn segments(
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
        Ok(Self { output, kind: SeriesKind::Segments, taker: id, progress })
    }

    /// Adds images to the other outputs of recorder `number`, whose fan-out has raw pictures. Answers the way into them as well.
    ///
    /// # Errors
    ///
    /// When an element is missing, a size is impossible, or the system has no thread left.
    pub fn images(
        fanout: &Arc<Fanout>,
        number: u32,
        options: ImageTakerOptions,
        tell: &Sender<RecorderInput>,
    ) -> Result<(Self, Box<dyn RawTaker>), FileError> {
        let (output, tell) = (options.output, tell.clone());
        let report: ImageReportFn = Arc::new(move |image| {
            // Refused only when the controller is gone.
            let _ = tell.send(RecorderInput::Image(number, image));
        });
        let (id, reporter) = fanout.reserve();
        let progress = Arc::<TakerProgress>::default();
        let (taker, way) = images::start(options, reporter, progress.clone(), report)?;
        let streams = fanout.raw_pictures().into_iter().collect();
        fanout.add(TakerStart { id, streams, taker: Box::new(taker), progress: progress.clone() });
        Ok((Self { output, kind: SeriesKind::Images, taker: id, progress }, way))
    }

    /// It grows no more.
    pub fn ended(&self, quality: Quality) -> MediaEvent {
        let output = self.output;
        match self.kind {
            SeriesKind::Segments => MediaEvent::SegmentsEnded { output, quality },
            SeriesKind::Images => MediaEvent::ImagesEnded { output, quality },
        }
    }

    /// Length by the frames or pictures that it was given, nanoseconds.
    pub fn media_ns(&self) -> u64 {
        self.progress.media_ns()
    }
}
