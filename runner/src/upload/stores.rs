//! Who opens the stores of a recording.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use spillway_plan::Destination;
use spillway_storage::{Options, Storage, StorageError};

#[async_trait]
pub trait StoreFactory: Send + Sync + fmt::Debug {
    async fn open(&self, destination: &Destination) -> Result<Arc<dyn Storage>, StorageError>;
}

/// The stores of the world.
#[derive(Clone, Debug, Default)]
pub struct DefaultStoreFactory {
    pub options: Options,
}

#[async_trait]
impl StoreFactory for DefaultStoreFactory {
    async fn open(&self, destination: &Destination) -> Result<Arc<dyn Storage>, StorageError> {
        spillway_storage::open(destination, &self.options).await
    }
}
