//! The contract of a store and the values that cross it. Every backend implements [`Storage`]; the runner's upload task and
//! the salvage run call it from their own tokio tasks. Nothing in here does I/O.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::error::StorageError;

/// How long a presigned location can be opened: seven days, the longest that S3 and GCS sign.
pub const PRESIGNED: Duration = Duration::from_secs(7 * 24 * 3600);

/// A bucket, or a directory that stands for one.
///
/// Names are those of the plan (`FileInfo.filename`); the installation's prefix is added below this trait.
/// Methods may be called concurrently, and their futures dropped at any await. A method retries a few times within
/// [`Options`](crate::Options) and then fails; outages that last longer are the caller's to wait for.
#[async_trait]
pub trait Storage: Send + Sync + fmt::Debug {
    /// `S3`, `GCP`, `Azure`, `AliOSS`, `Local`, `RAM`: as error messages and EgressInfo show it.
    fn name(&self) -> &'static str;

    /// URL or path of the object for people; never a presigned link.
    fn location(&self, name: &str) -> String;

    /// Sizes and numbers of parts that this store accepts.
    fn rules(&self) -> PartRules;

    /// Stores a small object with one request. Readers see the old object or the new one, never a mixture.
    ///
    /// # Errors
    /// Any kind. A retry is right where [`StorageError::is_transient`] says so.
    async fn put(&self, name: &str, bytes: Bytes, meta: &Meta) -> Result<Stored, StorageError>;

    /// Opens a multipart upload, which proves that the caller may write. Nothing can be read under the name until
    /// `complete`.
    ///
    /// # Errors
    /// As for `put`; `Denied` and `NotFound` are the user's configuration.
    async fn begin(&self, name: &str, meta: &Meta) -> Result<Upload, StorageError>;

    /// Sends one part. Parts may come in any order, and a number may be sent again with other bytes: the last one
    /// counts. `generation` is how often this number was sent before.
    ///
    /// # Errors
    /// `Gone`: another process ended the upload; stop writing. `Invalid`: the part breaks [`Storage::rules`]. Otherwise as
    /// for `put`.
    async fn put_part(
        &self,
        upload: &Upload,
        number: u32,
        generation: u32,
        bytes: Bytes,
    ) -> Result<PartTag, StorageError>;

    /// The tag that `put_part` returns if these bytes arrive, where it can be known without asking. A salvage run uses it
    /// for parts whose answer was lost.
    fn expected_tag(&self, _number: u32, _generation: u32, _bytes: &Bytes) -> Option<PartTag> {
        None
    }

    /// Makes the object of `parts`: numbers ascending from 1 without a gap, none of them empty. The object is then as long
    /// as the parts together. Called again after its answer was lost it succeeds, if the object is made of these parts.
    ///
    /// # Errors
    /// `Gone`: another process ended the upload, and not with these parts. `Invalid`: a tag is stale or a part too small;
    /// other parts may be accepted. Otherwise as for `put`.
    async fn complete(&self, upload: &Upload, parts: &[Part], meta: &Meta) -> Result<Stored, StorageError>;

    /// Deletes the parts. An upload that no longer exists is a success.
    ///
    /// # Errors
    /// As for `put`; parts that stay are removed by the bucket's lifecycle rule.
    async fn abort(&self, upload: &Upload) -> Result<(), StorageError>;

    /// Parts that the store holds, numbers ascending. `None`: this store cannot list them, or not for these credentials.
    ///
    /// # Errors
    /// [`Gone`](crate::StorageErrorKind::Gone): no such upload. Otherwise as for `put`.
    async fn list_parts(&self, upload: &Upload) -> Result<Option<Vec<Part>>, StorageError>;

    /// Length and ETag of an object; `None`: there is none under this name.
    ///
    /// # Errors
    /// As for `put`; `Denied` where the credentials may write and not read.
    async fn head(&self, name: &str) -> Result<Option<Object>, StorageError>;

    /// All of an object of a few kilobytes. `None`: it is not there, or this store cannot tell.
    ///
    /// # Errors
    /// As for `head`.
    async fn read_small(&self, _name: &str) -> Result<Option<Bytes>, StorageError> {
        Ok(None)
    }

    /// Removes an object; one that is not there is a success. No recording calls it: only a probe, for the object it has
    /// written itself.
    ///
    /// # Errors
    /// As for `put`; `Denied` where the credentials may write and not delete.
    async fn delete(&self, name: &str) -> Result<(), StorageError>;

    /// A link that reads the object without credentials, valid for `validity`.
    ///
    /// # Errors
    /// `Invalid`: these credentials cannot sign. `Denied`, `Busy`: a key that signs could not be had.
    async fn presign(&self, name: &str, validity: Duration) -> Result<String, StorageError>;
}

/// Limits of parts. The last part of an object may be of any size but 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartRules {
    /// Smallest part before the last one, bytes.
    pub min_part_bytes: u64,
    /// Largest part, bytes.
    pub max_part_bytes: u64,
    /// Part numbers go from 1 to this.
    pub max_parts: u32,
    /// All parts but the last must have the same size (Cloudflare R2).
    pub uniform: bool,
}

impl PartRules {
    /// Whether parts may have any size: then what a recording appends is sent as a part of its own, and no tail is sent
    /// twice.
    pub fn append_small(&self) -> bool {
        self.min_part_bytes <= 1 && !self.uniform
    }
}

/// What the caller says about an object. Metadata, tags and disposition come from the store's own configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// MIME type; empty: none is sent.
    pub content_type: String,
}

impl Meta {
    /// Meta of an object with this MIME type.
    pub fn of(content_type: impl Into<String>) -> Self {
        Self { content_type: content_type.into() }
    }
}

/// A multipart upload that another process can continue. It holds no secret: it lies in plain Redis.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upload {
    /// The store's id of the upload.
    pub id: String,
    /// The object's real key, prefix included.
    pub key: String,
    /// ETag of the object that the upload replaces, where commits are conditional on it (Azure).
    #[serde(default)]
    pub replaces: Option<String>,
}

/// A part that the store holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// From 1.
    pub number: u32,
    /// How often this number was sent before; 0 where the store does not keep it.
    pub generation: u32,
    /// The store's answer.
    pub tag: PartTag,
}

/// The store's answer to a part: proof that it holds the bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartTag {
    /// Length of the part.
    pub bytes: u64,
    /// Without quotes; empty where the store gives none.
    pub etag: String,
    /// CRC32C of the bytes, where it is known.
    #[serde(default)]
    pub crc32c: Option<u32>,
}

/// A stored object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Length of the object.
    pub bytes: u64,
    /// Without quotes; empty where the store gives none.
    pub etag: String,
    /// For EgressInfo: presigned where the installation wants it.
    pub location: String,
}

/// An object as `head` finds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Length of the object.
    pub bytes: u64,
    /// Without quotes; empty where the store gives none.
    pub etag: String,
}
