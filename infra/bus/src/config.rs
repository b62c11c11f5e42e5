//! The `redis:` section of the configuration, in livekit-server's own keys. Values only; `redis::dial` connects with
//! them.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use spillway_protocol::Secret;

/// The `redis:` section, with livekit-server's own keys, so that the same lines serve both. `db` must be the same too:
/// channels are global to a Redis server, queue locks are not.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RedisConfig {
    /// host:port of a single server.
    pub address: String,
    /// ACL user; empty: the default user.
    pub username: String,
    /// Empty: none is sent.
    pub password: Secret,
    /// Number of the database; a Cluster has only 0.
    pub db: i64,
    /// Old spelling of `tls.enabled`.
    pub use_tls: bool,
    /// How to encrypt, if `enabled` or `use_tls`.
    pub tls: TlsConfig,
    /// Name under which the Sentinels know the master.
    pub sentinel_master_name: String,
    /// ACL user at the Sentinels, which may differ from the master's.
    pub sentinel_username: String,
    /// Empty: none is sent to the Sentinels.
    pub sentinel_password: Secret,
    /// host:port of each Sentinel. Not empty: the master is asked for here, and `cluster_addresses` and `address` are
    /// ignored.
    pub sentinel_addresses: Vec<String>,
    /// host:port of servers of a Cluster, one is enough. Not empty: `address` is ignored.
    pub cluster_addresses: Vec<String>,
    /// How many redirections (MOVED, ASK) of a Cluster a command follows. 0 means 2.
    pub max_redirects: u32,
    /// Milliseconds for TCP and TLS; 0 means 5000.
    pub dial_timeout: u64,
    /// Milliseconds for an answer, the larger of this and `write_timeout`; 0 in both means 3000.
    pub read_timeout: u64,
    /// See `read_timeout`.
    pub write_timeout: u64,
    /// Accepted and without effect: there is one connection for commands and one for subscriptions.
    pub pool_timeout: Option<PoolTimeout>,
    /// Accepted and without effect, as `pool_timeout`.
    pub pool_size: u32,
}

/// The `redis.tls:` section.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsConfig {
    /// Whether connections are encrypted.
    pub enabled: bool,
    /// Accepts any certificate.
    pub insecure: bool,
    /// The name the certificate must carry, when it is not the host of the address.
    pub server_name: String,
    /// Certificate authorities, PEM. Without it those of the system are trusted.
    pub ca_cert_file: Option<PathBuf>,
    /// Certificate chain of this client, PEM; together with `client_key_file`.
    pub client_cert_file: Option<PathBuf>,
    /// Private key of this client, PEM.
    pub client_key_file: Option<PathBuf>,
}

/// Go writes durations as text ("4s") or as nanoseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum PoolTimeout {
    /// A bare number.
    Nanoseconds(u64),
    /// With a unit.
    Text(String),
}

/// How the servers are found, in livekit-server's order of precedence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RedisTopology<'a> {
    /// The Sentinels name the master.
    Sentinel {
        /// host:port of each Sentinel.
        addresses: &'a [String],
        /// Name of the master.
        master: &'a str,
    },
    /// The servers share the keys.
    Cluster {
        /// host:port of some of them.
        addresses: &'a [String],
    },
    /// One server.
    Single {
        /// host:port.
        address: &'a str,
    },
}

impl RedisConfig {
    /// Whether any address is given.
    pub fn is_configured(&self) -> bool {
        self.topology().is_some()
    }

    /// `None`: no address is given.
    pub fn topology(&self) -> Option<RedisTopology<'_>> {
        if !self.sentinel_addresses.is_empty() {
            Some(RedisTopology::Sentinel { addresses: &self.sentinel_addresses, master: &self.sentinel_master_name })
        } else if !self.cluster_addresses.is_empty() {
            Some(RedisTopology::Cluster { addresses: &self.cluster_addresses })
        } else if !self.address.is_empty() {
            Some(RedisTopology::Single { address: &self.address })
        } else {
            None
        }
    }

    /// In either spelling.
    pub fn tls_enabled(&self) -> bool {
        self.use_tls || self.tls.enabled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn livekits_keys_are_ours_and_sentinel_goes_first() {
        let config: RedisConfig = serde_json::from_value(serde_json::json!({
            "address": "a:1", "username": "u", "password": "canary", "db": 3, "use_tls": true,
            "tls": {"enabled": true, "insecure": true, "server_name": "n", "ca_cert_file": "/c", "client_cert_file": "/d",
                    "client_key_file": "/e"},
            "sentinel_master_name": "m", "sentinel_username": "su", "sentinel_password": "sp",
            "sentinel_addresses": ["b:2"], "cluster_addresses": ["c:3"], "max_redirects": 4, "dial_timeout": 1,
            "read_timeout": 2, "write_timeout": 3, "pool_timeout": "4s", "pool_size": 5
        }))
        .unwrap();
        assert!(matches!(config.topology(), Some(RedisTopology::Sentinel { master: "m", .. })));
        assert!(!format!("{config:?}").contains("canary"));
        assert_eq!(RedisConfig::default().topology(), None);
        assert!(serde_json::from_str::<RedisConfig>(r#"{"adress": "x"}"#).is_err());
    }
}
