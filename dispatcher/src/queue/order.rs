//! The order in which waiting launches go, as far as it is decided now: by shares alone, as if no target and no cap held one
//! back. For people who ask where an egress stands. Pure.

use std::collections::{BTreeMap, VecDeque};

use spillway_protocol::ids::EgressId;

use super::queued_launch::QueuedLaunch;

/// Launches that are put in order: it takes time for each of them and each tenant.
const MAX_PLACES: usize = 1000;

/// The next launches of one tenant, each with its place in the queue by age.
struct Waiting<'a> {
    used: f64,
    launches: VecDeque<(usize, &'a QueuedLaunch)>,
}

/// `queued`: the oldest first, before them what follows a dead task. `used`: what a tenant has used of its share.
pub(super) fn order<'a>(queued: impl Iterator<Item = &'a QueuedLaunch>, used: impl Fn(&str) -> f64) -> Vec<EgressId> {
    let mut order = Vec::new();
    let mut tenants: BTreeMap<&str, Waiting> = BTreeMap::new();
    for (place, launch) in queued.enumerate() {
        if launch.is_urgent() {
            order.push(launch.egress_id.clone());
            continue;
        }
        let new = || Waiting { used: used(&launch.tenant), launches: VecDeque::new() };
        tenants.entry(&launch.tenant).or_insert_with(new).launches.push_back((place, launch));
    }
    while order.len() < MAX_PLACES {
        let first = |waiting: &Waiting| waiting.launches.front().map(|(place, _)| *place);
        let next = tenants
            .values_mut()
            .filter(|waiting| !waiting.launches.is_empty())
            .min_by(|a, b| a.used.total_cmp(&b.used).then_with(|| first(a).cmp(&first(b))));
        let Some(waiting) = next else { break };
        let Some((_, launch)) = waiting.launches.pop_front() else { break };
        waiting.used += 1.0 / launch.weight_of_tenant();
        order.push(launch.egress_id.clone());
    }
    order
}
