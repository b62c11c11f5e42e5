//! S3 and compatible stores: AWS, MinIO, R2, OCI …, Alibaba's OSS. Calls of the trait become requests of AWS' SDK, in the
//! caller's task; the SDK retries within [`Options`].
//!
//! `api` sorts its errors, `connect` makes the client, `place` writes locations; the requests are here.

mod api;
mod connect;
mod place;

use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::presigning::PresigningConfig;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use spillway_plan::destination::{AliOss, S3};

use crate::checksum::{Etags, etag_of_parts, md5, unquoted};
use crate::error::{StorageError, StorageErrorKind};
use crate::options::Options;
use crate::storage::*;
use api::failed;
use place::ObjectUrl;

/// Parts in one answer of ListParts.
const PAGE: i32 = 1000;

/// One bucket.
pub struct S3Storage {
    client: Client,
    provider: &'static str,
    bucket: String,
    place: ObjectUrl,
    /// True for AWS itself. Other stores get `Content-MD5` instead of CRC32C: all of them know it.
    crc32c: bool,
    /// Cloudflare's R2 requires parts of one size.
    uniform: bool,
    metadata: std::collections::HashMap<String, String>,
    tagging: Option<String>,
    disposition: String,
    etags: Etags,
    options: Options,
}

impl std::fmt::Debug for S3Storage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}({})", self.provider, self.bucket)
    }
}

impl S3Storage {
    /// The store of an S3 destination.
    ///
    /// # Errors
    /// `Invalid`: the proxy's URL. `Refused`: a request may not name its host. A retry changes nothing.
    pub async fn open(s3: &S3, options: &Options) -> Result<Self, StorageError> {
        Self::connect("S3", s3, options).await
    }

    /// The store of an AliOSS destination: OSS implements S3's API, with the bucket in the host name only.
    ///
    /// # Errors
    /// As for [`S3Storage::open`].
    pub async fn open_oss(oss: &AliOss, options: &Options) -> Result<Self, StorageError> {
        let s3 = S3 {
            access_key: oss.access_key.clone(),
            secret: oss.secret.clone(),
            region: if oss.region.is_empty() { place::region_of_oss(&oss.endpoint) } else { oss.region.clone() },
            endpoint: oss.endpoint.clone(),
            origin: oss.origin,
            bucket: oss.bucket.clone(),
            ..S3::default()
        };
        Self::connect("AliOSS", &s3, options).await
    }

    async fn connect(provider: &'static str, s3: &S3, options: &Options) -> Result<Self, StorageError> {
        let place = ObjectUrl::of(s3);
        Ok(Self {
            client: connect::client(provider, s3, options).await?,
            provider,
            bucket: s3.bucket.clone(),
            crc32c: s3.endpoint.is_empty(),
            uniform: place.host().ends_with(".r2.cloudflarestorage.com"),
            place,
            metadata: s3.metadata.clone().into_iter().collect(),
            tagging: Some(s3.tagging.clone()).filter(|tagging| !tagging.is_empty()),
            disposition: if s3.content_disposition.is_empty() {
                "inline".into()
            } else {
                s3.content_disposition.clone()
            },
            etags: Etags::default(),
            options: options.clone(),
        })
    }

    fn error(&self, kind: StorageErrorKind, doing: &'static str, message: impl Into<String>) -> StorageError {
        StorageError::new(kind, self.provider, doing, message)
    }

    /// Override for one request: timeout of a try.
    fn try_timeout(&self, try_timeout: Duration) -> aws_sdk_s3::config::Builder {
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(self.options.connect_timeout)
            .operation_attempt_timeout(try_timeout)
            .build();
        aws_sdk_s3::config::Builder::new().timeout_config(timeouts)
    }

    /// Checksum headers of a request with a body: the algorithm the SDK computes, or `Content-MD5`.
    fn checksum_headers(&self, digest: &[u8; 16]) -> (Option<ChecksumAlgorithm>, Option<String>) {
        if self.crc32c { (Some(ChecksumAlgorithm::Crc32C), None) } else { (None, Some(STANDARD.encode(digest))) }
    }

    /// The tag of a stored body with this MD5, checked against CRC32C and ETag of the answer, where it has them.
    fn checked_tag(
        &self,
        doing: &'static str,
        etag: Option<&str>,
        stored_crc: Option<&str>,
        bytes: &[u8],
        digest: &[u8; 16],
    ) -> Result<PartTag, StorageError> {
        let mismatch = |message| self.error(StorageErrorKind::Mismatch, doing, message);
        let crc32c = crc32c::crc32c(bytes);
        let sent = STANDARD.encode(crc32c.to_be_bytes());
        if let Some(stored) = stored_crc.filter(|stored| *stored != sent) {
            return Err(mismatch(format!("checksum mismatch: sent CRC32C {sent}, stored {stored}")));
        }
        let etag = unquoted(etag.unwrap_or_default());
        self.etags.check(&etag, digest).map_err(mismatch)?;
        Ok(PartTag { bytes: bytes.len() as u64, etag, crc32c: Some(crc32c) })
    }

    /// The object under a key; `None` also where these credentials cannot read it.
    async fn readable(&self, key: &str) -> Option<Object> {
        self.head(key).await.ok().flatten()
    }

    /// The stored object, if it is made of exactly these parts.
    async fn is_made_of(&self, upload: &Upload, parts: &[Part]) -> Option<Stored> {
        let object = self.readable(&upload.key).await?;
        let bytes: u64 = parts.iter().map(|part| part.tag.bytes).sum();
        let expected = etag_of_parts(parts.iter().map(|part| part.tag.etag.as_str()));
        let same = match expected.filter(|_| self.etags.are_md5()) {
            Some(etag) => object.etag == etag,
            // Under KMS tags cannot be computed; the number of parts is still at their end.
            None => object.bytes == bytes && object.etag.ends_with(&format!("-{}", parts.len())),
        };
        same.then(|| Stored { bytes: object.bytes, etag: object.etag, location: self.location(&upload.key) })
    }
}

#[async_trait]
impl Storage for S3Storage {
    fn name(&self) -> &'static str {
        self.provider
    }

    fn location(&self, name: &str) -> String {
        self.place.of_key(name)
    }

    fn rules(&self) -> PartRules {
        PartRules { min_part_bytes: 5 << 20, max_part_bytes: 5 << 30, max_parts: 10_000, uniform: self.uniform }
    }

    async fn put(&self, name: &str, bytes: Bytes, meta: &Meta) -> Result<Stored, StorageError> {
        let doing = "put";
        let digest = md5(&bytes);
        let (algorithm, content_md5) = self.checksum_headers(&digest);
        let call = self
            .client
            .put_object()
            .bucket(&self.bucket)
            .key(name)
            .content_type(&meta.content_type)
            .content_disposition(&self.disposition)
            .set_metadata(Some(self.metadata.clone()).filter(|metadata| !metadata.is_empty()))
            .set_tagging(self.tagging.clone())
            .set_checksum_algorithm(algorithm)
            .set_content_md5(content_md5)
            .body(ByteStream::from(bytes.clone()));
        let timeout = self.try_timeout(self.options.call_timeout(bytes.len() as u64));
        let answer = call.customize().config_override(timeout).send().await;
        let answer = answer.map_err(|error| failed(self.provider, doing, error))?;
        let tag = self.checked_tag(doing, answer.e_tag(), answer.checksum_crc32_c(), &bytes, &digest)?;
        Ok(Stored { bytes: tag.bytes, etag: tag.etag, location: self.location(name) })
    }

    async fn begin(&self, name: &str, meta: &Meta) -> Result<Upload, StorageError> {
        let call = self
            .client
            .create_multipart_upload()
            .bucket(&self.bucket)
            .key(name)
            .content_type(&meta.content_type)
            .content_disposition(&self.disposition)
            .set_metadata(Some(self.metadata.clone()).filter(|metadata| !metadata.is_empty()))
            .set_tagging(self.tagging.clone())
            // Without it AWS refuses parts with checksums.
            .set_checksum_algorithm(self.crc32c.then_some(ChecksumAlgorithm::Crc32C));
        let answer = call.customize().config_override(self.try_timeout(self.options.call_timeout(0))).send().await;
        let answer = answer.map_err(|error| failed(self.provider, "begin", error))?;
        let id = answer
            .upload_id()
            .ok_or_else(|| self.error(StorageErrorKind::Other, "begin", "the answer has no upload id"))?;
        Ok(Upload { id: id.to_owned(), key: name.to_owned(), replaces: None })
    }

    async fn put_part(&self, upload: &Upload, number: u32, _: u32, bytes: Bytes) -> Result<PartTag, StorageError> {
        let doing = "put part";
        let digest = md5(&bytes);
        let (algorithm, content_md5) = self.checksum_headers(&digest);
        let call = self
            .client
            .upload_part()
            .bucket(&self.bucket)
            .key(&upload.key)
            .upload_id(&upload.id)
            .part_number(number.try_into().unwrap_or(i32::MAX))
            .set_checksum_algorithm(algorithm)
            .set_content_md5(content_md5)
            .body(ByteStream::from(bytes.clone()));
        let timeout = self.try_timeout(self.options.call_timeout(bytes.len() as u64));
        let answer = call.customize().config_override(timeout).send().await;
        let answer = answer.map_err(|error| failed(self.provider, doing, error))?;
        self.checked_tag(doing, answer.e_tag(), answer.checksum_crc32_c(), &bytes, &digest)
    }

    fn expected_tag(&self, _: u32, _: u32, bytes: &Bytes) -> Option<PartTag> {
        let etag = self.etags.expected_tag(bytes)?;
        Some(PartTag { bytes: bytes.len() as u64, etag, crc32c: Some(crc32c::crc32c(bytes)) })
    }

    async fn complete(&self, upload: &Upload, parts: &[Part], _: &Meta) -> Result<Stored, StorageError> {
        let doing = "complete";
        let bytes: u64 = parts.iter().map(|part| part.tag.bytes).sum();
        let completed = parts.iter().map(|part| {
            let crc32c = part.tag.crc32c.filter(|_| self.crc32c);
            CompletedPart::builder()
                .part_number(part.number.try_into().unwrap_or(i32::MAX))
                .e_tag(&part.tag.etag)
                .set_checksum_crc32_c(crc32c.map(|crc32c| STANDARD.encode(crc32c.to_be_bytes())))
                .build()
        });
        let completed = CompletedMultipartUpload::builder().set_parts(Some(completed.collect())).build();
        let call = self
            .client
            .complete_multipart_upload()
            .bucket(&self.bucket)
            .key(&upload.key)
            .upload_id(&upload.id)
            .multipart_upload(completed)
            // AWS refuses an object of another length.
            .set_mpu_object_size(self.crc32c.then_some(i64::try_from(bytes).unwrap_or(i64::MAX)));
        let answer = call.customize().config_override(self.try_timeout(self.options.complete_timeout)).send().await;
        let expected = etag_of_parts(parts.iter().map(|part| part.tag.etag.as_str()));
        let location = self.location(&upload.key);
        let answer = match answer.map_err(|error| failed(self.provider, doing, error)) {
            Ok(answer) => answer,
            Err(error) if error.kind == StorageErrorKind::Gone => {
                return self.is_made_of(upload, parts).await.ok_or(error);
            }
            Err(error) => return Err(error),
        };
        let etag = unquoted(answer.e_tag().unwrap_or_default());
        if expected.as_ref() == Some(&etag) || self.crc32c {
            return Ok(Stored { bytes, etag, location });
        }
        // Some stores answer a repeated completion with the object that is there, even if another process made it.
        match self.readable(&upload.key).await {
            Some(object) if object.bytes != bytes => {
                let message = format!("{bytes} bytes in {} parts were sent, {} are stored", parts.len(), object.bytes);
                Err(self.error(StorageErrorKind::Gone, doing, message))
            }
            Some(object) if expected.is_some() && self.etags.are_md5() && object.etag.contains('-') => {
                let message = format!("the object under this name has the tag {}, ours has another", object.etag);
                Err(self.error(StorageErrorKind::Gone, doing, message))
            }
            _ => Ok(Stored { bytes, etag, location }),
        }
    }

    async fn abort(&self, upload: &Upload) -> Result<(), StorageError> {
        let call = self.client.abort_multipart_upload().bucket(&self.bucket).key(&upload.key).upload_id(&upload.id);
        let answer = call.customize().config_override(self.try_timeout(self.options.call_timeout(0))).send().await;
        match answer.map_err(|error| failed(self.provider, "abort", error)) {
            Err(error) if error.kind != StorageErrorKind::Gone => Err(error),
            _ => Ok(()),
        }
    }

    async fn list_parts(&self, upload: &Upload) -> Result<Option<Vec<Part>>, StorageError> {
        let mut parts = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let call = self
                .client
                .list_parts()
                .bucket(&self.bucket)
                .key(&upload.key)
                .upload_id(&upload.id)
                .max_parts(PAGE)
                .set_part_number_marker(after.clone());
            let answer = call.customize().config_override(self.try_timeout(self.options.call_timeout(0))).send().await;
            let answer = match answer.map_err(|error| failed(self.provider, "list parts", error)) {
                Ok(answer) => answer,
                // Credentials that may write need not be allowed to list.
                Err(error) if error.kind == StorageErrorKind::Denied => return Ok(None),
                Err(error) => return Err(error),
            };
            for part in answer.parts() {
                let crc32c = part.checksum_crc32_c().and_then(|text| STANDARD.decode(text).ok());
                let tag = PartTag {
                    bytes: part.size().and_then(|size| size.try_into().ok()).unwrap_or_default(),
                    etag: unquoted(part.e_tag().unwrap_or_default()),
                    crc32c: crc32c.and_then(|bytes| bytes.try_into().ok()).map(u32::from_be_bytes),
                };
                let number = part.part_number().and_then(|number| number.try_into().ok()).unwrap_or_default();
                parts.push(Part { number, generation: 0, tag });
            }
            let next = answer.next_part_number_marker().map(str::to_owned);
            if answer.is_truncated() != Some(true) || next.is_none() || next == after {
                break;
            }
            after = next;
        }
        parts.sort_by_key(|part| part.number);
        Ok(Some(parts))
    }

    async fn head(&self, name: &str) -> Result<Option<Object>, StorageError> {
        let call = self.client.head_object().bucket(&self.bucket).key(name);
        let answer = call.customize().config_override(self.try_timeout(self.options.call_timeout(0))).send().await;
        match answer.map_err(|error| failed(self.provider, "head", error)) {
            Ok(answer) => Ok(Some(Object {
                bytes: answer.content_length().and_then(|length| length.try_into().ok()).unwrap_or_default(),
                etag: unquoted(answer.e_tag().unwrap_or_default()),
            })),
            Err(error) if error.kind == StorageErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn read_small(&self, name: &str) -> Result<Option<Bytes>, StorageError> {
        let doing = "read";
        let call = self.client.get_object().bucket(&self.bucket).key(name);
        let answer = call.customize().config_override(self.try_timeout(self.options.call_timeout(0))).send().await;
        match answer.map_err(|error| failed(self.provider, doing, error)) {
            Ok(answer) => match answer.body.collect().await {
                Ok(body) => Ok(Some(body.into_bytes())),
                Err(error) => Err(self.error(StorageErrorKind::Busy, doing, error.to_string()).because(error)),
            },
            Err(error) if error.kind == StorageErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn delete(&self, name: &str) -> Result<(), StorageError> {
        let call = self.client.delete_object().bucket(&self.bucket).key(name);
        let answer = call.customize().config_override(self.try_timeout(self.options.call_timeout(0))).send().await;
        match answer.map_err(|error| failed(self.provider, "delete", error)) {
            // Some stores answer that it is not there.
            Err(error) if error.kind != StorageErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    async fn presign(&self, name: &str, validity: Duration) -> Result<String, StorageError> {
        let config = PresigningConfig::expires_in(validity)
            .map_err(|error| self.error(StorageErrorKind::Invalid, "presign", error.to_string()).because(error))?;
        let request = self.client.get_object().bucket(&self.bucket).key(name).presigned(config).await;
        Ok(request.map_err(|error| failed(self.provider, "presign", error))?.uri().to_owned())
    }
}
