//! One file on its way into its store, as a task: reads the spool, sends parts, keeps the state, gives stored ranges
//! back to the disk; waits out trouble, changes to the backup store, and in the end makes the object.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use spillway_process::retry::Schedule;
use spillway_storage::{Kind, Meta, PartTag, Storage, StorageError, Stored, Upload};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, info, warn};

use super::checkpoint::{Keeper, SavedUpload, media_at};
use super::machine::{Machine, Put};
use super::plan::Cutting;
use super::settings::UploadSettings;
use super::{Failure, Kept, Progress, STATE_PATIENCE};
use crate::session::machine::Event;
use spillway_spool::Shelf;

const TICK: Duration = Duration::from_millis(250);
/// For the last acts after giving up.
const LAST_ACTS: Duration = Duration::from_secs(10);
/// A refusal counts when it was heard so often in a row: keys and policies need a moment to be known everywhere.
const REFUSALS: u32 = 2;
/// Samples of media over bytes that are kept; enough for any outage, thinned beyond.
const MOST_SAMPLES: usize = 512;
const SAVED_SAMPLES: usize = 16;

/// How far the file is, as the media process said last.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Written {
    pub sealed_to: u64,
    pub media_ns: u64,
}

#[derive(Debug)]
pub(super) enum Ask {
    /// The file is as it will be: store all of it.
    Finish(oneshot::Sender<Result<Kept, Failure>>),
    /// Nothing of it is wanted.
    Drop(oneshot::Sender<()>),
}

/// A store and the upload that may have been begun there already.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub store: Arc<dyn Storage>,
    pub upload: Option<Upload>,
}

pub(super) struct Uploader {
    pub file: u32,
    /// The object's name.
    pub name: String,
    pub meta: Meta,
    /// Bytes at the start that are rewritten at the end.
    pub head: u64,
    pub bits_per_second: Option<u64>,
    pub target: Target,
    pub backup: Option<Arc<dyn Storage>>,
    /// Not empty: the primary store refused at the start, and the target is the backup.
    pub primary_words: String,
    pub shelf: Arc<Shelf>,
    pub spool_cap: u64,
    pub settings: UploadSettings,
    pub keeper: Keeper,
    pub written: watch::Receiver<Written>,
    pub asks: mpsc::Receiver<Ask>,
    pub progress: watch::Sender<Progress>,
    pub session: mpsc::Sender<Event>,
}

enum Landed {
    Begun(Result<Upload, StorageError>),
    Read { put: Put, bytes: io::Result<Bytes> },
    Sent { put: Put, result: Result<PartTag, StorageError> },
    Completed(Result<Stored, StorageError>),
}

/// Why nothing is sent just now.
struct Trouble {
    waits: Schedule,
    /// Nothing before then.
    until: Option<Instant>,
    since: Option<Instant>,
    refusals: u32,
    words: String,
}

impl Trouble {
    fn new(settings: &UploadSettings) -> Self {
        let waits = Schedule::new(
            Duration::from_millis(settings.first_wait_ms),
            Duration::from_millis(settings.longest_wait_ms),
        );
        Self { waits, until: None, since: None, refusals: 0, words: String::new() }
    }
}

/// The running state, apart from what it was made with.
struct Work {
    machine: Machine,
    flights: JoinSet<Landed>,
    trouble: Trouble,
    on_backup: bool,
    /// Why the primary store was given up.
    primary_words: String,
    left: Vec<Upload>,
    beginning: bool,
    completing: bool,
    punched: bool,
    /// Bytes the spool takes from the disk.
    used: u64,
    told_full: bool,
    /// The head as it was last read for sending.
    head: Option<Bytes>,
    samples: VecDeque<(u64, u64)>,
    closed_at: Option<Instant>,
    finish: Option<oneshot::Sender<Result<Kept, Failure>>>,
}

enum Onward {
    Go,
    Over,
}

impl Uploader {
    fn cutting(&self) -> Cutting {
        Cutting::of(&self.target.store.rules(), &self.settings.parts, self.head, self.bits_per_second)
    }

    fn machine(&self) -> Machine {
        Machine::new(self.cutting(), self.target.store.rules(), self.settings.knobs())
    }

    /// Until it was asked to finish or drop. When its asker goes away without a word, everything stays as it is: the
    /// upload is somebody else's now.
    pub async fn run(mut self) {
        let mut work = Work {
            machine: self.machine(),
            flights: JoinSet::new(),
            trouble: Trouble::new(&self.settings),
            on_backup: !self.primary_words.is_empty(),
            primary_words: self.primary_words.clone(),
            left: vec![],
            beginning: false,
            completing: false,
            punched: false,
            used: 0,
            told_full: false,
            head: None,
            samples: VecDeque::new(),
            closed_at: None,
            finish: None,
        };
        self.save(&work);
        loop {
            self.fly(&mut work);
            let now = Instant::now();
            // A wait that is over wakes nobody again while its request is on the way.
            let wake = work.trouble.until.filter(|until| *until > now).unwrap_or(now + TICK).min(now + TICK);
            let onward = tokio::select! {
                biased;
                ask = self.asks.recv() => match ask {
                    None => return,
                    Some(Ask::Drop(done)) => {
                        self.abandon(&mut work).await;
                        let _ = done.send(());
                        return;
                    }
                    Some(Ask::Finish(done)) => self.close(&mut work, done).await,
                },
                Some(landed) = work.flights.join_next() => match landed {
                    Ok(landed) => self.landed(&mut work, landed).await,
                    Err(error) => {
                        warn!(%error, "upload: a task broke");
                        Onward::Go
                    }
                },
                Ok(()) = self.written.changed() => {
                    self.wrote(&mut work);
                    Onward::Go
                }
                () = sleep_until(wake) => {
                    self.wrote(&mut work);
                    self.patience(&mut work).await
                }
                () = self.keeper.superseded() => return,
            };
            match onward {
                Onward::Go => self.publish(&work),
                Onward::Over => return,
            }
        }
    }

    /// Starts whatever may be started.
    fn fly(&mut self, work: &mut Work) {
        let now = Instant::now();
        if work.trouble.until.is_some_and(|until| now < until) {
            return;
        }
        let Some(upload) = self.target.upload.clone() else {
            if !work.beginning {
                work.beginning = true;
                let (store, name, meta) = (self.target.store.clone(), self.name.clone(), self.meta.clone());
                work.flights.spawn(async move { Landed::Begun(store.begin(&name, &meta).await) });
            }
            return;
        };
        if work.completing {
            return;
        }
        // While it fails, one request at a time finds out when it is over.
        while work.trouble.since.is_none() || work.flights.is_empty() {
            let Some(put) = work.machine.next(now.into_std()) else { break };
            let (shelf, range) = (self.shelf.clone(), put.range.clone());
            work.flights.spawn(async move {
                let bytes = spawn_blocking(move || shelf.read(range))
                    .await
                    .unwrap_or_else(|error| Err(io::Error::other(error)));
                Landed::Read { put, bytes }
            });
        }
        if let (Some(parts), true) = (work.machine.finished(), work.flights.is_empty()) {
            work.completing = true;
            self.save(work);
            let (store, meta, keeper) = (self.target.store.clone(), self.meta.clone(), self.keeper.clone());
            work.flights.spawn(async move {
                keeper.settle(STATE_PATIENCE).await;
                Landed::Completed(store.complete(&upload, &parts, &meta).await)
            });
        }
    }

    async fn landed(&mut self, work: &mut Work, landed: Landed) -> Onward {
        match landed {
            Landed::Begun(result) => {
                work.beginning = false;
                match result {
                    Ok(upload) => {
                        self.target.upload = Some(upload);
                        self.fine(work);
                        self.save(work);
                    }
                    Err(error) => return self.failed(work, error).await,
                }
            }
            Landed::Read { put, bytes: Ok(bytes) } => self.send(work, put, bytes),
            Landed::Read { put, bytes: Err(error) } => {
                work.machine.failed(put.number, put.generation, false);
                warn!(%error, path = %self.shelf.path().display(), "spool not read");
                let words = format!("read {}: {error}", self.shelf.path().display());
                let error = StorageError::new(Kind::Other, self.target.store.name(), "read the spool", words);
                return self.failed(work, error).await;
            }
            Landed::Sent { put, result: Ok(tag) } => {
                debug!(part = put.number, bytes = tag.bytes, "part stored");
                work.machine.acked(put.number, put.generation, tag);
                self.fine(work);
                self.give_back(work).await;
                self.save(work);
            }
            Landed::Sent { put, result: Err(error) } => {
                work.machine.failed(put.number, put.generation, error.is_passing());
                self.save(work);
                return self.failed(work, error).await;
            }
            Landed::Completed(result) => {
                work.completing = false;
                return self.completed(work, result).await;
            }
        }
        Onward::Go
    }

    fn send(&mut self, work: &mut Work, put: Put, bytes: Bytes) {
        let Some(upload) = self.target.upload.clone() else { return };
        if put.number == 1 {
            let head = usize::try_from(self.head).unwrap_or(0).min(bytes.len());
            work.head = Some(Bytes::copy_from_slice(&bytes[..head]));
        }
        let store = self.target.store.clone();
        if let Some(tag) = store.foresee(put.number, put.generation, &bytes) {
            work.machine.expects(put.number, put.generation, tag);
        }
        self.save(work);
        let keeper = self.keeper.clone();
        work.flights.spawn(async move {
            // Should we die now, another can only use what it knows of.
            keeper.settle(STATE_PATIENCE).await;
            let result = store.put_part(&upload, put.number, put.generation, bytes).await;
            Landed::Sent { put, result }
        });
    }

    fn fine(&self, work: &mut Work) {
        if let Some(since) = work.trouble.since {
            info!(seconds = since.elapsed().as_secs(), "store answers again");
            work.trouble = Trouble::new(&self.settings);
        }
    }

    /// A store that keeps its parts lets go of the spool's; a backup would need them all.
    async fn give_back(&self, work: &mut Work) {
        if self.can_change(work) {
            if work.used < self.spool_cap / 2 {
                return;
            }
            warn!("spool is half full: what is stored makes room, and the backup store could not take over any more");
        }
        let ranges = work.machine.take_stored();
        if ranges.is_empty() {
            return;
        }
        work.punched = true;
        let shelf = self.shelf.clone();
        let punch = move || ranges.into_iter().try_for_each(|range: Range<u64>| shelf.punch(range).map(|_| ()));
        if let Ok(Err(error)) = spawn_blocking(punch).await {
            debug!(%error, "spool not given back");
        }
    }

    fn wrote(&mut self, work: &mut Work) {
        let Written { sealed_to, media_ns } = *self.written.borrow_and_update();
        if work.samples.back().is_none_or(|(end, _)| *end < sealed_to) {
            work.samples.push_back((sealed_to, media_ns));
            let safe = work.machine.safe_to();
            // One before the first that is not safe, to measure from.
            while work.samples.get(1).is_some_and(|(end, _)| *end <= safe) {
                work.samples.pop_front();
            }
            if work.samples.len() > MOST_SAMPLES {
                let mut odd = false;
                work.samples.retain(|_| {
                    odd = !odd;
                    odd
                });
            }
        }
        work.machine.wrote(sealed_to, Instant::now().into_std());
        if work.told_full || work.machine.is_closed() {
            return;
        }
        work.used = self.shelf.used().unwrap_or(0);
        let used = work.used;
        let full = if work.machine.is_exhausted() {
            Some(format!("{} takes no more parts of one object", self.target.store.name()))
        } else {
            (used >= self.spool_cap).then(|| {
                let why = if work.trouble.words.is_empty() { "the store is too slow" } else { &work.trouble.words };
                format!("{} MB wait to be uploaded and the spool holds no more: {why}", used >> 20)
            })
        };
        if let Some(words) = full {
            warn!(words, "recording has to end");
            // The session reads its inbox at all times; if it is full just now, the next tick tries again.
            work.told_full = self.session.try_send(Event::Full(words)).is_ok();
        }
    }

    async fn close(&mut self, work: &mut Work, done: oneshot::Sender<Result<Kept, Failure>>) -> Onward {
        self.wrote(work);
        work.closed_at = Some(Instant::now());
        work.finish = Some(done);
        // Trouble with the store is not waited out before the last tries begin.
        work.trouble.until = None;
        let (shelf, head) = (self.shelf.clone(), self.head);
        let look = spawn_blocking(move || {
            let end = shelf.end()?;
            Ok::<_, io::Error>((end, shelf.read(0..head.min(end))?))
        });
        let (end, head) = match look.await.unwrap_or_else(|error| Err(io::Error::other(error))) {
            Ok(looked) => looked,
            Err(error) => {
                let words = format!("Local upload failed: read {}: {error}", self.shelf.path().display());
                return self.give_up(work, Kind::Other, words).await;
            }
        };
        let rewritten = work.head.as_ref().is_some_and(|sent| *sent != head);
        work.machine.close(end, rewritten, Instant::now().into_std());
        if work.machine.is_empty() {
            self.abandon(work).await;
            self.answer(work, Err(Failure::nothing()));
            return Onward::Over;
        }
        self.save(work);
        Onward::Go
    }

    async fn completed(&mut self, work: &mut Work, result: Result<Stored, StorageError>) -> Onward {
        let end = work.machine.prefix().1;
        match result {
            Ok(stored) if stored.bytes == end => {
                // The location may be a link that opens the object: not for logs.
                info!(file = self.name, bytes = stored.bytes, "file stored");
                self.abort_left(work).await;
                let kept = Kept { location: stored.location, bytes: stored.bytes, used_backup: work.on_backup };
                self.answer(work, Ok(kept));
                Onward::Over
            }
            Ok(stored) => {
                let words = format!("stored object has {} bytes instead of {end}", stored.bytes);
                let error = StorageError::new(Kind::Mismatch, self.target.store.name(), "complete", words);
                self.give_up(work, error.kind, error.to_string()).await
            }
            // Older bytes of a part came in after newer ones.
            Err(error) if error.kind == Kind::Invalid && work.machine.doubt() => {
                warn!(%error, "parts sent again");
                Onward::Go
            }
            Err(error) => self.failed(work, error).await,
        }
    }

    /// Trouble begins or goes on.
    async fn failed(&mut self, work: &mut Work, error: StorageError) -> Onward {
        if error.kind == Kind::Gone {
            warn!(%error, "upload is gone: somebody else has completed or aborted it");
            let words = error.to_string();
            self.answer(work, Err(Failure { words, kept: None, gone: true }));
            return Onward::Over;
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

    async fn patience(&mut self, work: &mut Work) -> Onward {
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

    fn can_change(&self, work: &Work) -> bool {
        self.backup.is_some() && !work.on_backup && !work.punched
    }

    async fn next_store(&mut self, work: &mut Work, kind: Kind) -> Onward {
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
        if closed {
            match self.shelf.end() {
                Ok(end) => work.machine.close(end, false, Instant::now().into_std()),
                Err(error) => {
                    return self.give_up(work, Kind::Other, format!("Local upload failed: {error}")).await;
                }
            }
        }
        self.save(work);
        Onward::Go
    }

    /// No store takes all of it. What one has is made an object if it can be; else nothing is left behind there.
    async fn give_up(&mut self, work: &mut Work, kind: Kind, words: String) -> Onward {
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
                    return Some((Kept { location: stored.location, bytes, used_backup: work.on_backup }, media_ns));
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
    async fn abandon(&mut self, work: &mut Work) {
        work.flights.shutdown().await;
        if let Some(upload) = self.target.upload.take() {
            abort(&*self.target.store, &upload).await;
        }
        self.abort_left(work).await;
    }

    async fn abort_left(&self, work: &mut Work) {
        // After the change the two have swapped places.
        let Some(primary) = self.backup.as_ref().filter(|_| work.on_backup) else { return };
        for upload in work.left.drain(..) {
            abort(&**primary, &upload).await;
        }
    }

    fn answer(&self, work: &mut Work, result: Result<Kept, Failure>) {
        if let Some(done) = work.finish.take() {
            let _ = done.send(result);
        }
    }

    fn save(&self, work: &Work) {
        let Some(upload) = &self.target.upload else { return };
        let saved = SavedUpload {
            backup: work.on_backup,
            upload: upload.clone(),
            completing: work.completing,
            cutting: self.cutting(),
            parts: work.machine.state(),
            left: work.left.clone(),
        };
        let every = work.samples.len().div_ceil(SAVED_SAMPLES).max(1);
        let last = work.samples.back().copied();
        let media = work.samples.iter().copied().step_by(every).chain(last).collect();
        self.keeper.update(self.file, |file| {
            file.media = media;
            file.media.dedup();
            file.upload = Some(saved);
        });
    }

    fn publish(&self, work: &Work) {
        let safe = work.machine.safe_to();
        let last = work.samples.back().map_or(0, |(_, ns)| *ns);
        let samples: Vec<(u64, u64)> = work.samples.iter().copied().collect();
        let progress = Progress {
            stored: safe,
            behind_ms: last.saturating_sub(media_at(&samples, safe)) / 1_000_000,
            trouble: work.trouble.words.clone(),
        };
        self.progress.send_if_modified(|known| {
            let changed = *known != progress;
            *known = progress;
            changed
        });
    }
}

async fn abort(store: &dyn Storage, upload: &Upload) {
    match timeout(LAST_ACTS, store.abort(upload)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => warn!(%error, "unfinished upload stays in the store"),
        Err(_) => warn!(store = store.name(), "unfinished upload stays in the store: no answer"),
    }
}

#[cfg(test)]
#[path = "task_tests.rs"]
mod tests;
