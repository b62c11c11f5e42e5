//! The controller of one recording: decides what is made ([`RecordingMode`](super::mode::RecordingMode)), leads its source
//! ([`SourceRecorder`]), its files ([`RecordedFile`]), outputs of many files ([`RecordedSeries`]) and streams
//! ([`RecordedStreams`]), tells the runner what happens. Runs on the main thread and reads one channel; never touches media.

mod begin;
mod files;
mod segments;
mod images;
mod sheets;
mod streams;
mod live;
mod page;
mod end;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::mpsc::{Receiver, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use gstreamer as gst;
use spillway_ipc::framing::EventWriter;
use spillway_ipc::{MediaCommand, MediaEndReason, MediaEvent, StartCommand, TrackFacts};
use spillway_process::{Clock, chain};
use tracing::{debug, info};

use super::held_events::HeldEvents;
use super::input::RecorderInput;
use super::mode::TrackSurvey;
use super::recorded_file::{FileError, FilePlace, OpeningFiles, RecordedFile, due};
use super::recorded_series::RecordedSeries;
use super::recorded_streams::RecordedStreams;
use super::source_recorder::{SourceRecorder, TakeOutcome};
use crate::compositor::{CompositorEvent, LayerRequest};
use crate::output::PipelineEvent;
use crate::receive::TrackStats;
use crate::source::page::WebPage;
use crate::source::room::{Room, RoomMessage};
use crate::track::{TimelineEvent, Track, TrackId};
use crate::units::MediaTime;

/// Progress is looked at this often.
const TICK: Duration = Duration::from_millis(250);
/// Between two [`MediaEvent::Alive`].
pub(super) const ALIVE_EVERY: Duration = Duration::from_millis(700);

pub(super) struct RecorderController {
    start: StartCommand,
    /// The installation's time, as the runner has told it; no step of the host's wall clock moves it.
    clock: Clock,
    events: EventWriter,
    alive_at: Option<Instant>,
    tell: Sender<RecorderInput>,
    gstreamer: Option<JoinHandle<Result<(), gst::glib::Error>>>,
    room: Option<Room>,
    page: Option<WebPage>,
    /// CLOCK_MONOTONIC of media time 0 of a page.
    page_began: Option<Duration>,
    /// Where the page has ended the recording, or was lost.
    page_end: Option<MediaTime>,
    /// Unix nanoseconds of media time 0.
    origin: Option<i64>,
    survey: TrackSurvey,
    /// Tracks of sound that have joined and not left.
    heard: HashMap<TrackId, Track>,
    /// What came while there were no files to take it.
    held: HeldEvents,
    /// Asked the runner where the next files go.
    opening: Option<OpeningFiles>,
    recorder: Option<SourceRecorder>,
    /// Recorders so far.
    recorder_count: u32,
    /// For the names of what the newest one writes.
    facts: TrackFacts,
    /// Files that are written.
    files: Vec<RecordedFile>,
    /// HLS and image outputs that are written.
    series: Vec<RecordedSeries>,
    /// By output: the number of its next image.
    image_counts: BTreeMap<u32, Arc<AtomicU32>>,
    /// By recorder: where those began that are gone.
    origins: BTreeMap<u32, MediaTime>,
    /// Outputs of the recorder that are whole and closed.
    whole_outputs: u32,
    /// Number of the next file after a change of codec, or behind that of a dead process.
    next_number: u32,
    /// Of the plan: they failed or were closed, also before this process, and get no other file.
    ended_outputs: BTreeSet<u32>,
    streams: RecordedStreams,
    /// When it was last told that a stream is late.
    late_told_at: Option<Instant>,
    started: bool,
    /// Asked the room to let us go; it is given until then.
    leaving: Option<Instant>,
    draining: Option<DrainState>,
    /// The runner is gone.
    orphan: bool,
}

struct DrainState {
    why: MediaEndReason,
    worked: u64,
    give_up_at: Instant,
    /// Nothing but images is still made; they are not waited for after this.
    images_until: Option<Instant>,
}

/// Whether the recording goes on.
type Flow = std::ops::ControlFlow<MediaEndReason>;
const CONTINUE: Flow = Flow::Continue(());

impl RecorderController {
    /// `gstreamer`: the thread that initialises GStreamer, joined before the first file.
    pub(super) fn new(
        mut start: StartCommand,
        events: EventWriter,
        tell: Sender<RecorderInput>,
        gstreamer: JoinHandle<Result<(), gst::glib::Error>>,
    ) -> Self {
        let streams = std::mem::take(&mut start.streams);
        let outputs = u32::try_from(start.plan.outputs.len()).unwrap_or(u32::MAX);
        let resume = start.resume.clone().unwrap_or_default();
        Self {
            streams: RecordedStreams::new(&start.plan, streams),
            late_told_at: None,
            clock: Clock::host_ahead_by(start.clock_ahead_ns),
            next_number: resume.next_file.max(outputs),
            ended_outputs: resume.ended_outputs,
            start,
            events,
            alive_at: None,
            tell,
            gstreamer: Some(gstreamer),
            room: None,
            page: None,
            page_began: None,
            page_end: None,
            origin: None,
            survey: TrackSurvey::default(),
            heard: HashMap::new(),
            held: HeldEvents::default(),
            opening: None,
            recorder: None,
            recorder_count: 0,
            facts: TrackFacts::default(),
            files: vec![],
            series: vec![],
            image_counts: BTreeMap::new(),
            origins: BTreeMap::new(),
            whole_outputs: 0,
            started: false,
            leaving: None,
            draining: None,
            orphan: false,
        }
    }

    /// Until the recording is over and everything is said.
    pub(super) fn run_loop(mut self, inbox: &Receiver<RecorderInput>) {
        let mut flow = if self.start.plan.page().is_some() { self.open_page() } else { self.join() };
        let mut next_tick = Instant::now();
        while flow == CONTINUE {
            let now = Instant::now();
            flow = if now >= next_tick {
                next_tick = now + TICK;
                self.tick(now)
            } else {
                match inbox.recv_timeout(next_tick - now) {
                    Ok(input) => self.on(input),
                    Err(_) => CONTINUE,
                }
            };
        }
        if let Flow::Break(why) = flow {
            self.tell_left_out();
            self.close_files();
            self.close_streams();
            self.pass_on_reports(inbox);
            info!(?why, "recording ended");
            self.send(MediaEvent::Ended { why });
        }
    }

    fn on(&mut self, input: RecorderInput) -> Flow {
        match input {
            RecorderInput::Command(MediaCommand::Start(_) | MediaCommand::Probe(_)) => CONTINUE,
            RecorderInput::Command(MediaCommand::WriteTo { file, path, id }) => {
                self.write_to(file, FilePlace { path, id })
            }
            RecorderInput::Command(MediaCommand::NoFile { file, message }) => self.no_file(file, message),
            RecorderInput::Command(MediaCommand::CloseOutput { output }) => self.close_output(output),
            RecorderInput::Command(MediaCommand::Stop) => self.stop(),
            RecorderInput::RunnerGone => {
                self.orphan = true;
                self.stop()
            }
            RecorderInput::Room(deliveries) => {
                deliveries.into_iter().try_for_each(|delivery| self.on_room_message(delivery))
            }
            RecorderInput::RoomGone => {
                self.room_over(MediaEndReason::SourceClosed { message: "the room is over".into() })
            }
            RecorderInput::Page(message) => self.on_page(message),
            RecorderInput::PageGone => self.page_gone(),
            RecorderInput::Pipeline(recorder, event) => self.on_pipeline(recorder, event),
            RecorderInput::Compositor(recorder, event) => self.on_compositor(recorder, event),
            RecorderInput::Command(MediaCommand::AddStream(start)) => {
                self.streams.add(start);
                CONTINUE
            }
            RecorderInput::Command(MediaCommand::RemoveStream { id }) => {
                self.remove_stream(id);
                CONTINUE
            }
            RecorderInput::Stream(id, event) => {
                self.on_stream(id, event);
                CONTINUE
            }
            RecorderInput::Media(event) => {
                self.send(event);
                CONTINUE
            }
            RecorderInput::Image(recorder, image) => self.image_captured(recorder, image),
        }
    }

    fn on_room_message(&mut self, delivery: RoomMessage) -> Flow {
        match delivery {
            RoomMessage::Epoch { at } => self.origin = Some(self.clock.unix_ns_at(at.into())),
            RoomMessage::TimelineEvent(timed) => return self.timed(timed),
            RoomMessage::Joined { room_id, room_name } => self.send(MediaEvent::Joined { room_id, room_name }),
            RoomMessage::Token(token) => self.send(MediaEvent::Token { token }),
            RoomMessage::Waiting(what) => self.send(MediaEvent::Waiting { what }),
            RoomMessage::Noted(message) => self.send(MediaEvent::Noted { message }),
            RoomMessage::Stats(stats) => self.stats(&stats),
            RoomMessage::Ended(why) => return self.room_over(why),
        }
        CONTINUE
    }

    fn stats(&mut self, stats: &TrackStats) {
        if let Some(recorder) = &mut self.recorder {
            recorder.packets(stats.track, stats.packets, stats.lost);
            recorder.av_offset(stats.track, stats.av_offset_ms);
        }
    }

    fn timed(&mut self, timed: TimelineEvent) -> Flow {
        if self.draining.is_some() {
            return CONTINUE;
        }
        match &timed {
            TimelineEvent::Joined { track, .. } if !track.codec.is_video() => {
                self.heard.insert(track.id, track.clone());
            }
            TimelineEvent::Left { track, .. } => {
                self.heard.remove(track);
            }
            _ => {}
        }
        let Some(recorder) = &mut self.recorder else {
            self.survey.take(&timed);
            if self.held.push(timed) {
                let message = "nothing could be recorded yet, and no more room is left: the first pictures are missing";
                self.send(MediaEvent::Noted { message: message.to_owned() });
            }
            return self.choose_mode();
        };
        self.streams.timed(&timed, recorder.origin());
        match recorder.take(&timed) {
            Ok(TakeOutcome::Went) => CONTINUE,
            Ok(TakeOutcome::Noted(message)) => {
                self.send(MediaEvent::Noted { message });
                CONTINUE
            }
            Ok(TakeOutcome::OtherCodec) => self.next_files(timed),
            Err(error) => self.broke(error),
        }
    }

    fn on_pipeline(&mut self, number: u32, event: PipelineEvent) -> Flow {
        if self.recorder.as_ref().is_none_or(|recorder| recorder.number != number) {
            return CONTINUE;
        }
        match event {
            PipelineEvent::Flowing => {
                self.flowing();
                CONTINUE
            }
            PipelineEvent::TakerEnded(taker) => {
                self.taker_ended(taker);
                CONTINUE
            }
            PipelineEvent::TakerFailed(taker, error) => self.taker_failed(taker, error),
            PipelineEvent::Drained => match self.draining.take() {
                Some(draining) => Flow::Break(draining.why),
                // Both inputs ended by themselves: only a compositor that broke does that.
                None => failed("internal", "the recording ended before it was told to".into()),
            },
            PipelineEvent::Broke(error) => self.broke(FileError::Pipeline(error)),
        }
    }

    fn flowing(&mut self) {
        if !self.started
            && let Some(recorder) = &self.recorder
            && let (Some(zero), Some(origin)) = (self.origin, recorder.origin())
        {
            self.started = true;
            self.send(MediaEvent::Started { at: zero + origin.ns() as i64, facts: Some(self.facts.clone()) });
        }
    }

    fn on_compositor(&mut self, number: u32, event: CompositorEvent) -> Flow {
        let Some(recorder) = self.recorder.as_mut().filter(|recorder| recorder.number == number) else {
            return CONTINUE;
        };
        match event {
            CompositorEvent::Started { at } => recorder.began(at),
            CompositorEvent::LayerRequest(request) => {
                recorder.asked(request);
                if let Some(room) = &self.room {
                    match request {
                        LayerRequest::Prefer { track, width, height } => room.prefer(track, width, height),
                        LayerRequest::Pause { track } => room.pause(track),
                        LayerRequest::KeyFrame { track } => room.ask_keyframe(track),
                    }
                }
            }
            CompositorEvent::Noted { message } => self.send(MediaEvent::Noted { message }),
            CompositorEvent::Broken { message } => {
                return self.drain(MediaEndReason::Failed { code: "internal".into(), message });
            }
            CompositorEvent::Ended => {}
        }
        CONTINUE
    }

    fn tick(&mut self, now: Instant) -> Flow {
        let (mut media_ns, mut lag_ms, mut backlog_bytes, mut worked) = (0, 0, 0, 0);
        if let Some(recorder) = &mut self.recorder {
            media_ns = recorder.media_ns();
            lag_ms = recorder.lag_ms();
            backlog_bytes =
                recorder.backlog_bytes() + self.files.iter().map(|file| file.progress.waiting_bytes()).sum::<u64>();
            worked = recorder.worked();
        }
        self.report_written();
        self.follow_viewers();
        self.tell_late_stream(lag_ms);
        if due(&mut self.alive_at, ALIVE_EVERY) {
            self.send(MediaEvent::Alive { media_ns, lag_ms, backlog_bytes, streams: self.streams.lags() });
        }
        // The first frame may have passed before the compositor's start or the wall clock was known.
        if media_ns > 0 {
            self.flowing();
        }
        self.watch_drain(now, worked)
    }

    fn send(&self, event: MediaEvent) {
        send(&self.events, &event);
    }
}

/// Sends an event to the runner. One that is gone is no error here: it is noticed where commands are read.
pub(super) fn send(events: &EventWriter, event: &MediaEvent) {
    if let Err(error) = events.send(event) {
        debug!(error = %chain(&error), "the runner does not read");
    }
}

/// Number of the first segment or image of an output: those before it are of a dead process.
fn first_number(start: &StartCommand, output: u32) -> u32 {
    start.resume.as_ref().and_then(|resume| resume.first_numbers.get(&output)).copied().unwrap_or_default()
}

fn failed(code: &str, message: String) -> Flow {
    Flow::Break(MediaEndReason::Failed { code: code.to_owned(), message })
}
