//! How an egress ends: outcome → terminal status with its error, code and end reason, in livekit/egress' texts. Pure.

use livekit_protocol::EgressStatus;

use super::fact::{EgressEndReason, NOTHING_CAME, Outcome};
use crate::code::Code;

/// HTTP "content too large", livekit/egress' number for a limit; no psrpc code has it.
const LIMIT_CODE: i32 = 413;
const LIMIT_REACHED: &str = "Session limit reached";

/// What a terminal EgressInfo says of the end.
pub(super) struct TerminalState {
    pub(super) status: EgressStatus,
    /// Empty for COMPLETE only.
    pub(super) error: String,
    pub(super) code: i32,
    /// The end reason where no earlier one is known.
    pub(super) why: EgressEndReason,
}

impl TerminalState {
    /// `active`: media was recorded. `why`: what began the end, if it is known.
    pub(super) fn of(outcome: Outcome, active: bool, why: Option<EgressEndReason>) -> Self {
        let limited = outcome == Outcome::LimitReached || why == Some(EgressEndReason::Limit);
        match outcome {
            Outcome::Complete | Outcome::LimitReached if !active && limited => {
                Self::aborted("Session limit reached before start signal".to_owned(), EgressEndReason::Limit)
            }
            Outcome::Complete | Outcome::LimitReached if !active => {
                Self::aborted(NOTHING_CAME.to_owned(), EgressEndReason::SourceClosed)
            }
            Outcome::Complete | Outcome::LimitReached if limited => Self {
                status: EgressStatus::EgressLimitReached,
                error: LIMIT_REACHED.to_owned(),
                code: LIMIT_CODE,
                why: EgressEndReason::Limit,
            },
            Outcome::Complete | Outcome::LimitReached => Self {
                status: EgressStatus::EgressComplete,
                error: String::new(),
                code: 0,
                why: EgressEndReason::SourceClosed,
            },
            Outcome::Aborted { message } => Self::aborted(or(message, "aborted"), EgressEndReason::SourceClosed),
            Outcome::Failed { code, message } => Self {
                status: EgressStatus::EgressFailed,
                error: or(message, "failed"),
                code: code.http().into(),
                why: EgressEndReason::Failure,
            },
        }
    }

    fn aborted(error: String, why: EgressEndReason) -> Self {
        Self { status: EgressStatus::EgressAborted, error, code: Code::FailedPrecondition.http().into(), why }
    }
}

fn or(message: String, otherwise: &str) -> String {
    if message.is_empty() { otherwise.to_owned() } else { message }
}
