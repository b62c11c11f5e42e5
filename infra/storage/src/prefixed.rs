//! The installation's settings for every store: its prefix before each name, and presigned locations. Wraps a backend where
//! there is one of the two; every call goes on to it in the caller's task.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use spillway_plan::Store;
use spillway_plan::destination::joined;
use spillway_process::chain;
use tracing::warn;

use crate::error::StorageError;
use crate::storage::*;

/// A backend below a prefix. Names of the trait go in, keys go to the backend.
#[derive(Debug)]
pub struct PrefixedStorage {
    inner: Arc<dyn Storage>,
    prefix: String,
    presign: bool,
}

impl PrefixedStorage {
    /// Prefix and presigning are those of `store`.
    pub fn new(inner: Arc<dyn Storage>, store: &Store) -> Self {
        Self { inner, prefix: store.prefix.clone(), presign: store.presign }
    }

    fn key(&self, name: &str) -> String {
        joined(&self.prefix, name)
    }

    /// The object is stored, so a link that cannot be signed is a warning and no error.
    async fn located(&self, key: &str, stored: Stored) -> Stored {
        if !self.presign {
            return stored;
        }
        match self.inner.presign(key, PRESIGNED).await {
            Ok(location) => Stored { location, ..stored },
            Err(error) => {
                warn!(error = %chain(&error), "no presigned link, the plain location is reported");
                stored
            }
        }
    }
}

#[async_trait]
impl Storage for PrefixedStorage {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn location(&self, name: &str) -> String {
        self.inner.location(&self.key(name))
    }

    fn rules(&self) -> PartRules {
        self.inner.rules()
    }

    async fn put(&self, name: &str, bytes: Bytes, meta: &Meta) -> Result<Stored, StorageError> {
        let key = self.key(name);
        let stored = self.inner.put(&key, bytes, meta).await?;
        Ok(self.located(&key, stored).await)
    }

    async fn begin(&self, name: &str, meta: &Meta) -> Result<Upload, StorageError> {
        self.inner.begin(&self.key(name), meta).await
    }

    async fn put_part(
        &self,
        upload: &Upload,
        number: u32,
        generation: u32,
        bytes: Bytes,
    ) -> Result<PartTag, StorageError> {
        self.inner.put_part(upload, number, generation, bytes).await
    }

    fn expected_tag(&self, number: u32, generation: u32, bytes: &Bytes) -> Option<PartTag> {
        self.inner.expected_tag(number, generation, bytes)
    }

    async fn complete(&self, upload: &Upload, parts: &[Part], meta: &Meta) -> Result<Stored, StorageError> {
        let stored = self.inner.complete(upload, parts, meta).await?;
        Ok(self.located(&upload.key, stored).await)
    }

    async fn abort(&self, upload: &Upload) -> Result<(), StorageError> {
        self.inner.abort(upload).await
    }

    async fn list_parts(&self, upload: &Upload) -> Result<Option<Vec<Part>>, StorageError> {
        self.inner.list_parts(upload).await
    }

    async fn head(&self, name: &str) -> Result<Option<Object>, StorageError> {
        self.inner.head(&self.key(name)).await
    }

    async fn read_small(&self, name: &str) -> Result<Option<Bytes>, StorageError> {
        self.inner.read_small(&self.key(name)).await
    }

    async fn delete(&self, name: &str) -> Result<(), StorageError> {
        self.inner.delete(&self.key(name)).await
    }

    async fn presign(&self, name: &str, validity: Duration) -> Result<String, StorageError> {
        self.inner.presign(&self.key(name), validity).await
    }
}
