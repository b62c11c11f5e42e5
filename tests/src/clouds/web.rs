//! A minimal HTTP server that the clouds' SDKs accept.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// A request, read completely.
#[derive(Clone, Debug)]
pub struct HttpRequest {
    /// `GET` …
    pub method: String,
    /// Without percent-decoding.
    pub path: String,
    /// After the `?`; empty without one.
    pub query: String,
    headers: hyper::HeaderMap,
    /// All of it.
    pub body: Bytes,
}

impl HttpRequest {
    /// Value of a header; empty without it.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The body; null where it is not JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }
}

/// A response.
#[derive(Clone, Debug)]
pub enum HttpReply {
    /// JSON, or an empty body for null.
    Json {
        /// HTTP status.
        status: u16,
        /// Beside Content-Type.
        headers: Vec<(&'static str, String)>,
        /// Content.
        body: Value,
    },
    /// Any content.
    Content {
        /// HTTP status.
        status: u16,
        /// All but Content-Length.
        headers: Vec<(&'static str, String)>,
        /// Content.
        body: Bytes,
    },
    /// The connection closes instead.
    HangUp,
    /// The same after 1.5 s.
    Late(Box<HttpReply>),
}

/// Longer than any call here takes, shorter than any timeout.
const LATE: Duration = Duration::from_millis(1500);

impl HttpReply {
    /// A JSON response.
    pub fn json(status: u16, body: Value) -> Self {
        Self::Json { status, headers: Vec::new(), body }
    }

    /// Adds a header.
    pub fn with(self, name: &'static str, value: impl Into<String>) -> Self {
        match self {
            Self::Json { status, mut headers, body } => {
                headers.push((name, value.into()));
                Self::Json { status, headers, body }
            }
            Self::Content { status, mut headers, body } => {
                headers.push((name, value.into()));
                Self::Content { status, headers, body }
            }
            Self::HangUp | Self::Late(_) => self,
        }
    }
}

/// Ends when dropped.
pub struct HttpServer {
    /// Where it listens.
    pub address: SocketAddr,
    task: JoinHandle<()>,
}

impl HttpServer {
    /// A server on a free loopback port that calls `answer` for each request.
    pub async fn start<F, A>(answer: F) -> Result<Self>
    where
        F: Fn(HttpRequest) -> A + Send + Sync + 'static,
        A: Future<Output = HttpReply> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("bind a cloud")?;
        let address = listener.local_addr()?;
        let answer = Arc::new(answer);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let answer = Arc::clone(&answer);
                let service = service_fn(move |request| {
                    let answer = Arc::clone(&answer);
                    async move { serve(&*answer, request).await }
                });
                // A client may hang up.
                tokio::spawn(async move {
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Ok(Self { address, task })
    }

    /// `http://` and the address.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve<F, A>(answer: &F, request: Request<Incoming>) -> io::Result<Response<Full<Bytes>>>
where
    F: Fn(HttpRequest) -> A,
    A: Future<Output = HttpReply>,
{
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let request = HttpRequest {
        method: head.method.to_string(),
        path: head.uri.path().to_owned(),
        query: head.uri.query().unwrap_or_default().to_owned(),
        headers: head.headers,
        body,
    };
    let mut reply = answer(request).await;
    while let HttpReply::Late(later) = reply {
        tokio::time::sleep(LATE).await;
        reply = *later;
    }
    let (status, headers, body) = match reply {
        HttpReply::Json { status, headers, body } => {
            let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
            let json = ("content-type", "application/json".to_owned());
            (status, std::iter::once(json).chain(headers).collect(), body)
        }
        HttpReply::Content { status, headers, body } => (status, headers, body),
        HttpReply::HangUp | HttpReply::Late(_) => return Err(io::Error::other("hung up, as told")),
    };
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in headers {
        if let Ok(value) = value.parse() {
            response.headers_mut().insert(name, value);
        }
    }
    Ok::<_, Infallible>(response).map_err(|never| match never {})
}
