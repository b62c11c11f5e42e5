//! Checked ids. An id from a request goes into Redis keys, file names and cloud labels; it is checked once, here, and
//! trusted afterwards.

use std::fmt;

use serde::{Deserialize, Serialize};

/// livekit-server makes ids of 15 characters; container platforms allow 63 and more in labels.
const MAX_CHARS: usize = 64;

/// The id livekit-server gave an egress: 1 to 64 characters of `A-Z a-z 0-9 _ -` (livekit-server: `EG_` and 12 more).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EgressId(String);

/// Why a text is no id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// No characters.
    #[error("egress id is empty")]
    Empty,
    /// More than 64 characters.
    #[error("egress id is longer than {MAX_CHARS} characters")]
    Long,
    /// A character outside the allowed set.
    #[error("egress id has a character outside A-Z a-z 0-9 _ -")]
    Character,
}

impl EgressId {
    /// Checks a text.
    ///
    /// # Errors
    ///
    /// The text is empty, too long, or has a character outside `A-Z a-z 0-9 _ -`. A retry is useless.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        if text.is_empty() {
            return Err(IdError::Empty);
        }
        if !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-') {
            return Err(IdError::Character);
        }
        if text.len() > MAX_CHARS {
            return Err(IdError::Long);
        }
        Ok(Self(text.to_owned()))
    }

    /// As received.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EgressId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for EgressId {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for EgressId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        Self::parse(text)
    }
}

impl TryFrom<String> for EgressId {
    type Error = IdError;

    fn try_from(text: String) -> Result<Self, IdError> {
        Self::parse(&text)
    }
}

impl From<EgressId> for String {
    fn from(id: EgressId) -> Self {
        id.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_short_plain_names_are_ids() {
        assert_eq!(EgressId::parse("EG_4VtJq7KmZ2xY").unwrap().as_str(), "EG_4VtJq7KmZ2xY");
        assert_eq!(EgressId::parse(""), Err(IdError::Empty));
        for bad in ["a/b", "a|b", "a b", "ä", "..", "{x}", "a\n"] {
            assert_eq!(EgressId::parse(bad), Err(IdError::Character), "{bad}");
        }
        assert_eq!(EgressId::parse(&"x".repeat(65)), Err(IdError::Long));
        assert!(EgressId::parse(&"x".repeat(64)).is_ok());
    }

    #[test]
    fn a_bad_id_does_not_come_in_through_serde() {
        assert!(serde_json::from_str::<EgressId>("\"EG_1\"").is_ok());
        assert!(serde_json::from_str::<EgressId>("\"../etc\"").is_err());
    }
}
