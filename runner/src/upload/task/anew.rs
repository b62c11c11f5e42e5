//! An upload that another party has aborted (a life-cycle rule, MinIO's sweep after 24 h, an operator): what the spool
//! still has becomes a new object, and the recording goes on there.

use std::time::Duration;

use spillway_storage::{Kind, StorageError};
use tokio::time::{Instant, timeout};
use tracing::warn;

use super::trouble::Trouble;
use super::{Onward, Uploader, Work};
use crate::session::machine::Event;
use crate::upload::Failure;
use crate::upload::checkpoint::media_at;

/// How long it may take to hear whether a later attempt of this egress has taken the upload over: one write to Redis and
/// its repetition.
const SUPERSEDED_WITHIN: Duration = Duration::from_secs(3);
const LOOK_TIMEOUT: Duration = Duration::from_secs(10);
/// Uploads lost in a row without a stored part: such a store keeps none.
const MAX_TAKEN_AWAY: u32 = 3;

impl Uploader {
    /// The store does not know the upload any more.
    pub(super) async fn taken_away(&mut self, work: &mut Work, error: StorageError) -> Onward {
        // A salvage that took our uploads over has also taken our state over: written once more, it is refused.
        self.keeper.update(self.file, |_| {});
        self.keeper.settle(SUPERSEDED_WITHIN).await;
        if self.keeper.is_superseded() {
            warn!(%error, "a later attempt has completed or aborted the upload");
            self.answer(work, Err(Failure { words: error.to_string(), kept: None, gone: true }));
            return Onward::Over;
        }
        if let Some(kept) = self.completed_unseen(work).await {
            self.answer(work, Ok(kept));
            return Onward::Over;
        }
        warn!(%error, file = self.name, "another party has aborted the upload");
        work.flights.shutdown().await;
        self.target.upload = None;
        (work.beginning, work.completing, work.unanswered) = (false, false, false);
        work.head = None;
        work.taken_away += 1;
        work.trouble = Trouble::new(&self.settings);
        let words = error.to_string();
        let closed = work.machine.is_closed();
        if work.taken_away > MAX_TAKEN_AWAY {
            let why = format!("{words}; so were the {MAX_TAKEN_AWAY} before it");
            if self.can_change(work) {
                work.trouble.words = why;
                return self.next_store(work, Kind::Gone).await;
            }
            return self.lose(work, why).await;
        }
        if work.taken_away > 1 {
            work.trouble.words.clone_from(&words);
            work.trouble.since = Some(Instant::now());
            work.trouble.wait();
        }
        if let Err(why) = self.move_on(work, &words) {
            return self.lose(work, why).await;
        }
        work.machine = self.machine();
        work.stored.clear();
        self.wrote(work);
        if closed {
            if let Err(error) = self.close_object(work).await {
                return self.give_up(work, Kind::Other, format!("Local upload failed: {error}")).await;
            }
            if !self.origin.is_whole() && work.machine.total() <= self.origin.head.len() as u64 {
                return self.give_up(work, Kind::Gone, words).await;
            }
        }
        Onward::Go
    }

    /// Nothing can take its place. A recording that goes on is ended by the session, which then asks us to finish.
    async fn lose(&mut self, work: &mut Work, why: String) -> Onward {
        warn!(why, "no new object can be begun");
        if work.machine.is_closed() {
            return self.give_up(work, Kind::Gone, why).await;
        }
        work.trouble.words.clone_from(&why);
        work.lost = Some(why);
        self.wrote(work);
        Onward::Go
    }

    /// Sets what the next object is made of, and how it is called; says it. The error: why there can be none.
    fn move_on(&mut self, work: &mut Work, words: &str) -> Result<(), String> {
        let name = self.name.clone();
        let note = if work.kept_from <= self.origin.from {
            format!("{words}; the upload of {name} is begun again, nothing of it is lost")
        } else {
            let origin = self.points.origin(work.kept_from).filter(|_| self.points.walked_to() >= work.kept_from);
            let Some(origin) = origin else {
                return Err(format!("{words}; the rest of {name} would not play by itself"));
            };
            let samples: Vec<(u64, u64)> = work.samples.iter().copied().collect();
            let lost_ns = media_at(&samples, self.origin.in_object(work.kept_from));
            work.samples = samples
                .into_iter()
                .map(|(at, ns)| (self.origin.in_file(at), ns.saturating_sub(lost_ns)))
                .filter(|(at, _)| *at > origin.from)
                .map(|(at, ns)| (origin.in_object(at), ns))
                .collect();
            work.skipped_ns += lost_ns;
            work.objects += 1;
            self.name = numbered(&self.asked_name, work.objects);
            self.origin = origin;
            let (origin, filename, kept_from) = (self.origin.clone(), self.name.clone(), work.kept_from);
            let media = work.samples.iter().copied().collect();
            self.keeper.update(self.file, |file| {
                file.started_at = file.started_at.map(|at| at.saturating_add_unsigned(lost_ns));
                (file.filename, file.origin, file.kept_from, file.media) = (filename, origin, kept_from, media);
            });
            let seconds = lost_ns as f64 / 1e9;
            format!(
                "{words}; the {seconds:.1} s of {name} before that are lost, the recording goes on in {}",
                self.name
            )
        };
        self.keeper.update(self.file, |file| file.upload = None);
        // If the session's inbox is full the end says it.
        let _ = self.session.try_send(Event::Noted(note.clone()));
        work.notes.push(note);
        Ok(())
    }

    /// The store did not answer when it was asked to make the object, then knows no such upload, and does not let us look:
    /// the object was made. Keys that may only write are what most installations have.
    async fn completed_unseen(&self, work: &mut Work) -> Option<crate::upload::Kept> {
        if !work.unanswered {
            return None;
        }
        let end = work.machine.prefix().1;
        let location = self.target.store.location(&self.name);
        match timeout(LOOK_TIMEOUT, self.target.store.look(&self.name)).await {
            Ok(Ok(Some(object))) if object.bytes == end => Some(self.kept(work, location, end)),
            Ok(Err(error)) if error.kind == Kind::Denied => {
                let words =
                    format!("the store made {} without an answer, and these keys may not look at it", self.name);
                work.notes.push(words);
                Some(self.kept(work, location, end))
            }
            _ => None,
        }
    }

    /// Where in the object the last whole unit before `sealed_to` of the file ends.
    pub(super) fn walked(&self, sealed_to: u64) -> u64 {
        self.origin.in_object(self.points.walked_to().min(sealed_to))
    }
}

/// `d/a.mp4`, 2 → `d/a-2.mp4`.
fn numbered(name: &str, number: u32) -> String {
    let folder = name.rfind('/').map_or(0, |at| at + 1);
    let dot = name[folder..].rfind('.').filter(|at| *at > 0).map_or(name.len(), |at| folder + at);
    format!("{}-{number}{}", &name[..dot], &name[dot..])
}

#[cfg(test)]
mod tests {
    use super::numbered;

    #[test]
    fn a_number_goes_before_the_extension() {
        for (name, second) in
            [("d.e/a.mp4", "d.e/a-2.mp4"), ("a", "a-2"), ("d.e/a", "d.e/a-2"), (".a", ".a-2"), ("a.b.ogg", "a.b-2.ogg")]
        {
            assert_eq!(numbered(name, 2), second);
        }
    }
}
