//! A task that is gone, in money. Pure.

use serde::{Deserialize, Serialize};
use spillway_bus::TaskKey;
use spillway_cost::{Bill, Capacity, Platform, PriceList, Usage, bill, puts};
use spillway_launchers::TaskMachine;

use super::facts::{TaskFacts, estimate};

/// What became of it.
#[derive(Clone, Debug, Default)]
pub struct TaskEnd {
    /// Unix milliseconds.
    pub from_ms: i64,
    pub to_ms: i64,
    /// The window is the vendor's.
    pub by_vendor: bool,
    /// Nothing of it ran, so nothing is billed.
    pub never_ran: bool,
    pub machine: Option<TaskMachine>,
    /// Bytes of the files it made.
    pub bytes: u64,
    /// Of the recording, not of the machine.
    pub recorded_s: f64,
    pub outcome: String,
}

/// One line of the ledger.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    pub egress_id: String,
    pub attempt: u32,
    #[serde(default)]
    pub salvage: bool,
    pub room: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub tenant: String,
    pub target: String,
    pub platform: Platform,
    pub region: String,
    pub arch: String,
    pub capacity: Capacity,
    pub cpu_milli: u32,
    pub memory_mib: u32,
    pub disk_gib: u32,
    pub from_ms: i64,
    pub to_ms: i64,
    /// Billed.
    pub seconds: f64,
    pub recorded_s: f64,
    /// `vendor`, or `own` clock where the vendor says nothing.
    pub window: String,
    pub bytes: u64,
    /// Computed from time and bytes.
    pub puts: f64,
    pub amount: f64,
    pub parts: Bill,
    /// What was to be expected of a recording of this length.
    pub estimate: f64,
    /// What an hour of it was expected to cost when it was launched.
    #[serde(default)]
    pub estimate_hour: f64,
    pub currency: String,
    /// Empty: there is no price for this machine.
    pub price_version: String,
    pub outcome: String,
}

/// `extra_s`: seconds usually billed at this target beside the recording, where that is known.
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
    let rate = facts.rate(prices);
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
        room: facts.room,
        kind: facts.kind,
    }
}

/// `2026-11`, in UTC.
pub fn month(unix_ms: i64) -> String {
    let (year, month, _) = civil(unix_ms.div_euclid(86_400_000));
    format!("{year:04}-{month:02}")
}

/// `2026-11-22`, in UTC.
pub fn day(unix_ms: i64) -> String {
    let (year, month, day) = civil(unix_ms.div_euclid(86_400_000));
    format!("{year:04}-{month:02}-{day:02}")
}

/// Days since 1970 → year, month, day (Howard Hinnant's algorithm).
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// Days since 1970 of a date in UTC.
pub fn days_of(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let shifted = if month > 2 { month - 3 } else { month + 9 };
    let of_year = (153 * shifted + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;
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

    pub fn some() -> Entry {
        of(&facts(), &TaskEnd::default())
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
        assert!(line.contains("\"type\":\"room_composite\"") && !line.contains('\n'));
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

    proptest! {
        #[test]
        fn a_day_is_found_again(days in -200_000i64..200_000) {
            let (year, month, day) = civil(days);
            prop_assert_eq!(days_of(year, month, day), days);
        }
    }
}
