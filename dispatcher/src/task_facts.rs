//! What is known about a task when it is opened, and what it is expected to cost. Stored as JSON with the open task in
//! Redis, so that whichever dispatcher closes the task can bill it. Pure.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};
use spillway_cost::{Bill, Capacity, Load, Platform, PriceList, Rate, Shape, Usage, bill, expected};
use spillway_launchers::RunMode;

use crate::config::targets::TargetConfig;
use crate::queue::QueuedLaunch;
use crate::targets::Target;

/// Tasks per target that the usual overhead is taken from: enough that one slow image pull changes little, few enough to
/// follow a new image.
const REMEMBERED: usize = 31;

/// Enough for the bill of one task.
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
    /// Of a launch at `target`. `extra_s`: seconds usually billed there beside the recording, where known.
    pub fn of(
        queued: &QueuedLaunch,
        target: &Target,
        prices: &PriceList,
        extra_s: Option<f64>,
        opened_ms: i64,
    ) -> Self {
        let dispatch = &queued.dispatch;
        let TargetConfig { region, arch, capacity, nat, .. } = target.config.clone();
        let no_machine = Shape { cpu_milli: 0, memory_mib: 0, disk_gib: 0 };
        let mut facts = Self {
            room: dispatch.room.clone(),
            kind: dispatch.kind.clone(),
            salvage: queued.run_mode == RunMode::Salvage,
            platform: target.launcher.platform(),
            region,
            arch,
            capacity,
            nat,
            shape: dispatch.shapes.get(target.name()).copied().unwrap_or(no_machine),
            load: dispatch.load,
            opened_ms,
            hour: 0.0,
        };
        let hour = |rate| estimate(rate, facts.shape, &facts.load, 3600.0, facts.nat, extra_s).total;
        facts.hour = facts.rate(prices).map(hour).unwrap_or_default();
        facts
    }

    /// As JSON.
    pub fn text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The price of this machine; `None`: the list has none.
    pub fn rate<'a>(&self, prices: &'a PriceList) -> Option<&'a Rate> {
        rate(prices, self.platform, &self.region, &self.arch, self.capacity).map(|(rate, _)| rate)
    }
}

/// The rate, and whether it is of exactly that region. The on-demand rate where the platform has no spot prices.
pub fn rate<'a>(
    prices: &'a PriceList,
    platform: Platform,
    region: &str,
    arch: &str,
    capacity: Capacity,
) -> Option<(&'a Rate, bool)> {
    let arch = if arch.is_empty() { "x86_64" } else { arch };
    let on_demand = || prices.rate(platform, region, arch, Capacity::OnDemand);
    prices
        .rate(platform, region, arch, capacity)
        .or_else(on_demand)
        .map(|(rate, exact)| (rate, exact || region.is_empty()))
}

/// Expected bill of a recording of `seconds`. `extra_s`: seconds billed beside it, where more is known than the price
/// list's guess.
pub fn estimate(rate: &Rate, shape: Shape, load: &Load, seconds: f64, nat: bool, extra_s: Option<f64>) -> Bill {
    let expected = expected(load, seconds, rate, nat);
    let billed_s = extra_s.map_or(expected.billed_s, |extra_s| seconds + extra_s);
    bill(rate, shape, &Usage { billed_s, ..expected })
}

/// Seconds that each target's tasks were lately billed beside their recordings: image pull, start, shutdown. The price
/// list has a guess for each platform; the ledger knows better from its first task on.
#[derive(Debug, Default)]
pub struct Overheads {
    /// The newest last, by target.
    extra_s: BTreeMap<String, VecDeque<f64>>,
}

impl Overheads {
    /// One task's seconds; the oldest beyond [`REMEMBERED`] are dropped.
    pub fn learn(&mut self, target: &str, extra_s: f64) {
        let known = self.extra_s.entry(target.to_owned()).or_default();
        known.push_back(extra_s);
        if known.len() > REMEMBERED {
            known.pop_front();
        }
    }

    /// The median; `None` while nothing is known.
    pub fn extra_s(&self, target: &str) -> Option<f64> {
        let mut known: Vec<f64> = self.extra_s.get(target)?.iter().copied().collect();
        known.sort_by(f64::total_cmp);
        known.get(known.len() / 2).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_overhead_is_the_median_of_the_latest_tasks() {
        let mut overheads = Overheads::default();
        overheads.learn("near", 4.0);
        assert_eq!(overheads.extra_s("near"), Some(4.0), "one task says more than the list's guess");
        for extra_s in [400.0, 6.0] {
            overheads.learn("near", extra_s);
        }
        assert_eq!((overheads.extra_s("near"), overheads.extra_s("far")), (Some(6.0), None));
        for _ in 0..REMEMBERED {
            overheads.learn("near", 20.0);
        }
        assert_eq!(overheads.extra_s("near"), Some(20.0), "an older image is forgotten");
    }
}
