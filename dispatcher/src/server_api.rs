//! livekit-server's room service, as far as a check needs it: one request each, in the caller's task. Everything that a
//! recording needs of livekit-server goes through Redis and the runner instead.

use std::time::Duration;

use chrono::{DateTime, Utc};
use livekit_token::{AccessToken, VideoGrants};
use serde_json::{Value, json};
use spillway_bus::ProbeCause;
use spillway_process::chain;

use crate::config::Config;

const TIMEOUT: Duration = Duration::from_secs(8);
/// Of a token for one request.
const TOKEN_TTL: Duration = Duration::from_secs(60);
/// An empty room is gone after so many seconds by itself.
const EMPTY_ROOM_S: u64 = 60;

/// Why livekit-server did not do it.
#[derive(Debug, thiserror::Error)]
pub enum ServerApiError {
    /// The configuration names no server, or one that is no URL.
    #[error("ws_url \"{0}\" is no URL of a livekit-server")]
    Url(String),
    /// The key or the secret cannot sign.
    #[error("make a token")]
    Token(#[source] livekit_token::AccessTokenError),
    /// No answer.
    #[error("livekit-server does not answer")]
    Lost(#[source] reqwest::Error),
    /// An answer that is no success.
    #[error("livekit-server answers {status}: {message}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// The server's text.
        message: String,
    },
}

impl ServerApiError {
    /// What a check says about it.
    pub fn cause(&self) -> ProbeCause {
        match self {
            Self::Url(_) => ProbeCause::ServerUnreachable,
            Self::Token(_) | Self::Refused { status: 401 | 403, .. } => ProbeCause::TokenRefused,
            Self::Refused { .. } => ProbeCause::ServerRefuses,
            Self::Lost(error) => lost(&chain(error).to_string()),
        }
    }
}

/// The step of a connection that failed, by the texts of the libraries below.
pub fn lost(message: &str) -> ProbeCause {
    let message = message.to_lowercase();
    let says = |texts: &[&str]| texts.iter().any(|text| message.contains(text));
    if says(&["certificate", "corrupt message", "tls", "ssl"]) {
        ProbeCause::ServerTls
    } else if says(&["temporary failure", "try again"]) {
        ProbeCause::NameServerSilent
    } else if says(&["lookup address", "name or service not known", "dns error"]) {
        ProbeCause::NameNotFound
    } else {
        ProbeCause::ServerUnreachable
    }
}

/// The room service, with the dispatcher's API key.
pub struct ServerApi<'c> {
    config: &'c Config,
    client: reqwest::Client,
}

impl<'c> ServerApi<'c> {
    /// Makes no request.
    pub fn new(config: &'c Config) -> Self {
        Self { config, client: reqwest::Client::new() }
    }

    /// Makes a room that ends by itself soon.
    ///
    /// # Errors
    /// See [`ServerApiError`].
    pub async fn create_room(&self, name: &str) -> Result<(), ServerApiError> {
        let grants = VideoGrants { room_create: true, ..VideoGrants::default() };
        let asked = json!({"name": name, "empty_timeout": EMPTY_ROOM_S, "departure_timeout": 1, "max_participants": 2});
        self.call("CreateRoom", grants, &asked).await.map(drop)
    }

    /// Ends a room.
    ///
    /// # Errors
    /// See [`ServerApiError`].
    pub async fn delete_room(&self, name: &str) -> Result<(), ServerApiError> {
        let grants = VideoGrants { room_create: true, ..VideoGrants::default() };
        self.call("DeleteRoom", grants, &json!({"room": name})).await.map(drop)
    }

    /// Proves that the server answers and knows the key. The server's time, where its answer has one.
    ///
    /// # Errors
    /// See [`ServerApiError`].
    pub async fn check_key(&self) -> Result<Option<DateTime<Utc>>, ServerApiError> {
        let grants = VideoGrants { room_list: true, ..VideoGrants::default() };
        // A name that no room has: the answer is short.
        self.call("ListRooms", grants, &json!({"names": ["spillway-doctor"]})).await
    }

    async fn call(
        &self,
        method: &str,
        grants: VideoGrants,
        asked: &Value,
    ) -> Result<Option<DateTime<Utc>>, ServerApiError> {
        let url = url_of(&self.config.ws_url, method).ok_or_else(|| ServerApiError::Url(self.config.ws_url.clone()))?;
        let token = AccessToken::with_api_key(&self.config.api_key, self.config.api_secret.reveal())
            .with_ttl(TOKEN_TTL)
            .with_grants(grants)
            .to_jwt()
            .map_err(ServerApiError::Token)?;
        let request = self.client.post(url).timeout(TIMEOUT).bearer_auth(&token);
        let request = request.header("content-type", "application/json").body(asked.to_string());
        let answer = request.send().await.map_err(|error| ServerApiError::Lost(error.without_url()))?;
        let status = answer.status();
        let date = answer.headers().get("date").and_then(|date| DateTime::parse_from_rfc2822(date.to_str().ok()?).ok());
        if status.is_success() {
            return Ok(date.map(|date| date.to_utc()));
        }
        let body = answer.bytes().await.unwrap_or_default();
        // The server may repeat a token that it cannot verify.
        let message = message_of(&body).replace(token.as_str(), "(the token)");
        Err(ServerApiError::Refused { status: status.as_u16(), message })
    }
}

/// `wss://host/path` → `https://host/path/twirp/livekit.RoomService/METHOD`
fn url_of(ws_url: &str, method: &str) -> Option<String> {
    let (scheme, rest) = ws_url.split_once("://")?;
    let scheme = match scheme {
        "ws" | "http" => "http",
        "wss" | "https" => "https",
        _ => return None,
    };
    let base = rest.split(['?', '#']).next().filter(|base| !base.is_empty())?;
    Some(format!("{scheme}://{}/twirp/livekit.RoomService/{method}", base.trim_end_matches('/')))
}

/// The text of an error of Twirp, or the first line of another answer.
fn message_of(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let json: Option<Value> = serde_json::from_str(&text).ok();
    let message = json.as_ref().and_then(|json| json["msg"].as_str());
    message.unwrap_or_else(|| text.lines().next().unwrap_or_default()).chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_lies_beside_the_signal_endpoint() {
        let url = |ws_url| url_of(ws_url, "ListRooms");
        let twirp = "twirp/livekit.RoomService/ListRooms";
        assert_eq!(url("ws://h:7880").unwrap(), format!("http://h:7880/{twirp}"));
        assert_eq!(url("wss://h/a/?x").unwrap(), format!("https://h/a/{twirp}"));
        assert!(url("h:7880").is_none() && url("ftp://h").is_none() && url("ws://").is_none());
    }

    #[test]
    fn a_refusal_is_about_the_key_or_not() {
        let refused = |status| ServerApiError::Refused { status, message: String::new() }.cause();
        assert_eq!((refused(401), refused(502)), (ProbeCause::TokenRefused, ProbeCause::ServerRefuses));
        assert_eq!(message_of(br#"{"code":"unauthenticated","msg":"invalid API key"}"#), "invalid API key");
        assert_eq!(message_of(b"<html>\nx"), "<html>");
        assert_eq!(lost("invalid peer certificate: UnknownIssuer"), ProbeCause::ServerTls);
        assert_eq!(lost("tcp connect error: Connection refused"), ProbeCause::ServerUnreachable);
        assert_eq!(lost("dns error: failed to lookup address information"), ProbeCause::NameNotFound);
    }

    /// A server of one answer.
    async fn answering(answer: &'static str) -> String {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        format!("ws://{address}")
    }

    #[tokio::test]
    async fn the_servers_time_is_in_its_answer_and_a_token_in_none_of_ours() {
        let config = |ws_url| Config {
            ws_url,
            api_key: "key".into(),
            api_secret: spillway_protocol::Secret::new("a-secret-that-is-long-enough-for-hmac".into()),
            ..Config::default()
        };
        let fine = "HTTP/1.1 200 OK\r\ndate: Tue, 01 Dec 2026 03:00:00 GMT\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}";
        let config_of = config(answering(fine).await);
        let time = ServerApi::new(&config_of).check_key().await.unwrap().unwrap();
        assert_eq!(time.timestamp(), 1_796_094_000);
        let refused =
            "HTTP/1.1 401 Unauthorized\r\ncontent-length: 16\r\nconnection: close\r\n\r\n{\"msg\":\"no key\"}";
        let config_of = config(answering(refused).await);
        let error = ServerApi::new(&config_of).check_key().await.unwrap_err();
        assert_eq!(
            (error.cause(), error.to_string().as_str()),
            (ProbeCause::TokenRefused, "livekit-server answers 401: no key")
        );
        let nobody = config("ws://127.0.0.1:1".into());
        assert_eq!(ServerApi::new(&nobody).check_key().await.unwrap_err().cause(), ProbeCause::ServerUnreachable);
    }
}
