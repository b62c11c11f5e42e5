//! Requests and answers of the XML API, which are S3's with few differences. One HTTP request per call, in the caller's
//! task; retries are the parent module's.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::HeaderMap;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{Method, Proxy, StatusCode};
use serde::Deserialize;
use spillway_plan::destination::{Gcs, with_scheme};
use spillway_process::chain;

use super::identity::{GcsIdentity, NAME};
use crate::checksum::unquoted;
use crate::error::{StorageError, StorageErrorKind};
use crate::guarded::{self, GuardedNames};
use crate::options::Options;
use crate::proxy;
use crate::storage::{Part, PartTag};

const HOST: &str = "https://storage.googleapis.com";
/// Escapes everything but RFC 3986's unreserved characters and the slashes of the key.
pub const KEY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/');

/// HTTP client for one bucket.
pub struct XmlClient {
    client: reqwest::Client,
    identity: GcsIdentity,
    /// URL of the bucket, without a trailing slash.
    url: String,
}

/// One request about an object.
pub struct GcsRequest<'a> {
    /// HTTP method.
    pub method: Method,
    /// Key of the object, not escaped.
    pub key: &'a str,
    /// Query parameters, not escaped; one with an empty value is sent without `=`.
    pub query: &'a [(&'a str, &'a str)],
    /// Headers beside the authorisation; one with an empty value is not sent.
    pub headers: &'a [(&'static str, String)],
    /// Sent with its length, also when empty.
    pub body: Bytes,
}

impl<'a> GcsRequest<'a> {
    /// Without query, headers or body.
    pub fn new(method: Method, key: &'a str) -> Self {
        Self { method, key, query: &[], headers: &[], body: Bytes::new() }
    }
}

/// A successful answer.
pub struct GcsResponse {
    headers: HeaderMap,
    body: Bytes,
    doing: &'static str,
}

/// One page of a list of parts.
pub struct Page {
    /// In the order of the answer.
    pub parts: Vec<Part>,
    /// Marker of the next page; `None`: this is the last one.
    pub next: Option<String>,
}

impl XmlClient {
    /// A client for the destination's bucket.
    ///
    /// # Errors
    /// `Invalid`: the proxy's URL. A retry changes nothing.
    pub fn new(
        gcs: &Gcs,
        identity: &GcsIdentity,
        options: &Options,
        names: GuardedNames,
    ) -> Result<Self, StorageError> {
        let failed = |message: &str| StorageError::new(StorageErrorKind::Invalid, NAME, "open", message);
        let mut client = reqwest::Client::builder()
            .connect_timeout(options.connect_timeout)
            .redirect(reqwest::redirect::Policy::none())
            .dns_resolver(names)
            .no_proxy();
        if let Some(asked) = &gcs.proxy {
            let url = proxy::url(asked).ok_or_else(|| failed("the proxy's URL is none"))?;
            client = client.proxy(Proxy::all(url).map_err(|_| failed("the proxy's URL is none"))?);
        }
        Ok(Self {
            client: client.build().map_err(|error| failed("no HTTP client").because(error))?,
            identity: identity.clone(),
            url: bucket_url(gcs),
        })
    }

    /// Sends one request and reads its answer.
    ///
    /// # Errors
    /// A refusal by its code and status; `Busy` where no answer came.
    pub async fn send(&self, doing: &'static str, ask: &GcsRequest<'_>) -> Result<GcsResponse, StorageError> {
        let identity = self.identity.headers(doing).await?;
        let mut url = format!("{}/{}", self.url, utf8_percent_encode(ask.key, KEY));
        for (index, (name, value)) in ask.query.iter().enumerate() {
            let sign = if index == 0 { '?' } else { '&' };
            let equals = if value.is_empty() { "" } else { "=" };
            let _ = write!(url, "{sign}{name}{equals}{}", utf8_percent_encode(value, NON_ALPHANUMERIC));
        }
        let is_head = ask.method == Method::HEAD;
        let mut request = self.client.request(ask.method.clone(), url).headers(identity);
        request = request.header("content-length", ask.body.len());
        for (name, value) in ask.headers.iter().filter(|(_, value)| !value.is_empty()) {
            request = request.header(*name, value);
        }
        // Connection reset or refused, host unknown, answer cut off: a retry may succeed.
        let lost = |error: reqwest::Error| {
            if let Some(refused) = guarded::refusal(NAME, doing, &error) {
                return refused;
            }
            let message = chain(&error.without_url()).to_string();
            StorageError::new(StorageErrorKind::Busy, NAME, doing, message)
        };
        let answer = request.body(ask.body.clone()).send().await.map_err(lost)?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        let body = answer.bytes().await.map_err(lost)?;
        if status.is_success() {
            return Ok(GcsResponse { headers, body, doing });
        }
        Err(failed(doing, status, if is_head { b"" } else { &body }))
    }
}

/// Without a trailing slash.
fn bucket_url(gcs: &Gcs) -> String {
    let endpoint = if gcs.endpoint.is_empty() { HOST } else { gcs.endpoint.trim_end_matches('/') };
    format!("{}/{}", with_scheme(endpoint), utf8_percent_encode(&gcs.bucket, KEY))
}

fn failed(doing: &'static str, status: StatusCode, body: &[u8]) -> StorageError {
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "PascalCase", default)]
    struct XmlError {
        code: String,
        message: String,
    }
    let text = String::from_utf8_lossy(body);
    let XmlError { code, message } = quick_xml::de::from_str(&text).unwrap_or_default();
    let kind = match code.as_str() {
        "NoSuchUpload" => StorageErrorKind::Gone,
        "NoSuchBucket" => StorageErrorKind::NotFound,
        "BadDigest" | "InvalidDigest" => StorageErrorKind::Mismatch,
        "ExpiredToken" => StorageErrorKind::Expired,
        _ => kind_of(status),
    };
    let message = match (code.as_str(), message.as_str()) {
        ("", "") => format!("status {}", status.as_u16()),
        (code, message) => format!("{code}: {message} ({})", status.as_u16()),
    };
    StorageError::new(kind, NAME, doing, message)
}

fn kind_of(status: StatusCode) -> StorageErrorKind {
    match status.as_u16() {
        401 | 403 => StorageErrorKind::Denied,
        404 => StorageErrorKind::NotFound,
        408 | 409 | 429 | 500..=599 => StorageErrorKind::Busy,
        300..=499 => StorageErrorKind::Invalid,
        _ => StorageErrorKind::Other,
    }
}

/// Base64 with padding, as header values want it.
pub fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Value of `x-goog-hash`.
pub fn crc_header(crc: u32) -> String {
    format!("crc32c={}", base64(&crc.to_be_bytes()))
}

/// Body of the request that completes an upload.
pub fn completion(parts: &[Part]) -> String {
    let mut text = String::from("<CompleteMultipartUpload>");
    for part in parts {
        let etag = quick_xml::escape::escape(&part.tag.etag);
        let _ = write!(text, "<Part><PartNumber>{}</PartNumber><ETag>\"{etag}\"</ETag></Part>", part.number);
    }
    text + "</CompleteMultipartUpload>"
}

impl GcsResponse {
    /// The answer's body.
    pub fn into_body(self) -> Bytes {
        self.body
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Without quotes; empty where the answer has none.
    pub fn etag(&self) -> String {
        unquoted(self.header("etag").unwrap_or_default())
    }

    /// Length of the object, in the answer to HEAD.
    pub fn length(&self) -> Option<u64> {
        self.header("x-goog-stored-content-length").or_else(|| self.header("content-length"))?.parse().ok()
    }

    /// CRC32C of the stored object, where the answer has it.
    pub fn crc32c(&self) -> Option<u32> {
        let hashes = self.headers.get_all("x-goog-hash").iter().filter_map(|value| value.to_str().ok());
        let crc = hashes.flat_map(|value| value.split(',')).find_map(|hash| hash.trim().strip_prefix("crc32c="))?;
        Some(u32::from_be_bytes(STANDARD.decode(crc).ok()?.try_into().ok()?))
    }

    /// Compares the CRC32C of what was sent with the stored object's, where the answer has it.
    ///
    /// # Errors
    /// `Mismatch`: the bytes were changed on the way; sending them again is right.
    pub fn is_stored_as_sent(&self, sent: u32) -> Result<(), StorageError> {
        match self.crc32c().filter(|found| *found != sent) {
            None => Ok(()),
            Some(found) => {
                let message = format!("checksum mismatch: sent CRC32C {sent:08x}, stored {found:08x}");
                Err(StorageError::new(StorageErrorKind::Mismatch, NAME, self.doing, message))
            }
        }
    }

    fn read<T: serde::de::DeserializeOwned>(&self) -> Result<T, StorageError> {
        let text = String::from_utf8_lossy(&self.body);
        quick_xml::de::from_str(&text).map_err(|error| {
            StorageError::new(StorageErrorKind::Other, NAME, self.doing, "unreadable answer").because(error)
        })
    }

    /// The id of an upload that was begun.
    ///
    /// # Errors
    /// `Other`: the answer cannot be read.
    pub fn upload_id(&self) -> Result<String, StorageError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct InitiatedUpload {
            upload_id: String,
        }
        Ok(self.read::<InitiatedUpload>()?.upload_id)
    }

    /// A page of a list of parts.
    ///
    /// # Errors
    /// `Other`: the answer cannot be read.
    pub fn parts(&self) -> Result<Page, StorageError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Listed {
            #[serde(default)]
            is_truncated: bool,
            next_part_number_marker: Option<String>,
            #[serde(default)]
            part: Vec<ListedPart>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct ListedPart {
            part_number: u32,
            #[serde(rename = "ETag", default)]
            etag: String,
            size: u64,
        }
        let listed: Listed = self.read()?;
        let part = |part: ListedPart| Part {
            number: part.part_number,
            generation: 0,
            tag: PartTag { bytes: part.size, etag: unquoted(&part.etag), crc32c: None },
        };
        Ok(Page {
            parts: listed.part.into_iter().map(part).collect(),
            next: listed.next_part_number_marker.filter(|_| listed.is_truncated),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_may_lack_its_scheme() {
        let url =
            |endpoint: &str| bucket_url(&Gcs { endpoint: endpoint.into(), bucket: "b c".into(), ..Gcs::default() });
        assert_eq!(url(""), "https://storage.googleapis.com/b%20c");
        assert_eq!(url("gcs.example:4443/"), "https://gcs.example:4443/b%20c");
        assert_eq!(url("http://127.0.0.1:4443"), "http://127.0.0.1:4443/b%20c");
        assert!(reqwest::Url::parse(&url("gcs.example")).is_ok_and(|url| url.host_str() == Some("gcs.example")));
    }

    #[test]
    fn a_refusal_carries_googles_message() {
        let body = b"<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>Access denied.</Message>\
                     <Details>x</Details></Error>";
        let error = failed("begin", StatusCode::FORBIDDEN, body);
        assert_eq!(error.to_string(), "GCP upload failed: begin: AccessDenied: Access denied. (403)");
        assert_eq!(error.kind, StorageErrorKind::Denied);
        let gone = b"<Error><Code>NoSuchUpload</Code><Message>m</Message></Error>";
        assert_eq!(failed("put part", StatusCode::NOT_FOUND, gone).kind, StorageErrorKind::Gone);
        assert_eq!(failed("put", StatusCode::SERVICE_UNAVAILABLE, b"<html>").kind, StorageErrorKind::Busy);
        assert_eq!(failed("head", StatusCode::NOT_FOUND, b"").kind, StorageErrorKind::NotFound);
    }

    #[test]
    fn lists_are_read() {
        let body = b"<ListPartsResult><IsTruncated>true</IsTruncated><NextPartNumberMarker>2</NextPartNumberMarker>\
            <Part><PartNumber>1</PartNumber><ETag>\"a\"</ETag><Size>5</Size></Part>\
            <Part><PartNumber>2</PartNumber><ETag>&quot;b&quot;</ETag><Size>6</Size></Part></ListPartsResult>";
        let answer = GcsResponse { headers: HeaderMap::new(), body: Bytes::from_static(body), doing: "list parts" };
        let page = answer.parts().unwrap();
        assert_eq!(page.next.as_deref(), Some("2"));
        let seen: Vec<_> =
            page.parts.iter().map(|part| (part.number, part.tag.etag.as_str(), part.tag.bytes)).collect();
        assert_eq!(seen, [(1, "a", 5), (2, "b", 6)]);
        let text = completion(&page.parts[..1]);
        assert!(text.contains("<Part><PartNumber>1</PartNumber><ETag>\"a\"</ETag></Part>"), "{text}");
    }

    #[test]
    fn the_checksum_is_found_among_the_hashes() {
        let mut headers = HeaderMap::new();
        headers.append("x-goog-hash", "md5=abc,crc32c=AAAAAQ==".parse().unwrap());
        let answer = GcsResponse { headers, body: Bytes::new(), doing: "put" };
        assert_eq!(answer.crc32c(), Some(1));
        assert!(answer.is_stored_as_sent(1).is_ok());
        let other = answer.is_stored_as_sent(2).unwrap_err();
        assert_eq!(other.kind, StorageErrorKind::Mismatch, "{other}");
    }
}
