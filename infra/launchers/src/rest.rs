//! Requests to Google's and Azure's control planes: JSON over HTTP with a bearer token. An answer may be lost after the
//! request was carried out. One request per call, in the caller's task; a 401 is asked once more, nothing else is retried.

use std::error::Error;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Client, Method};
use serde_json::Value;
use spillway_process::chain;
use spillway_protocol::Secret;
use tracing::warn;

use crate::launcher::{LaunchError, StopOutcome, TaskRef, TaskStatus};

const CONNECT: Duration = Duration::from_secs(3);
const ANSWER: Duration = Duration::from_secs(20);

/// Source of the headers that authorise a request.
#[async_trait]
pub(crate) trait PlatformIdentity: Send + Sync {
    async fn headers(&self) -> Result<HeaderMap, LaunchError>;
}

/// A configured token.
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

/// Outcome of a request to stop a task.
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
    /// Name of the platform in messages.
    platform: &'static str,
}

/// An answer of the platform, an error included.
#[derive(Debug)]
pub(crate) struct RestResponse {
    /// HTTP status.
    pub status: u16,
    /// `Retry-After` in seconds, where the answer has it.
    pub retry_after: Option<Duration>,
    /// Null where the body is no JSON.
    pub body: Value,
}

impl RestResponse {
    /// 2xx.
    pub fn is_fine(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// 5xx: whether the request was carried out is unknown.
    pub fn is_doubtful(&self) -> bool {
        self.status >= 500
    }

    /// The error's code and message; both platforms put them in the same fields.
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
    /// `base`: URL before every path.
    ///
    /// # Errors
    /// `Misconfigured`: no TLS or resolver could be set up.
    pub fn new(platform: &'static str, base: &str, identity: Box<dyn PlatformIdentity>) -> Result<Self, LaunchError> {
        let client = Client::builder().connect_timeout(CONNECT).timeout(ANSWER).build().map_err(|error| {
            LaunchError::Misconfigured { message: "make an HTTP client".to_owned(), source: Some(error.into()) }
        })?;
        Ok(Self { client, base: base.trim_end_matches('/').to_owned(), identity, platform })
    }

    /// Sends one request.
    ///
    /// # Errors
    /// `Transient`: no answer came, and the request may have been carried out. Also those of the token.
    pub async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<RestResponse, LaunchError> {
        let answer = self.ask_once(method.clone(), path, body).await?;
        // The token has just expired, here or by the platform's clock: nothing was done, and there may be a new one.
        if answer.status == 401 { self.ask_once(method, path, body).await } else { Ok(answer) }
    }

    async fn ask_once(&self, method: Method, path: &str, body: Option<&Value>) -> Result<RestResponse, LaunchError> {
        let mut request = self.client.request(method, format!("{}/{path}", self.base));
        request = request.headers(self.identity.headers().await?);
        request = match body {
            Some(body) => request.header("content-type", "application/json").body(body.to_string()),
            // Both platforms require the length of an empty body.
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
}

/// A status that could not be had is `Unknown`.
pub(crate) fn status(asked: Result<TaskStatus, LaunchError>) -> TaskStatus {
    asked.unwrap_or_else(|error| TaskStatus::Unknown(chain(&error).to_string()))
}

/// A text in an answer; empty where there is none.
pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Unix milliseconds of an RFC 3339 time in an answer.
pub(crate) fn milliseconds(value: &Value) -> Option<i64> {
    chrono::DateTime::parse_from_rfc3339(value.as_str()?).ok().map(|at| at.timestamp_millis())
}
