//! The part of this process' environment that a child may have. Everything else stays here: keys and secrets given to a
//! process by environment are not its children's business. Reads the environment when it is called; changes nothing.

use std::env;
use std::ffi::OsString;

/// What any program needs to find its files and to speak the operator's language.
const NAMES: &[&str] = &["HOME", "LANG", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "RUST_BACKTRACE"];
/// Locale, desktop directories, GStreamer's plugins and debug output.
const PREFIXES: &[&str] = &["LC_", "XDG_", "GST_"];

/// The variables that every child gets, and those named in `more`, as far as they are set.
pub fn inherited(more: &[&str]) -> impl Iterator<Item = (OsString, OsString)> {
    env::vars_os().filter(move |(name, _)| name.to_str().is_some_and(|name| is_inherited(name, more)))
}

fn is_inherited(name: &str, more: &[&str]) -> bool {
    NAMES.contains(&name) || more.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_inherited() {
        for name in ["HOME", "LC_ALL", "GST_DEBUG", "PATH"] {
            assert!(is_inherited(name, &["PATH"]), "{name}");
        }
        for name in ["PATH", "LIVEKIT_API_SECRET", "AWS_SECRET_ACCESS_KEY", "HOMEPAGE"] {
            assert!(!is_inherited(name, &[]), "{name}");
        }
    }
}
