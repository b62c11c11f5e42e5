//! Google's credentials: JSON in, headers with an access token out. Called for every request of the XML API; the library
//! caches tokens and refreshes them in a task of its own.
//!
//! All kinds but a service account are instructions to Google's library: read this file, ask this URL, send what was
//! read to that one. They are taken from the installation's configuration only. The library's own errors quote what it
//! has read (measured with 1.18: a whole file, a whole answer), so no text of it leaves this module; errors carry a reason
//! of ours and the kind of the credentials.

use google_cloud_auth::credentials::service_account::{self, AccessSpecifier};
use google_cloud_auth::credentials::{
    Builder, CacheableResource, Credentials, external_account, impersonated, user_account,
};
use google_cloud_auth::signer::Signer;
use http::{Extensions, HeaderMap};
use serde_json::Value;
use spillway_plan::destination::{DestinationOrigin, Gcs};

use crate::error::{StorageError, StorageErrorKind};

/// The provider's name in errors.
pub const NAME: &str = "GCP";
const SCOPE: &str = "https://www.googleapis.com/auth/devstorage.read_write";

/// Credentials of one destination.
#[derive(Clone)]
pub struct GcsIdentity {
    credentials: Credentials,
    /// Google's name of the credentials' kind, for messages.
    kind: &'static str,
    /// A service account's own key: signs links without a request.
    key: Option<Value>,
}

fn denied(doing: &'static str, reason: &str, kind: &str) -> StorageError {
    StorageError::new(StorageErrorKind::Denied, NAME, doing, format!("{reason} (credentials: {kind})"))
}

/// The fields of a service account that sign its tokens. The URLs in it (`token_uri`, `auth_uri`, certificates) and its
/// universe domain are dropped: a request must not choose where the library connects to.
fn signing_fields(json: &Value) -> Value {
    ["type", "project_id", "private_key_id", "private_key", "client_email"]
        .into_iter()
        .map(|name| (name.to_owned(), Value::from(json[name].as_str().unwrap_or_default())))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

impl GcsIdentity {
    /// The destination's JSON, else the process' own (environment, metadata server).
    ///
    /// # Errors
    /// `Denied`: no usable credentials, or of a kind that a request may not bring. A retry changes nothing.
    pub fn of(gcs: &Gcs) -> Result<Self, StorageError> {
        // Google's signer uses the process' default provider; two are linked, so none is chosen automatically.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let text = gcs.credentials.reveal();
        if text.is_empty() {
            let kind = "this machine's own";
            let credentials = Builder::default().with_scopes([SCOPE]).build();
            let credentials = credentials.map_err(|_| denied("open", "none that can be used", kind))?;
            return Ok(Self { credentials, kind, key: None });
        }
        let json: Value = serde_json::from_str(text).map_err(|_| denied("open", "no JSON", "unreadable"))?;
        let kind = match json["type"].as_str().unwrap_or_default() {
            "service_account" => "service_account",
            "external_account" => "external_account",
            "impersonated_service_account" => "impersonated_service_account",
            "authorized_user" => "authorized_user",
            _ => return Err(denied("open", "not a kind that is known", "unknown")),
        };
        let from_request = gcs.origin == DestinationOrigin::Request;
        if from_request && kind != "service_account" {
            let reason =
                "only the installation's configuration may bring this kind, a request brings a service_account";
            return Err(denied("open", reason, kind));
        }
        let json = if from_request { signing_fields(&json) } else { json };
        let credentials = match kind {
            "external_account" => external_account::Builder::new(json.clone()).with_scopes([SCOPE]).build(),
            "impersonated_service_account" => impersonated::Builder::new(json.clone()).with_scopes([SCOPE]).build(),
            "authorized_user" => user_account::Builder::new(json.clone()).with_scopes([SCOPE]).build(),
            _ => service_account::Builder::new(json.clone())
                .with_access_specifier(AccessSpecifier::from_scopes([SCOPE]))
                .build(),
        };
        let credentials = credentials.map_err(|_| denied("open", "a field is missing or unusable", kind))?;
        Ok(Self { credentials, kind, key: (kind == "service_account").then_some(json) })
    }

    /// The headers that authorise a request.
    ///
    /// # Errors
    /// `Busy`: the source of the token does not answer, a retry may help. `Denied`: it gives none.
    pub async fn headers(&self, doing: &'static str) -> Result<HeaderMap, StorageError> {
        match self.credentials.headers(Extensions::new()).await {
            Ok(CacheableResource::New { data, .. }) => Ok(data),
            // Answered only to a request with an entity tag, and none is sent.
            Ok(CacheableResource::NotModified) => Ok(HeaderMap::new()),
            Err(error) => {
                let refusal = self.no_token(doing);
                Err(if error.is_transient() {
                    StorageError { kind: StorageErrorKind::Busy, ..refusal }
                } else {
                    refusal
                })
            }
        }
    }

    /// The signer of links.
    ///
    /// # Errors
    /// A reason of ours: there is no key, or it cannot be used. A retry changes nothing.
    pub fn signer(&self) -> Result<Signer, String> {
        let signer = match &self.key {
            Some(json) => service_account::Builder::new(json.clone()).build_signer(),
            None => Builder::default().build_signer(),
        };
        signer.map_err(|_| format!("nothing to sign a link with (credentials: {})", self.kind))
    }

    /// The error without a token, in place of the library's own, which quotes what it has read.
    pub fn no_token(&self, doing: &'static str) -> StorageError {
        denied(doing, "no access token was to be had", self.kind)
    }
}
