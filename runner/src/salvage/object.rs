//! Completes the object of one file that a dead attempt was uploading: what the spool still has is sent, then the store is asked to
//! complete one list of parts after the other, the one that loses least first. Runs in the salvage's task.

use std::sync::Arc;
use std::time::Duration;

use spillway_ipc::SealTracker;
use spillway_plan::Container;
use spillway_process::chain;
use spillway_storage::{Meta, Part, Storage, StorageError, StorageErrorKind, Stored, Upload};
use tokio::task::spawn_blocking;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::spooled::Spooled;
use crate::upload::checkpoint::{FileCheckpoint, UploadCheckpoint};
use crate::upload::machine::UploadMachine;
use crate::upload::plan::PartLayout;
use crate::upload::{UploadSettings, abort, candidates, retry_until};

/// For an abort of what cannot be completed.
pub(super) const ABORT_TIMEOUT: Duration = Duration::from_secs(30);

/// Completes one object in one store.
pub(super) struct FileSalvager<'a> {
    pub(super) store: Arc<dyn Storage>,
    pub(super) meta: Meta,
    pub(super) settings: &'a UploadSettings,
    /// No request is repeated after it.
    pub(super) give_up: Instant,
}

impl FileSalvager<'_> {
    /// Sends what the spool has, then completes the object from the best list of parts. `Ok(None)`: nothing was recorded.
    pub(super) async fn save(
        &self,
        file: &FileCheckpoint,
        checkpoint: &UploadCheckpoint,
        spooled: Option<Spooled>,
    ) -> Result<Option<Stored>, String> {
        if file.started_at.is_none() {
            abort(&*self.store, &checkpoint.upload, ABORT_TIMEOUT).await;
            return Ok(None);
        }
        let mut sent = None;
        if let Some(spooled) = spooled
            && let Some(machine) = self.resumed(checkpoint, &spooled).await
        {
            sent = self.send_rest(&checkpoint.upload, machine, &spooled).await;
        }
        let listed = self.listed(checkpoint).await;
        let lists: Vec<_> = sent.into_iter().chain(listed).chain(candidates(&checkpoint.parts)).collect();
        let mut refused = None;
        for parts in &lists {
            match self.with_retries(|| self.store.complete(&checkpoint.upload, parts, &self.meta)).await {
                Ok(stored) => return Ok(Some(stored)),
                Err(error) if error.kind == StorageErrorKind::Invalid => {
                    debug!(%error, parts = parts.len(), "not these parts");
                    refused = Some(error.to_string());
                }
                Err(error) if error.kind == StorageErrorKind::Gone => {
                    return self.made_by_another(file, checkpoint, &lists, &error).await;
                }
                Err(error) => return Err(error.to_string()),
            }
        }
        abort(&*self.store, &checkpoint.upload, ABORT_TIMEOUT).await;
        refused.map_or(Ok(None), Err)
    }

    /// The dead attempt, or an earlier salvage, may have completed the object without being able to report it.
    async fn made_by_another(
        &self,
        file: &FileCheckpoint,
        checkpoint: &UploadCheckpoint,
        lists: &[Vec<Part>],
        gone: &StorageError,
    ) -> Result<Option<Stored>, String> {
        let found = self.with_retries(|| self.store.head(&file.filename)).await;
        let whole: u64 =
            checkpoint.parts.iter().filter_map(|part| part.acked.as_ref()).map(|part| part.tag.bytes).sum();
        let bytes_of = |list: &Vec<Part>| list.iter().map(|part| part.tag.bytes).sum::<u64>();
        let fits =
            |bytes| (checkpoint.completing && bytes == whole) || lists.iter().any(|list| bytes_of(list) == bytes);
        match found {
            Ok(Some(object)) if fits(object.bytes) => {
                let location = self.store.location(&file.filename);
                Ok(Some(Stored { bytes: object.bytes, etag: object.etag, location }))
            }
            Ok(_) => Err(gone.to_string()),
            Err(error) => Err(format!("{gone}; {error}")),
        }
    }

    /// Its upload had not begun: the store was away, or the recording had just started.
    pub(super) async fn begin_again(
        &self,
        file: &FileCheckpoint,
        spooled: Option<Spooled>,
    ) -> Result<Option<Stored>, String> {
        let Some(spooled) = spooled.filter(|_| file.started_at.is_some()) else { return Ok(None) };
        let begin = self.with_retries(|| self.store.begin(&file.filename, &self.meta)).await;
        let upload = begin.map_err(|error| error.to_string())?;
        let machine = self.machine(file.container, &spooled);
        let Some(parts) = self.send_rest(&upload, machine, &spooled).await else {
            abort(&*self.store, &upload, ABORT_TIMEOUT).await;
            return Err(format!("{} upload failed: the spool could not be sent", self.store.name()));
        };
        let stored = self.with_retries(|| self.store.complete(&upload, &parts, &self.meta)).await;
        if stored.is_err() {
            abort(&*self.store, &upload, ABORT_TIMEOUT).await;
        }
        stored.map(Some).map_err(|error| error.to_string())
    }

    fn machine(&self, container: Container, spooled: &Spooled) -> UploadMachine {
        let head = if spooled.origin.is_whole() { SealTracker::new(container).head() } else { 0 };
        let rules = self.store.rules();
        let layout = PartLayout::of(&rules, &self.settings.parts, head, None);
        self.closed(UploadMachine::new(layout, rules, self.settings.tuning()), spooled)
    }

    /// Whether the head was rewritten is not known; it is sent again. An object with a head of its own keeps it.
    fn closed(&self, mut machine: UploadMachine, spooled: &Spooled) -> UploadMachine {
        machine.close(spooled.bytes, spooled.origin.is_whole(), Instant::now().into_std());
        machine
    }

    /// `None`: a part that is not known to be stored cannot be read from the spool either.
    async fn resumed(&self, checkpoint: &UploadCheckpoint, spooled: &Spooled) -> Option<UploadMachine> {
        let (spool, mut parts, bytes) = (spooled.clone(), checkpoint.parts.clone(), spooled.bytes);
        let look = spawn_blocking(move || {
            // Parts were cut behind what can be read: only the store has them.
            if parts.iter().any(|part| part.start > bytes) {
                return None;
            }
            for (index, part) in parts.iter_mut().enumerate() {
                let end = part.end.unwrap_or(bytes);
                if part.start < end && spool.is_whole(part.start..end).ok()? {
                    continue;
                }
                let newest = part.pending.drain(..).rev().find_map(|pending| {
                    let tag = pending.tag?;
                    Some(Part { number: index as u32 + 1, generation: pending.generation, tag })
                });
                part.acked = part.acked.take().or(newest);
                let known = part.acked.as_ref().map(|known| part.start + known.tag.bytes);
                if part.start < end && known != Some(end) {
                    return None;
                }
            }
            Some(parts)
        });
        let parts = look.await.ok().flatten()?;
        let machine =
            UploadMachine::resume(checkpoint.layout.clone(), self.store.rules(), self.settings.tuning(), &parts);
        Some(self.closed(machine, spooled))
    }

    /// All parts, if the rest of them could be sent.
    async fn send_rest(&self, upload: &Upload, mut machine: UploadMachine, spooled: &Spooled) -> Option<Vec<Part>> {
        while let Some(put) = machine.next(Instant::now().into_std()) {
            let (reader, range) = (spooled.clone(), put.range.clone());
            let bytes = spawn_blocking(move || reader.read(range)).await.ok()?.ok()?;
            let (number, generation) = (put.number, put.generation);
            let send = || self.store.put_part(upload, number, generation, bytes.clone());
            match self.with_retries(send).await {
                Ok(tag) => machine.acked(number, generation, tag),
                Err(error) => {
                    warn!(%error, cause = %chain(&error), "rest of the spool not sent");
                    return None;
                }
            }
        }
        machine.finished()
    }

    /// The parts that the store itself lists, where these keys may ask for them.
    async fn listed(&self, checkpoint: &UploadCheckpoint) -> Option<Vec<Part>> {
        let listed = match self.store.list_parts(&checkpoint.upload).await {
            Ok(listed) => listed?,
            Err(error) => {
                debug!(%error, "parts not listed");
                return None;
            }
        };
        let mut parts: Vec<Part> = vec![];
        for (index, state) in checkpoint.parts.iter().enumerate() {
            let number = index as u32 + 1;
            let newest = listed.iter().filter(|part| part.number == number).max_by_key(|part| part.generation);
            let Some(part) = newest else { break };
            parts.push(part.clone());
            if state.end != Some(state.start + part.tag.bytes) {
                break;
            }
        }
        (!parts.is_empty()).then_some(parts)
    }

    async fn with_retries<T, F>(&self, act: impl Fn() -> F) -> Result<T, StorageError>
    where
        F: Future<Output = Result<T, StorageError>>,
    {
        retry_until(self.give_up, self.settings.waits(), &*self.store, "salvage", act).await
    }
}
