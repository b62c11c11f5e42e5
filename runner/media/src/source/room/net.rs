//! Sockets of the peer connection: UDP on every local address the server is reached from, active ICE/TCP and connections to
//! TURN servers (`stream_link`). How often they must be read follows what the kernel gives them.

use std::collections::{HashMap, HashSet};
use std::future::poll_fn;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::task::Poll;
use std::time::{Duration, Instant};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, setsockopt, sockopt};
use nix::sys::time::TimeSpec;
use spillway_process::clock;
use tokio::io::Interest;
use tokio::sync::mpsc;
use tracing::{info, warn};

use super::ice_server::RelayServer;
use super::offer::TcpCandidate;
use super::poll_pace::PollPace;
use super::stream_link::{self, ConnectionEnd, NetEvent, NetNews};
use crate::stream_tls::StreamTls;

/// Asked for; the kernel sets twice as much aside. A key frame of many tracks at once must fit while we are starved of CPU.
const RECEIVE_BUFFER: usize = 4 << 20;
/// What Linux gives without being asked, as it says it itself.
const USUAL_BUFFER: usize = 212_992;
/// No datagram of use lies longer in a socket of that size.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Datagrams taken from a socket by one call: what comes within two ticks at 10 Mbit/s.
const BATCH: usize = 64;
/// No path of the internet carries longer ones.
const DATAGRAM: usize = 2048;

pub(super) struct Net {
    udp: Vec<Udp>,
    /// Datagrams no longer wake the thread: they are read at each tick.
    calm: bool,
    /// What a socket asks for, bytes.
    receive_buffer: usize,
    tls: StreamTls,
    pace: PollPace,
    /// By our address.
    streams: HashMap<SocketAddr, ConnectionEnd>,
    dialled: HashSet<TcpCandidate>,
    news_in: NetNews,
    news: mpsc::UnboundedReceiver<NetEvent>,
}

/// The socket from which an address is reached.
pub(super) struct Listening {
    pub(super) local: SocketAddr,
    pub(super) is_new: bool,
}

struct Udp {
    socket: UdpSocket,
    local: SocketAddr,
    /// The same socket; wakes us for every datagram.
    alarm: Option<tokio::net::UdpSocket>,
}

pub(super) struct Datagram {
    /// Who sent it.
    pub remote: SocketAddr,
    /// The socket it came to.
    pub local: SocketAddr,
    /// When the kernel took it from the network.
    pub at: Instant,
    length: usize,
}

/// What [`Net::fill`] took from the sockets.
#[derive(Default)]
pub(super) struct DatagramBatch {
    space: Vec<[u8; DATAGRAM]>,
    datagrams: Vec<Datagram>,
}

impl DatagramBatch {
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Datagram, &[u8])> {
        self.datagrams.iter().zip(&self.space).map(|(datagram, space)| (datagram, &space[..datagram.length]))
    }
}

impl Net {
    pub(super) fn new(tls: StreamTls) -> Self {
        Self::asking_for(RECEIVE_BUFFER, tls)
    }

    fn asking_for(receive_buffer: usize, tls: StreamTls) -> Self {
        let (news_in, news) = mpsc::unbounded_channel();
        Self {
            udp: Vec::new(),
            calm: false,
            receive_buffer,
            tls,
            pace: PollPace::new(Instant::now()),
            streams: HashMap::new(),
            dialled: HashSet::new(),
            news_in,
            news,
        }
    }

    /// From one look at the sockets to the next, so that none overflows.
    pub(super) fn poll_interval(&self) -> Duration {
        self.pace.interval()
    }

    /// So many datagrams were taken by one look.
    pub(super) fn took(&mut self, datagrams: usize, now: Instant) {
        self.pace.took(datagrams, now);
    }

    /// A socket on the address from which `remote` is reached.
    pub(super) fn listen_towards(&mut self, remote: SocketAddr) -> io::Result<Listening> {
        let any: IpAddr = if remote.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        // Connecting a datagram socket sends nothing; it asks the routing table.
        let probe = UdpSocket::bind((any, 0))?;
        probe.connect(remote)?;
        let ip = probe.local_addr()?.ip();
        if let Some(udp) = self.udp.iter().find(|udp| udp.local.ip() == ip) {
            return Ok(Listening { local: udp.local, is_new: false });
        }
        let socket = UdpSocket::bind((ip, 0))?;
        let bytes = set_receive_buffer(&socket, self.receive_buffer);
        let datagrams = self.pace.add_socket(bytes);
        if self.pace.is_hurried() {
            let every = self.pace.interval();
            info!(bytes, datagrams, ?every, "a small receive buffer (net.core.rmem_max) is read more often");
        }
        // When a datagram came, not when a starved process got round to reading it.
        if let Err(error) = setsockopt(&socket, sockopt::ReceiveTimestampns, &true) {
            warn!(%error, "arrival times are those of reading");
        }
        socket.set_nonblocking(true)?;
        let local = socket.local_addr()?;
        let alarm = if self.calm { None } else { Some(tokio::net::UdpSocket::from_std(socket.try_clone()?)?) };
        self.udp.push(Udp { socket, local, alarm });
        Ok(Listening { local, is_new: true })
    }

    /// Dials once per candidate: the server's TCP mux binds a connection to the first fragment it sees on it, and
    /// closes it at an ICE restart.
    pub(super) fn dial(&mut self, params: TcpCandidate) {
        if !self.dialled.insert(params.clone()) {
            return;
        }
        stream_link::dial(params, self.news_in.clone());
    }

    /// Looks for a TURN server; `relay` is its place in the caller's list.
    pub(super) fn reach(&self, relay: usize, server: RelayServer) {
        stream_link::reach(relay, server, self.tls.clone(), self.news_in.clone());
    }

    pub(super) fn connected(&mut self, local: SocketAddr, end: ConnectionEnd) {
        self.streams.insert(local, end);
    }

    pub(super) fn disconnected(&mut self, local: SocketAddr) {
        self.streams.remove(&local);
    }

    /// Something that came over TCP has not been given out yet.
    pub(super) fn has_unread_stream(&self) -> bool {
        let waits = |end: &ConnectionEnd| rustix::io::ioctl_fionread(&end.socket).is_ok_and(|bytes| bytes > 0);
        !self.news.is_empty() || self.streams.values().any(waits)
    }

    pub(super) fn send_udp(&self, from: SocketAddr, to: SocketAddr, data: &[u8]) {
        if let Some(udp) = self.udp.iter().find(|udp| udp.local == from) {
            // A full socket loses a packet, as the network may.
            let _ = udp.socket.send_to(data, to);
        }
    }

    pub(super) fn send_stream(&self, from: SocketAddr, data: Vec<u8>) {
        if let Some(end) = self.streams.get(&from) {
            let _ = end.outbox.try_send(data);
        }
    }

    /// From now on datagrams do not wake the thread.
    pub(super) fn calm(&mut self) {
        self.calm = true;
        self.udp.iter_mut().for_each(|udp| udp.alarm = None);
    }

    /// Until a UDP socket has something, unless we are calm, or a TCP connection has news.
    pub(super) async fn wait(&mut self) -> Option<NetEvent> {
        let sockets = &self.udp;
        let alarmed = poll_fn(|context| {
            let mut alarms = sockets.iter().filter_map(|udp| udp.alarm.as_ref());
            if alarms.any(|alarm| alarm.poll_recv_ready(context).is_ready()) { Poll::Ready(()) } else { Poll::Pending }
        });
        tokio::select! {
            () = alarmed => None,
            news = self.news.recv() => news,
        }
    }

    /// What waits in the sockets, as far as it has room. The kernel is asked, not tokio's memory of an empty socket: a
    /// process that was stopped wakes with that memory and seconds of datagrams.
    ///
    /// Everything that came before the moment given back has been taken; `None`: nothing is left.
    pub(super) fn fill(&self, batch: &mut DatagramBatch) -> Option<Instant> {
        batch.datagrams.clear();
        batch.space.resize(self.udp.len() * BATCH, [0; DATAGRAM]);
        let mut left = None;
        for udp in &self.udp {
            let before = batch.datagrams.len();
            udp.receive(&mut batch.space[before..before + BATCH], &mut batch.datagrams);
            match batch.datagrams.last() {
                Some(last) if batch.datagrams.len() - before == BATCH => {
                    left = Some(left.map_or(last.at, |left: Instant| left.min(last.at)));
                }
                _ => udp.rest(),
            }
        }
        left
    }

    pub(super) fn more_news(&mut self) -> Option<NetEvent> {
        self.news.try_recv().ok()
    }
}

impl Udp {
    fn receive(&self, space: &mut [[u8; DATAGRAM]], datagrams: &mut Vec<Datagram>) {
        // Made anew: the kernel leaves in the headers what was there, not what would fit.
        let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(space.len(), Some(nix::cmsg_space!(TimeSpec)));
        let mut parts: Vec<_> = space.iter_mut().map(|space| [IoSliceMut::new(space)]).collect();
        let flags = MsgFlags::MSG_DONTWAIT;
        // Nothing there, mostly; what else may be wrong with a datagram socket passes.
        let Ok(messages) = recvmmsg(self.socket.as_raw_fd(), &mut headers, parts.iter_mut(), flags, None) else {
            return;
        };
        let (now, unix_ns) = clock::read_both();
        let (now, unix) = (now.into_std(), Duration::from_nanos(unix_ns.max(0) as u64));
        for message in messages {
            let stamp = message.cmsgs().ok().and_then(|mut parts| {
                parts.find_map(|part| match part {
                    ControlMessageOwned::ScmTimestampns(stamp) => Some(Duration::from(stamp)),
                    _ => None,
                })
            });
            let remote = message.address.and_then(|address| {
                let v4 = address.as_sockaddr_in().map(|address| SocketAddr::from((address.ip(), address.port())));
                v4.or_else(|| address.as_sockaddr_in6().map(|address| SocketAddr::from((address.ip(), address.port()))))
            });
            datagrams.push(Datagram {
                // Of every datagram of an internet socket the kernel knows it.
                remote: remote.unwrap_or(self.local),
                local: self.local,
                at: now - waited(stamp, unix),
                length: message.bytes,
            });
        }
    }

    /// Nothing is left: the next datagram wakes us again.
    fn rest(&self) {
        if let Some(alarm) = &self.alarm {
            // Errors are this one.
            let _ = alarm.try_io(Interest::READABLE, || Err::<(), _>(io::ErrorKind::WouldBlock.into()));
        }
    }
}

/// Asks for so many bytes; gives what the kernel sets aside, at most twice `net.core.rmem_max` without CAP_NET_ADMIN.
fn set_receive_buffer(socket: &UdpSocket, bytes: usize) -> usize {
    use rustix::net::sockopt::{
        set_socket_recv_buffer_size, set_socket_recv_buffer_size_force, socket_recv_buffer_size,
    };
    let set = set_socket_recv_buffer_size_force(socket, bytes).or_else(|_| set_socket_recv_buffer_size(socket, bytes));
    if let Err(error) = set {
        warn!(%error, "receive buffer stays small");
    }
    socket_recv_buffer_size(socket).unwrap_or_else(|error| {
        warn!(%error, "size of the receive buffer not known");
        USUAL_BUFFER
    })
}

/// How long a datagram lay in the kernel; nothing when its stamp makes no sense because the clock was set meanwhile.
fn waited(stamp: Option<Duration>, unix: Duration) -> Duration {
    let waited = stamp.and_then(|stamp| unix.checked_sub(stamp)).unwrap_or_default();
    if waited > LONGEST_WAIT { Duration::ZERO } else { waited }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;
    use tokio::time::timeout;

    use super::*;

    fn lengths(net: &Net) -> Vec<usize> {
        let mut batch = DatagramBatch::default();
        net.fill(&mut batch);
        batch.iter().map(|(_, data)| data.len()).collect()
    }

    fn net() -> (Net, SocketAddr, UdpSocket) {
        let mut net = Net::new(StreamTls::default());
        let local = net.listen_towards("127.0.0.1:9".parse().unwrap()).unwrap().local;
        (net, local, UdpSocket::bind("127.0.0.1:0").unwrap())
    }

    #[tokio::test]
    async fn what_came_while_we_were_stopped_is_seen_before_the_reactor_says_so() {
        let (mut net, local, server) = net();
        assert!(lengths(&net).is_empty());
        // Until here the reactor has its turn, from here on it has none.
        server.send_to(b"one", local).unwrap();
        net.wait().await;
        assert_eq!(lengths(&net), [3]);
        assert!(lengths(&net).is_empty());
        server.send_to(b"three", local).unwrap();
        assert_eq!(lengths(&net), [5]);
    }

    #[tokio::test]
    async fn while_calm_datagrams_wake_nobody_and_are_there_all_the_same() {
        let (mut net, local, server) = net();
        net.calm();
        server.send_to(b"one", local).unwrap();
        let calm = Duration::from_millis(50);
        assert!(timeout(calm, net.wait()).await.is_err());
        assert_eq!(lengths(&net), [3]);
    }

    /// All that is there.
    fn taken(net: &Net) -> usize {
        let mut batch = DatagramBatch::default();
        let mut count = 0;
        loop {
            let left = net.fill(&mut batch);
            count += batch.iter().count();
            if left.is_none() {
                return count;
            }
        }
    }

    #[tokio::test]
    async fn the_receive_buffer_of_an_ordinary_kernel_holds_what_comes_between_two_looks() {
        let mut net = Net::asking_for(212_992, StreamTls::default());
        let local = net.listen_towards("127.0.0.1:9".parse().unwrap()).unwrap().local;
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let send = |datagrams: usize| {
            for _ in 0..datagrams {
                server.send_to(&[0; 1200], local).unwrap();
            }
        };
        // A good deal more than comes at 50 Mbit/s.
        let burst = (1.8 * 50e6 / 8.0 / 1200.0 * net.poll_interval().as_secs_f64()) as usize;
        send(burst);
        assert_eq!(taken(&net), burst, "of {:?} at 50 Mbit/s", net.poll_interval());
        send(4000);
        let holds = taken(&net);
        assert!(holds < 400, "a small buffer holds {holds} datagrams");
    }

    #[tokio::test]
    async fn more_than_a_batch_is_known_to_be_left() {
        let (net, local, server) = net();
        let before = Instant::now();
        for _ in 0..BATCH + 3 {
            server.send_to(b"one", local).unwrap();
        }
        let mut batch = DatagramBatch::default();
        let left = net.fill(&mut batch).unwrap();
        assert!(left >= before && left <= Instant::now());
        assert_eq!(batch.iter().count(), BATCH);
        assert!(batch.iter().all(|(datagram, _)| datagram.remote == server.local_addr().unwrap()));
        assert!(net.fill(&mut batch).is_none());
        assert_eq!(batch.iter().count(), 3);
    }

    #[tokio::test]
    async fn what_waits_in_a_connection_is_seen_and_read_whole() {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut net = Net::new(StreamTls::default());
        net.dial(TcpCandidate { address: server.local_addr().unwrap(), ufrag: "abcd".to_owned() });
        let (mut accepted, _) = server.accept().await.unwrap();
        let Some(NetEvent::Up { local, end }) = net.wait().await else { panic!("no connection") };
        net.connected(local, end);
        assert!(!net.has_unread_stream());
        accepted.write_all(b"\0\x03one\0\x05three\0\x04cu").await.unwrap();
        // The reader has had no turn yet.
        while !net.has_unread_stream() {
            std::thread::sleep(Duration::from_millis(1));
        }
        let mut read = Vec::new();
        while let Ok(Some(NetEvent::Received { data, .. })) = timeout(Duration::from_millis(200), net.wait()).await {
            read.push(data);
        }
        assert_eq!(read, [b"one".to_vec(), b"three".to_vec()]);
        assert!(!net.has_unread_stream());
        net.send_stream(local, b"rtcp".to_vec());
        let mut sent = [0; 6];
        tokio::io::AsyncReadExt::read_exact(&mut accepted, &mut sent).await.unwrap();
        assert_eq!(&sent, b"\0\x04rtcp");
    }
}
