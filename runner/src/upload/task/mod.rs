//! One file on its way into its store, as a task: reads the spool, sends parts, keeps the state, gives stored ranges
//! back to the disk; waits out trouble, changes to the backup store, and in the end makes the object.

mod outage;
mod anew;

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use spillway_storage::{Meta, PartTag, Storage, StorageError, StorageErrorKind, Stored, Upload};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info, warn};

use crate::session::machine::SessionEvent;
use crate::upload::checkpoint::{CheckpointWriter, UploadCheckpoint, media_at};
use crate::upload::machine::{PartRequest, UploadMachine};
use crate::upload::plan::PartLayout;
use crate::upload::settings::UploadSettings;
use crate::upload::{CHECKPOINT_TIMEOUT, StoredObject, UploadFailure, UploadProgress};
use outage::StoreOutage;
use spillway_ipc::SpoolReader;
use spillway_ipc::restart::{Origin, RestartPoints};

const TICK: Duration = Duration::from_millis(250);
/// Samples of media over bytes that are kept; enough for any outage, thinned beyond.
const MAX_SAMPLES: usize = 512;
const CHECKPOINT_SAMPLES: usize = 16;
/// So much more of the spool is kept for the sake of a key frame: without one another object would begin with a picture
/// that needs those before it. At 6 Mbit/s 44 s; rooms send key frames when somebody joins, encoders every few seconds.
const KEY_WITHIN: u64 = 32 << 20;
/// While nothing is stored: how far the recording is, for whoever finds the spool.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(5);

/// How far the file is, as the media process said last.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::upload) struct SpoolProgress {
    pub sealed_to: u64,
    pub media_ns: u64,
}

#[derive(Debug)]
pub(in crate::upload) enum UploadCommand {
    /// The file is as it will be: store all of it.
    Finish(oneshot::Sender<Result<StoredObject, UploadFailure>>),
    /// Nothing of it is wanted.
    Drop(oneshot::Sender<()>),
}

/// A store and the upload that may have been begun there already.
#[derive(Clone, Debug)]
pub(in crate::upload) struct UploadTarget {
    pub store: Arc<dyn Storage>,
    pub upload: Option<Upload>,
}

pub(in crate::upload) struct Uploader {
    pub file: u32,
    /// The object's name as it was asked for; those begun later are numbered.
    pub asked_name: String,
    /// The object's name.
    pub name: String,
    /// What of the spool the object is made of.
    pub origin: Origin,
    pub points: RestartPoints,
    pub meta: Meta,
    /// Bytes at the start that are rewritten at the end.
    pub head: u64,
    pub bits_per_second: Option<u64>,
    pub target: UploadTarget,
    pub backup: Option<Arc<dyn Storage>>,
    /// Not empty: the primary store refused at the start, and the target is the backup.
    pub primary_error: String,
    pub spool: Arc<SpoolReader>,
    pub spool_cap: u64,
    pub settings: UploadSettings,
    pub checkpoint_writer: CheckpointWriter,
    pub written: watch::Receiver<SpoolProgress>,
    pub commands: mpsc::Receiver<UploadCommand>,
    pub progress: watch::Sender<UploadProgress>,
    pub session: mpsc::Sender<SessionEvent>,
}

enum OperationResult {
    Begun(Result<Upload, StorageError>),
    Read { put: PartRequest, bytes: io::Result<Bytes> },
    Sent { put: PartRequest, result: Result<PartTag, StorageError> },
    Completed(Result<Stored, StorageError>),
}

/// The running state, apart from what it was made with.
struct UploadTaskState {
    machine: UploadMachine,
    in_flight: JoinSet<OperationResult>,
    outage: StoreOutage,
    on_backup: bool,
    /// Why the primary store was given up.
    primary_error: String,
    left: Vec<Upload>,
    beginning: bool,
    completing: bool,
    /// Bytes of the file from here on are all in the spool: a restart point as long as there is one.
    kept_from: u64,
    /// Ranges of the file that are stored and still take room.
    stored: Vec<Range<u64>>,
    /// Objects begun for this file.
    objects: u32,
    /// Uploads that were taken from us since a part was stored last.
    taken_away: u32,
    /// Media before the object's beginning, nanoseconds.
    skipped_ns: u64,
    /// The store was asked to make the object and did not answer.
    unanswered: bool,
    /// The upload was taken away, and why no other can take its place.
    lost: Option<String>,
    /// Said to the user in `details`.
    notes: Vec<String>,
    /// Bytes the spool takes from the disk.
    used: u64,
    full_reported: bool,
    /// The head as it was last read for sending.
    head: Option<Bytes>,
    samples: VecDeque<(u64, u64)>,
    checkpointed_at: Instant,
    closed_at: Option<Instant>,
    finish: Option<oneshot::Sender<Result<StoredObject, UploadFailure>>>,
}

enum UploadFlow {
    Continue,
    ServeOutcome,
}

impl Uploader {
    fn layout(&self) -> PartLayout {
        PartLayout::of(&self.target.store.rules(), &self.settings.parts, self.rewritten(), self.bits_per_second)
    }

    /// Bytes at the object's start that are sent once more at the end.
    fn rewritten(&self) -> u64 {
        if self.origin.is_whole() { self.head } else { 0 }
    }

    fn machine(&self) -> UploadMachine {
        UploadMachine::new(self.layout(), self.target.store.rules(), self.settings.tuning())
    }

    /// Until it was asked to finish or drop. When its asker goes away without a word, everything stays as it is: the
    /// upload is somebody else's now.
    pub async fn run(mut self) {
        let mut state = UploadTaskState {
            machine: self.machine(),
            in_flight: JoinSet::new(),
            outage: StoreOutage::new(&self.settings),
            on_backup: !self.primary_error.is_empty(),
            primary_error: self.primary_error.clone(),
            left: vec![],
            beginning: false,
            completing: false,
            kept_from: 0,
            stored: vec![],
            objects: 1,
            taken_away: 0,
            skipped_ns: 0,
            unanswered: false,
            lost: None,
            notes: vec![],
            used: 0,
            full_reported: false,
            head: None,
            samples: VecDeque::new(),
            checkpointed_at: Instant::now(),
            closed_at: None,
            finish: None,
        };
        self.save(&mut state);
        loop {
            self.start_operations(&mut state);
            let now = Instant::now();
            // A wait that is over wakes nobody again while its request is on the way.
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
                        warn!(%error, "upload: a task broke");
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
                UploadFlow::ServeOutcome => return,
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
        // While it fails, one request at a time finds out when it is over.
        while state.outage.since.is_none() || state.in_flight.is_empty() {
            let Some(put) = state.machine.next(now.into_std()) else { break };
            let (spool, range, origin) = (self.spool.clone(), put.range.clone(), self.origin.clone());
            let places = self.points.places_in(origin.in_file(range.start)..origin.in_file(range.end));
            state.in_flight.spawn(async move {
                let bytes = spawn_blocking(move || origin.read(&spool, range, &places))
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
                checkpoint_writer.flush(CHECKPOINT_TIMEOUT).await;
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
            // Should we die now, another can only use what it knows of.
            checkpoint_writer.flush(CHECKPOINT_TIMEOUT).await;
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

    /// A store that keeps its parts lets go of the spool's; a backup would need them all.
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
        let safe = self.origin.in_file(state.machine.safe_to());
        // Should the upload be taken from us, another begins with what is there: at a restart point.
        let limit = self.points.keep_from(safe, KEY_WITHIN.min(self.spool_cap / 4)).unwrap_or(safe);
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
        let first_end = self.origin.in_file(self.layout().size(1));
        state.kept_from = state.kept_from.max(kept_from).max(limit);
        self.points.forget(first_end..state.kept_from);
        let spool = self.spool.clone();
        let punch = move || ranges.into_iter().try_for_each(|range: Range<u64>| spool.punch(range).map(|_| ()));
        if let Ok(Err(error)) = spawn_blocking(punch).await {
            debug!(%error, "spool not given back");
        }
    }

    fn wrote(&mut self, state: &mut UploadTaskState) {
        let SpoolProgress { sealed_to, media_ns } = *self.written.borrow_and_update();
        if let Err(error) = self.points.advance(&self.spool, sealed_to) {
            debug!(%error, "spool not walked");
        }
        let sealed_to = if self.origin.is_whole() { sealed_to } else { self.walked(sealed_to) };
        let media_ns = media_ns.saturating_sub(state.skipped_ns);
        if state.samples.back().is_none_or(|(end, _)| *end < sealed_to) {
            state.samples.push_back((sealed_to, media_ns));
            let safe = state.machine.safe_to();
            // One before the first that is not safe, to measure from.
            while state.samples.get(1).is_some_and(|(end, _)| *end <= safe) {
                state.samples.pop_front();
            }
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
        let full = if state.lost.is_some() {
            state.lost.clone()
        } else if state.machine.is_exhausted() {
            Some(format!("{} takes no more parts of one object", self.target.store.name()))
        } else {
            (used >= self.spool_cap).then(|| {
                let why = if state.outage.message.is_empty() { "the store is too slow" } else { &state.outage.message };
                format!("{} MB wait to be uploaded and the spool holds no more: {why}", used >> 20)
            })
        };
        if let Some(message) = full {
            warn!(reason = message, "recording has to end");
            // The session reads its inbox at all times; if it is full just now, the next tick tries again.
            state.full_reported = self.session.try_send(SessionEvent::SpoolFull(message)).is_ok();
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
        // Trouble with the store is not waited out before the last tries begin.
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
            return UploadFlow::ServeOutcome;
        }
        self.save(state);
        UploadFlow::Continue
    }

    /// Nothing more is written: the object ends where the file does.
    async fn close_object(&mut self, state: &mut UploadTaskState) -> io::Result<()> {
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

    async fn completed(&mut self, state: &mut UploadTaskState, result: Result<Stored, StorageError>) -> UploadFlow {
        let end = state.machine.prefix().1;
        match result {
            Ok(stored) if stored.bytes == end => {
                // The location may be a link that opens the object: not for logs.
                info!(file = self.name, bytes = stored.bytes, "file stored");
                self.abort_left(state).await;
                let kept = self.kept(state, stored.location, stored.bytes);
                self.answer(state, Ok(kept));
                UploadFlow::ServeOutcome
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

    fn kept(&self, state: &UploadTaskState, location: String, bytes: u64) -> StoredObject {
        StoredObject {
            filename: self.name.clone(),
            location,
            bytes,
            used_backup: state.on_backup,
            skipped_ns: state.skipped_ns,
        }
    }

    fn answer(&self, state: &mut UploadTaskState, result: Result<StoredObject, UploadFailure>) {
        self.publish(state);
        if let Some(done) = state.finish.take() {
            let _ = done.send(result);
        }
    }

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
        let last = state.samples.back().copied();
        let media = state.samples.iter().copied().step_by(every).chain(last).collect();
        let kept_from = state.kept_from;
        self.checkpoint_writer.update(self.file, |file| {
            file.media = media;
            file.media.dedup();
            file.upload = Some(checkpoint);
            file.kept_from = kept_from;
        });
    }

    fn publish(&self, state: &UploadTaskState) {
        let safe = state.machine.safe_to();
        let last = state.samples.back().map_or(0, |(_, ns)| *ns);
        let samples: Vec<(u64, u64)> = state.samples.iter().copied().collect();
        let progress = UploadProgress {
            stored: safe,
            behind_ms: last.saturating_sub(media_at(&samples, safe)) / 1_000_000,
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
