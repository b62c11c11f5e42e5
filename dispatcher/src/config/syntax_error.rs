//! serde's error → key, line, and the key that was probably meant. Pure. A value of the wrong type is not quoted: it may be a
//! password, or a URL with one.

use std::fmt;

use spillway_protocol::without_value;

use super::keys;

/// Jaro-Winkler similarity below which a suggestion confuses more than it helps.
const MIN_SIMILARITY: f64 = 0.82;

/// One mistake in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyntaxError {
    /// With dots; empty when the file as a whole is not YAML.
    pub key: String,
    /// From 1; `None`: the parser does not say.
    pub line: Option<usize>,
    /// What is wrong, after the key.
    pub message: String,
    /// The key that was probably meant.
    pub meant: Option<String>,
}

impl std::error::Error for SyntaxError {}

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        if !self.key.is_empty() {
            write!(f, "`{}` ", self.key)?;
        }
        f.write_str(&self.message)?;
        match &self.meant {
            Some(meant) => write!(f, ", did you mean `{meant}`?"),
            None => Ok(()),
        }
    }
}

impl From<serde_yaml_ng::Error> for SyntaxError {
    fn from(error: serde_yaml_ng::Error) -> Self {
        let text = error.to_string();
        let line = error.location().map(|location| location.line());
        // serde_yaml_ng says "path: message at line L column C"; path and line are taken apart here.
        let message = text.rfind(" at line ").map_or(text.as_str(), |end| &text[..end]);
        let (path, message) = match message.split_once(": ") {
            Some((path, rest)) if is_path(path) => (path, rest),
            _ => ("", message),
        };
        let (wrong, what) = if let Some(rest) = message.strip_prefix("unknown field ") {
            (rest, "is not a key")
        } else if let Some(rest) = message.strip_prefix("unknown variant ") {
            (rest, "is not possible")
        } else {
            let message = format!("is wrong: {}", without_value(message));
            return Self { key: path.to_owned(), line, message, meant: None };
        };
        let mut names = wrong.split('`').skip(1).step_by(2);
        let name = names.next().unwrap_or_default();
        let possible: Vec<&str> = names.collect();
        if what == "is not possible" {
            let message = format!("cannot be \"{name}\", possible are {}", possible.join(", "));
            return Self { key: path.to_owned(), line, message, meant: None };
        }
        let key = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        let meant = nearest(name, &possible).or_else(|| elsewhere(name));
        Self { key, line, message: what.to_owned(), meant }
    }
}

/// `redis.tls`, `latency_overrides.web`, `cluster_addresses[0]`: what serde_yaml_ng puts before its colon.
fn is_path(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '[' | ']' | '?'))
}

fn nearest(name: &str, possible: &[&str]) -> Option<String> {
    let name = name.to_lowercase().replace('-', "_");
    let similarity = |other: &&&str| (strsim::jaro_winkler(&name, other) * 1e6) as u64;
    let best = possible.iter().max_by_key(similarity)?;
    let near = strsim::jaro_winkler(&name, best) >= MIN_SIMILARITY || strsim::damerau_levenshtein(&name, best) <= 2;
    near.then(|| (*best).to_owned())
}

/// A known key in the wrong section.
fn elsewhere(name: &str) -> Option<String> {
    let rows = keys::rows();
    let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
    let same = rows.iter().find(|row| last(&row.key) == name);
    same.map(|row| row.key.clone())
}
