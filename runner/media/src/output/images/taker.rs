//! Between the mixer's thread, which leaves a picture in a slot and never waits, and a thread of an output of its own. In the
//! fan-out such an output stands beside those that take encoded units, so that it ends and drains with them.

use std::sync::Arc;
use std::thread::Builder;

use gstreamer as gst;

use super::grid::CaptureGrid;
use super::slot::PictureSlot;
use crate::element::{PipelineError, build};
use crate::encoded::EncodedUnit;
use crate::output::raw::RawTaker;
use crate::output::taker::{OutputTaker, TakerEnd, TakerError, TakerProgress};

/// An output of raw pictures in the fan-out, which says when it is over. Dropping it stops its thread after the picture that
/// is in work.
pub struct PictureTaker {
    slot: Arc<PictureSlot>,
}

/// The same output on the side of the mixer.
struct PictureWay {
    slot: Arc<PictureSlot>,
    progress: Arc<TakerProgress>,
}

impl PictureTaker {
    /// Starts a thread of this name that runs `work`: it takes pictures from the slot, one each `interval_ns`, and reports the
    /// end. Answers the taker for the fan-out, which is to be added with its raw pictures, and the way into it.
    ///
    /// # Errors
    ///
    /// When the system has no thread left.
    pub(super) fn start(
        name: &str,
        interval_ns: u64,
        progress: Arc<TakerProgress>,
        work: impl FnOnce(&PictureSlot) + Send + 'static,
    ) -> Result<(Self, Box<dyn RawTaker>), PipelineError> {
        let slot = Arc::new(PictureSlot::new(CaptureGrid::new(interval_ns)));
        let (span, of_thread) = (tracing::Span::current(), slot.clone());
        let thread = Builder::new().name(name.to_owned());
        thread.spawn(move || span.in_scope(|| work(&of_thread))).map_err(build)?;
        let way = PictureWay { slot: slot.clone(), progress };
        Ok((Self { slot }, Box::new(way)))
    }
}

impl OutputTaker for PictureTaker {
    fn take(&mut self, _: &EncodedUnit) -> Result<(), TakerError> {
        Ok(())
    }

    fn end(&mut self, _: u64) -> Result<TakerEnd, TakerError> {
        self.slot.end();
        Ok(TakerEnd::Later)
    }
}

impl Drop for PictureTaker {
    fn drop(&mut self) {
        self.slot.abandon();
    }
}

impl RawTaker for PictureWay {
    fn take(&self, picture: &gst::Buffer) {
        let Some(at) = picture.pts() else { return };
        // A copy shares the memory, which nothing writes to any more.
        self.slot.offer(at.nseconds(), || picture.copy());
        self.progress.advance(at.nseconds().saturating_add(picture.duration().map_or(0, gst::ClockTime::nseconds)));
    }
}
