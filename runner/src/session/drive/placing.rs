//! What is recorded into: the opened outputs, with which the media process begins, and the files that it asks for. These are
//! made in the spool at once, or on this machine's disk beside everything else, because a disk may hang. Runs in the session's
//! task; what blocks runs on threads for that.

use std::path::{Path, PathBuf};
use std::time::Instant;

use spillway_ipc::{FileId, MediaCommand, ResumePoint, StartCommand, TrackFacts};
use spillway_plan::Container;
use spillway_protocol::Code;
use tokio::task::JoinError;
use tokio::time::timeout;
use tracing::info;

use super::{Driver, Placed};
use crate::clock;
use crate::events::SessionEvent;
use crate::results::{self, FileNumber, OutputError, claim};
use crate::session::media::MediaProcess;
use crate::session::opening::{OpenedOutputs, PLACE_TIMEOUT};

impl Driver<'_> {
    pub(super) fn opened(&mut self, OpenedOutputs { files, segments, images, sheets }: OpenedOutputs) {
        (self.files.outputs, self.segments, self.images, self.sheets) = (Some(files), segments, images, sheets);
    }

    pub(super) async fn begin(&mut self, opened: OpenedOutputs, media: &mut MediaProcess) {
        self.opened(opened);
        // Its timeouts begin now.
        self.session.begin(Instant::now());
        let resume = self.job.earlier.is_some().then(|| self.first_point());
        self.start_media(resume, media).await;
    }

    /// The media process begins, or goes on from `resume`.
    pub(super) async fn start_media(&mut self, resume: Option<ResumePoint>, media: &mut MediaProcess) {
        let (streams, facts) = self.streams.begin();
        facts.into_iter().for_each(|fact| self.reporter.report(fact));
        let start = StartCommand {
            plan: self.job.plan.clone(),
            ws_url: self.job.ws_url.clone(),
            token: self.job.token.clone(),
            page_url: self.job.page_url.clone(),
            settings: self.job.media.clone(),
            streams,
            clock_ahead_ns: self.job.clock.ahead_of_host_ns(),
            spool: self.segments.folder().or(self.images.folder()).or(self.sheets.folder()).map(Path::to_owned),
            resume,
        };
        media.send(&MediaCommand::Start(Box::new(start))).await;
    }

    /// A file that the media process waits for could not be made.
    pub(super) fn not_made(&mut self, number: FileNumber, error: &OutputError) -> SessionEvent {
        let message = error.to_string();
        self.unmade.insert(number.output, (number.file, message.clone()));
        SessionEvent::OutputEnded { output: number.output, failure: Some((Code::InvalidArgument, message)) }
    }

    /// Answers the media process at once for a file of the spool, and through [`Driver::placed`] for one that stays here.
    pub(super) async fn open(
        &mut self,
        number: FileNumber,
        container: Container,
        facts: &TrackFacts,
        media: &mut MediaProcess,
    ) -> Result<(), OutputError> {
        let plan = &self.job.plan;
        let FileNumber { file, output, .. } = number;
        // The codec changed, or a media process died: the recording of this output goes on in a file of another name.
        let nth = self.files.count_of(output).saturating_add(1);
        let (Some(asked), Some(outputs)) = (plan.file(output), &mut self.files.outputs) else {
            return Err(OutputError::NotRequested(output));
        };
        let asked = results::filename(plan, asked, container, facts, clock::local(&self.job.clock));
        let asked = results::numbered(&asked, nth);
        let spooled = timeout(PLACE_TIMEOUT, outputs.begin(plan, number, container, &asked));
        let path = self.job.root.locate(&asked);
        let slow = |_| OutputError::Slow { path: path.clone(), seconds: PLACE_TIMEOUT.as_secs() };
        if let Some(begun) = spooled.await.map_err(slow)? {
            let (output_path, upload) = begun?;
            let path = output_path.location.clone();
            self.files.opened_in_spool(number, output_path, facts.clone(), upload);
            self.write_to(file, path, None, media).await;
            return Ok(());
        }
        let (root, facts) = (self.job.root.clone(), facts.clone());
        self.placing.spawn(async move {
            let made = claim::within(PLACE_TIMEOUT, path, move || claim::claim(&asked, &root)).await;
            Placed { number, container, facts, made }
        });
        Ok(())
    }

    /// Answers the event for the machine, if the file was not made.
    pub(super) async fn placed(
        &mut self,
        placed: Result<Placed, JoinError>,
        media: &mut MediaProcess,
    ) -> Option<SessionEvent> {
        let Ok(Placed { number, container, facts, made }) = placed else { return None };
        let (output_path, claim) = match made {
            Ok(made) => made,
            Err(error) => return Some(self.not_made(number, &error)),
        };
        info!(file = %output_path.location.display(), "file opened");
        let path = output_path.location.clone();
        let id = self.files.opened_on_disk(number, container, output_path, facts, claim);
        self.write_to(number.file, path, Some(id), media).await;
        None
    }

    async fn write_to(&mut self, file: u32, path: PathBuf, id: Option<FileId>, media: &mut MediaProcess) {
        if self.files.started() {
            self.report_opened();
        }
        media.send(&MediaCommand::WriteTo { file, path, id }).await;
    }

    /// With the name of the file, playlist or images, where there are others.
    pub(super) fn of_file(&self, output: u32, message: String) -> String {
        let name = self.files.name_of(output).map(str::to_owned);
        let name = name.or_else(|| self.segments.name_of(output)).or_else(|| self.images.name_of(output));
        match name {
            Some(name) if self.job.plan.outputs.len() > 1 && !message.contains(&name) => format!("{name}: {message}"),
            _ => message,
        }
    }
}
