//! A store that fails for too long: the backup takes over; without one files are given up after the end of the recording, and
//! texts after them, and before it the oldest files where the spool has no room. Runs in the task that owns the uploads.

use std::fs;
use std::time::Duration;

use spillway_process::chain;
use spillway_storage::StorageError;
use tokio::task::spawn_blocking;
use tokio::time::Instant;
use tracing::warn;

use super::{FilesGivenUp, LOCAL, ObjectEvent, ObjectPut, ObjectStore, ObjectUploads, PutContent};
use crate::upload::outage::StoreOutage;

/// After files were given up, texts may fail for this much longer, and for a quarter of `max_outage_ms` at most.
const TEXTS_TIMEOUT: Duration = Duration::from_secs(10);

impl ObjectUploads {
    /// The spool has no room: the file of the lowest number that no request has is removed. Answers its number, and why for
    /// the user.
    pub fn give_up_oldest(&mut self) -> Option<(u32, String)> {
        let (number, file) = self.waiting.pop_first()?;
        let why = if self.error().is_empty() { "the store is too slow" } else { self.error() };
        let message = format!("the spool holds no more: {why}");
        warn!(object = file.name, reason = message, "given up");
        spawn_blocking(move || fs::remove_file(file.path));
        Some((number, message))
    }

    /// A request failed at the store in use.
    pub(super) fn failed(&mut self, error: &StorageError) {
        if self.outage.since.is_none() {
            warn!(%error, cause = %chain(error), "store fails, objects wait in the spool");
        }
        self.outage.note(error);
        if self.outage.is_refused() && (self.backup.is_some() || self.closed_at.is_some()) {
            self.next_store();
        } else {
            self.check_deadlines();
        }
    }

    /// Looks whether the store has failed for too long.
    pub(super) fn check_deadlines(&mut self) {
        if self.is_stalled() {
            return self.give_up_requests();
        }
        let over = match &self.files_given_up {
            Some(given_up) => self.outage.since.is_some() && Instant::now() >= given_up.texts_until,
            None => {
                let after_files = self.texts_timeout();
                self.outage.is_over(self.backup.is_some(), self.closed_at, &self.settings, after_files)
            }
        };
        if over {
            self.next_store();
        }
    }

    /// After the end of the recording no request was answered for too long: a network disk whose server is away does not even
    /// fail.
    fn is_stalled(&self) -> bool {
        let Some(closed_at) = self.closed_at.filter(|_| !self.sending.is_empty()) else { return false };
        let limit = match &self.files_given_up {
            Some(_) => self.texts_timeout(),
            None => Duration::from_millis(self.settings.max_outage_ms),
        };
        Instant::now() >= closed_at.max(self.progress_at) + limit
    }

    /// What is on its way is not waited for any more. Texts that wait for files get their chance after them.
    fn give_up_requests(&mut self) {
        let name = match &self.store {
            ObjectStore::Disk(_) => LOCAL,
            ObjectStore::Remote(store) => store.name(),
        };
        let message = format!("{name} upload failed: no answer");
        let has_backup = self.backup.is_some();
        if self.files_given_up.is_none() || self.files_in_flight() == 0 {
            self.outage.message.clone_from(&message);
            self.next_store();
        }
        self.requests.abort_all();
        let stalled: Vec<ObjectPut> = self.sending.drain().map(|(_, put)| put).collect();
        for ObjectPut { content, .. } in stalled {
            match content {
                PutContent::File(file) if has_backup => {
                    self.waiting.insert(file.number, file);
                }
                content => {
                    if let (PutContent::File(_), Some(given_up)) = (&content, &mut self.files_given_up) {
                        given_up.any = true;
                    }
                    self.lost(content, message.clone());
                }
            }
        }
    }

    fn texts_timeout(&self) -> Duration {
        TEXTS_TIMEOUT.min(Duration::from_millis(self.settings.max_outage_ms / 4))
    }

    /// The backup takes over; without one files are given up, and after them everything.
    fn next_store(&mut self) {
        let message = std::mem::take(&mut self.outage.message);
        self.outage = StoreOutage::new(&self.settings);
        if let Some(backup) = self.backup.take() {
            warn!(error = message, backup = backup.name(), "primary store given up, backup takes over");
            self.store = ObjectStore::Remote(backup);
            self.on_backup = true;
            self.primary_error = message;
            self.events.push_back(ObjectEvent::BackupUsed);
            return;
        }
        let message =
            if self.on_backup { format!("primary: {}\nbackup: {message}", self.primary_error) } else { message };
        if self.files_given_up.is_none() {
            warn!(error = message, files = self.waiting.len(), "files given up");
            let (any, texts_until) = (!self.waiting.is_empty(), Instant::now() + self.texts_timeout());
            for number in std::mem::take(&mut self.waiting).into_keys() {
                self.events.push_back(ObjectEvent::Lost { number, message: message.clone() });
            }
            self.files_given_up = Some(FilesGivenUp { message, any, texts_until });
            return;
        }
        warn!(error = message, "objects given up");
        for name in std::mem::take(&mut self.texts).into_keys() {
            self.events.push_back(ObjectEvent::Text { name, result: Err(message.clone()) });
        }
        self.given_up = Some(message);
    }
}
