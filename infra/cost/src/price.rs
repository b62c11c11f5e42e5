//! The price list: read, checked, searched. The built-in one (`prices.json`) is replaced by a list from the configuration.

use serde::{Deserialize, Serialize};

use crate::shape::Platform;

/// Prices on the day of this version.
const BUILT_IN: &str = include_str!("../prices.json");

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

/// How capacity is bought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Capacity {
    /// At the list price, not reclaimed.
    #[default]
    OnDemand,
    /// Cheaper; the vendor may reclaim the machine.
    Spot,
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
    /// `None` where no region of the list sells it.
    pub fn rate(&self, platform: Platform, region: &str, arch: &str, capacity: Capacity) -> Option<(&Rate, bool)> {
        let fits = |rate: &&Rate| rate.platform == platform && rate.arch == arch && rate.capacity == capacity;
        let exact = self.rates.iter().filter(fits).find(|rate| rate.region == region);
        exact.map(|rate| (rate, true)).or_else(|| self.rates.iter().find(fits).map(|rate| (rate, false)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
