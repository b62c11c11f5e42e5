//! Settings an operator changes at run time: one state per name (such as `paused` per target), read by every
//! dispatcher.

use std::collections::BTreeMap;

use crate::bus::Bus;
use crate::error::BusError;
use crate::key_value::{CasResult, NewValue, Precondition};

/// One group of switches.
#[derive(Clone)]
pub struct Switches {
    bus: Bus,
    key: String,
}

impl Switches {
    /// `what` names the group and is part of its key.
    pub fn new(bus: &Bus, what: &str) -> Self {
        Self { bus: bus.clone(), key: format!("spillway:switches:{what}") }
    }

    /// Every name that has a state.
    ///
    /// # Errors
    /// Redis was not reached or did not answer: a retry is right. [`BusError::Record`]: the value cannot be read.
    pub async fn all(&self) -> Result<BTreeMap<String, String>, BusError> {
        Ok(self.read().await?.1)
    }

    /// `None` removes the state.
    ///
    /// # Errors
    /// As [`Switches::all`]; a retry is harmless.
    pub async fn set(&self, name: &str, state: Option<&str>) -> Result<(), BusError> {
        loop {
            let (before, mut states) = self.read().await?;
            match state {
                Some(state) => states.insert(name.to_owned(), state.to_owned()),
                None => states.remove(name),
            };
            let value = serde_json::to_vec(&states).map_err(|source| self.unreadable(source))?;
            let value = NewValue { version: before + 1, value: &value, ttl: None };
            if self.bus.backend.compare_and_set(&self.key, Precondition::Is(before), value).await? == CasResult::Done {
                return Ok(());
            }
        }
    }

    async fn read(&self) -> Result<(u64, BTreeMap<String, String>), BusError> {
        let Some(kept) = self.bus.backend.read(&self.key).await? else { return Ok((0, BTreeMap::new())) };
        let states = serde_json::from_slice(&kept.value).map_err(|source| self.unreadable(source))?;
        Ok((kept.version, states))
    }

    fn unreadable(&self, source: serde_json::Error) -> BusError {
        BusError::Record { egress_id: self.key.clone(), source }
    }
}
