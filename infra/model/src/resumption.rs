//! How a recording was interrupted: stored in the record as it is.

use serde::{Deserialize, Serialize};

/// How a recording was interrupted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resumption {
    /// Why the last task is gone that recorded, for the user.
    pub why: String,
    /// Tasks so far that were to go on.
    pub count: u32,
}
