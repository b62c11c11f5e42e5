//! The session's handle of the upload of one HLS output: the media process' segments go in, progress and in the end the result
//! come out of its task. A handle that is dropped without an end leaves everything as it is, for a salvage.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::{Instrument, Span};

use super::machine::SpooledSegment;
use super::outcome::{SegmentsCommand, SegmentsResult, SegmentsStatus};
use super::task::SegmentsUploader;

/// For the task to take back what it has begun.
const ABANDON_TIMEOUT: Duration = Duration::from_secs(5);

/// The upload of one HLS output.
pub struct SegmentsUpload {
    commands: mpsc::UnboundedSender<SegmentsCommand>,
    status: watch::Receiver<SegmentsStatus>,
    task: JoinHandle<()>,
}

impl Drop for SegmentsUpload {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl SegmentsUpload {
    /// Starts the task.
    pub fn start(uploader: SegmentsUploader) -> Self {
        // Three messages a segment and four a second.
        let (commands, command_rx) = mpsc::unbounded_channel();
        let (status_tx, status) = watch::channel(SegmentsStatus::default());
        let task = tokio::spawn(uploader.run(command_rx, status_tx).instrument(Span::current()));
        Self { commands, status, task }
    }

    /// The media process writes segment `n`, which begins at `at_ns` of media. Never waits.
    pub fn opened(&self, n: u32, at_ns: u64) {
        let _ = self.commands.send(SegmentsCommand::Opened { n, at_ns });
    }

    /// So many bytes of it are in the spool. Never waits.
    pub fn wrote(&self, n: u32, bytes: u64) {
        let _ = self.commands.send(SegmentsCommand::Wrote { n, bytes });
    }

    /// A segment is whole. Never waits.
    pub fn closed(&self, segment: SpooledSegment) {
        let _ = self.commands.send(SegmentsCommand::Closed(segment));
    }

    /// Segment `n` was not written whole. Never waits.
    pub fn lost(&self, n: u32) {
        let _ = self.commands.send(SegmentsCommand::Lost(n));
    }

    /// The media process is gone, and another one goes on with segment `next_n`. Never waits.
    pub fn interrupted(&self, next_n: u32) {
        let _ = self.commands.send(SegmentsCommand::Interrupted { next_n });
    }

    /// Nothing writes to the spool any more, and another task goes on: waits until everything there is stored. The playlists
    /// get no end.
    pub async fn rest(&self) {
        let (done, rests) = oneshot::channel();
        if self.commands.send(SegmentsCommand::Rest(done)).is_ok() {
            // Without its task nothing more is stored.
            let _ = rests.await;
        }
    }

    /// How far it is.
    pub fn status(&self) -> SegmentsStatus {
        self.status.borrow().clone()
    }

    /// Nothing writes to the spool any more: sends what is left there, and the playlists with their end. Bounded by
    /// `max_outage_ms`.
    pub async fn finish(&self) -> SegmentsResult {
        let taken_over = SegmentsResult { gone: true, ..SegmentsResult::default() };
        let (done, result) = oneshot::channel();
        if self.commands.send(SegmentsCommand::Finish(done)).is_err() {
            return taken_over;
        }
        result.await.unwrap_or(taken_over)
    }

    /// After [`Self::finish`]: puts a small JSON object where the playlists are, into the same store. Answers its location.
    ///
    /// # Errors
    /// The store's message; transient errors were retried for up to 30 s.
    pub async fn put_beside(&self, name: String, content: Bytes) -> Result<String, String> {
        let lost = || "upload was lost".to_owned();
        let (done, answer) = oneshot::channel();
        self.commands.send(SegmentsCommand::PutBeside { name, content, done }).map_err(|_| lost())?;
        answer.await.unwrap_or_else(|_| Err(lost()))
    }

    /// Nothing of it is wanted: nothing more is sent, and the spool is emptied.
    pub async fn abandon(&self) {
        let (done, dropped) = oneshot::channel();
        if self.commands.send(SegmentsCommand::Drop(done)).is_ok() {
            let _ = timeout(ABANDON_TIMEOUT, dropped).await;
        }
    }
}

#[cfg(test)]
mod tests;
