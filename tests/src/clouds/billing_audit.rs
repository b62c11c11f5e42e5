//! Audit of one entry of the dispatcher's billing ledger: every value computed a second time from vendors' list prices
//! and from what vendor, store and EgressInfo report.

use crate::egress::nanos;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::provider::CloudKind;

/// Dollars; what is billed by the hour is for an hour.
struct ListPrices {
    vcpu: f64,
    gb: f64,
    address: f64,
    thousand_puts: f64,
    launch: f64,
    least_s: f64,
    step_s: f64,
}

/// List prices of Fargate Spot in us-east-1 (x86_64), Cloud Run jobs in us-central1 (0.000018 and 0.000002 a second)
/// and Container Instances in eastus; on Docker only the store's requests cost.
fn list_prices(cloud: CloudKind) -> ListPrices {
    match cloud {
        CloudKind::Ecs => ListPrices {
            vcpu: 0.012_144,
            gb: 0.001_333_5,
            address: 0.005,
            thousand_puts: 0.005,
            launch: 0.000_000_4,
            least_s: 60.0,
            step_s: 1.0,
        },
        CloudKind::Run => ListPrices {
            vcpu: 0.000_018 * 3600.0,
            gb: 0.000_002 * 3600.0,
            address: 0.0,
            thousand_puts: 0.005,
            launch: 0.0,
            least_s: 60.0,
            step_s: 0.1,
        },
        CloudKind::Aci => ListPrices {
            vcpu: 0.0405,
            gb: 0.004_45,
            address: 0.0,
            thousand_puts: 0.006_5,
            launch: 0.0,
            least_s: 0.0,
            step_s: 1.0,
        },
        CloudKind::Docker => ListPrices {
            vcpu: 0.0,
            gb: 0.0,
            address: 0.0,
            thousand_puts: 0.005,
            launch: 0.0,
            least_s: 0.0,
            step_s: 1.0,
        },
    }
}

/// vCPU/1000, MiB and GiB of the machine for a copied track, and for a composition of 640×360.
pub fn machine(cloud: CloudKind, is_composite: bool) -> [u64; 3] {
    match (cloud, is_composite) {
        (CloudKind::Ecs, false) => [250, 512, 20],
        (CloudKind::Ecs, true) => [1000, 2048, 20],
        (CloudKind::Run, false) => [1000, 512, 0],
        (CloudKind::Run, true) => [1000, 1024, 0],
        (CloudKind::Aci, false) => [500, 512, 50],
        (CloudKind::Aci, true) => [1000, 512, 50],
        // Exactly what is needed.
        (CloudKind::Docker, false) => [39, 192, 0],
        (CloudKind::Docker, true) => [647, 493, 0],
    }
}

/// A task as other sources than the ledger report it.
pub struct KnownTask<'a> {
    /// Where it ran.
    pub cloud: CloudKind,
    /// Room.
    pub room: &'a str,
    /// Tenant.
    pub tenant: &'a str,
    /// Type of the request.
    pub kind: &'a str,
    /// Final EgressInfo.
    pub info: &'a Value,
    /// Bytes and seconds of the object in the store; `None`: the task was killed and the file belongs to the salvage.
    pub stored: Option<(u64, f64)>,
    /// Begin and end of the billed time as the vendor reports it, Unix milliseconds.
    pub billed: Option<(i64, i64)>,
}

/// Compares every value of the entry `line`; gives its amount in dollars.
pub fn audit(line: &Value, known: &KnownTask<'_>) -> Result<f64> {
    let [cpu_milli, memory_mib, disk_gib] = machine(known.cloud, known.kind == "room_composite");
    let (platform, capacity) = match known.cloud {
        CloudKind::Ecs => ("fargate", "spot"),
        CloudKind::Run => ("cloud-run", "on_demand"),
        CloudKind::Aci => ("aci", "on_demand"),
        CloudKind::Docker => ("host", "on_demand"),
    };
    let window = if known.billed.is_some() { "vendor" } else { "own" };
    for (name, expected) in [
        ("room", json!(known.room)),
        ("tenant", json!(known.tenant)),
        ("type", json!(known.kind)),
        ("attempt", json!(1)),
        ("platform", json!(platform)),
        ("capacity", json!(capacity)),
        ("cpu_milli", json!(cpu_milli)),
        ("memory_mib", json!(memory_mib)),
        ("disk_gib", json!(disk_gib)),
        ("window", json!(window)),
        ("bytes", json!(known.stored.map_or(0, |(bytes, _)| bytes))),
        ("currency", json!("USD")),
    ] {
        ensure!(line[name] == expected, "{name} is {}, not {expected}: {line}", line[name]);
    }
    let number = |name: &str| line[name].as_f64().with_context(|| format!("no {name}: {line}"));
    let (from, to) = (number("from_ms")? as i64, number("to_ms")? as i64);
    if let Some((begun, ended)) = known.billed {
        let apart = (from - begun).abs().max((to - ended).abs());
        ensure!(apart <= 1, "billed {from} to {to}, the vendor says {begun} to {ended}");
    } else {
        let (begun, ended) = (nanos(&known.info["started_at"]) / 1_000_000, nanos(&known.info["ended_at"]) / 1_000_000);
        ensure!((from - begun).abs().max((to - ended).abs()) < 5000, "{from} to {to} of {begun} to {ended}");
    }
    let recorded_s = number("recorded_s")?;
    let (bytes, played_s) = known.stored.unwrap_or_default();
    ensure!((recorded_s - played_s).abs() < 4.0, "{recorded_s} s recorded, {played_s} s play");

    let ListPrices { vcpu, gb, address, thousand_puts, launch, least_s, step_s } = list_prices(known.cloud);
    let seconds = ((((to - from) as f64 / 1000.0) / step_s).ceil() * step_s).max(least_s);
    ensure!((number("seconds")? - seconds).abs() < 0.01, "{} s are billed, not {seconds}", line["seconds"]);
    // A part each 5 MiB or ten seconds, and four more requests for the file.
    let puts = if bytes == 0 { 0.0 } else { (bytes as f64 / (5.0 * 1024.0 * 1024.0)).max(recorded_s / 10.0) + 4.0 };
    let hourly = cpu_milli as f64 / 1000.0 * vcpu + memory_mib as f64 / 1024.0 * gb + address;
    let dollars = seconds / 3600.0 * hourly + puts / 1000.0 * thousand_puts + launch;
    let amount = number("amount")?;
    ensure!((amount - dollars).abs() <= 1e-9 + dollars * 1e-6, "{amount} dollars are written down, not {dollars}");
    Ok(amount)
}
