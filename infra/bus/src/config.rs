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
    pub username: String,
    pub password: Secret,
    pub db: i64,
    /// Old spelling of `tls.enabled`.
    pub use_tls: bool,
    pub tls: TlsConfig,
    /// Sentinel, when `sentinel_addresses` is not empty. Goes before cluster and address.
    pub sentinel_master_name: String,
    pub sentinel_username: String,
    pub sentinel_password: Secret,
    pub sentinel_addresses: Vec<String>,
    /// Cluster, even with one address. Goes before `address`.
    pub cluster_addresses: Vec<String>,
    /// How often a command follows the cluster's "moved". 0 means 2.
    pub max_redirects: u32,
    /// Milliseconds, 0 for ours: 5000 to connect, 3000 for an answer.
    pub dial_timeout: u64,
    pub read_timeout: u64,
    pub write_timeout: u64,
    /// Accepted and without effect: there is one connection for commands and one for subscriptions.
    pub pool_timeout: Option<PoolTimeout>,
    pub pool_size: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsConfig {
    pub enabled: bool,
    /// Takes any certificate.
    pub insecure: bool,
    /// The name the certificate must carry, when it is not the host of the address.
    pub server_name: String,
    /// PEM. Without it the system's own authorities count.
    pub ca_cert_file: Option<PathBuf>,
    pub client_cert_file: Option<PathBuf>,
    pub client_key_file: Option<PathBuf>,
}

/// Go writes durations as text ("4s") or as nanoseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum PoolTimeout {
    Nanoseconds(u64),
    Text(String),
}

/// Where Redis is, in livekit's order of choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RedisTopology<'a> {
    Sentinel { addresses: &'a [String], master: &'a str },
    Cluster { addresses: &'a [String] },
    Single { address: &'a str },
}

impl RedisConfig {
    pub fn is_configured(&self) -> bool {
        self.topology().is_some()
    }

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
