//! A backend for a destination of the plan: a provider and its options go in, a [`Storage`] comes out, with the installation's
//! prefix and presigned locations where it has them. It makes clients and no request, except that S3 without region or endpoint
//! asks for the bucket's region, and that hosts which a request named are resolved.

use std::sync::Arc;

use spillway_plan::{Destination, Provider};

use crate::disk::DiskStorage;
use crate::error::{StorageError, StorageErrorKind};
use crate::options::Options;
use crate::prefixed::PrefixedStorage;
use crate::storage::Storage;

/// Opens the store of a destination. Whether it can be written to is known at [`Storage::begin`].
///
/// # Errors
/// `Invalid`, `Denied`: the destination or its credentials cannot be used. `Refused`: a request may not name its host.
/// `NotBuilt`: the backend is not in this build. A retry changes nothing.
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
        Provider::Gcs(gcs) => Arc::new(crate::gcs::GcsStorage::open(gcs, options).await?),
        #[cfg(not(feature = "gcs"))]
        Provider::Gcs(_) => return Err(StorageError::not_built("GCP", "gcs")),
        #[cfg(feature = "azure")]
        Provider::Azure(azure) => Arc::new(crate::azure::AzureStorage::open(azure, options).await?),
        #[cfg(not(feature = "azure"))]
        Provider::Azure(_) => return Err(StorageError::not_built("Azure", "azure")),
        Provider::Local(local) => Arc::new(DiskStorage::new(&local.root)),
    };
    let _ = options;
    if store.prefix.is_empty() && !store.presign {
        return Ok(inner);
    }
    Ok(Arc::new(PrefixedStorage::new(inner, store)))
}
