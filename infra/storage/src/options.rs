//! How hard one call to a store tries, and what the calls to a cloud's own services need beside the destination.
//!
//! In: nothing. Out: values that every backend reads when it is opened. It reads no configuration by itself.

use std::time::Duration;

use spillway_guard::Guard;

/// Limits of a single call. Outages that last longer than these are the caller's to wait for.
#[derive(Clone, Debug)]
pub struct Options {
    /// Tries of one call, the first included; 0 counts as 1.
    pub attempts: u32,
    /// Wait before the second try; later waits grow up to `max_wait`.
    pub first_wait: Duration,
    /// Upper limit of the wait between two tries.
    pub max_wait: Duration,
    /// Time for TCP and TLS of a new connection.
    pub connect_timeout: Duration,
    /// Time for one try without a body; one with a body gets what it needs at `min_bytes_per_second` on top.
    pub stall_timeout: Duration,
    /// Below this throughput a connection counts as broken.
    pub min_bytes_per_second: u64,
    /// Time for one try of `complete`: a store may need minutes to join ten thousand parts.
    pub complete_timeout: Duration,
    /// Role session name, as AWS' CloudTrail shows it.
    pub session_name: String,
    /// Endpoint of AWS STS, where roles are assumed; `None`: the region's own.
    pub sts_endpoint: Option<String>,
    /// For endpoints and proxies that a request named. The default opens nothing that is not public.
    pub guard: Guard,
    /// Client id of the identity that Azure is asked for where a destination has no key; `None`: the machine's own, which a
    /// container group with a user-assigned identity does not have.
    pub azure_client_id: Option<String>,
}

impl Options {
    /// Timeout of one try that sends so many bytes.
    pub fn call_timeout(&self, bytes: u64) -> Duration {
        self.stall_timeout + Duration::from_secs(bytes / self.min_bytes_per_second.max(1))
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            attempts: 3,
            first_wait: Duration::from_millis(100),
            max_wait: Duration::from_secs(1),
            connect_timeout: Duration::from_secs(5),
            stall_timeout: Duration::from_secs(20),
            min_bytes_per_second: 128 << 10,
            complete_timeout: Duration::from_secs(120),
            session_name: "spillway".to_owned(),
            sts_endpoint: None,
            guard: Guard::default(),
            azure_client_id: None,
        }
    }
}
