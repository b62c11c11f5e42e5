//! A proxy of livekit-server's signalling that tells its clients to use relays only, as the server itself does after their
//! direct connections have failed.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use futures_util::{SinkExt, StreamExt};
use livekit_protocol as proto;
use prost::Message as _;
use proto::signal_response::Message as SignalMessage;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::{accept_hdr_async, client_async};

/// The proxy; ends with all connections when dropped.
pub struct SignalProxy {
    port: u16,
    task: JoinHandle<()>,
}

impl SignalProxy {
    /// In front of the livekit-server at `to`, `127.0.0.1:port`.
    pub async fn start(to: &str) -> Result<Self> {
        let to: SocketAddr = to.parse().context("read the server's address")?;
        let listener = TcpListener::bind("127.0.0.1:0").await.context("bind the proxy")?;
        let port = listener.local_addr()?.port();
        let task = tokio::spawn(async move {
            // Dropped with the task, and all connections with it.
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                // Either side may hang up.
                connections.spawn(async move { serve(client, to).await });
            }
        });
        Ok(Self { port, task })
    }

    /// For `ws_url` of a configuration.
    pub fn url(&self) -> String {
        format!("ws://127.0.0.1:{}", self.port)
    }
}

impl Drop for SignalProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(client: TcpStream, to: SocketAddr) -> Result<()> {
    let asked = Arc::<Mutex<Option<Request>>>::default();
    let heard = asked.clone();
    #[allow(clippy::result_large_err, reason = "tungstenite's signature")]
    let on_request = move |request: &Request, response: Response| -> Result<Response, ErrorResponse> {
        *heard.lock().unwrap_or_else(PoisonError::into_inner) = Some(request.clone());
        Ok(response)
    };
    let mut client = accept_hdr_async(client, on_request).await.context("accept a client")?;
    let request = asked.lock().unwrap_or_else(PoisonError::into_inner).take();
    let mut request = request.context("a client that asks for nothing")?;
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    *request.uri_mut() = format!("ws://{to}{path}").parse().context("readdress a request")?;
    let server = TcpStream::connect(to).await.context("reach livekit-server")?;
    let (mut server, _) = client_async(request, server).await.context("join as the client does")?;
    loop {
        tokio::select! {
            message = client.next() => match message {
                Some(message) => server.send(message?).await?,
                None => return Ok(()),
            },
            message = server.next() => match message {
                Some(Ok(Message::Binary(data))) => client.send(Message::Binary(relayed_only(&data)?.into())).await?,
                Some(message) => client.send(message?).await?,
                None => return Ok(()),
            },
        }
    }
}

/// The same message; when it is the answer to a join, with the configuration to use relays only.
fn relayed_only(data: &[u8]) -> Result<Vec<u8>> {
    let mut response = proto::SignalResponse::decode(data).context("read a message of livekit-server")?;
    if let Some(SignalMessage::Join(join)) = &mut response.message {
        let configuration = join.client_configuration.get_or_insert_default();
        configuration.force_relay = proto::ClientConfigSetting::Enabled.into();
    }
    Ok(response.encode_to_vec())
}
