//! A stream that is watched: pictures are given up early for it, and it is told when it is late all the same. Part of the
//! controller, on its thread.

use std::time::Duration;

use spillway_ipc::MediaEvent;
use spillway_plan::Output;

use super::RecorderController;
use crate::compositor::LiveRule;
use crate::quality::left_out;
use crate::recorder::recorded_file::due;
use crate::recorder::recorded_series::SeriesKind;

/// A stream that is later than this is told of.
const LATE_MS: u64 = 10_000;
/// Between two times.
const LATE_TOLD_EVERY: Duration = Duration::from_secs(60);

impl RecorderController {
    /// Streams and other outputs come and go: what may be given up is looked at again.
    pub(super) fn follow_viewers(&self) {
        let Some(recorder) = &self.recorder else { return };
        let is_watched = self.streams.is_watched();
        let segments = self.series.iter().filter(|series| series.kind == SeriesKind::Segments).count();
        let (recordings, images) = (self.files.len() + segments, self.series.len() - segments);
        recorder.set_live(live_rule(is_watched, (recordings, images), self.start.settings.streams_thin_files));
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

/// What may be given up beside so many open files or segments, and so many image outputs. Of these one is expected in each
/// of its intervals, as of every second of a file.
fn live_rule(is_watched: bool, (recordings, images): (usize, usize), thins_files: bool) -> LiveRule {
    if !is_watched || (recordings > 0 && !thins_files) {
        LiveRule::Off
    } else if recordings + images > 0 {
        LiveRule::Thin
    } else {
        LiveRule::Jump
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_up_depends_on_what_else_is_open() {
        for (is_watched, others, thins_files, wanted) in [
            (false, (0, 0), true, LiveRule::Off),
            (false, (1, 0), true, LiveRule::Off),
            (true, (0, 0), true, LiveRule::Jump),
            (true, (0, 0), false, LiveRule::Jump),
            (true, (0, 1), true, LiveRule::Thin),
            (true, (0, 1), false, LiveRule::Thin),
            (true, (2, 1), true, LiveRule::Thin),
            (true, (1, 0), false, LiveRule::Off),
        ] {
            assert_eq!(live_rule(is_watched, others, thins_files), wanted, "{is_watched} {others:?} {thins_files}");
        }
    }
}
