//! A TURN server over UDP or TLS, in front of media ports that nobody else reaches: peers at the address that
//! livekit-server names are found on this machine's loopback. Reads and writes STUN with `is`, which our client does not.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, bail, ensure};
use aws_lc_rs::hmac;
use is::stun::{Class, Method, StunMessage, StunMessageBuilder};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

const REALM: &str = "turn.example";
const USERNAME: &str = "egress";
const PASSWORD: &str = "turn-password";
const LIFETIME_SECONDS: u32 = 600;
/// Requests after which the nonce is another one: what binds a channel meets a stale one.
const FIRST_NONCE_LASTS: u32 = 2;

/// How clients reach it.
#[derive(Clone)]
pub enum TurnTransport {
    /// Datagrams.
    Udp,
    /// A stream over TLS.
    Tls(TlsAcceptor),
}

/// The server; ends with all allocations when dropped.
pub struct TurnServer {
    port: u16,
    protocol: &'static str,
    counts: Arc<TurnCounts>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct TurnCounts {
    requests: AtomicU32,
    to_clients: AtomicU64,
    allocations: AtomicU64,
    released: AtomicU64,
}

impl TurnServer {
    /// On a free port of 127.0.0.1. Peers at `hidden` are looked for at 127.0.0.1.
    pub async fn start(transport: TurnTransport, hidden: Ipv4Addr) -> Result<Self> {
        let counts = Arc::<TurnCounts>::default();
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let (port, protocol, task) = match transport {
            TurnTransport::Udp => {
                let socket = Arc::new(UdpSocket::bind(any).await.context("bind the TURN server")?);
                let port = socket.local_addr()?.port();
                (port, "udp", tokio::spawn(serve_datagrams(socket, hidden, counts.clone())))
            }
            TurnTransport::Tls(tls) => {
                let listener = TcpListener::bind(any).await.context("bind the TURN server")?;
                let port = listener.local_addr()?.port();
                (port, "tls", tokio::spawn(serve_streams(listener, tls, hidden, counts.clone())))
            }
        };
        Ok(Self { port, protocol, counts, task })
    }

    /// Of `rtc.turn_servers` in livekit-server's YAML, indented as its section is.
    pub fn yaml(&self) -> String {
        let (port, protocol) = (self.port, self.protocol);
        format!(
            "    - {{ host: 127.0.0.1, port: {port}, protocol: {protocol}, username: {USERNAME}, credential: {PASSWORD} }}\n"
        )
    }

    /// Packets that it has relayed to clients.
    pub fn packets(&self) -> u64 {
        self.counts.to_clients.load(Ordering::Relaxed)
    }

    /// Allocations so far, and how many of them were given back.
    pub fn allocations(&self) -> (u64, u64) {
        (self.counts.allocations.load(Ordering::Relaxed), self.counts.released.load(Ordering::Relaxed))
    }
}

impl Drop for TurnServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve_datagrams(socket: Arc<UdpSocket>, hidden: Ipv4Addr, counts: Arc<TurnCounts>) {
    let mut clients: BTreeMap<SocketAddr, TurnSession> = BTreeMap::new();
    let mut senders = JoinSet::new();
    let mut data = vec![0; 2048];
    while let Ok((length, client)) = socket.recv_from(&mut data).await {
        let session = clients.entry(client).or_insert_with(|| {
            let (out, mut to_send) = mpsc::unbounded_channel::<Vec<u8>>();
            let socket = socket.clone();
            senders.spawn(async move {
                while let Some(datagram) = to_send.recv().await {
                    // A full socket loses a packet, as a network may.
                    let _ = socket.send_to(&datagram, client).await;
                }
            });
            TurnSession::new(out, false, hidden, counts.clone())
        });
        // What is no TURN is not answered.
        let _ = session.receive(&data[..length]).await;
    }
}

async fn serve_streams(listener: TcpListener, tls: TlsAcceptor, hidden: Ipv4Addr, counts: Arc<TurnCounts>) {
    // Dropped with the task, and all connections with it.
    let mut connections = JoinSet::new();
    while let Ok((tcp, _)) = listener.accept().await {
        let (tls, counts) = (tls.clone(), counts.clone());
        connections.spawn(async move { serve_stream(tls.accept(tcp).await?, hidden, counts).await });
    }
}

async fn serve_stream<S>(stream: S, hidden: Ipv4Addr, counts: Arc<TurnCounts>) -> Result<()>
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let (reader, mut writer) = split(stream);
    let (out, mut to_send) = mpsc::unbounded_channel::<Vec<u8>>();
    let session = TurnSession::new(out, true, hidden, counts);
    let send = async move {
        while let Some(message) = to_send.recv().await {
            writer.write_all(&message).await?;
            writer.flush().await?;
        }
        anyhow::Ok(())
    };
    tokio::select! {
        sent = send => sent,
        received = receive(reader, session) => received,
    }
}

async fn receive(mut reader: impl AsyncRead + Unpin, mut session: TurnSession) -> Result<()> {
    loop {
        let mut head = [0; 4];
        reader.read_exact(&mut head).await?;
        let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
        // RFC 8656, part 12.5: ChannelData is padded to four bytes.
        let bytes = if head[0] >> 6 == 1 { (4 + length).next_multiple_of(4) } else { 20 + length };
        let mut message = vec![0; bytes];
        message[..4].copy_from_slice(&head);
        reader.read_exact(&mut message[4..]).await?;
        session.receive(&message).await?;
    }
}

/// What one client has.
struct TurnSession {
    out: mpsc::UnboundedSender<Vec<u8>>,
    is_stream: bool,
    hidden: Ipv4Addr,
    counts: Arc<TurnCounts>,
    relay: Option<TurnRelay>,
}

struct TurnRelay {
    socket: Arc<UdpSocket>,
    /// By the address that the client knows.
    channels: Arc<Mutex<BTreeMap<SocketAddr, u16>>>,
    task: JoinHandle<()>,
}

impl Drop for TurnRelay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl TurnSession {
    fn new(out: mpsc::UnboundedSender<Vec<u8>>, is_stream: bool, hidden: Ipv4Addr, counts: Arc<TurnCounts>) -> Self {
        Self { out, is_stream, hidden, counts, relay: None }
    }

    async fn receive(&mut self, data: &[u8]) -> Result<()> {
        ensure!(data.len() >= 4, "too short");
        if data[0] >> 6 == 1 {
            return self.relayed(u16::from_be_bytes([data[0], data[1]]), &data[4..], data[2..4].try_into()?).await;
        }
        let request = StunMessage::parse(data).context("no STUN message")?;
        ensure!(request.class() == Class::Request, "no request");
        let method = request.method();
        let head = match method {
            Method::Allocate => StunMessageBuilder::new().allocate(),
            Method::Refresh => StunMessageBuilder::new().refresh(),
            Method::ChannelBind => StunMessageBuilder::new().channel_bind(),
            _ => bail!("{method:?} is not served"),
        };
        let is_first = self.counts.requests.fetch_add(1, Ordering::Relaxed) < FIRST_NONCE_LASTS;
        let nonce = if is_first { "first" } else { "second" };
        let key = spillway_storage::checksum::md5(format!("{USERNAME}:{REALM}:{PASSWORD}").as_bytes());
        let refusal = match request.username() {
            None => Some((401, "Unauthorized")),
            Some(_) if request.nonce() != Some(nonce) => Some((438, "Stale Nonce")),
            Some(USERNAME) if request.verify(&key, sha1_hmac) => None,
            Some(_) => Some((401, "Unauthorized")),
        };
        let mut bytes = [0; 1024];
        let id = request.trans_id();
        let length = if let Some((code, reason)) = refusal {
            let answer = head.failure().error_code(code, reason).realm(REALM).nonce(nonce).build(id);
            answer.to_bytes(None, &mut bytes, sha1_hmac)
        } else {
            let mut answer = head.success();
            match method {
                Method::Allocate => {
                    let address = self.allocate().await?;
                    answer = answer.xor_relayed_address(address).lifetime(LIFETIME_SECONDS);
                }
                Method::Refresh => {
                    let lifetime = request.lifetime().unwrap_or(LIFETIME_SECONDS);
                    if lifetime == 0 && self.relay.take().is_some() {
                        self.counts.released.fetch_add(1, Ordering::Relaxed);
                    }
                    answer = answer.lifetime(lifetime);
                }
                _ => {
                    let relay = self.relay.as_ref().context("a channel without an allocation")?;
                    let peer = request.xor_peer_address().context("a channel without a peer")?;
                    let number = request.channel_number().context("a channel without a number")?;
                    relay.channels.lock().unwrap_or_else(PoisonError::into_inner).insert(peer, number);
                }
            }
            answer.build(id).to_bytes(Some(&key), &mut bytes, sha1_hmac)
        };
        let length = length.context("write an answer")?;
        self.out.send(bytes[..length].to_vec()).context("the client is gone")
    }

    /// A socket for the client, and a task that carries what comes to it.
    async fn allocate(&mut self) -> Result<SocketAddr> {
        let socket = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.context("bind a relay")?);
        let address = socket.local_addr()?;
        let channels = Arc::<Mutex<BTreeMap<SocketAddr, u16>>>::default();
        let (from, known, out) = (socket.clone(), channels.clone(), self.out.clone());
        let (hidden, is_stream, counts) = (self.hidden, self.is_stream, self.counts.clone());
        let task = tokio::spawn(async move {
            let mut data = vec![0; 2048];
            while let Ok((length, peer)) = from.recv_from(&mut data).await {
                let named = SocketAddr::new(IpAddr::V4(hidden), peer.port());
                let channels = known.lock().unwrap_or_else(PoisonError::into_inner).clone();
                // Without a channel there is no permission.
                let Some(number) = channels.get(&named).or_else(|| channels.get(&peer)) else { continue };
                let mut framed = [number.to_be_bytes(), (length as u16).to_be_bytes()].concat();
                framed.extend_from_slice(&data[..length]);
                if is_stream {
                    framed.resize(framed.len().next_multiple_of(4), 0);
                }
                counts.to_clients.fetch_add(1, Ordering::Relaxed);
                if out.send(framed).is_err() {
                    break;
                }
            }
        });
        self.counts.allocations.fetch_add(1, Ordering::Relaxed);
        self.relay = Some(TurnRelay { socket, channels, task });
        Ok(address)
    }

    /// To the peer of this channel; padding is not for it.
    async fn relayed(&self, number: u16, data: &[u8], length: [u8; 2]) -> Result<()> {
        let relay = self.relay.as_ref().context("data without an allocation")?;
        let data = data.get(..usize::from(u16::from_be_bytes(length))).context("cut")?;
        let peer = {
            let channels = relay.channels.lock().unwrap_or_else(PoisonError::into_inner);
            channels.iter().find(|(_, known)| **known == number).map(|(peer, _)| *peer)
        };
        let peer = peer.context("a channel that is not bound")?;
        let is_hidden = peer.ip() == IpAddr::V4(self.hidden);
        let found = if is_hidden { SocketAddr::from((Ipv4Addr::LOCALHOST, peer.port())) } else { peer };
        // What cannot be sent is lost, as on a network.
        let _ = relay.socket.send_to(data, found).await;
        Ok(())
    }
}

fn sha1_hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 20] {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, key));
    parts.iter().for_each(|part| context.update(part));
    let mut tag = [0; 20];
    tag.copy_from_slice(context.sign().as_ref());
    tag
}
