//! Answers of the console: their bodies, their headers, and the refusals of its API. Pure.

use std::convert::Infallible;
use std::io;

use futures_util::{Stream, StreamExt};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame};
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue, WWW_AUTHENTICATE};
use hyper::{Response, StatusCode};
use serde::Serialize;
use serde_json::json;
use spillway_bus::BusError;
use spillway_process::chain;
use spillway_protocol::code::RpcError;
use tracing::warn;

/// Body of every answer: whole, or in pieces as they come.
pub type ConsoleBody = UnsyncBoxBody<Bytes, io::Error>;

/// The page's own script, style and requests and nothing else: no script in it, none from elsewhere, and none that is made of
/// text (`require-trusted-types-for`), so that a room's name stays a text whatever it is called.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; \
                      trusted-types 'none'";

/// Of every answer. What is shown is neither kept by the browser nor read by pages of other sites.
const HEADERS: [(&str, &str); 6] = [
    ("content-security-policy", POLICY),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("referrer-policy", "no-referrer"),
    ("x-content-type-options", "nosniff"),
    ("cache-control", "no-store"),
];

/// A refusal of the API: status and text, as JSON `{"error": "…"}`.
#[derive(Debug)]
pub struct Refused {
    /// Status of the answer.
    pub status: StatusCode,
    /// For people.
    pub message: String,
}

impl Refused {
    /// With this status and text.
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    /// The request is wrong.
    pub fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// As it is sent.
    pub fn answer(&self) -> Response<ConsoleBody> {
        let mut response = json_answer(&json!({ "error": self.message }));
        *response.status_mut() = self.status;
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// The details are for the log: they name Redis' address.
impl From<BusError> for Refused {
    fn from(error: BusError) -> Self {
        warn!(error = %chain(&error), "console: not answered");
        if error.is_transient() {
            return Self::new(StatusCode::SERVICE_UNAVAILABLE, "Redis does not answer");
        }
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "what Redis has cannot be read; the log says more")
    }
}

/// As livekit-server would answer, with psrpc's own status.
impl From<RpcError> for Refused {
    fn from(error: RpcError) -> Self {
        let status = StatusCode::from_u16(error.code.http()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self::new(status, error.message)
    }
}

/// A whole body of this type.
pub fn whole(content_type: &'static str, body: impl Into<Bytes>) -> Response<ConsoleBody> {
    let never = |never: Infallible| -> io::Error { match never {} };
    with_headers(content_type, Full::<Bytes>::new(body.into()).map_err(never).boxed_unsync())
}

/// A body of this type in pieces; an error ends it before its end.
pub fn in_pieces(
    content_type: &'static str,
    pieces: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
) -> Response<ConsoleBody> {
    with_headers(content_type, StreamBody::new(pieces.map(|piece| piece.map(Frame::data))).boxed_unsync())
}

/// A value as JSON.
pub fn json_answer(value: &impl Serialize) -> Response<ConsoleBody> {
    match serde_json::to_vec(value) {
        Ok(text) => whole("application/json", text),
        // Texts, numbers and maps with text keys: it does not happen.
        Err(error) => {
            let mut response = whole("application/json", format!("{{\"error\":{:?}}}", error.to_string()));
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            response
        }
    }
}

fn with_headers(content_type: &'static str, body: ConsoleBody) -> Response<ConsoleBody> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
