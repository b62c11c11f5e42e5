//! Another media process takes the place of one that died: what is recorded stays, files and segments count on, streams are
//! published again. Runs in the session's task, which hears nothing meanwhile; each step is bounded.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use spillway_ipc::ResumePoint;
use spillway_process::chain;
use spillway_protocol::ledger::Fact;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::timeout;
use tracing::{info, warn};

use super::Driver;
use super::beginning::SHEETS_OF_BEFORE;
use crate::results;
use crate::session::media::MediaProcess;

/// For the spool to say what lies there, and for what is not kept to be taken back. A stop waits as long at most.
const LOOK_TIMEOUT: Duration = Duration::from_secs(6);

impl Driver<'_> {
    /// The media process is gone or hangs, for the reason `why`: another one goes on. Takes some milliseconds where the disk
    /// and the stores answer.
    ///
    /// # Errors
    /// The process does not die or there is none in its place, or the disk does not answer: the message for the user.
    pub(super) async fn restart(&mut self, why: &str, media: &mut MediaProcess) -> Result<(), String> {
        warn!(reason = why, "media process is lost, another one goes on");
        media.end(Duration::ZERO, Duration::ZERO).await;
        if !media.is_gone() {
            return Err(format!("{why}; it does not die"));
        }
        // What it had asked for is of no use.
        self.placing = JoinSet::new();
        self.unmade.clear();
        *media = MediaProcess::start(&self.job.program).map_err(|error| format!("{why}; {}", chain(&error)))?;
        if self.files.outputs.is_none() {
            // It begins when the outputs are open.
            return Ok(());
        }
        let now = self.job.clock.unix_ns();
        if self.files.started() {
            let told = self.gaps.begin(self.recorded_to().map_or(now, |recorded| recorded.min(now)), why);
            self.tell_gap(told);
            // They are of the first process, and their times count from its beginning.
            if self.job.plan.sheets.take().is_some() {
                self.reporter.report(Fact::Noted(SHEETS_OF_BEFORE.to_owned()));
            }
        }
        (self.media_before_ns, self.media_ns) = (self.media_before_ns.saturating_add(self.media_ns), 0);
        self.process_started_at = None;
        let retried = self.streams.interrupted(now, why);
        // They are connected with the first media.
        for fact in retried.into_iter().filter(|_| self.files.started()) {
            self.reporter.report(fact);
        }
        let resume = timeout(LOOK_TIMEOUT, self.resume_point()).await;
        let resume = resume.map_err(|_| format!("{why}; the disk or the store did not answer after that"))?;
        info!(?resume, "media process goes on");
        self.start_media(Some(resume), media).await;
        Ok(())
    }

    /// Unix nanoseconds of the last recorded instant, as far as it is known.
    fn recorded_to(&self) -> Option<i64> {
        // Without a file nothing changes codecs: what the process told last is about all of it.
        let by_process = || Some(self.process_started_at?.saturating_add_unsigned(self.media_ns));
        self.files.recorded_to().or_else(by_process)
    }

    /// Closes what the dead process wrote, and says where another one goes on.
    async fn resume_point(&mut self) -> ResumePoint {
        let fragment_ns = self.job.media.fragment_ms.saturating_mul(1_000_000);
        self.files.interrupted(fragment_ns).await;
        let mut first_numbers: BTreeMap<u32, u32> = self.segments.interrupted().await;
        first_numbers.extend(self.images.interrupted().await);
        // With the last file of the spool its folder went away.
        if let Some(folder) =
            self.segments.folder().or(self.images.folder()).or(self.sheets.folder()).map(Path::to_owned)
        {
            let made = spawn_blocking(move || results::private_folder(&folder)).await;
            if let Ok(Err(error)) = made {
                warn!(%error, "no folder for segments and images");
            }
        }
        let (first_files, next_file) = self.files.next_numbers(&self.job.plan);
        let outputs = u32::try_from(self.job.plan.outputs.len()).unwrap_or(u32::MAX);
        ResumePoint { first_files, next_file, first_numbers, ended_outputs: self.session.ended_outputs(outputs) }
    }
}
