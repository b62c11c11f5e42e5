//! A word of the operator for each of several things, for every dispatcher to read.

use std::collections::BTreeMap;

use crate::wire::{Guard, Swap, Versioned};
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
    pub async fn set(&self, name: &str, word: Option<&str>) -> Result<(), BusError> {
        loop {
            let (before, mut words) = self.read().await?;
            match word {
                Some(word) => words.insert(name.to_owned(), word.to_owned()),
                None => words.remove(name),
            };
            let value = serde_json::to_vec(&words).map_err(|source| self.odd(source))?;
            let value = Versioned { version: before + 1, value: &value, ttl: None };
            if self.bus.wire.swap(&self.key, Guard::Is(before), value).await? == Swap::Done {
                return Ok(());
            }
        }
    }

    async fn read(&self) -> Result<(u64, BTreeMap<String, String>), BusError> {
        let Some(kept) = self.bus.wire.read(&self.key).await? else { return Ok((0, BTreeMap::new())) };
        let words = serde_json::from_slice(&kept.value).map_err(|source| self.odd(source))?;
        Ok((kept.version, words))
    }

    fn odd(&self, source: serde_json::Error) -> BusError {
        BusError::Record { egress_id: self.key.clone(), source }
    }
}
