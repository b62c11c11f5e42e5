//! Which installation a Redis belongs to: an id that is made once and put on every task that is launched, so that a
//! task of another installation, or of a Redis whose content was lost, is recognised.

use crate::bus::Bus;
use crate::error::BusError;
use crate::key_value::{NewValue, Precondition};
use crate::names;

const KEY: &str = "spillway:installation";

/// The id of the installation that shares this Redis.
#[derive(Clone)]
pub struct Installation {
    bus: Bus,
}

impl Installation {
    /// On this bus.
    pub fn new(bus: &Bus) -> Self {
        Self { bus: bus.clone() }
    }

    /// `None`: there is none yet, or it was lost with the content of Redis. Sixteen lower-case letters and digits,
    /// legal as a label's value on every platform.
    ///
    /// # Errors
    /// Redis was not reached or did not answer; a retry is right.
    pub async fn find(&self) -> Result<Option<String>, BusError> {
        let Some(kept) = self.bus.backend.read(KEY).await? else { return Ok(None) };
        // A value that this code would not write counts as none.
        Ok(String::from_utf8(kept.value.to_vec()).ok().filter(|id| is_legal(id)))
    }

    /// The id, made now if there is none. Of several callers one makes it, and all get the same.
    ///
    /// # Errors
    /// Redis was not reached or did not answer: a retry is right. The key holds something else: an operator must
    /// delete it.
    pub async fn get_or_make(&self) -> Result<String, BusError> {
        if let Some(id) = self.find().await? {
            return Ok(id);
        }
        let made = names::new_id("").to_ascii_lowercase() + &names::new_id("").to_ascii_lowercase()[..4];
        let value = NewValue { version: 1, value: made.as_bytes(), ttl: None };
        self.bus.backend.compare_and_set(KEY, Precondition::Is(0), value).await?;
        self.find().await?.ok_or_else(|| BusError::Command {
            act: "read the installation id",
            source: format!("{KEY} holds something else; delete it").into(),
        })
    }
}

fn is_legal(id: &str) -> bool {
    id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}
