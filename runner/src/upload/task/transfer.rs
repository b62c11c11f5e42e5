//! The way of a file's bytes into its store: what the media process wrote is cut into parts, read from the spool, sent, and
//! given back to the disk; the end of the file is the end of the object, which the store then makes. Runs in the upload task;
//! requests and the disk's longer work run beside it.

use std::io;
use std::ops::Range;

use bytes::Bytes;
use spillway_storage::{StorageError, StorageErrorKind, Stored};
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::state::{OperationResult, SpoolProgress, UploadFlow, UploadTaskState, Uploader};
use crate::events::SessionEvent;
use crate::upload::checkpoint::FLUSH_TIMEOUT;
use crate::upload::outage::StoreOutage;
use crate::upload::outcome::{StoredObject, UploadFailure};
use crate::upload::parts::PartRequest;

/// Samples of media over bytes that are kept; enough for any outage, thinned beyond.
const MAX_SAMPLES: usize = 512;
/// So much more of the spool is kept for the sake of a keyframe: without one another object would begin with a frame
/// that needs those before it. At 6 Mbit/s 44 s; rooms send keyframes when a participant joins, encoders every few seconds.
const KEY_WITHIN: u64 = 32 << 20;

impl Uploader {
    /// Looks how far the file is: walks it, cuts parts, and ends the output when the spool is full.
    pub(super) fn wrote(&mut self, state: &mut UploadTaskState) {
        let SpoolProgress { sealed_to, media_ns } = *self.written.borrow_and_update();
        if let Err(error) = self.points.advance(&self.spool, sealed_to) {
            debug!(%error, "spool not walked");
        }
        let sealed_to = if self.origin.is_whole() { sealed_to } else { self.walked(sealed_to) };
        let media_ns = media_ns.saturating_sub(state.skipped_ns);
        if state.samples.last().is_none_or(|(end, _)| *end < sealed_to) {
            state.samples.push((sealed_to, media_ns));
            let safe = state.machine.safe_to();
            // Another object would begin at `kept_from`: how much media is before that has to be known.
            let given_back = state.kept_from > self.origin.from;
            let measured = if given_back { safe.min(self.origin.in_object(state.kept_from)) } else { safe };
            // One at or before it, to measure from.
            let known = state.samples.partition_point(|(end, _)| *end <= measured);
            state.samples.drain(..known.saturating_sub(1));
            if state.samples.len() > MAX_SAMPLES {
                let mut odd = false;
                state.samples.retain(|_| {
                    odd = !odd;
                    odd
                });
            }
        }
        state.machine.wrote(sealed_to, Instant::now().into_std());
        if state.full_reported || state.machine.is_closed() {
            return;
        }
        state.used = self.spool.used().unwrap_or(0);
        let used = state.used;
        let full = state.lost.clone().or_else(|| {
            if state.machine.is_exhausted() {
                return Some(format!("{} takes no more parts of one object", self.target.store.name()));
            }
            (used >= self.spool_cap).then(|| {
                let why = if state.outage.message.is_empty() { "the store is too slow" } else { &state.outage.message };
                format!("{} MB wait to be uploaded and the spool holds no more: {why}", used >> 20)
            })
        });
        if let Some(message) = full {
            warn!(reason = message, "output has to end");
            // The session reads its inbox at all times; if it is full just now, the next tick tries again.
            let event = SessionEvent::OutputFull { output: self.output, message };
            state.full_reported = self.session.try_send(event).is_ok();
        }
    }

    /// Starts whatever may be started.
    pub(super) fn start_operations(&mut self, state: &mut UploadTaskState) {
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

    pub(super) async fn on_result(&mut self, state: &mut UploadTaskState, result: OperationResult) -> UploadFlow {
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

    /// Gives stored parts back to the disk, as long as no backup store could need them.
    async fn release_stored(&mut self, state: &mut UploadTaskState) {
        if self.can_change(state) {
            if state.used < self.spool_cap / 2 {
                return;
            }
            warn!("spool is half full: what is stored makes room, and the backup store could not take over any more");
        }
        let stored = state.machine.take_stored();
        state
            .stored
            .extend(stored.into_iter().map(|range| self.origin.in_file(range.start)..self.origin.in_file(range.end)));
        // Behind it stands a part that is not whole in the store: it is sent again from its first byte, by this process
        // or by a salvage. What it needs of the fragment in which it begins stays as well.
        let stored_to = self.origin.in_file(state.machine.whole_to());
        // Should another party abort the upload, the next object begins with what is there: at a restart point.
        let limit = self.points.keep_from(stored_to, KEY_WITHIN.min(self.spool_cap / 4)).unwrap_or(stored_to);
        let mut ranges = vec![];
        for range in &mut state.stored {
            let to = range.end.min(limit);
            if to > range.start {
                ranges.push(range.start..to);
                range.start = to;
            }
        }
        state.stored.retain(|range| !range.is_empty());
        let Some(kept_from) = ranges.iter().map(|range| range.end).max() else { return };
        state.kept_from = state.kept_from.max(kept_from).max(limit);
        self.points.forget_starts(state.kept_from);
        // Only what is given back: a part whose answer was lost stays, and may be sent again with its offsets.
        for range in &ranges {
            self.points.forget_offsets(range.clone());
        }
        self.give_back(ranges).await;
    }

    /// Makes holes of ranges of the file. A failure costs only room.
    pub(super) async fn give_back(&self, ranges: Vec<Range<u64>>) {
        let spool = self.spool.clone();
        let punch = move || ranges.into_iter().try_for_each(|range| spool.punch(range).map(|_| ()));
        if let Ok(Err(error)) = spawn_blocking(punch).await {
            debug!(%error, "spool not given back");
        }
    }

    pub(super) async fn close(
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

    /// Nothing more is written: the object ends where the file does.
    pub(super) async fn close_object(&mut self, state: &mut UploadTaskState) -> io::Result<()> {
        let (spool, head) = (self.spool.clone(), self.rewritten());
        let look = spawn_blocking(move || {
            let end = spool.end()?;
            Ok::<_, io::Error>((end, spool.read(0..head.min(end))?))
        });
        let (end, head) = look.await.unwrap_or_else(|error| Err(io::Error::other(error)))?;
        self.points.advance(&self.spool, end)?;
        let end = if self.origin.is_whole() { end } else { self.walked(end) };
        let rewritten = state.head.as_ref().is_some_and(|sent| *sent != head);
        state.machine.close(end, rewritten, Instant::now().into_std());
        Ok(())
    }

    /// Where in the object the last whole unit before `sealed_to` of the file ends.
    fn walked(&self, sealed_to: u64) -> u64 {
        self.origin.in_object(self.points.walked_to().min(sealed_to))
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
