//! Keys with versions, locks, sorted indexes and leases: the trait that the registry, tickets, heartbeats and the like
//! write through. Each method is one atomic step on the server.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::error::BusError;

/// Key-value storage of Redis. Every method fails when Redis is not reached or does not answer in time; the step may
/// have been done all the same, and repeating it is harmless.
#[async_trait]
pub(crate) trait KeyValue: Send + Sync {
    /// Sets the key for `ttl` if it is not set.
    async fn lock(&self, key: &str, ttl: Duration) -> Result<Lock, BusError>;

    /// `None`: absent, or taken ([`KeyValue::take`]).
    async fn read(&self, key: &str) -> Result<Option<Versioned>, BusError>;

    /// Many keys in their order, in as few round trips as there are servers. Taken values are returned like others.
    async fn read_all(&self, keys: &[String]) -> Result<Vec<Option<Versioned>>, BusError>;

    /// Versions only, 0 for an absent key: a reader skips what has not changed.
    async fn versions(&self, keys: &[String]) -> Result<Vec<u64>, BusError>;

    /// Writes if the precondition holds, in one step. Without a `ttl` the key keeps the one it has.
    async fn compare_and_set(
        &self,
        key: &str,
        precondition: Precondition,
        value: NewValue<'_>,
    ) -> Result<CasResult, BusError>;

    /// Of several takers one gets the value, and from then on the key reads as absent. The same taker gets the same
    /// answer for `repeatable`, in case the first was lost; then the key is removed.
    async fn take(&self, key: &str, taker: &str, repeatable: Duration) -> Result<Option<Versioned>, BusError>;

    /// The key, if there is one, lasts for `ttl` from now on.
    async fn expire(&self, key: &str, ttl: Duration) -> Result<(), BusError>;

    /// Removes the key, if there is one.
    async fn remove(&self, key: &str) -> Result<(), BusError>;

    /// Adds a name with a number to the index, or replaces its number.
    async fn index_add(&self, key: &str, member: &str, score: i64) -> Result<(), BusError>;

    /// Removes a name from the index, if it is there.
    async fn index_remove(&self, key: &str, member: &str) -> Result<(), BusError>;

    /// All names of the index, each with its number.
    async fn index(&self, key: &str) -> Result<Vec<(String, i64)>, BusError>;

    /// The number of a name; `None`: it is not in the index.
    async fn index_score(&self, key: &str, member: &str) -> Result<Option<i64>, BusError>;

    /// Takes or renews a lease: the holder's number, which grows with each new holder. `None`: another holder has it.
    async fn lease(&self, key: &str, holder: &str, ttl: Duration) -> Result<Option<u64>, BusError>;

    /// The last number a holder of the lease got; 0 before the first.
    async fn fence(&self, key: &str) -> Result<u64, BusError>;

    /// What Redis tells about itself: `INFO`, or of a Cluster that of one server.
    async fn info(&self) -> Result<String, BusError>;
}

/// Outcome of [`KeyValue::lock`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lock {
    /// The key was set by this call.
    Ours,
    /// It was set before.
    Theirs,
}

/// What must hold for a write. An absent key has version 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Precondition {
    /// The stored version is exactly this.
    Is(u64),
    /// The stored version is this or lower.
    NotAbove(u64),
}

/// A value that is to be written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewValue<'a> {
    /// Version it is stored with.
    pub version: u64,
    /// The bytes.
    pub value: &'a [u8],
    /// Time to live; `None`: as before.
    pub ttl: Option<Duration>,
}

/// Outcome of [`KeyValue::compare_and_set`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CasResult {
    /// Written.
    Done,
    /// The precondition did not hold; nothing was written.
    Conflict,
}

/// A value as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Versioned {
    /// Version it was written with.
    pub version: u64,
    /// The bytes.
    pub value: Bytes,
    /// Time to live that is left; `None`: it does not expire.
    pub remaining: Option<Duration>,
}
