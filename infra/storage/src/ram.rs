//! A bucket in memory with S3's rules, for tests (cargo feature `testing`). Calls answer at once and never block; faults are
//! added by `unreliable`.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};

use crate::checksum::{etag_of_parts, hex, md5};
use crate::error::{StorageError, StorageErrorKind};
use crate::storage::*;

const NAME: &str = "RAM";

/// A bucket in memory. Clones share it.
#[derive(Clone, Debug)]
pub struct RamStorage {
    bucket: Arc<Mutex<RamBucket>>,
    next_id: Arc<AtomicU64>,
    rules: PartRules,
}

#[derive(Debug, Default)]
struct RamBucket {
    objects: BTreeMap<String, (Bytes, Meta, String)>,
    uploads: HashMap<String, Unfinished>,
    counts: BucketCounts,
}

#[derive(Debug)]
struct Unfinished {
    key: String,
    parts: BTreeMap<u32, (Bytes, PartTag)>,
}

/// Requests that the bucket has served. Refused calls count in `requests` only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BucketCounts {
    /// Requests that carried bytes: parts and small objects.
    pub puts: u64,
    /// Bytes of those.
    pub bytes: u64,
    /// Uploads that were begun.
    pub begun: u64,
    /// Uploads that became an object.
    pub completed: u64,
    /// Uploads that were aborted.
    pub aborted: u64,
    /// Requests of any kind, refused ones included.
    pub requests: u64,
}

impl Default for RamStorage {
    fn default() -> Self {
        Self::new()
    }
}

impl RamStorage {
    /// AWS S3: parts of 5 MiB to 5 GiB, at most 10,000.
    pub const S3_RULES: PartRules =
        PartRules { min_part_bytes: 5 << 20, max_part_bytes: 5 << 30, max_parts: 10_000, uniform: false };

    /// An empty bucket with S3's rules.
    pub fn new() -> Self {
        Self::with_rules(Self::S3_RULES)
    }

    /// An empty bucket with other rules: parts that a test can afford, or those of R2 or Azure.
    pub fn with_rules(rules: PartRules) -> Self {
        Self { bucket: Arc::default(), next_id: Arc::default(), rules }
    }

    /// Requests so far.
    pub fn counts(&self) -> BucketCounts {
        self.bucket().counts
    }

    /// Uploads that were begun and neither completed nor aborted.
    pub fn open_uploads(&self) -> usize {
        self.bucket().uploads.len()
    }

    /// Deletes all unfinished uploads, as a bucket's lifecycle rule does.
    pub fn sweep(&self) {
        self.bucket().uploads.clear();
    }

    /// The bytes of an object.
    pub fn object(&self, key: &str) -> Option<Bytes> {
        self.bucket().objects.get(key).map(|(bytes, ..)| bytes.clone())
    }

    /// What an object was stored with.
    pub fn meta(&self, key: &str) -> Option<Meta> {
        self.bucket().objects.get(key).map(|(_, meta, _)| meta.clone())
    }

    /// Keys of all objects, ascending.
    pub fn keys(&self) -> Vec<String> {
        self.bucket().objects.keys().cloned().collect()
    }

    fn bucket(&self) -> MutexGuard<'_, RamBucket> {
        self.bucket.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn request(&self) -> MutexGuard<'_, RamBucket> {
        let mut bucket = self.bucket();
        bucket.counts.requests += 1;
        bucket
    }
}

fn error(kind: StorageErrorKind, doing: &'static str, message: impl Into<String>) -> StorageError {
    StorageError::new(kind, NAME, doing, message)
}

fn tag(bytes: &Bytes) -> PartTag {
    PartTag { bytes: bytes.len() as u64, etag: hex(&md5(bytes)), crc32c: Some(crc32c::crc32c(bytes)) }
}

fn gone(doing: &'static str) -> StorageError {
    error(StorageErrorKind::Gone, doing, "NoSuchUpload: The specified upload does not exist")
}

#[async_trait]
impl Storage for RamStorage {
    fn name(&self) -> &'static str {
        NAME
    }

    fn location(&self, name: &str) -> String {
        format!("ram://{name}")
    }

    fn rules(&self) -> PartRules {
        self.rules
    }

    async fn put(&self, name: &str, bytes: Bytes, meta: &Meta) -> Result<Stored, StorageError> {
        let etag = hex(&md5(&bytes));
        let length = bytes.len() as u64;
        let mut bucket = self.request();
        bucket.counts.puts += 1;
        bucket.counts.bytes += length;
        bucket.objects.insert(name.to_owned(), (bytes, meta.clone(), etag.clone()));
        Ok(Stored { bytes: length, etag, location: self.location(name) })
    }

    async fn begin(&self, name: &str, _: &Meta) -> Result<Upload, StorageError> {
        let id = format!("upload-{}", self.next_id.fetch_add(1, Ordering::Relaxed));
        let mut bucket = self.request();
        bucket.counts.begun += 1;
        bucket.uploads.insert(id.clone(), Unfinished { key: name.to_owned(), parts: BTreeMap::new() });
        Ok(Upload { id, key: name.to_owned(), replaces: None })
    }

    async fn put_part(&self, upload: &Upload, number: u32, _: u32, bytes: Bytes) -> Result<PartTag, StorageError> {
        let length = bytes.len() as u64;
        if number == 0 || number > self.rules.max_parts || length > self.rules.max_part_bytes {
            return Err(error(
                StorageErrorKind::Invalid,
                "put part",
                format!("InvalidArgument: part {number} of {length} bytes"),
            ));
        }
        let tag = tag(&bytes);
        let mut bucket = self.request();
        let unfinished = bucket.uploads.get_mut(&upload.id).ok_or_else(|| gone("put part"))?;
        unfinished.parts.insert(number, (bytes, tag.clone()));
        bucket.counts.puts += 1;
        bucket.counts.bytes += length;
        Ok(tag)
    }

    fn expected_tag(&self, _: u32, _: u32, bytes: &Bytes) -> Option<PartTag> {
        Some(tag(bytes))
    }

    async fn complete(&self, upload: &Upload, parts: &[Part], meta: &Meta) -> Result<Stored, StorageError> {
        let doing = "complete";
        let etag = etag_of_parts(parts.iter().map(|part| part.tag.etag.as_str()))
            .ok_or_else(|| error(StorageErrorKind::Invalid, doing, "InvalidPart: tags are not ours"))?;
        let mut bucket = self.request();
        let Some(unfinished) = bucket.uploads.get(&upload.id) else {
            return match bucket.objects.get(&upload.key) {
                Some((bytes, _, found)) if *found == etag => {
                    Ok(Stored { bytes: bytes.len() as u64, etag, location: self.location(&upload.key) })
                }
                _ => Err(gone(doing)),
            };
        };
        let mut whole = BytesMut::new();
        for (index, part) in parts.iter().enumerate() {
            let (bytes, tag) =
                unfinished.parts.get(&part.number).filter(|(_, tag)| *tag == part.tag).ok_or_else(|| {
                    error(StorageErrorKind::Invalid, doing, format!("InvalidPart: part {}", part.number))
                })?;
            let last = index + 1 == parts.len();
            if part.number as usize != index + 1 {
                return Err(error(StorageErrorKind::Invalid, doing, "InvalidPartOrder"));
            }
            if !last && tag.bytes < self.rules.min_part_bytes {
                return Err(error(StorageErrorKind::Invalid, doing, format!("EntityTooSmall: part {}", part.number)));
            }
            if self.rules.uniform && (tag.bytes > parts[0].tag.bytes || !last && tag.bytes != parts[0].tag.bytes) {
                return Err(error(
                    StorageErrorKind::Invalid,
                    doing,
                    "InvalidPart: all parts but the last must be of one size",
                ));
            }
            whole.extend_from_slice(bytes);
        }
        if whole.is_empty() {
            return Err(error(StorageErrorKind::Invalid, doing, "MalformedXML: no parts"));
        }
        let whole = whole.freeze();
        let length = whole.len() as u64;
        let key = unfinished.key.clone();
        bucket.uploads.remove(&upload.id);
        bucket.counts.completed += 1;
        let location = self.location(&key);
        bucket.objects.insert(key, (whole, meta.clone(), etag.clone()));
        Ok(Stored { bytes: length, etag, location })
    }

    async fn abort(&self, upload: &Upload) -> Result<(), StorageError> {
        let mut bucket = self.request();
        if bucket.uploads.remove(&upload.id).is_some() {
            bucket.counts.aborted += 1;
        }
        Ok(())
    }

    async fn list_parts(&self, upload: &Upload) -> Result<Option<Vec<Part>>, StorageError> {
        let bucket = self.request();
        let unfinished = bucket.uploads.get(&upload.id).ok_or_else(|| gone("list parts"))?;
        let part =
            |(number, (_, tag)): (&u32, &(Bytes, PartTag))| Part { number: *number, generation: 0, tag: tag.clone() };
        Ok(Some(unfinished.parts.iter().map(part).collect()))
    }

    async fn head(&self, name: &str) -> Result<Option<Object>, StorageError> {
        let object =
            |(bytes, _, etag): &(Bytes, Meta, String)| Object { bytes: bytes.len() as u64, etag: etag.clone() };
        Ok(self.request().objects.get(name).map(object))
    }

    async fn read_small(&self, name: &str) -> Result<Option<Bytes>, StorageError> {
        Ok(self.request().objects.get(name).map(|(bytes, ..)| bytes.clone()))
    }

    async fn delete(&self, name: &str) -> Result<(), StorageError> {
        self.request().objects.remove(name);
        Ok(())
    }

    async fn presign(&self, name: &str, validity: Duration) -> Result<String, StorageError> {
        Ok(format!("{}?expires={}", self.location(name), validity.as_secs()))
    }
}
