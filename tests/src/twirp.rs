//! livekit-server's API as a client sees it: Twirp with JSON over plain HTTP/1.1, one connection for each request.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use livekit_token::{AccessToken, VideoGrants};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A livekit-server and a key for it.
#[derive(Clone, Debug)]
pub struct Api {
    /// `127.0.0.1:7880`
    pub address: String,
    /// API key.
    pub key: String,
    /// Of `key`.
    pub secret: String,
}

/// An answer other than 200.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{method} answered {status} {code}: {message}")]
pub struct TwirpError {
    /// Name of the method.
    pub method: String,
    /// Of HTTP.
    pub status: u16,
    /// Twirp's code, e.g. `not_found`.
    pub code: String,
    /// Twirp's message.
    pub message: String,
    /// Time until the answer.
    pub took: Duration,
}

impl Api {
    /// URL of the signalling endpoint.
    pub fn ws_url(&self) -> String {
        format!("ws://{}", self.address)
    }

    /// A signed token; `kind` is a participant kind such as `agent`.
    pub fn token(&self, identity: &str, kind: Option<&str>, grants: VideoGrants) -> Result<String> {
        let mut token = AccessToken::with_api_key(&self.key, &self.secret).with_identity(identity).with_grants(grants);
        if let Some(kind) = kind {
            token = token.with_kind(kind);
        }
        token.to_jwt().context("sign a token")
    }

    /// Calls a method of the service `Egress`; as [`call`](Self::call).
    pub async fn egress(&self, method: &str, request: Value) -> Result<Value, anyhow::Error> {
        self.call("Egress", method, request).await
    }

    /// Calls a method of the service `RoomService`; as [`call`](Self::call).
    pub async fn rooms(&self, method: &str, request: Value) -> Result<Value> {
        self.call("RoomService", method, request).await
    }

    /// Calls a method with all grants. An answer other than 200 is an error that can be downcast to [`TwirpError`].
    pub async fn call(&self, service: &str, method: &str, request: Value) -> Result<Value> {
        let grants = VideoGrants {
            room_record: true,
            room_admin: true,
            room_create: true,
            room_list: true,
            room: request["room"].as_str().unwrap_or_default().to_owned(),
            ..Default::default()
        };
        let token = self.token("stage", None, grants)?;
        let begun = Instant::now();
        let path = format!("/twirp/livekit.{service}/{method}");
        let (status, body) =
            post(&self.address, &path, &[("Authorization", &format!("Bearer {token}"))], &request.to_string())
                .await
                .with_context(|| format!("call {method}"))?;
        let answer: Value = serde_json::from_str(&body).unwrap_or_else(|_| json!({ "msg": body }));
        if status == 200 {
            return Ok(answer);
        }
        let text = |key: &str| answer[key].as_str().unwrap_or_default().to_owned();
        Err(anyhow!(TwirpError {
            method: method.to_owned(),
            status,
            code: text("code"),
            message: text("msg"),
            took: begun.elapsed()
        }))
    }

    /// CreateRoom; the room closes `close_after_s` after its last participant has left.
    pub async fn create_room(&self, name: &str, close_after_s: u32) -> Result<Value> {
        self.rooms("CreateRoom", json!({ "name": name, "departure_timeout": close_after_s })).await
    }

    /// DeleteRoom.
    pub async fn delete_room(&self, name: &str) -> Result<Value> {
        self.rooms("DeleteRoom", json!({ "room": name })).await
    }

    /// EgressInfo from ListEgress; null where the server does not know the id.
    pub async fn egress_info(&self, egress_id: &str) -> Result<Value> {
        let list = self.egress("ListEgress", json!({ "egress_id": egress_id })).await?;
        Ok(list["items"][0].clone())
    }
}

/// POST on a connection of its own; gives status and body.
pub async fn post(address: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Result<(u16, String)> {
    request("POST", address, path, headers, body).await
}

/// GET on a connection of its own; gives status and body.
pub async fn get(address: &str, path: &str) -> Result<(u16, String)> {
    request("GET", address, path, &[], "").await
}

async fn request(
    method: &str,
    address: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect(address).await.with_context(|| format!("connect to {address}"))?;
    let extra: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n{extra}Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes()).await.context("send the request")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.context("read the answer")?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, rest) = answer.split_once("\r\n\r\n").context("an answer without a head")?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).context("an answer without a status")?;
    if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        return Ok((status, dechunk(rest)?));
    }
    Ok((status, rest.to_owned()))
}

fn dechunk(mut rest: &str) -> Result<String> {
    let mut whole = String::new();
    loop {
        let (size, after) = rest.split_once("\r\n").context("a chunk without a size")?;
        let size = usize::from_str_radix(size.trim(), 16).context("a chunk's size")?;
        ensure!(after.is_char_boundary(size) && after.len() >= size, "a chunk ends early");
        if size == 0 {
            return Ok(whole);
        }
        whole.push_str(&after[..size]);
        rest = after[size..].trim_start_matches("\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_joined() {
        assert_eq!(dechunk("3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n").unwrap(), "abcde");
    }
}
