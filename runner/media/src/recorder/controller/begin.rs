//! What begins: the room is joined, a file is asked for as soon as enough is known, opened, and followed by another when
//! the codec changes. Part of the controller, on its thread.

use std::path::Path;
use std::sync::mpsc::Sender;
use std::time::Duration;

use spillway_ipc::{FileId, MediaEvent};
use spillway_plan::Secret;
use tracing::debug;

use super::{CONTINUE, Flow, ORPHAN_DRAIN_TIMEOUT, RecorderController, failed};
use crate::recorder::file_recorder::FileRecorder;
use crate::recorder::input::RecorderInput;
use crate::recorder::mode::{self, RecordingMode, TrackSurvey};
use crate::source::room::{JoinOptions, Room};
use crate::track::TimelineEvent;

/// The room's way to us. However the room ends, a panic included, we hear that it is gone.
struct RoomSender(Sender<RecorderInput>);

impl Drop for RoomSender {
    fn drop(&mut self) {
        let _ = self.0.send(RecorderInput::RoomGone);
    }
}

impl RecorderController {
    pub(super) fn join(&mut self) -> Flow {
        let plan = &self.start.plan;
        let mut options =
            JoinOptions::new(self.start.ws_url.clone(), Secret::new(self.start.token.clone()), plan.source.clone());
        options.room_id = plan.room_id.clone();
        options.want_video = plan.picture.is_some();
        options.want_audio = plan.sound.is_some();
        options.reorder = Duration::from_millis(self.start.settings.reorder_ms);
        options.appear = Duration::from_millis(self.start.settings.appear_ms);
        let sender = RoomSender(self.tell.clone());
        match Room::join(options, move |deliveries| sender.0.send(RecorderInput::Room(deliveries)).is_ok()) {
            Ok(room) => self.room = Some(room),
            Err(error) => return failed("internal", format!("start the room's thread: {error}")),
        }
        CONTINUE
    }

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
            self.send(MediaEvent::Opening { file: self.file_count, container, facts });
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
        self.send(MediaEvent::Noted { message });
        if let Some(recorder) = &mut self.recorder
            && let Err(error) = recorder.end()
        {
            return self.broke(error);
        }
        self.survey = TrackSurvey::default();
        self.survey.take(&joined);
        self.held.push(joined);
        // The old file is drained and closed here; what comes until the next one is open is held.
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
}
