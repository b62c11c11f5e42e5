use std::error::Error;
use std::fmt;

/// Whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StorageErrorKind {
    /// Key, secret, role or policy: this identity may not.
    Denied,
    /// The bucket or container is not there.
    NotFound,
    /// The upload is: somebody else completed or aborted it. Whoever sees this writes no more.
    Gone,
    /// The credentials were good once.
    Expired,
    /// What arrived is not what was sent.
    Mismatch,
    /// Overload, time-outs, resets, no way to the host: the same call may succeed later.
    Busy,
    /// The store will never take this: a stale tag, a small part in the middle, a name that is too long.
    Invalid,
    /// The backend was left out of this build.
    NotBuilt,
    Other,
}

/// What a store, or the way to it, said. `Display` is the text for EgressInfo, in livekit/egress' form and the
/// provider's own words.
#[derive(Debug)]
pub struct StorageError {
    pub kind: StorageErrorKind,
    /// As [`Storage::name`](crate::Storage::name).
    pub provider: &'static str,
    /// The act: `put`, `begin`, `put part`, `complete`, `abort`, `list parts`, `head`, `presign`, `open`.
    pub doing: &'static str,
    /// The provider's: code, message and status where it gave them.
    pub message: String,
    pub source: Option<Box<dyn Error + Send + Sync>>,
}

impl StorageError {
    pub fn new(
        kind: StorageErrorKind,
        provider: &'static str,
        doing: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self { kind, provider, doing, message: message.into(), source: None }
    }

    pub fn because(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The same call may succeed later.
    pub fn is_transient(&self) -> bool {
        matches!(self.kind, StorageErrorKind::Busy | StorageErrorKind::Mismatch)
    }

    #[cfg(not(all(feature = "s3", feature = "azure", feature = "gcs")))]
    pub(crate) fn not_built(provider: &'static str, feature: &str) -> Self {
        let message = format!("this build has no {provider} (cargo feature `{feature}` of spillway-storage)");
        Self::new(StorageErrorKind::NotBuilt, provider, "open", message)
    }
}

impl fmt::Display for StorageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} upload failed: {}: {}", self.provider, self.doing, self.message)
    }
}

impl Error for StorageError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }
}
