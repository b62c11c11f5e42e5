//! The record of one egress, as JSON in Redis. Dispatchers and the runner share it and change it by compare-and-set.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use spillway_protocol::EgressId;

/// Where the launch of an egress stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// StartEgress was granted; no launch was attempted yet.
    #[default]
    Accepted,
    /// A launcher was or is being asked for a task.
    Launching,
    /// The runner took its ticket and owns the egress.
    Running,
    /// The runner finishes files and uploads.
    Ending,
    /// The final EgressInfo is in the record.
    Over,
}

/// What is known about one egress. Fields of a newer version are kept in `extra` and written back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The id livekit-server gave it.
    pub egress_id: EgressId,
    /// Counts the writes, from 1. Set by the registry; stored beside the JSON, not in it.
    #[serde(skip)]
    pub version: u64,
    /// Where the launch stands.
    #[serde(default)]
    pub phase: Phase,
    /// Number of the current launch; the first is 1, and 0 means none yet.
    #[serde(default)]
    pub attempt: u32,
    /// Name of the dispatcher that accepted the egress.
    #[serde(default)]
    pub dispatcher: String,
    /// The launcher's reference to the task as JSON, opaque here.
    #[serde(default)]
    pub task: Option<String>,
    /// The last `livekit.EgressInfo` as protobuf; base64 in the JSON.
    #[serde(default, with = "base64_text")]
    pub info: Vec<u8>,
    /// The ledger (`spillway_protocol::ledger`) that `info` is made from, as JSON.
    #[serde(default)]
    pub ledger: String,
    /// StopEgress came before a runner listened.
    #[serde(default)]
    pub stop_asked: bool,
    /// Claim token of a second ticket, for a salvage run if the task dies with uploads unfinished. The component that
    /// ends the egress clears it. Empty: only a disk can hold something to salvage.
    #[serde(default)]
    pub spare: String,
    /// Why the recording task is gone. Not empty: the current attempt is its salvage run, and the egress ends with this
    /// message.
    #[serde(default)]
    pub lost: String,
    /// When StartEgress was accepted, Unix milliseconds of Redis' clock.
    #[serde(default)]
    pub accepted_at: i64,
    /// Further fields: the dispatcher's own state, and what a newer version wrote.
    #[serde(flatten)]
    pub extra: BTreeMap<String, serde_json::Value>,
}

impl Record {
    /// A record in [`Phase::Accepted`] with everything else empty. `accepted_at` in Unix milliseconds.
    pub fn new(egress_id: EgressId, accepted_at: i64) -> Self {
        Self {
            egress_id,
            version: 0,
            phase: Phase::Accepted,
            attempt: 0,
            dispatcher: String::new(),
            task: None,
            info: Vec::new(),
            ledger: String::new(),
            stop_asked: false,
            spare: String::new(),
            lost: String::new(),
            accepted_at,
            extra: BTreeMap::new(),
        }
    }
}

mod base64_text {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        STANDARD.decode(String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> EgressId {
        EgressId::parse("EG_1").unwrap()
    }

    /// As version 0.1.0 stores it.
    const STORED: &str = r#"{"egress_id":"EG_1","phase":"running","attempt":2,"dispatcher":"D1","task":"{}",
        "info":"AP8=","ledger":"{}","stop_asked":true,"spare":"s","lost":"l","accepted_at":7,
        "dispatch":{"tenant":"t"},"owner_until_ms":0}"#;

    #[test]
    fn a_stored_record_is_read_and_keeps_fields_it_does_not_know() {
        let record: Record = serde_json::from_str(STORED).unwrap();
        let mut expected = Record {
            phase: Phase::Running,
            attempt: 2,
            dispatcher: "D1".into(),
            task: Some("{}".into()),
            info: vec![0x00, 0xff],
            ledger: "{}".into(),
            stop_asked: true,
            spare: "s".into(),
            lost: "l".into(),
            ..Record::new(id(), 7)
        };
        expected.extra.insert("dispatch".into(), serde_json::json!({"tenant": "t"}));
        expected.extra.insert("owner_until_ms".into(), 0.into());
        assert_eq!(record, expected);
        let written: serde_json::Value = serde_json::to_value(&record).unwrap();
        assert_eq!(written, serde_json::from_str::<serde_json::Value>(STORED).unwrap());
    }

    #[test]
    fn every_field_but_the_id_may_be_absent() {
        assert_eq!(serde_json::from_str::<Record>(r#"{"egress_id":"EG_1"}"#).unwrap(), Record::new(id(), 0));
    }

    #[test]
    fn an_unknown_phase_is_an_error_and_no_default() {
        assert!(serde_json::from_str::<Record>(r#"{"egress_id":"EG_1","phase":"resting"}"#).is_err());
        for (phase, text) in [
            (Phase::Accepted, "accepted"),
            (Phase::Launching, "launching"),
            (Phase::Running, "running"),
            (Phase::Ending, "ending"),
            (Phase::Over, "over"),
        ] {
            assert_eq!(serde_json::to_value(phase).unwrap(), text);
        }
    }
}
