//! How a recording ends: from the order to stop to the outcome, and what a media process says of its end. Pure.

use std::time::Instant;

use spillway_ipc::MediaEndReason;
use spillway_protocol::Code;
use spillway_protocol::ledger::{EgressEndReason, Fact, Outcome};

use super::{Session, SessionEffect, SessionPhase, ending};

const EVICTED: &str = "recording ended early: another participant joined the room with the identity of this egress";

impl Session {
    pub(super) fn stop(&mut self, why: EgressEndReason, now: Instant) -> Vec<SessionEffect> {
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
            // There is nothing to close, and a process that has not joined yet need not.
            SessionPhase::Recording if self.awaits_media => {
                let effects = vec![SessionEffect::StopMedia, ending(why)];
                let is_limit = why == EgressEndReason::Limit;
                self.finish(effects, if is_limit { Outcome::LimitReached } else { Outcome::Complete })
            }
            SessionPhase::Recording => {
                self.phase = SessionPhase::Draining { why, give_up_at: now + self.rules.drain_timeout, media_ns: 0 };
                vec![SessionEffect::StopMedia, ending(why)]
            }
            SessionPhase::Draining { .. } => self.stays(why),
            SessionPhase::Over => vec![],
        }
    }

    pub(super) fn ended(&mut self, why: MediaEndReason) -> Vec<SessionEffect> {
        match why {
            MediaEndReason::Stopped if self.is_leaving => self.hand_over(),
            MediaEndReason::Stopped => self.ended_well(EgressEndReason::Killed, String::new()),
            MediaEndReason::SourceClosed { message } => {
                let mut effects = self.stays(EgressEndReason::SourceClosed);
                effects.extend(self.ended_well(EgressEndReason::SourceClosed, message));
                effects
            }
            MediaEndReason::Full { message } => self.fail(Code::ResourceExhausted, message),
            MediaEndReason::Evicted => self.fail(Code::AlreadyExists, EVICTED.to_owned()),
            MediaEndReason::Failed { code, message } => match Code::parse(&code) {
                // What was recorded has ended while no media process was there.
                Code::NotFound if self.awaits_media => self.ended_well(EgressEndReason::SourceClosed, message),
                code => self.fail(code, message),
            },
        }
    }

    /// `why` is the reason if the end was not asked for before.
    pub(super) fn ended_well(&mut self, why: EgressEndReason, message: String) -> Vec<SessionEffect> {
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

    pub(super) fn fail(&mut self, code: Code, message: String) -> Vec<SessionEffect> {
        if self.is_leaving {
            // What is closed is kept, and the next task goes on from there.
            return self.hand_over();
        }
        let effects = match self.phase {
            SessionPhase::Draining { .. } => vec![],
            _ => vec![ending(EgressEndReason::Failure)],
        };
        self.finish(effects, Outcome::Failed { code, message })
    }

    pub(super) fn finish(&mut self, mut effects: Vec<SessionEffect>, outcome: Outcome) -> Vec<SessionEffect> {
        self.phase = SessionPhase::Over;
        let outcome = match (self.aborted.take(), outcome) {
            (Some(message), Outcome::Complete) => Outcome::Aborted { message },
            (_, outcome) => outcome,
        };
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
