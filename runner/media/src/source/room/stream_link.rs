//! Connections over TCP: to the server's passive candidates (ICE/TCP) and to TURN servers, these also over TLS. Each has
//! tasks of its own in the room's thread; what they read goes to the peer connection as [`NetEvent`]s, whole packets.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tracing::debug;

use super::ice_server::{RelayServer, RelayTransport};
use super::offer::TcpCandidate;
use super::turn::framed_bytes;
use crate::stream_tls::StreamTls;

const DIAL_TIMEOUT: Duration = Duration::from_secs(5);
/// Frames that may wait for a slow TCP connection; it carries only STUN and RTCP from us.
const OUTBOX: usize = 256;
const READ_BUFFER: usize = 1 << 16;

/// What is sent over a connection, and the socket itself, to see whether something waits in it.
pub(super) struct ConnectionEnd {
    pub(super) outbox: mpsc::Sender<Vec<u8>>,
    pub(super) socket: OwnedFd,
}

pub(super) enum NetEvent {
    /// A connection to a passive candidate.
    Up {
        local: SocketAddr,
        end: ConnectionEnd,
    },
    /// One packet; from a TURN server one message.
    Received {
        local: SocketAddr,
        remote: SocketAddr,
        data: Vec<u8>,
    },
    Down {
        local: SocketAddr,
    },
    /// Where a TURN server is that is reached over UDP. `relay`: its place in the list.
    RelayFound {
        relay: usize,
        remote: SocketAddr,
    },
    /// A connection to a TURN server.
    RelayUp {
        relay: usize,
        local: SocketAddr,
        remote: SocketAddr,
        end: ConnectionEnd,
    },
    RelayLost {
        relay: usize,
        reason: String,
    },
}

pub(super) type NetNews = mpsc::UnboundedSender<NetEvent>;

/// How packets stand in a stream.
#[derive(Clone, Copy)]
enum Framing {
    /// RFC 4571: every packet behind its length.
    Length,
    /// RFC 8656, part 12.5: STUN messages and padded ChannelData.
    Turn,
}

/// Connects to a passive candidate and serves the connection until it ends.
pub(super) fn dial(candidate: TcpCandidate, news: NetNews) {
    let remote = candidate.address;
    tokio::spawn(async move {
        match connect(remote).await {
            Ok((stream, local, socket)) => {
                let (outbox, to_send) = mpsc::channel(OUTBOX);
                if news.send(NetEvent::Up { local, end: ConnectionEnd { outbox, socket } }).is_ok()
                    && let Err(error) = serve(stream, Framing::Length, local, remote, to_send, &news).await
                {
                    debug!(%error, %remote, "media connection closed");
                }
            }
            Err(error) => debug!(%error, %remote, "no media connection over TCP"),
        }
    });
}

/// Finds a TURN server and, over TCP or TLS, serves the connection to it until it ends.
pub(super) fn reach(relay: usize, server: RelayServer, tls: StreamTls, news: NetNews) {
    tokio::spawn(async move {
        let reason = match serve_relay(relay, &server, tls, &news).await {
            // It is found, and a datagram socket does not close.
            Ok(()) if server.transport == RelayTransport::Udp => return,
            Ok(()) => "connection closed".to_owned(),
            Err(error) => error.to_string(),
        };
        let _ = news.send(NetEvent::RelayLost { relay, reason });
    });
}

async fn serve_relay(relay: usize, server: &RelayServer, tls: StreamTls, news: &NetNews) -> io::Result<()> {
    let found: Vec<SocketAddr> = within(lookup_host((server.host.as_str(), server.port))).await?.collect();
    // Many networks have names for IPv6 and no way there.
    let preferred = found.iter().find(|address| address.is_ipv4()).or(found.first());
    let remote = *preferred.ok_or_else(|| io::Error::other("no address"))?;
    if server.transport == RelayTransport::Udp {
        let _ = news.send(NetEvent::RelayFound { relay, remote });
        return Ok(());
    }
    let (stream, local, socket) = connect(remote).await?;
    let (outbox, to_send) = mpsc::channel(OUTBOX);
    let up = NetEvent::RelayUp { relay, local, remote, end: ConnectionEnd { outbox, socket } };
    if server.transport == RelayTransport::Tls {
        let name = ServerName::try_from(server.host.clone()).map_err(io::Error::other)?;
        // Reading certificates takes tens of milliseconds: not in the room's thread.
        let config = tokio::task::spawn_blocking(move || tls.config()).await.map_err(io::Error::other)?;
        let connector = TlsConnector::from(config.map_err(io::Error::other)?);
        let stream = within(connector.connect(name, stream)).await?;
        let _ = news.send(up);
        return serve(stream, Framing::Turn, local, remote, to_send, news).await;
    }
    let _ = news.send(up);
    serve(stream, Framing::Turn, local, remote, to_send, news).await
}

/// A connection, our address of it, and a second handle of its socket.
async fn connect(remote: SocketAddr) -> io::Result<(TcpStream, SocketAddr, OwnedFd)> {
    let stream = within(TcpStream::connect(remote)).await?;
    stream.set_nodelay(true)?;
    let (local, socket) = (stream.local_addr()?, rustix::io::dup(&stream)?);
    Ok((stream, local, socket))
}

async fn within<T>(what: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(DIAL_TIMEOUT, what).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

async fn serve<S>(
    stream: S,
    framing: Framing,
    local: SocketAddr,
    remote: SocketAddr,
    mut to_send: mpsc::Receiver<Vec<u8>>,
    news: &NetNews,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let (reader, mut writer) = tokio::io::split(stream);
    tokio::spawn(async move {
        while let Some(data) = to_send.recv().await {
            let framed = match framing {
                Framing::Turn => data,
                Framing::Length => {
                    let Ok(length) = u16::try_from(data.len()) else { continue };
                    [&length.to_be_bytes()[..], &data].concat()
                }
            };
            if writer.write_all(&framed).await.is_err() || writer.flush().await.is_err() {
                break;
            }
        }
        // The other end learns that no more comes; of TLS, that nothing was cut.
        let _ = writer.shutdown().await;
    });
    let result = read(reader, framing, local, remote, news).await;
    let _ = news.send(NetEvent::Down { local });
    result
}

async fn read(
    reader: impl AsyncRead + Unpin,
    framing: Framing,
    local: SocketAddr,
    remote: SocketAddr,
    news: &NetNews,
) -> io::Result<()> {
    let mut reader = BufReader::with_capacity(READ_BUFFER, reader);
    loop {
        let data = match framing {
            Framing::Length => {
                let mut data = vec![0; usize::from(reader.read_u16().await?)];
                reader.read_exact(&mut data).await?;
                data
            }
            Framing::Turn => {
                let mut head = [0; 4];
                reader.read_exact(&mut head).await?;
                let bytes = framed_bytes(head).ok_or_else(|| io::Error::other("this is not TURN"))?;
                let mut data = vec![0; bytes];
                data[..4].copy_from_slice(&head);
                reader.read_exact(&mut data[4..]).await?;
                data
            }
        };
        if news.send(NetEvent::Received { local, remote, data }).is_err() {
            return Ok(());
        }
    }
}
