//! What is known about a task when it is opened: enough for its bill, also by another dispatcher.

use serde::{Deserialize, Serialize};

use crate::machine::{Capacity, Load, Platform, Shape};

/// Stored as JSON with the open task in Redis. A task whose facts cannot be read is left to a dispatcher that can.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskFacts {
    /// Name of the room.
    pub room: String,
    /// Kind of egress.
    pub kind: String,
    /// The task completes uploads of another one.
    #[serde(default)]
    pub salvage: bool,
    /// Whose prices apply.
    pub platform: Platform,
    /// Empty: the platform's first in the price list.
    #[serde(default)]
    pub region: String,
    /// Empty: `x86_64`.
    #[serde(default)]
    pub arch: String,
    /// On demand or spot, as requested.
    #[serde(default)]
    pub capacity: Capacity,
    /// Media pass a NAT gateway.
    #[serde(default)]
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
        // Texts and numbers alone: it cannot fail.
        serde_json::to_string(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As version 0.1.0 stores it.
    const STORED: &str = include_str!("golden/task-facts.json");

    #[test]
    fn facts_of_version_0_1_0_are_read_and_written_as_they_were() {
        let facts: TaskFacts = serde_json::from_str(STORED).unwrap();
        assert_eq!((facts.platform, facts.capacity, facts.shape.cpu_milli), (Platform::Fargate, Capacity::Spot, 1000));
        let stored: serde_json::Value = serde_json::from_str(STORED).unwrap();
        let mut written = serde_json::to_value(&facts).unwrap();
        let page = written["load"].as_object_mut().unwrap().remove("page");
        assert_eq!((written, page), (stored, Some(false.into())));
    }

    #[test]
    fn unknown_fields_are_passed_over_and_an_unknown_platform_is_an_error() {
        let mut stored: serde_json::Value = serde_json::from_str(STORED).unwrap();
        stored["novelty"] = serde_json::json!([1]);
        stored.as_object_mut().unwrap().remove("hour");
        assert_eq!(serde_json::from_value::<TaskFacts>(stored.clone()).unwrap().hour, 0.0);
        stored["platform"] = "moon".into();
        assert!(serde_json::from_value::<TaskFacts>(stored).is_err());
    }
}
