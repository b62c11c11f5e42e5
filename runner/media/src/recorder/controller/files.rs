//! How files and other outputs get on and end: each by itself, the last one with the recording. Part of the controller, on
//! its thread.

use std::sync::mpsc::Receiver;
use std::time::Duration;

use spillway_ipc::{MediaEvent, Quality};
use spillway_process::chain;
use tracing::warn;

use super::{CONTINUE, Flow, RecorderController};
use crate::output::{TakerError, TakerId};
use crate::recorder::input::RecorderInput;
use crate::recorder::recorded_file::{FileError, RecordedFile, due};
use crate::recorder::recorded_series::RecordedSeries;
use crate::recorder::source_recorder::SourceRecorder;

/// Between two [`MediaEvent::Wrote`] of a file.
const WROTE_EVERY: Duration = Duration::from_millis(250);

impl RecorderController {
    /// An output is whole.
    pub(super) fn taker_ended(&mut self, taker: TakerId) {
        if let Some(series) = self.forget_series(taker) {
            self.whole_outputs += 1;
            self.series_ended(&series);
        }
        if let Some(file) = self.forget_file(taker) {
            self.whole_outputs += 1;
            self.file_ended(file);
        }
    }

    /// An output takes no more. With the last one that was still written the recording ends, but for one that has streams:
    /// then the runner decides.
    pub(super) fn taker_failed(&mut self, taker: TakerId, error: TakerError) -> Flow {
        let error = FileError::Pipeline(error.into());
        let others_are_whole = self.draining.is_some() && self.whole_outputs > 0;
        let others = self.files.len() + self.series.len() > 1 || self.streams.is_asked();
        let is_last = !others && !others_are_whole;
        let failed = if let Some(series) = self.forget_series(taker) {
            self.series_ended(&series);
            (None, series.output)
        } else if let Some(file) = self.files.iter().find(|file| file.taker == taker) {
            (Some(file.file), file.output)
        } else {
            return CONTINUE;
        };
        if is_last {
            return self.broke(error);
        }
        self.output_failed(failed, &error);
        if let Some(file) = self.forget_file(taker) {
            self.file_ended(file);
        }
        CONTINUE
    }

    /// It takes no more, and the others go on. A segment that is open is the runner's.
    pub(super) fn output_failed(&mut self, (file, output): (Option<u32>, u32), error: &FileError) {
        warn!(file, output, "an output takes no more; the others go on");
        self.ended_outputs.insert(output);
        self.send(MediaEvent::OutputFailed {
            output,
            file,
            full: error.is_full(),
            code: error.code().to_owned(),
            message: chain(error).to_string(),
        });
    }

    /// This output ends and the others go on.
    pub(super) fn close_output(&mut self, output: u32) -> Flow {
        self.ended_outputs.insert(output);
        if let Some(recorder) = &self.recorder {
            let files = self.files.iter().map(|file| (file.output, file.taker));
            let series = self.series.iter().map(|series| (series.output, series.taker));
            let takers = files.chain(series).filter(|(of, _)| *of == output);
            takers.for_each(|(_, taker)| recorder.remove(taker));
        }
        self.forget_asked(|asked| asked.output == output, "no output is left".to_owned())
    }

    /// Stops the recorder and says what the files have become that are still open.
    pub(super) fn close_files(&mut self) {
        let Some(recorder) = &mut self.recorder else { return };
        let quality = |file: RecordedFile| {
            let quality = recorder.quality(file.progress.media_ns());
            (file, quality)
        };
        let open: Vec<_> = self.files.drain(..).map(quality).collect();
        let ended = |series: RecordedSeries| series.ended(recorder.quality(series.media_ns()));
        let series: Vec<MediaEvent> = self.series.drain(..).map(ended).collect();
        recorder.close();
        series.into_iter().for_each(|event| self.send(event));
        open.into_iter().for_each(|(file, quality)| self.close_file(file, quality));
    }

    /// Nothing is written or sent any more: what outputs have reported goes to the runner before the end does.
    pub(super) fn pass_on_reports(&mut self, inbox: &Receiver<RecorderInput>) {
        for input in inbox.try_iter() {
            match input {
                RecorderInput::Media(event) => self.send(event),
                RecorderInput::Stream(id, event) => self.on_stream(id, event),
                RecorderInput::Image(recorder, image) => {
                    self.send_image(self.origin_of(recorder).unwrap_or_default(), image);
                }
                _ => {}
            }
        }
    }

    /// The output of many files that this taker wrote.
    fn forget_series(&mut self, taker: TakerId) -> Option<RecordedSeries> {
        let index = self.series.iter().position(|series| series.taker == taker)?;
        Some(self.series.remove(index))
    }

    /// Nothing of it is written any more.
    fn series_ended(&self, series: &RecordedSeries) {
        self.send(series.ended(self.quality(series.media_ns())));
    }

    /// The file that this taker wrote.
    fn forget_file(&mut self, taker: TakerId) -> Option<RecordedFile> {
        let index = self.files.iter().position(|file| file.taker == taker)?;
        Some(self.files.remove(index))
    }

    /// Nothing of it is written any more.
    fn file_ended(&self, file: RecordedFile) {
        let quality = self.quality(file.progress.media_ns());
        self.close_file(file, quality);
    }

    /// Nothing is written into it any more.
    fn close_file(&self, mut file: RecordedFile, quality: Quality) {
        if let Some(event) = wrote(&mut file) {
            self.send(event);
        }
        let zero = self.origin.unwrap_or_else(|| self.clock.unix_ns());
        let origin = self.recorder.as_ref().and_then(SourceRecorder::origin);
        let started_at = zero + origin.map_or(0, |at| at.ns() as i64);
        let ended_at = started_at.saturating_add_unsigned(file.progress.media_ns());
        let (bytes, _) = bytes(&file);
        self.send(MediaEvent::Closed { file: file.file, bytes, started_at, ended_at, quality });
    }

    /// What was recorded until now, of an output of this length.
    fn quality(&self, media_ns: u64) -> Quality {
        self.recorder.as_ref().map(|recorder| recorder.quality(media_ns)).unwrap_or_default()
    }

    /// How far the files are.
    pub(super) fn report_written(&mut self) {
        let events: Vec<MediaEvent> = self.files.iter_mut().filter_map(wrote).collect();
        events.into_iter().for_each(|event| self.send(event));
    }
}

/// Bytes of the file, and how many of them are final.
fn bytes(file: &RecordedFile) -> (u64, u64) {
    file.progress.written.as_ref().map_or((0, 0), |written| (written.end(), written.sealed_to()))
}

/// How far it is, if it has grown; at most every 250 ms.
fn wrote(file: &mut RecordedFile) -> Option<MediaEvent> {
    let (end, sealed_to) = bytes(file);
    let (at, told_end) = &mut file.told;
    if end == *told_end || !due(at, WROTE_EVERY) {
        return None;
    }
    *told_end = end;
    Some(MediaEvent::Wrote { file: file.file, end, sealed_to, media_ns: file.progress.media_ns() })
}
