//! Usage of one task times the rate of its machine; dispatcher bills and estimates both come from here.

use serde::{Deserialize, Serialize};

use crate::load::Load;
use crate::price::Rate;
use crate::shape::Shape;

const HOUR: f64 = 3600.0;
const GB: f64 = 1e9;
/// Parts of an upload are 5 MiB at first, then larger; an unfinished one is sent every 10 s when it takes longer to fill.
const PART: f64 = 5.0 * 1024.0 * 1024.0;
const CHECKPOINT_S: f64 = 10.0;
/// Create, the first part a second time, complete, and the manifest.
const PUTS_PER_FILE: f64 = 4.0;

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

/// Estimate for a recording of `seconds`: with start and end of the task as the rate lists them, one launch, and a public
/// address unless `behind_nat`.
pub fn expected(load: &Load, seconds: f64, rate: &Rate, behind_nat: bool) -> Usage {
    let written = seconds * load.written;
    Usage {
        billed_s: rate.start_s + seconds + rate.end_s,
        nat_bytes: if behind_nat { seconds * load.received + written } else { 0.0 },
        address: !behind_nat,
        puts: puts(load, seconds, written),
        launches: 1,
    }
}

/// Estimate of the writing requests for `written` bytes recorded over `seconds`; 0 where the files stay on the machine.
pub fn puts(load: &Load, seconds: f64, written: f64) -> f64 {
    if load.stored {
        f64::from(load.files) * ((written / PART).max(seconds / CHECKPOINT_S) + PUTS_PER_FILE)
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::shape::tests::{composed, track};
    use crate::{Capacity, Platform, PriceList, shape};

    fn rate(platform: Platform) -> Rate {
        let list = PriceList::built_in().unwrap();
        list.rate(platform, "", "x86_64", Capacity::OnDemand).unwrap().0.clone()
    }

    fn stored(plan: &spillway_plan::EgressPlan) -> Load {
        Load { files: 1, stored: true, ..crate::load(plan) }
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
