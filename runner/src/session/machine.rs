//! Phases of a recording as one table: an event and the time come in, effects go out. Pure: it awaits nothing and asks no
//! clock.

mod leaving;
mod ends;
mod open_outputs;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use spillway_ipc::MediaEvent;
use spillway_protocol::Code;
use spillway_protocol::ledger::{EgressEndReason, Fact, Outcome};

pub use self::open_outputs::OpenOutputs;
use crate::events::{SessionEvent, StopSource};

/// A longer gap between two of our own ticks means that we were away (stopped, starved); events of the
/// media process from that time may not have been read yet.
const OWN_SUSPENSION: Duration = Duration::from_secs(2);

/// A media process that was started again before this time is forgotten: a long recording may meet several faults, a crash
/// loop is over within minutes.
const RESTART_WINDOW: Duration = Duration::from_secs(3600);

const OTHER_ROOM: &str = "the room had ended before the recorder joined it";

/// Limits and timeouts of a recording.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRules {
    /// Since the runner took the egress, or since the first media of a recording that goes on. Reaching it is LIMIT_REACHED.
    pub max_duration: Option<Duration>,
    /// Of all files of an output. Reaching it is LIMIT_REACHED.
    pub max_file_bytes: Option<u64>,
    /// Of all segments of an output. Reaching it is LIMIT_REACHED.
    pub max_segment_bytes: Option<u64>,
    /// How long an egress may wait for its first media.
    pub start_timeout: Option<Duration>,
    /// How long the media process may send no event before it is killed.
    pub hang_after: Duration,
    /// How long the media process may make no progress while it finishes its files.
    pub drain_timeout: Duration,
    /// How often within an hour another media process takes the place of one that died; 0: its death is the end.
    pub max_restarts: u32,
    /// A task that has to leave hands the recording over to another one.
    pub hand_over: bool,
}

/// What the driver has to do.
#[derive(Clone, Debug, PartialEq)]
pub enum SessionEffect {
    /// Send the media process a stop.
    StopMedia,
    /// This output ends, the others go on.
    CloseOutput(u32),
    /// The media process is gone, or as good as that, for this reason: another one goes on.
    RestartMedia(String),
    /// Put this into the EgressInfo.
    Report(Fact),
    /// End with this outcome. This or `Leave` comes once, and nothing after it. What was recorded is kept.
    Finish(Outcome),
    /// End without a report of it, for this reason: another task goes on. Comes instead of the other two.
    HandOver(String),
    /// The egress belongs to another writer: end without a report.
    Leave,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum SessionPhase {
    /// Nothing recorded yet.
    Joining,
    Recording,
    /// Stop was ordered.
    Draining {
        why: EgressEndReason,
        give_up_at: Instant,
        media_ns: u64,
    },
    Over,
}

/// State of one recording.
#[derive(Clone, Debug)]
pub struct Session {
    rules: SessionRules,
    phase: SessionPhase,
    outputs: OpenOutputs,
    /// By file: its output, and its bytes.
    file_bytes: BTreeMap<u32, (u32, u64)>,
    /// Bytes of the whole segments of each HLS output.
    segment_bytes: BTreeMap<u32, u64>,
    /// When media processes were started in the place of another.
    restarts: Vec<Instant>,
    /// Such a process has recorded nothing yet, nor has this task of a recording that goes on.
    awaits_media: bool,
    /// The recording goes on in another task, once this one has closed its files.
    is_leaving: bool,
    /// It ends well, and early: the reason.
    aborted: Option<String>,
    /// Before `since`, by other tasks.
    recorded_before: Duration,
    since: Instant,
    last_event_at: Instant,
    ticked_at: Instant,
    /// Why a recording that ends well has failed all the same.
    failed: Option<(Code, String)>,
}

impl Session {
    /// A recording that begins now, with all its outputs.
    pub fn new(rules: SessionRules, outputs: OpenOutputs, now: Instant) -> Self {
        Self {
            rules,
            phase: SessionPhase::Joining,
            outputs,
            file_bytes: BTreeMap::new(),
            segment_bytes: BTreeMap::new(),
            restarts: vec![],
            awaits_media: false,
            is_leaving: false,
            aborted: None,
            recorded_before: Duration::ZERO,
            since: now,
            last_event_at: now,
            ticked_at: now,
            failed: None,
        }
    }

    /// Timeouts count from now on; what is known of the outputs stays.
    pub fn begin(&mut self, now: Instant) {
        (self.since, self.last_event_at, self.ticked_at) = (now, now, now);
    }

    /// Outputs that take nothing more; `outputs`: how many the plan has. Streams come and go, so theirs is never one.
    pub fn ended_outputs(&self, outputs: u32) -> BTreeSet<u32> {
        let ended = |output: &u32| !self.outputs.open.contains(output) && self.outputs.streams != Some(*output);
        (0..outputs).filter(ended).collect()
    }

    /// No other media process could be started.
    pub fn not_restarted(&mut self, message: String) -> Vec<SessionEffect> {
        if self.is_over() { vec![] } else { self.fail(Code::Internal, message) }
    }

    /// `Finish` or `Leave` was answered.
    pub fn is_over(&self) -> bool {
        self.phase == SessionPhase::Over
    }

    /// One event at the time `now`; effects are to be carried out in their order.
    pub fn on(&mut self, event: SessionEvent, now: Instant) -> Vec<SessionEffect> {
        if self.is_over() {
            return vec![];
        }
        match event {
            SessionEvent::Media(media_event) => {
                self.last_event_at = now;
                self.on_media_event(media_event, now)
            }
            SessionEvent::StopAsked(StopSource::Api) => self.stop(EgressEndReason::StopAsked, now),
            SessionEvent::StopAsked(StopSource::Signal) => self.stop(EgressEndReason::Killed, now),
            SessionEvent::StopAsked(StopSource::Host) => self.told_to_leave(now),
            SessionEvent::MediaExited(message) => self.media_lost(message, now),
            SessionEvent::CannotWrite(message) => self.fail(Code::InvalidArgument, message),
            SessionEvent::Noted(message) => vec![SessionEffect::Report(Fact::Noted(message))],
            SessionEvent::OutputEnded { output, failure } => self.output_ended(output, failure, now),
            SessionEvent::OutputOpened { output } => {
                self.outputs.open.insert(output);
                vec![]
            }
            SessionEvent::OutputFull { output, message } if self.phase == SessionPhase::Recording => {
                self.output_ended(output, Some((Code::ResourceExhausted, message)), now)
            }
            // What is written by now is all there will be, and may still be stored.
            SessionEvent::OutputFull { .. } => vec![],
            SessionEvent::WrongRoom if self.phase == SessionPhase::Joining || self.awaits_media => {
                let mut effects = vec![SessionEffect::Report(Fact::Noted(OTHER_ROOM.to_owned()))];
                effects.extend(self.stop(EgressEndReason::SourceClosed, now));
                effects
            }
            SessionEvent::WrongRoom => vec![],
            SessionEvent::OwnershipLost => {
                self.phase = SessionPhase::Over;
                vec![SessionEffect::Leave]
            }
            SessionEvent::Tick => self.tick(now),
        }
    }

    fn on_media_event(&mut self, media_event: MediaEvent, now: Instant) -> Vec<SessionEffect> {
        match media_event {
            MediaEvent::Started { at, .. } if self.phase == SessionPhase::Joining => {
                self.phase = SessionPhase::Recording;
                vec![SessionEffect::Report(Fact::Active { started_at: at })]
            }
            MediaEvent::Started { .. } => {
                self.awaits_media = false;
                vec![]
            }
            MediaEvent::Opening { file, output, .. } => {
                self.file_bytes.insert(file, (output.unwrap_or(file), 0));
                vec![]
            }
            MediaEvent::Waiting { what } if self.phase == SessionPhase::Joining => {
                vec![SessionEffect::Report(Fact::Waiting(what))]
            }
            MediaEvent::Noted { message } => vec![SessionEffect::Report(Fact::Noted(message))],
            MediaEvent::Alive { media_ns, .. } => {
                self.progress(media_ns, now);
                vec![]
            }
            MediaEvent::Wrote { file, end, media_ns, .. } => {
                self.progress(media_ns, now);
                let max = self.rules.max_file_bytes;
                match max {
                    Some(max) if self.wrote(file, end) >= max => self.stop(EgressEndReason::Limit, now),
                    _ => vec![],
                }
            }
            MediaEvent::Segment { output, bytes, .. } => {
                let all = self.segment_bytes.entry(output).or_default();
                *all = all.saturating_add(bytes);
                match self.rules.max_segment_bytes {
                    Some(max) if *all >= max => self.stop(EgressEndReason::Limit, now),
                    _ => vec![],
                }
            }
            MediaEvent::OutputFailed { output, full, code, message, .. } => {
                let code = if full { Code::ResourceExhausted } else { Code::parse(&code) };
                self.output_ended(output, Some((code, message)), now)
            }
            MediaEvent::Ended { why } => self.ended(why),
            MediaEvent::Waiting { .. }
            | MediaEvent::Joined { .. }
            | MediaEvent::Path(_)
            | MediaEvent::Token { .. }
            | MediaEvent::SegmentOpen { .. }
            | MediaEvent::SegmentWrote { .. }
            | MediaEvent::SegmentsEnded { .. }
            | MediaEvent::Image { .. }
            | MediaEvent::ImagesEnded { .. }
            | MediaEvent::Stream { .. }
            | MediaEvent::Closed { .. } => vec![],
        }
    }

    /// File `file` has so many bytes now; answers those of all files of its output.
    fn wrote(&mut self, file: u32, bytes: u64) -> u64 {
        let known = self.file_bytes.entry(file).or_insert((file, 0));
        known.1 = bytes;
        let output = known.0;
        self.file_bytes.values().filter(|(of, _)| *of == output).map(|(_, bytes)| *bytes).sum()
    }

    /// The media process is gone, or does not answer: another one goes on, unless it was finishing its files, or too many
    /// were started already.
    fn media_lost(&mut self, message: String, now: Instant) -> Vec<SessionEffect> {
        self.restarts.retain(|at| now.saturating_duration_since(*at) < RESTART_WINDOW);
        let goes_on = matches!(self.phase, SessionPhase::Joining | SessionPhase::Recording);
        if !goes_on || self.restarts.len() as u64 >= u64::from(self.rules.max_restarts) {
            return self.fail(Code::Internal, message);
        }
        self.restarts.push(now);
        self.awaits_media = self.phase == SessionPhase::Recording;
        self.last_event_at = now;
        vec![SessionEffect::RestartMedia(message)]
    }

    /// A backlog that is being encoded may take long; standing still may not.
    fn progress(&mut self, now_ns: u64, now: Instant) {
        if let SessionPhase::Draining { give_up_at, media_ns, .. } = &mut self.phase
            && now_ns > *media_ns
        {
            (*media_ns, *give_up_at) = (now_ns, now + self.rules.drain_timeout);
        }
    }

    /// An output takes nothing more. The others go on; with the last one the recording ends.
    fn output_ended(&mut self, output: u32, failure: Option<(Code, String)>, now: Instant) -> Vec<SessionEffect> {
        if !self.outputs.open.remove(&output) {
            return vec![];
        }
        let is_last = self.outputs.open.is_empty();
        let Some((code, message)) = failure else {
            return if is_last { self.stop(EgressEndReason::StreamsStopped, now) } else { vec![] };
        };
        if !is_last && self.outputs.streams == Some(output) {
            return vec![];
        }
        let goes_on = matches!(self.phase, SessionPhase::Joining | SessionPhase::Recording);
        if is_last && self.phase == SessionPhase::Joining {
            self.failed = None;
            return self.fail(code, message);
        }
        if is_last {
            self.failed = Some((code, message));
            // While it drains, that goes on: nothing is begun anew.
            return if goes_on { self.stop(EgressEndReason::Failure, now) } else { vec![] };
        }
        let note = if goes_on { format!("{message}; the other outputs go on") } else { message.clone() };
        let file_failed = |index: &usize| Fact::FileFailed { index: *index, message: message.clone() };
        let failed = self.outputs.files.get(&output).map(file_failed);
        self.failed.get_or_insert((code, message));
        let close = goes_on.then_some(SessionEffect::CloseOutput(output));
        // The note is what sends an update: it comes last.
        let facts = failed.into_iter().chain([Fact::Noted(note)]).map(SessionEffect::Report);
        close.into_iter().chain(facts).collect()
    }

    fn tick(&mut self, now: Instant) -> Vec<SessionEffect> {
        let away = now.saturating_duration_since(self.ticked_at);
        self.ticked_at = now;
        if away > OWN_SUSPENSION {
            self.last_event_at = (self.last_event_at + away).min(now);
            if let SessionPhase::Draining { give_up_at, .. } = &mut self.phase {
                *give_up_at += away;
            }
        }
        let silent = now.saturating_duration_since(self.last_event_at);
        let age = now.saturating_duration_since(self.since) + self.recorded_before;
        if silent >= self.rules.hang_after {
            let message = format!("media process said nothing for {} s and was ended", silent.as_secs());
            return self.media_lost(message, now);
        }
        match self.phase {
            SessionPhase::Joining | SessionPhase::Recording
                if self.rules.max_duration.is_some_and(|max| age >= max) =>
            {
                self.stop(EgressEndReason::Limit, now)
            }
            SessionPhase::Joining if self.rules.start_timeout.is_some_and(|max| age >= max) => self.finish(
                vec![SessionEffect::StopMedia, ending(EgressEndReason::Limit)],
                Outcome::Aborted { message: format!("Start signal not received within {} s", age.as_secs()) },
            ),
            SessionPhase::Draining { give_up_at, .. } if now >= give_up_at => self.fail(
                Code::Internal,
                format!(
                    "media process did not finish its files: no progress for {} s",
                    self.rules.drain_timeout.as_secs()
                ),
            ),
            _ => vec![],
        }
    }
}

fn ending(why: EgressEndReason) -> SessionEffect {
    SessionEffect::Report(Fact::Ending(why))
}

#[cfg(test)]
mod tests;
