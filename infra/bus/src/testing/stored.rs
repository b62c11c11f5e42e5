//! What no program does to stored values: a record that a test made up, bytes that are no record, values that are read
//! or lost without the types of this crate.

use bytes::Bytes;
use spillway_model::Record;
use spillway_protocol::EgressId;

use crate::bus::Bus;
use crate::error::BusError;
use crate::key_value::{NewValue, Precondition};
use crate::registry::{self, Registry, Updated};

/// What the closure of [`Registry::update`] decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Write the record as it was changed.
    Write,
    /// Leave what is stored as it is.
    Leave,
}

impl Registry {
    /// Changes a record in a way that is no event: for states that a test needs at once.
    ///
    /// # Errors
    /// As [`Registry::apply`].
    pub async fn update(
        &self,
        id: &EgressId,
        mut decide: impl FnMut(&mut Record) -> Decision,
    ) -> Result<Updated, BusError> {
        let change = |record: &Record| {
            let mut changed = record.clone();
            Ok((decide(&mut changed) == Decision::Write).then_some(changed))
        };
        self.swap(id, change).await
    }
}

impl Bus {
    /// The bytes of a key; `None`: it is absent.
    ///
    /// # Errors
    /// The backend was not reached.
    pub async fn bytes(&self, key: &str) -> Result<Option<Bytes>, BusError> {
        Ok(self.backend.read(key).await?.map(|kept| kept.value))
    }

    /// Writes bytes in place of a key's, as another program or another version would. The version counts on.
    ///
    /// # Errors
    /// The backend was not reached.
    pub async fn replace_bytes(&self, key: &str, value: &[u8]) -> Result<(), BusError> {
        let version = self.backend.read(key).await?.map_or(0, |kept| kept.version) + 1;
        let value = NewValue { version, value, ttl: None };
        self.backend.compare_and_set(key, Precondition::NotAbove(u64::MAX), value).await.map(drop)
    }
}

/// Key of an egress' record in Redis.
pub fn record_key(id: &EgressId) -> String {
    registry::key(id)
}
