//! A store that fails: how long it is waited for, the backup that takes over, and the last acts when nobody takes all.

use std::time::Duration;

use spillway_process::retry::Schedule;
use spillway_storage::{Kind, Storage, StorageError, Upload};
use tokio::time::{Instant, timeout};
use tracing::{debug, warn};

use super::{Onward, Target, Uploader, Work};
use crate::upload::checkpoint::media_at;
use crate::upload::settings::UploadSettings;
use crate::upload::{Failure, Kept};

/// For the last acts after giving up.
const LAST_ACTS: Duration = Duration::from_secs(10);
/// A refusal counts when it was heard so often in a row: keys and policies need a moment to be known everywhere.
const REFUSALS: u32 = 2;
/// Why nothing is sent just now.
pub(super) struct Trouble {
    waits: Schedule,
    /// Nothing before then.
    pub(super) until: Option<Instant>,
    pub(super) since: Option<Instant>,
    pub(super) refusals: u32,
    pub(super) words: String,
}

impl Trouble {
    pub(super) fn new(settings: &UploadSettings) -> Self {
        let waits = Schedule::new(
            Duration::from_millis(settings.first_wait_ms),
            Duration::from_millis(settings.longest_wait_ms),
        );
        Self { waits, until: None, since: None, refusals: 0, words: String::new() }
    }

    /// Nothing for a while, each time for longer.
    pub(super) fn wait(&mut self) {
        self.until = Some(Instant::now() + self.waits.wait());
    }
}

impl Uploader {
    /// Trouble begins or goes on.
    pub(super) async fn failed(&mut self, work: &mut Work, error: StorageError) -> Onward {
        if error.kind == Kind::Gone {
            return self.taken_away(work, error).await;
        }
        let now = Instant::now();
        let trouble = &mut work.trouble;
        trouble.refusals = if error.is_passing() { 0 } else { trouble.refusals + 1 };
        if trouble.since.is_none() {
            warn!(%error, cause = %spillway_process::chain(&error), "store fails, the recording waits in the spool");
        }
        trouble.since.get_or_insert(now);
        let changed = trouble.words != error.to_string();
        if changed {
            debug!(%error, "store fails");
        }
        trouble.words = error.to_string();
        trouble.until = Some(now + trouble.waits.wait());
        let refused = trouble.refusals >= REFUSALS;
        // While the recording goes on, there is time for keys to be mended; only a backup is not made to wait.
        if refused && (self.can_change(work) || work.closed_at.is_some()) {
            return self.next_store(work, error.kind).await;
        }
        self.patience(work).await
    }

    pub(super) async fn patience(&mut self, work: &mut Work) -> Onward {
        let Some(since) = work.trouble.since else { return Onward::Go };
        let limit = if self.can_change(work) {
            since + Duration::from_millis(self.settings.backup_after_ms)
        } else if let Some(closed_at) = work.closed_at {
            since.max(closed_at) + Duration::from_millis(self.settings.max_outage_ms)
        } else {
            return Onward::Go;
        };
        if Instant::now() < limit {
            return Onward::Go;
        }
        self.next_store(work, Kind::Busy).await
    }

    pub(super) fn can_change(&self, work: &Work) -> bool {
        self.backup.is_some() && !work.on_backup && work.kept_from == self.origin.from
    }

    pub(super) async fn next_store(&mut self, work: &mut Work, kind: Kind) -> Onward {
        let words = std::mem::take(&mut work.trouble.words);
        let Some(backup) = self.backup.clone().filter(|_| self.can_change(work)) else {
            return self.give_up(work, kind, words).await;
        };
        warn!(error = words, backup = backup.name(), "primary store given up, backup takes over");
        work.flights.shutdown().await;
        work.left.extend(self.target.upload.take());
        let left = std::mem::replace(&mut self.target, Target { store: backup, upload: None });
        self.backup = Some(left.store);
        work.on_backup = true;
        work.primary_words = words;
        work.trouble = Trouble::new(&self.settings);
        (work.beginning, work.completing) = (false, false);
        work.head = None;
        let closed = work.machine.is_closed();
        work.machine = self.machine();
        self.wrote(work);
        if closed && let Err(error) = self.close_object(work).await {
            return self.give_up(work, Kind::Other, format!("Local upload failed: {error}")).await;
        }
        self.save(work);
        Onward::Go
    }

    /// No store takes all of it. What one has is made an object if it can be; else nothing is left behind there.
    pub(super) async fn give_up(&mut self, work: &mut Work, kind: Kind, words: String) -> Onward {
        warn!(error = words, ?kind, spool = %self.shelf.path().display(), "upload given up");
        work.flights.shutdown().await;
        let words = if work.on_backup { format!("primary: {}\nbackup: {words}", work.primary_words) } else { words };
        let kept = timeout(LAST_ACTS, self.keep_what_is_there(work)).await.ok().flatten();
        if kept.is_none() {
            self.abandon(work).await;
        } else {
            self.abort_left(work).await;
        }
        self.answer(work, Err(Failure { words, kept, gone: false }));
        Onward::Over
    }

    async fn keep_what_is_there(&self, work: &Work) -> Option<(Kept, u64)> {
        let upload = self.target.upload.as_ref()?;
        let lists = crate::salvage::candidates(&work.machine.state());
        for parts in lists {
            match self.target.store.complete(upload, &parts, &self.meta).await {
                Ok(stored) => {
                    let bytes = stored.bytes;
                    let samples: Vec<(u64, u64)> = work.samples.iter().copied().collect();
                    let media_ns = media_at(&samples, bytes);
                    return Some((self.kept(work, stored.location, bytes), media_ns));
                }
                Err(error) if error.kind == Kind::Invalid => debug!(%error, "not these parts"),
                Err(error) => {
                    debug!(%error, "what is there cannot be completed either");
                    return None;
                }
            }
        }
        None
    }

    /// Leaves nothing in any store.
    pub(super) async fn abandon(&mut self, work: &mut Work) {
        work.flights.shutdown().await;
        if let Some(upload) = self.target.upload.take() {
            abort(&*self.target.store, &upload).await;
        }
        self.abort_left(work).await;
    }

    pub(super) async fn abort_left(&self, work: &mut Work) {
        // After the change the two have swapped places.
        let Some(primary) = self.backup.as_ref().filter(|_| work.on_backup) else { return };
        for upload in work.left.drain(..) {
            abort(&**primary, &upload).await;
        }
    }
}

async fn abort(store: &dyn Storage, upload: &Upload) {
    match timeout(LAST_ACTS, store.abort(upload)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => warn!(%error, "unfinished upload stays in the store"),
        Err(_) => warn!(store = store.name(), "unfinished upload stays in the store: no answer"),
    }
}
