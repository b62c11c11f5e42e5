//! Image outputs: they begin with every recorder, and go on counting where the one before it ended. Part of the controller, on
//! its thread.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant};

use spillway_ipc::{MediaEvent, TrackFacts};
use spillway_plan::ImagesOutput;

use super::{CONTINUE, Flow, RecorderController, first_number};
use crate::compositor::VideoMixerOptions;
use crate::element::build;
use crate::output::images::{CapturedImage, ImageTakerOptions};
use crate::output::{Fanout, RawTaker};
use crate::recorder::input::RecorderInput;
use crate::recorder::recorded_file::FileError;
use crate::recorder::recorded_series::{RecordedSeries, SeriesKind};
use crate::units::MediaTime;

/// How long files that are whole wait for the images of a busy machine.
const IMAGES_DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

impl RecorderController {
    /// Those that the next recorder makes.
    pub(super) fn images_to_begin(&self) -> Vec<(u32, ImagesOutput)> {
        let images = self.start.plan.images().filter(|(output, _)| !self.ended_outputs.contains(output));
        images.map(|(output, images)| (output, images.clone())).collect()
    }

    /// Adds one to the outputs of recorder `number`; `canvas`: what its pictures are.
    pub(super) fn open_images(
        &mut self,
        (fanout, number): (&Arc<Fanout>, u32),
        (output, images): (u32, &ImagesOutput),
        canvas: Option<&VideoMixerOptions>,
        facts: &TrackFacts,
    ) -> Result<(RecordedSeries, Box<dyn RawTaker>), FileError> {
        let (Some(folder), Some(canvas)) = (self.start.spool.clone(), canvas) else {
            return Err(build("there is no folder for images, or no picture").into());
        };
        let from = (canvas.size.width, canvas.size.height);
        let first = first_number(&self.start, output);
        let options = ImageTakerOptions {
            output,
            folder,
            codec: images.codec,
            interval_ns: images.interval_ns,
            from,
            to: images.size.unwrap_or(from),
            next_n: self.image_counts.entry(output).or_insert_with(|| Arc::new(AtomicU32::new(first))).clone(),
            facts: facts.clone(),
        };
        RecordedSeries::images(fanout, number, options, &self.tell)
    }

    /// An image lies in the spool.
    pub(super) fn image_captured(&mut self, number: u32, image: CapturedImage) -> Flow {
        let is_current = self.recorder.as_ref().is_some_and(|recorder| recorder.number == number);
        let Some(origin) = self.origin_of(number).or((!is_current).then_some(MediaTime::ZERO)) else {
            // The compositor says where it began just now: that is behind this in the channel.
            let _ = self.tell.send(RecorderInput::Image(number, image));
            return CONTINUE;
        };
        self.send_image(origin, image);
        CONTINUE
    }

    /// Tells the runner, with the time since the first recorder began.
    pub(super) fn send_image(&self, origin: MediaTime, image: CapturedImage) {
        let CapturedImage { output, n, at_ns, bytes, facts } = image;
        let first = self.origin_of(0).unwrap_or(origin);
        let at_ns = at_ns.saturating_add(origin.ns_since(first));
        self.send(MediaEvent::Image { output, n, at_ns, bytes, facts });
    }

    /// Where recorder `number` began, if it is known.
    pub(super) fn origin_of(&self, number: u32) -> Option<MediaTime> {
        match &self.recorder {
            Some(recorder) if recorder.number == number => recorder.origin(),
            _ => self.origins.get(&number).copied(),
        }
    }

    /// A recorder is about to go.
    pub(super) fn keep_origin(&mut self) {
        let known = self.recorder.as_ref().and_then(|recorder| Some((recorder.number, recorder.origin()?)));
        self.origins.extend(known);
    }

    /// All else is whole, and images that are decoded for themselves are still not.
    pub(super) fn images_are_late(&mut self, now: Instant) -> bool {
        let is_image = |series: &RecordedSeries| series.kind == SeriesKind::Images;
        let only_images = self.whole_outputs > 0 && self.files.is_empty() && self.series.iter().all(is_image);
        let Some(draining) = self.draining.as_mut().filter(|_| only_images) else { return false };
        now >= *draining.images_until.get_or_insert(now + IMAGES_DRAIN_TIMEOUT)
    }
}
