//! The handle of one running upload: progress of the file goes in, its state and in the end the stored object come out.
//! The work is done by the task behind it (`task`), which ends with this value; an upload that was not finished then stays
//! as it is, for a salvage.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use spillway_process::retry::RetrySchedule;
use spillway_storage::{Meta, Storage};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::outcome::{StoredObject, UploadFailure, UploadProgress};
use super::settings::UploadSettings;
use super::task::{SpoolProgress, UploadCommand};
use super::{attempts, spool};

/// For the task to take back what it has begun.
const ABANDON_TIMEOUT: Duration = Duration::from_secs(5);
const MANIFEST_TIMEOUT: Duration = Duration::from_secs(30);

/// The upload of one file.
pub struct FileUpload {
    pub(super) primary: Arc<dyn Storage>,
    pub(super) backup: Option<Arc<dyn Storage>>,
    pub(super) settings: UploadSettings,
    /// The spool file.
    pub(super) path: PathBuf,
    pub(super) written: watch::Sender<SpoolProgress>,
    pub(super) progress: watch::Receiver<UploadProgress>,
    pub(super) commands: mpsc::Sender<UploadCommand>,
    pub(super) task: JoinHandle<()>,
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
        spool::remove(&self.path).await;
        Ok(stored)
    }

    /// Nothing of it is wanted: nothing stays in a store or in the spool.
    pub async fn abandon(&self) {
        let (done, dropped) = oneshot::channel();
        if self.commands.send(UploadCommand::Drop(done)).await.is_ok() {
            let _ = timeout(ABANDON_TIMEOUT, dropped).await;
        }
        spool::remove(&self.path).await;
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
        attempts::until(give_up, waits, &**store, "put", || store.put(name, bytes.clone(), &meta))
            .await
            .map(|stored| stored.location)
            .map_err(|error| error.to_string())
    }
}
