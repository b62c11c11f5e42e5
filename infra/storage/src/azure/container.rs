//! Requests about the blobs of one container, by Azure's crate with its retries switched off. Called by the store in the parent
//! module, in the caller's task; each request is tried a few times.

use std::sync::Arc;

use azure_core::credentials::TokenCredential;
use azure_core::http::{ClientOptions, Etag, RequestContent, RetryOptions, Transport, Url};
use azure_identity::{ManagedIdentityCredential, ManagedIdentityCredentialOptions, UserAssignedId};
use azure_storage_blob::clients::{BlobClient, BlobClientOptions};
use azure_storage_blob::models::{
    BlobClientDeleteOptions, BlobClientGetPropertiesResultHeaders, BlockBlobClientCommitBlockListOptions,
    BlockBlobClientCommitBlockListResultHeaders, BlockBlobClientStageBlockOptions, BlockBlobClientUploadOptions,
    BlockListType, BlockLookupList,
};
use bytes::Bytes;
use spillway_plan::destination::{Azure, with_scheme, without_user};

use super::api::{self, NAME, failed};
use super::block::{Block, block_id, tag};
use super::key::SharedKey;
use crate::attempts::tried;
use crate::checksum::{hex, md5, unquoted};
use crate::error::{StorageError, StorageErrorKind};
use crate::guarded::NamedHosts;
use crate::options::Options;
use crate::storage::{Object, PartTag, Upload};

/// One container with the credentials for it.
pub struct BlobContainer {
    url: Url,
    /// `url` as locations show it.
    pub location: String,
    /// Name of the storage account.
    pub account: String,
    /// Name of the container.
    pub name: String,
    /// The account key; `None`: the machine's managed identity is used.
    pub key: Option<Arc<SharedKey>>,
    identity: Option<Arc<dyn TokenCredential>>,
    transport: Transport,
    options: Options,
}

/// What stands under a key.
pub enum HeadOutcome {
    /// A committed blob.
    Object(Object),
    /// No committed blob.
    Nothing,
    /// Unknown: these credentials may not read.
    MayNotLook,
}

impl BlobContainer {
    /// A client for the destination's container. Makes no request.
    ///
    /// # Errors
    /// `Invalid`: the endpoint is no URL. `Denied`: neither a key nor a managed identity. `Refused`: a request may not name the
    /// endpoint. A retry changes nothing.
    pub async fn open(azure: &Azure, options: &Options) -> Result<Self, StorageError> {
        let invalid = |message: String| StorageError::new(StorageErrorKind::Invalid, NAME, "open", message);
        let endpoint = match azure.endpoint.as_str() {
            "" => format!("https://{}.blob.core.windows.net", azure.account),
            endpoint => with_scheme(endpoint),
        };
        let location = format!("{}/{}", without_user(&endpoint).trim_end_matches('/'), azure.container);
        let url = Url::parse(&location).map_err(|error| invalid(format!("the endpoint is no URL: {error}")))?;
        let key = (!azure.key.reveal().is_empty()).then(|| Arc::new(SharedKey::new(&azure.account, &azure.key)));
        let identity: Option<Arc<dyn TokenCredential>> = match key {
            Some(_) => None,
            None => {
                let id = options.azure_client_id.clone().map(UserAssignedId::ClientId);
                let chosen = ManagedIdentityCredentialOptions { user_assigned_id: id, ..Default::default() };
                let identity = ManagedIdentityCredential::new(Some(chosen));
                Some(identity.map_err(|_| {
                    StorageError::new(StorageErrorKind::Denied, NAME, "open", "no account key and no managed identity")
                })?)
            }
        };
        let hosts = NamedHosts { provider: NAME, origin: azure.origin, endpoint: &azure.endpoint, proxy: None };
        let client = reqwest::Client::builder()
            .connect_timeout(options.connect_timeout)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .dns_resolver(hosts.checked(options).await?)
            .build()
            .map_err(|error| {
                StorageError::new(StorageErrorKind::Other, NAME, "open", "no HTTP client").because(error)
            })?;
        Ok(Self {
            url,
            location,
            account: azure.account.clone(),
            name: azure.container.clone(),
            key,
            identity,
            transport: Transport::new(Arc::new(client)),
            options: options.clone(),
        })
    }

    fn blob(&self, key: &str, doing: &'static str) -> Result<BlobClient, StorageError> {
        let mut url = self.url.clone();
        // Each slash of the name separates two segments, as other tools write it.
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

    /// Length and ETag of a committed blob; `None`: there is none.
    ///
    /// # Errors
    /// A refusal by its code; `Busy` where no answer came.
    pub async fn object(&self, key: &str, doing: &'static str) -> Result<Option<Object>, StorageError> {
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

    /// As [`BlobContainer::object`], where missing permission to read is no error.
    ///
    /// # Errors
    /// As for [`BlobContainer::object`], without `Denied`.
    pub async fn seen(&self, key: &str, doing: &'static str) -> Result<HeadOutcome, StorageError> {
        match self.object(key, doing).await {
            Ok(Some(object)) => Ok(HeadOutcome::Object(object)),
            Ok(None) => Ok(HeadOutcome::Nothing),
            Err(error) if error.kind == StorageErrorKind::Denied => Ok(HeadOutcome::MayNotLook),
            Err(error) => Err(error),
        }
    }

    /// Whether another process has committed a blob under the upload's key since it began.
    ///
    /// # Errors
    /// As for [`BlobContainer::seen`].
    pub async fn is_overtaken(&self, upload: &Upload, doing: &'static str) -> Result<bool, StorageError> {
        Ok(match self.seen(&upload.key, doing).await? {
            HeadOutcome::Object(object) => upload.replaces.as_ref() != Some(&object.etag),
            HeadOutcome::Nothing | HeadOutcome::MayNotLook => false,
        })
    }

    /// Blocks under the upload's key, those of other uploads included; empty where there is no blob.
    ///
    /// # Errors
    /// A refusal by its code; `Busy` where no answer came.
    pub async fn blocks(
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

    /// Stores one block, not committed, and returns its tag. Its MD5 is checked by Azure.
    ///
    /// # Errors
    /// `Mismatch`: the bytes were changed on the way. Otherwise a refusal by its code; `Busy` where no answer came.
    pub async fn stage(
        &self,
        upload: &Upload,
        number: u32,
        generation: u32,
        bytes: Bytes,
        doing: &'static str,
    ) -> Result<PartTag, StorageError> {
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
        .await?;
        Ok(tag(length, &digest))
    }

    /// Makes the blob of these blocks, on the condition that what was there when the upload began is there still. Returns its
    /// ETag.
    ///
    /// # Errors
    /// `Gone`: the condition failed. `Invalid`: a block is missing. Otherwise a refusal by its code; `Busy` where no answer
    /// came.
    pub async fn commit(
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

    /// Whether the committed blob consists of exactly these blocks: then an earlier commit succeeded and its answer was
    /// lost.
    pub async fn is_made_of(&self, upload: &Upload, ids: &[String]) -> bool {
        match self.blocks(upload, BlockListType::Committed, "complete").await {
            Ok(blocks) => blocks.iter().map(|block| &block.id).eq(ids),
            Err(_) => false,
        }
    }

    /// Stores a whole blob with one request and returns its MD5 as hexadecimal text.
    ///
    /// # Errors
    /// As for [`Storage::put`](crate::Storage::put).
    pub async fn put(&self, key: &str, bytes: Bytes, content_type: &str) -> Result<String, StorageError> {
        let doing = "put";
        let blob = self.blob(key, doing)?.block_blob_client();
        let digest = md5(&bytes).to_vec();
        tried(NAME, doing, &self.options, self.options.call_timeout(bytes.len() as u64), || async {
            let options = BlockBlobClientUploadOptions {
                blob_content_type: Some(content_type.to_owned()).filter(|kind| !kind.is_empty()),
                blob_content_md5: Some(digest.clone()),
                ..BlockBlobClientUploadOptions::default()
            };
            let content = <RequestContent<_, _> as From<Bytes>>::from(bytes.clone());
            blob.upload(content, Some(options)).await.map_err(|error| failed(doing, error))
        })
        .await?;
        Ok(hex(&digest))
    }

    /// All of a blob; `None`: there is none.
    ///
    /// # Errors
    /// As for [`Storage::read_small`](crate::Storage::read_small).
    pub async fn read(&self, key: &str) -> Result<Option<Bytes>, StorageError> {
        let doing = "read";
        let blob = self.blob(key, doing)?;
        tried(NAME, doing, &self.options, self.options.call_timeout(0), || async {
            match blob.download(None).await {
                Ok(answer) => Ok(Some(answer.body.collect().await.map_err(|error| failed(doing, error))?)),
                Err(error) if api::code(&error) == Some("BlobNotFound") => Ok(None),
                Err(error) => Err(failed(doing, error)),
            }
        })
        .await
    }

    /// Deletes a blob, if it still has this ETag where one is given; one that was replaced or deleted meanwhile is left alone.
    ///
    /// # Errors
    /// A refusal by its code; `Busy` where no answer came.
    pub async fn delete(&self, key: &str, etag: Option<&str>, doing: &'static str) -> Result<(), StorageError> {
        let blob = self.blob(key, doing)?;
        tried(NAME, doing, &self.options, self.options.call_timeout(0), || async {
            let options = BlobClientDeleteOptions {
                if_match: etag.map(|etag| Etag::from(format!("\"{etag}\""))),
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
}
