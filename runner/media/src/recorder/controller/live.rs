//! A stream that is watched: pictures are given up early for it, and it is told when it is late all the same. Part of the
//! controller, on its thread.

use std::time::Duration;

use spillway_ipc::MediaEvent;
use spillway_plan::Output;

use super::RecorderController;
use crate::compositor::LiveRule;
use crate::quality::left_out;
use crate::recorder::recorded_file::due;

/// A stream that is later than this is told of.
const LATE_MS: u64 = 10_000;
/// Between two times.
const LATE_TOLD_EVERY: Duration = Duration::from_secs(60);

impl RecorderController {
    /// Streams and other outputs come and go: what may be given up is looked at again.
    pub(super) fn follow_viewers(&self) {
        let Some(recorder) = &self.recorder else { return };
        let recordings = self.files.len() + self.segments.len();
        let thins = self.streams.is_watched() && (self.start.settings.streams_thin_files || recordings == 0);
        recorder.set_live(match (thins, recordings + self.images.len()) {
            (false, _) => LiveRule::Off,
            (true, 0) => LiveRule::Jump,
            (true, _) => LiveRule::Thin,
        });
    }

    /// The pictures are `lag_ms` behind.
    pub(super) fn tell_late_stream(&mut self, lag_ms: u64) {
        if lag_ms > LATE_MS && self.streams.is_watched() && due(&mut self.late_told_at, LATE_TOLD_EVERY) {
            self.send(MediaEvent::Noted { message: format!("the stream is {} s late", lag_ms / 1000) });
        }
    }

    /// Streams leave nothing that has a quality: what was left out for them is told at the end. Of other outputs it is in
    /// their own.
    pub(super) fn tell_left_out(&self) {
        let is_stream = |output: &Output| matches!(output, Output::Streams(_));
        let has_others = !self.start.plan.outputs.iter().all(is_stream);
        let Some(recorder) = self.recorder.as_ref().filter(|_| !has_others) else { return };
        if let Some(message) = left_out(&recorder.quality(recorder.media_ns())) {
            self.send(MediaEvent::Noted { message });
        }
    }
}
