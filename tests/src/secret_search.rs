//! Where a secret can be read by others: command lines and environments, Redis, answers of the API, logs. A test begins
//! each of its secrets with the same text, for which this looks.

use std::path::Path;

use anyhow::{Context, Result};

use crate::servers::TestServers;

/// A search in many places.
#[derive(Debug)]
pub struct SecretSearch {
    secret: &'static str,
    places: usize,
    found: Vec<String>,
}

impl SecretSearch {
    /// For this text.
    pub fn of(secret: &'static str) -> Self {
        Self { secret, places: 0, found: vec![] }
    }

    /// Looks into `bytes`; `place` is what is told of a hit.
    pub fn bytes(&mut self, place: &str, bytes: &[u8]) {
        self.places += 1;
        if holds(bytes, self.secret) {
            self.found.push(place.to_owned());
        }
    }

    /// Command line and environment of every living process that was started through these servers.
    pub fn processes(&mut self, servers: &TestServers) {
        for (pid, command) in servers.left_behind() {
            for file in ["cmdline", "environ"] {
                // It may have ended meanwhile.
                let bytes = std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
                self.bytes(&format!("{file} of {command}"), &bytes);
            }
        }
    }

    /// Every log in a folder, but for those of livekit-server and Redis, which are their own. Gives how many of them have
    /// `sign` in them: what shows that something was logged.
    pub fn logs(&mut self, folder: &Path, sign: &str) -> Result<usize> {
        let mut signed = 0;
        for entry in std::fs::read_dir(folder).context("look for logs")? {
            let path = entry.context("look for logs")?.path();
            let is_ours = path.file_name().is_some_and(|name| name != "livekit.log" && name != "redis.log");
            if is_ours && path.extension().is_some_and(|extension| extension == "log") {
                let bytes = std::fs::read(&path).context("read a log")?;
                signed += usize::from(holds(&bytes, sign));
                self.bytes(&path.display().to_string(), &bytes);
            }
        }
        Ok(signed)
    }

    /// Places that were looked at.
    pub fn places(&self) -> usize {
        self.places
    }

    /// Places where the secret stands.
    pub fn found(&self) -> &[String] {
        &self.found
    }
}

/// Whether a text stands in these bytes.
pub fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_in_a_log_is_found_and_other_logs_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [("a.log", "published canary"), ("b.log", "published"), ("livekit.log", "canary")] {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let mut search = SecretSearch::of("canary");
        assert_eq!(search.logs(folder.path(), "published").unwrap(), 2);
        assert_eq!((search.places(), search.found().len()), (2, 1));
        assert!(search.found()[0].ends_with("a.log"));
    }
}
