//! `spillway-dispatcher price`: what a recording would cost. Pure; launches nothing.

use std::fmt::Write;

use serde::Serialize;
use spillway_cost::{Capacity, Load, Platform, PriceList, Shape, estimate, shape_for};
use spillway_plan::{Defaults, PlanError, ReadError};

use crate::config::Config;
use crate::config::targets::{LauncherConfig, TargetConfig};

/// Expected cost at one target.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PriceQuote {
    /// Its name, or the platform's.
    pub target: String,
    /// Of the price.
    pub region: String,
    /// Of the price.
    pub arch: String,
    /// Of the price.
    pub capacity: Capacity,
    /// The machine that would be requested.
    pub shape: Shape,
    /// In the price list's currency.
    pub amount: f64,
    /// The price is of another region than the target's.
    pub elsewhere: bool,
}

/// Why a request has no price.
#[derive(Debug, thiserror::Error)]
pub enum QuoteError {
    /// Not a request.
    #[error(transparent)]
    Request(#[from] ReadError),
    /// A request that would be refused.
    #[error(transparent)]
    Plan(#[from] PlanError),
}

/// What a request, in JSON as `spillway-runner --request` takes it, needs of a machine. `defaults`: of the configuration, if
/// there is one. Nothing is started, so the egress need not have an id, nor the installation an API key and a server.
///
/// # Errors
/// The request would be refused; no retry.
pub fn load_of(request: serde_json::Value, defaults: Option<&Defaults>) -> Result<Load, QuoteError> {
    let mut start = spillway_plan::start_request(request)?;
    if start.egress_id.is_empty() {
        "EG_price".clone_into(&mut start.egress_id);
    }
    let defaults = Defaults { mints_tokens: true, knows_server: true, ..defaults.cloned().unwrap_or_default() };
    Ok(spillway_cost::load(&spillway_plan::plan(&start, &defaults)?))
}

/// For `seconds` at each target of the configuration, or, without one, on everything in the price list.
///
/// # Errors
/// Of an entry: there is no machine or no price for it; the text says why.
pub fn quotes(
    load: &Load,
    seconds: f64,
    config: Option<&Config>,
    prices: &PriceList,
) -> Vec<Result<PriceQuote, String>> {
    match config {
        Some(config) => config.targets.iter().map(|target| on_target(load, seconds, target, prices)).collect(),
        None => prices
            .rates
            .iter()
            .map(|of| {
                let name = format!("{:?}", of.platform).to_lowercase();
                one(load, seconds, &name, of.platform, &of.region, &of.arch, of.capacity, false, prices)
            })
            .collect(),
    }
}

fn on_target(load: &Load, seconds: f64, target: &TargetConfig, prices: &PriceList) -> Result<PriceQuote, String> {
    let platform = platform(&target.launcher);
    one(load, seconds, &target.name, platform, &target.region, &target.arch, target.capacity, target.nat, prices)
}

fn platform(launcher: &LauncherConfig) -> Platform {
    match launcher {
        LauncherConfig::Container(spec) => match spec.launcher.as_str() {
            "ecs" => Platform::Fargate,
            "cloud-run" => Platform::CloudRun,
            "aci" => Platform::Aci,
            _ => Platform::Host,
        },
        LauncherConfig::Process { .. } | LauncherConfig::Simulated { .. } => Platform::Host,
    }
}

#[allow(clippy::too_many_arguments, reason = "a price depends on all of them, and the two callers are above")]
fn one(
    load: &Load,
    seconds: f64,
    name: &str,
    platform: Platform,
    region: &str,
    arch: &str,
    capacity: Capacity,
    nat: bool,
    prices: &PriceList,
) -> Result<PriceQuote, String> {
    let shape = shape_for(load, platform).map_err(|error| format!("{name}: {error}"))?;
    let (rate, exact) =
        prices.rate(platform, region, arch, capacity).ok_or_else(|| format!("{name}: no price in the list"))?;
    Ok(PriceQuote {
        target: name.to_owned(),
        region: rate.region.clone(),
        arch: rate.arch.clone(),
        capacity: rate.capacity,
        shape,
        amount: estimate(rate, shape, load, seconds, nat, None).total,
        elsewhere: !exact,
    })
}

/// For a terminal.
pub fn table(quotes: &[Result<PriceQuote, String>], prices: &PriceList, minutes: f64) -> String {
    let width = quotes.iter().flatten().map(|quote| quote.target.len()).chain([6]).max().unwrap_or(6);
    let mut text = format!(
        "{:<width$} {:<12} {:<7} {:<9} {:>6} {:>9} {:>10} {:>10}\n",
        "target", "region", "arch", "capacity", "vCPU", "MiB", "USD", "USD/min"
    );
    for quote in quotes {
        let _ = match quote {
            Ok(PriceQuote { target, region, arch, capacity, shape, amount, elsewhere }) => {
                let capacity = match capacity {
                    Capacity::OnDemand => "on-demand",
                    Capacity::Spot => "spot",
                };
                let mark = if *elsewhere { " (price of another region)" } else { "" };
                writeln!(
                    text,
                    "{target:<width$} {region:<12} {arch:<7} {capacity:<9} {:>6.2} {:>9} {amount:>10.5} {:>10.6}{mark}",
                    f64::from(shape.cpu_milli) / 1000.0,
                    shape.memory_mib,
                    amount / minutes.max(1e-9),
                )
            }
            Err(message) => writeln!(text, "{message}"),
        };
    }
    let _ = writeln!(text, "prices {} in {}, start and end of the task included", prices.version, prices.currency);
    text
}
