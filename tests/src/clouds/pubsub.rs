//! From the end of a Cloud Run execution to a dispatcher: Pub/Sub pushes the entry of Cloud Logging with a token of a
//! service account, and repeats it until it is acknowledged.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::web::{HttpReply, HttpServer};

const KEY_ID: &str = "google-of-the-stage";
/// `minimum_backoff` of the Terraform module.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
const MAX_DELIVERIES: usize = 20;

/// Google as an issuer of identity tokens: published keys, and tokens signed with them.
pub struct Issuer {
    web: HttpServer,
    pair: KeyPair,
}

impl Issuer {
    /// Generates a key and publishes it.
    pub async fn start() -> Result<Self> {
        let pair = KeyPair::generate(KeySize::Rsa2048).context("make a key")?;
        // An RSAPublicKey in DER: two integers behind their heads, the first with a zero before it.
        let der = pair.public_key().as_ref().to_vec();
        let (n, e) = (URL_SAFE_NO_PAD.encode(&der[9..265]), URL_SAFE_NO_PAD.encode(&der[267..]));
        let key = json!({ "kty": "RSA", "alg": "RS256", "use": "sig", "kid": KEY_ID, "n": n, "e": e });
        let web = HttpServer::start(move |_| {
            let keys = json!({ "keys": [key] });
            async { HttpReply::json(200, keys) }
        });
        Ok(Self { web: web.await?, pair })
    }

    /// URL of the published keys (JWKS).
    pub fn keys(&self) -> String {
        format!("{}/oauth2/v3/certs", self.web.url())
    }

    /// An identity token of the service account `email`, valid for an hour.
    pub fn token(&self, audience: &str, email: &str) -> Result<String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let claims = json!({ "iss": "https://accounts.google.com", "aud": audience, "azp": "1", "sub": "1", "email": email,
            "email_verified": true, "iat": now, "exp": now + 3600 });
        let header = json!({ "alg": "RS256", "kid": KEY_ID, "typ": "JWT" });
        let text = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string())).join(".");
        let mut signature = vec![0; self.pair.public_modulus_len()];
        self.pair
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text.as_bytes(), &mut signature)
            .ok()
            .context("sign a token")?;
        Ok(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

/// How entries are delivered.
#[derive(Clone, Debug)]
pub struct PushOptions {
    /// Deliveries of each entry.
    pub copies: usize,
    /// Delay of each delivery.
    pub late: Duration,
    /// `Authorization` token; `None`: without one.
    pub token: Option<String>,
}

/// A subscription with a push endpoint.
pub struct PushSubscription {
    endpoint: String,
    client: reqwest::Client,
    /// Status of every push.
    answers: Arc<Mutex<Vec<u16>>>,
}

impl PushSubscription {
    /// `endpoint` is the URL that is pushed to.
    pub fn new(endpoint: String) -> Self {
        Self { endpoint, client: reqwest::Client::new(), answers: Arc::default() }
    }

    /// Status of every push so far; 0: no response.
    pub fn answers(&self) -> Vec<u16> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Delivers every entry from now on; repeats each copy, up to 20 times, until it is acknowledged (2xx).
    pub fn deliver(&self, mut entries: mpsc::UnboundedReceiver<Value>, options: PushOptions) {
        let (client, endpoint, answers) = (self.client.clone(), self.endpoint.clone(), Arc::clone(&self.answers));
        tokio::spawn(async move {
            while let Some(entry) = entries.recv().await {
                for _ in 0..options.copies {
                    let (client, endpoint) = (client.clone(), endpoint.clone());
                    let (answers, options, entry) = (Arc::clone(&answers), options.clone(), entry.clone());
                    tokio::spawn(async move {
                        tokio::time::sleep(options.late).await;
                        for _ in 0..MAX_DELIVERIES {
                            let status = push(&client, &endpoint, &entry, options.token.as_deref()).await.unwrap_or(0);
                            answers.lock().unwrap_or_else(PoisonError::into_inner).push(status);
                            if (200..300).contains(&status) {
                                return;
                            }
                            tokio::time::sleep(RETRY_INTERVAL).await;
                        }
                    });
                }
            }
        });
    }

    /// Pushes one entry once; gives the status.
    pub async fn push(&self, entry: &Value, token: Option<&str>) -> Result<u16> {
        push(&self.client, &self.endpoint, entry, token).await
    }
}

async fn push(client: &reqwest::Client, endpoint: &str, entry: &Value, token: Option<&str>) -> Result<u16> {
    let message = json!({ "data": STANDARD.encode(entry.to_string()), "messageId": "1",
        "publishTime": "2026-11-22T10:00:00.123Z", "attributes": { "logging.googleapis.com/timestamp": "2026-11-22T10:00:00Z" } });
    let body = json!({ "message": message, "subscription": "projects/p-1/subscriptions/ended", "deliveryAttempt": 1 });
    let mut request = client.post(endpoint).header("content-type", "application/json").body(body.to_string());
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    Ok(request.send().await.context("push")?.status().as_u16())
}
