use std::sync::Arc;
use std::time::Duration;

use spillway_plan::{Destination, Provider};

use crate::disk::DiskStorage;
use crate::error::{StorageError, StorageErrorKind};
use crate::prefixed::PrefixedStorage;
use crate::storage::Storage;

/// How hard a single call tries. Long patience belongs to the caller.
#[derive(Clone, Debug)]
pub struct Options {
    /// Tries of one call, the first included.
    pub attempts: u32,
    /// Waits between them grow from `first_wait` to `max_wait`.
    pub first_wait: Duration,
    pub max_wait: Duration,
    pub connect_timeout: Duration,
    /// How long a try without bytes may take; with bytes it is what they need at `slowest` more.
    pub stall_timeout: Duration,
    /// Bytes per second below which a link counts as broken.
    pub slowest: u64,
    /// A store may need long to make one object of ten thousand parts.
    pub complete_timeout: Duration,
    /// How a role session is called in the provider's own records.
    pub session_name: String,
    /// Where roles are assumed; `None`: AWS' own place for the region.
    pub sts_endpoint: Option<String>,
}

impl Options {
    /// How long one try to send so many bytes may take.
    pub fn call_timeout(&self, bytes: u64) -> Duration {
        self.stall_timeout + Duration::from_secs(bytes / self.slowest.max(1))
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
            slowest: 128 << 10,
            complete_timeout: Duration::from_secs(120),
            session_name: "spillway".to_owned(),
            sts_endpoint: None,
        }
    }
}

/// The store of a destination. Asks nobody: whether it can be written to shows at `begin`.
pub async fn open(destination: &Destination, options: &Options) -> Result<Arc<dyn Storage>, StorageError> {
    let Destination::Store(store) = destination else {
        let message = "files on this machine's disk are written in place";
        return Err(StorageError::new(StorageErrorKind::Invalid, "Local", "open", message));
    };
    let inner: Arc<dyn Storage> = match &store.provider {
        #[cfg(feature = "s3")]
        Provider::S3(s3) => Arc::new(crate::s3::S3Storage::open(s3, options).await?),
        #[cfg(feature = "s3")]
        Provider::AliOss(oss) => Arc::new(crate::s3::S3Storage::open_oss(oss, options).await?),
        #[cfg(not(feature = "s3"))]
        Provider::S3(_) => return Err(StorageError::not_built("S3", "s3")),
        #[cfg(not(feature = "s3"))]
        Provider::AliOss(_) => return Err(StorageError::not_built("AliOSS", "s3")),
        #[cfg(feature = "gcs")]
        Provider::Gcs(gcs) => Arc::new(crate::gcs::GcsStorage::open(gcs, options)?),
        #[cfg(not(feature = "gcs"))]
        Provider::Gcs(_) => return Err(StorageError::not_built("GCP", "gcs")),
        #[cfg(feature = "azure")]
        Provider::Azure(azure) => Arc::new(crate::azure::AzureStorage::open(azure, options)?),
        #[cfg(not(feature = "azure"))]
        Provider::Azure(_) => return Err(StorageError::not_built("Azure", "azure")),
        Provider::Local(local) => Arc::new(DiskStorage::new(&local.root)),
    };
    let _ = options;
    Ok(Arc::new(PrefixedStorage::new(inner, store)))
}
