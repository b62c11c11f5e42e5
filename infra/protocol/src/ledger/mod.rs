//! The state of one egress as users see it. Facts go in, EgressInfo comes out; no other place makes one.
//!
//! Whatever the order of the facts: a status only moves forward, there is exactly one terminal status with its end time,
//! and after it nothing changes and nothing is sent. Pure: times are arguments. The ledger is stored with the record of
//! the egress, so that a dispatcher continues what a runner began.

mod fact;

use livekit_protocol as livekit;
use livekit_protocol::EgressStatus;
use serde::{Deserialize, Serialize};

use self::fact::NOTHING_CAME;
pub use self::fact::{EgressEndReason, Fact, Outcome};
use crate::code::Code;
use crate::requested::{self, RequestedOutputs};
use crate::rpc::StartEgressRequest;

/// HTTP "content too large", livekit/egress' number for a limit; no psrpc code has it.
const LIMIT_CODE: i32 = 413;
const LIMIT_REACHED: &str = "Session limit reached";
/// Bounds of the text in `details`, which people read.
const MAX_NOTES: usize = 12;
const MAX_NOTE_CHARS: usize = 400;
/// Bound on `file_results`; facts about further files are dropped.
const MAX_FILES: usize = 1000;

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
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct LedgerFile {
    /// Location while it is written, from [`Fact::FileOpened`].
    opened: Option<String>,
    stored: bool,
}

impl EgressLedger {
    /// A ledger in STARTING, with the request without its secrets and one entry in `file_results` for each file asked for.
    pub fn accept(start: &StartEgressRequest, at: i64) -> Self {
        let request = start.request.as_ref().map(requested::redacted);
        let asked = request.as_ref().map(RequestedOutputs::of).unwrap_or_default();
        let room_name = if asked.room_name.is_empty() { start.room_name.clone() } else { asked.room_name };
        let file = livekit::FileInfo::default();
        #[expect(deprecated, reason = "clients of the single-output days still read it")]
        let result = (asked.files == 1 && asked.others == 0).then(|| livekit::egress_info::Result::File(file.clone()));
        let info = livekit::EgressInfo {
            egress_id: start.egress_id.clone(),
            room_id: start.room_id.clone(),
            room_name,
            source_type: asked.source_type.into(),
            status: EgressStatus::EgressStarting.into(),
            started_at: at,
            updated_at: at,
            file_results: vec![file; asked.files.min(MAX_FILES)],
            retry_count: start.retry_count,
            request,
            result,
            ..livekit::EgressInfo::default()
        };
        Self {
            files: vec![LedgerFile::default(); info.file_results.len()],
            info,
            active: false,
            waiting: String::new(),
            why: None,
            limit_at: 0,
            notes: Vec::new(),
            notes_left_out: 0,
        }
    }

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
        let worth_sending = match fact {
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
                if let Some((file, state)) = self.file(index) {
                    file.filename = filename;
                    state.opened = Some(location);
                }
                false
            }
            Fact::Active { started_at } => self.begin(started_at),
            Fact::Ending(why) => self.end(why, at),
            Fact::FileStored { index, size, started_at, ended_at, location } => {
                if let Some((file, state)) = self.file(index) {
                    file.size = size.try_into().unwrap_or(i64::MAX);
                    file.started_at = started_at;
                    file.ended_at = ended_at.max(started_at);
                    file.duration = file.ended_at.saturating_sub(started_at);
                    file.location = location;
                    state.stored = true;
                }
                false
            }
            // A note during ENDING goes out with the terminal update.
            Fact::Noted(message) => self.note(message) && self.status() != EgressStatus::EgressEnding,
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
        };
        self.info.details = self.details();
        self.mirror_single_result();
        // Two updates never carry the same time, so a receiver can put them in order.
        self.info.updated_at = at.max(self.info.updated_at.saturating_add(1));
        worth_sending.then(|| self.info.clone())
    }

    fn begin(&mut self, started_at: i64) -> bool {
        if self.active {
            return false;
        }
        self.active = true;
        for file in &mut self.info.file_results {
            if file.started_at == 0 {
                file.started_at = started_at;
            }
        }
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
        let (status, error, code, why) = match outcome {
            Outcome::Complete | Outcome::LimitReached if !self.active => {
                let limit = outcome == Outcome::LimitReached || self.why == Some(EgressEndReason::Limit);
                let message = if limit { "Session limit reached before start signal" } else { NOTHING_CAME };
                let why = if limit { EgressEndReason::Limit } else { EgressEndReason::SourceClosed };
                (EgressStatus::EgressAborted, message.to_owned(), aborted_code(), why)
            }
            Outcome::Complete if self.why == Some(EgressEndReason::Limit) => limit_reached(),
            Outcome::Complete => (EgressStatus::EgressComplete, String::new(), 0, EgressEndReason::SourceClosed),
            Outcome::LimitReached => limit_reached(),
            Outcome::Aborted { message } => {
                (EgressStatus::EgressAborted, message, aborted_code(), EgressEndReason::SourceClosed)
            }
            Outcome::Failed { code, message } => {
                (EgressStatus::EgressFailed, message, i32::from(code.http()), EgressEndReason::Failure)
            }
        };
        for (file, state) in self.info.file_results.iter_mut().zip(&self.files) {
            if let (Some(location), false) = (&state.opened, state.stored) {
                file.location.clone_from(location);
            }
        }
        let unfinished: Vec<String> =
            self.unfinished().filter(|(_, at)| !at.is_empty()).map(|(_, at)| at.to_owned()).collect();
        for location in unfinished {
            self.note(format!("not finished properly: {location}"));
        }
        self.info.set_status(status);
        self.info.error_code = code;
        if status != EgressStatus::EgressComplete {
            // A terminal status other than COMPLETE always has an error text.
            self.info.error = if error.is_empty() { status_text(status).to_owned() } else { error };
        }
        self.why.get_or_insert(why);
        let ended_at = match status {
            EgressStatus::EgressLimitReached if self.limit_at != 0 => self.limit_at,
            _ => at,
        };
        // livekit-server takes an end time of 0 for "not over" and keeps the record for ever.
        self.info.ended_at = ended_at.max(self.info.started_at).max(1);
    }

    fn file(&mut self, index: usize) -> Option<(&mut livekit::FileInfo, &mut LedgerFile)> {
        if index >= MAX_FILES {
            return None;
        }
        if index >= self.files.len() {
            self.files.resize_with(index + 1, LedgerFile::default);
            self.info.file_results.resize_with(index + 1, livekit::FileInfo::default);
        }
        Some((self.info.file_results.get_mut(index)?, self.files.get_mut(index)?))
    }

    fn note(&mut self, message: String) -> bool {
        let message: String = message.chars().take(MAX_NOTE_CHARS).collect();
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

    #[expect(deprecated, reason = "clients of the single-output days still read it")]
    fn mirror_single_result(&mut self) {
        if let (Some(livekit::egress_info::Result::File(single)), Some(file)) =
            (&mut self.info.result, self.info.file_results.first())
        {
            single.clone_from(file);
        }
    }
}

/// Serde form of EgressInfo in a stored ledger: its protobuf bytes in base64. Unlike a JSON form it keeps fields that this
/// version does not know.
mod info_bytes {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use livekit_protocol as livekit;
    use prost::Message;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(info: &livekit::EgressInfo, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&STANDARD.encode(info.encode_to_vec()))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<livekit::EgressInfo, D::Error> {
        let text = String::deserialize(from)?;
        let bytes = STANDARD.decode(text).map_err(D::Error::custom)?;
        livekit::EgressInfo::decode(bytes.as_slice()).map_err(D::Error::custom)
    }
}

fn limit_reached() -> (EgressStatus, String, i32, EgressEndReason) {
    (EgressStatus::EgressLimitReached, LIMIT_REACHED.to_owned(), LIMIT_CODE, EgressEndReason::Limit)
}

fn aborted_code() -> i32 {
    Code::FailedPrecondition.http().into()
}

fn status_text(status: EgressStatus) -> &'static str {
    match status {
        EgressStatus::EgressAborted => "aborted",
        EgressStatus::EgressLimitReached => LIMIT_REACHED,
        _ => "failed",
    }
}

fn fill(field: &mut String, value: String) {
    if field.is_empty() {
        *field = value;
    }
}

#[cfg(test)]
mod tests;
