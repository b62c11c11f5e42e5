//! One connection of a browser to its proxy: reads the request's head, asks the guard, connects, passes on. A task for each
//! connection; it never follows a redirect and never takes a second request, so that every request is decided about.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use spillway_guard::{AddressClass, Guard, GuardError, class};
use tokio::io::{AsyncWriteExt, copy, copy_bidirectional};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::head::{ForwardRequest, ProxyRequest, closing, read_head, status};
use super::refusals::RefusalLog;
use super::upstream::UpstreamProxy;

/// Most heads are read at once.
const READ_BYTES: usize = 8 << 10;
/// For a name to be resolved.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);
/// For one address, so that one that is not there (IPv6 without a way) does not cost the others.
const ADDRESS_TIMEOUT: Duration = Duration::from_secs(4);
/// For the network's proxy to have a tunnel.
const UPSTREAM_TIMEOUT: Duration = Duration::from_secs(15);

/// A browser shows these as an error of its proxy; why is in the log.
const BAD_REQUEST: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
const REFUSED: &[u8] =
    b"HTTP/1.1 403 Forbidden\r\nX-Spillway-Guard: refused\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
const UNREACHED: &[u8] =
    b"HTTP/1.1 502 Bad Gateway\r\nX-Spillway-Guard: failed\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
const CONNECTED: &[u8] = b"HTTP/1.1 200 Connection established\r\n\r\n";

/// What all connections share.
pub struct ProxyContext {
    /// Decides.
    pub guard: Guard,
    /// The way to public hosts; `None`: straight.
    pub upstream: Option<UpstreamProxy>,
    /// What did not get through.
    pub log: Arc<RefusalLog>,
}

/// A server, or a proxy that leads to it.
enum ProxyRoute {
    /// Connected to an address that was checked.
    Server(TcpStream),
    /// Through the network's proxy.
    Upstream,
}

/// Serves one connection until either side ends it.
///
/// # Errors
///
/// The connection's; there is nothing to be done.
pub async fn serve(mut client: TcpStream, context: &ProxyContext) -> io::Result<()> {
    client.set_nodelay(true)?;
    let mut rest = Vec::with_capacity(READ_BYTES);
    let Some(end) = read_head(&mut client, &mut rest).await? else { return Ok(()) };
    let head: Vec<u8> = rest.drain(..end).collect();
    let Some(request) = ProxyRequest::parse(&head) else {
        return client.write_all(BAD_REQUEST).await;
    };
    match context.open(&request).await {
        Ok((mut server, first)) => match &request.forward {
            None => {
                client.write_all(CONNECTED).await?;
                client.write_all(&first).await?;
                server.write_all(&rest).await?;
                copy_bidirectional(&mut client, &mut server).await.map(drop)
            }
            Some(_) => {
                server.write_all(&first).await?;
                server.write_all(&rest).await?;
                pass_on(client, server).await
            }
        },
        Err(error) => {
            context.log.note(&request.host, request.port, &error);
            client.write_all(if error.is_refusal() { REFUSED } else { UNREACHED }).await
        }
    }
}

impl ProxyContext {
    /// The other side of a request. Of a tunnel with what it has said already; else with the head to be sent there.
    async fn open(&self, request: &ProxyRequest) -> Result<(TcpStream, Vec<u8>), GuardError> {
        let route = self.route(&request.host, request.port).await?;
        match (route, &self.upstream, &request.forward) {
            (ProxyRoute::Server(server), _, forward) => {
                Ok((server, forward.as_ref().map(ForwardRequest::to_server).unwrap_or_default()))
            }
            (ProxyRoute::Upstream, Some(upstream), None) => {
                through(request, async { upstream.tunnel(&request.authority()).await }).await
            }
            (ProxyRoute::Upstream, Some(upstream), Some(forward)) => {
                let head = forward.to_proxy(upstream.authorization());
                through(request, async { upstream.dial().await.map(|stream| (stream, head)) }).await
            }
            (ProxyRoute::Upstream, None, _) => Err(failed(request, "no way there".to_owned())),
        }
    }

    /// What is inside is connected to straight, for the network's proxy leads out of it.
    async fn route(&self, host: &str, port: u16) -> Result<ProxyRoute, GuardError> {
        let unanswered =
            || GuardError::Resolve { host: host.to_owned(), message: "the resolver does not answer".to_owned() };
        let found =
            timeout(RESOLVE_TIMEOUT, self.guard.resolve(host, port)).await.unwrap_or_else(|_| Err(unanswered()));
        match (found, &self.upstream) {
            (Ok(addresses), Some(_)) if !is_inside(&addresses) => Ok(ProxyRoute::Upstream),
            (Ok(addresses), _) => connect(host, &addresses).await.map(ProxyRoute::Server),
            // Behind such a proxy this machine need not know any name.
            (Err(error), Some(_)) if !error.is_refusal() => Ok(ProxyRoute::Upstream),
            (Err(error), _) => Err(error),
        }
    }
}

fn is_inside(addresses: &[SocketAddr]) -> bool {
    addresses.iter().all(|address| class(address.ip()) != AddressClass::Public)
}

fn failed(request: &ProxyRequest, message: String) -> GuardError {
    GuardError::Connect { host: request.host.clone(), message }
}

async fn through(
    request: &ProxyRequest,
    opening: impl Future<Output = io::Result<(TcpStream, Vec<u8>)>>,
) -> Result<(TcpStream, Vec<u8>), GuardError> {
    match timeout(UPSTREAM_TIMEOUT, opening).await {
        Ok(Ok(opened)) => Ok(opened),
        Ok(Err(error)) => Err(failed(request, error.to_string())),
        Err(_) => Err(failed(request, "the network's proxy does not answer".to_owned())),
    }
}

/// The first of these addresses that takes the connection.
async fn connect(host: &str, addresses: &[SocketAddr]) -> Result<TcpStream, GuardError> {
    let mut message = "it has no address".to_owned();
    for address in addresses {
        match timeout(ADDRESS_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(server)) => {
                // A server that takes no option is still a server.
                let _ = server.set_nodelay(true);
                return Ok(server);
            }
            Ok(Err(error)) => message = error.to_string(),
            Err(_) => message = "no answer".to_owned(),
        }
    }
    Err(GuardError::Connect { host: host.to_owned(), message })
}

/// One request and its response. The browser is told that the connection ends behind it.
async fn pass_on(mut client: TcpStream, mut server: TcpStream) -> io::Result<()> {
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let request = async {
        if copy(&mut from_client, &mut to_server).await.is_err() {
            // A server that does not want the whole of it has answered.
            std::future::pending::<()>().await;
        }
    };
    let response = async {
        let mut rest = Vec::with_capacity(READ_BYTES);
        loop {
            let Some(end) = read_head(&mut from_server, &mut rest).await? else { break };
            let head: Vec<u8> = rest.drain(..end).collect();
            let is_interim = status(&head).is_some_and(|status| (100..200).contains(&status) && status != 101);
            // What cannot be read ends with its connection, too.
            to_client.write_all(&closing(&head).filter(|_| !is_interim).unwrap_or(head)).await?;
            if !is_interim {
                break;
            }
        }
        to_client.write_all(&rest).await?;
        copy(&mut from_server, &mut to_client).await?;
        to_client.shutdown().await
    };
    tokio::select! {
        // The browser has gone.
        () = request => Ok(()),
        done = response => done,
    }
}
