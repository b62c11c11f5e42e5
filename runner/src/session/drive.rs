//! Runs one recording: starts the media process, passes its events to files, segments, images, streams and machine, and
//! carries out the effects of the last two. One task; what may block (disks, stores) runs beside it or after the media
//! process has ended. It decides nothing about phases and outcomes.
//!
//! `beginning` comes before the media process. `placing` begins with the opened outputs and makes the files that the media process asks for; `restarting` puts another media
//! process in the place of one that died, `resuming` goes on with what another task has recorded; `streams` carries out what the
//! streams decide.

mod beginning;
mod placing;
mod restarting;
mod resuming;
mod streams;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use spillway_bus::LiveStreams;
use spillway_guard::Guard;
use spillway_ipc::{MediaCommand, MediaEndReason, MediaEvent, TrackFacts};
use spillway_plan::Container;
use spillway_protocol::ledger::{Fact, Outcome};
use spillway_protocol::{Code, RpcError};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{info, warn};

use super::earlier::settled;
use super::files::SessionFiles;
use super::finalize::{RecordedOutputs, RecordingEnd, SessionEnd, end_recording};
use super::gaps::RecordingGaps;
use super::images::SessionImages;
use super::job::SessionJob;
use super::machine::{OpenOutputs, Session, SessionEffect};
use super::media::{MediaProcess, MediaUpdate};
use super::opening::open_outputs;
use super::segments::SessionSegments;
use super::sheets::SessionSheets;
use super::stream_updates::StreamUpdates;
use super::stream_url::{StreamUrl, StreamUrls};
use super::streams::SessionStreams;
use crate::clock;
use crate::events::{SessionEvent, StreamUpdate};
use crate::report::{FilesProgress, Reporter};
use crate::results::claim::Claim;
use crate::results::{FileNumber, OutputError, OutputPath};
use crate::upload::UploadResources;
use beginning::{failed, without_sheets};

const TICK: Duration = Duration::from_millis(250);
/// A stop waits no longer than this for the trial of the stores.
const STORE_CHECK_TIMEOUT: Duration = Duration::from_secs(1);

/// Records until the end. `inbox` brings stops and the loss of ownership; `session_tx` is its other end, for the uploads.
/// `updates` brings changes of the streams.
pub async fn drive(
    mut job: SessionJob,
    reporter: &Reporter,
    mut inbox: mpsc::Receiver<SessionEvent>,
    updates: mpsc::Receiver<StreamUpdate>,
    session_tx: mpsc::Sender<SessionEvent>,
) -> SessionEnd {
    without_sheets(&mut job, reporter);
    let (urls, asked) = (Arc::new(StreamUrls::default()), job.plan.streams());
    let LiveStreams { next_id, live } = &job.streams;
    let resolved = urls.resolve(live.iter().map(|stream| Ok(stream.url.clone())).collect()).await;
    let resolved: Result<Vec<StreamUrl>, RpcError> = resolved.into_iter().collect();
    let streams = match resolved {
        Ok(resolved) => {
            let live = live.iter().map(|stream| stream.id).zip(resolved).collect();
            SessionStreams::of(asked.map(|(output, _)| output), live, *next_id)
        }
        Err(error) => return failed(&mut job.earlier, reporter, error.code, error.message).await,
    };
    let guard = Guard::new(&job.media.guard);
    let mut updates = StreamUpdates::new(updates, asked.map(|(_, streams)| streams.protocol), urls, guard);
    let mut media = match MediaProcess::start(&job.program) {
        Ok(media) => media,
        Err(error) => {
            let message = spillway_process::chain(&error).to_string();
            return failed(&mut job.earlier, reporter, Code::Internal, message).await;
        }
    };
    let (plan, root, resources, begun) =
        (job.plan.clone(), job.root.clone(), job.resources.clone(), clock::local(&job.clock));
    let files = SessionFiles::new(resources.checkpoint_writer.clone());
    let segments = SessionSegments::none(resources.settings.clone(), resources.checkpoint_writer.clone());
    let images = SessionImages::none(resources.settings.clone(), resources.checkpoint_writer.clone());
    let earlier = job.earlier.clone();
    // The media process gets ready meanwhile, but joins no room before it is known that we may write.
    let mut opening = std::pin::pin!(open_outputs(&plan, resources, &root, begun, session_tx, earlier.as_ref()));
    let mut driver = Driver {
        session: Session::new(job.rules.clone(), OpenOutputs::of(&plan), Instant::now()),
        job,
        reporter,
        files,
        segments,
        images,
        sheets: SessionSheets::none(None),
        streams,
        placing: JoinSet::new(),
        unmade: BTreeMap::new(),
        gaps: RecordingGaps::default(),
        process_started_at: None,
        media_ns: 0,
        media_before_ns: 0,
        media_ended: false,
    };
    driver.go_on(earlier.as_ref());
    let mut saved = earlier.clone();
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut refused = false;
    let end = loop {
        let step = tokio::select! {
            biased;
            Some(event) = inbox.recv() => driver.on(event, &mut media).await,
            Some(update) = updates.next() => driver.update_streams(update, &mut media).await,
            next = media.next() => {
                let event = match next {
                    MediaUpdate::Received(media_event) => SessionEvent::Media(media_event),
                    MediaUpdate::Exited(message) => SessionEvent::MediaExited(message),
                };
                driver.on(event, &mut media).await
            }
            opened = &mut opening, if driver.files.outputs.is_none() => match opened {
                Ok(outputs) => {
                    driver.begin(outputs, &mut media).await;
                    NextStep::Continue
                }
                Err(message) => {
                    refused = true;
                    driver.on(SessionEvent::CannotWrite(message), &mut media).await
                }
            },
            Some(placed) = driver.placing.join_next(), if !driver.placing.is_empty() => {
                match driver.placed(placed, &mut media).await {
                    Some(event) => driver.on(event, &mut media).await,
                    None => NextStep::Continue,
                }
            }
            files = settled(&mut saved), if saved.is_some() => {
                saved = None;
                driver.settle(&files);
                NextStep::Continue
            }
            _ = ticks.tick(), if driver.files.outputs.is_some() => driver.on(SessionEvent::Tick, &mut media).await,
        };
        match step {
            NextStep::Continue => {}
            NextStep::Finish(outcome) => break RecordingEnd::Over(outcome),
            NextStep::HandOver(why) => break RecordingEnd::HandedOver(why),
            NextStep::Leave => break RecordingEnd::Lost,
        }
    };
    // Callers that wait are told that it is over.
    drop(updates);
    if end != RecordingEnd::Lost && driver.files.outputs.is_none() && !refused {
        // What the trial has begun is aborted.
        if let Ok(Ok(opened)) = timeout(STORE_CHECK_TIMEOUT, opening).await {
            driver.opened(opened);
        }
    }
    if matches!(end, RecordingEnd::Over(_)) {
        let told = driver.gaps.recording_ended(driver.job.clock.unix_ns());
        driver.tell_gap(told);
    }
    let Driver { job, reporter, files, segments, images, sheets, gaps, media_ended, .. } = driver;
    let SessionJob { plan, earlier, resources: UploadResources { checkpoint_writer, .. }, .. } = job;
    let outputs = RecordedOutputs { files, segments, images, sheets, gaps, earlier, checkpoint_writer };
    end_recording(&plan, reporter, outputs, end, (media, media_ended), inbox).await
}

enum NextStep {
    Continue,
    Finish(Outcome),
    HandOver(String),
    Leave,
}

struct Driver<'a> {
    session: Session,
    job: SessionJob,
    reporter: &'a Reporter,
    files: SessionFiles,
    segments: SessionSegments,
    images: SessionImages,
    sheets: SessionSheets,
    streams: SessionStreams,
    /// Files that are being made on this machine's disk, beside everything else: a disk may hang.
    placing: JoinSet<Placed>,
    /// By output: a file that the media process waits for and that could not be made, and why.
    unmade: BTreeMap<u32, (u32, String)>,
    /// In which nothing was recorded.
    gaps: RecordingGaps,
    /// Unix nanoseconds of the first instant that this media process has recorded.
    process_started_at: Option<i64>,
    /// Media that it has written so far, and those before it, nanoseconds.
    media_ns: u64,
    media_before_ns: u64,
    /// The media process has sent `Ended`: its files are closed.
    media_ended: bool,
}

/// What became of a file that the media process asked for.
struct Placed {
    number: FileNumber,
    container: Container,
    facts: TrackFacts,
    made: Result<(OutputPath, Claim), OutputError>,
}

impl Driver<'_> {
    async fn on(&mut self, event: SessionEvent, media: &mut MediaProcess) -> NextStep {
        let mut of_streams = None;
        let event = match event {
            SessionEvent::Media(media_event) => {
                self.files.on_media_event(&media_event);
                self.sheets.on_media_event(&media_event);
                if let MediaEvent::Stream { id, state, message, .. } = &media_event {
                    let effects = self.streams.on_event(*id, state, message);
                    of_streams = self.apply(effects, media).await;
                }
                let now = || clock::local(&self.job.clock);
                let named = self.segments.on_media_event(&media_event, &self.job.plan, now)
                    | self.images.on_media_event(&media_event, &self.job.plan, now);
                // With the first media, `Active` says so.
                if named && (self.media_before_ns > 0 || !matches!(media_event, MediaEvent::Started { .. })) {
                    self.report_opened();
                }
                self.on_media_event(&media_event, media).await.unwrap_or(SessionEvent::Media(media_event))
            }
            SessionEvent::OutputFull { output, message } => {
                SessionEvent::OutputFull { output, message: self.of_file(output, message) }
            }
            other => other,
        };
        for event in [Some(event), of_streams].into_iter().flatten() {
            match self.decide(event, media).await {
                NextStep::Continue => {}
                step => return step,
            }
        }
        NextStep::Continue
    }

    /// What the machine does not decide: where files lie, and progress. Answers the event for the machine, if it is another
    /// than this one.
    async fn on_media_event(&mut self, media_event: &MediaEvent, media: &mut MediaProcess) -> Option<SessionEvent> {
        match media_event {
            MediaEvent::Opening { file, output, container, facts } => {
                let number = FileNumber::new(&self.job.plan, *file, output.unwrap_or(*file));
                let opened = self.open(number, *container, facts, media).await;
                return opened.err().map(|error| self.not_made(number, &error));
            }
            MediaEvent::OutputFailed { output, file, full, code, message } => {
                warn!(output, reason = message, "output failed, the others go on");
                let (output, file, full, code) = (*output, *file, *full, code.clone());
                let message = self.of_file(output, message.clone());
                return Some(SessionEvent::Media(MediaEvent::OutputFailed { output, file, full, code, message }));
            }
            MediaEvent::Joined { room_id, room_name } => {
                info!(room = %room_name, room_id, "joined the room");
                let asked = &mut self.job.plan.room_id;
                if asked.is_empty() {
                    asked.clone_from(room_id);
                } else if !room_id.is_empty() && asked != room_id {
                    return Some(SessionEvent::WrongRoom);
                }
                self.reporter.report(Fact::Joined { room_id: room_id.clone(), room_name: room_name.clone() });
            }
            MediaEvent::Token { token } => self.job.token = token.clone(),
            MediaEvent::Started { at, .. } => {
                self.process_started_at = Some(*at);
                let told = self.gaps.end(*at);
                self.tell_gap(told);
            }
            MediaEvent::Alive { media_ns, lag_ms, streams, .. } => {
                self.media_ns = *media_ns;
                let files = self.files.progress_facts();
                for fact in files.into_iter().chain(self.segments.progress_facts()).chain(self.images.progress_facts())
                {
                    self.reporter.report(fact);
                }
                let streams = streams.iter().map(|stream| (stream.id, stream.lag_ms)).collect();
                let media_ns = self.media_before_ns.saturating_add(*media_ns);
                self.reporter.progress(media_ns, *lag_ms, FilesProgress { streams, ..self.progress() });
            }
            MediaEvent::Wrote { .. } if self.files.started() => self.report_opened(),
            MediaEvent::Closed { quality, .. }
            | MediaEvent::SegmentsEnded { quality, .. }
            | MediaEvent::ImagesEnded { quality, .. } => {
                for message in &quality.degraded {
                    warn!(reason = message, "recording is degraded");
                }
            }
            MediaEvent::Ended { why } => {
                self.media_ended = true;
                if let MediaEndReason::SourceClosed { message } = why {
                    info!(reason = message, "source closed");
                }
            }
            _ => {}
        }
        None
    }

    /// Lets the machine decide, and carries out its effects.
    async fn decide(&mut self, event: SessionEvent, media: &mut MediaProcess) -> NextStep {
        let mut effects = VecDeque::from(self.session.on(event, Instant::now()));
        while let Some(effect) = effects.pop_front() {
            match effect {
                SessionEffect::StopMedia => {
                    self.streams.ending();
                    media.send(&MediaCommand::Stop).await;
                }
                SessionEffect::CloseOutput(output) => {
                    let command = match self.unmade.remove(&output) {
                        Some((file, message)) => MediaCommand::NoFile { file, message },
                        None => MediaCommand::CloseOutput { output },
                    };
                    media.send(&command).await;
                }
                SessionEffect::RestartMedia(why) => {
                    if let Err(message) = self.restart(&why, media).await {
                        effects.extend(self.session.not_restarted(message));
                    }
                }
                SessionEffect::Report(fact) => self.report(fact),
                SessionEffect::Finish(outcome) => return NextStep::Finish(outcome),
                SessionEffect::HandOver(why) => return NextStep::HandOver(why),
                SessionEffect::Leave => return NextStep::Leave,
            }
        }
        NextStep::Continue
    }

    /// How far all outputs are, for heartbeats.
    fn progress(&self) -> FilesProgress {
        let mut progress = self.files.progress();
        self.segments.add_progress(&mut progress);
        self.images.add_progress(&mut progress);
        progress
    }

    /// Files, playlists and images are named from the first media on: an aborted egress has none.
    fn report_opened(&mut self) {
        let facts = [self.files.opened_facts(), self.segments.opened_facts(), self.images.opened_facts()];
        for fact in facts.into_iter().flatten() {
            self.reporter.report(fact);
        }
    }

    /// Names of outputs go before the fact that the recording is active.
    fn report(&mut self, fact: Fact) {
        if matches!(fact, Fact::Active { .. }) {
            self.report_opened();
        }
        self.reporter.report(fact);
    }
}
