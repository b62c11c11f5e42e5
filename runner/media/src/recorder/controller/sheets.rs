//! Poster and thumbnails: they begin with the first recorder and end with it. No output of the plan depends on them, so they
//! are neither counted nor reported as one. Part of the controller, on its thread.

use std::sync::Arc;

use spillway_ipc::MediaEvent;
use spillway_plan::SheetsPlan;
use spillway_process::chain;
use tracing::warn;

use super::RecorderController;
use crate::compositor::VideoMixerOptions;
use crate::element::PipelineError;
use crate::output::images::sheets::{self, SheetNoteFn, SheetOptions};
use crate::output::{Fanout, RawTaker, TakerProgress, TakerStart};
use crate::recorder::input::RecorderInput;

impl RecorderController {
    /// Those that the next recorder makes. After a change of codec the recording goes on in another file, and its sheets stay
    /// those of the first one.
    pub(super) fn sheets_to_begin(&self) -> Option<SheetsPlan> {
        let folder = self.start.spool.as_ref();
        self.start.plan.sheets.filter(|_| self.recorder_count == 0 && folder.is_some())
    }

    /// Adds them to the outputs, which have raw pictures; `canvas`: what these are. `None`: there are none, and why is noted.
    pub(super) fn open_sheets(
        &self,
        fanout: &Arc<Fanout>,
        plan: SheetsPlan,
        canvas: Option<&VideoMixerOptions>,
    ) -> Option<Box<dyn RawTaker>> {
        let (folder, canvas) = (self.start.spool.clone()?, canvas?);
        let options = SheetOptions { plan, folder, from: (canvas.size.width, canvas.size.height) };
        match self.start_sheets(fanout, options) {
            Ok(way) => Some(way),
            Err(error) => {
                let reason = chain(&error).to_string();
                warn!(reason, "no sheets");
                self.send(MediaEvent::Noted {
                    message: format!("there will be no poster and no thumbnails: {reason}"),
                });
                None
            }
        }
    }

    fn start_sheets(&self, fanout: &Arc<Fanout>, options: SheetOptions) -> Result<Box<dyn RawTaker>, PipelineError> {
        let tell = self.tell.clone();
        let note: SheetNoteFn = Box::new(move |message| {
            // Refused only when the controller is gone.
            let _ = tell.send(RecorderInput::Media(MediaEvent::Noted { message }));
        });
        let (id, reporter) = fanout.reserve();
        let progress = Arc::<TakerProgress>::default();
        let (taker, way) = sheets::start(options, reporter, progress.clone(), note)?;
        let streams = fanout.raw_pictures().into_iter().collect();
        fanout.add(TakerStart { id, streams, taker: Box::new(taker), progress });
        Ok(way)
    }
}
