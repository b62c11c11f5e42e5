//! What a dispatcher needs to launch an egress, launch it again elsewhere and bill it: part of its record, so that any
//! dispatcher can go on with it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::machine::{Load, Shape};
use crate::task::TaskRef;

/// The dispatcher's part of a record. Fields are added with a default and never change their meaning: dispatchers of
/// two versions read the same records during an upgrade. Fields of a newer version are kept in `extra`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Dispatch {
    /// Claim of the current ticket, so that another dispatcher can launch in our place. Worthless without the ticket
    /// key.
    pub claim: String,
    /// Cores the recording is expected to need.
    pub weight: f64,
    /// Unix milliseconds; an egress that is not launched by then fails.
    pub deadline_ms: i64,
    /// Unix milliseconds of the last launch call; 0 before.
    pub launched_ms: i64,
    /// Room, for labels and the bill.
    pub room: String,
    /// Kind of egress, for labels and the bill.
    pub kind: String,
    /// Tenant; empty where there is only one.
    pub tenant: String,
    /// The tenant's weight in the launch queue; 0 in records of an older version.
    pub share: f64,
    /// Expected use of CPU, memory, disk and network.
    pub load: Load,
    /// The machine at each target that can take the recording, by target.
    pub shapes: BTreeMap<String, Shape>,
    /// Seconds after which the platform may end the task; `None`: never.
    pub max_duration_s: Option<u64>,
    /// Where the launch of this attempt was last requested.
    pub target: String,
    /// Targets that certainly did not launch it; the others are asked first.
    pub tried: BTreeSet<String>,
    /// Tasks that were launched and never recorded anything.
    pub lost_starts: u32,
    /// Salvage runs so far.
    pub salvages: u32,
    /// Tasks of earlier attempts, for the bill.
    #[serde(with = "by_attempt")]
    pub earlier: BTreeMap<u32, TaskRef>,
    /// Further fields, of a newer version.
    #[serde(flatten)]
    pub extra: BTreeMap<String, serde_json::Value>,
}

/// Keys of a JSON object are text. Beside flattened fields serde does not turn them into numbers by itself.
mod by_attempt {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    use crate::task::TaskRef;

    pub(super) fn serialize<S: Serializer>(tasks: &BTreeMap<u32, TaskRef>, serializer: S) -> Result<S::Ok, S::Error> {
        tasks.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<u32, TaskRef>, D::Error> {
        let mut earlier = BTreeMap::new();
        for (attempt, task) in BTreeMap::<String, TaskRef>::deserialize(deserializer)? {
            earlier.insert(attempt.parse::<u32>().map_err(D::Error::custom)?, task);
        }
        Ok(earlier)
    }
}
