//! Tenants: how a room's name gives one, and each one's weight, caps and budget. Pure.

use std::collections::BTreeMap;

use super::error::ConfigError;
use super::keys::{self, File};
use super::values::{OverBudgetName, TenantByName};

/// All tenants of the installation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tenants {
    /// How a room's name gives its tenant.
    pub by: TenantBy,
    /// Rules of tenants that are not in `named`.
    pub usual: Tenant,
    /// Rules by tenant.
    pub named: BTreeMap<String, Tenant>,
}

/// How a room's name gives its tenant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum TenantBy {
    /// Every room belongs to one tenant, whose name is empty.
    #[default]
    Nothing,
    /// The part of the room's name before the first of these separators; the whole name where there is none.
    RoomPrefix(String),
}

/// Rules of one tenant.
#[derive(Clone, Debug, PartialEq)]
pub struct Tenant {
    /// Share of launches relative to other tenants, above 0.
    pub weight: f64,
    /// Tasks at once, of all dispatchers; `None`: no cap.
    pub max_recordings: Option<u64>,
    /// Accepted requests in the queue of one dispatcher; `None`: no cap.
    pub max_waiting: Option<usize>,
    /// Dollars of finished tasks in a calendar month (UTC); `None`: no budget.
    pub month_budget: Option<f64>,
    /// What happens to requests beyond the budget.
    pub over_budget: OverBudget,
}

/// What happens once a tenant's budget of the month is used up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OverBudget {
    /// New requests are refused with RESOURCE_EXHAUSTED.
    #[default]
    Refuse,
    /// One line in the log.
    Warn,
}

impl Default for Tenant {
    fn default() -> Self {
        Self {
            weight: 1.0,
            max_recordings: None,
            max_waiting: None,
            month_budget: None,
            over_budget: OverBudget::default(),
        }
    }
}

impl Tenants {
    /// The tenant of a room.
    pub fn of(&self, room: &str) -> String {
        match &self.by {
            TenantBy::Nothing => String::new(),
            TenantBy::RoomPrefix(separator) => room.split(separator.as_str()).next().unwrap_or_default().to_owned(),
        }
    }

    /// The rules of a tenant.
    pub fn rules(&self, tenant: &str) -> &Tenant {
        self.named.get(tenant).unwrap_or(&self.usual)
    }
}

/// The section `tenants`.
///
/// # Errors
/// When the separator is empty or a weight is not above 0; no retry.
pub fn resolve(file: &File) -> Result<Tenants, ConfigError> {
    let given = file.tenants.clone().unwrap_or_default();
    let by = match given.by {
        None | Some(TenantByName::None) => TenantBy::Nothing,
        Some(TenantByName::RoomPrefix) => {
            let separator = given.separator.clone().unwrap_or_else(|| "/".to_owned());
            if separator.is_empty() {
                return Err(ConfigError::Value { key: "tenants", message: "separator must not be empty".to_owned() });
            }
            TenantBy::RoomPrefix(separator)
        }
    };
    let usual = tenant(
        keys::Tenant {
            weight: given.weight,
            max_recordings: given.max_recordings,
            max_waiting: given.max_waiting,
            month_budget: given.month_budget,
            over_budget: given.over_budget,
        },
        &Tenant::default(),
    )?;
    let named = given.named.unwrap_or_default().into_iter();
    let named = named.map(|(name, keys)| Ok((name, tenant(keys, &usual)?))).collect::<Result<_, ConfigError>>()?;
    Ok(Tenants { by, usual, named })
}

fn tenant(keys: keys::Tenant, usual: &Tenant) -> Result<Tenant, ConfigError> {
    let weight = keys.weight.unwrap_or(usual.weight);
    if !weight.is_finite() || weight <= 0.0 {
        return Err(ConfigError::Value { key: "tenants", message: "a weight must be more than 0".to_owned() });
    }
    Ok(Tenant {
        weight,
        max_recordings: keys.max_recordings.or(usual.max_recordings),
        max_waiting: keys.max_waiting.map(|max| usize::try_from(max).unwrap_or(usize::MAX)).or(usual.max_waiting),
        month_budget: keys.month_budget.or(usual.month_budget),
        over_budget: match keys.over_budget {
            None => usual.over_budget,
            Some(OverBudgetName::Refuse) => OverBudget::Refuse,
            Some(OverBudgetName::Warn) => OverBudget::Warn,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;

    #[test]
    fn a_tenant_is_what_the_room_is_called_up_to_the_separator() {
        let tenants = Config::from_yaml(
            "redis: {address: a:1}\napi_key: k\napi_secret: s\nws_url: ws://x\n\
             tenants: {by: room_prefix, separator: '--', max_recordings: 3, month_budget: 10, named: {acme: {weight: 2, over_budget: warn}}}\n",
        )
        .unwrap()
        .tenants;
        assert_eq!((tenants.of("acme--standup").as_str(), tenants.of("lobby").as_str()), ("acme", "lobby"));
        let acme = tenants.rules("acme");
        assert_eq!((acme.weight, acme.max_recordings, acme.over_budget), (2.0, Some(3), OverBudget::Warn));
        assert_eq!(tenants.rules("lobby").over_budget, OverBudget::Refuse);
        assert_eq!(Tenants::default().of("acme--standup"), "");
    }
}
