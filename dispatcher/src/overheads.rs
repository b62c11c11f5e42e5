//! Seconds that each target's tasks are usually billed beside their recordings, shared by the actor that learns them and
//! the one that estimates with them.

use std::sync::{Arc, Mutex};

use spillway_cost::Overheads;

use crate::lock::locked;

/// Clones are one.
#[derive(Clone, Default)]
pub struct UsualOverheads(Arc<Mutex<Overheads>>);

impl UsualOverheads {
    /// One task's seconds.
    pub fn learn(&self, target: &str, extra_s: f64) {
        locked(&self.0).learn(target, extra_s);
    }

    /// `None` while nothing is known of the target.
    pub fn extra_s(&self, target: &str) -> Option<f64> {
        locked(&self.0).extra_s(target)
    }
}
