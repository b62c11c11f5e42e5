//! An upload that another party has aborted (a life-cycle rule, MinIO's sweep after 24 h, an operator): what the spool
//! still has becomes a new object, and the recording goes on there. Runs in the upload task.

use std::io;
use std::time::Duration;

use spillway_storage::{StorageError, StorageErrorKind};
use tokio::time::{Instant, timeout};
use tracing::warn;

use super::state::{UploadFlow, UploadTaskState, Uploader};
use crate::events::SessionEvent;
use crate::upload::checkpoint::{FLUSH_TIMEOUT, media_at};
use crate::upload::outage::StoreOutage;
use crate::upload::outcome::{StoredObject, UploadFailure};

/// To learn whether a later attempt of this egress has taken the upload over: one write to Redis and its repetition.
const SUPERSEDED_WITHIN: Duration = Duration::from_secs(3);
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Uploads lost in a row without a stored part: such a store keeps none.
const MAX_TAKEN_AWAY: u32 = 3;

impl Uploader {
    /// The store does not know the upload any more: it was completed, taken over by a salvage, or aborted.
    pub(super) async fn taken_away(&mut self, state: &mut UploadTaskState, error: StorageError) -> UploadFlow {
        // A salvage that took our uploads over has also taken our state over: written once more, it is refused.
        self.checkpoint_writer.update(self.file, |_| {});
        self.checkpoint_writer.flush(SUPERSEDED_WITHIN).await;
        if self.checkpoint_writer.is_superseded() {
            warn!(%error, "a later attempt has completed or aborted the upload");
            self.answer(state, Err(UploadFailure { message: error.to_string(), kept: None, gone: true }));
            return UploadFlow::Done;
        }
        if let Some(kept) = self.completed_unseen(state).await {
            self.answer(state, Ok(kept));
            return UploadFlow::Done;
        }
        warn!(%error, file = self.name, "another party has aborted the upload");
        self.forget_object(state).await;
        self.target.upload = None;
        state.taken_away += 1;
        let message = error.to_string();
        if state.taken_away > MAX_TAKEN_AWAY {
            let why = format!("{message}; so were the {MAX_TAKEN_AWAY} before it");
            if self.can_change(state) {
                state.outage.message = why;
                return self.next_store(state, StorageErrorKind::Gone).await;
            }
            return self.lose(state, why).await;
        }
        if state.taken_away > 1 {
            state.outage.message.clone_from(&message);
            state.outage.since = Some(Instant::now());
            state.outage.wait();
        }
        if let Err(why) = self.move_on(state, &message) {
            return self.lose(state, why).await;
        }
        self.give_back_beginning().await;
        if let Err(error) = self.begin_from_spool(state).await {
            return self.give_up(state, StorageErrorKind::Other, format!("Local upload failed: {error}")).await;
        }
        let only_head = !self.origin.is_whole() && state.machine.total() <= self.origin.head.len() as u64;
        if state.machine.is_closed() && only_head {
            return self.give_up(state, StorageErrorKind::Gone, message).await;
        }
        UploadFlow::Continue
    }

    /// The object will not be made: its requests end, and what was known of it and of its store counts no more.
    pub(super) async fn forget_object(&self, state: &mut UploadTaskState) {
        state.in_flight.shutdown().await;
        (state.beginning, state.completing, state.unanswered) = (false, false, false);
        state.head = None;
        state.stored.clear();
        state.outage = StoreOutage::new(&self.settings);
    }

    /// Begins the next object with what the spool has; a file that is as it will be ends that object too.
    pub(super) async fn begin_from_spool(&mut self, state: &mut UploadTaskState) -> io::Result<()> {
        let closed = state.machine.is_closed();
        state.machine = self.machine();
        self.wrote(state);
        if closed { self.close_object(state).await } else { Ok(()) }
    }

    /// What lies before the object's beginning is not read again, the old first part above all. The head stays: with it
    /// what is left in the spool can be played, should no store take it.
    async fn give_back_beginning(&self) {
        let lost = self.origin.head.len() as u64..self.origin.from;
        if !lost.is_empty() {
            // A salvage has to know the new beginning before.
            self.checkpoint_writer.flush(FLUSH_TIMEOUT).await;
            self.give_back(vec![lost]).await;
        }
    }

    /// No other object can be begun. A recording that goes on is ended by the session, which then calls `finish`.
    async fn lose(&mut self, state: &mut UploadTaskState, why: String) -> UploadFlow {
        warn!(why, "no new object can be begun");
        if state.machine.is_closed() {
            return self.give_up(state, StorageErrorKind::Gone, why).await;
        }
        state.outage.message.clone_from(&why);
        state.lost = Some(why);
        self.wrote(state);
        UploadFlow::Continue
    }

    /// Sets what the next object is made of and its name, and notes that for the user. The error: why there can be none.
    fn move_on(&mut self, state: &mut UploadTaskState, message: &str) -> Result<(), String> {
        let name = self.name.clone();
        let note = if state.kept_from <= self.origin.from {
            format!("{message}; the upload of {name} is begun again, nothing of it is lost")
        } else {
            let origin = self.points.origin(state.kept_from).filter(|_| self.points.walked_to() >= state.kept_from);
            let Some(origin) = origin else {
                return Err(format!("{message}; the rest of {name} would not play by itself"));
            };
            let lost_ns = media_at(&state.samples, self.origin.in_object(state.kept_from));
            state.samples = std::mem::take(&mut state.samples)
                .into_iter()
                .map(|(at, ns)| (self.origin.in_file(at), ns.saturating_sub(lost_ns)))
                .filter(|(at, _)| *at > origin.from)
                .map(|(at, ns)| (origin.in_object(at), ns))
                .collect();
            state.skipped_ns += lost_ns;
            self.name = self.names.take(&self.asked_name);
            self.origin = origin;
            self.points.forget_offsets(0..self.origin.from);
            let (origin, filename, kept_from) = (self.origin.clone(), self.name.clone(), state.kept_from);
            let media = state.samples.clone();
            self.checkpoint_writer.update(self.file, |file| {
                file.started_at = file.started_at.map(|at| at.saturating_add_unsigned(lost_ns));
                (file.filename, file.origin, file.kept_from, file.media) = (filename, origin, kept_from, media);
            });
            let seconds = lost_ns as f64 / 1e9;
            format!(
                "{message}; the {seconds:.1} s of {name} before that are lost, the recording goes on in {}",
                self.name
            )
        };
        self.checkpoint_writer.update(self.file, |file| file.upload = None);
        // If the session's inbox is full, the notes at the end have it.
        let _ = self.session.try_send(SessionEvent::Noted(note.clone()));
        state.notes.push(note);
        Ok(())
    }

    /// The store did not answer `complete`, then knows no such upload, and refuses `head`: the object was made. Most
    /// installations use keys that may only write.
    async fn completed_unseen(&self, state: &mut UploadTaskState) -> Option<StoredObject> {
        if !state.unanswered {
            return None;
        }
        let end = state.machine.prefix().1;
        let location = self.target.store.location(&self.name);
        match timeout(HEAD_TIMEOUT, self.target.store.head(&self.name)).await {
            Ok(Ok(Some(object))) if object.bytes == end => Some(self.kept(state, location, end)),
            Ok(Err(error)) if error.kind == StorageErrorKind::Denied => {
                let message =
                    format!("the store made {} without an answer, and these keys may not look at it", self.name);
                state.notes.push(message);
                Some(self.kept(state, location, end))
            }
            _ => None,
        }
    }
}
