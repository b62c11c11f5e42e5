//! What begins: the room is joined, files are asked for as soon as enough is known, opened, and followed by others when
//! the codec changes. Part of the controller, on its thread.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::mpsc::Sender;
use std::time::Duration;

use spillway_ipc::{MediaEvent, Quality};
use spillway_plan::{Source, VideoPlan};
use tracing::debug;

use super::end::ORPHAN_DRAIN_TIMEOUT;
use super::{CONTINUE, Flow, RecorderController, failed};
use crate::output::{Fanout, FileTakerOptions};
use crate::receive::EmptyStart;
use crate::recorder::formats::{canvas, expected_pictures, file_streams, inputs, is_watched, join_waits};
use crate::recorder::input::RecorderInput;
use crate::recorder::mode::{self, RecordingMode, TrackSurvey};
use crate::recorder::recorded_file::{AskedFile, FilePlace, OpeningFiles, RecordedFile};
use crate::recorder::source_recorder::{RawPictureOutputs, SourceRecorder};
use crate::source::page::WebPage;
use crate::source::room::{JoinOptions, Room};
use crate::stream_tls::StreamTls;
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
        let mut options = JoinOptions::new(self.start.ws_url.clone(), self.start.token.clone(), plan.source.clone());
        options.room_id = plan.room_id.clone();
        options.want_video = plan.picture.is_some();
        options.want_audio = plan.sound.is_some();
        options.begins_muted = matches!(plan.picture, Some(VideoPlan::Copied));
        options.begins_without_media = match &plan.source {
            _ if options.begins_muted => EmptyStart::Never,
            Source::Room | Source::Participant { .. } => EmptyStart::Always,
            // Without what the request names there is no recording.
            Source::Tracks { .. } | Source::Media { .. } => EmptyStart::Muted,
            Source::Track { .. } | Source::Page(_) => EmptyStart::Never,
        };
        options.best_layer_of = mode::copied_codecs(plan);
        let (reorder, late) = join_waits(plan, &self.start.settings);
        options.reorder = reorder;
        options.late = late.unwrap_or(options.late);
        options.appear = Duration::from_millis(self.start.settings.appear_ms);
        options.waits_for_return = !is_watched(plan);
        options.return_grace = Duration::from_millis(self.start.settings.return_grace_ms);
        options.expected = expected_pictures(plan);
        options.tls = StreamTls::new(self.start.settings.streams.clone());
        let sender = RoomSender(self.tell.clone());
        match Room::join(options, move |deliveries| sender.0.send(RecorderInput::Room(deliveries)).is_ok()) {
            Ok(room) => self.room = Some(room),
            Err(error) => return failed("internal", format!("start the room's thread: {error}")),
        }
        CONTINUE
    }

    /// The next recorder has something else to do than files. The end of the last stream is the runner's to judge.
    fn has_others_to_begin(&self) -> bool {
        self.streams.is_asked() || !self.segments_to_begin().is_empty() || !self.images_to_begin().is_empty()
    }

    /// Asks for the files as soon as enough is known.
    pub(super) fn choose_mode(&mut self) -> Flow {
        if let Some(message) = self.survey.refusal(&self.start.plan) {
            return failed("invalid_argument", message);
        }
        if self.opening.is_none()
            && let Some(mode) = self.survey.choose_mode(&self.start.plan)
        {
            return self.ask_for_files(mode);
        }
        CONTINUE
    }

    /// It is known how they are made.
    pub(super) fn ask_for_files(&mut self, mode: RecordingMode) -> Flow {
        debug!(?mode, "chosen");
        let plan = &self.start.plan;
        let (mut asked, mut notes) = (BTreeMap::new(), BTreeSet::new());
        for (output, file) in (0..).zip(plan.files()).filter(|(output, _)| !self.ended_outputs.contains(output)) {
            let container = mode::container(&mode, plan, file);
            notes.extend(mode::container_note(&mode, file, container));
            // The first file of an output has its number, or another one where a dead process has written that.
            let first = self.start.resume.as_ref().and_then(|resume| resume.first_files.get(&output));
            let number = if self.recorder_count == 0 { *first.unwrap_or(&output) } else { self.next_number };
            self.next_number += u32::from(self.recorder_count > 0);
            asked.insert(number, AskedFile { output, container, place: None });
        }
        if asked.is_empty() && !self.has_others_to_begin() {
            return failed("invalid_argument", "no output is left".to_owned());
        }
        let facts = self.survey.facts(plan);
        for (number, AskedFile { output, container, .. }) in &asked {
            let (file, output, container) = (*number, Some(*output), *container);
            self.send(MediaEvent::Opening { file, output, container, facts: facts.clone() });
        }
        notes.into_iter().for_each(|message| self.send(MediaEvent::Noted { message }));
        self.opening = Some(OpeningFiles { mode, facts, asked });
        // Without files nothing is waited for.
        self.begin_if_answered()
    }

    pub(super) fn write_to(&mut self, file: u32, place: FilePlace) -> Flow {
        let Some(asked) = self.opening.as_mut().and_then(|opening| opening.asked.get_mut(&file)) else {
            return CONTINUE;
        };
        asked.place.get_or_insert(place);
        self.begin_if_answered()
    }

    /// This file could not be made.
    pub(super) fn no_file(&mut self, file: u32, message: String) -> Flow {
        let Some(asked) = self.opening.as_ref().and_then(|opening| opening.asked.get(&file)) else { return CONTINUE };
        let output = asked.output;
        self.ended_outputs.insert(output);
        self.forget_asked(|asked| asked.output == output, message)
    }

    /// Goes on without some of the files that were asked for; `message` says why there is none if none is left.
    pub(super) fn forget_asked(&mut self, forgotten: impl Fn(&AskedFile) -> bool, message: String) -> Flow {
        let nothing_else = !self.has_others_to_begin();
        let Some(opening) = &mut self.opening else { return CONTINUE };
        opening.asked.retain(|_, asked| !forgotten(asked));
        if opening.asked.is_empty() && nothing_else {
            return failed("invalid_argument", message);
        }
        self.begin_if_answered()
    }

    fn begin_if_answered(&mut self) -> Flow {
        match self.opening.take_if(|opening| opening.asked.values().all(|asked| asked.place.is_some())) {
            Some(opening) => self.begin(opening),
            None => CONTINUE,
        }
    }

    fn begin(&mut self, opening: OpeningFiles) -> Flow {
        if let Some(gstreamer) = self.gstreamer.take() {
            match gstreamer.join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return failed("internal", format!("start GStreamer: {error}")),
                Err(_) => return failed("internal", "start GStreamer: it panicked".into()),
            }
        }
        let inputs = inputs(&opening.mode, &self.start.plan);
        let (segments, images) = (self.segments_to_begin(), self.images_to_begin());
        let sheets = self.sheets_to_begin();
        let canvas = canvas(&opening.mode, &self.start.plan, self.survey.published_size());
        let (number, tell) = (self.recorder_count, self.tell.clone());
        self.recorder_count += 1;
        self.facts = opening.facts.clone();
        self.whole_outputs = 0;
        let tell = move |event| {
            // Refused only when the controller is gone.
            let _ = tell.send(RecorderInput::Pipeline(number, event));
        };
        let formats = inputs.formats();
        let fanout = if images.is_empty() && sheets.is_none() {
            Fanout::new(formats, tell)
        } else {
            Fanout::with_raw_pictures(formats, tell)
        };
        let mut settings = self.start.settings.clone();
        let mut refused = vec![];
        for (file, asked) in opening.asked {
            let Some(place) = asked.place else { continue };
            let spill_dir = place.path.parent().map(Path::to_owned);
            settings.spill_dir = settings.spill_dir.take().or(spill_dir);
            let options = FileTakerOptions {
                streams: file_streams(fanout.formats(), &self.start.plan, asked.output, asked.container),
                container: asked.container,
                fragment_ms: settings.fragment_ms,
            };
            match RecordedFile::open(&fanout, (file, asked.output), &place, &options) {
                Ok(file) => self.files.push(file),
                Err(error) => refused.push(((Some(file), asked.output), error)),
            }
        }
        for (output, segments) in segments {
            match self.open_segments(&fanout, output, &segments, &opening.facts) {
                Ok(segments) => self.series.push(segments),
                Err(error) => refused.push(((None, output), error)),
            }
        }
        let mut ways = vec![];
        for (output, images) in images {
            match self.open_images((&fanout, number), (output, &images), canvas.as_ref(), &opening.facts) {
                Ok((images, way)) => {
                    self.series.push(images);
                    ways.push(way);
                }
                Err(error) => refused.push(((None, output), error)),
            }
        }
        ways.extend(sheets.and_then(|sheets| self.open_sheets(&fanout, sheets, canvas.as_ref())));
        // Streams alone have no folder for what waits.
        let spool = self.start.spool.clone().unwrap_or_else(std::env::temp_dir);
        settings.spill_dir.get_or_insert(spool);
        if self.files.is_empty()
            && self.series.is_empty()
            && !self.streams.is_asked()
            && let Some((_, error)) = refused.pop()
        {
            return self.broke(error);
        }
        // Outputs before the encoders run: so each stream has the first key frame.
        if let Err(error) = self.streams.begin(&fanout, &settings, &self.tell) {
            return failed("internal", format!("start the streams' thread: {error}"));
        }
        let plan = &self.start.plan;
        let pictures = RawPictureOutputs { takers: ways, canvas };
        let source = (opening.mode, self.page.as_ref().map(WebPage::media));
        match SourceRecorder::start(number, source, plan, &settings, (&inputs, fanout, pictures), &self.tell) {
            Ok(recorder) => {
                self.streams.encoding(recorder.key_frames());
                self.recorder = Some(recorder);
            }
            Err(error) => {
                self.files.clear();
                self.series.clear();
                return self.broke(error);
            }
        }
        for ((file, output), error) in refused {
            self.output_failed((file, output), &error);
            let Some(file) = file else { continue };
            let at = self.clock.unix_ns();
            let quality = Quality::default();
            self.send(MediaEvent::Closed { file, bytes: 0, started_at: at, ended_at: at, quality });
        }
        for timed in self.held.take() {
            let flow = self.timed(timed);
            if flow != CONTINUE {
                return flow;
            }
        }
        CONTINUE
    }

    /// The publication came back in a codec these files cannot take.
    pub(super) fn next_files(&mut self, joined: TimelineEvent) -> Flow {
        let message = "the published codec changed; the recording goes on in another file".to_owned();
        self.send(MediaEvent::Noted { message });
        if let Some(recorder) = &mut self.recorder {
            recorder.end(None);
        }
        self.survey = TrackSurvey::default();
        self.survey.take(&joined);
        // The new file knows of no track that joined before it: sound goes on.
        if let TimelineEvent::Joined { at, .. } = &joined {
            for track in self.heard.values().cloned() {
                let joined = TimelineEvent::Joined { track, at: *at };
                self.survey.take(&joined);
                self.held.push(joined);
            }
        }
        self.held.push(joined);
        // The old files are drained and closed here; what comes until the next ones are open is held.
        self.draining = None;
        self.finish_quietly();
        self.choose_mode()
    }

    /// Waits for the old files of a change of codec; their drain is a matter of milliseconds.
    fn finish_quietly(&mut self) {
        if let Some(recorder) = &mut self.recorder {
            recorder.wait_drained(ORPHAN_DRAIN_TIMEOUT);
        }
        self.close_files();
        self.keep_origin();
        self.recorder = None;
    }
}
