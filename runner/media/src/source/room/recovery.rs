//! A media connection that does not come up or does not come back: when the room is joined again, how long before that,
//! and when it is given up. Pure: what works and the time come in.

use std::collections::BTreeSet;
use std::time::Duration;

use super::link;
use crate::receive::event::SourceTime;

/// Error of a recording whose room is lost for good; livekit/egress' text, which callers look for.
pub(super) const ROOM_LOST: &str = "recording ended early: connection to room failed";

/// Without a media connection from the beginning: it will not come. ICE has tried every pair of addresses by then.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// The same, times without signalling included.
const START_LIMIT: Duration = Duration::from_secs(40);
/// A recording that lost its connection is ended after so long; what it has is kept.
const LOST_LIMIT: Duration = Duration::from_secs(300);
/// A connection that is gone is built anew when the server has not asked for it by then.
const REJOIN_AFTER: Duration = Duration::from_secs(30);
/// A connection that held for so long works: what was before is forgotten.
const STABLE: Duration = Duration::from_secs(10);
/// Time in which this process was stopped does not count.
const LONGEST_LOOK: Duration = Duration::from_secs(1);
/// Offers in a row that cannot be accepted.
const MAX_REFUSED_OFFERS: u32 = 5;
/// Addresses that a message names.
const MAX_NAMED: usize = 8;

/// What works.
#[derive(Clone, Copy, Debug)]
pub(super) struct ConnectionState {
    pub(super) signalling: bool,
    pub(super) media: bool,
    /// The peer connection may still come up; one that has failed never will.
    pub(super) is_alive: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RecoveryStep {
    /// Join the room again.
    Rejoin,
    /// End the recording; [`MediaRecovery::reason`] says why.
    GiveUp,
}

/// Look at it at every tick.
#[derive(Debug, Default)]
pub(super) struct MediaRecovery {
    looked: Option<SourceTime>,
    /// There was a media connection once.
    was_connected: bool,
    stable_for: Duration,
    /// Since it last worked.
    trouble: Duration,
    /// Of it, with signalling.
    without_media: Duration,
    /// Without media since the last join.
    waited: Duration,
    /// Losses since it last worked.
    losses: u32,
    /// Of the whole recording.
    rejoins: u32,
    refused_offers: u32,
    refusal: String,
}

impl MediaRecovery {
    pub(super) fn tick(&mut self, state: ConnectionState, now: SourceTime) -> Option<RecoveryStep> {
        let looked = self.looked.replace(now).unwrap_or(now);
        let passed = now.saturating_sub(looked).min(LONGEST_LOOK);
        if state.signalling && state.media {
            self.was_connected = true;
            self.waited = Duration::ZERO;
            self.stable_for += passed;
            if self.stable_for >= STABLE {
                (self.trouble, self.without_media) = (Duration::ZERO, Duration::ZERO);
                (self.losses, self.refused_offers) = (0, 0);
            }
            return None;
        }
        self.stable_for = Duration::ZERO;
        self.trouble += passed;
        let limit = if self.was_connected { LOST_LIMIT } else { START_LIMIT };
        if self.trouble >= limit {
            return Some(RecoveryStep::GiveUp);
        }
        if !state.signalling || state.media {
            return None;
        }
        self.without_media += passed;
        self.waited += passed;
        if !self.was_connected && self.without_media >= START_TIMEOUT {
            return Some(RecoveryStep::GiveUp);
        }
        let timeout = if state.is_alive { REJOIN_AFTER } else { Duration::ZERO };
        if self.waited <= timeout {
            return None;
        }
        self.waited = Duration::ZERO;
        Some(RecoveryStep::Rejoin)
    }

    /// The connection to the room is lost: how long to wait before the first try to get back. At once the first time, then
    /// later and later: a server may end every connection.
    pub(super) fn lost(&mut self) -> Duration {
        let wait = link::wait(self.losses);
        self.losses += 1;
        wait
    }

    /// Joined again; gives how many times by now.
    pub(super) fn rejoined(&mut self) -> u32 {
        self.waited = Duration::ZERO;
        self.rejoins += 1;
        self.rejoins
    }

    /// An offer cannot be accepted. What to do about it.
    pub(super) fn offer_refused(&mut self, why: String) -> RecoveryStep {
        self.refused_offers += 1;
        self.refusal = why;
        if self.refused_offers < MAX_REFUSED_OFFERS { RecoveryStep::Rejoin } else { RecoveryStep::GiveUp }
    }

    /// Why it is given up. `tried`: addresses that the server named, `udp 192.0.2.1:7882`.
    pub(super) fn reason(&self, tried: &BTreeSet<String>) -> String {
        let cause = self.cause(tried);
        if self.was_connected { format!("{ROOM_LOST}: {cause}") } else { cause }
    }

    fn cause(&self, tried: &BTreeSet<String>) -> String {
        if self.refused_offers >= MAX_REFUSED_OFFERS {
            return format!("livekit-server's offers cannot be accepted: {}", self.refusal);
        }
        let seconds = self.trouble.as_secs();
        let what = if self.was_connected {
            let rejoins = self.rejoins;
            format!(
                "the media connection to livekit-server was lost and did not come back in {seconds} s ({rejoins} rejoins)"
            )
        } else {
            format!("livekit-server was reached, but no media connection to it in {seconds} s")
        };
        let mut named: Vec<&str> = tried.iter().take(MAX_NAMED).map(String::as_str).collect();
        let more = tried.len().saturating_sub(MAX_NAMED);
        let more = format!("{more} more");
        if tried.len() > MAX_NAMED {
            named.push(&more);
        }
        match named.as_slice() {
            [] => format!("{what}: it named no address for media"),
            named => format!("{what}: tried {}", named.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORKS: ConnectionState = ConnectionState { signalling: true, media: true, is_alive: true };
    const NO_MEDIA: ConnectionState = ConnectionState { media: false, ..WORKS };
    const NO_SIGNALLING: ConnectionState = ConnectionState { signalling: false, ..NO_MEDIA };

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    /// In this state from one second to another; gives the steps until the first that gives up, with their times.
    fn look(recovery: &mut MediaRecovery, state: ConnectionState, from: f64, to: f64) -> Vec<(Duration, RecoveryStep)> {
        let mut steps = Vec::new();
        for tick in 0..((to - from) * 5.0) as u32 {
            let now = seconds(from) + Duration::from_millis(200) * tick;
            if let Some(step) = recovery.tick(state, now) {
                steps.push((now, step));
                match step {
                    RecoveryStep::GiveUp => break,
                    RecoveryStep::Rejoin => {
                        recovery.lost();
                        recovery.rejoined();
                    }
                }
            }
        }
        steps
    }

    #[test]
    fn without_a_media_connection_from_the_start_it_is_given_up_after_30_s_with_the_addresses() {
        let mut recovery = MediaRecovery::default();
        assert_eq!(look(&mut recovery, NO_MEDIA, 0.0, 60.0), [(seconds(30.0), RecoveryStep::GiveUp)]);
        let tried = ["udp 192.0.2.1:7882", "tcp 192.0.2.1:7881"].map(str::to_owned).into();
        assert_eq!(
            recovery.reason(&tried),
            "livekit-server was reached, but no media connection to it in 30 s: tried tcp 192.0.2.1:7881, udp 192.0.2.1:7882"
        );
        assert!(recovery.reason(&BTreeSet::new()).ends_with(": it named no address for media"));
        let many = (1..=12).map(|port| format!("udp 192.0.2.1:{port:04}")).collect();
        assert!(recovery.reason(&many).ends_with("udp 192.0.2.1:0008, 4 more"));
    }

    #[test]
    fn a_server_that_asks_for_a_resume_does_not_put_the_end_off() {
        let mut recovery = MediaRecovery::default();
        let mut at = 0.0;
        for _ in 0..2 {
            assert_eq!(look(&mut recovery, NO_MEDIA, at, at + 14.0), []);
            recovery.lost();
            assert_eq!(look(&mut recovery, NO_SIGNALLING, at + 14.0, at + 14.6), []);
            at += 14.6;
        }
        let steps = look(&mut recovery, NO_MEDIA, at, 60.0);
        assert!(matches!(steps[..], [(at, RecoveryStep::GiveUp)] if at < seconds(33.0)), "{steps:?}");
    }

    #[test]
    fn a_server_that_ends_every_stay_is_given_up_too() {
        let mut recovery = MediaRecovery::default();
        let steps = look(&mut recovery, NO_SIGNALLING, 0.0, 60.0);
        assert_eq!(steps, [(seconds(40.0), RecoveryStep::GiveUp)]);
    }

    #[test]
    fn a_process_that_was_stopped_has_not_failed_to_connect() {
        let mut recovery = MediaRecovery::default();
        assert_eq!(look(&mut recovery, NO_MEDIA, 0.0, 2.0), []);
        assert_eq!(look(&mut recovery, NO_MEDIA, 90.0, 92.0), []);
    }

    #[test]
    fn a_running_recording_joins_again_and_is_given_up_after_five_minutes() {
        let mut recovery = MediaRecovery::default();
        assert_eq!(look(&mut recovery, WORKS, 0.0, 60.0), []);
        let steps = look(&mut recovery, NO_MEDIA, 60.0, 500.0);
        let (end, rejoins) = steps.split_last().expect("steps");
        assert!(end.1 == RecoveryStep::GiveUp && (359.0..361.0).contains(&end.0.as_secs_f64()), "{end:?}");
        assert_eq!(rejoins.len(), 9, "{rejoins:?}");
        let reason = recovery.reason(&BTreeSet::new());
        assert!(reason.starts_with(ROOM_LOST), "{reason}");
        assert!(reason.contains("lost and did not come back in 300 s (9 rejoins)"), "{reason}");
    }

    #[test]
    fn a_connection_that_has_failed_is_replaced_at_once_but_not_in_a_storm() {
        let mut recovery = MediaRecovery::default();
        look(&mut recovery, WORKS, 0.0, 20.0);
        let dead = ConnectionState { is_alive: false, ..NO_MEDIA };
        assert_eq!(recovery.tick(dead, seconds(20.0)), Some(RecoveryStep::Rejoin));
        let waits: Vec<Duration> = (0..8).map(|_| recovery.lost()).collect();
        assert!(waits[0].is_zero() && waits.is_sorted() && waits[7] == seconds(10.0), "{waits:?}");
        // One that comes up and dies is none.
        look(&mut recovery, WORKS, 20.0, 29.0);
        assert_eq!(recovery.lost(), seconds(10.0));
        look(&mut recovery, NO_MEDIA, 29.0, 30.0);
        look(&mut recovery, WORKS, 30.0, 41.0);
        assert!(recovery.lost().is_zero());
    }

    #[test]
    fn offers_that_cannot_be_accepted_end_with_their_reason() {
        let mut recovery = MediaRecovery::default();
        for _ in 0..MAX_REFUSED_OFFERS - 1 {
            assert_eq!(recovery.offer_refused("no mid".to_owned()), RecoveryStep::Rejoin);
        }
        assert_eq!(recovery.offer_refused("no mid".to_owned()), RecoveryStep::GiveUp);
        let reason = recovery.reason(&BTreeSet::new());
        assert_eq!(reason, "livekit-server's offers cannot be accepted: no mid");
    }
}
