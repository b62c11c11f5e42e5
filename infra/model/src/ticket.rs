//! The ticket of one launch: everything a runner needs to begin, credentials included. It is JSON inside an encrypted
//! value in Redis (`spillway_bus::Tickets`) and never leaves a process in the clear.

use std::fmt;

use serde::{Deserialize, Serialize};
use spillway_protocol::{EgressId, Secret};

use crate::probe::ProbeOrder;

/// Everything about one launch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ticket {
    /// The egress this ticket starts.
    pub egress_id: EgressId,
    /// Number of the launch, from 1. The ciphertext is bound to it.
    pub attempt: u32,
    /// `livekit.StartEgressRequest` as protobuf, as it came.
    pub request: Secret<Vec<u8>>,
    /// The `EgressPlan` made from the request, as JSON.
    pub plan_json: Secret,
    /// Access token for the room.
    pub token: Secret,
    /// URL of livekit-server's signalling endpoint.
    pub ws_url: String,
    /// Where each output of the plan goes, with its credentials, as JSON. Absent: to the runner's disk.
    #[serde(default)]
    pub destinations: Option<Secret>,
    /// Settings of the runner, opaque to the dispatcher's launch path.
    pub runner: serde_json::Value,
    /// Instead of recording, the runner checks what it would need. Only a runner that was started for it takes such a
    /// ticket, and it takes no other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<ProbeOrder>,
    /// Of a task that goes on with a recording: where its streams go by now. Absent: as the request says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub streams: Option<LiveStreams>,
}

/// The streams of a recording after UpdateStream calls.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveStreams {
    /// Behind every stream that there was.
    pub next_id: u32,
    /// Those that are published.
    pub live: Vec<LiveStream>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveStream {
    /// As the ledger counts them.
    pub id: u32,
    /// As it was given, with its key.
    pub url: Secret,
}

/// What a launch hands to its runner so that only this runner can take the ticket. Never printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ClaimToken(Secret);

impl ClaimToken {
    /// Any text is accepted: one that belongs to no ticket finds none.
    pub fn from_text(text: &str) -> Self {
        Self(Secret::new(text.to_owned()))
    }

    /// For the runner's environment and for Redis keys (hashed there).
    pub fn reveal(&self) -> &str {
        self.0.reveal()
    }
}

impl fmt::Debug for ClaimToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_ticket_is_read_without_its_optional_fields() {
        let stored = serde_json::json!({
            "egress_id": "EG_1", "attempt": 3, "request": [1, 255], "plan_json": "{}", "token": "t", "ws_url": "ws://a",
            "runner": {"a": 1}, "added_by_a_newer_version": true
        });
        let ticket = Ticket {
            egress_id: EgressId::parse("EG_1").unwrap(),
            attempt: 3,
            request: Secret::new(vec![1, 255]),
            plan_json: Secret::new("{}".into()),
            token: Secret::new("t".into()),
            ws_url: "ws://a".into(),
            destinations: None,
            runner: serde_json::json!({"a": 1}),
            probe: None,
            streams: None,
        };
        assert_eq!(serde_json::from_value::<Ticket>(stored).unwrap(), ticket);
        let live = vec![LiveStream { id: 1, url: Secret::new("rtmp://a/canary".into()) }];
        for streams in [None, Some(LiveStreams { next_id: 2, live })] {
            let ticket = Ticket { streams, ..ticket.clone() };
            assert!(!format!("{ticket:?}").contains("canary"));
            let again = serde_json::to_vec(&ticket).unwrap();
            assert_eq!(serde_json::from_slice::<Ticket>(&again).unwrap(), ticket);
        }
    }

    #[test]
    fn a_ticket_of_version_0_1_0_is_read_and_written_as_it_was() {
        let stored: serde_json::Value = serde_json::from_str(include_str!("golden/ticket.json")).unwrap();
        let ticket: Ticket = serde_json::from_value(stored.clone()).unwrap();
        assert_eq!((ticket.attempt, ticket.request.reveal().as_slice()), (3, &[1, 255][..]));
        assert_eq!(serde_json::to_value(&ticket).unwrap(), stored);
    }

    #[test]
    fn a_claim_token_prints_nothing_and_travels_as_text() {
        let token = ClaimToken::from_text("canary");
        assert_eq!((format!("{token:?}").as_str(), token.reveal()), ("[secret]", "canary"));
        assert_eq!(serde_json::to_value(&token).unwrap(), "canary");
    }
}
