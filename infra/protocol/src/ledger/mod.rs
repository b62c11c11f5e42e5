//! The state of one egress as users see it. Facts go in, EgressInfo comes out; no other place makes one.
//!
//! Whatever the order of the facts: a status only moves forward, there is exactly one terminal status with its end time,
//! and after it nothing changes and nothing is sent. Pure: times are arguments. The ledger is stored with the record of
//! the egress, so that a dispatcher continues what a runner began.

mod accept;
mod fact;
mod info_bytes;
mod results;
mod streams;
mod terminal;
mod totals;

use livekit_protocol as livekit;
use livekit_protocol::EgressStatus;
use serde::{Deserialize, Serialize};

pub use self::accept::stream_urls;
pub use self::fact::{EgressEndReason, Fact, Outcome};
use self::results::{bounded, entry, signed};
use self::streams::{LedgerStream, StreamResults};
use self::terminal::TerminalState;
pub use self::totals::RecordingTotals;
use crate::code::Code;

/// Bound of the text in `details`, which people read.
const MAX_NOTES: usize = 12;

/// One egress from acceptance to its terminal status. All times are Unix nanoseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EgressLedger {
    /// As last sent, or as it will be sent next.
    #[serde(with = "info_bytes")]
    info: livekit::EgressInfo,
    /// Media was recorded, whatever came after.
    active: bool,
    /// Text of the last [`Fact::Waiting`].
    waiting: String,
    /// The first end reason.
    why: Option<EgressEndReason>,
    /// When the limit was reached; `ended_at` of a LIMIT_REACHED, whose upload takes longer. 0: not reached.
    limit_at: i64,
    notes: Vec<String>,
    /// Notes beyond [`MAX_NOTES`].
    notes_left_out: u32,
    /// As long as `info.file_results`.
    files: Vec<LedgerFile>,
    /// As long as `info.stream_results`, unless an older version wrote the ledger last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    streams: Vec<LedgerStream>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct LedgerFile {
    /// Location while it is written, from [`Fact::FileOpened`].
    opened: Option<String>,
    stored: bool,
    /// Text of the first [`Fact::FileFailed`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    failed: Option<String>,
}

impl EgressLedger {
    /// The current EgressInfo, with changes that were not worth an update of their own.
    pub fn info(&self) -> &livekit::EgressInfo {
        &self.info
    }

    /// Shorthand for `info().status()`.
    pub fn status(&self) -> EgressStatus {
        self.info.status()
    }

    /// A terminal status: COMPLETE, FAILED, ABORTED or LIMIT_REACHED.
    pub fn is_over(&self) -> bool {
        !matches!(self.status(), EgressStatus::EgressStarting | EgressStatus::EgressActive | EgressStatus::EgressEnding)
    }

    /// Index and location of each file that was opened and is not stored: input of a salvage run.
    pub fn unfinished(&self) -> impl Iterator<Item = (usize, &str)> {
        let open = self.files.iter().enumerate().filter(|(_, file)| !file.stored);
        open.filter_map(|(index, file)| Some((index, file.opened.as_deref()?)))
    }

    /// Applies a fact that happened at `at` (Unix nanoseconds). A returned EgressInfo is sent unchanged and in order;
    /// `None` where the fact changes nothing worth an update, and always after the terminal status.
    pub fn on(&mut self, fact: Fact, at: i64) -> Option<livekit::EgressInfo> {
        if self.is_over() {
            return None;
        }
        let worth_sending = self.apply(fact, at);
        self.info.details = self.details();
        results::mirror_single(&mut self.info);
        // Two updates never carry the same time, so a receiver can put them in order.
        self.info.updated_at = at.max(self.info.updated_at.saturating_add(1));
        if worth_sending {
            self.streams().sent();
        }
        worth_sending.then(|| self.info.clone())
    }

    /// Whether the change is worth an update of its own.
    fn apply(&mut self, fact: Fact, at: i64) -> bool {
        // What comes during ENDING goes out with the terminal update. Progress has no update of its own: livekit-server
        // calls webhooks for each one (`egress_updated`), and livekit/egress sends none for it.
        let open = self.status() != EgressStatus::EgressEnding;
        match fact {
            Fact::Waiting(message) => {
                let changed = !self.active && self.waiting != message;
                self.waiting = message;
                changed
            }
            Fact::Joined { room_id, room_name } => {
                fill(&mut self.info.room_id, room_id);
                fill(&mut self.info.room_name, room_name);
                false
            }
            Fact::FileOpened { index, filename, location } => {
                // A further one, after a change of codec or a death.
                let follows = self.active && open && index > 0;
                let Some((file, state)) = self.file(index) else { return false };
                state.opened = Some(location);
                let is_new = file.filename != filename;
                file.filename = filename;
                if follows && file.started_at == 0 {
                    // About: the media process says it exactly when the file is closed.
                    file.started_at = at;
                }
                follows && is_new
            }
            Fact::FileProgress { index, bytes } => {
                if let Some((file, state)) = self.file(index)
                    && !state.stored
                {
                    file.size = signed(bytes);
                }
                false
            }
            Fact::Active { started_at } => self.begin(started_at),
            Fact::Ending(why) => self.end(why, at),
            Fact::FileStored { index, size, started_at, ended_at, location } => {
                if let Some((file, state)) = self.file(index) {
                    file.size = signed(size);
                    file.started_at = started_at;
                    file.ended_at = ended_at.max(started_at);
                    file.duration = file.ended_at.saturating_sub(started_at);
                    file.location = location;
                    state.stored = true;
                }
                false
            }
            Fact::FileFailed { index, message } => {
                if let Some((_, state)) = self.file(index) {
                    state.failed.get_or_insert(message);
                }
                false
            }
            Fact::SegmentsOpened { index, playlist, live_playlist } => {
                if let Some(segments) = entry(&mut self.info.segment_results, index) {
                    segments.playlist_name = playlist;
                    segments.live_playlist_name = live_playlist.unwrap_or_default();
                }
                false
            }
            Fact::SegmentsProgress { index, count, bytes, duration_ns } => {
                if let Some(segments) = entry(&mut self.info.segment_results, index) {
                    segments.segment_count = signed(count);
                    segments.size = signed(bytes);
                    segments.duration = signed(duration_ns);
                }
                false
            }
            Fact::SegmentsStored { index, playlist_location, live_location, started_at, ended_at } => {
                if let Some(segments) = entry(&mut self.info.segment_results, index) {
                    segments.playlist_location = playlist_location;
                    segments.live_playlist_location = live_location.unwrap_or_default();
                    segments.started_at = started_at;
                    segments.ended_at = ended_at.max(started_at);
                    segments.duration = segments.ended_at.saturating_sub(started_at);
                }
                false
            }
            Fact::ImagesOpened { index, prefix } => {
                if let Some(images) = entry(&mut self.info.image_results, index) {
                    images.filename_prefix = prefix;
                }
                false
            }
            Fact::ImagesProgress { index, count } => {
                if let Some(images) = entry(&mut self.info.image_results, index) {
                    images.image_count = signed(count);
                }
                false
            }
            Fact::ImagesStored { index, started_at, ended_at } => {
                if let Some(images) = entry(&mut self.info.image_results, index) {
                    images.started_at = started_at;
                    images.ended_at = ended_at.max(started_at);
                }
                false
            }
            Fact::StreamAdded { id, url } => self.streams().add(id, url, at) && open,
            Fact::StreamConnected { id, at } => self.streams().connected(id, at) && open,
            Fact::StreamRetried { id, at: lost_at, message } => {
                self.streams().retried(id, lost_at, &message, at) && open
            }
            Fact::StreamEnded { id, at, failure } => {
                let failure = failure.filter(|_| matches!(self.why, None | Some(EgressEndReason::Failure)));
                self.streams().ended(id, at, failure.as_deref()) && open
            }
            Fact::Noted(message) => self.note(&message) && open,
            Fact::ManifestStored { location } => {
                // The first one counts, as with livekit/egress.
                fill(&mut self.info.manifest_location, location);
                false
            }
            Fact::BackupUsed => !std::mem::replace(&mut self.info.backup_storage_used, true),
            Fact::Over(outcome) => {
                self.finish(outcome, at);
                true
            }
        }
    }

    fn begin(&mut self, started_at: i64) -> bool {
        if self.active {
            return false;
        }
        self.active = true;
        results::begin(&mut self.info, started_at);
        // The end may have been asked for while the first media was on its way.
        let status = if self.why.is_some() { EgressStatus::EgressEnding } else { EgressStatus::EgressActive };
        self.info.set_status(status);
        true
    }

    fn end(&mut self, why: EgressEndReason, at: i64) -> bool {
        if self.why.is_some() {
            return false;
        }
        self.why = Some(why);
        if why == EgressEndReason::Limit {
            self.limit_at = at;
        }
        if !self.active {
            return false;
        }
        self.info.set_status(EgressStatus::EgressEnding);
        true
    }

    fn finish(&mut self, outcome: Outcome, at: i64) {
        let failed = self.files.iter().find_map(|file| file.failed.clone());
        let outcome = match (outcome, failed) {
            (Outcome::Complete | Outcome::LimitReached, Some(message)) if self.active => {
                Outcome::Failed { code: Code::Internal, message }
            }
            (outcome, _) => outcome,
        };
        let TerminalState { status, error, code, why } = TerminalState::of(outcome, self.active, self.why);
        for (file, state) in self.info.file_results.iter_mut().zip(&self.files) {
            if let (Some(location), false) = (&state.opened, state.stored) {
                file.location.clone_from(location);
            }
            if !state.stored {
                // Its progress. The size at the end is that of a finished file.
                file.size = 0;
            }
        }
        let unfinished: Vec<String> =
            self.unfinished().filter(|(_, at)| !at.is_empty()).map(|(_, at)| at.to_owned()).collect();
        for location in unfinished {
            self.note(&format!("not finished properly: {location}"));
        }
        self.info.set_status(status);
        self.info.error_code = code;
        self.info.error = error;
        self.why.get_or_insert(why);
        let ended_at = match status {
            EgressStatus::EgressLimitReached if self.limit_at != 0 => self.limit_at,
            _ => at,
        };
        // livekit-server takes an end time of 0 for "not over" and keeps the record for ever.
        let ended_at = ended_at.max(self.info.started_at).max(1);
        self.info.ended_at = ended_at;
        let failure = (status == EgressStatus::EgressFailed).then(|| self.info.error.clone());
        self.streams().end_all(ended_at, failure.as_deref());
    }

    fn file(&mut self, index: usize) -> Option<(&mut livekit::FileInfo, &mut LedgerFile)> {
        Some((entry(&mut self.info.file_results, index)?, entry(&mut self.files, index)?))
    }

    fn streams(&mut self) -> StreamResults<'_> {
        StreamResults::new(&mut self.info.stream_results, &mut self.streams, self.info.started_at)
    }

    fn note(&mut self, message: &str) -> bool {
        let message = bounded(message);
        if message.is_empty() || self.notes.contains(&message) {
            return false;
        }
        if self.notes.len() >= MAX_NOTES {
            self.notes_left_out = self.notes_left_out.saturating_add(1);
            return false;
        }
        self.notes.push(message);
        true
    }

    /// Text of `EgressInfo.details`: the end reason first, as livekit/egress writes it, then the notes.
    fn details(&self) -> String {
        let why = self.why.map(|why| format!("End reason: {}", why.message()));
        let waiting = (!self.active && !self.waiting.is_empty()).then(|| self.waiting.clone());
        let more = (self.notes_left_out > 0).then(|| format!("and {} more", self.notes_left_out));
        let parts: Vec<String> = why.into_iter().chain(waiting).chain(self.notes.iter().cloned()).chain(more).collect();
        parts.join("; ")
    }
}

fn fill(field: &mut String, value: String) {
    if field.is_empty() {
        *field = value;
    }
}

#[cfg(test)]
mod result_tests;
#[cfg(test)]
mod tests;
