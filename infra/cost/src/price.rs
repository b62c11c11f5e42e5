//! What a machine costs: the price list (read, checked, searched), the bill of one task, and the estimate before it runs. The
//! built-in list (`prices.json`) is replaced by one from the configuration.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};
use spillway_model::{Capacity, Load, Platform, Shape, TaskFacts};

/// Prices on the day of this version.
const BUILT_IN: &str = include_str!("../prices.json");

const HOUR: f64 = 3600.0;
const GB: f64 = 1e9;
/// Parts of an upload are 5 MiB at first, then larger; an unfinished one is sent every 10 s when it takes longer to fill.
const PART: f64 = 5.0 * 1024.0 * 1024.0;
const CHECKPOINT_S: f64 = 10.0;
/// Create, the first part a second time, complete, and the manifest.
const PUTS_PER_FILE: f64 = 4.0;

/// Why a price list is not used.
#[derive(Debug, thiserror::Error)]
pub enum PriceError {
    /// Not JSON, or a field is missing or unknown.
    #[error("price list is not readable")]
    Syntax(#[source] serde_json::Error),
    /// A price is negative or not finite, or a billing step is not positive; the text names platform and region.
    #[error("price list: {0}")]
    Content(String),
}

/// Prices of one day, in US dollars before any discount.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PriceList {
    /// Day of the prices, e.g. `2026-08-27`; written beside every amount computed with the list.
    pub version: String,
    /// `USD`.
    pub currency: String,
    /// In order of preference: the first rate of a platform stands for regions that are not listed.
    pub rates: Vec<Rate>,
}

/// Prices of one kind of machine in one region, US dollars.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// Who sells the machine.
    pub platform: Platform,
    /// The vendor's name of the region.
    pub region: String,
    /// `x86_64` or `arm64`.
    pub arch: String,
    /// How it is bought.
    #[serde(default)]
    pub capacity: Capacity,
    /// One vCPU for an hour.
    pub vcpu_hour: f64,
    /// One GB of memory for an hour. The vendors' GB is 1024 MiB.
    pub gb_hour: f64,
    /// One GB of ephemeral disk for an hour, beyond what is included.
    #[serde(default)]
    pub disk_gb_hour: f64,
    /// Ephemeral disk that costs nothing.
    #[serde(default)]
    pub disk_included_gb: u32,
    /// A public IPv4 address for an hour.
    #[serde(default)]
    pub address_hour: f64,
    /// One GB (10⁹ bytes) through a NAT gateway, either way.
    #[serde(default)]
    pub nat_gb: f64,
    /// A thousand writing requests to the object store.
    #[serde(default)]
    pub puts_thousand: f64,
    /// One launch, beside the machine (events, functions).
    #[serde(default)]
    pub launch: f64,
    /// Shortest billed time, seconds.
    #[serde(default)]
    pub min_s: f64,
    /// Billed time is rounded up to a multiple of this, seconds; positive.
    pub step_s: f64,
    /// Typical billed time before the recording begins (image pull, start), seconds; for estimates.
    #[serde(default)]
    pub start_s: f64,
    /// Typical billed time after the recording ends, seconds; for estimates.
    #[serde(default)]
    pub end_s: f64,
}

impl PriceList {
    /// The list of this version.
    ///
    /// # Errors
    ///
    /// As [`PriceList::parse`]; a test excludes it for the list that ships.
    pub fn built_in() -> Result<Self, PriceError> {
        Self::parse(BUILT_IN)
    }

    /// Reads and checks a list in JSON.
    ///
    /// # Errors
    ///
    /// The text is not a list, or a price in it is impossible. A retry is useless.
    pub fn parse(text: &str) -> Result<Self, PriceError> {
        let list: Self = serde_json::from_str(text).map_err(PriceError::Syntax)?;
        for rate in &list.rates {
            let amounts = [
                rate.vcpu_hour,
                rate.gb_hour,
                rate.disk_gb_hour,
                rate.address_hour,
                rate.nat_gb,
                rate.puts_thousand,
                rate.launch,
                rate.min_s,
                rate.start_s,
                rate.end_s,
            ];
            if amounts.iter().any(|amount| !amount.is_finite() || *amount < 0.0) || rate.step_s <= 0.0 {
                return Err(PriceError::Content(format!(
                    "{:?} in {}: prices are not negative and step_s is more than 0",
                    rate.platform, rate.region
                )));
            }
        }
        Ok(list)
    }

    /// The rate of this region, and `true`; where the region is not listed, the first rate that fits otherwise, and `false`.
    /// The on-demand rate where the platform has no spot prices. An empty `arch` is `x86_64`; an empty `region` is the first
    /// of the list. `None` where no region of the list sells it.
    pub fn rate(&self, platform: Platform, region: &str, arch: &str, capacity: Capacity) -> Option<(&Rate, bool)> {
        let arch = if arch.is_empty() { "x86_64" } else { arch };
        let of = |capacity| {
            let fits = move |rate: &&Rate| rate.platform == platform && rate.arch == arch && rate.capacity == capacity;
            let exact = self.rates.iter().filter(fits).find(|rate| rate.region == region);
            exact
                .map(|rate| (rate, true))
                .or_else(|| self.rates.iter().find(fits).map(|rate| (rate, region.is_empty())))
        };
        of(capacity).or_else(|| of(Capacity::OnDemand))
    }

    /// The rate of a task's machine; `None`: the list has none.
    pub fn rate_of(&self, facts: &TaskFacts) -> Option<&Rate> {
        self.rate(facts.platform, &facts.region, &facts.arch, facts.capacity).map(|(rate, _)| rate)
    }
}

/// What one task has used, as far as it is billed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// Time the vendor bills, seconds, before minimum and rounding.
    pub billed_s: f64,
    /// Bytes through a NAT gateway, both ways; 0 for a task with a public address.
    pub nat_bytes: f64,
    /// The task had a public address.
    pub address: bool,
    /// Writing requests to the object store.
    pub puts: f64,
    /// Launches of a machine; 0 for a task that never started.
    pub launches: u32,
}

/// Cost of one task in US dollars, by item; the items add up to `total`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Bill {
    /// vCPUs.
    pub compute: f64,
    /// Memory.
    pub memory: f64,
    /// Ephemeral disk beyond what the platform includes.
    pub disk: f64,
    /// Public IPv4 address.
    pub address: f64,
    /// NAT gateway.
    pub nat: f64,
    /// Writing requests to the object store.
    pub requests: f64,
    /// Per launch (events, functions).
    pub launches: f64,
    /// Sum of the items above.
    pub total: f64,
    /// Billed time: `Usage::billed_s` in whole steps, at least the platform's minimum; 0 without a launch.
    pub seconds: f64,
}

/// The vendor's arithmetic: rates times shape times billed time, plus what is charged by amount.
pub fn bill(rate: &Rate, shape: Shape, usage: &Usage) -> Bill {
    let steps = (usage.billed_s.max(0.0) / rate.step_s).ceil();
    let seconds = if usage.launches == 0 { 0.0 } else { (steps * rate.step_s).max(rate.min_s) };
    let hours = seconds / HOUR;
    let extra_disk = f64::from(shape.disk_gib.saturating_sub(rate.disk_included_gb));
    let mut bill = Bill {
        compute: hours * f64::from(shape.cpu_milli) / 1000.0 * rate.vcpu_hour,
        memory: hours * f64::from(shape.memory_mib) / 1024.0 * rate.gb_hour,
        disk: hours * extra_disk * rate.disk_gb_hour,
        address: if usage.address { hours * rate.address_hour } else { 0.0 },
        nat: usage.nat_bytes / GB * rate.nat_gb,
        requests: usage.puts / 1000.0 * rate.puts_thousand,
        launches: f64::from(usage.launches) * rate.launch,
        total: 0.0,
        seconds,
    };
    bill.total = bill.compute + bill.memory + bill.disk + bill.address + bill.nat + bill.requests + bill.launches;
    bill
}

/// Expected bill of a recording of `seconds`. `extra_s`: seconds billed beside it, where more is known than the price
/// list's guess.
pub fn estimate(rate: &Rate, shape: Shape, load: &Load, seconds: f64, nat: bool, extra_s: Option<f64>) -> Bill {
    let expected = expected(load, seconds, rate, nat);
    let billed_s = extra_s.map_or(expected.billed_s, |extra_s| seconds + extra_s);
    bill(rate, shape, &Usage { billed_s, ..expected })
}

/// Expected use of a recording of `seconds`: with start and end of the task as the rate lists them, one launch, and a public
/// address unless `behind_nat`.
fn expected(load: &Load, seconds: f64, rate: &Rate, behind_nat: bool) -> Usage {
    let written = seconds * load.written;
    Usage {
        billed_s: rate.start_s + seconds + rate.end_s,
        nat_bytes: if behind_nat { seconds * (load.received + load.streamed) + written } else { 0.0 },
        address: !behind_nat,
        puts: puts(load, seconds, written),
        launches: 1,
    }
}

/// Estimate of the writing requests for `written` bytes recorded over `seconds`, in all outputs; 0 where all stay on the
/// machine.
pub fn puts(load: &Load, seconds: f64, written: f64) -> f64 {
    if !load.stored {
        return 0.0;
    }
    // What segments and images have is in no part of a file.
    let in_objects = if load.written > 0.0 { (load.written_objects / load.written).min(1.0) } else { 0.0 };
    let per_file = written * (1.0 - in_objects) / f64::from(load.files.max(1));
    let puts_per_file = (per_file / PART).max(seconds / CHECKPOINT_S) + PUTS_PER_FILE;
    f64::from(load.files.saturating_sub(load.local_files)) * puts_per_file + load.objects * seconds
}

/// Tasks per target that the usual overhead is taken from: enough that one slow image pull changes little, few enough to
/// follow a new image.
const REMEMBERED: usize = 31;

/// Seconds that each target's tasks were lately billed beside their recordings: image pull, start, shutdown. The price
/// list has a guess for each platform; the ledger knows better from its first task on.
#[derive(Debug, Default)]
pub struct Overheads {
    /// The newest last, by target.
    extra_s: BTreeMap<String, VecDeque<f64>>,
}

impl Overheads {
    /// One task's seconds; only the newest 31 count.
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
    use proptest::prelude::*;

    use super::*;
    use crate::shape::shape;
    use crate::shape::tests::{composed, track};

    fn rate(platform: Platform) -> Rate {
        let list = PriceList::built_in().unwrap();
        list.rate(platform, "", "x86_64", Capacity::OnDemand).unwrap().0.clone()
    }

    fn stored(plan: &spillway_plan::EgressPlan) -> Load {
        Load { files: 1, local_files: 0, stored: true, ..crate::shape::load(plan) }
    }

    #[test]
    fn segments_beside_a_file_are_counted_as_segments_and_only_where_they_are_stored() {
        // 10 MB a second; a segment and a playlist each four seconds.
        let (second, seconds) = (1e7, 3600.0);
        let file = Load { files: 1, stored: true, written: second, ..Load::default() };
        let alone = puts(&file, seconds, second * seconds);
        assert!((alone - (second * seconds / PART + PUTS_PER_FILE)).abs() < 1e-6, "{alone}");
        let both = Load { written: 2.0 * second, written_objects: second, objects: 0.5, ..file };
        let beside = puts(&both, seconds, 2.0 * second * seconds);
        assert!((beside - alone - 1800.0).abs() < 1e-6, "{beside}");
        let local = Load { local: true, local_files: 1, ..both };
        assert!((puts(&local, seconds, 2.0 * second * seconds) - 1800.0).abs() < 1e-6);
        let two = Load { files: 2, local_files: 1, local: true, written: 2.0 * second, ..file };
        assert!((puts(&two, seconds, 2.0 * second * seconds) - alone).abs() < 1e-6, "one of them is uploaded");
        assert_eq!(puts(&Load { stored: false, ..both }, seconds, second), 0.0);
    }

    /// Computed by hand from the vendors' pages of the built-in list's day, per hour of recording on 2 vCPU and 4 GiB.
    #[test]
    fn an_hour_costs_what_the_vendors_lists_say() {
        let machine = Shape { cpu_milli: 2000, memory_mib: 4096, disk_gib: 20 };
        for (platform, dollars) in [(Platform::Fargate, 0.100), (Platform::CloudRun, 0.160), (Platform::Aci, 0.101)] {
            let rate = rate(platform);
            let usage = Usage { billed_s: rate.start_s + 3600.0 + rate.end_s, launches: 1, ..Usage::default() };
            let bill = bill(&rate, machine, &usage);
            assert!((bill.total - dollars).abs() < 0.0006, "{platform:?} {bill:?}");
        }
    }

    #[test]
    fn a_second_is_billed_as_a_minute_where_the_vendor_does() {
        let machine = Shape { cpu_milli: 1000, memory_mib: 2048, disk_gib: 20 };
        let usage = Usage { billed_s: 1.2, launches: 1, ..Usage::default() };
        assert_eq!(bill(&rate(Platform::Fargate), machine, &usage).seconds, 60.0);
        assert_eq!(bill(&rate(Platform::Aci), machine, &usage).seconds, 2.0);
        let never_started = Usage { launches: 0, ..Usage::default() };
        assert_eq!(bill(&rate(Platform::Fargate), machine, &never_started).total, 0.0);
    }

    #[test]
    fn a_track_for_an_hour_is_a_few_cents_and_nat_is_seen() {
        let rate = rate(Platform::Fargate);
        let machine = shape(&track(), Platform::Fargate).unwrap();
        let open = bill(&rate, machine, &expected(&stored(&track()), 3600.0, &rate, false));
        let hidden = bill(&rate, machine, &expected(&stored(&track()), 3600.0, &rate, true));
        assert!((0.01..0.03).contains(&open.total), "{open:?}");
        assert!(hidden.nat > hidden.compute, "{hidden:?}");
        let composite = composed(1280, 720, 30, 3000);
        let machine = shape(&composite, Platform::Fargate).unwrap();
        let bill = bill(&rate, machine, &expected(&stored(&composite), 3600.0, &rate, false));
        assert!((0.04..0.06).contains(&bill.total), "{bill:?}");
    }

    #[test]
    fn the_built_in_list_has_every_platform_and_says_its_day() {
        let list = PriceList::built_in().unwrap();
        assert_eq!((list.currency.as_str(), list.version.len()), ("USD", "2026-08-27".len()));
        for (platform, arch, capacity) in [
            (Platform::Fargate, "x86_64", Capacity::OnDemand),
            (Platform::Fargate, "arm64", Capacity::OnDemand),
            (Platform::Fargate, "x86_64", Capacity::Spot),
            (Platform::CloudRun, "x86_64", Capacity::OnDemand),
            (Platform::Aci, "x86_64", Capacity::OnDemand),
            (Platform::Host, "x86_64", Capacity::OnDemand),
        ] {
            let (rate, exact) = list.rate(platform, "nowhere-1", arch, capacity).unwrap();
            assert!(!exact && rate.platform == platform);
        }
        assert!(list.rate(Platform::Fargate, "us-east-1", "x86_64", Capacity::OnDemand).unwrap().1);
    }

    #[test]
    fn a_list_of_ones_own_with_a_wrong_price_is_refused_by_name() {
        let text = BUILT_IN.replacen("\"vcpu_hour\": ", "\"vcpu_hour\": -", 1);
        let error = PriceList::parse(&text).unwrap_err();
        assert!(error.to_string().contains("us-east-1"), "{error}");
        assert!(matches!(PriceList::parse("{}"), Err(PriceError::Syntax(_))));
    }

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

    proptest! {
        #[test]
        fn more_never_costs_less_and_the_parts_make_the_total(
            seconds in 0.0f64..1e5, more in 0.0f64..1e4, cpu in 1u32..8000, memory in 1u32..60_000, puts in 0.0f64..1e5,
        ) {
            let machine = Shape { cpu_milli: cpu, memory_mib: memory, disk_gib: 50 };
            for platform in [Platform::Fargate, Platform::CloudRun, Platform::Aci] {
                let rate = rate(platform);
                let usage = Usage { billed_s: seconds, puts, launches: 1, address: true, nat_bytes: 1e9 };
                let less = bill(&rate, machine, &usage);
                let larger = bill(&rate, machine, &Usage { billed_s: seconds + more, ..usage });
                prop_assert!(larger.total >= less.total);
                let sum = less.compute + less.memory + less.disk + less.address + less.nat + less.requests + less.launches;
                prop_assert!((sum - less.total).abs() < 1e-12);
                prop_assert!(less.seconds + 1e-9 >= seconds && less.seconds <= seconds.max(rate.min_s) + rate.step_s);
            }
        }
    }
}
