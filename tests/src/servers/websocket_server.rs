//! A server of websockets that keeps what it is sent: requests, sound, texts, how each connection ended.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use futures_util::StreamExt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::accept_hdr_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};

/// What all connections have sent.
#[derive(Clone, Debug, Default)]
pub struct WebsocketLog {
    /// Path with query, and headers by their names in lower case.
    pub requests: Vec<(String, BTreeMap<String, String>)>,
    /// Binary messages, one behind the other.
    pub sound: Vec<u8>,
    /// Texts, each with the bytes of sound before it.
    pub texts: Vec<(usize, String)>,
    /// Close frames, with their codes.
    pub closes: Vec<Option<u16>>,
}

/// The server; ends with all connections when dropped.
pub struct WebsocketServer {
    port: u16,
    tls: Option<TlsAcceptor>,
    log: Arc<Mutex<WebsocketLog>>,
    task: Option<JoinHandle<()>>,
}

impl WebsocketServer {
    /// Starts it on a free port; with `tls` every connection is encrypted.
    pub async fn start(tls: Option<TlsAcceptor>) -> Result<Self> {
        let mut server = Self { port: 0, tls, log: Arc::default(), task: None };
        server.restart().await?;
        Ok(server)
    }

    /// The same port again after [`kill`](Self::kill).
    pub async fn restart(&mut self) -> Result<()> {
        let listener = TcpListener::bind(("127.0.0.1", self.port)).await.context("bind the websocket server")?;
        self.port = listener.local_addr()?.port();
        let (tls, log) = (self.tls.clone(), self.log.clone());
        self.task = Some(tokio::spawn(async move {
            // Dropped with the task, and all connections with it.
            let mut connections = JoinSet::new();
            while let Ok((tcp, _)) = listener.accept().await {
                let (tls, log) = (tls.clone(), log.clone());
                connections.spawn(async move {
                    match tls {
                        // A client that does not trust the certificate ends the handshake.
                        Some(tls) => {
                            if let Ok(io) = tls.accept(tcp).await {
                                serve(io, &log).await;
                            }
                        }
                        None => serve(tcp, &log).await,
                    }
                });
            }
        }));
        Ok(())
    }

    /// Cuts every connection, and takes no other.
    pub fn kill(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }

    /// URL of this path, without its first slash.
    pub fn url(&self, path: &str) -> String {
        let scheme = if self.tls.is_some() { "wss" } else { "ws" };
        format!("{scheme}://127.0.0.1:{}/{path}", self.port)
    }

    /// The same with user and password.
    pub fn url_of(&self, user: &str, path: &str) -> String {
        self.url(path).replace("://", &format!("://{user}@"))
    }

    /// What came so far.
    pub fn log(&self) -> WebsocketLog {
        locked(&self.log).clone()
    }
}

impl Drop for WebsocketServer {
    fn drop(&mut self) {
        self.kill();
    }
}

fn locked(log: &Mutex<WebsocketLog>) -> MutexGuard<'_, WebsocketLog> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(io: impl AsyncRead + AsyncWrite + Unpin, log: &Mutex<WebsocketLog>) {
    #[allow(clippy::result_large_err, reason = "tungstenite's signature")]
    let on_request = |request: &Request, response: Response| -> Result<Response, ErrorResponse> {
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        let headers = request.headers().iter().map(|(name, value)| (name.to_string(), text(value.as_bytes())));
        locked(log).requests.push((request.uri().to_string(), headers.collect()));
        Ok(response)
    };
    let Ok(mut websocket) = accept_hdr_async(io, on_request).await else { return };
    while let Some(Ok(message)) = websocket.next().await {
        let mut log = locked(log);
        match message {
            Message::Binary(data) => log.sound.extend_from_slice(&data),
            Message::Text(text) => {
                let at = log.sound.len();
                log.texts.push((at, text.to_string()));
            }
            Message::Close(frame) => log.closes.push(frame.map(|frame| frame.code.into())),
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
        }
    }
}
