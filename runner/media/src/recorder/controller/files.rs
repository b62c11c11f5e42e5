//! How files get on and end: each by itself, the last one with the recording. Part of the controller, on its thread.

use spillway_ipc::{MediaEvent, Quality};
use tracing::warn;

use super::{CONTINUE, Flow, RecorderController};
use crate::output::{TakerError, TakerId};
use crate::recorder::recorded_file::{FileError, RecordedFile, output_failed};
use crate::recorder::source_recorder::SourceRecorder;

impl RecorderController {
    /// A file is whole.
    pub(super) fn file_ended(&mut self, taker: TakerId) {
        if let Some(index) = self.files.iter().position(|file| file.taker == taker) {
            let file = self.files.remove(index);
            self.whole_files += 1;
            let quality = self.recorder.as_ref().map(|recorder| recorder.quality(file.media_ns()));
            self.close_file(file, quality.unwrap_or_default());
        }
    }

    /// A file takes no more. With the last one that was still written the recording ends, but for one that has streams: then
    /// the runner decides.
    pub(super) fn file_failed(&mut self, taker: TakerId, error: TakerError) -> Flow {
        let Some(index) = self.files.iter().position(|file| file.taker == taker) else { return CONTINUE };
        let error = FileError::Pipeline(error.into());
        let others_are_whole = self.draining.is_some() && self.whole_files > 0;
        if self.files.len() == 1 && !others_are_whole && !self.streams.is_asked() {
            return self.broke(error);
        }
        let file = self.files.remove(index);
        warn!(file = file.file, output = file.output, "a file takes no more; the others go on");
        self.ended_outputs.insert(file.output);
        self.send(output_failed((file.file, file.output), &error));
        let quality = self.recorder.as_ref().map(|recorder| recorder.quality(file.media_ns()));
        self.close_file(file, quality.unwrap_or_default());
        CONTINUE
    }

    /// This output ends and the others go on.
    pub(super) fn close_output(&mut self, output: u32) -> Flow {
        self.ended_outputs.insert(output);
        if let Some(recorder) = &self.recorder {
            let files = self.files.iter().filter(|file| file.output == output);
            files.for_each(|file| recorder.remove(file.taker));
        }
        self.forget_asked(|asked| asked.output == output, "no output is left".to_owned())
    }

    /// Stops the recorder and says what the files have become that are still open.
    pub(super) fn close_files(&mut self) {
        let Some(recorder) = &mut self.recorder else { return };
        let quality = |file: RecordedFile| {
            let quality = recorder.quality(file.media_ns());
            (file, quality)
        };
        let open: Vec<_> = self.files.drain(..).map(quality).collect();
        recorder.close();
        open.into_iter().for_each(|(file, quality)| self.close_file(file, quality));
    }

    /// Nothing is written into it any more.
    fn close_file(&mut self, mut file: RecordedFile, quality: Quality) {
        if let Some(wrote) = file.wrote() {
            self.send(wrote);
        }
        let zero = self.origin.unwrap_or_else(|| self.clock.unix_ns());
        let origin = self.recorder.as_ref().and_then(SourceRecorder::origin);
        self.send(file.closed(zero + origin.map_or(0, |at| at.ns() as i64), quality));
    }

    /// How far the files are.
    pub(super) fn report_written(&mut self) {
        let wrote: Vec<MediaEvent> = self.files.iter_mut().filter_map(RecordedFile::wrote).collect();
        wrote.into_iter().for_each(|event| self.send(event));
    }
}
