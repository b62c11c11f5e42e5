//! Whether the participant of a Participant recording is in the room, and how long it may be away: a page that is loaded
//! anew leaves and joins as another participant of the same identity. Pure.

use std::time::Duration;

use crate::receive::event::SourceTime;

/// A participant that was seen once.
#[derive(Debug)]
pub(super) struct ParticipantPresence {
    /// How long it may be away.
    grace: Duration,
    away_since: Option<SourceTime>,
    /// [`AwayState::Begins`] was answered.
    is_told: bool,
    /// By the server's API: it is not expected back.
    removed: bool,
}

/// What it means that it is not in the room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AwayState {
    /// It has left, and may return. Answered once.
    Begins,
    GoesOn,
    /// It is not waited for any longer.
    TooLong,
}

/// It was away, and is back.
#[derive(Debug, PartialEq)]
pub struct TimeAway {
    /// When it left.
    pub since: SourceTime,
    /// Until it was back.
    pub lasted: Duration,
}

impl TimeAway {
    /// For `details`. `origin`: media time zero, once there is one.
    pub fn message(&self, identity: &str, origin: Option<SourceTime>) -> String {
        let at = origin.and_then(|origin| self.since.checked_sub(origin));
        let at = at.map(|at| format!(" at {:.1} s", at.as_secs_f64())).unwrap_or_default();
        format!("participant {identity} left{at} and returned {:.1} s later", self.lasted.as_secs_f64())
    }
}

impl ParticipantPresence {
    pub(super) fn new(grace: Duration) -> Self {
        Self { grace, away_since: None, is_told: false, removed: false }
    }

    /// It is in the room: how long it was away, if that was told.
    pub(super) fn here(&mut self, now: SourceTime) -> Option<TimeAway> {
        self.removed = false;
        let is_told = std::mem::take(&mut self.is_told);
        let since = self.away_since.take().filter(|_| is_told)?;
        Some(TimeAway { since, lasted: now.saturating_sub(since) })
    }

    /// It is not in the room. `may_be_us`: after a rejoin of ours it is known only that we were away, so nothing is told and
    /// nothing ends.
    pub(super) fn away(&mut self, may_be_us: bool, now: SourceTime) -> AwayState {
        let since = *self.away_since.get_or_insert(now);
        if may_be_us {
            return AwayState::GoesOn;
        }
        if self.removed || now.saturating_sub(since) >= self.grace {
            return AwayState::TooLong;
        }
        if std::mem::replace(&mut self.is_told, true) { AwayState::GoesOn } else { AwayState::Begins }
    }

    pub(super) fn was_removed(&mut self) {
        self.removed = true;
    }

    /// Why the recording of `identity` ends.
    pub(super) fn reason(&self, identity: &str) -> String {
        if self.removed {
            return format!("participant {identity} was removed from the room");
        }
        if self.grace.is_zero() {
            return format!("participant {identity} left");
        }
        format!("participant {identity} left and did not return within {} s", self.grace.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_is_named_by_its_place_in_the_recording() {
        let away = TimeAway { since: Duration::from_millis(12_340), lasted: Duration::from_millis(2500) };
        let message = away.message("ann", Some(Duration::from_millis(340)));
        assert_eq!(message, "participant ann left at 12.0 s and returned 2.5 s later");
        assert_eq!(away.message("ann", None), "participant ann left and returned 2.5 s later");
    }
}
