//! Runs one recording: starts the media process, passes its events to the files and to the machine, and carries out the
//! machine's effects. One task; what may block (disks, stores) runs beside it or after the media process has ended. It
//! decides nothing about phases and outcomes.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use spillway_ipc::{FileId, MediaCommand, MediaEndReason, MediaEvent, MediaSettings, StartCommand, TrackFacts};
use spillway_plan::{Container, EgressPlan, Output};
use spillway_process::{Clock, LocalRoot};
use spillway_protocol::Code;
use spillway_protocol::Secret;
use spillway_protocol::ledger::{EgressEndReason, Fact, Outcome};
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};
use tokio::time::timeout;
use tracing::{info, warn};

use super::files::SessionFiles;
use super::finalize::finalize_files;
use super::machine::{Session, SessionEffect, SessionRules};
use super::media::{MediaProcess, MediaUpdate};
use crate::clock;
use crate::events::SessionEvent;
use crate::report::Reporter;
use crate::results::claim::{self, Claim};
use crate::results::{self, OutputError, OutputPath};
use crate::upload::{PreparedOutputs, UploadResources};

const TICK: Duration = Duration::from_millis(250);
/// A media process that has sent its last event, or was told to stop, exits by itself within this.
const EXIT_GRACE: Duration = Duration::from_secs(2);
/// A stop waits no longer than this for the trial of the stores.
const STORE_CHECK_TIMEOUT: Duration = Duration::from_secs(1);
/// For folders and a file to be made. A network disk that wakes up takes seconds; one that hangs is an error.
const PLACE_TIMEOUT: Duration = Duration::from_secs(15);

/// Everything one recording needs.
#[derive(Clone, Debug)]
pub struct SessionJob {
    /// What is recorded, how, and into which files.
    pub plan: EgressPlan,
    /// livekit-server's websocket URL.
    pub ws_url: String,
    /// JWT for the room.
    pub token: Secret,
    /// For the media process.
    pub media: MediaSettings,
    /// The media program.
    pub program: PathBuf,
    /// Where files lie that stay on this machine.
    pub root: LocalRoot,
    /// Limits and timeouts.
    pub rules: SessionRules,
    /// Stores, spool and checkpoint.
    pub resources: UploadResources,
    /// For all timestamps, here and in the media process.
    pub clock: Clock,
}

/// How a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionEnd {
    /// The final state is reported.
    Reported,
    /// Another writer has ended this egress; nothing more is reported.
    OwnershipLost,
}

/// Records until the end. `inbox` brings stops and the loss of ownership; `session_tx` is its other end, for the uploads.
pub async fn drive(
    job: SessionJob,
    reporter: &Reporter,
    mut inbox: mpsc::Receiver<SessionEvent>,
    session_tx: mpsc::Sender<SessionEvent>,
) -> SessionEnd {
    let mut media = match MediaProcess::start(&job.program) {
        Ok(media) => media,
        Err(error) => {
            let message = spillway_process::chain(&error).to_string();
            reporter.report(Fact::Ending(EgressEndReason::Failure));
            reporter.report(Fact::Over(Outcome::Failed { code: Code::Internal, message }));
            return SessionEnd::Reported;
        }
    };
    let (plan, resources, begun) = (job.plan.clone(), job.resources.clone(), clock::local(&job.clock));
    let files = SessionFiles::new(resources.checkpoint_writer.clone());
    // The media process gets ready meanwhile, but joins no room before it is known that we may write.
    let mut opening = std::pin::pin!(PreparedOutputs::open(&plan, resources, begun, session_tx));
    let mut driver = Driver {
        session: Session::new(job.rules.clone(), Instant::now()),
        job,
        reporter,
        files,
        placing: JoinSet::new(),
        media_ended: false,
    };
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut refused = false;
    let outcome = loop {
        let event = tokio::select! {
            biased;
            Some(event) = inbox.recv() => event,
            next = media.next() => match next {
                MediaUpdate::Received(media_event) => SessionEvent::Media(media_event),
                MediaUpdate::Exited(message) => SessionEvent::MediaExited(message),
            },
            opened = &mut opening, if driver.files.outputs.is_none() => match opened {
                Ok(outputs) => {
                    driver.begin(outputs, &mut media).await;
                    continue;
                }
                Err(message) => {
                    refused = true;
                    SessionEvent::CannotWrite(message)
                }
            },
            Some(placed) = driver.placing.join_next(), if !driver.placing.is_empty() => {
                match driver.placed(placed, &mut media).await {
                    Ok(()) => continue,
                    Err(error) => SessionEvent::CannotWrite(error.to_string()),
                }
            }
            _ = ticks.tick(), if driver.files.outputs.is_some() => SessionEvent::Tick,
        };
        match driver.on(event, &mut media).await {
            NextStep::Continue => {}
            NextStep::Finish(outcome) => break Some(outcome),
            NextStep::Leave => break None,
        }
    };
    if outcome.is_some() && driver.files.outputs.is_none() && !refused {
        // What the trial has begun is aborted.
        driver.files.outputs = timeout(STORE_CHECK_TIMEOUT, opening).await.ok().and_then(Result::ok);
    }
    driver.finalize(outcome, media, inbox).await
}

enum NextStep {
    Continue,
    Finish(Outcome),
    Leave,
}

struct Driver<'a> {
    session: Session,
    job: SessionJob,
    reporter: &'a Reporter,
    files: SessionFiles,
    /// Files that are being made on this machine's disk, beside everything else: a disk may hang.
    placing: JoinSet<Placed>,
    /// The media process has sent `Ended`: its files are closed.
    media_ended: bool,
}

/// What became of a file that the media process asked for.
struct Placed {
    file: u32,
    container: Container,
    facts: TrackFacts,
    made: Result<(OutputPath, Claim), OutputError>,
}

impl Driver<'_> {
    async fn begin(&mut self, outputs: PreparedOutputs, media: &mut MediaProcess) {
        self.files.outputs = Some(outputs);
        // Its timeouts begin now.
        self.session = Session::new(self.job.rules.clone(), Instant::now());
        let start = StartCommand {
            plan: self.job.plan.clone(),
            ws_url: self.job.ws_url.clone(),
            token: self.job.token.reveal().clone(),
            settings: self.job.media.clone(),
            streams: vec![],
            clock_ahead_ns: self.job.clock.ahead_of_host_ns(),
        };
        media.send(&MediaCommand::Start(Box::new(start))).await;
    }

    async fn on(&mut self, event: SessionEvent, media: &mut MediaProcess) -> NextStep {
        let event = match event {
            SessionEvent::Media(media_event) => {
                self.files.on_media_event(&media_event);
                match self.on_media_event(&media_event, media).await {
                    Ok(None) => SessionEvent::Media(media_event),
                    Ok(Some(instead)) => instead,
                    Err(error) => SessionEvent::CannotWrite(error.to_string()),
                }
            }
            other => other,
        };
        for effect in self.session.on(event, Instant::now()) {
            match effect {
                SessionEffect::StopMedia => media.send(&MediaCommand::Stop).await,
                SessionEffect::Report(fact) => self.report(fact),
                SessionEffect::Finish(outcome) => return NextStep::Finish(outcome),
                SessionEffect::Leave => return NextStep::Leave,
            }
        }
        NextStep::Continue
    }

    /// What the machine does not decide: where files lie, and progress. Answers the event for the machine, if it is another
    /// than this one.
    async fn on_media_event(
        &mut self,
        media_event: &MediaEvent,
        media: &mut MediaProcess,
    ) -> Result<Option<SessionEvent>, OutputError> {
        match media_event {
            MediaEvent::Opening { file, container, facts } => {
                self.open(*file, *container, facts, media).await?;
            }
            MediaEvent::Joined { room_id, room_name } => {
                info!(room = %room_name, room_id, "joined the room");
                let asked = &mut self.job.plan.room_id;
                if asked.is_empty() {
                    asked.clone_from(room_id);
                } else if !room_id.is_empty() && asked != room_id {
                    return Ok(Some(SessionEvent::WrongRoom));
                }
                self.reporter.report(Fact::Joined { room_id: room_id.clone(), room_name: room_name.clone() });
            }
            MediaEvent::Alive { media_ns, lag_ms, .. } => {
                self.reporter.progress(*media_ns, *lag_ms, self.files.progress());
            }
            MediaEvent::Closed { quality, .. } => {
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
        Ok(None)
    }

    /// Answers the media process at once for a file of the spool, and through [`Driver::placed`] for one that stays here.
    async fn open(
        &mut self,
        file: u32,
        container: Container,
        facts: &TrackFacts,
        media: &mut MediaProcess,
    ) -> Result<(), OutputError> {
        let plan = &self.job.plan;
        let (Some(Output::File(output)), Some(outputs)) = (plan.outputs.get(file as usize), &mut self.files.outputs)
        else {
            return Err(OutputError::NotRequested(file));
        };
        let asked = results::filename(plan, output, container, facts, clock::local(&self.job.clock));
        let spooled = timeout(PLACE_TIMEOUT, outputs.begin(plan, file, container, &asked));
        let path = self.job.root.locate(&asked);
        let slow = |_| OutputError::Slow { path: path.clone(), seconds: PLACE_TIMEOUT.as_secs() };
        if let Some(begun) = spooled.await.map_err(slow)? {
            let (output_path, upload) = begun?;
            let path = output_path.location.clone();
            self.files.opened_in_spool(file, output_path, facts.clone(), upload);
            self.write_to(file, path, None, media).await;
            return Ok(());
        }
        let (root, facts) = (self.job.root.clone(), facts.clone());
        self.placing.spawn(async move {
            let made = claim::within(PLACE_TIMEOUT, path, move || claim::claim(&asked, &root)).await;
            Placed { file, container, facts, made }
        });
        Ok(())
    }

    async fn placed(&mut self, placed: Result<Placed, JoinError>, media: &mut MediaProcess) -> Result<(), OutputError> {
        let Ok(Placed { file, container, facts, made }) = placed else { return Ok(()) };
        let (output_path, claim) = made?;
        info!(file = %output_path.location.display(), "file opened");
        let path = output_path.location.clone();
        let id = self.files.opened_on_disk(file, container, output_path, facts, claim);
        self.write_to(file, path, Some(id), media).await;
        Ok(())
    }

    async fn write_to(&mut self, file: u32, path: PathBuf, id: Option<FileId>, media: &mut MediaProcess) {
        if self.files.started() {
            self.report_opened();
        }
        media.send(&MediaCommand::WriteTo { file, path, id }).await;
    }

    /// Files are named from the first media on: an aborted egress has none.
    fn report_opened(&self) {
        for fact in self.files.opened_facts() {
            self.reporter.report(fact);
        }
    }

    fn report(&self, fact: Fact) {
        if matches!(fact, Fact::Active { .. }) {
            self.report_opened();
        }
        self.reporter.report(fact);
    }

    async fn finalize(
        self,
        outcome: Option<Outcome>,
        mut media: MediaProcess,
        inbox: mpsc::Receiver<SessionEvent>,
    ) -> SessionEnd {
        // Without its last event it may still be writing.
        let written_to = !self.media_ended && !matches!(outcome, Some(Outcome::Aborted { .. }));
        if written_to {
            media.end(Duration::ZERO, Duration::from_millis(300)).await;
        }
        let ended = match outcome {
            // What was begun belongs to the later attempt.
            None => SessionEnd::OwnershipLost,
            Some(outcome) => {
                tokio::select! {
                    () = finalize_files(&self.job.plan, self.reporter, self.files, outcome) => SessionEnd::Reported,
                    () = ownership_lost(inbox) => SessionEnd::OwnershipLost,
                }
            }
        };
        if !written_to {
            media.end(EXIT_GRACE, EXIT_GRACE).await;
        }
        ended
    }
}

/// Waits until the egress belongs to another writer. Other events are dropped: the recording has ended, and only uploads
/// go on.
pub async fn ownership_lost(mut inbox: mpsc::Receiver<SessionEvent>) {
    loop {
        match inbox.recv().await {
            Some(SessionEvent::OwnershipLost) => return,
            Some(_) => {}
            None => std::future::pending().await,
        }
    }
}
