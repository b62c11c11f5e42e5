//! What the machine does not decide about events of the media process: where files lie, progress, and what the EgressInfo says
//! of outputs. Runs in the session's task.

use spillway_ipc::{MediaEndReason, MediaEvent};
use spillway_protocol::ledger::Fact;
use tracing::{info, warn};

use super::Driver;
use crate::events::SessionEvent;
use crate::report::FilesProgress;
use crate::results::FileNumber;
use crate::session::media::MediaProcess;

impl Driver<'_> {
    /// What the machine does not decide: where files lie, and progress. Answers the event for the machine, if it is another
    /// than this one.
    pub(super) async fn on_media_event(
        &mut self,
        media_event: &MediaEvent,
        media: &mut MediaProcess,
    ) -> Option<SessionEvent> {
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
            MediaEvent::Alive { media_ns, lag_ms, streams, .. } => {
                for fact in self.segments.progress_facts().chain(self.images.progress_facts()) {
                    self.reporter.report(fact);
                }
                let streams = streams.iter().map(|stream| (stream.id, stream.lag_ms)).collect();
                self.reporter.progress(*media_ns, *lag_ms, FilesProgress { streams, ..self.progress() });
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

    /// With the name of the file, playlist or images, where there are others.
    pub(super) fn of_file(&self, output: u32, message: String) -> String {
        let name = self.files.name_of(output).map(str::to_owned);
        let name = name.or_else(|| self.segments.name_of(output)).or_else(|| self.images.name_of(output));
        match name {
            Some(name) if self.job.plan.outputs.len() > 1 && !message.contains(&name) => format!("{name}: {message}"),
            _ => message,
        }
    }

    /// How far all outputs are, for heartbeats.
    fn progress(&self) -> FilesProgress {
        let mut progress = self.files.progress();
        self.segments.add_progress(&mut progress);
        self.images.add_progress(&mut progress);
        progress
    }

    /// Files, playlists and images are named from the first media on: an aborted egress has none.
    pub(super) fn report_opened(&mut self) {
        let facts = [self.files.opened_facts(), self.segments.opened_facts(), self.images.opened_facts()];
        for fact in facts.into_iter().flatten() {
            self.reporter.report(fact);
        }
    }

    /// Names of outputs go before the fact that the recording is active.
    pub(super) fn report(&mut self, fact: Fact) {
        if matches!(fact, Fact::Active { .. }) {
            self.report_opened();
        }
        self.reporter.report(fact);
    }
}
