//! The handshake that makes a websocket of a connection. In a stream's task; the caller bounds its time.

use spillway_plan::WebsocketUrl;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::handshake::client::{Request, generate_key};
use tokio_tungstenite::tungstenite::http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::fault::WebsocketFault;

const READ_BUFFER_BYTES: usize = 4 << 10;
/// What a server says is dropped, but first it is put together.
const MAX_RECEIVED_BYTES: usize = 1 << 20;
/// What livekit/egress says it sends.
const CONTENT: &str = "audio/x-raw";

/// The handshake of a connection.
///
/// # Errors
///
/// The server refuses, or does not speak HTTP.
pub async fn open<S>(url: &WebsocketUrl, io: S) -> Result<WebSocketStream<S>, WebsocketFault>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let request = request(url).ok_or(WebsocketFault::Url)?;
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(0)
        .max_message_size(Some(MAX_RECEIVED_BYTES))
        .max_frame_size(Some(MAX_RECEIVED_BYTES));
    match client_async_with_config(request, io, Some(config)).await {
        Ok((opened, _)) => Ok(opened),
        Err(Error::Http(answer)) => Err(WebsocketFault::Refused {
            status: answer.status().as_u16(),
            reason: answer.status().canonical_reason().unwrap_or_default(),
        }),
        Err(error) => Err(WebsocketFault::Handshake { message: url.without_secrets(&error.to_string()) }),
    }
}

fn request(url: &WebsocketUrl) -> Option<Request> {
    let mut request = Request::builder()
        .method("GET")
        .uri(url.uri().reveal().as_str())
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", generate_key())
        .header(CONTENT_TYPE, CONTENT)
        .body(())
        .ok()?;
    let host = HeaderValue::from_str(request.uri().authority()?.as_str()).ok()?;
    request.headers_mut().insert(HOST, host);
    if let Some(authorization) = url.authorization() {
        let mut value = HeaderValue::from_str(authorization.reveal()).ok()?;
        value.set_sensitive(true);
        request.headers_mut().insert(AUTHORIZATION, value);
    }
    Some(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_has_what_servers_look_at() {
        let url = WebsocketUrl::parse("wss://user:canary@h:8443/a/b?token=canary#canary").unwrap();
        let request = request(&url).unwrap();
        assert_eq!(request.uri().path_and_query().unwrap(), "/a/b?token=canary");
        for (name, expected) in [
            ("Host", "h:8443"),
            ("Content-Type", "audio/x-raw"),
            ("Authorization", "Basic dXNlcjpjYW5hcnk="),
            ("Sec-WebSocket-Version", "13"),
        ] {
            assert_eq!(request.headers()[name], expected);
        }
        assert!(!format!("{:?}", request.headers()).contains("dXNlcjpjYW5hcnk="));
        let plain = self::request(&WebsocketUrl::parse("ws://[::1]/").unwrap()).unwrap();
        assert_eq!(plain.headers()["Host"], "[::1]");
        assert!(!plain.headers().contains_key("Authorization"));
    }
}
