//! Sockets of the peer connection: UDP on every local address the server is reached from, and active ICE/TCP.

use std::collections::{HashMap, HashSet};
use std::future::poll_fn;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt};
use nix::sys::time::TimeSpec;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::{debug, warn};

use super::offer::TcpDoor;

/// A key frame of many tracks at once must fit while we are starved of CPU.
const RECEIVE_BUFFER: usize = 4 << 20;
/// No datagram of use lies longer in a socket of that size.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
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

pub(super) struct Datagram {
    pub remote: SocketAddr,
    pub local: SocketAddr,
    pub length: usize,
    /// When the kernel took it from the network.
    pub at: Instant,
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
        // When a datagram came, not when a starved process got round to reading it.
        if let Err(error) = setsockopt(&socket, sockopt::ReceiveTimestampns, &true) {
            warn!(%error, "arrival times are those of reading");
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

    /// One waiting datagram; `None` only when the kernel has none.
    ///
    /// tokio remembers that a socket was empty until the kernel tells it otherwise. A process that was stopped wakes with
    /// that memory and seconds of datagrams: asked through tokio, all that came meanwhile would be declared complete unread.
    pub(super) fn read(&self, buffer: &mut [u8]) -> Option<Datagram> {
        self.udp.iter().find_map(|udp| match receive(udp, buffer) {
            // So that it is waited for.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                udp.socket.try_io(Interest::READABLE, || receive(udp, buffer)).ok()
            }
            received => received.ok(),
        })
    }

    pub(super) fn more_tcp_news(&mut self) -> Option<TcpNews> {
        self.news.try_recv().ok()
    }
}

fn receive(udp: &Udp, buffer: &mut [u8]) -> io::Result<Datagram> {
    let mut stamps = nix::cmsg_space!(TimeSpec);
    let mut parts = [IoSliceMut::new(buffer)];
    let flags = MsgFlags::MSG_DONTWAIT;
    let message = recvmsg::<SockaddrStorage>(udp.socket.as_raw_fd(), &mut parts, Some(&mut stamps), flags)?;
    let now = Instant::now();
    let stamp = message.cmsgs()?.find_map(|part| match part {
        ControlMessageOwned::ScmTimestampns(stamp) => Some(Duration::from(stamp)),
        _ => None,
    });
    let remote = message.address.and_then(|address| {
        let v4 = address.as_sockaddr_in().map(|address| SocketAddr::from((address.ip(), address.port())));
        v4.or_else(|| address.as_sockaddr_in6().map(|address| SocketAddr::from((address.ip(), address.port()))))
    });
    let remote = remote.ok_or_else(|| io::Error::other("a datagram from nowhere"))?;
    Ok(Datagram { remote, local: udp.local, length: message.bytes, at: now - waited(stamp) })
}

/// How long a datagram lay in the kernel; nothing when its stamp makes no sense because the clock was set meanwhile.
fn waited(stamp: Option<Duration>) -> Duration {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let waited = stamp.and_then(|stamp| unix.checked_sub(stamp)).unwrap_or_default();
    if waited > LONGEST_WAIT { Duration::ZERO } else { waited }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_came_while_we_were_stopped_is_seen_before_the_reactor_says_so() {
        let mut net = Net::new();
        let local = net.listen_towards("127.0.0.1:9".parse().unwrap()).unwrap().unwrap();
        let server = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut buffer = [0; 100];
        assert!(net.read(&mut buffer).is_none());
        // Until here the reactor has its turn, from here on it has none.
        server.send_to(b"one", local).unwrap();
        net.wait(true).await;
        assert_eq!(net.read(&mut buffer).map(|datagram| datagram.length), Some(3));
        assert!(net.read(&mut buffer).is_none());
        server.send_to(b"three", local).unwrap();
        assert_eq!(net.read(&mut buffer).map(|datagram| datagram.length), Some(5));
    }
}
