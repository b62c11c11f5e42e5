use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::error::StorageError;

/// How long a presigned location can be opened.
pub const PRESIGNED: Duration = Duration::from_secs(7 * 24 * 3600);

/// A bucket, or what does for one.
///
/// Names are those of the plan (`FileInfo.filename`); a prefix of the installation is put before them below this trait.
/// Every method may be called by many at once and be dropped at any await. A method repeats what passes a few times and
/// soon gives up: long patience is the caller's.
#[async_trait]
pub trait Storage: Send + Sync + fmt::Debug {
    /// `S3`, `GCP`, `Azure`, `AliOSS`, `Local`, `RAM`: as in messages.
    fn name(&self) -> &'static str;

    /// Where the object can be found, for people; never a presigned link.
    fn location(&self, name: &str) -> String;

    fn rules(&self) -> PartRules;

    /// A small object at once. Readers see the old one or the new one, never a mixture.
    async fn put(&self, name: &str, bytes: Bytes, meta: &Meta) -> Result<Stored, StorageError>;

    /// Opens an upload in parts; proves that we may write. Nothing can be read under the name until `complete`.
    async fn begin(&self, name: &str, meta: &Meta) -> Result<Upload, StorageError>;

    /// Parts may come in any order, and a number may be sent again with other bytes: the last one counts.
    /// `generation` is how often this number was sent before.
    async fn put_part(
        &self,
        upload: &Upload,
        number: u32,
        generation: u32,
        bytes: Bytes,
    ) -> Result<PartTag, StorageError>;

    /// What `put_part` answers if the bytes arrive, where that can be known before. A salvage run may have to guess it.
    fn expected_tag(&self, _number: u32, _generation: u32, _bytes: &Bytes) -> Option<PartTag> {
        None
    }

    /// Makes the object of `parts`: numbers ascending from 1 without a gap, none of them empty. The object is then known
    /// to be as long as the parts. Repeated after its answer was lost it succeeds again, if the object is made of these parts.
    async fn complete(&self, upload: &Upload, parts: &[Part], meta: &Meta) -> Result<Stored, StorageError>;

    /// Forgets the parts. An upload that is gone already was aborted well.
    async fn abort(&self, upload: &Upload) -> Result<(), StorageError>;

    /// Ascending. `None`: this store cannot tell, or not to us. [`StorageErrorKind::Gone`](crate::Kind::Gone): no such upload.
    async fn list_parts(&self, upload: &Upload) -> Result<Option<Vec<Part>>, StorageError>;

    async fn head(&self, name: &str) -> Result<Option<Object>, StorageError>;

    /// All of an object of a few kilobytes. `None`: it is not there, or this store cannot tell.
    ///
    /// # Errors
    /// As for `head`; [`StorageErrorKind::Denied`](crate::Kind::Denied) where keys may write and not read.
    async fn read_small(&self, _name: &str) -> Result<Option<Bytes>, StorageError> {
        Ok(None)
    }

    /// A link that reads the object without credentials.
    async fn presign(&self, name: &str, life: Duration) -> Result<String, StorageError>;
}

/// What a part may be. The last one of an object may be of any size but 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartRules {
    pub min_part_bytes: u64,
    pub max_part_bytes: u64,
    /// Numbers go from 1 to this.
    pub max_parts: u32,
    /// All but the last must be of one size.
    pub uniform: bool,
}

impl PartRules {
    /// Parts of any size: what a recording adds can be sent as a part of its own instead of sending its tail again.
    pub fn append_small(&self) -> bool {
        self.min_part_bytes <= 1 && !self.uniform
    }
}

/// What metadata, tags and disposition come from is the store's own configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    pub content_type: String,
}

impl Meta {
    pub fn of(content_type: impl Into<String>) -> Self {
        Self { content_type: content_type.into() }
    }
}

/// An upload in parts that another process can go on with. No secrets: it lies in plain Redis.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upload {
    /// The store's own name of the upload.
    pub id: String,
    /// The object's real key, prefix included.
    pub key: String,
    /// ETag of the object that the upload replaces, where uploads are fenced by it (Azure).
    #[serde(default)]
    pub replaces: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    pub number: u32,
    pub generation: u32,
    pub tag: PartTag,
}

/// What the store said about a part: proof that it has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartTag {
    pub bytes: u64,
    /// Without quotes. Empty where the store does not tell.
    pub etag: String,
    #[serde(default)]
    pub crc32c: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    pub bytes: u64,
    pub etag: String,
    /// For EgressInfo: presigned where the installation wants it.
    pub location: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    pub bytes: u64,
    pub etag: String,
}
