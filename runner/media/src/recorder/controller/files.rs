//! The files of a recording: when one is asked for, opened, followed by another, and closed. Part of the controller, on
//! its thread.

use std::path::Path;

use spillway_ipc::{FileId, MediaEvent};
use tracing::debug;

use super::{CONTINUE, Flow, ORPHAN_DRAIN_TIMEOUT, RecorderController, failed};
use crate::recorder::file_recorder::FileRecorder;
use crate::recorder::mode::{self, RecordingMode, TrackSurvey};
use crate::track::TimelineEvent;

impl RecorderController {
    /// Asks for a file as soon as enough is known.
    pub(super) fn choose_mode(&mut self) -> Flow {
        if self.opening.is_none()
            && let Some(mode) = self.survey.choose_mode(&self.start.plan)
        {
            debug!(?mode, "chosen");
            let container = match &mode {
                RecordingMode::Track { container, .. } => *container,
                _ => mode::container(&self.start.plan),
            };
            let facts = self.survey.facts(&self.start.plan);
            self.report.send(MediaEvent::Opening { file: self.file_count, container, facts });
            self.opening = Some(mode);
        }
        CONTINUE
    }

    pub(super) fn write_to(&mut self, file: u32, place: (&Path, Option<FileId>)) -> Flow {
        if file != self.file_count {
            return CONTINUE;
        }
        let Some(mode) = self.opening.take() else { return CONTINUE };
        if let Some(gstreamer) = self.gstreamer.take() {
            match gstreamer.join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return failed("internal", format!("start GStreamer: {error}")),
                Err(_) => return failed("internal", "start GStreamer: it panicked".into()),
            }
        }
        let opened = FileRecorder::open(file, mode, &self.start.plan, &self.start.settings, place, &self.tell);
        match opened {
            Ok(recorder) => self.recorder = Some(recorder),
            Err(error) => return self.broke(error),
        }
        self.file_count += 1;
        for timed in std::mem::take(&mut self.held) {
            let flow = self.timed(timed);
            if flow != CONTINUE {
                return flow;
            }
        }
        CONTINUE
    }

    /// The publication came back in a codec this file cannot take.
    pub(super) fn next_file(&mut self, joined: TimelineEvent) -> Flow {
        let message = "the published codec changed; the recording goes on in another file".to_owned();
        self.report.send(MediaEvent::Noted { message });
        if let Some(recorder) = &mut self.recorder
            && let Err(error) = recorder.end()
        {
            return self.broke(error);
        }
        self.survey = TrackSurvey::default();
        self.survey.take(&joined);
        self.held.push(joined);
        // The old part drains in its own threads; what comes meanwhile is held.
        self.draining = None;
        self.finish_quietly();
        self.choose_mode()
    }

    /// Waits for the old file of a change of codec; its drain is a matter of milliseconds.
    fn finish_quietly(&mut self) {
        if let Some(recorder) = &mut self.recorder {
            recorder.wait_drained(ORPHAN_DRAIN_TIMEOUT);
        }
        self.close_file();
        self.recorder = None;
    }

    /// Says what the file has become.
    pub(super) fn close_file(&mut self) {
        let Some(recorder) = &mut self.recorder else { return };
        let (quality, media_ns) = (recorder.quality(), recorder.media_ns());
        recorder.close();
        let (bytes, sealed_to) = recorder.bytes();
        self.report.wrote(recorder.number, bytes, sealed_to, media_ns);
        let zero = self.origin.unwrap_or_else(|| self.clock.unix_ns());
        let started_at = zero + recorder.origin().map_or(0, |at| at.ns() as i64);
        self.report.send(MediaEvent::Closed {
            file: recorder.number,
            bytes,
            started_at,
            ended_at: started_at + media_ns as i64,
            quality,
        });
    }
}
