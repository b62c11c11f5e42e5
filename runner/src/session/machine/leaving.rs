//! A task that has to leave: its platform takes the machine back, stops the container or kills what does not stop. Another
//! task goes on with the recording, where there may be one; else it ends early. Pure.

use std::time::{Duration, Instant};

use spillway_protocol::ledger::{EgressEndReason, Outcome};

use super::{Session, SessionEffect, SessionPhase, ending};

/// Why a task has ended or left, for the user.
const TOLD_TO_LEAVE: &str = "the platform stopped the recording task";

impl Session {
    /// What another task has recorded goes on: `recorded` ago began the first media, `file_bytes` (file, output, bytes) and
    /// `segment_bytes` (output, bytes) were written.
    pub fn go_on(&mut self, recorded: Duration, file_bytes: &[(u32, u32, u64)], segment_bytes: &[(u32, u64)]) {
        self.phase = SessionPhase::Recording;
        self.awaits_media = true;
        self.recorded_before = recorded;
        self.file_bytes = file_bytes.iter().map(|(file, output, bytes)| (*file, (*output, *bytes))).collect();
        self.segment_bytes = segment_bytes.iter().copied().collect();
    }

    pub(super) fn told_to_leave(&mut self, now: Instant) -> Vec<SessionEffect> {
        let others = self.rules.hand_over;
        match self.phase {
            SessionPhase::Joining if others => self.hand_over(),
            SessionPhase::Joining => {
                let outcome = Outcome::Aborted { message: TOLD_TO_LEAVE.to_owned() };
                self.finish(vec![SessionEffect::StopMedia, ending(EgressEndReason::Killed)], outcome)
            }
            // Nothing was recorded since the last process died.
            SessionPhase::Recording if others && self.awaits_media => self.hand_over(),
            SessionPhase::Recording if others => {
                let give_up_at = now + self.rules.drain_timeout;
                self.phase = SessionPhase::Draining { why: EgressEndReason::Killed, give_up_at, media_ns: 0 };
                self.is_leaving = true;
                vec![SessionEffect::StopMedia]
            }
            SessionPhase::Recording => {
                self.aborted = Some(TOLD_TO_LEAVE.to_owned());
                self.stop(EgressEndReason::Killed, now)
            }
            SessionPhase::Draining { .. } | SessionPhase::Over => vec![],
        }
    }

    /// The recording ends for another reason while the task leaves: then it is over with this task.
    pub(super) fn stays(&mut self, why: EgressEndReason) -> Vec<SessionEffect> {
        if !std::mem::take(&mut self.is_leaving) {
            return vec![];
        }
        if let SessionPhase::Draining { why: known, .. } = &mut self.phase {
            *known = why;
        }
        vec![ending(why)]
    }

    /// Nothing more is written, and another task goes on.
    pub(super) fn hand_over(&mut self) -> Vec<SessionEffect> {
        self.phase = SessionPhase::Over;
        vec![SessionEffect::StopMedia, SessionEffect::HandOver(TOLD_TO_LEAVE.to_owned())]
    }
}
