//! Pages of a task in its platform's console, for people who look for what happened. Pure: made of the task's own name, so that
//! they are right after a restart and for tasks that are gone.

use serde::{Deserialize, Serialize};

/// Pages of one task.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TaskLinks {
    /// The task; `None`: its platform has no page of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_url: Option<String>,
    /// Its log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_url: Option<String>,
}

/// A text as one part of a URL: everything but letters, digits and `-._~` as `%XX`. A task's name comes out of Redis.
#[cfg(any(feature = "ecs", feature = "cloud-run", feature = "aci"))]
pub(crate) fn encoded(text: &str) -> String {
    use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
    const PART: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    utf8_percent_encode(text, PART).to_string()
}
