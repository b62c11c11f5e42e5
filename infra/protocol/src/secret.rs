//! A wrapper for credentials, and how they are taken out of the texts of others.

use std::cmp::Reverse;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Shorter secrets are none, and would be found inside of ordinary text.
const MIN_HIDDEN_BYTES: usize = 3;

/// A server's or a library's text with `{...}` where it repeats one of these secrets.
pub fn without_secrets<'a>(text: &str, secrets: impl IntoIterator<Item = &'a str>) -> String {
    let mut secrets: Vec<&str> = secrets.into_iter().filter(|secret| secret.len() >= MIN_HIDDEN_BYTES).collect();
    // One may be a part of another.
    secrets.sort_by_key(|secret| Reverse(secret.len()));
    secrets.into_iter().fold(text.to_owned(), |text, secret| text.replace(secret, "{...}"))
}

/// A value that never prints: `Debug` and `Display` show `[secret]`. Serde writes it in full, because a ticket carries it;
/// the ticket is encrypted before it leaves the process.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret<T = String>(T);

impl<T> Secret<T> {
    /// Wraps a value.
    pub fn new(value: T) -> Self {
        Self(value)
    }

    /// The only access to the value, so that every use can be found by this name.
    pub fn reveal(&self) -> &T {
        &self.0
    }
}

impl<T> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

impl<T> fmt::Display for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

impl<T> From<T> for Secret<T> {
    fn from(value: T) -> Self {
        Self(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_prints_nothing_of_itself() {
        let secret = Secret::new("canary".to_owned());
        assert_eq!(format!("{secret:?} {secret}"), "[secret] [secret]");
        assert_eq!(secret.reveal(), "canary");
    }
    #[test]
    fn a_text_of_others_is_told_without_secrets() {
        assert_eq!(without_secrets("ab: canary-12 of canary", ["canary", "canary-1", "ab"]), "ab: {...}2 of {...}");
    }
}
