//! Azure's block blobs. They know no uploads, only blocks under a name: whose block it is stands in its id, and the
//! commit is conditional on what was there when the upload began.
//!
//! `key` signs requests and links with an account key; `message` understands errors; the calls are here.

mod key;
mod api;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use azure_core::credentials::TokenCredential;
use azure_core::http::{ClientOptions, Etag, RequestContent, RetryOptions, Transport, Url};
use azure_identity::ManagedIdentityCredential;
use azure_storage_blob::clients::{BlobClient, BlobClientOptions};
use azure_storage_blob::models::{
    BlobClientDeleteOptions, BlobClientGetPropertiesResultHeaders, BlockBlobClientCommitBlockListOptions,
    BlockBlobClientCommitBlockListResultHeaders, BlockBlobClientStageBlockOptions, BlockBlobClientUploadOptions,
    BlockListType, BlockLookupList,
};
use bytes::Bytes;
use spillway_plan::destination::Azure;

use crate::attempts::tried;
use crate::checksum::{hex, md5, unquoted};
use crate::error::{StorageError, StorageErrorKind};
use crate::escape::escaped;
use crate::open::Options;
use crate::storage::*;
use api::failed;
use key::SharedKey;

const NAME: &str = "Azure";
/// The block that proves at `begin` that we may write. It becomes no part of the blob.
const PROBE: u32 = 0;

pub struct AzureStorage {
    /// The container's.
    url: Url,
    place: String,
    account: String,
    container: String,
    key: Option<Arc<SharedKey>>,
    identity: Option<Arc<dyn TokenCredential>>,
    transport: Transport,
    options: Options,
}

impl std::fmt::Debug for AzureStorage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Azure({}/{})", self.account, self.container)
    }
}

struct Block {
    id: String,
    bytes: u64,
}

/// Blocks are named by us: what a block is known by is told by its bytes alone.
fn tag(bytes: &Bytes) -> PartTag {
    PartTag { bytes: bytes.len() as u64, etag: hex(&md5(bytes)), crc32c: None }
}

/// Of one length for all uploads there are: Azure wants that of all blocks of a blob.
fn block_id(upload: &str, number: u32, generation: u32) -> String {
    format!("{upload}-{number:05}-{generation:06}")
}

fn parse_block(upload: &str, block: &Block) -> Option<Part> {
    let (number, generation) = block.id.strip_prefix(upload)?.strip_prefix('-')?.split_once('-')?;
    let tag = PartTag { bytes: block.bytes, etag: String::new(), crc32c: None };
    Some(Part { number: number.parse().ok()?, generation: generation.parse().ok()?, tag })
}

impl AzureStorage {
    pub fn open(azure: &Azure, options: &Options) -> Result<Self, StorageError> {
        let invalid = |message: String| StorageError::new(StorageErrorKind::Invalid, NAME, "open", message);
        let endpoint = match azure.endpoint.as_str() {
            "" => format!("https://{}.blob.core.windows.net", azure.account),
            endpoint if endpoint.contains("://") => endpoint.to_owned(),
            endpoint => format!("https://{endpoint}"),
        };
        let place = format!("{}/{}", endpoint.trim_end_matches('/'), azure.container);
        let url = Url::parse(&place).map_err(|error| invalid(format!("{error}: {place}")))?;
        let key = (!azure.key.reveal().is_empty()).then(|| Arc::new(SharedKey::new(&azure.account, &azure.key)));
        let identity: Option<Arc<dyn TokenCredential>> = match key {
            Some(_) => None,
            None => {
                let identity = ManagedIdentityCredential::new(None);
                Some(identity.map_err(|_| {
                    StorageError::new(StorageErrorKind::Denied, NAME, "open", "no account key and no managed identity")
                })?)
            }
        };
        let client = reqwest::Client::builder()
            .connect_timeout(options.connect_timeout)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .map_err(|error| {
                StorageError::new(StorageErrorKind::Other, NAME, "open", "no HTTP client").because(error)
            })?;
        Ok(Self {
            url,
            place,
            account: azure.account.clone(),
            container: azure.container.clone(),
            key,
            identity,
            transport: Transport::new(Arc::new(client)),
            options: options.clone(),
        })
    }

    fn blob(&self, key: &str, doing: &'static str) -> Result<BlobClient, StorageError> {
        let mut url = self.url.clone();
        // Each slash of the name is a segment of its own, as everybody else writes it.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.extend(key.split('/'));
        }
        let per_try = self.key.iter().map(|key| key.clone() as Arc<dyn azure_core::http::policies::Policy>).collect();
        let client_options = ClientOptions {
            per_try_policies: per_try,
            retry: RetryOptions::none(),
            transport: Some(self.transport.clone()),
            ..ClientOptions::default()
        };
        let options = BlobClientOptions { client_options, ..BlobClientOptions::default() };
        BlobClient::new(url, self.identity.clone(), Some(options)).map_err(|error| failed(doing, error))
    }

    fn error(&self, kind: StorageErrorKind, doing: &'static str, message: impl Into<String>) -> StorageError {
        StorageError::new(kind, NAME, doing, message)
    }

    async fn object(&self, key: &str, doing: &'static str) -> Result<Option<Object>, StorageError> {
        let blob = self.blob(key, doing)?;
        let answer = tried(NAME, doing, &self.options, self.options.call_timeout(0), || async {
            match blob.get_properties(None).await {
                Ok(answer) => Ok(Some(answer)),
                Err(error) if api::code(&error) == Some("BlobNotFound") => Ok(None),
                Err(error) => Err(failed(doing, error)),
            }
        });
        let Some(answer) = answer.await? else { return Ok(None) };
        let bytes = answer.content_length().map_err(|error| failed(doing, error))?.unwrap_or_default();
        let etag = answer.etag().map_err(|error| failed(doing, error))?;
        Ok(Some(Object { bytes, etag: etag.map(|etag| unquoted(etag.as_ref())).unwrap_or_default() }))
    }

    /// As `object`; who may not read is told nothing.
    async fn seen(&self, key: &str, doing: &'static str) -> Result<HeadOutcome, StorageError> {
        match self.object(key, doing).await {
            Ok(Some(object)) => Ok(HeadOutcome::Object(object)),
            Ok(None) => Ok(HeadOutcome::Nothing),
            Err(error) if error.kind == StorageErrorKind::Denied => Ok(HeadOutcome::MayNotLook),
            Err(error) => Err(error),
        }
    }

    /// Since the upload began, somebody has committed a blob under its name.
    async fn is_overtaken(&self, upload: &Upload, doing: &'static str) -> Result<bool, StorageError> {
        Ok(match self.seen(&upload.key, doing).await? {
            HeadOutcome::Object(object) => upload.replaces.as_ref() != Some(&object.etag),
            HeadOutcome::Nothing | HeadOutcome::MayNotLook => false,
        })
    }

    async fn blocks(
        &self,
        upload: &Upload,
        which: BlockListType,
        doing: &'static str,
    ) -> Result<Vec<Block>, StorageError> {
        let blob = self.blob(&upload.key, doing)?.block_blob_client();
        let answer = tried(NAME, doing, &self.options, self.options.call_timeout(0), || async {
            match blob.get_block_list(which, None).await {
                Ok(answer) => Ok(Some(answer.into_model().map_err(|error| failed(doing, error))?)),
                Err(error) if api::code(&error) == Some("BlobNotFound") => Ok(None),
                Err(error) => Err(failed(doing, error)),
            }
        });
        let Some(list) = answer.await? else { return Ok(Vec::new()) };
        let blocks = match which {
            BlockListType::Committed => list.committed_blocks,
            _ => list.uncommitted_blocks,
        };
        let block = |block: azure_storage_blob::models::Block| Block {
            id: String::from_utf8_lossy(&block.name.unwrap_or_default()).into_owned(),
            bytes: block.size.and_then(|size| size.try_into().ok()).unwrap_or_default(),
        };
        Ok(blocks.unwrap_or_default().into_iter().map(block).collect())
    }

    async fn stage(
        &self,
        upload: &Upload,
        number: u32,
        generation: u32,
        bytes: Bytes,
        doing: &'static str,
    ) -> Result<(), StorageError> {
        let blob = self.blob(&upload.key, doing)?.block_blob_client();
        let id = block_id(&upload.id, number, generation).into_bytes();
        let length = bytes.len() as u64;
        let digest = md5(&bytes).to_vec();
        tried(NAME, doing, &self.options, self.options.call_timeout(length), || async {
            let options = BlockBlobClientStageBlockOptions {
                transactional_content_md5: Some(digest.clone()),
                ..BlockBlobClientStageBlockOptions::default()
            };
            let content = <RequestContent<_, _> as From<Bytes>>::from(bytes.clone());
            blob.stage_block(&id, length, content, Some(options)).await.map_err(|error| failed(doing, error))
        })
        .await
        .map(|_| ())
    }

    /// Only over what was there when the upload began.
    async fn commit(
        &self,
        upload: &Upload,
        ids: Vec<String>,
        content_type: &str,
        doing: &'static str,
    ) -> Result<String, StorageError> {
        let blob = self.blob(&upload.key, doing)?.block_blob_client();
        let ids: Vec<Vec<u8>> = ids.into_iter().map(String::into_bytes).collect();
        let answer = tried(NAME, doing, &self.options, self.options.complete_timeout, || async {
            let list = BlockLookupList { latest: Some(ids.clone()), ..BlockLookupList::default() };
            let options = BlockBlobClientCommitBlockListOptions {
                blob_content_type: Some(content_type.to_owned()).filter(|kind| !kind.is_empty()),
                if_match: upload.replaces.as_ref().map(|etag| Etag::from(format!("\"{etag}\""))),
                if_none_match: upload.replaces.is_none().then(|| Etag::from("*")),
                ..BlockBlobClientCommitBlockListOptions::default()
            };
            let list = list.try_into().map_err(|error| failed(doing, error))?;
            blob.commit_block_list(list, Some(options)).await.map_err(|error| failed(doing, error))
        });
        let etag = answer.await?.etag().map_err(|error| failed(doing, error))?;
        Ok(etag.map(|etag| unquoted(etag.as_ref())).unwrap_or_default())
    }

    /// Whether the blob that is there was committed from exactly these parts: perhaps by us, and the answer was lost.
    async fn is_made_of(&self, upload: &Upload, ids: &[String]) -> bool {
        match self.blocks(upload, BlockListType::Committed, "complete").await {
            Ok(blocks) => blocks.iter().map(|block| &block.id).eq(ids),
            Err(_) => false,
        }
    }
}

enum HeadOutcome {
    Object(Object),
    Nothing,
    MayNotLook,
}

#[async_trait]
impl Storage for AzureStorage {
    fn name(&self) -> &'static str {
        NAME
    }

    fn location(&self, name: &str) -> String {
        format!("{}/{}", self.place, escaped(name))
    }

    fn rules(&self) -> PartRules {
        PartRules { min_part_bytes: 1, max_part_bytes: 4000 << 20, max_parts: 50_000, uniform: false }
    }

    async fn put(&self, name: &str, bytes: Bytes, meta: &Meta) -> Result<Stored, StorageError> {
        let doing = "put";
        let blob = self.blob(name, doing)?.block_blob_client();
        let length = bytes.len() as u64;
        let digest = md5(&bytes).to_vec();
        tried(NAME, doing, &self.options, self.options.call_timeout(length), || async {
            let options = BlockBlobClientUploadOptions {
                blob_content_type: Some(meta.content_type.clone()).filter(|kind| !kind.is_empty()),
                blob_content_md5: Some(digest.clone()),
                ..BlockBlobClientUploadOptions::default()
            };
            let content = <RequestContent<_, _> as From<Bytes>>::from(bytes.clone());
            blob.upload(content, Some(options)).await.map_err(|error| failed(doing, error))
        })
        .await?;
        Ok(Stored { bytes: length, etag: hex(&digest), location: self.location(name) })
    }

    async fn begin(&self, name: &str, _: &Meta) -> Result<Upload, StorageError> {
        let replaces = match self.seen(name, "begin").await? {
            HeadOutcome::Object(object) => Some(object.etag),
            HeadOutcome::Nothing | HeadOutcome::MayNotLook => None,
        };
        let upload = Upload { id: hex(&rand::random::<[u8; 8]>()), key: name.to_owned(), replaces };
        self.stage(&upload, PROBE, 0, Bytes::from_static(b"?"), "begin").await?;
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
        // Azure would take it and keep it for a week.
        if self.is_overtaken(upload, doing).await? {
            return Err(self.error(StorageErrorKind::Gone, doing, "another blob was committed under this name"));
        }
        let tag = tag(&bytes);
        self.stage(upload, number, generation, bytes, doing).await?;
        Ok(tag)
    }

    fn expected_tag(&self, _: u32, _: u32, bytes: &Bytes) -> Option<PartTag> {
        Some(tag(bytes))
    }

    async fn complete(&self, upload: &Upload, parts: &[Part], meta: &Meta) -> Result<Stored, StorageError> {
        let doing = "complete";
        let ids: Vec<_> = parts.iter().map(|part| block_id(&upload.id, part.number, part.generation)).collect();
        let bytes = parts.iter().map(|part| part.tag.bytes).sum();
        let location = self.location(&upload.key);
        let etag = match self.commit(upload, ids.clone(), &meta.content_type, doing).await {
            Ok(etag) => etag,
            Err(error) if error.kind == StorageErrorKind::Gone => {
                if !self.is_made_of(upload, &ids).await {
                    return Err(error);
                }
                String::new()
            }
            Err(error) if error.message.contains("InvalidBlockList") => {
                let ours = self.blocks(upload, BlockListType::Uncommitted, doing).await?;
                let any = ours.iter().any(|block| parse_block(&upload.id, block).is_some());
                return Err(if any { error } else { StorageError { kind: StorageErrorKind::Gone, ..error } });
            }
            Err(error) => return Err(error),
        };
        match self.seen(&upload.key, doing).await {
            Ok(HeadOutcome::Object(object)) if object.bytes != bytes => {
                let message = format!("{bytes} bytes in {} blocks were sent, {} are stored", parts.len(), object.bytes);
                Err(self.error(StorageErrorKind::Mismatch, doing, message))
            }
            // The commit was acknowledged; that nobody answers now changes nothing.
            _ => Ok(Stored { bytes, etag, location }),
        }
    }

    /// Blocks cannot be removed by themselves. Where nothing was replaced, an empty blob takes their place and goes. Where
    /// something was, or another upload of this name is going on, they stay for the week that Azure keeps them.
    async fn abort(&self, upload: &Upload) -> Result<(), StorageError> {
        let doing = "abort";
        let blocks = self.blocks(upload, BlockListType::Uncommitted, doing).await?;
        let (ours, others): (Vec<_>, Vec<_>) =
            blocks.iter().partition(|block| parse_block(&upload.id, block).is_some());
        if ours.is_empty() || !others.is_empty() || upload.replaces.is_some() {
            return Ok(());
        }
        let etag = match self.commit(upload, Vec::new(), "", doing).await {
            Ok(etag) => etag,
            Err(error) if error.kind == StorageErrorKind::Gone => return Ok(()),
            Err(error) => return Err(error),
        };
        let blob = self.blob(&upload.key, doing)?;
        tried(NAME, doing, &self.options, self.options.call_timeout(0), || async {
            let options = BlobClientDeleteOptions {
                if_match: Some(Etag::from(format!("\"{etag}\""))),
                ..BlobClientDeleteOptions::default()
            };
            match blob.delete(Some(options)).await {
                Ok(_) => Ok(()),
                Err(error) if matches!(api::code(&error), Some("BlobNotFound" | "ConditionNotMet")) => Ok(()),
                Err(error) => Err(failed(doing, error)),
            }
        })
        .await
    }

    async fn list_parts(&self, upload: &Upload) -> Result<Option<Vec<Part>>, StorageError> {
        let doing = "list parts";
        let blocks = match self.blocks(upload, BlockListType::Uncommitted, doing).await {
            Ok(blocks) => blocks,
            Err(error) if error.kind == StorageErrorKind::Denied => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut parts: Vec<_> = blocks.iter().filter_map(|block| parse_block(&upload.id, block)).collect();
        if parts.is_empty() {
            return Err(self.error(StorageErrorKind::Gone, doing, "no block of this upload is left"));
        }
        parts.retain(|part| part.number != PROBE);
        parts.sort_by_key(|part| (part.number, std::cmp::Reverse(part.generation)));
        parts.dedup_by_key(|part| part.number);
        Ok(Some(parts))
    }

    async fn head(&self, name: &str) -> Result<Option<Object>, StorageError> {
        self.object(name, "head").await
    }

    async fn read_small(&self, name: &str) -> Result<Option<Bytes>, StorageError> {
        let doing = "read";
        let blob = self.blob(name, doing)?;
        tried(NAME, doing, &self.options, self.options.call_timeout(0), || async {
            match blob.download(None).await {
                Ok(answer) => Ok(Some(answer.body.collect().await.map_err(|error| failed(doing, error))?)),
                Err(error) if api::code(&error) == Some("BlobNotFound") => Ok(None),
                Err(error) => Err(failed(doing, error)),
            }
        })
        .await
    }

    async fn presign(&self, name: &str, life: Duration) -> Result<String, StorageError> {
        let Some(key) = &self.key else {
            return Err(self.error(StorageErrorKind::Invalid, "presign", "links need the account key"));
        };
        let until = chrono::Utc::now() + life;
        let query = key.link(&self.container, name, until).map_err(|error| failed("presign", error))?;
        Ok(format!("{}?{query}", self.location(name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_tells_its_upload_number_and_generation() {
        let id = block_id("0123456789abcdef", 50_000, 12);
        assert_eq!(id.len(), block_id("fedcba9876543210", 1, 999_999).len());
        let part = parse_block("0123456789abcdef", &Block { id: id.clone(), bytes: 7 }).unwrap();
        assert_eq!((part.number, part.generation, part.tag.bytes), (50_000, 12, 7));
        assert_eq!(parse_block("fedcba9876543210", &Block { id, bytes: 7 }), None);
    }

    #[test]
    fn locations_name_the_container() {
        let azure = Azure {
            account: "acc".into(),
            key: spillway_plan::Secret::new("a2V5".into()),
            container: "rec".into(),
            ..Azure::default()
        };
        let storage = AzureStorage::open(&azure, &Options::default()).unwrap();
        assert_eq!(storage.location("my file.mp4"), "https://acc.blob.core.windows.net/rec/my%20file.mp4");
    }
}
