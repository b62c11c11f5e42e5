use google_cloud_auth::credentials::service_account::{self, AccessSpecifier};
use google_cloud_auth::credentials::{Builder, Credentials, external_account, impersonated, user_account};
use google_cloud_auth::signer::Signer;
use spillway_plan::destination::Gcs;

use crate::error::{Kind, StorageError};

const SCOPE: &str = "https://www.googleapis.com/auth/devstorage.read_write";

pub struct Identity {
    pub credentials: Credentials,
    /// A service account's own key: signs links without asking anybody.
    key: Option<serde_json::Value>,
}

impl Identity {
    /// The request's JSON, else the process' own (environment, metadata server).
    pub fn of(gcs: &Gcs) -> Result<Self, StorageError> {
        let invalid = |words: String| StorageError::new(Kind::Denied, "GCP", "open", words);
        // Google's signer takes the process' provider, and finds two of them linked and none chosen.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let text = gcs.credentials.reveal();
        if text.is_empty() {
            let credentials = Builder::default().with_scopes([SCOPE]).build();
            return Ok(Self { credentials: credentials.map_err(|error| invalid(error.to_string()))?, key: None });
        }
        // Its own words would quote the text.
        let json: serde_json::Value =
            serde_json::from_str(text).map_err(|_| invalid("the credentials are no JSON".to_owned()))?;
        let kind = json["type"].as_str().unwrap_or_default().to_owned();
        let credentials = match kind.as_str() {
            "service_account" => service_account::Builder::new(json.clone())
                .with_access_specifier(AccessSpecifier::from_scopes([SCOPE]))
                .build(),
            "external_account" => external_account::Builder::new(json.clone()).with_scopes([SCOPE]).build(),
            "impersonated_service_account" => impersonated::Builder::new(json.clone()).with_scopes([SCOPE]).build(),
            "authorized_user" => user_account::Builder::new(json.clone()).with_scopes([SCOPE]).build(),
            _ => return Err(invalid(format!("credentials of the type {kind:?} are not known"))),
        };
        let credentials = credentials.map_err(|error| invalid(error.to_string()))?;
        Ok(Self { credentials, key: (kind == "service_account").then_some(json) })
    }

    pub fn signer(&self) -> Result<Signer, String> {
        let signer = match &self.key {
            Some(json) => service_account::Builder::new(json.clone()).build_signer(),
            None => Builder::default().build_signer(),
        };
        signer.map_err(|error| error.to_string())
    }
}
