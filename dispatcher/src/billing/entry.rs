//! One line of the ledger: a task that is gone, with its bill. And the calendar of bills, which is UTC. Pure.

use chrono::DateTime;
use serde::{Deserialize, Serialize};
use spillway_bus::{TaskFacts, TaskKey};
use spillway_cost::{Bill, Capacity, Platform, PriceList, Usage, bill, estimate, puts};
use spillway_launchers::{TaskLinks, TaskMachine};

/// How a task ended, as far as the bill needs it.
#[derive(Clone, Debug, Default)]
pub struct TaskEnd {
    /// Unix milliseconds; begin of the billed window.
    pub from_ms: i64,
    /// Unix milliseconds; end of the billed window.
    pub to_ms: i64,
    /// The platform reported the window; else it is from our own clock.
    pub by_vendor: bool,
    /// No container started, so nothing is billed.
    pub never_ran: bool,
    /// The machine it really had, where the platform says so.
    pub machine: Option<TaskMachine>,
    /// Size of its files.
    pub bytes: u64,
    /// Length of the recording.
    pub recorded_s: f64,
    /// Status of the egress, its error, or how the task exited.
    pub outcome: String,
    /// Its pages in its platform's console.
    pub links: TaskLinks,
}

/// One line of the ledger.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Of the egress.
    pub egress_id: String,
    /// Of the task.
    pub attempt: u32,
    /// The task completed uploads of another one.
    #[serde(default)]
    pub salvage: bool,
    /// Name of the room.
    pub room: String,
    /// Kind of egress.
    #[serde(rename = "type")]
    pub kind: String,
    /// It was recorded from a web page. Lines of older versions have none.
    #[serde(default)]
    pub page: bool,
    /// Empty where there is only one tenant.
    pub tenant: String,
    /// Where it ran.
    pub target: String,
    /// Whose prices apply.
    pub platform: Platform,
    /// Of the price.
    pub region: String,
    /// Of the price.
    pub arch: String,
    /// On demand or spot.
    pub capacity: Capacity,
    /// Thousandths of a vCPU.
    pub cpu_milli: u32,
    /// Memory.
    pub memory_mib: u32,
    /// Disk.
    pub disk_gib: u32,
    /// Unix milliseconds; begin of the billed window.
    pub from_ms: i64,
    /// Unix milliseconds; end of the billed window.
    pub to_ms: i64,
    /// Billed seconds, with the platform's minimum.
    pub seconds: f64,
    /// Length of the recording.
    pub recorded_s: f64,
    /// Whose clock the window is from: `vendor`, or `own` where the platform reports none.
    pub window: String,
    /// Size of the files.
    pub bytes: u64,
    /// Requests to the store, computed from time and bytes.
    pub puts: f64,
    /// In `currency`.
    pub amount: f64,
    /// What `amount` is made of.
    pub parts: Bill,
    /// Expected amount for a recording of this length.
    pub estimate: f64,
    /// Expected amount for an hour, as estimated at the launch.
    #[serde(default)]
    pub estimate_hour: f64,
    /// Of the price list.
    pub currency: String,
    /// Of the price list; empty: it has no price for this machine.
    pub price_version: String,
    /// See [`TaskEnd::outcome`].
    pub outcome: String,
    /// `task_url` and `log_url`: its pages in its platform's console. Lines of older versions have none.
    #[serde(flatten)]
    pub links: TaskLinks,
}

impl Entry {
    /// Seconds billed beside the recording; `None` where they say nothing about other tasks: our own clock, a salvage
    /// run, a recording that did not end well, or one that other tasks had begun.
    pub fn extra_s(&self) -> Option<f64> {
        let usual = self.window == "vendor" && !self.salvage && self.recorded_s > 0.0;
        let window_s = self.to_ms.saturating_sub(self.from_ms) as f64 / 1000.0;
        (usual && self.outcome == "egress_complete" && window_s >= self.recorded_s)
            .then_some(window_s - self.recorded_s)
    }
}

/// The line of a task. `extra_s`: seconds usually billed at this target beside the recording, where known.
pub fn entry(
    task: &TaskKey,
    (tenant, target): (&str, &str),
    facts: &TaskFacts,
    end: &TaskEnd,
    prices: &PriceList,
    extra_s: Option<f64>,
) -> Entry {
    let mut facts = facts.clone();
    if let Some(machine) = end.machine {
        facts.shape = machine.shape;
        facts.capacity = machine.capacity;
    }
    let billed_s = (end.to_ms.saturating_sub(end.from_ms)).max(0) as f64 / 1000.0;
    let puts = if end.bytes > 0 { puts(&facts.load, end.recorded_s, end.bytes as f64) } else { 0.0 };
    let received = if facts.nat { end.recorded_s * facts.load.received + end.bytes as f64 } else { 0.0 };
    let usage = Usage { billed_s, nat_bytes: received, address: !facts.nat, puts, launches: u32::from(!end.never_ran) };
    let rate = prices.rate_of(&facts);
    let parts = rate.map(|rate| bill(rate, facts.shape, &usage)).unwrap_or_default();
    let estimate = rate
        .filter(|_| !end.never_ran && !facts.salvage)
        .map(|rate| estimate(rate, facts.shape, &facts.load, end.recorded_s, facts.nat, extra_s).total);
    Entry {
        egress_id: task.egress_id.to_string(),
        attempt: task.attempt,
        salvage: facts.salvage,
        tenant: tenant.to_owned(),
        target: target.to_owned(),
        platform: facts.platform,
        region: rate.map_or(facts.region.clone(), |rate| rate.region.clone()),
        arch: rate.map_or(facts.arch.clone(), |rate| rate.arch.clone()),
        capacity: facts.capacity,
        cpu_milli: facts.shape.cpu_milli,
        memory_mib: facts.shape.memory_mib,
        disk_gib: facts.shape.disk_gib,
        from_ms: end.from_ms,
        to_ms: end.to_ms,
        seconds: if end.never_ran { 0.0 } else { parts.seconds.max(billed_s) },
        recorded_s: end.recorded_s,
        window: if end.by_vendor { "vendor" } else { "own" }.to_owned(),
        bytes: end.bytes,
        puts,
        amount: parts.total,
        parts,
        estimate: estimate.unwrap_or_default(),
        estimate_hour: facts.hour,
        currency: prices.currency.clone(),
        price_version: rate.map(|_| prices.version.clone()).unwrap_or_default(),
        outcome: end.outcome.clone(),
        links: end.links.clone(),
        page: facts.load.page,
        room: facts.room,
        kind: facts.kind,
    }
}

/// `2026-11`, in UTC.
pub fn month(unix_ms: i64) -> String {
    utc(unix_ms, "%Y-%m")
}

/// `2026-11-22`, in UTC.
pub fn day(unix_ms: i64) -> String {
    utc(unix_ms, "%Y-%m-%d")
}

fn utc(unix_ms: i64, format: &str) -> String {
    DateTime::from_timestamp_millis(unix_ms).unwrap_or_default().format(format).to_string()
}

#[cfg(test)]
mod tests {
    use spillway_cost::{Load, Shape};
    use spillway_protocol::ids::EgressId;

    use super::*;

    fn facts() -> TaskFacts {
        TaskFacts {
            room: "acme/standup".to_owned(),
            kind: "room_composite".to_owned(),
            salvage: false,
            platform: Platform::Fargate,
            region: "us-east-1".to_owned(),
            arch: "arm64".to_owned(),
            capacity: Capacity::OnDemand,
            nat: false,
            shape: Shape { cpu_milli: 2000, memory_mib: 4096, disk_gib: 20 },
            load: Load { written: 400_000.0, received: 250_000.0, files: 1, stored: true, ..Load::default() },
            opened_ms: 0,
            hour: 0.1,
        }
    }

    fn of(facts: &TaskFacts, end: &TaskEnd) -> Entry {
        let task = TaskKey { egress_id: EgressId::parse("EG_1").unwrap(), attempt: 2 };
        entry(&task, ("acme", "near"), facts, end, &PriceList::built_in().unwrap(), None)
    }

    #[test]
    fn an_hour_is_billed_by_the_vendors_window_and_close_to_what_was_expected() {
        let end = TaskEnd {
            from_ms: 1000,
            to_ms: 1000 + 3_650_000,
            by_vendor: true,
            bytes: 1_440_000_000,
            recorded_s: 3600.0,
            ..TaskEnd::default()
        };
        let entry = of(&facts(), &end);
        // 2 vCPU and 4 GB of ARM at us-east-1, an address, and parts of an hour's recording.
        let hours = 3650.0 / 3600.0;
        let machine = hours * (2.0 * 0.03238 + 4.0 * 0.00356 + 0.005);
        assert!((entry.amount - machine - entry.parts.requests - entry.parts.launches).abs() < 1e-12, "{entry:?}");
        assert!((0.0015..0.003).contains(&entry.parts.requests), "{entry:?}");
        assert!((entry.estimate / entry.amount - 1.0).abs() < 0.02, "{} {}", entry.estimate, entry.amount);
        assert_eq!((entry.window.as_str(), entry.seconds), ("vendor", 3650.0));
        let line = serde_json::to_string(&entry).unwrap();
        assert!(line.contains("\"type\":\"room_composite\"") && !line.contains('\n') && !line.contains("_url"));
        assert_eq!(serde_json::from_str::<Entry>(&line).unwrap(), entry);
        let links = TaskLinks { task_url: Some("https://console.example/1".to_owned()), log_url: None };
        let entry = Entry { links, ..entry };
        let line = serde_json::to_string(&entry).unwrap();
        assert!(line.contains("\"task_url\":\"https://console.example/1\""), "{line}");
        assert_eq!(serde_json::from_str::<Entry>(&line).unwrap(), entry);
    }

    #[test]
    fn what_never_ran_costs_nothing_and_what_ran_elsewhere_is_billed_as_that() {
        let end = TaskEnd { to_ms: 60_000, never_ran: true, ..TaskEnd::default() };
        assert_eq!((of(&facts(), &end).amount, of(&facts(), &end).seconds), (0.0, 0.0));
        let machine =
            TaskMachine { shape: Shape { cpu_milli: 1000, memory_mib: 2048, disk_gib: 20 }, capacity: Capacity::Spot };
        let end = TaskEnd { to_ms: 3_600_000, machine: Some(machine), ..TaskEnd::default() };
        let entry = of(&facts(), &end);
        assert!((entry.parts.compute - 0.009714).abs() < 1e-9, "{entry:?}");
        assert_eq!((entry.capacity, entry.window.as_str()), (Capacity::Spot, "own"));
    }

    #[test]
    fn days_and_months_are_those_of_the_calendar() {
        assert_eq!((day(0).as_str(), month(0).as_str()), ("1970-01-01", "1970-01"));
        assert_eq!(day(1_709_251_199_999), "2024-02-29");
        assert_eq!(day(1_709_251_200_000), "2024-03-01");
        assert_eq!(day(-1), "1969-12-31");
    }

    #[test]
    fn only_a_recording_that_ended_well_in_the_vendors_window_tells_the_overhead() {
        let entry = |outcome: &str| Entry {
            to_ms: 104_000,
            recorded_s: 100.0,
            window: "vendor".to_owned(),
            outcome: outcome.to_owned(),
            ..of(&facts(), &TaskEnd::default())
        };
        assert_eq!(entry("egress_complete").extra_s(), Some(4.0));
        assert_eq!(entry("the runner died").extra_s(), None);
        assert_eq!(Entry { recorded_s: 105.0, ..entry("egress_complete") }.extra_s(), None, "another task began it");
        assert_eq!(Entry { window: "own".to_owned(), ..entry("egress_complete") }.extra_s(), None);
    }
}
