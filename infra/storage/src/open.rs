use std::sync::Arc;
use std::time::Duration;

use spillway_plan::{Destination, Provider};

use crate::disk::DiskStorage;
use crate::error::{Kind, StorageError};
use crate::placed::Placed;
use crate::storage::Storage;

/// How hard a single call tries. Long patience belongs to the caller.
#[derive(Clone, Debug)]
pub struct Options {
    /// Tries of one call, the first included.
    pub attempts: u32,
    /// Waits between them grow from `first_wait` to `longest_wait`.
    pub first_wait: Duration,
    pub longest_wait: Duration,
    pub connect_timeout: Duration,
    /// Without a byte of an answer, or of a request taken, for so long, a try is given up.
    pub stall_timeout: Duration,
    /// One try as a whole.
    pub attempt_timeout: Duration,
    /// How a role session is called in the provider's own records.
    pub session_name: String,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            attempts: 3,
            first_wait: Duration::from_millis(100),
            longest_wait: Duration::from_secs(1),
            connect_timeout: Duration::from_secs(5),
            stall_timeout: Duration::from_secs(20),
            attempt_timeout: Duration::from_secs(120),
            session_name: "spillway".to_owned(),
        }
    }
}

/// The store of a destination. Asks nobody: whether it can be written to shows at `begin`.
pub async fn open(destination: &Destination, options: &Options) -> Result<Arc<dyn Storage>, StorageError> {
    let Destination::Store(store) = destination else {
        let words = "files on this machine's disk are written in place";
        return Err(StorageError::new(Kind::Invalid, "Local", "open", words));
    };
    let inner: Arc<dyn Storage> = match &store.provider {
        Provider::S3(_) => return Err(StorageError::not_built("S3", "s3")),
        Provider::AliOss(_) => return Err(StorageError::not_built("AliOSS", "s3")),
        Provider::Gcs(_) => return Err(StorageError::not_built("GCP", "gcs")),
        Provider::Azure(_) => return Err(StorageError::not_built("Azure", "azure")),
        Provider::Local(local) => Arc::new(DiskStorage::new(&local.root)),
    };
    let _ = options;
    Ok(Arc::new(Placed::new(inner, store)))
}
