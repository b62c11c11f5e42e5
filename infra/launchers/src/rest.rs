//! What Google's and Azure's control planes have in common: JSON over HTTP with a bearer token, and answers that may get
//! lost after the deed.

use std::error::Error;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Client, Method};
use serde_json::Value;
use spillway_process::chain;
use spillway_protocol::Secret;
use tracing::warn;

use crate::launcher::{LaunchError, StopOutcome, TaskRef};

const CONNECT: Duration = Duration::from_secs(3);
const ANSWER: Duration = Duration::from_secs(20);

/// Who we are to the platform.
#[async_trait]
pub(crate) trait PlatformIdentity: Send + Sync {
    async fn headers(&self) -> Result<HeaderMap, LaunchError>;
}

/// A ready token.
pub(crate) struct Token(pub Secret);

#[async_trait]
impl PlatformIdentity for Token {
    async fn headers(&self) -> Result<HeaderMap, LaunchError> {
        bearer(self.0.reveal())
    }
}

pub(crate) fn bearer(token: &str) -> Result<HeaderMap, LaunchError> {
    let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
        .map_err(|_| LaunchError::Misconfigured { message: "the token is no header".to_owned(), source: None })?;
    value.set_sensitive(true);
    Ok(HeaderMap::from_iter([(AUTHORIZATION, value)]))
}

/// What became of asking for the end of a task.
pub(crate) fn ended(task: &TaskRef, asked: Result<RestResponse, impl Error + 'static>) -> StopOutcome {
    match asked {
        Ok(answer) if answer.is_fine() => StopOutcome::Requested,
        Ok(answer) if answer.status == 404 => StopOutcome::AlreadyGone,
        Ok(answer) => {
            warn!(%task, error = answer.message(), "task not ended");
            StopOutcome::OutOfReach
        }
        Err(error) => {
            warn!(%task, error = %chain(&error), "task not ended");
            StopOutcome::OutOfReach
        }
    }
}

pub(crate) struct Rest {
    client: Client,
    base: String,
    identity: Box<dyn PlatformIdentity>,
    /// What words call the platform.
    platform: &'static str,
}

/// The platform has answered, with whatever.
#[derive(Debug)]
pub(crate) struct RestResponse {
    pub status: u16,
    pub retry_after: Option<Duration>,
    /// Null when there was none.
    pub body: Value,
}

impl RestResponse {
    pub fn is_fine(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// 5xx: whether the deed was done is not known.
    pub fn is_doubtful(&self) -> bool {
        self.status >= 500
    }

    /// Both platforms put their words there.
    pub fn message(&self) -> String {
        let error = &self.body["error"];
        let code = error["status"].as_str().or(error["code"].as_str()).unwrap_or_default();
        match (code, error["message"].as_str().unwrap_or_default()) {
            ("", "") => format!("HTTP status {}", self.status),
            (code, "") => code.to_owned(),
            ("", message) => message.to_owned(),
            (code, message) => format!("{code}: {message}"),
        }
    }
}

impl Rest {
    pub fn new(platform: &'static str, base: &str, identity: Box<dyn PlatformIdentity>) -> Result<Self, LaunchError> {
        let client = Client::builder().connect_timeout(CONNECT).timeout(ANSWER).build().map_err(|error| {
            LaunchError::Misconfigured { message: "make an HTTP client".to_owned(), source: Some(error.into()) }
        })?;
        Ok(Self { client, base: base.trim_end_matches('/').to_owned(), identity, platform })
    }

    /// An error is no answer: the deed may be done.
    pub async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<RestResponse, LaunchError> {
        let answer = self.ask_once(method.clone(), path, body).await?;
        // A token that has just run out, here or by the platform's clock: nothing was done, and there may be a new one.
        if answer.status == 401 { self.ask_once(method, path, body).await } else { Ok(answer) }
    }

    async fn ask_once(&self, method: Method, path: &str, body: Option<&Value>) -> Result<RestResponse, LaunchError> {
        let mut request = self.client.request(method, format!("{}/{path}", self.base));
        request = request.headers(self.identity.headers().await?);
        request = match body {
            Some(body) => request.header("content-type", "application/json").body(body.to_string()),
            // Both want to hear of an empty body.
            None => request.header("content-length", "0"),
        };
        let lost = |error: reqwest::Error| LaunchError::Transient {
            message: format!("{} did not answer", self.platform),
            source: Some(error.without_url().into()),
        };
        let answer = request.send().await.map_err(lost)?;
        let status = answer.status().as_u16();
        let retry_after = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let body = answer.bytes().await.map_err(lost)?;
        Ok(RestResponse {
            status,
            retry_after: retry_after.map(Duration::from_secs),
            body: serde_json::from_slice(&body).unwrap_or(Value::Null),
        })
    }

    pub fn silence(&self, error: &LaunchError) -> String {
        chain(error).to_string()
    }
}
