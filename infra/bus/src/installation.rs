//! Which installation a Redis belongs to: an id that is made once and stands in every task that is launched from here, so
//! that a task of another installation, or of a Redis whose content was lost, is known for what it is.

use crate::backend::{NewValue, Precondition};
use crate::{Bus, BusError, names};

const KEY: &str = "spillway:installation";

/// The id of the installation that shares this Redis.
#[derive(Clone)]
pub struct Installation {
    bus: Bus,
}

impl Installation {
    pub fn new(bus: &Bus) -> Self {
        Self { bus: bus.clone() }
    }

    /// `None`: there is none yet, or it was lost with everything else. Small letters and digits, sixteen of them, which
    /// every platform takes for the value of a label as they are.
    ///
    /// # Errors
    /// When Redis does not answer; asking again is right.
    pub async fn find(&self) -> Result<Option<String>, BusError> {
        let Some(kept) = self.bus.backend.read(KEY).await? else { return Ok(None) };
        // One that was written by hand, or is no text, is none.
        Ok(String::from_utf8(kept.value.to_vec()).ok().filter(|id| is_legal(id)))
    }

    /// The id, made now when there is none. Of several makers one wins, and all get that one.
    ///
    /// # Errors
    /// When Redis does not answer, or what stands there is no id; the first passes.
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
