//! The life of one egress as users see it. Facts go in, EgressInfo comes out, and nowhere else is one made.
//!
//! Whatever the order in which facts arrive: statuses only move forward, there is exactly one terminal state, it has its
//! time, and after it nothing changes and nothing is sent. The clock is an argument. The ledger travels with the record
//! of the egress, so that a dispatcher can continue what a runner began.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use livekit_protocol as livekit;
use livekit_protocol::EgressStatus;
use livekit_protocol::egress_info::Request as Shown;
use prost::Message;
use serde::{Deserialize, Serialize};

use crate::code::Code;
use crate::redact;
use crate::rpc::StartEgressRequest;

/// HTTP "content too large", livekit/egress' number for a limit; no psrpc code has it.
const LIMIT_CODE: i32 = 413;
/// `details` is for reading.
const MAX_NOTES: usize = 12;
const MAX_NOTE_CHARS: usize = 400;
/// A bound on what a confused sender can make us keep.
const MAX_FILES: usize = 1000;

/// What happened. Times are Unix nanoseconds.
#[derive(Clone, Debug, PartialEq)]
pub enum Fact {
    /// Still starting; what for, e.g. "waiting for track TR_x".
    Waiting(String),
    /// The recorder is in the room; its name and sid as the server says them.
    Joined {
        room_id: String,
        room_name: String,
    },
    /// A file is being written. `location` is where its bytes are while they are written, if anybody can reach them.
    FileOpened {
        index: usize,
        filename: String,
        location: String,
    },
    /// The first media was recorded.
    Active {
        started_at: i64,
    },
    /// The end has begun; the first reason is the one that counts.
    Ending(EgressEndReason),
    /// The file is where it was asked to be.
    FileStored {
        index: usize,
        size: u64,
        started_at: i64,
        ended_at: i64,
        location: String,
    },
    /// Worth telling the user: a reconnect, a gap, a recording of poor quality.
    Noted(String),
    ManifestStored {
        location: String,
    },
    /// The first choice of storage failed, the second took over.
    BackupUsed,
    Over(Outcome),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    Complete,
    Failed {
        code: Code,
        message: String,
    },
    /// Over before anything was recorded.
    Aborted {
        message: String,
    },
    LimitReached,
}

impl Outcome {
    /// Stopped after the recorder was ready, before there was anything to record.
    pub fn nothing_came() -> Self {
        Self::Aborted { message: "Start signal not received".to_owned() }
    }

    /// Stopped before there was a recorder.
    pub fn stopped_before_start() -> Self {
        Self::Aborted { message: "Stop called before pipeline could start".to_owned() }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EgressEndReason {
    StopAsked,
    /// The process that records was told to leave.
    Killed,
    SourceClosed,
    Limit,
    StreamsStopped,
    CpuExhausted,
    Failure,
}

impl EgressEndReason {
    /// livekit/egress' words, which clients match on.
    pub fn message(self) -> &'static str {
        match self {
            Self::StopAsked => "StopEgress API",
            Self::Killed => "Process killed",
            Self::SourceClosed => "Source closed",
            Self::Limit => "Session limit reached",
            Self::StreamsStopped => "All streams stopped",
            Self::CpuExhausted => "CPU exhausted",
            Self::Failure => "Failure",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EgressLedger {
    #[serde(with = "as_bytes")]
    info: livekit::EgressInfo,
    /// Something was recorded, whatever came after.
    active: bool,
    waiting: String,
    why: Option<EgressEndReason>,
    /// When the limit was reached: the end of a LIMIT_REACHED, whose upload takes longer.
    limit_at: i64,
    notes: Vec<String>,
    notes_left_out: u32,
    files: Vec<LedgerFile>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct LedgerFile {
    opened: Option<String>,
    stored: bool,
}

impl EgressLedger {
    /// The egress was accepted: STARTING, with the request as it may be shown and a place for each file asked for.
    pub fn accept(start: &StartEgressRequest, at: i64) -> Self {
        let request = start.request.as_ref().map(redact::redacted);
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

    pub fn info(&self) -> &livekit::EgressInfo {
        &self.info
    }

    pub fn status(&self) -> EgressStatus {
        self.info.status()
    }

    pub fn is_over(&self) -> bool {
        !matches!(self.status(), EgressStatus::EgressStarting | EgressStatus::EgressActive | EgressStatus::EgressEnding)
    }

    /// Something was recorded.
    pub fn was_active(&self) -> bool {
        self.active
    }

    pub fn end_reason(&self) -> Option<EgressEndReason> {
        self.why
    }

    /// Files that were begun and are not stored, with the place where their bytes are: what a salvage looks for.
    pub fn unfinished(&self) -> impl Iterator<Item = (usize, &str)> {
        let open = self.files.iter().enumerate().filter(|(_, file)| !file.stored);
        open.filter_map(|(index, file)| Some((index, file.opened.as_deref()?)))
    }

    /// Takes a fact in; what comes out is to be sent as it is, before anything that comes out later.
    pub fn on(&mut self, fact: Fact, at: i64) -> Option<livekit::EgressInfo> {
        if self.is_over() {
            return None;
        }
        let worth_sending = match fact {
            Fact::Waiting(message) => {
                let news = !self.active && self.waiting != message;
                self.waiting = message;
                news
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
            // What comes while the end is under way is said with the end.
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
                let message =
                    if limit { "Session limit reached before start signal" } else { "Start signal not received" };
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
            // A terminal state that is not COMPLETE always says why.
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

    /// The end reason first, in the form clients know; then what else there is to know.
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

fn limit_reached() -> (EgressStatus, String, i32, EgressEndReason) {
    (EgressStatus::EgressLimitReached, "Session limit reached".to_owned(), LIMIT_CODE, EgressEndReason::Limit)
}

fn aborted_code() -> i32 {
    Code::FailedPrecondition.http().into()
}

fn status_text(status: EgressStatus) -> &'static str {
    match status {
        EgressStatus::EgressAborted => "aborted",
        EgressStatus::EgressLimitReached => "Session limit reached",
        _ => "failed",
    }
}

fn fill(known: &mut String, news: String) {
    if known.is_empty() {
        *known = news;
    }
}

/// What a request asks for, as far as EgressInfo shows it.
#[derive(Default)]
struct RequestedOutputs {
    room_name: String,
    files: usize,
    /// Outputs of every other kind.
    others: usize,
    source_type: livekit::EgressSourceType,
}

/// How many files and how many other outputs a request of the first API asks for: the same fields in each message, of
/// different types. The deprecated single file counts only where no list of files is given.
macro_rules! outputs {
    ($message:ident, $request:ident) => {{
        let lists = [$request.stream_outputs.len(), $request.segment_outputs.len(), $request.image_outputs.len()];
        let listed: usize = lists.into_iter().sum();
        let files = $request.file_outputs.len();
        match $request.output {
            Some(livekit::$message::Output::File(_)) => (files.max(1), listed),
            Some(_) => (files, listed + 1),
            None => (files, listed),
        }
    }};
}

impl RequestedOutputs {
    #[expect(deprecated, reason = "old SDKs still fill the single output")]
    fn of(request: &Shown) -> Self {
        use livekit::EgressSourceType::{Sdk, Web};
        // The peer's rule, which its clients and tests know; that our composites need no web page shows in `details`
        // and metrics.
        let page = |audio_only: bool, layout: &str, url: &str| {
            if audio_only && layout.is_empty() && url.is_empty() { Sdk } else { Web }
        };
        match request {
            Shown::RoomComposite(request) => {
                let (files, others) = outputs!(room_composite_egress_request, request);
                Self {
                    room_name: request.room_name.clone(),
                    files,
                    others,
                    source_type: page(request.audio_only, &request.layout, &request.custom_base_url),
                }
            }
            Shown::Web(request) => {
                let (files, others) = outputs!(web_egress_request, request);
                Self { room_name: String::new(), files, others, source_type: Web }
            }
            Shown::Participant(request) => Self {
                room_name: request.room_name.clone(),
                files: request.file_outputs.len(),
                others: request.stream_outputs.len() + request.segment_outputs.len() + request.image_outputs.len(),
                source_type: Sdk,
            },
            Shown::TrackComposite(request) => {
                let (files, others) = outputs!(track_composite_egress_request, request);
                Self { room_name: request.room_name.clone(), files, others, source_type: Sdk }
            }
            Shown::Track(request) => {
                use livekit::track_egress_request::Output;
                let file = matches!(request.output, Some(Output::File(_)));
                Self {
                    room_name: request.room_name.clone(),
                    files: usize::from(file),
                    others: usize::from(!file),
                    source_type: Sdk,
                }
            }
            Shown::Egress(request) => {
                use livekit::start_egress_request::Source;
                let source_type = match &request.source {
                    Some(Source::Template(template)) => {
                        page(template.audio_only, &template.layout, &template.custom_base_url)
                    }
                    Some(Source::Web(_)) => Web,
                    Some(Source::Media(_)) | None => Sdk,
                };
                Self { room_name: request.room_name.clone(), source_type, ..Self::of_outputs(&request.outputs) }
            }
            Shown::Replay(request) => Self::of_outputs(&request.outputs),
        }
    }

    fn of_outputs(outputs: &[livekit::Output]) -> Self {
        let file = |output: &&livekit::Output| matches!(output.config, Some(livekit::output::Config::File(_)));
        let files = outputs.iter().filter(file).count();
        Self { files, others: outputs.len() - files, ..Self::default() }
    }
}

/// EgressInfo as what it is on the wire, in base64: its fields outlive any JSON form of them.
mod as_bytes {
    use serde::de::Error;
    use serde::{Deserializer, Serializer};

    use super::*;

    pub fn serialize<S: Serializer>(info: &livekit::EgressInfo, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&STANDARD.encode(info.encode_to_vec()))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<livekit::EgressInfo, D::Error> {
        let text = String::deserialize(from)?;
        let bytes = STANDARD.decode(text).map_err(D::Error::custom)?;
        livekit::EgressInfo::decode(bytes.as_slice()).map_err(D::Error::custom)
    }
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
