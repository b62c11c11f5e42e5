//! Azure's block blobs. They have no multipart uploads, only blocks under a key: the upload that a block belongs to is in its
//! id, and the commit is conditional on the blob that was there when the upload began.
//!
//! `api` sorts errors, `key` signs with an account key, `block` names blocks, `container` makes the requests; the trait is
//! implemented here. Everything runs in the caller's task.

mod api;
mod key;
mod block;
mod container;

use std::time::Duration;

use async_trait::async_trait;
use azure_storage_blob::models::BlockListType;
use bytes::Bytes;
use spillway_plan::destination::Azure;

use self::api::{NAME, failed};
use self::block::{PROBE, block_id, parse_block, tag};
use self::container::{BlobContainer, HeadOutcome};
use crate::checksum::{hex, md5};
use crate::error::{StorageError, StorageErrorKind};
use crate::escape::escaped;
use crate::options::Options;
use crate::storage::*;

/// One container.
pub struct AzureStorage {
    container: BlobContainer,
}

impl std::fmt::Debug for AzureStorage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Azure({}/{})", self.container.account, self.container.name)
    }
}

impl AzureStorage {
    /// The store of an Azure destination.
    ///
    /// # Errors
    /// As for [`BlobContainer::open`].
    pub async fn open(azure: &Azure, options: &Options) -> Result<Self, StorageError> {
        Ok(Self { container: BlobContainer::open(azure, options).await? })
    }
}

fn error(kind: StorageErrorKind, doing: &'static str, message: impl Into<String>) -> StorageError {
    StorageError::new(kind, NAME, doing, message)
}

#[async_trait]
impl Storage for AzureStorage {
    fn name(&self) -> &'static str {
        NAME
    }

    fn location(&self, name: &str) -> String {
        format!("{}/{}", self.container.location, escaped(name))
    }

    fn rules(&self) -> PartRules {
        PartRules { min_part_bytes: 1, max_part_bytes: 4000 << 20, max_parts: 50_000, uniform: false }
    }

    async fn put(&self, name: &str, bytes: Bytes, meta: &Meta) -> Result<Stored, StorageError> {
        let length = bytes.len() as u64;
        let etag = self.container.put(name, bytes, &meta.content_type).await?;
        Ok(Stored { bytes: length, etag, location: self.location(name) })
    }

    async fn begin(&self, name: &str, _: &Meta) -> Result<Upload, StorageError> {
        let replaces = match self.container.seen(name, "begin").await? {
            HeadOutcome::Object(object) => Some(object.etag),
            HeadOutcome::Nothing | HeadOutcome::MayNotLook => None,
        };
        let upload = Upload { id: hex(&rand::random::<[u8; 8]>()), key: name.to_owned(), replaces };
        self.container.stage(&upload, PROBE, 0, Bytes::from_static(b"?"), "begin").await?;
        Ok(upload)
    }

    async fn put_part(
        &self,
        upload: &Upload,
        number: u32,
        generation: u32,
        bytes: Bytes,
    ) -> Result<PartTag, StorageError> {
        let doing = "put part";
        // Azure would accept the block and keep it for a week.
        if self.container.is_overtaken(upload, doing).await? {
            return Err(error(StorageErrorKind::Gone, doing, "another blob was committed under this name"));
        }
        self.container.stage(upload, number, generation, bytes, doing).await
    }

    fn expected_tag(&self, _: u32, _: u32, bytes: &Bytes) -> Option<PartTag> {
        Some(tag(bytes.len() as u64, &md5(bytes)))
    }

    async fn complete(&self, upload: &Upload, parts: &[Part], meta: &Meta) -> Result<Stored, StorageError> {
        let doing = "complete";
        let ids: Vec<_> = parts.iter().map(|part| block_id(&upload.id, part.number, part.generation)).collect();
        let bytes = parts.iter().map(|part| part.tag.bytes).sum();
        let location = self.location(&upload.key);
        let etag = match self.container.commit(upload, ids.clone(), &meta.content_type, doing).await {
            Ok(etag) => etag,
            Err(error) if error.kind == StorageErrorKind::Gone => {
                if !self.container.is_made_of(upload, &ids).await {
                    return Err(error);
                }
                String::new()
            }
            Err(error) if error.message.contains("InvalidBlockList") => {
                let ours = self.container.blocks(upload, BlockListType::Uncommitted, doing).await?;
                let any = ours.iter().any(|block| parse_block(&upload.id, block).is_some());
                return Err(if any { error } else { StorageError { kind: StorageErrorKind::Gone, ..error } });
            }
            Err(error) => return Err(error),
        };
        match self.container.seen(&upload.key, doing).await {
            Ok(HeadOutcome::Object(object)) if object.bytes != bytes => {
                let message = format!("{bytes} bytes in {} blocks were sent, {} are stored", parts.len(), object.bytes);
                Err(error(StorageErrorKind::Mismatch, doing, message))
            }
            // The commit was acknowledged; no answer to this request changes nothing.
            _ => Ok(Stored { bytes, etag, location }),
        }
    }

    /// Blocks cannot be deleted by themselves. Where no blob is replaced, an empty blob is committed over them and deleted.
    /// Where one is, or another upload of this name is open, they stay for the week that Azure keeps them.
    async fn abort(&self, upload: &Upload) -> Result<(), StorageError> {
        let doing = "abort";
        let blocks = self.container.blocks(upload, BlockListType::Uncommitted, doing).await?;
        let (ours, others): (Vec<_>, Vec<_>) =
            blocks.iter().partition(|block| parse_block(&upload.id, block).is_some());
        if ours.is_empty() || !others.is_empty() || upload.replaces.is_some() {
            return Ok(());
        }
        let etag = match self.container.commit(upload, Vec::new(), "", doing).await {
            Ok(etag) => etag,
            Err(error) if error.kind == StorageErrorKind::Gone => return Ok(()),
            Err(error) => return Err(error),
        };
        self.container.delete(&upload.key, Some(&etag), doing).await
    }

    async fn list_parts(&self, upload: &Upload) -> Result<Option<Vec<Part>>, StorageError> {
        let doing = "list parts";
        let blocks = match self.container.blocks(upload, BlockListType::Uncommitted, doing).await {
            Ok(blocks) => blocks,
            Err(error) if error.kind == StorageErrorKind::Denied => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut parts: Vec<_> = blocks.iter().filter_map(|block| parse_block(&upload.id, block)).collect();
        if parts.is_empty() {
            return Err(error(StorageErrorKind::Gone, doing, "no block of this upload is left"));
        }
        parts.retain(|part| part.number != PROBE);
        parts.sort_by_key(|part| (part.number, std::cmp::Reverse(part.generation)));
        parts.dedup_by_key(|part| part.number);
        Ok(Some(parts))
    }

    async fn head(&self, name: &str) -> Result<Option<Object>, StorageError> {
        self.container.object(name, "head").await
    }

    async fn read_small(&self, name: &str) -> Result<Option<Bytes>, StorageError> {
        self.container.read(name).await
    }

    async fn delete(&self, name: &str) -> Result<(), StorageError> {
        self.container.delete(name, None, "delete").await
    }

    async fn presign(&self, name: &str, validity: Duration) -> Result<String, StorageError> {
        let Some(key) = &self.container.key else {
            return Err(error(StorageErrorKind::Invalid, "presign", "links need the account key"));
        };
        let until = chrono::Utc::now() + validity;
        let query = key.link(&self.container.name, name, until).map_err(|error| failed("presign", error))?;
        Ok(format!("{}?{query}", self.location(name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn locations_name_the_container() {
        let azure = Azure {
            account: "acc".into(),
            key: spillway_plan::Secret::new("a2V5".into()),
            container: "rec".into(),
            ..Azure::default()
        };
        let storage = AzureStorage::open(&azure, &Options::default()).await.unwrap();
        assert_eq!(storage.location("my file.mp4"), "https://acc.blob.core.windows.net/rec/my%20file.mp4");
    }
}
