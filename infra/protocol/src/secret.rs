//! A wrapper for credentials, and how they are taken out of the texts of others: of servers, which repeat them, and of serde,
//! which quotes what it finds in the wrong place.

use std::cmp::Reverse;
use std::fmt;

use serde::{Deserialize, Serialize, de};

/// Shorter secrets are none, and would be found inside of ordinary text.
const MIN_HIDDEN_BYTES: usize = 3;

/// A server's or a library's text with `{...}` where it repeats one of these secrets.
pub fn without_secrets<'a>(text: &str, secrets: impl IntoIterator<Item = &'a str>) -> String {
    let mut secrets: Vec<&str> = secrets.into_iter().filter(|secret| secret.len() >= MIN_HIDDEN_BYTES).collect();
    // One may be a part of another.
    secrets.sort_by_key(|secret| Reverse(secret.len()));
    secrets.into_iter().fold(text.to_owned(), |text, secret| text.replace(secret, "{...}"))
}

/// What serde says before it quotes a value.
const QUOTING: [&str; 3] = ["invalid type: ", "invalid value: ", "unknown variant "];

/// A message of serde's without the value that it quotes: `invalid type: string "rtmp://…", expected a sequence` says only that
/// it is a string. What was to be there, and a line, stay.
pub fn without_value(message: &str) -> String {
    let found = QUOTING.iter().filter_map(|quoting| Some(message.find(quoting)? + quoting.len())).min();
    let Some(value) = found else { return message.to_owned() };
    let (before, quoted) = message.split_at(value);
    // The value may have the same text in it: what was expected stands behind the last one.
    let (quoted, after) = quoted.split_at(quoted.rfind(", expected ").unwrap_or(quoted.len()));
    let kind = quoted.split(['"', '`']).next().unwrap_or_default();
    let shown = format!("{before}{kind}");
    format!("{}{after}", shown.trim_end())
}

/// The same error without the value that it quotes, see [`without_value`]: for JSON that has secrets in it.
pub fn hide_value(error: serde_json::Error) -> serde_json::Error {
    de::Error::custom(without_value(&error.to_string()))
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
    fn a_value_in_the_wrong_place_is_not_quoted() {
        for (message, shown) in [
            ("invalid type: string \"canary\", expected a sequence", "invalid type: string, expected a sequence"),
            ("s3: invalid value: integer `1234`, expected a string", "s3: invalid value: integer, expected a string"),
            (
                "invalid type: string \"canary, expected \\\"canary`\", expected struct Proxy at line 1 column 9",
                "invalid type: string, expected struct Proxy at line 1 column 9",
            ),
            ("invalid value: string \"invalid type: canary\", expected u16", "invalid value: string, expected u16"),
            ("unknown variant `canary`, expected `MP4` or `OGG`", "unknown variant, expected `MP4` or `OGG`"),
            ("unknown variant `canary`, there are no variants", "unknown variant"),
            ("invalid type: map, expected a string", "invalid type: map, expected a string"),
            ("unknown field `fle`, expected `file`", "unknown field `fle`, expected `file`"),
            ("expected value at line 1 column 1", "expected value at line 1 column 1"),
        ] {
            assert_eq!(without_value(message), shown);
        }
        let error = serde_json::from_str::<Vec<u8>>("{\"canary\": 1}").unwrap_err();
        assert_eq!(hide_value(error).to_string(), "invalid type: map, expected a sequence at line 1 column 0");
        let error = hide_value(serde_json::from_str::<Vec<u8>>("\n\"canary\"").unwrap_err());
        assert_eq!((error.line(), error.to_string().contains("canary")), (2, false));
        assert!(error.to_string().starts_with("invalid type: string, expected a sequence at line 2 "), "{error}");
    }

    #[test]
    fn a_text_of_others_is_told_without_secrets() {
        assert_eq!(without_secrets("ab: canary-12 of canary", ["canary", "canary-1", "ab"]), "ab: {...}2 of {...}");
    }
}
