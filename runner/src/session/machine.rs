//! Phases of a recording as one table: an event and the time come in, effects go out. Pure: it awaits nothing and asks no
//! clock.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use spillway_ipc::{MediaEndReason, MediaEvent};
use spillway_plan::{EgressPlan, StreamsOutput};
use spillway_protocol::Code;
use spillway_protocol::ledger::{EgressEndReason, Fact, Outcome};

use crate::events::{SessionEvent, StopSource};
use crate::results::FileNumber;

/// A longer gap between two of our own ticks means that we were away (stopped, starved); events of the
/// media process from that time may not have been read yet.
const OWN_SUSPENSION: Duration = Duration::from_secs(2);

const OTHER_ROOM: &str = "the room had ended before the recorder joined it";
const EVICTED: &str = "recording ended early: another participant joined the room with the identity of this egress";

/// Limits and timeouts of a recording.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRules {
    /// Since the runner took the egress. Reaching it is LIMIT_REACHED.
    pub max_duration: Option<Duration>,
    /// Of each file. Reaching it is LIMIT_REACHED.
    pub max_file_bytes: Option<u64>,
    /// Of all segments of an output. Reaching it is LIMIT_REACHED.
    pub max_segment_bytes: Option<u64>,
    /// How long an egress may wait for its first media.
    pub start_timeout: Option<Duration>,
    /// How long the media process may send no event before it is killed.
    pub hang_after: Duration,
    /// How long the media process may make no progress while it finishes its files.
    pub drain_timeout: Duration,
}

/// What the driver has to do.
#[derive(Clone, Debug, PartialEq)]
pub enum SessionEffect {
    /// Send the media process a stop.
    StopMedia,
    /// This output ends, the others go on.
    CloseOutput(u32),
    /// Put this into the EgressInfo.
    Report(Fact),
    /// End with this outcome. This or `Leave` comes once, and nothing after it. What was recorded is kept.
    Finish(Outcome),
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

/// Outputs that take what is recorded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenOutputs {
    open: BTreeSet<u32>,
    /// Streams that fail leave the egress well as long as another output is open: each has its own result.
    streams: Option<u32>,
    /// Of those that are files: place in the EgressInfo's list of files.
    files: BTreeMap<u32, usize>,
}

impl OpenOutputs {
    /// All outputs of a plan, but for streams of which none is there yet.
    pub fn of(plan: &EgressPlan) -> Self {
        let mut open: BTreeSet<u32> = (0..u32::try_from(plan.outputs.len()).unwrap_or(u32::MAX)).collect();
        let files = open.iter().filter(|output| plan.file(**output).is_some());
        let files = files.map(|output| (*output, FileNumber::new(plan, *output, *output).index)).collect();
        let streams = plan.streams();
        if let Some((output, StreamsOutput { count: 0, .. })) = streams {
            open.remove(&output);
        }
        Self { open, streams: streams.map(|(output, _)| output), files }
    }
}

/// State of one recording.
#[derive(Clone, Debug)]
pub struct Session {
    rules: SessionRules,
    phase: SessionPhase,
    outputs: OpenOutputs,
    /// Bytes of the whole segments of each HLS output.
    segment_bytes: BTreeMap<u32, u64>,
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
            segment_bytes: BTreeMap::new(),
            since: now,
            last_event_at: now,
            ticked_at: now,
            failed: None,
        }
    }

    /// Timeouts count from now on; what is known of the outputs stays.
    pub fn restart(&mut self, now: Instant) {
        (self.since, self.last_event_at, self.ticked_at) = (now, now, now);
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
            SessionEvent::MediaExited(message) => self.fail(Code::Internal, message),
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
            SessionEvent::WrongRoom if self.phase == SessionPhase::Joining => {
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
            MediaEvent::Waiting { what } if self.phase == SessionPhase::Joining => {
                vec![SessionEffect::Report(Fact::Waiting(what))]
            }
            MediaEvent::Noted { message } => vec![SessionEffect::Report(Fact::Noted(message))],
            MediaEvent::Alive { media_ns, .. } => {
                self.progress(media_ns, now);
                vec![]
            }
            MediaEvent::Wrote { end, media_ns, .. } => {
                self.progress(media_ns, now);
                match self.rules.max_file_bytes {
                    Some(max) if end >= max => self.stop(EgressEndReason::Limit, now),
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
            MediaEvent::Started { .. }
            | MediaEvent::Waiting { .. }
            | MediaEvent::Joined { .. }
            | MediaEvent::Path(_)
            | MediaEvent::Opening { .. }
            | MediaEvent::SegmentOpen { .. }
            | MediaEvent::SegmentWrote { .. }
            | MediaEvent::SegmentsEnded { .. }
            | MediaEvent::Image { .. }
            | MediaEvent::ImagesEnded { .. }
            | MediaEvent::Stream { .. }
            | MediaEvent::Closed { .. } => vec![],
        }
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

    fn stop(&mut self, why: EgressEndReason, now: Instant) -> Vec<SessionEffect> {
        match self.phase {
            SessionPhase::Joining => {
                let outcome = match why {
                    EgressEndReason::Limit => {
                        Outcome::Aborted { message: "Session limit reached before start signal".to_owned() }
                    }
                    EgressEndReason::SourceClosed => Outcome::nothing_came(),
                    _ => Outcome::stopped_before_start(),
                };
                self.finish(vec![SessionEffect::StopMedia, ending(why)], outcome)
            }
            SessionPhase::Recording => {
                self.phase = SessionPhase::Draining { why, give_up_at: now + self.rules.drain_timeout, media_ns: 0 };
                vec![SessionEffect::StopMedia, ending(why)]
            }
            SessionPhase::Draining { .. } | SessionPhase::Over => vec![],
        }
    }

    fn ended(&mut self, why: MediaEndReason) -> Vec<SessionEffect> {
        match why {
            MediaEndReason::Stopped => self.ended_well(EgressEndReason::Killed, String::new()),
            MediaEndReason::SourceClosed { message } => self.ended_well(EgressEndReason::SourceClosed, message),
            MediaEndReason::Full { message } => self.fail(Code::ResourceExhausted, message),
            MediaEndReason::Evicted => self.fail(Code::AlreadyExists, EVICTED.to_owned()),
            MediaEndReason::Failed { code, message } => self.fail(Code::parse(&code), message),
        }
    }

    /// `why` is the reason if the end was not asked for before.
    fn ended_well(&mut self, why: EgressEndReason, message: String) -> Vec<SessionEffect> {
        let noted = |mut effects: Vec<SessionEffect>| {
            if !message.is_empty() {
                effects.push(SessionEffect::Report(Fact::Noted(message.clone())));
            }
            effects
        };
        match self.phase {
            SessionPhase::Joining => self.finish(noted(vec![ending(why)]), Outcome::nothing_came()),
            SessionPhase::Recording => self.finish(noted(vec![ending(why)]), Outcome::Complete),
            SessionPhase::Draining { why: EgressEndReason::Limit, .. } => self.finish(vec![], Outcome::LimitReached),
            SessionPhase::Draining { .. } | SessionPhase::Over => self.finish(vec![], Outcome::Complete),
        }
    }

    fn fail(&mut self, code: Code, message: String) -> Vec<SessionEffect> {
        let effects = match self.phase {
            SessionPhase::Draining { .. } => vec![],
            _ => vec![ending(EgressEndReason::Failure)],
        };
        self.finish(effects, Outcome::Failed { code, message })
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
        let age = now.saturating_duration_since(self.since);
        if silent >= self.rules.hang_after {
            return self
                .fail(Code::Internal, format!("media process said nothing for {} s and was ended", silent.as_secs()));
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

    fn finish(&mut self, mut effects: Vec<SessionEffect>, outcome: Outcome) -> Vec<SessionEffect> {
        self.phase = SessionPhase::Over;
        let outcome = match (self.failed.take(), outcome) {
            (Some((code, message)), Outcome::Complete | Outcome::LimitReached) => Outcome::Failed { code, message },
            // The end of a recording without outputs says nothing of its own.
            (Some((code, message)), Outcome::Failed { .. }) if self.outputs.open.is_empty() => {
                Outcome::Failed { code, message }
            }
            (_, outcome) => outcome,
        };
        effects.push(SessionEffect::Finish(outcome));
        effects
    }
}

fn ending(why: EgressEndReason) -> SessionEffect {
    SessionEffect::Report(Fact::Ending(why))
}

#[cfg(test)]
mod tests;
