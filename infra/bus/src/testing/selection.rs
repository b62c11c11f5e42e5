//! Which bidder gets the call: psrpc's own rules (livekit/psrpc `pkg/client/rpc.go`), so that a test calls as
//! livekit-server does. Pure: bids and the time come in, a [`Pick`] goes out.

use std::time::Duration;

use spillway_protocol::psrpc::ClaimRequest;
use tokio::time::Instant;

/// Options of one selection.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct SelectionRules {
    /// How long bids are collected. `None`: as long as the call may take.
    pub window: Option<Duration>,
    /// How long after the first bid a better one is waited for.
    pub short_circuit: Option<Duration>,
    /// The first bid gets it, whatever its affinity.
    pub first_wins: bool,
    /// Lower bids do not count. 0: all do.
    pub min_affinity: f32,
    /// A bid this high gets it at once. 0: none does.
    pub max_affinity: f32,
}

/// Outcome of a selection.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Pick {
    /// The server with this id gets the call.
    Grant(String),
    /// A server announced that it handles the call already: nothing to grant.
    Announced,
    /// No bid counts.
    Nobody {
        /// Bids that came and did not count.
        bids: u32,
    },
}

/// One selection in progress.
pub(super) struct Selection {
    rules: SelectionRules,
    until: Instant,
    short: bool,
    best: Option<String>,
    highest: f32,
    bids: u32,
}

impl Selection {
    /// Starts at `now`; the call ends at `give_up`.
    pub fn new(rules: SelectionRules, now: Instant, give_up: Instant) -> Self {
        let until = rules.window.map_or(give_up, |window| give_up.min(now + window));
        Self { rules, until, short: false, best: None, highest: 0.0, bids: 0 }
    }

    /// When [`Selection::end`] is due.
    pub fn until(&self) -> Instant {
        self.until
    }

    /// `Some` ends the selection.
    pub fn on_bid(&mut self, bid: &ClaimRequest, now: Instant) -> Option<Pick> {
        if bid.handling {
            return Some(Pick::Announced);
        }
        self.bids += 1;
        let SelectionRules { min_affinity, max_affinity, first_wins, short_circuit, .. } = self.rules;
        if min_affinity > 0.0 && bid.affinity < min_affinity {
            return None;
        }
        if first_wins || (max_affinity > 0.0 && bid.affinity >= max_affinity) {
            return Some(Pick::Grant(bid.server_id.clone()));
        }
        // Strictly greater, from 0: a bid of 0 never wins, and of equals the earlier does.
        if bid.affinity > self.highest {
            self.highest = bid.affinity;
            self.best = Some(bid.server_id.clone());
        }
        if let (Some(short_circuit), false) = (short_circuit, self.short) {
            self.short = true;
            self.until = self.until.min(now + short_circuit);
        }
        None
    }

    /// Time is up.
    pub fn end(self) -> Pick {
        self.best.map_or(Pick::Nobody { bids: self.bids }, Pick::Grant)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    /// livekit-server's for StartEgress.
    const START: SelectionRules = SelectionRules {
        window: Some(Duration::from_secs(1)),
        short_circuit: Some(Duration::from_millis(500)),
        first_wins: false,
        min_affinity: 0.0,
        max_affinity: 1.0,
    };

    fn bid(server_id: &str, affinity: f32) -> ClaimRequest {
        ClaimRequest { request_id: "REQ_1".into(), server_id: server_id.into(), affinity, handling: false }
    }

    fn start(rules: SelectionRules) -> (Selection, Instant) {
        let t0 = Instant::now();
        (Selection::new(rules, t0, t0 + 10_000 * MS), t0)
    }

    #[test]
    fn a_bid_of_one_wins_at_once() {
        let (mut selection, t0) = start(START);
        assert_eq!(selection.on_bid(&bid("a", 0.5), t0 + MS), None);
        assert_eq!(selection.on_bid(&bid("b", 1.0), t0 + 50 * MS), Some(Pick::Grant("b".into())));
    }

    #[test]
    fn the_best_of_the_half_second_after_the_first_wins() {
        let (mut selection, t0) = start(START);
        assert_eq!(selection.until(), t0 + 1000 * MS);
        assert_eq!(selection.on_bid(&bid("a", 0.5), t0 + 10 * MS), None);
        assert_eq!(selection.until(), t0 + 510 * MS);
        assert_eq!(selection.on_bid(&bid("b", 0.7), t0 + 400 * MS), None);
        assert_eq!(selection.on_bid(&bid("c", 0.7), t0 + 410 * MS), None);
        assert_eq!(selection.until(), t0 + 510 * MS);
        assert_eq!(selection.end(), Pick::Grant("b".into()));
    }

    #[test]
    fn a_late_first_bid_has_only_what_is_left_of_the_window() {
        let (mut selection, t0) = start(START);
        selection.on_bid(&bid("a", 0.5), t0 + 900 * MS);
        assert_eq!(selection.until(), t0 + 1000 * MS);
    }

    #[test]
    fn a_bid_of_nothing_never_wins_but_is_counted() {
        let (mut selection, t0) = start(START);
        selection.on_bid(&bid("a", 0.0), t0);
        selection.on_bid(&bid("b", f32::NAN), t0);
        assert_eq!(selection.end(), Pick::Nobody { bids: 2 });
        assert_eq!(start(START).0.end(), Pick::Nobody { bids: 0 });
    }

    #[test]
    fn a_queue_takes_the_first_bid_and_believes_an_announcement() {
        let queue = SelectionRules { short_circuit: None, first_wins: true, max_affinity: 0.0, ..START };
        let (mut selection, t0) = start(queue);
        assert_eq!(selection.on_bid(&bid("a", 0.0), t0), Some(Pick::Grant("a".into())));
        let announced = ClaimRequest { handling: true, ..bid("a", 1.0) };
        assert_eq!(start(queue).0.on_bid(&announced, t0), Some(Pick::Announced));
    }

    #[test]
    fn a_bid_below_the_minimum_does_not_count() {
        let (mut selection, t0) = start(SelectionRules { min_affinity: 0.6, ..START });
        assert_eq!(selection.on_bid(&bid("a", 0.5), t0), None);
        assert_eq!(selection.until(), t0 + 1000 * MS);
        assert_eq!(selection.end(), Pick::Nobody { bids: 1 });
    }
}
