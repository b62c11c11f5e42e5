//! Google Cloud Storage by its XML API, for multipart uploads and whole objects alike. Google's own crate is not used: its
//! resumable uploads are one stream that no other process can continue, it takes no proxy, and it brings a gRPC client and
//! 17 more packages into every build for two calls.
//!
//! `identity` is credentials, `xml` the requests and answers, `link` signed links; the calls are here, in the caller's task.

mod identity;
mod link;
mod xml;

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::Utc;
use reqwest::Method;
use spillway_plan::destination::Gcs;

use crate::attempts::tried;
use crate::checksum::{Etags, etag_of_parts, hex, md5};
use crate::error::{StorageError, StorageErrorKind};
use crate::escape::escaped;
use crate::guarded::NamedHosts;
use crate::options::Options;
use crate::storage::*;
use identity::{GcsIdentity, NAME};
use link::UnsignedLink;
use xml::{GcsRequest, GcsResponse, XmlClient};

/// Parts in one answer of a list.
const PAGE: usize = 1000;

/// One bucket.
pub struct GcsStorage {
    bucket: String,
    xml: XmlClient,
    identity: GcsIdentity,
    etags: Etags,
    options: Options,
}

impl std::fmt::Debug for GcsStorage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "GCP({})", self.bucket)
    }
}

impl GcsStorage {
    /// The store of a GCS destination.
    ///
    /// # Errors
    /// `Denied`: the credentials. `Invalid`: the proxy's URL. `Refused`: a request may not name its host. A retry changes
    /// nothing.
    pub async fn open(gcs: &Gcs, options: &Options) -> Result<Self, StorageError> {
        let hosts =
            NamedHosts { provider: NAME, origin: gcs.origin, endpoint: &gcs.endpoint, proxy: gcs.proxy.as_ref() };
        let names = hosts.checked(options).await?;
        let identity = GcsIdentity::of(gcs)?;
        Ok(Self {
            bucket: gcs.bucket.clone(),
            xml: XmlClient::new(gcs, &identity, options, names)?,
            identity,
            etags: Etags::default(),
            options: options.clone(),
        })
    }

    async fn call(
        &self,
        doing: &'static str,
        call_timeout: Duration,
        ask: GcsRequest<'_>,
    ) -> Result<GcsResponse, StorageError> {
        tried(NAME, doing, &self.options, call_timeout, || self.xml.send(doing, &ask)).await
    }

    /// Headers of the object under a key; `None`: there is none.
    async fn found(&self, key: &str, doing: &'static str) -> Result<Option<GcsResponse>, StorageError> {
        match self.call(doing, self.options.call_timeout(0), GcsRequest::new(Method::HEAD, key)).await {
            Ok(answer) => Ok(Some(answer)),
            Err(error) if error.kind == StorageErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether an object is as long as the parts and has their checksum, where the answer has one.
    fn is_made_of(&self, answer: &GcsResponse, parts: &[Part]) -> bool {
        let bytes: u64 = parts.iter().map(|part| part.tag.bytes).sum();
        let crc = whole_crc(parts);
        let same_crc = match (answer.crc32c(), crc) {
            (Some(found), Some(sent)) => Some(found == sent),
            _ => None,
        };
        let same_etag = || etag_of_parts(parts.iter().map(|part| part.tag.etag.as_str())) == Some(answer.etag());
        answer.length() == Some(bytes) && same_crc.unwrap_or_else(same_etag)
    }
}

/// CRC32C of the object, computed from those of its parts.
fn whole_crc(parts: &[Part]) -> Option<u32> {
    parts.iter().try_fold(0, |whole, part| {
        Some(crc32c::crc32c_combine(whole, part.tag.crc32c?, usize::try_from(part.tag.bytes).ok()?))
    })
}

/// Google compares both with what it receives.
fn checksum_headers(digest: &[u8; 16], crc32c: u32) -> Vec<(&'static str, String)> {
    vec![("content-md5", xml::base64(digest)), ("x-goog-hash", xml::crc_header(crc32c))]
}

#[async_trait]
impl Storage for GcsStorage {
    fn name(&self) -> &'static str {
        NAME
    }

    fn location(&self, name: &str) -> String {
        format!("https://{}.storage.googleapis.com/{}", self.bucket, escaped(name))
    }

    fn rules(&self) -> PartRules {
        PartRules { min_part_bytes: 5 << 20, max_part_bytes: 5 << 30, max_parts: 10_000, uniform: false }
    }

    async fn put(&self, name: &str, bytes: Bytes, meta: &Meta) -> Result<Stored, StorageError> {
        let doing = "put";
        let length = bytes.len() as u64;
        let (digest, crc32c) = (md5(&bytes), crc32c::crc32c(&bytes));
        let mut headers = checksum_headers(&digest, crc32c);
        headers.push(("content-type", meta.content_type.clone()));
        headers.push(("content-disposition", "inline".to_owned()));
        let ask = GcsRequest { headers: &headers, body: bytes, ..GcsRequest::new(Method::PUT, name) };
        let answer = self.call(doing, self.options.call_timeout(length), ask).await?;
        answer.is_stored_as_sent(crc32c)?;
        Ok(Stored { bytes: length, etag: hex(&digest), location: self.location(name) })
    }

    async fn begin(&self, name: &str, meta: &Meta) -> Result<Upload, StorageError> {
        let headers = [("content-type", meta.content_type.clone()), ("content-disposition", "inline".to_owned())];
        let call_timeout = self.options.call_timeout(0);
        let answer = self
            .call(
                "begin",
                call_timeout,
                GcsRequest { query: &[("uploads", "")], headers: &headers, ..GcsRequest::new(Method::POST, name) },
            )
            .await?;
        Ok(Upload { id: answer.upload_id()?, key: name.to_owned(), replaces: None })
    }

    async fn put_part(&self, upload: &Upload, number: u32, _: u32, bytes: Bytes) -> Result<PartTag, StorageError> {
        let doing = "put part";
        let length = bytes.len() as u64;
        let (digest, crc32c) = (md5(&bytes), crc32c::crc32c(&bytes));
        let headers = checksum_headers(&digest, crc32c);
        let text = number.to_string();
        let query = [("partNumber", text.as_str()), ("uploadId", upload.id.as_str())];
        let call_timeout = self.options.call_timeout(length);
        let answer = self
            .call(
                doing,
                call_timeout,
                GcsRequest {
                    query: &query,
                    headers: &headers,
                    body: bytes,
                    ..GcsRequest::new(Method::PUT, &upload.key)
                },
            )
            .await?;
        answer.is_stored_as_sent(crc32c)?;
        let etag = answer.etag();
        let mismatch = |message| StorageError::new(StorageErrorKind::Mismatch, NAME, doing, message);
        self.etags.check(&etag, &digest).map_err(mismatch)?;
        Ok(PartTag { bytes: length, etag, crc32c: Some(crc32c) })
    }

    fn expected_tag(&self, _: u32, _: u32, bytes: &Bytes) -> Option<PartTag> {
        let etag = self.etags.expected_tag(bytes)?;
        Some(PartTag { bytes: bytes.len() as u64, etag, crc32c: Some(crc32c::crc32c(bytes)) })
    }

    async fn complete(&self, upload: &Upload, parts: &[Part], _: &Meta) -> Result<Stored, StorageError> {
        let doing = "complete";
        let bytes = parts.iter().map(|part| part.tag.bytes).sum();
        let location = self.location(&upload.key);
        let body = Bytes::from(xml::completion(parts));
        let query = [("uploadId", upload.id.as_str())];
        let call_timeout = self.options.complete_timeout;
        let gone = match self
            .call(doing, call_timeout, GcsRequest { query: &query, body, ..GcsRequest::new(Method::POST, &upload.key) })
            .await
        {
            Ok(_) => None,
            Err(error) if error.kind == StorageErrorKind::Gone => Some(error),
            Err(error) => return Err(error),
        };
        // Also after success: some stores answer a repeated completion with the object that is there, even if another
        // process made it.
        match (self.found(&upload.key, doing).await, gone) {
            (Ok(Some(answer)), _) if self.is_made_of(&answer, parts) => {
                Ok(Stored { bytes, etag: answer.etag(), location })
            }
            (_, Some(gone)) => Err(gone),
            (Ok(Some(_)), None) => {
                let message = "the object under this name is made of other parts";
                Err(StorageError::new(StorageErrorKind::Gone, NAME, doing, message))
            }
            // Credentials that may write need not be allowed to read.
            (Ok(None) | Err(_), None) => Ok(Stored { bytes, etag: String::new(), location }),
        }
    }

    async fn abort(&self, upload: &Upload) -> Result<(), StorageError> {
        let query = [("uploadId", upload.id.as_str())];
        let call_timeout = self.options.call_timeout(0);
        match self
            .call("abort", call_timeout, GcsRequest { query: &query, ..GcsRequest::new(Method::DELETE, &upload.key) })
            .await
        {
            Err(error) if !matches!(error.kind, StorageErrorKind::Gone | StorageErrorKind::NotFound) => Err(error),
            _ => Ok(()),
        }
    }

    async fn list_parts(&self, upload: &Upload) -> Result<Option<Vec<Part>>, StorageError> {
        let (mut parts, mut after) = (Vec::new(), String::from("0"));
        loop {
            let max_parts = PAGE.to_string();
            let query = [
                ("uploadId", upload.id.as_str()),
                ("max-parts", max_parts.as_str()),
                ("part-number-marker", after.as_str()),
            ];
            let call_timeout = self.options.call_timeout(0);
            let answer = self
                .call(
                    "list parts",
                    call_timeout,
                    GcsRequest { query: &query, ..GcsRequest::new(Method::GET, &upload.key) },
                )
                .await;
            let page = match answer {
                Ok(answer) => answer.parts()?,
                Err(error) if error.kind == StorageErrorKind::Denied => return Ok(None),
                Err(error) => return Err(error),
            };
            parts.extend(page.parts);
            match page.next.filter(|next| *next != after) {
                Some(next) => after = next,
                None => break,
            }
        }
        parts.sort_by_key(|part: &Part| part.number);
        Ok(Some(parts))
    }

    async fn head(&self, name: &str) -> Result<Option<Object>, StorageError> {
        let answer = self.found(name, "head").await?;
        Ok(answer.map(|answer| Object { bytes: answer.length().unwrap_or_default(), etag: answer.etag() }))
    }

    async fn read_small(&self, name: &str) -> Result<Option<Bytes>, StorageError> {
        match self.call("read", self.options.call_timeout(0), GcsRequest::new(Method::GET, name)).await {
            Ok(answer) => Ok(Some(answer.into_body())),
            Err(error) if error.kind == StorageErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn delete(&self, name: &str) -> Result<(), StorageError> {
        match self.call("delete", self.options.call_timeout(0), GcsRequest::new(Method::DELETE, name)).await {
            // Of a bucket that is not there too; then nothing was written either.
            Err(error) if error.kind != StorageErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    async fn presign(&self, name: &str, validity: Duration) -> Result<String, StorageError> {
        let failed = |message: String| StorageError::new(StorageErrorKind::Invalid, NAME, "presign", message);
        let signer = self.identity.signer().map_err(failed)?;
        let email = signer.client_email().await.map_err(|_| failed("the link could not be signed".to_owned()))?;
        let link = UnsignedLink::new(&self.bucket, name, validity, Utc::now(), &email);
        let signature =
            signer.sign(link.text()).await.map_err(|_| failed("the link could not be signed".to_owned()))?;
        Ok(link.signed(&signature))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_of_the_whole_comes_from_those_of_the_parts() {
        let pieces: [&[u8]; 3] = [b"one", b"two, longer", b"3"];
        let part = |(index, bytes): (usize, &&[u8])| Part {
            number: index as u32 + 1,
            generation: 0,
            tag: PartTag { bytes: bytes.len() as u64, etag: String::new(), crc32c: Some(crc32c::crc32c(bytes)) },
        };
        let parts: Vec<_> = pieces.iter().enumerate().map(part).collect();
        assert_eq!(whole_crc(&parts), Some(crc32c::crc32c(&pieces.concat())));
    }
}
