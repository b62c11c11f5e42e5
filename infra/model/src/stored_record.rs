//! The JSON of a record. Its shape is what version 0.1.0 wrote, with fields added since: a state is five words and a few
//! flags, because dispatchers and runners of the version before must read it during an upgrade. `record` turns it into
//! a `LaunchState` and back.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use spillway_protocol::EgressId;

use crate::dispatch::Dispatch;
use crate::launch_state::Phase;
use crate::resumption::Resumption;

/// The newest form of a record that this version reads. A form gets a new number only if readers of the one before would
/// misunderstand it; fields are added without one.
pub(crate) const FORMAT: u32 = RESUMING;
/// What version 0.1.0 wrote.
pub(crate) const FIRST: u32 = 1;
/// The same while a recording that was interrupted waits for the task that goes on.
pub(crate) const RESUMING: u32 = 2;

/// A record as it is stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct StoredRecord {
    /// Absent in version 0.1.0, which wrote form 1.
    #[serde(default = "first_format")]
    pub format: u32,
    /// As in `Record`; so are the other fields whose comment says no more.
    pub egress_id: EgressId,
    /// The word of the state.
    #[serde(default)]
    pub phase: Phase,
    /// Number of the launch.
    #[serde(default)]
    pub attempt: u32,
    /// Owner.
    #[serde(default)]
    pub dispatcher: String,
    /// A `TaskRef` as JSON in a text.
    #[serde(default)]
    pub task: Option<String>,
    /// Protobuf; base64 in the JSON.
    #[serde(default, with = "base64_text")]
    pub info: Vec<u8>,
    /// JSON in a text.
    #[serde(default)]
    pub ledger: String,
    /// A stop waits for the runner.
    #[serde(default)]
    pub stop_asked: bool,
    /// Claim of the spare ticket.
    #[serde(default)]
    pub spare: String,
    /// Why a salvage runs.
    #[serde(default)]
    pub lost: String,
    /// Not in version 0.1.0, nor are the next two.
    #[serde(default, skip_serializing_if = "is_false")]
    pub resumable: bool,
    /// Of the spare ticket.
    #[serde(default, skip_serializing_if = "is_false")]
    pub nothing_to_salvage: bool,
    /// Why and how often.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resumption: Option<Resumption>,
    /// Unix milliseconds.
    #[serde(default)]
    pub accepted_at: i64,
    /// Absent where no dispatcher made the record.
    #[serde(default)]
    pub dispatch: Option<StoredDispatch>,
    /// Fields of a newer version.
    #[serde(flatten)]
    pub extra: BTreeMap<String, serde_json::Value>,
}

/// The dispatcher's part, with the flags of the state.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct StoredDispatch {
    /// A launch was requested and its outcome is unknown or positive.
    pub asked: bool,
    /// The next launch needs a new attempt number.
    pub fresh: bool,
    /// An answer to a launch call was lost. Not in version 0.1.0.
    pub unanswered: bool,
    /// The rest.
    #[serde(flatten)]
    pub dispatch: Dispatch,
}

fn first_format() -> u32 {
    FIRST
}

fn is_false(flag: &bool) -> bool {
    !flag
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
