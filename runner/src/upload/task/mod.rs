//! The upload of one file: [`FileUpload`] is the session's handle of a task, in which the file's progress goes in, and the
//! state and in the end the stored object come out. `transfer` is the way of the bytes from the spool into the store,
//! `outage` waits for a store that fails and changes to the backup, `anew` begins another object when the upload was aborted
//! by another party. A handle that is dropped without an end leaves everything as it is, for a salvage.

mod state;
mod transfer;
mod outage;
mod anew;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use spillway_process::retry::RetrySchedule;
use spillway_storage::{Meta, Storage};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::warn;

pub(in crate::upload) use state::{SpoolProgress, UploadCommand, UploadTarget, Uploader};

use super::attempts::until as retry_until;
use super::checkpoint::{UploadCheckpoint, media_at};
use super::outcome::{StoredObject, UploadFailure, UploadProgress};
use super::settings::UploadSettings;
use super::spool::remove as remove_spooled;
use state::{UploadFlow, UploadTaskState};

/// For the task to take back what it has begun.
const ABANDON_TIMEOUT: Duration = Duration::from_secs(5);
const MANIFEST_TIMEOUT: Duration = Duration::from_secs(30);

const TICK: Duration = Duration::from_millis(250);
/// While nothing is stored: how often the checkpoint says how far the recording is.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(5);
/// Of media over bytes, in the checkpoint.
const CHECKPOINT_SAMPLES: usize = 16;

/// The upload of one file.
pub struct FileUpload {
    pub(in crate::upload) primary: Arc<dyn Storage>,
    pub(in crate::upload) backup: Option<Arc<dyn Storage>>,
    pub(in crate::upload) settings: UploadSettings,
    /// The spool file.
    pub(in crate::upload) path: PathBuf,
    pub(in crate::upload) written: watch::Sender<SpoolProgress>,
    pub(in crate::upload) progress: watch::Receiver<UploadProgress>,
    pub(in crate::upload) commands: mpsc::Sender<UploadCommand>,
    pub(in crate::upload) task: JoinHandle<()>,
}

impl Drop for FileUpload {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl FileUpload {
    /// The media process wrote: bytes before `sealed_to` are final and hold `media_ns` nanoseconds of media. Never waits.
    pub fn wrote(&self, sealed_to: u64, media_ns: u64) {
        self.written.send_replace(SpoolProgress { sealed_to, media_ns });
    }

    /// How far it is.
    pub fn progress(&self) -> UploadProgress {
        self.progress.borrow().clone()
    }

    /// Where the spool file lies; it stays there when the upload fails.
    pub fn spool_path(&self) -> &Path {
        &self.path
    }

    /// The file has a second destination.
    pub fn has_backup(&self) -> bool {
        self.backup.is_some()
    }

    /// The file is as it will be: stores all that was written and removes the spool file. Bounded by
    /// [`UploadSettings::max_outage_ms`].
    ///
    /// # Errors
    /// No store takes all of it, the upload was taken over, or nothing was written. All retries are done.
    pub async fn finish(&self) -> Result<StoredObject, UploadFailure> {
        let (done, result) = oneshot::channel();
        if self.commands.send(UploadCommand::Finish(done)).await.is_err() {
            return Err(UploadFailure::lost());
        }
        let stored = result.await.unwrap_or_else(|_| Err(UploadFailure::lost()))?;
        remove_spooled(&self.path).await;
        Ok(stored)
    }

    /// Nothing of it is wanted: nothing stays in a store or in the spool.
    pub async fn abandon(&self) {
        let (done, dropped) = oneshot::channel();
        if self.commands.send(UploadCommand::Drop(done)).await.is_ok() {
            let _ = timeout(ABANDON_TIMEOUT, dropped).await;
        }
        remove_spooled(&self.path).await;
    }

    /// Puts a small object beside the file, into the backup store if the file is there. Answers its location.
    ///
    /// # Errors
    /// The store's message; transient errors were retried for up to 30 s.
    pub async fn put_beside(&self, used_backup: bool, name: &str, bytes: Bytes) -> Result<String, String> {
        let store = self.backup.as_ref().filter(|_| used_backup).unwrap_or(&self.primary);
        let first_wait = Duration::from_millis(self.settings.first_wait_ms.min(1000));
        let waits = RetrySchedule::new(first_wait, Duration::from_secs(5));
        let give_up = Instant::now() + MANIFEST_TIMEOUT.min(Duration::from_millis(self.settings.max_outage_ms));
        let meta = Meta::of("application/json");
        retry_until(give_up, waits, &**store, "put", || store.put(name, bytes.clone(), &meta))
            .await
            .map(|stored| stored.location)
            .map_err(|error| error.to_string())
    }
}

impl Uploader {
    /// Runs until it was asked to finish or drop. When the handle is dropped without either, everything stays as it is:
    /// the upload belongs to a salvage then.
    pub async fn run(mut self) {
        let mut state = UploadTaskState::new(&self);
        self.save(&mut state);
        loop {
            self.start_operations(&mut state);
            let now = Instant::now();
            // A wait that is over is no reason to wake while its request is on the way.
            let wake = state.outage.until.filter(|until| *until > now).unwrap_or(now + TICK).min(now + TICK);
            let flow = tokio::select! {
                biased;
                command = self.commands.recv() => match command {
                    None => return,
                    Some(UploadCommand::Drop(done)) => {
                        self.abandon(&mut state).await;
                        let _ = done.send(());
                        return;
                    }
                    Some(UploadCommand::Finish(done)) => self.close(&mut state, done).await,
                },
                Some(joined) = state.in_flight.join_next() => match joined {
                    Ok(result) => self.on_result(&mut state, result).await,
                    Err(error) => {
                        warn!(%error, "a request of the upload panicked");
                        UploadFlow::Continue
                    }
                },
                Ok(()) = self.written.changed() => {
                    self.wrote(&mut state);
                    UploadFlow::Continue
                }
                () = sleep_until(wake) => {
                    self.wrote(&mut state);
                    if state.checkpointed_at.elapsed() >= CHECKPOINT_INTERVAL {
                        self.save(&mut state);
                    }
                    self.check_deadlines(&mut state).await
                }
                () = self.checkpoint_writer.superseded() => return,
            };
            match flow {
                UploadFlow::Continue => self.publish(&state),
                UploadFlow::Done => return,
            }
        }
    }

    /// Publishes the last state and answers `finish`, if it was called.
    fn answer(&self, state: &mut UploadTaskState, result: Result<StoredObject, UploadFailure>) {
        self.publish(state);
        if let Some(done) = state.finish.take() {
            let _ = done.send(result);
        }
    }

    /// Writes the checkpoint of this file; Redis follows in the background.
    fn save(&self, state: &mut UploadTaskState) {
        state.checkpointed_at = Instant::now();
        let Some(upload) = &self.target.upload else { return };
        let checkpoint = UploadCheckpoint {
            backup: state.on_backup,
            upload: upload.clone(),
            completing: state.completing,
            layout: self.layout(),
            parts: state.machine.part_states(),
            left: state.left.clone(),
        };
        let every = state.samples.len().div_ceil(CHECKPOINT_SAMPLES).max(1);
        let last = state.samples.last().copied();
        let media = state.samples.iter().copied().step_by(every).chain(last).collect();
        let kept_from = state.kept_from;
        self.checkpoint_writer.update(self.file, |file| {
            file.media = media;
            file.media.dedup();
            file.upload = Some(checkpoint);
            file.kept_from = kept_from;
        });
    }

    /// Tells the handle how far the upload is.
    fn publish(&self, state: &UploadTaskState) {
        let safe = state.machine.safe_to();
        let last = state.samples.last().map_or(0, |(_, ns)| *ns);
        let progress = UploadProgress {
            stored: safe,
            behind_ms: last.saturating_sub(media_at(&state.samples, safe)) / 1_000_000,
            error: state.outage.message.clone(),
            name: self.name.clone(),
            notes: state.notes.clone(),
        };
        self.progress.send_if_modified(|known| {
            let changed = *known != progress;
            *known = progress;
            changed
        });
    }
}

#[cfg(test)]
mod tests;
