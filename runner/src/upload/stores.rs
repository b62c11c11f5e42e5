//! Opens the stores of a recording: a destination of the request goes in, a [`Storage`] comes out. A trait, so that tests
//! put stores in memory in its place.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use spillway_plan::Destination;
use spillway_storage::{Options, Storage, StorageError};

/// Opens stores.
#[async_trait]
pub trait StoreFactory: Send + Sync + fmt::Debug {
    /// Opens a store; no request is needed for most providers.
    ///
    /// # Errors
    /// The destination is wrong or no credentials were found; a retry is right where
    /// [`is_transient`](StorageError::is_transient).
    async fn open(&self, destination: &Destination) -> Result<Arc<dyn Storage>, StorageError>;
}

/// Opens real stores: S3, Azure, GCS, AliOSS.
#[derive(Clone, Debug, Default)]
pub struct DefaultStoreFactory {
    /// Timeouts, proxies and certificates.
    pub options: Options,
}

#[async_trait]
impl StoreFactory for DefaultStoreFactory {
    async fn open(&self, destination: &Destination) -> Result<Arc<dyn Storage>, StorageError> {
        spillway_storage::open(destination, &self.options).await
    }
}
