//! A store that fails: how long the task waits for it, the backup that takes over, and the last requests when no store takes
//! all of the file. Runs in the upload task.

use std::time::Duration;

use spillway_storage::{StorageError, StorageErrorKind};
use tokio::time::timeout;
use tracing::{debug, warn};

use super::state::{UploadFlow, UploadTarget, UploadTaskState, Uploader};
use crate::upload::abort::abort;
use crate::upload::candidates::candidates;
use crate::upload::checkpoint::media_at;
use crate::upload::outcome::{StoredObject, UploadFailure};

/// For the last requests after giving up.
const LAST_OPERATIONS_TIMEOUT: Duration = Duration::from_secs(10);

impl Uploader {
    /// A request failed: the store is tried again later, changed or given up.
    pub(super) async fn failed(&mut self, state: &mut UploadTaskState, error: StorageError) -> UploadFlow {
        if error.kind == StorageErrorKind::Gone {
            return self.taken_away(state, error).await;
        }
        let outage = &mut state.outage;
        if outage.since.is_none() {
            warn!(%error, cause = %spillway_process::chain(&error), "store fails, the recording waits in the spool");
        }
        if outage.message != error.to_string() {
            debug!(%error, "store fails");
        }
        outage.note(&error);
        // While the recording goes on, there is time to correct the keys; a backup takes over at once.
        if outage.is_refused() && (self.can_change(state) || state.closed_at.is_some()) {
            return self.next_store(state, error.kind).await;
        }
        self.check_deadlines(state).await
    }

    /// Changes the store, or gives up, when it has failed for too long.
    pub(super) async fn check_deadlines(&mut self, state: &mut UploadTaskState) -> UploadFlow {
        if !state.outage.is_over(self.can_change(state), state.closed_at, &self.settings) {
            return UploadFlow::Continue;
        }
        self.next_store(state, StorageErrorKind::Busy).await
    }

    /// The backup store could still take over: the spool has the whole object.
    pub(super) fn can_change(&self, state: &UploadTaskState) -> bool {
        self.backup.is_some() && !state.on_backup && state.kept_from == self.origin.from
    }

    /// Begins again at the backup store; without one the upload is given up.
    pub(super) async fn next_store(&mut self, state: &mut UploadTaskState, kind: StorageErrorKind) -> UploadFlow {
        let message = std::mem::take(&mut state.outage.message);
        let Some(backup) = self.backup.clone().filter(|_| self.can_change(state)) else {
            return self.give_up(state, kind, message).await;
        };
        warn!(error = message, backup = backup.name(), "primary store given up, backup takes over");
        self.forget_object(state).await;
        state.left.extend(self.target.upload.take());
        let left = std::mem::replace(&mut self.target, UploadTarget { store: backup, upload: None });
        self.backup = Some(left.store);
        state.on_backup = true;
        self.primary_error = message;
        if let Err(error) = self.begin_from_spool(state).await {
            return self.give_up(state, StorageErrorKind::Other, format!("Local upload failed: {error}")).await;
        }
        self.save(state);
        UploadFlow::Continue
    }

    /// No store takes all of it. What one has is made an object if it can be; else nothing is left behind there.
    pub(super) async fn give_up(
        &mut self,
        state: &mut UploadTaskState,
        kind: StorageErrorKind,
        message: String,
    ) -> UploadFlow {
        warn!(error = message, ?kind, spool = %self.spool.path().display(), "upload given up");
        state.in_flight.shutdown().await;
        let message =
            if state.on_backup { format!("primary: {}\nbackup: {message}", self.primary_error) } else { message };
        let kept = timeout(LAST_OPERATIONS_TIMEOUT, self.keep_what_is_there(state)).await.ok().flatten();
        if kept.is_none() {
            self.abandon(state).await;
        } else {
            self.abort_left(state).await;
        }
        self.answer(state, Err(UploadFailure { message, kept, gone: false }));
        UploadFlow::Done
    }

    async fn keep_what_is_there(&self, state: &UploadTaskState) -> Option<(StoredObject, u64)> {
        let upload = self.target.upload.as_ref()?;
        let lists = candidates(&state.machine.part_states());
        for parts in lists {
            match self.target.store.complete(upload, &parts, &self.meta).await {
                Ok(stored) => {
                    let bytes = stored.bytes;
                    let media_ns = media_at(&state.samples, bytes);
                    return Some((self.kept(state, stored.location, bytes), media_ns));
                }
                Err(error) if error.kind == StorageErrorKind::Invalid => debug!(%error, "not these parts"),
                Err(error) => {
                    debug!(%error, "what is there cannot be completed either");
                    return None;
                }
            }
        }
        None
    }

    /// Leaves nothing in any store.
    pub(super) async fn abandon(&mut self, state: &mut UploadTaskState) {
        state.in_flight.shutdown().await;
        if let Some(upload) = self.target.upload.take() {
            abort(&*self.target.store, &upload, LAST_OPERATIONS_TIMEOUT).await;
        }
        self.abort_left(state).await;
    }

    /// Aborts what was begun at the primary store before the change.
    pub(super) async fn abort_left(&self, state: &mut UploadTaskState) {
        // After the change the two have swapped places.
        let Some(primary) = self.backup.as_ref().filter(|_| state.on_backup) else { return };
        for upload in state.left.drain(..) {
            abort(&**primary, &upload, LAST_OPERATIONS_TIMEOUT).await;
        }
    }
}
