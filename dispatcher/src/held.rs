//! Ids that one task at a time works on.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use spillway_protocol::ids::EgressId;

use crate::lock::locked;

/// Clones are one set.
#[derive(Clone, Default)]
pub struct HeldIds(Arc<Mutex<HashSet<EgressId>>>);

impl HeldIds {
    /// `None`: another task holds it.
    pub fn take(&self, egress_id: &EgressId) -> Option<HeldId> {
        let is_new = locked(&self.0).insert(egress_id.clone());
        is_new.then(|| HeldId { held: self.clone(), egress_id: egress_id.clone() })
    }

    /// A task holds it.
    pub fn contains(&self, egress_id: &EgressId) -> bool {
        locked(&self.0).contains(egress_id)
    }

    /// No task holds any.
    pub fn is_empty(&self) -> bool {
        locked(&self.0).is_empty()
    }
}

/// One id of the set, until it is dropped.
pub struct HeldId {
    held: HeldIds,
    egress_id: EgressId,
}

impl Drop for HeldId {
    fn drop(&mut self) {
        locked(&self.held.0).remove(&self.egress_id);
    }
}
