//! The session's handle of the upload of one image output: the media process' images go in, progress and in the end the result
//! come out of its task. A handle that is dropped without an end leaves everything as it is, for a salvage.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::{Instrument, Span};

use super::outcome::{ImagesCommand, ImagesResult, ImagesStatus};
use super::saved::SpooledImage;
use super::task::ImagesUploader;

/// For the task to take back what it has begun.
const ABANDON_TIMEOUT: Duration = Duration::from_secs(5);

/// The upload of one image output.
pub struct ImagesUpload {
    commands: mpsc::UnboundedSender<ImagesCommand>,
    status: watch::Receiver<ImagesStatus>,
    task: JoinHandle<()>,
}

impl Drop for ImagesUpload {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl ImagesUpload {
    /// Starts the task.
    pub fn start(uploader: ImagesUploader) -> Self {
        // One message an image.
        let (commands, command_rx) = mpsc::unbounded_channel();
        let (status_tx, status) = watch::channel(ImagesStatus::default());
        let task = tokio::spawn(uploader.run(command_rx, status_tx).instrument(Span::current()));
        Self { commands, status, task }
    }

    /// An image is whole. Never waits.
    pub fn captured(&self, image: SpooledImage) {
        let _ = self.commands.send(ImagesCommand::Captured(image));
    }

    /// The media process is gone, and another one goes on with image `next_n`. Never waits.
    pub fn interrupted(&self, next_n: u32) {
        let _ = self.commands.send(ImagesCommand::Interrupted { next_n });
    }

    /// Nothing writes to the spool any more, and another task goes on: waits until everything there is stored.
    pub async fn rest(&self) {
        let (done, rests) = oneshot::channel();
        if self.commands.send(ImagesCommand::Rest(done)).is_ok() {
            // Without its task nothing more is stored.
            let _ = rests.await;
        }
    }

    /// How far it is.
    pub fn status(&self) -> ImagesStatus {
        self.status.borrow().clone()
    }

    /// Nothing writes to the spool any more: sends what is left there. Bounded by `max_outage_ms`.
    pub async fn finish(&self) -> ImagesResult {
        let taken_over = ImagesResult { gone: true, ..ImagesResult::default() };
        let (done, result) = oneshot::channel();
        if self.commands.send(ImagesCommand::Finish(done)).is_err() {
            return taken_over;
        }
        result.await.unwrap_or(taken_over)
    }

    /// After [`Self::finish`]: puts a small JSON object beside the images, into the same store. Answers its location.
    ///
    /// # Errors
    /// The store's message; transient errors were retried for up to 30 s.
    pub async fn put_beside(&self, name: String, content: Bytes) -> Result<String, String> {
        let lost = || "upload was lost".to_owned();
        let (done, answer) = oneshot::channel();
        self.commands.send(ImagesCommand::PutBeside { name, content, done }).map_err(|_| lost())?;
        answer.await.unwrap_or_else(|_| Err(lost()))
    }

    /// Nothing of it is wanted: nothing more is sent, and the spool is emptied.
    pub async fn abandon(&self) {
        let (done, dropped) = oneshot::channel();
        if self.commands.send(ImagesCommand::Drop(done)).is_ok() {
            let _ = timeout(ABANDON_TIMEOUT, dropped).await;
        }
    }
}
