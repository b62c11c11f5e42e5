//! Errors of all backends: the vendor's refusal sorted by what can be done about it, and its text for EgressInfo.
//!
//! Values only; nothing in here retries or logs.

use std::error::Error;

/// Who can fix it: a retry, the user's configuration, or an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StorageErrorKind {
    /// Key, secret, role or policy does not allow the call.
    Denied,
    /// The bucket or container does not exist.
    NotFound,
    /// The upload no longer exists: another process completed or aborted it. The caller must stop writing.
    Gone,
    /// The credentials were valid once and have expired.
    Expired,
    /// A checksum does not match: the bytes were changed on the way. A retry sends them again.
    Mismatch,
    /// Overload, timeout, connection reset, host not reachable: the same call may succeed later.
    Busy,
    /// The store will never accept this call: a stale tag, a small part before the last one, a name that is too long.
    Invalid,
    /// The installation does not let requests name this host.
    Refused,
    /// The backend was left out of this build.
    NotBuilt,
    /// None of the above; not retried.
    Other,
}

/// A failed call to a store. `Display` is the text for EgressInfo: livekit/egress' form around the provider's own text.
#[derive(Debug, thiserror::Error)]
#[error("{provider} upload failed: {doing}: {message}")]
pub struct StorageError {
    /// What can be done about it.
    pub kind: StorageErrorKind,
    /// As [`Storage::name`](crate::Storage::name).
    pub provider: &'static str,
    /// The call: `put`, `begin`, `put part`, `complete`, `abort`, `list parts`, `head`, `read`, `delete`,
    /// `presign`, `open`.
    pub doing: &'static str,
    /// The provider's code, message and HTTP status, where it gave them.
    pub message: String,
    /// The library's error, for logs only.
    pub source: Option<Box<dyn Error + Send + Sync>>,
}

impl StorageError {
    /// An error without a cause.
    pub fn new(
        kind: StorageErrorKind,
        provider: &'static str,
        doing: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self { kind, provider, doing, message: message.into(), source: None }
    }

    /// The same error with its cause.
    pub fn because(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Whether the same call may succeed later.
    pub fn is_transient(&self) -> bool {
        matches!(self.kind, StorageErrorKind::Busy | StorageErrorKind::Mismatch)
    }

    #[cfg(not(all(feature = "s3", feature = "azure", feature = "gcs")))]
    pub(crate) fn not_built(provider: &'static str, feature: &str) -> Self {
        let message = format!("this build has no {provider} (cargo feature `{feature}` of spillway-storage)");
        Self::new(StorageErrorKind::NotBuilt, provider, "open", message)
    }
}
