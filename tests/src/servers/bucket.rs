//! A bucket for recordings in one of the emulators, and access to it beside the code under test.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use spillway_plan::destination::{Azure, DestinationOrigin, Gcs, S3};
use spillway_plan::{Destination, Provider, Secret, Store};
use spillway_storage::{Options, Storage, open};

use super::emulators::{AZURE_ACCOUNT, AZURE_KEY, Emulator};
use super::fault_proxy::FaultProxy;
use super::policy_proxy::{AcceptedIdentities, PolicyProxy, StoreProtocol};
use super::proxy::AuthProxy;
use crate::clouds::policy::Policy;

/// Part of every credential of [`TestBucket::s3`]; moto accepts any.
pub const CANARY: &str = "canaryOfTheStage";

/// Name of the bucket.
pub const NAME: &str = "recordings";
const PROXY_USER: &str = "me";
const PROXY_PASSWORD: &str = "a b:c@d/%41";
/// A signature for everything on Azurite's one account until 2099, with its published key.
pub const SAS: &str = "sv=2022-11-02&ss=b&srt=sco&sp=rwdlac&se=2099-01-01T00%3A00%3A00Z&\
                   sig=7UONs%2FYaET%2FoSyuKlfGYYrSHwkJMD5C6lbWQsyp6QTU%3D";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StoreKind {
    S3,
    Azure,
    Google,
}

/// A bucket in an emulator of its own, which ends when it is dropped.
pub struct TestBucket {
    kind: StoreKind,
    emulator: Emulator,
    http: Client,
    proxy_url: Option<String>,
    /// Google's credentials, and the proxy for its requests.
    google: Option<(String, AuthProxy)>,
    /// Requests and configuration have no credentials: runners use the identity of their machine.
    without_credentials: bool,
}

impl TestBucket {
    /// S3 (moto); its credentials are part of each request.
    pub async fn s3() -> Result<Self> {
        Self::new(StoreKind::S3, Emulator::moto()?, None).await
    }

    /// Azure (Azurite); in the dispatcher's configuration, because a request cannot name another endpoint than Azure's.
    pub async fn azure() -> Result<Self> {
        Self::new(StoreKind::Azure, Emulator::azurite()?, None).await
    }

    /// Google's XML API, for which moto stands in; in the configuration as well.
    pub async fn google() -> Result<Self> {
        let proxy = AuthProxy::start(PROXY_USER, PROXY_PASSWORD).await?;
        Self::new(StoreKind::Google, Emulator::moto()?, Some((account()?, proxy))).await
    }

    async fn new(kind: StoreKind, emulator: Emulator, google: Option<(String, AuthProxy)>) -> Result<Self> {
        let bucket = Self { kind, emulator, http: Client::new(), proxy_url: None, google, without_credentials: false };
        let query = if kind == StoreKind::Azure { "restype=container&" } else { "" };
        let made = bucket.request_store(Method::PUT, "", query).await?;
        ensure!(made.status().is_success(), "no bucket: {}", made.status());
        Ok(bucket)
    }

    /// From now on recordings are sent through this proxy, which must lead to [`TestBucket::address`].
    pub fn reached_through(&mut self, proxy: &FaultProxy) {
        self.proxy_url = Some(proxy.url());
    }

    /// A location as runners report it: with the address of the proxy.
    pub fn as_told(&self, location: &str) -> String {
        let proxy_url = self.proxy_url.as_ref().map(|proxy_url| proxy_url.trim_start_matches("http://"));
        proxy_url.map_or_else(|| location.to_owned(), |proxy_url| location.replace(&self.address(), proxy_url))
    }

    /// From now on recordings are sent through a proxy that lets through only what `policy` allows, whatever the
    /// credentials would allow. With `known`, the credentials are those that a machine is given, and requests and
    /// configuration have none.
    pub async fn behind_policy(&mut self, policy: Policy, known: Option<AcceptedIdentities>) -> Result<PolicyProxy> {
        self.without_credentials = known.is_some();
        let protocol = match self.kind {
            StoreKind::S3 => StoreProtocol::S3,
            StoreKind::Google => StoreProtocol::Google,
            StoreKind::Azure => StoreProtocol::Azure,
        };
        let policy_proxy = PolicyProxy::start(&self.address(), protocol, policy, known).await?;
        self.proxy_url = Some(policy_proxy.url());
        Ok(policy_proxy)
    }

    /// Resource name of every object below `prefix`, as policies write it.
    pub fn objects(&self, prefix: &str) -> String {
        match self.kind {
            StoreKind::Azure => format!("{AZURE_ACCOUNT}/{NAME}/{prefix}*"),
            StoreKind::S3 | StoreKind::Google => format!("{NAME}/{prefix}*"),
        }
    }

    /// Host and port of the emulator.
    pub fn address(&self) -> String {
        self.emulator.url().trim_start_matches("http://").to_owned()
    }

    fn endpoint(&self) -> String {
        match self.kind {
            StoreKind::Azure => format!("{}/{AZURE_ACCOUNT}", self.emulator.url()),
            StoreKind::S3 | StoreKind::Google => self.emulator.url(),
        }
    }

    fn advertised_endpoint(&self) -> String {
        let endpoint = self.endpoint();
        self.proxy_url
            .as_ref()
            .map_or_else(|| endpoint.clone(), |proxy_url| endpoint.replace(&self.emulator.url(), proxy_url))
    }

    fn url(&self, key: &str) -> String {
        let slash = if key.is_empty() { "" } else { "/" };
        format!("{}/{NAME}{slash}{key}", self.endpoint())
    }

    /// Field and value of the upload in a request; `None`: the store is in the configuration.
    pub fn upload(&self) -> Option<(&'static str, Value)> {
        let endpoint = self.advertised_endpoint();
        (self.kind == StoreKind::S3 && !self.without_credentials).then(|| {
            let upload = json!({
                "access_key": format!("{CANARY}-key"),
                "secret": format!("{CANARY}-secret"),
                "session_token": format!("{CANARY}-token"),
                "region": "us-east-1",
                "endpoint": endpoint,
                "bucket": NAME,
                "force_path_style": true,
                "metadata": { "team": "stage" },
                "tagging": "a=1",
            });
            ("s3", upload)
        })
    }

    /// Texts that must be found nowhere but in the dispatcher's configuration: parts of every credential, plain and as
    /// they are sent.
    pub fn secrets(&self) -> Vec<String> {
        match &self.google {
            None if self.kind == StoreKind::Azure => vec![AZURE_KEY.to_owned(), AZURE_KEY[10..50].to_owned()],
            None => vec![CANARY.to_owned()],
            Some((account, _)) => {
                // Somewhere in the middle of the private key, whose beginning every key shares.
                let key = account.split_once("BEGIN PRIVATE KEY-----").map_or("", |(_, key)| key);
                let sent = STANDARD.encode(format!("{PROXY_USER}:{PROXY_PASSWORD}"));
                let escaped: String = url::form_urlencoded::byte_serialize(PROXY_PASSWORD.as_bytes()).collect();
                vec![key[200..240].to_owned(), PROXY_PASSWORD.to_owned(), sent, escaped]
            }
        }
    }

    /// Storage section of the dispatcher's YAML; may be empty.
    pub fn configuration(&self) -> String {
        let endpoint = self.advertised_endpoint();
        match self.kind {
            StoreKind::S3 if self.without_credentials => format!(
                "storage: {{ s3: {{ region: us-east-1, bucket: {NAME}, endpoint: \"{endpoint}\", force_path_style: true }} }}\n"
            ),
            StoreKind::S3 => String::new(),
            StoreKind::Azure if self.without_credentials => format!(
                "storage: {{ azure: {{ account_name: {AZURE_ACCOUNT}, container_name: {NAME}, endpoint: \"{endpoint}\" }} }}\n"
            ),
            StoreKind::Azure => format!(
                "storage: {{ azure: {{ account_name: {AZURE_ACCOUNT}, account_key: \"{AZURE_KEY}\", container_name: {NAME}, endpoint: \"{endpoint}\" }} }}\n"
            ),
            StoreKind::Google => self.google.as_ref().map_or_else(String::new, |(credentials, proxy)| {
                let (credentials, proxy) = (json!(credentials), proxy.url());
                let credentials =
                    if self.without_credentials { String::new() } else { format!("credentials_json: {credentials}, ") };
                format!(
                    "storage: {{ gcp: {{ {credentials}bucket: {NAME}, endpoint: \"{endpoint}\", \
                     proxy_config: {{ url: \"{proxy}\", username: {PROXY_USER}, password: \"{PROXY_PASSWORD}\" }} }} }}\n"
                )
            }),
        }
    }

    /// The store as a runner opens it, without proxies.
    pub async fn store(&self) -> Result<Arc<dyn Storage>> {
        let provider = match self.kind {
            StoreKind::S3 => Provider::S3(Box::new(S3 {
                access_key: Secret::new("key".to_owned()),
                secret: Secret::new("secret".to_owned()),
                endpoint: self.endpoint(),
                origin: DestinationOrigin::Configuration,
                bucket: NAME.to_owned(),
                force_path_style: true,
                ..S3::default()
            })),
            StoreKind::Azure => Provider::Azure(Azure {
                account: AZURE_ACCOUNT.to_owned(),
                key: Secret::new(AZURE_KEY.to_owned()),
                container: NAME.to_owned(),
                endpoint: self.endpoint(),
                origin: DestinationOrigin::Configuration,
            }),
            StoreKind::Google => Provider::Gcs(Gcs {
                credentials: Secret::new(self.google.as_ref().map_or_else(String::new, |(text, _)| text.clone())),
                origin: DestinationOrigin::Configuration,
                bucket: NAME.to_owned(),
                endpoint: self.endpoint(),
                ..Gcs::default()
            }),
        };
        let store = Store { provider, prefix: String::new(), presign: false };
        open(&Destination::Store(Box::new(store)), &Options::default()).await.context("open the store")
    }

    async fn request_store(&self, method: Method, key: &str, query: &str) -> Result<reqwest::Response> {
        let signed = if self.kind == StoreKind::Azure { SAS } else { "" };
        let mark = if query.is_empty() && signed.is_empty() { "" } else { "?" };
        let request = self.http.request(method, format!("{}{mark}{query}{signed}", self.url(key)));
        let request = request.timeout(Duration::from_secs(20)).header("x-ms-version", "2022-11-02").body("");
        // moto accepts any signature.
        let request =
            if self.kind == StoreKind::Azure { request } else { request.header("authorization", "Bearer stage") };
        request.send().await.context("ask the store")
    }

    /// An object, if it exists.
    pub async fn read(&self, key: &str) -> Result<Option<Bytes>> {
        let answer = self.request_store(Method::GET, key, "").await?;
        if answer.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        Ok(Some(answer.error_for_status().context("read an object")?.bytes().await.context("read an object")?))
    }

    /// Names with uploaded parts and no object.
    pub async fn unfinished(&self) -> Result<Vec<String>> {
        if self.kind != StoreKind::Azure {
            let text = self.request_store(Method::GET, "", "uploads").await?.text().await?;
            return Ok(between(&text, "<Key>", "</Key>"));
        }
        let mut names = Vec::new();
        for include in ["uncommittedblobs", "metadata"] {
            let query = format!("restype=container&comp=list&include={include}&");
            names.push(between(&self.request_store(Method::GET, "", &query).await?.text().await?, "<Name>", "</Name>"));
        }
        let [all, whole] = <[Vec<String>; 2]>::try_from(names).unwrap_or_default();
        Ok(all.into_iter().filter(|name| !whole.contains(name)).collect())
    }
}

fn between(text: &str, open: &str, close: &str) -> Vec<String> {
    text.split(open).skip(1).filter_map(|rest| rest.split(close).next()).map(str::to_owned).collect()
}

/// A service account in JSON that signs its own tokens; moto does not check them.
pub fn account() -> Result<String> {
    account_and_public_key().map(|(account, _)| account)
}

/// As [`account`], with the public key (DER, PKCS #1) that verifies its signatures.
pub fn account_and_public_key() -> Result<(String, Vec<u8>)> {
    let key = rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048)?;
    let public = key.public_key_raw().to_vec();
    let key =
        format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(key.serialize_der()));
    let account = json!({
        "type": "service_account",
        "project_id": "stage",
        "private_key_id": "1",
        "private_key": key,
        "client_email": "recorder@stage.iam.gserviceaccount.com",
        "token_uri": "https://oauth2.googleapis.com/token",
    });
    Ok((account.to_string(), public))
}
