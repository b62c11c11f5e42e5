//! Where outputs go, with everything that is needed to write there. Values only.
//!
//! They hold secrets, so they are never part of an [`EgressPlan`](crate::EgressPlan), which the media process sees.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use spillway_protocol::Secret;

/// Where one output of the plan goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Destinations {
    pub primary: Destination,
    /// Used when the primary one fails for good.
    pub backup: Option<Destination>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Destination {
    /// The disk of the runner, in place: nothing is copied.
    Disk,
    Store(Box<Store>),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Store {
    pub provider: Provider,
    /// The installation's, before every name. `FileInfo.filename` is without it.
    pub prefix: String,
    /// Locations are links that can be opened for seven days.
    pub presign: bool,
}

impl Store {
    /// The object's key: prefix and name, joined as a path.
    pub fn key(&self, name: &str) -> String {
        joined(&self.prefix, name)
    }
}

pub fn joined(prefix: &str, name: &str) -> String {
    let folder = prefix.trim_end_matches('/');
    match (prefix.is_empty(), folder.is_empty()) {
        (true, _) => name.to_owned(),
        (false, true) => name.trim_start_matches('/').to_owned(),
        (false, false) => format!("{folder}/{}", name.trim_start_matches('/')),
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Provider {
    S3(Box<S3>),
    Gcs(Gcs),
    Azure(Azure),
    AliOss(AliOss),
    /// A directory, e.g. a mounted share.
    Local(Local),
}

impl Provider {
    /// As it stands in messages (`S3 upload failed: …`).
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

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct S3 {
    /// Key and secret count only together; without them the process' own identity is used (environment, task role …).
    pub access_key: Secret,
    pub secret: Secret,
    pub session_token: Secret,
    /// Taken with the credentials above.
    pub assume_role: Option<AssumeRole>,
    /// Empty: `us-east-1`.
    pub region: String,
    /// Empty: AWS'. May come without a scheme.
    pub endpoint: String,
    pub bucket: String,
    pub force_path_style: bool,
    pub metadata: BTreeMap<String, String>,
    /// `a=1&b=2`.
    pub tagging: String,
    /// Empty: `inline`.
    pub content_disposition: String,
    pub proxy: Option<Proxy>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssumeRole {
    pub arn: String,
    pub external_id: Secret,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Gcs {
    /// JSON of a service account, or of another of Google's kinds where `origin` allows it; empty: application default
    /// credentials.
    pub credentials: Secret,
    /// Who wrote `credentials`. A ticket of a dispatcher that does not know this field says nothing: then it was a request.
    pub origin: CredentialOrigin,
    pub bucket: String,
    pub proxy: Option<Proxy>,
    /// Empty: Google's. For emulators and private endpoints.
    pub endpoint: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Azure {
    pub account: String,
    /// Base64; empty: the process' managed identity.
    pub key: Secret,
    pub container: String,
    /// Empty: `https://{account}.blob.core.windows.net`. For sovereign clouds and emulators.
    pub endpoint: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AliOss {
    pub access_key: Secret,
    pub secret: Secret,
    pub region: String,
    pub endpoint: String,
    pub bucket: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Local {
    pub root: PathBuf,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Proxy {
    pub url: Secret,
    pub username: Secret,
    pub password: Secret,
}

/// Who wrote a credential. Several kinds of Google's credentials are instructions (read this file, ask this URL), which
/// only the operator of the machine may give; it travels with the credential so that the runner can refuse too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CredentialOrigin {
    /// The configuration or the environment of the installation.
    Configuration,
    /// A request, and everything that is not known to be otherwise.
    #[default]
    #[serde(other)]
    Request,
}

/// What the installation says about storage.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StorageConfig {
    /// For outputs that bring none of their own; `None`: this machine's disk.
    pub primary: Option<Provider>,
    /// For uploads of requests too, as livekit/egress does.
    pub prefix: String,
    pub presign: bool,
    pub backup: Option<Store>,
    /// For S3 uploads of requests with a role and no key of their own.
    pub assume_role_key: Secret,
    pub assume_role_secret: Secret,
    /// For S3 uploads of requests without a role.
    pub assume_role: Option<AssumeRole>,
    /// An output without any storage is an error, not a file on this machine.
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
    fn a_credential_of_which_nothing_is_said_came_with_a_request() {
        let origin = |text: &str| serde_json::from_str::<Gcs>(text).unwrap().origin;
        assert_eq!(origin(r#"{"bucket":"b"}"#), CredentialOrigin::Request, "an older dispatcher's ticket");
        assert_eq!(origin(r#"{"origin":"of a newer version"}"#), CredentialOrigin::Request);
        let ours = Gcs { origin: CredentialOrigin::Configuration, ..Gcs::default() };
        assert_eq!(origin(&serde_json::to_string(&ours).unwrap()), CredentialOrigin::Configuration);
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
