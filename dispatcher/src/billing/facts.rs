use serde::{Deserialize, Serialize};
use spillway_cost::{Bill, Capacity, Load, Platform, PriceList, Rate, Shape, Usage, bill, expected};
use spillway_launchers::RunMode;

use crate::config::targets::TargetConfig;
use crate::context::Context;
use crate::queue::QueuedLaunch;
use crate::targets::Target;

/// What is known about a task when it is opened; enough for its bill, whoever writes that.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskFacts {
    pub room: String,
    pub kind: String,
    pub salvage: bool,
    pub platform: Platform,
    pub region: String,
    pub arch: String,
    pub capacity: Capacity,
    pub nat: bool,
    pub shape: Shape,
    pub load: Load,
    /// Unix milliseconds.
    pub opened_ms: i64,
    /// What an hour of it was expected to cost when it was opened, in dollars; 0 without a price.
    #[serde(default)]
    pub hour: f64,
}

impl TaskFacts {
    pub fn of(context: &Context, queued: &QueuedLaunch, target: &Target) -> Self {
        let dispatch = &queued.dispatch;
        let TargetConfig { region, arch, capacity, nat, .. } = target.config.clone();
        let mut facts = Self {
            room: dispatch.room.clone(),
            kind: dispatch.kind.clone(),
            salvage: queued.run_mode == RunMode::Salvage,
            platform: target.launcher.platform(),
            region,
            arch,
            capacity,
            nat,
            shape: dispatch.shapes.get(target.name()).copied().unwrap_or(Shape {
                cpu_milli: 0,
                memory_mib: 0,
                disk_gib: 0,
            }),
            load: dispatch.load,
            opened_ms: context.clock.unix_ms(),
            hour: 0.0,
        };
        let (config, extra_s) = (context.config(), context.overheads().extra_s(target.name()));
        let hour = |rate| estimate(rate, facts.shape, &facts.load, 3600.0, facts.nat, extra_s).total;
        facts.hour = facts.rate(&config.prices).map(hour).unwrap_or_default();
        facts
    }

    pub fn text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    pub fn rate<'a>(&self, prices: &'a PriceList) -> Option<&'a Rate> {
        rate(prices, self.platform, &self.region, &self.arch, self.capacity).map(|(rate, _)| rate)
    }
}

/// The rate, and whether it is of that very region. A platform without spot prices has none to offer.
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

/// What a recording of `seconds` will cost there. `extra_s`: what is billed beside it, where more is known than the list's
/// guess.
pub fn estimate(rate: &Rate, shape: Shape, load: &Load, seconds: f64, nat: bool, extra_s: Option<f64>) -> Bill {
    let expected = expected(load, seconds, rate, nat);
    let billed_s = extra_s.map_or(expected.billed_s, |extra_s| seconds + extra_s);
    bill(rate, shape, &Usage { billed_s, ..expected })
}
