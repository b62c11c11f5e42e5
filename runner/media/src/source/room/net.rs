//! Sockets of the peer connection: UDP on every local address the server is reached from, and active ICE/TCP.

use std::collections::{HashMap, HashSet};
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::task::Poll;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::{debug, warn};

use super::offer::TcpDoor;

/// A key frame of many tracks at once must fit while we are starved of CPU.
const RECEIVE_BUFFER: usize = 4 << 20;
const DIAL_PATIENCE: Duration = Duration::from_secs(5);
/// Frames that may wait for a slow TCP connection; it carries only STUN and RTCP from us.
const TCP_OUTBOX: usize = 256;

pub(super) struct Net {
    udp: Vec<Udp>,
    tcp: HashMap<SocketAddr, mpsc::Sender<Vec<u8>>>,
    dialled: HashSet<TcpDoor>,
    news_in: mpsc::UnboundedSender<TcpNews>,
    news: mpsc::UnboundedReceiver<TcpNews>,
}

struct Udp {
    socket: UdpSocket,
    local: SocketAddr,
}

pub(super) enum TcpNews {
    Up { local: SocketAddr, outbox: mpsc::Sender<Vec<u8>> },
    Received { local: SocketAddr, remote: SocketAddr, data: Vec<u8> },
    Down { local: SocketAddr },
}

impl Net {
    pub(super) fn new() -> Self {
        let (news_in, news) = mpsc::unbounded_channel();
        Self { udp: Vec::new(), tcp: HashMap::new(), dialled: HashSet::new(), news_in, news }
    }

    /// A socket on the address from which `remote` is reached; its address when it is a new one.
    pub(super) fn listen_towards(&mut self, remote: SocketAddr) -> io::Result<Option<SocketAddr>> {
        let any: IpAddr = if remote.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        // Connecting a datagram socket sends nothing; it asks the routing table.
        let probe = std::net::UdpSocket::bind((any, 0))?;
        probe.connect(remote)?;
        let ip = probe.local_addr()?.ip();
        if self.udp.iter().any(|udp| udp.local.ip() == ip) {
            return Ok(None);
        }
        let socket = std::net::UdpSocket::bind((ip, 0))?;
        if let Err(error) = rustix::net::sockopt::set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER) {
            warn!(%error, "receive buffer stays small");
        }
        socket.set_nonblocking(true)?;
        let local = socket.local_addr()?;
        self.udp.push(Udp { socket: UdpSocket::from_std(socket)?, local });
        Ok(Some(local))
    }

    /// Dials once per door: the server's TCP mux binds a connection to the first fragment it sees on it, and closes it
    /// at an ICE restart.
    pub(super) fn dial(&mut self, door: TcpDoor) {
        if !self.dialled.insert(door.clone()) {
            return;
        }
        let news = self.news_in.clone();
        tokio::spawn(async move {
            match timeout(DIAL_PATIENCE, TcpStream::connect(door.address)).await {
                Ok(Ok(stream)) => {
                    if let Err(error) = serve_tcp(stream, door.address, &news).await {
                        debug!(%error, remote = %door.address, "media connection closed");
                    }
                }
                Ok(Err(error)) => debug!(%error, remote = %door.address, "media connection refused"),
                Err(_) => debug!(remote = %door.address, "media connection not answered"),
            }
        });
    }

    pub(super) fn connected(&mut self, local: SocketAddr, outbox: mpsc::Sender<Vec<u8>>) {
        self.tcp.insert(local, outbox);
    }

    pub(super) fn disconnected(&mut self, local: SocketAddr) {
        self.tcp.remove(&local);
    }

    pub(super) fn send_udp(&self, from: SocketAddr, to: SocketAddr, data: &[u8]) {
        if let Some(udp) = self.udp.iter().find(|udp| udp.local == from) {
            // A full socket loses a packet, as the network may.
            let _ = udp.socket.try_send_to(data, to);
        }
    }

    pub(super) fn send_tcp(&self, from: SocketAddr, data: Vec<u8>) {
        if let Some(outbox) = self.tcp.get(&from) {
            let _ = outbox.try_send(data);
        }
    }

    /// Until a UDP socket may have something (when `udp` is asked for), or a TCP connection has news.
    pub(super) async fn wait(&mut self, udp: bool) -> Option<TcpNews> {
        let sockets = &self.udp;
        let readable = poll_fn(|context| {
            let ready = udp && sockets.iter().any(|udp| udp.socket.poll_recv_ready(context).is_ready());
            if ready { Poll::Ready(()) } else { Poll::Pending }
        });
        tokio::select! {
            () = readable => None,
            news = self.news.recv() => news,
        }
    }

    /// One waiting datagram: (remote, local, length).
    pub(super) fn read(&self, buffer: &mut [u8]) -> Option<(SocketAddr, SocketAddr, usize)> {
        self.udp.iter().find_map(|udp| {
            let (length, remote) = udp.socket.try_recv_from(buffer).ok()?;
            Some((remote, udp.local, length))
        })
    }

    pub(super) fn more_tcp_news(&mut self) -> Option<TcpNews> {
        self.news.try_recv().ok()
    }
}

/// RFC 4571: every packet behind its length.
async fn serve_tcp(stream: TcpStream, remote: SocketAddr, news: &mpsc::UnboundedSender<TcpNews>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let local = stream.local_addr()?;
    let (reader, mut writer) = stream.into_split();
    let (outbox, mut to_send) = mpsc::channel::<Vec<u8>>(TCP_OUTBOX);
    if news.send(TcpNews::Up { local, outbox }).is_err() {
        return Ok(());
    }
    tokio::spawn(async move {
        while let Some(data) = to_send.recv().await {
            let Ok(length) = u16::try_from(data.len()) else { continue };
            let framed = [&length.to_be_bytes()[..], &data].concat();
            if writer.write_all(&framed).await.is_err() {
                break;
            }
        }
    });
    let result = read_tcp(reader, local, remote, news).await;
    let _ = news.send(TcpNews::Down { local });
    result
}

async fn read_tcp(
    reader: tokio::net::tcp::OwnedReadHalf,
    local: SocketAddr,
    remote: SocketAddr,
    news: &mpsc::UnboundedSender<TcpNews>,
) -> io::Result<()> {
    let mut reader = tokio::io::BufReader::with_capacity(1 << 16, reader);
    loop {
        let length = reader.read_u16().await?;
        let mut data = vec![0; usize::from(length)];
        reader.read_exact(&mut data).await?;
        if news.send(TcpNews::Received { local, remote, data }).is_err() {
            return Ok(());
        }
    }
}
