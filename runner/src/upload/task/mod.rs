//! One file on its way into its store, as a task: reads the spool, sends parts, keeps the state, gives stored ranges
//! back to the disk; waits out trouble, changes to the backup store, and in the end makes the object.

mod trouble;
mod anew;

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use spillway_storage::{Kind, Meta, PartTag, Storage, StorageError, Stored, Upload};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info, warn};

use crate::session::machine::Event;
use crate::upload::checkpoint::{Keeper, SavedUpload, media_at};
use crate::upload::machine::{Machine, Put};
use crate::upload::plan::Cutting;
use crate::upload::settings::UploadSettings;
use crate::upload::{Failure, Kept, Progress, STATE_PATIENCE};
use spillway_spool::Shelf;
use spillway_spool::restart::{Origin, RestartPoints};
use trouble::Trouble;

const TICK: Duration = Duration::from_millis(250);
/// Samples of media over bytes that are kept; enough for any outage, thinned beyond.
const MOST_SAMPLES: usize = 512;
const SAVED_SAMPLES: usize = 16;
/// So much more of the spool is kept for the sake of a key frame: without one another object would begin with a picture
/// that needs those before it. At 6 Mbit/s 44 s; rooms send key frames when somebody joins, encoders every few seconds.
const KEY_WITHIN: u64 = 32 << 20;
/// While nothing is stored: how far the recording is, for whoever finds the spool.
const SAVED_AT_LEAST: Duration = Duration::from_secs(5);

/// How far the file is, as the media process said last.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::upload) struct Written {
    pub sealed_to: u64,
    pub media_ns: u64,
}

#[derive(Debug)]
pub(in crate::upload) enum Ask {
    /// The file is as it will be: store all of it.
    Finish(oneshot::Sender<Result<Kept, Failure>>),
    /// Nothing of it is wanted.
    Drop(oneshot::Sender<()>),
}

/// A store and the upload that may have been begun there already.
#[derive(Clone, Debug)]
pub(in crate::upload) struct Target {
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
    told_full: bool,
    /// The head as it was last read for sending.
    head: Option<Bytes>,
    samples: VecDeque<(u64, u64)>,
    saved_at: Instant,
    closed_at: Option<Instant>,
    finish: Option<oneshot::Sender<Result<Kept, Failure>>>,
}

enum Onward {
    Go,
    Over,
}

impl Uploader {
    fn cutting(&self) -> Cutting {
        Cutting::of(&self.target.store.rules(), &self.settings.parts, self.rewritten(), self.bits_per_second)
    }

    /// Bytes at the object's start that are sent once more at the end.
    fn rewritten(&self) -> u64 {
        if self.origin.is_whole() { self.head } else { 0 }
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
            kept_from: 0,
            stored: vec![],
            objects: 1,
            taken_away: 0,
            skipped_ns: 0,
            unanswered: false,
            lost: None,
            notes: vec![],
            used: 0,
            told_full: false,
            head: None,
            samples: VecDeque::new(),
            saved_at: Instant::now(),
            closed_at: None,
            finish: None,
        };
        self.save(&mut work);
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
                    if work.saved_at.elapsed() >= SAVED_AT_LEAST {
                        self.save(&mut work);
                    }
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
        if work.lost.is_some() || work.trouble.until.is_some_and(|until| now < until) {
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
            let (shelf, range, origin) = (self.shelf.clone(), put.range.clone(), self.origin.clone());
            let places = self.points.places_in(origin.in_file(range.start)..origin.in_file(range.end));
            work.flights.spawn(async move {
                let bytes = spawn_blocking(move || origin.read(&shelf, range, &places))
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
                work.taken_away = 0;
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
            let head = usize::try_from(self.rewritten()).unwrap_or(0).min(bytes.len());
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
    async fn give_back(&mut self, work: &mut Work) {
        if self.can_change(work) {
            if work.used < self.spool_cap / 2 {
                return;
            }
            warn!("spool is half full: what is stored makes room, and the backup store could not take over any more");
        }
        let stored = work.machine.take_stored();
        work.stored
            .extend(stored.into_iter().map(|range| self.origin.in_file(range.start)..self.origin.in_file(range.end)));
        let safe = self.origin.in_file(work.machine.safe_to());
        // Should the upload be taken from us, another begins with what is there: at a restart point.
        let limit = self.points.keep_from(safe, KEY_WITHIN.min(self.spool_cap / 4)).unwrap_or(safe);
        let mut ranges = vec![];
        for range in &mut work.stored {
            let to = range.end.min(limit);
            if to > range.start {
                ranges.push(range.start..to);
                range.start = to;
            }
        }
        work.stored.retain(|range| !range.is_empty());
        let Some(kept_from) = ranges.iter().map(|range| range.end).max() else { return };
        let first_end = self.origin.in_file(self.cutting().size(1));
        work.kept_from = work.kept_from.max(kept_from).max(limit);
        self.points.forget(first_end..work.kept_from);
        let shelf = self.shelf.clone();
        let punch = move || ranges.into_iter().try_for_each(|range: Range<u64>| shelf.punch(range).map(|_| ()));
        if let Ok(Err(error)) = spawn_blocking(punch).await {
            debug!(%error, "spool not given back");
        }
    }

    fn wrote(&mut self, work: &mut Work) {
        let Written { sealed_to, media_ns } = *self.written.borrow_and_update();
        if let Err(error) = self.points.advance(&self.shelf, sealed_to) {
            debug!(%error, "spool not walked");
        }
        let sealed_to = if self.origin.is_whole() { sealed_to } else { self.walked(sealed_to) };
        let media_ns = media_ns.saturating_sub(work.skipped_ns);
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
        let full = if work.lost.is_some() {
            work.lost.clone()
        } else if work.machine.is_exhausted() {
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
        if let Some(why) = work.lost.clone() {
            return self.give_up(work, Kind::Gone, why).await;
        }
        if let Err(error) = self.close_object(work).await {
            let words = format!("Local upload failed: read {}: {error}", self.shelf.path().display());
            return self.give_up(work, Kind::Other, words).await;
        }
        if work.machine.is_empty() {
            self.abandon(work).await;
            self.answer(work, Err(Failure::nothing()));
            return Onward::Over;
        }
        self.save(work);
        Onward::Go
    }

    /// Nothing more is written: the object ends where the file does.
    async fn close_object(&mut self, work: &mut Work) -> io::Result<()> {
        let (shelf, head) = (self.shelf.clone(), self.rewritten());
        let look = spawn_blocking(move || {
            let end = shelf.end()?;
            Ok::<_, io::Error>((end, shelf.read(0..head.min(end))?))
        });
        let (end, head) = look.await.unwrap_or_else(|error| Err(io::Error::other(error)))?;
        self.points.advance(&self.shelf, end)?;
        let end = if self.origin.is_whole() { end } else { self.walked(end) };
        let rewritten = work.head.as_ref().is_some_and(|sent| *sent != head);
        work.machine.close(end, rewritten, Instant::now().into_std());
        Ok(())
    }

    async fn completed(&mut self, work: &mut Work, result: Result<Stored, StorageError>) -> Onward {
        let end = work.machine.prefix().1;
        match result {
            Ok(stored) if stored.bytes == end => {
                // The location may be a link that opens the object: not for logs.
                info!(file = self.name, bytes = stored.bytes, "file stored");
                self.abort_left(work).await;
                let kept = self.kept(work, stored.location, stored.bytes);
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
            Err(error) => {
                work.unanswered |= error.is_passing();
                self.failed(work, error).await
            }
        }
    }

    fn kept(&self, work: &Work, location: String, bytes: u64) -> Kept {
        Kept { filename: self.name.clone(), location, bytes, used_backup: work.on_backup, skipped_ns: work.skipped_ns }
    }

    fn answer(&self, work: &mut Work, result: Result<Kept, Failure>) {
        self.publish(work);
        if let Some(done) = work.finish.take() {
            let _ = done.send(result);
        }
    }

    fn save(&self, work: &mut Work) {
        work.saved_at = Instant::now();
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
        let kept_from = work.kept_from;
        self.keeper.update(self.file, |file| {
            file.media = media;
            file.media.dedup();
            file.upload = Some(saved);
            file.kept_from = kept_from;
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
            name: self.name.clone(),
            notes: work.notes.clone(),
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
