use serde::{Deserialize, Serialize};

use crate::shape::Platform;

/// The list this version was made with; an installation may bring its own.
const BUILT_IN: &str = include_str!("../prices.json");

#[derive(Debug, thiserror::Error)]
pub enum PriceError {
    #[error("price list is not readable")]
    Syntax(#[source] serde_json::Error),
    #[error("price list: {0}")]
    Content(String),
}

/// Prices of one day, in US dollars before any discount.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PriceList {
    /// Stands beside every amount that was computed with it.
    pub version: String,
    pub currency: String,
    pub rates: Vec<Rate>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Capacity {
    #[default]
    OnDemand,
    /// Cheaper, and may be reclaimed.
    Spot,
}

/// What one kind of machine costs in one region.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    pub platform: Platform,
    pub region: String,
    /// `x86_64` or `arm64`.
    pub arch: String,
    #[serde(default)]
    pub capacity: Capacity,
    pub vcpu_hour: f64,
    /// A GB of the vendor is 1024 MiB.
    pub gb_hour: f64,
    /// Ephemeral disk beyond what is included.
    #[serde(default)]
    pub disk_gb_hour: f64,
    #[serde(default)]
    pub disk_included_gb: u32,
    /// A public IPv4 address.
    #[serde(default)]
    pub address_hour: f64,
    /// Each GB (10⁹ bytes) through a NAT gateway, both ways.
    #[serde(default)]
    pub nat_gb: f64,
    /// A thousand writing requests to the object store.
    #[serde(default)]
    pub puts_thousand: f64,
    /// What each launch costs beside the machine (events, functions).
    #[serde(default)]
    pub launch: f64,
    /// Billed at least, seconds.
    #[serde(default)]
    pub min_s: f64,
    /// Billed in steps of, seconds.
    pub step_s: f64,
    /// Usually billed before the recording begins (image pull, start) and after it ends; for estimates.
    #[serde(default)]
    pub start_s: f64,
    #[serde(default)]
    pub end_s: f64,
}

impl PriceList {
    pub fn built_in() -> Result<Self, PriceError> {
        Self::parse(BUILT_IN)
    }

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

    /// The rate of this region; where it is not listed, that of the platform's first one (`exact` is false then).
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
