//! One image output of a recording, as the controller knows it. Its files are written by a thread of its own, and told of on
//! the controller's channel.

use std::sync::Arc;
use std::sync::mpsc::Sender;

use spillway_ipc::{MediaEvent, Quality};

use super::input::RecorderInput;
use super::recorded_file::FileError;
use crate::output::images::{self, ImageReportFn, ImageTakerOptions};
use crate::output::{Fanout, RawTaker, TakerId, TakerProgress, TakerStart};

/// One output of images.
pub struct RecordedImages {
    /// Of the plan.
    pub output: u32,
    /// What writes it.
    pub taker: TakerId,
    progress: Arc<TakerProgress>,
}

impl RecordedImages {
    /// Adds the output to the others of recorder `number`, whose fan-out has raw pictures. Answers the way into it as well.
    ///
    /// # Errors
    ///
    /// When an element is missing, a size is impossible, or the system has no thread left.
    pub fn open(
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
        Ok((Self { output, taker: id, progress }, way))
    }

    /// It grows no more.
    pub fn ended(&self, quality: Quality) -> MediaEvent {
        MediaEvent::ImagesEnded { output: self.output, quality }
    }

    /// Length by the pictures that it was shown, nanoseconds.
    pub fn media_ns(&self) -> u64 {
        self.progress.media_ns()
    }
}
