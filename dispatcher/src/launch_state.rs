//! What is stored about a launch: [`Dispatch`], the dispatcher's part of a record, and [`TaskFacts`] beside the open task.
//! Read and written inside `Registry::update` and when a task is opened; nothing here talks to Redis.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use spillway_bus::{Record, TaskKey};
use spillway_cost::{Capacity, Load, Platform, PriceList, Rate, Shape};
use spillway_launchers::TaskRef;

/// Name of [`Dispatch`] among the record's extra fields.
const DISPATCH: &str = "dispatch";

/// State of the launch, stored in the record as the JSON field `dispatch`. Fields are added with a default and never
/// change their meaning: dispatchers of two versions read the same records during an upgrade.
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
    /// A launch was requested and its outcome is unknown or positive: no other target is asked before it is known.
    pub asked: bool,
    /// The next launch needs a new attempt number.
    pub fresh: bool,
    /// Targets that certainly did not launch it; the others are asked first.
    pub tried: BTreeSet<String>,
    /// Tasks that were launched and never recorded anything.
    pub lost_starts: u32,
    /// Salvage runs so far.
    pub salvages: u32,
    /// Tasks of earlier attempts, for the bill.
    pub earlier: BTreeMap<u32, TaskRef>,
}

impl Dispatch {
    /// Of a record; the default where the record has none or it cannot be parsed.
    pub fn of(record: &Record) -> Self {
        record.extra.get(DISPATCH).and_then(|value| serde_json::from_value(value.clone()).ok()).unwrap_or_default()
    }

    /// Into the record, which the caller stores.
    pub fn write(&self, record: &mut Record) {
        if let Ok(value) = serde_json::to_value(self) {
            record.extra.insert(DISPATCH.to_owned(), value);
        }
    }

    /// The next launch needs a number of its own: a platform may still know the previous one, and so may another
    /// dispatcher.
    pub fn is_fresh_at(&self, target: &str) -> bool {
        self.fresh || (!self.target.is_empty() && self.target != target)
    }
}

/// The task a record names; `None`: it names none, or in a form of a newer version.
pub fn task_of(record: &Record) -> Option<TaskRef> {
    record.task.as_deref().and_then(|text| serde_json::from_str(text).ok())
}

/// The launch a record is at.
pub fn key_of(record: &Record) -> TaskKey {
    TaskKey { egress_id: record.egress_id.clone(), attempt: record.attempt }
}

/// What is known about a task when it is opened: enough for its bill. Stored as JSON with the open task in Redis, so that
/// whichever dispatcher closes the task can bill it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskFacts {
    /// Name of the room.
    pub room: String,
    /// Kind of egress.
    pub kind: String,
    /// The task completes uploads of another one.
    pub salvage: bool,
    /// Whose prices apply.
    pub platform: Platform,
    /// Empty: the platform's first in the price list.
    pub region: String,
    /// Empty: `x86_64`.
    pub arch: String,
    /// On demand or spot, as requested.
    pub capacity: Capacity,
    /// Media pass a NAT gateway.
    pub nat: bool,
    /// The machine that was requested.
    pub shape: Shape,
    /// Expected use.
    pub load: Load,
    /// Unix milliseconds.
    pub opened_ms: i64,
    /// Expected cost of one hour when the task was opened, in dollars; 0 without a price.
    #[serde(default)]
    pub hour: f64,
}

impl TaskFacts {
    /// As JSON.
    pub fn text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The price of this machine; `None`: the list has none.
    pub fn rate<'a>(&self, prices: &'a PriceList) -> Option<&'a Rate> {
        prices.rate(self.platform, &self.region, &self.arch, self.capacity).map(|(rate, _)| rate)
    }
}
