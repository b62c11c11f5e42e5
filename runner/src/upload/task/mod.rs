//! One file on its way into its store, as a task: starts requests, takes their results, keeps the state, and in the end
//! makes the object. `spool` is what it reads from and gives back to the disk, `outage` waits for a store that fails and
//! changes to the backup, `anew` begins another object when the upload was aborted by another party.

mod state;
mod spool;
mod outage;
mod anew;

use std::io;
use std::time::Duration;

use bytes::Bytes;
use spillway_storage::{StorageError, StorageErrorKind, Stored};
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info, warn};

pub(in crate::upload) use state::{SpoolProgress, UploadCommand, UploadTarget, Uploader};

use crate::upload::checkpoint::FLUSH_TIMEOUT;
use crate::upload::outcome::{StoredObject, UploadFailure};
use crate::upload::parts::PartRequest;
use state::{OperationResult, StoreOutage, UploadFlow, UploadTaskState};

const TICK: Duration = Duration::from_millis(250);
/// While nothing is stored: how often the checkpoint says how far the recording is.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(5);

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

    /// Starts whatever may be started.
    fn start_operations(&mut self, state: &mut UploadTaskState) {
        let now = Instant::now();
        if state.lost.is_some() || state.outage.until.is_some_and(|until| now < until) {
            return;
        }
        let Some(upload) = self.target.upload.clone() else {
            if !state.beginning {
                state.beginning = true;
                let (store, name, meta) = (self.target.store.clone(), self.name.clone(), self.meta.clone());
                state.in_flight.spawn(async move { OperationResult::Begun(store.begin(&name, &meta).await) });
            }
            return;
        };
        if state.completing {
            return;
        }
        // While the store fails, one request at a time finds out when that is over.
        while state.outage.since.is_none() || state.in_flight.is_empty() {
            let Some(put) = state.machine.next(now.into_std()) else { break };
            let (spool, range, origin) = (self.spool.clone(), put.range.clone(), self.origin.clone());
            let offsets = self.points.offsets_in(origin.in_file(range.start)..origin.in_file(range.end));
            state.in_flight.spawn(async move {
                let bytes = spawn_blocking(move || origin.read(&spool, range, &offsets))
                    .await
                    .unwrap_or_else(|error| Err(io::Error::other(error)));
                OperationResult::Read { put, bytes }
            });
        }
        if let (Some(parts), true) = (state.machine.finished(), state.in_flight.is_empty()) {
            state.completing = true;
            self.save(state);
            let (store, meta, checkpoint_writer) =
                (self.target.store.clone(), self.meta.clone(), self.checkpoint_writer.clone());
            state.in_flight.spawn(async move {
                checkpoint_writer.flush(FLUSH_TIMEOUT).await;
                OperationResult::Completed(store.complete(&upload, &parts, &meta).await)
            });
        }
    }

    async fn on_result(&mut self, state: &mut UploadTaskState, result: OperationResult) -> UploadFlow {
        match result {
            OperationResult::Begun(result) => {
                state.beginning = false;
                match result {
                    Ok(upload) => {
                        self.target.upload = Some(upload);
                        self.recovered(state);
                        self.save(state);
                    }
                    Err(error) => return self.failed(state, error).await,
                }
            }
            OperationResult::Read { put, bytes: Ok(bytes) } => self.send(state, put, bytes),
            OperationResult::Read { put, bytes: Err(error) } => {
                state.machine.failed(put.number, put.generation, false);
                warn!(%error, path = %self.spool.path().display(), "spool not read");
                let message = format!("read {}: {error}", self.spool.path().display());
                let error =
                    StorageError::new(StorageErrorKind::Other, self.target.store.name(), "read the spool", message);
                return self.failed(state, error).await;
            }
            OperationResult::Sent { put, result: Ok(tag) } => {
                debug!(part = put.number, bytes = tag.bytes, "part stored");
                state.machine.acked(put.number, put.generation, tag);
                state.taken_away = 0;
                self.recovered(state);
                self.release_stored(state).await;
                self.save(state);
            }
            OperationResult::Sent { put, result: Err(error) } => {
                state.machine.failed(put.number, put.generation, error.is_transient());
                self.save(state);
                return self.failed(state, error).await;
            }
            OperationResult::Completed(result) => {
                state.completing = false;
                return self.completed(state, result).await;
            }
        }
        UploadFlow::Continue
    }

    fn send(&mut self, state: &mut UploadTaskState, put: PartRequest, bytes: Bytes) {
        let Some(upload) = self.target.upload.clone() else { return };
        if put.number == 1 {
            let head = usize::try_from(self.rewritten()).unwrap_or(0).min(bytes.len());
            state.head = Some(Bytes::copy_from_slice(&bytes[..head]));
        }
        let store = self.target.store.clone();
        if let Some(tag) = store.expected_tag(put.number, put.generation, &bytes) {
            state.machine.expects(put.number, put.generation, tag);
        }
        self.save(state);
        let checkpoint_writer = self.checkpoint_writer.clone();
        state.in_flight.spawn(async move {
            // Should this process die now, a salvage can only use what the checkpoint knows.
            checkpoint_writer.flush(FLUSH_TIMEOUT).await;
            let result = store.put_part(&upload, put.number, put.generation, bytes).await;
            OperationResult::Sent { put, result }
        });
    }

    fn recovered(&self, state: &mut UploadTaskState) {
        if let Some(since) = state.outage.since {
            info!(seconds = since.elapsed().as_secs(), "store answers again");
            state.outage = StoreOutage::new(&self.settings);
        }
    }

    async fn close(
        &mut self,
        state: &mut UploadTaskState,
        done: oneshot::Sender<Result<StoredObject, UploadFailure>>,
    ) -> UploadFlow {
        self.wrote(state);
        state.closed_at = Some(Instant::now());
        state.finish = Some(done);
        // The last attempts begin at once.
        state.outage.until = None;
        if let Some(why) = state.lost.clone() {
            return self.give_up(state, StorageErrorKind::Gone, why).await;
        }
        if let Err(error) = self.close_object(state).await {
            let message = format!("Local upload failed: read {}: {error}", self.spool.path().display());
            return self.give_up(state, StorageErrorKind::Other, message).await;
        }
        if state.machine.is_empty() {
            self.abandon(state).await;
            self.answer(state, Err(UploadFailure::nothing()));
            return UploadFlow::Done;
        }
        self.save(state);
        UploadFlow::Continue
    }

    async fn completed(&mut self, state: &mut UploadTaskState, result: Result<Stored, StorageError>) -> UploadFlow {
        let end = state.machine.prefix().1;
        match result {
            Ok(stored) if stored.bytes == end => {
                // The location may be a link that opens the object: not for logs.
                info!(file = self.name, bytes = stored.bytes, "file stored");
                self.abort_left(state).await;
                let kept = self.kept(state, stored.location, stored.bytes);
                self.answer(state, Ok(kept));
                UploadFlow::Done
            }
            Ok(stored) => {
                let message = format!("stored object has {} bytes instead of {end}", stored.bytes);
                let error =
                    StorageError::new(StorageErrorKind::Mismatch, self.target.store.name(), "complete", message);
                self.give_up(state, error.kind, error.to_string()).await
            }
            // Older bytes of a part came in after newer ones.
            Err(error) if error.kind == StorageErrorKind::Invalid && state.machine.invalidate() => {
                warn!(%error, "parts sent again");
                UploadFlow::Continue
            }
            Err(error) => {
                state.unanswered |= error.is_transient();
                self.failed(state, error).await
            }
        }
    }
}

#[cfg(test)]
mod tests;
