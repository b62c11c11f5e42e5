//! The heartbeat of a running egress, as JSON in Redis with a time to live. The runner writes it, dispatchers read it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What a runner reports while it runs. Fields of a newer version are kept in `extra`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Heartbeat {
    /// Number of the launch that reports. Set when it is written.
    pub attempt: u32,
    /// Length of the recording so far.
    pub media_ns: u64,
    /// How far the recording is behind the room.
    pub lag_ms: u64,
    /// Files being written, each with its bytes so far.
    pub files: BTreeMap<String, u64>,
    /// Further fields of the runner.
    #[serde(flatten)]
    pub extra: BTreeMap<String, serde_json::Value>,
}

/// A heartbeat as it is stored. Its age is `ttl_ms` less the time to live that Redis has left, so it is measured by
/// Redis' clock alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StoredHeartbeat {
    /// Time to live it was written with.
    pub ttl_ms: u64,
    /// What the runner reported.
    pub beat: Heartbeat,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_heartbeat_keeps_fields_it_does_not_know() {
        let stored = serde_json::json!({"ttl_ms": 5000, "beat": {
            "attempt": 2, "media_ns": 5, "lag_ms": 6, "files": {"a.mp4": 7}, "novelty": [1]
        }});
        let read: StoredHeartbeat = serde_json::from_value(stored.clone()).unwrap();
        let beat = Heartbeat {
            attempt: 2,
            media_ns: 5,
            lag_ms: 6,
            files: [("a.mp4".to_owned(), 7)].into(),
            extra: [("novelty".to_owned(), serde_json::json!([1]))].into(),
        };
        assert_eq!(read, StoredHeartbeat { ttl_ms: 5000, beat });
        assert_eq!(serde_json::to_value(&read).unwrap(), stored);
    }

    #[test]
    fn a_heartbeat_of_version_0_1_0_is_read_and_written_as_it_was() {
        let stored: serde_json::Value = serde_json::from_str(include_str!("golden/heartbeat.json")).unwrap();
        let read: StoredHeartbeat = serde_json::from_value(stored.clone()).unwrap();
        assert_eq!((read.beat.attempt, read.ttl_ms, read.beat.files["a.mp4"]), (2, 6000, 7));
        assert_eq!(serde_json::to_value(&read).unwrap(), stored);
    }

    #[test]
    fn every_field_of_a_heartbeat_may_be_absent() {
        assert_eq!(serde_json::from_str::<Heartbeat>("{}").unwrap(), Heartbeat::default());
    }
}
