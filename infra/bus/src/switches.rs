//! A word of the operator for each of several things, for every dispatcher to read.

use std::collections::BTreeMap;

use crate::backend::{CasResult, NewValue, Precondition};
use crate::{Bus, BusError};

#[derive(Clone)]
pub struct Switches {
    bus: Bus,
    key: String,
}

impl Switches {
    pub fn new(bus: &Bus, what: &str) -> Self {
        Self { bus: bus.clone(), key: format!("spillway:switches:{what}") }
    }

    pub async fn all(&self) -> Result<BTreeMap<String, String>, BusError> {
        Ok(self.read().await?.1)
    }

    /// `None` takes the word away.
    pub async fn set(&self, name: &str, state: Option<&str>) -> Result<(), BusError> {
        loop {
            let (before, mut states) = self.read().await?;
            match state {
                Some(state) => states.insert(name.to_owned(), state.to_owned()),
                None => states.remove(name),
            };
            let value = serde_json::to_vec(&states).map_err(|source| self.odd(source))?;
            let value = NewValue { version: before + 1, value: &value, ttl: None };
            if self.bus.backend.compare_and_set(&self.key, Precondition::Is(before), value).await? == CasResult::Done {
                return Ok(());
            }
        }
    }

    async fn read(&self) -> Result<(u64, BTreeMap<String, String>), BusError> {
        let Some(kept) = self.bus.backend.read(&self.key).await? else { return Ok((0, BTreeMap::new())) };
        let states = serde_json::from_slice(&kept.value).map_err(|source| self.odd(source))?;
        Ok((kept.version, states))
    }

    fn odd(&self, source: serde_json::Error) -> BusError {
        BusError::Record { egress_id: self.key.clone(), source }
    }
}
