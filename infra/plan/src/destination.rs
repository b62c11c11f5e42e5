//! Destinations of outputs, with everything that is needed to write there. Plain values that travel as JSON in the ticket;
//! fields that an older dispatcher does not write have defaults.
//!
//! They hold secrets, so they are never part of an [`EgressPlan`](crate::EgressPlan), which the media process reads.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use spillway_protocol::Secret;

/// The destinations of one output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Destinations {
    /// Tried first.
    pub primary: Destination,
    /// Used when the primary one fails for good.
    pub backup: Option<Destination>,
}

/// One place for files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Destination {
    /// The disk of the runner: the file is written in place and nothing is copied.
    Disk,
    /// The file is uploaded.
    Store(Box<Store>),
}

/// A store and how names are made in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Store {
    /// Bucket and credentials.
    pub provider: Provider,
    /// The installation's prefix of every object name. `FileInfo.filename` is without it.
    pub prefix: String,
    /// Locations are presigned links, valid for seven days.
    pub presign: bool,
}

impl Store {
    /// The object's key: prefix and name, joined as a path.
    pub fn key(&self, name: &str) -> String {
        joined(&self.prefix, name)
    }
}

/// Prefix and name with exactly one `/` between them. An empty prefix changes nothing; a prefix of `/` only removes the
/// leading `/` of the name.
pub fn joined(prefix: &str, name: &str) -> String {
    let folder = prefix.trim_end_matches('/');
    match (prefix.is_empty(), folder.is_empty()) {
        (true, _) => name.to_owned(),
        (false, true) => name.trim_start_matches('/').to_owned(),
        (false, false) => format!("{folder}/{}", name.trim_start_matches('/')),
    }
}

/// An endpoint as a URL: one without a scheme is reached by `https`.
pub fn with_scheme(endpoint: &str) -> String {
    if endpoint.contains("://") { endpoint.to_owned() } else { format!("https://{endpoint}") }
}

/// An endpoint without the user and password that its URL may have. Requests to a store are signed, so they would go nowhere, and
/// locations of objects and errors of libraries show the whole URL.
pub fn without_user(endpoint: &str) -> String {
    let (scheme, rest) = match endpoint.find("://") {
        Some(at) => endpoint.split_at(at + 3),
        None => ("", endpoint),
    };
    let host_ends = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let host = rest[..host_ends].rfind('@').map_or(0, |at| at + 1);
    format!("{scheme}{}", &rest[host..])
}

/// A store, by its API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Provider {
    /// Amazon S3 and compatible stores.
    S3(Box<S3>),
    /// Google Cloud Storage.
    Gcs(Gcs),
    /// Azure Blob Storage.
    Azure(Azure),
    /// Alibaba Cloud OSS.
    AliOss(AliOss),
    /// A directory, e.g. a mounted share.
    Local(Local),
}

impl Provider {
    /// Name in error messages (`S3 upload failed: …`), livekit/egress' own.
    pub fn name(&self) -> &'static str {
        match self {
            Self::S3(_) => "S3",
            Self::Gcs(_) => "GCP",
            Self::Azure(_) => "Azure",
            Self::AliOss(_) => "AliOSS",
            Self::Local(_) => "Local",
        }
    }
}

impl Provider {
    /// URL of the server that requests go to; `None`: it is no server, or its name is left to a library.
    pub fn server(&self) -> Option<String> {
        let at = |endpoint: &str, usual: String| {
            if endpoint.is_empty() { usual } else { without_user(&with_scheme(endpoint)) }
        };
        match self {
            Self::S3(s3) => {
                let region = if s3.region.is_empty() { "us-east-1" } else { s3.region.as_str() };
                Some(at(&s3.endpoint, format!("https://{}.s3.{region}.amazonaws.com", s3.bucket)))
            }
            Self::Gcs(gcs) => Some(at(&gcs.endpoint, "https://storage.googleapis.com".to_owned())),
            Self::Azure(azure) => Some(at(&azure.endpoint, format!("https://{}.blob.core.windows.net", azure.account))),
            Self::AliOss(oss) => Some(at(&oss.endpoint, String::new())).filter(|server| !server.is_empty()),
            Self::Local(_) => None,
        }
    }
}

/// A bucket of S3.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct S3 {
    /// Counts only together with `secret`; without both the identity of the process is used (environment, task role …).
    pub access_key: Secret,
    /// Of `access_key`.
    pub secret: Secret,
    /// Of temporary credentials; else empty.
    pub session_token: Secret,
    /// Assumed with the credentials above.
    pub assume_role: Option<AssumeRole>,
    /// Empty: `us-east-1`.
    pub region: String,
    /// Empty: AWS. The scheme may be missing.
    pub endpoint: String,
    /// Who named endpoint and proxy.
    pub origin: DestinationOrigin,
    /// Name.
    pub bucket: String,
    /// `endpoint/bucket/key` instead of `bucket.endpoint/key`.
    pub force_path_style: bool,
    /// User metadata of each object.
    pub metadata: BTreeMap<String, String>,
    /// Tags of each object: `a=1&b=2`.
    pub tagging: String,
    /// Header of each object. Empty: `inline`.
    pub content_disposition: String,
    /// `None`: no proxy of the output's own.
    pub proxy: Option<Proxy>,
}

impl S3 {
    /// It brings credentials; else the identity of the process signs.
    pub fn has_key(&self) -> bool {
        !self.access_key.reveal().is_empty() && !self.secret.reveal().is_empty()
    }
}

/// A role of AWS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssumeRole {
    /// Amazon resource name of the role.
    pub arn: String,
    /// Empty: none.
    pub external_id: Secret,
}

/// A bucket of Google Cloud Storage.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Gcs {
    /// JSON of a service account, or of another kind of Google credentials where `origin` allows it; empty: application
    /// default credentials.
    pub credentials: Secret,
    /// Who gave `credentials` and named the proxy. Missing in tickets of older dispatchers, where it means a request.
    pub origin: DestinationOrigin,
    /// Name.
    pub bucket: String,
    /// `None`: no proxy of the output's own.
    pub proxy: Option<Proxy>,
    /// Empty: Google. For emulators and private endpoints. The scheme may be missing.
    pub endpoint: String,
}

/// A container of Azure Blob Storage.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Azure {
    /// Name of the storage account; letters and digits.
    pub account: String,
    /// Account key in base64; empty: the managed identity of the process.
    pub key: Secret,
    /// Name.
    pub container: String,
    /// Empty: `https://{account}.blob.core.windows.net`. For sovereign clouds and emulators. The scheme may be missing.
    pub endpoint: String,
    /// Who named the endpoint.
    pub origin: DestinationOrigin,
}

/// A bucket of Alibaba Cloud OSS.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AliOss {
    /// Required.
    pub access_key: Secret,
    /// Required.
    pub secret: Secret,
    /// Part of request signatures; empty: taken from the endpoint's host name.
    pub region: String,
    /// Required. The scheme may be missing.
    pub endpoint: String,
    /// Who named the endpoint.
    pub origin: DestinationOrigin,
    /// Name.
    pub bucket: String,
}

/// A directory as a store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Local {
    /// Names lie below it.
    pub root: PathBuf,
}

/// An HTTP proxy for requests to a store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Proxy {
    /// `http://` or `https://`; may contain credentials.
    pub url: Secret,
    /// Empty: none.
    pub username: Secret,
    /// Empty: none.
    pub password: Secret,
}

/// Where a destination comes from. Its hosts may be inside of the installation's network, and several kinds of Google
/// credentials are instructions (read this file, call this URL): both are the operator's to give. The origin travels with the
/// destination so that the runner refuses them too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DestinationOrigin {
    /// Configuration or environment of the installation.
    Configuration,
    /// A request, and any origin that this version does not know.
    #[default]
    #[serde(other)]
    Request,
}

/// The installation's configuration of storage, as far as destinations depend on it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StorageConfig {
    /// For outputs without an upload of their own; `None`: the runner's disk.
    pub primary: Option<Provider>,
    /// [`Store::prefix`] of every primary store, of uploads in requests too, as in livekit/egress.
    pub prefix: String,
    /// [`Store::presign`] of every primary store.
    pub presign: bool,
    /// Backup of every primary store.
    pub backup: Option<Store>,
    /// For S3 uploads in requests that name a role and no key. Empty: such requests are refused.
    pub assume_role_key: Secret,
    /// Of `assume_role_key`.
    pub assume_role_secret: Secret,
    /// For S3 uploads in requests without a role.
    pub assume_role: Option<AssumeRole>,
    /// Buckets (of Azure `account/container`) beside those of `primary` and `backup` for which a request without credentials is
    /// signed by the installation's own identity; `*`: all.
    pub own_buckets: Vec<String>,
    /// An output without any store is refused instead of being written to the runner's disk.
    pub disallow_local: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_joined_as_a_path() {
        let key = |prefix: &str, name: &str| {
            Store { provider: Provider::Local(Local::default()), prefix: prefix.into(), presign: false }.key(name)
        };
        assert_eq!(key("", "a/b.mp4"), "a/b.mp4");
        assert_eq!(key("", "/a"), "/a");
        assert_eq!(key("p", "a"), "p/a");
        assert_eq!(key("p/q/", "/a"), "p/q/a");
        assert_eq!(key("/", "a"), "a");
    }

    #[test]
    fn an_endpoint_is_shown_without_user_and_password() {
        for (endpoint, shown) in [
            ("https://minio:9000", "https://minio:9000"),
            ("https://me:canary@minio:9000/a@b", "https://minio:9000/a@b"),
            ("me:c@nary@minio", "minio"),
            ("http://minio/?a@b", "http://minio/?a@b"),
            ("", ""),
        ] {
            assert_eq!(without_user(endpoint), shown);
        }
    }

    #[test]
    fn a_store_has_the_server_that_requests_go_to() {
        let s3 = |s3: S3| Provider::S3(Box::new(S3 { bucket: "rec".into(), ..s3 })).server();
        assert_eq!(s3(S3::default()).as_deref(), Some("https://rec.s3.us-east-1.amazonaws.com"));
        let minio = S3 { endpoint: "http://me:canary@minio:9000".into(), ..S3::default() };
        assert_eq!(s3(minio).as_deref(), Some("http://minio:9000"));
        let azure = Azure { account: "acc".into(), ..Azure::default() };
        assert_eq!(Provider::Azure(azure).server().as_deref(), Some("https://acc.blob.core.windows.net"));
        assert_eq!(Provider::Gcs(Gcs::default()).server().as_deref(), Some("https://storage.googleapis.com"));
        let oss = AliOss { endpoint: "oss-eu.aliyuncs.com".into(), ..AliOss::default() };
        assert_eq!(Provider::AliOss(oss).server().as_deref(), Some("https://oss-eu.aliyuncs.com"));
        assert_eq!(Provider::AliOss(AliOss::default()).server(), None);
        assert_eq!(Provider::Local(Local::default()).server(), None);
    }

    #[test]
    fn a_credential_of_which_nothing_is_said_came_with_a_request() {
        let origin = |text: &str| serde_json::from_str::<Gcs>(text).unwrap().origin;
        assert_eq!(origin(r#"{"bucket":"b"}"#), DestinationOrigin::Request, "an older dispatcher's ticket");
        assert_eq!(origin(r#"{"origin":"of a newer version"}"#), DestinationOrigin::Request);
        let ours = Gcs { origin: DestinationOrigin::Configuration, ..Gcs::default() };
        assert_eq!(origin(&serde_json::to_string(&ours).unwrap()), DestinationOrigin::Configuration);
    }

    #[test]
    fn no_credential_is_printed() {
        const CANARY: &str = "canary-canary";
        let canary = || Secret::new(CANARY.to_owned());
        let proxy = || Some(Proxy { url: canary(), username: canary(), password: canary() });
        let role = || Some(AssumeRole { arn: "arn:aws:iam::1:role/r".into(), external_id: canary() });
        let s3 = S3 {
            access_key: canary(),
            secret: canary(),
            session_token: canary(),
            assume_role: role(),
            proxy: proxy(),
            ..S3::default()
        };
        let providers = [
            Provider::S3(Box::new(s3)),
            Provider::Gcs(Gcs { credentials: canary(), proxy: proxy(), ..Gcs::default() }),
            Provider::Azure(Azure { key: canary(), ..Azure::default() }),
            Provider::AliOss(AliOss { access_key: canary(), secret: canary(), ..AliOss::default() }),
        ];
        for provider in providers {
            let store = Store { provider, prefix: String::new(), presign: false };
            let config = StorageConfig {
                primary: Some(store.provider.clone()),
                backup: Some(store.clone()),
                assume_role_key: canary(),
                assume_role_secret: canary(),
                assume_role: role(),
                ..StorageConfig::default()
            };
            let both = Destinations { primary: Destination::Store(Box::new(store)), backup: None };
            assert!(!format!("{both:?} {config:?}").contains(CANARY));
            // A ticket carries them whole.
            let text = serde_json::to_string(&both).unwrap();
            assert!(text.contains(CANARY));
            assert_eq!(serde_json::from_str::<Destinations>(&text).unwrap(), both);
        }
    }
}
