//! What Redis tells about itself, as far as an installation depends on it: read once, by a probe.

use spillway_model::ProbeCause;

use crate::bus::Bus;
use crate::error::BusError;

/// Scripts of ours ask for the time before they write, which older servers refuse.
const OLDEST_MAJOR: u32 = 5;

/// A Redis server by its own account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RedisFacts {
    /// `7.2.4`; empty: it does not say.
    pub version: String,
    /// `noeviction` and the like; empty: it does not say.
    pub eviction_policy: String,
    /// Limit of its memory in bytes; 0: none, and nothing is evicted.
    pub max_memory: u64,
    /// `master` or `slave`; empty: it does not say.
    pub role: String,
}

impl RedisFacts {
    /// Asks the server; of a Cluster one of them.
    ///
    /// # Errors
    /// Redis was not reached, did not answer, or its rules do not allow `INFO`.
    pub async fn of(bus: &Bus) -> Result<Self, BusError> {
        Ok(Self::read(&bus.backend.info().await?))
    }

    fn read(info: &str) -> Self {
        let mut facts = Self::default();
        for (key, value) in info.lines().filter_map(|line| line.split_once(':')) {
            match key {
                "redis_version" => value.clone_into(&mut facts.version),
                "maxmemory_policy" => value.clone_into(&mut facts.eviction_policy),
                "maxmemory" => facts.max_memory = value.parse().unwrap_or_default(),
                "role" => value.clone_into(&mut facts.role),
                _ => {}
            }
        }
        facts
    }

    /// What recordings would suffer from; the worst first.
    pub fn cause(&self) -> Option<ProbeCause> {
        let major = self.version.split('.').next().and_then(|major| major.parse::<u32>().ok());
        if self.role == "slave" {
            Some(ProbeCause::RedisRefuses)
        } else if major.is_some_and(|major| major < OLDEST_MAJOR) {
            Some(ProbeCause::RedisVersion)
        } else if self.max_memory > 0 && !matches!(self.eviction_policy.as_str(), "" | "noeviction") {
            Some(ProbeCause::RedisEviction)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cause(info: &str) -> Option<ProbeCause> {
        RedisFacts::read(info).cause()
    }

    #[test]
    fn what_an_installation_depends_on_is_read_and_judged() {
        let good = "# Server\r\nredis_version:7.2.4\r\nos:Linux 6\r\n\r\n# Memory\r\nmaxmemory:100\r\n\
                    maxmemory_policy:noeviction\r\n# Replication\r\nrole:master\r\n";
        let facts = RedisFacts::read(good);
        assert_eq!((facts.version.as_str(), facts.role.as_str(), facts.max_memory), ("7.2.4", "master", 100));
        assert_eq!(facts.cause(), None);
        assert_eq!(cause(""), None, "a server that tells nothing may be right");
        let evicts = "redis_version:7.2.4\r\nmaxmemory:100\r\nmaxmemory_policy:volatile-lru\r\n";
        assert_eq!(cause(evicts), Some(ProbeCause::RedisEviction));
        assert_eq!(cause(&evicts.replace(":100", ":0")), None, "without a limit nothing is evicted");
        assert_eq!(cause("redis_version:4.0.14\r\n"), Some(ProbeCause::RedisVersion));
        assert_eq!(cause("redis_version:10.0.0\r\nrole:slave\r\n"), Some(ProbeCause::RedisRefuses));
    }
}
