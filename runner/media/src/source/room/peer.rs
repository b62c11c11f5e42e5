//! The subscriber's peer connection: offers in, answers out, packets and reports in. No publisher of our own.

mod negotiate;
mod relayed;
mod path;

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::time::{Duration, Instant, UNIX_EPOCH};

use bytes::Bytes;
use str0m::media::{KeyframeRequestKind, Mid};
use str0m::net::{Protocol, Receive, TcpType};
use str0m::stats::CandidatePairStats;
use str0m::{Candidate, Event, IceConnectionState, Input, Output, Rtc, RtcConfig, RtcError};
use tracing::{debug, warn};

use super::holdback::NackHoldback;
use super::ice_server::RelayOffer;
use super::net::{DatagramBatch, Net};
use super::relay_paths::RelayPaths;
use super::stream_link::NetEvent;
use crate::receive::event::{PayloadFormat, RoomEvent};
use crate::stream_tls::StreamTls;
use crate::units::{RtpTime, SeqNo, Ssrc};

/// Calls for datagrams, or packets over TCP, before anything else gets its turn.
const BATCHES: usize = 4;
const BATCH: usize = 256;

/// We send no receiver reports: the server's answer to them would tell str0m the round trip, and on a short way it then
/// spends its five requests for a lost packet within 50 ms. livekit-server ignores requests within 100 ms of the packet
/// (`pkg/sfu/sequencer.go`), so half of what was lost stayed lost. Without, the requests are 105 ms apart.
const NEVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// The first check is often there before our answer, which the server needs to understand it. Half a second is all that
/// a recording has to begin, so it is repeated soon; in sum the checks last as long as str0m's own (19 s).
const STUN_AGAIN: Duration = Duration::from_millis(40);
const STUN_TRIES: usize = 12;

pub(super) struct Peer {
    rtc: Rtc,
    net: Net,
    relays: RelayPaths,
    /// By SSRC.
    streams: HashMap<Ssrc, SubscribedStream>,
    forms: HashMap<(Mid, u8), PayloadFormat>,
    early_candidates: Vec<String>,
    /// Addresses that the server named.
    endpoints: BTreeSet<String>,
    offered: bool,
    next_timeout: Instant,
    arrivals: Vec<(RoomEvent, Instant)>,
    caught_up: Instant,
    connected: bool,
    /// The handshake is over: datagrams are read at each tick.
    secured: bool,
    batch: DatagramBatch,
    holdback: NackHoldback<HeldPacket>,
    over_tcp: bool,
    /// When the datagram in hand came.
    came: Option<Instant>,
    /// Where the connection goes; known only to a peer that is observed.
    pair: Option<CandidatePairStats>,
}

/// A datagram that waits for an older one.
struct HeldPacket {
    protocol: Protocol,
    remote: SocketAddr,
    local: SocketAddr,
    data: Vec<u8>,
    came: Instant,
}

struct SubscribedStream {
    mid: Mid,
    track: String,
}

/// SSRC and sequence number: SRTP leaves the header in the clear.
fn rtp_of(datagram: &[u8]) -> Option<(Ssrc, u16)> {
    let is_rtp = datagram.len() > 12 && (128..192).contains(&datagram[0]) && !(192..=223).contains(&datagram[1]);
    let ssrc = is_rtp.then(|| u32::from_be_bytes([datagram[8], datagram[9], datagram[10], datagram[11]]))?;
    Some((Ssrc::new(ssrc), u16::from_be_bytes([datagram[2], datagram[3]])))
}

#[derive(Debug, thiserror::Error)]
pub(super) enum PeerError {
    #[error("the server's offer cannot be read")]
    Offer { source: str0m::error::SdpError },
    #[error("the server's offer cannot be accepted")]
    Accept { source: RtcError },
}

/// Makes and drops what a peer connection needs of cryptography: the first time in a process is slow.
pub(super) fn warm_up() {
    drop(RtcConfig::new().build(Instant::now()));
}

impl Peer {
    /// `server`: an address of the signalling server, the first guess at where media will come from. `relays`: what there
    /// is where no direct way leads, and `tls` how it is authenticated.
    pub(super) fn new(server: Option<SocketAddr>, relays: RelayOffer, tls: StreamTls) -> Self {
        Self::observed(server, relays, tls, None)
    }

    /// As [`Peer::new`]; with an interval [`Peer::path`] is at most that old.
    pub(super) fn observed(
        server: Option<SocketAddr>,
        relays: RelayOffer,
        tls: StreamTls,
        every: Option<Duration>,
    ) -> Self {
        let now = Instant::now();
        // Without RED the server forwards the plain Opus out of it.
        let mut config = RtcConfig::new();
        config.set_initial_stun_rto(STUN_AGAIN);
        config.set_max_stun_retransmits(STUN_TRIES);
        let rtc = config
            .set_rtp_mode(true)
            .enable_opus(true, false)
            .enable_pcmu(true, false)
            .enable_pcma(true, false)
            .set_rtcp_report_interval_audio(NEVER)
            .set_rtcp_report_interval_video(NEVER)
            .set_stats_interval(every)
            .build(now);
        let mut peer = Self {
            rtc,
            net: Net::new(tls),
            relays: RelayPaths::new(relays),
            streams: HashMap::new(),
            forms: HashMap::new(),
            early_candidates: Vec::new(),
            endpoints: BTreeSet::new(),
            offered: false,
            next_timeout: now,
            arrivals: Vec::new(),
            caught_up: now,
            connected: false,
            secured: false,
            batch: DatagramBatch::default(),
            holdback: NackHoldback::new(),
            over_tcp: false,
            came: None,
            pair: None,
        };
        if let Some(server) = server {
            peer.listen_towards(server);
        }
        peer
    }

    pub(super) fn is_connected(&self) -> bool {
        self.connected
    }

    pub(super) fn is_secured(&self) -> bool {
        self.secured
    }

    /// The last that came from the network came over TCP.
    pub(super) fn is_over_tcp(&self) -> bool {
        self.over_tcp
    }

    /// From one [`Peer::read`] to the next.
    pub(super) fn poll_interval(&self) -> Duration {
        self.net.poll_interval()
    }

    pub(super) fn is_alive(&self) -> bool {
        self.rtc.is_alive()
    }

    /// Addresses that the server named for media until now: `udp 192.0.2.1:7882`.
    pub(super) fn take_endpoints(&mut self) -> BTreeSet<String> {
        std::mem::take(&mut self.endpoints)
    }

    /// Nothing more is wanted: allocations go back to their servers.
    pub(super) fn close(&mut self) {
        self.release_relays(Instant::now());
    }

    pub(super) fn ask_keyframe(&mut self, ssrc: Ssrc) {
        if let Some(stream) = self.rtc.direct_api().stream_rx(&ssrc.get().into()) {
            stream.request_keyframe(KeyframeRequestKind::Pli);
            self.poll();
        }
    }

    pub(super) fn take_arrivals(&mut self) -> Vec<(RoomEvent, Instant)> {
        std::mem::take(&mut self.arrivals)
    }

    /// When [`Peer::time`] wants to be called.
    pub(super) fn wake_at(&self) -> Instant {
        self.relays.wake_at(self.connected).map_or(self.next_timeout, |at| at.min(self.next_timeout))
    }

    pub(super) fn time(&mut self) {
        let now = Instant::now();
        if now >= self.next_timeout {
            self.input(Input::Timeout(now));
        }
        if self.holdback.is_holding() {
            self.let_go(now);
        }
        self.tick_relays(now);
    }

    /// Until something comes from the network; datagrams only during the handshake, which must be quick.
    pub(super) async fn wait(&mut self) -> Option<NetEvent> {
        self.net.wait().await
    }

    /// What waits in the sockets, and the timers. False: there is more.
    pub(super) fn read(&mut self) -> bool {
        self.input(Input::Timeout(Instant::now()));
        let mut batch = std::mem::take(&mut self.batch);
        let (mut left, mut taken) = (None, 0);
        for _ in 0..BATCHES {
            let now = Instant::now();
            left = self.net.fill(&mut batch);
            self.caught_up = left.unwrap_or(now);
            for (datagram, data) in batch.iter() {
                taken += 1;
                if !self.receive_relayed(datagram.local, datagram.remote, data, datagram.at) {
                    self.receive(Protocol::Udp, datagram.remote, datagram.local, data, datagram.at);
                }
            }
            if left.is_none() {
                break;
            }
        }
        self.batch = batch;
        self.net.took(taken, Instant::now());
        self.time();
        left.is_none()
    }

    /// Everything that came before this moment has been read.
    pub(super) fn caught_up(&self) -> Instant {
        self.caught_up
    }

    /// Something that came over TCP has not been read yet.
    pub(super) fn has_unread_stream(&self) -> bool {
        self.net.has_unread_stream()
    }

    /// This, and what else has come over TCP.
    pub(super) fn on_news(&mut self, first: NetEvent) {
        let mut news = first;
        for _ in 1..BATCH {
            self.on_net_event(news);
            match self.net.more_news() {
                Some(next) => news = next,
                None => return,
            }
        }
        self.on_net_event(news);
    }

    fn on_net_event(&mut self, event: NetEvent) {
        match event {
            NetEvent::Up { local, end } => {
                debug!(%local, "media connection over TCP");
                self.net.connected(local, end);
                match Candidate::builder().tcp().host(local).tcptype(TcpType::Active).build() {
                    Ok(candidate) => {
                        self.rtc.add_local_candidate(candidate);
                        self.check_paths();
                    }
                    Err(error) => debug!(%error, %local, "no candidate"),
                }
            }
            NetEvent::Received { local, remote, data } => {
                let now = Instant::now();
                if !self.receive_relayed(local, remote, &data, now) {
                    self.receive(Protocol::Tcp, remote, local, &data, now);
                }
            }
            NetEvent::Down { local } => self.net.disconnected(local),
            NetEvent::RelayFound { relay, remote } => self.relay_found(relay, remote),
            NetEvent::RelayUp { relay, local, remote, end } => {
                self.net.connected(local, end);
                self.relay_up(relay, local, remote);
            }
            NetEvent::RelayLost { relay, reason } => self.relay_lost(relay, reason),
        }
    }

    fn receive(&mut self, protocol: Protocol, remote: SocketAddr, local: SocketAddr, data: &[u8], at: Instant) {
        let now = Instant::now();
        self.over_tcp = protocol == Protocol::Tcp;
        if let Some((ssrc, seq)) = rtp_of(data)
            // Retransmissions have streams of their own, which nothing is said about.
            && self.streams.contains_key(&ssrc)
        {
            let held = || HeldPacket { protocol, remote, local, data: data.to_vec(), came: at };
            if !self.holdback.put(ssrc, seq, held, now) {
                self.let_go(now);
                return;
            }
        }
        self.handle(protocol, remote, local, data, at);
        self.let_go(now);
    }

    fn let_go(&mut self, now: Instant) {
        while let Some(held) = self.holdback.take(now) {
            self.handle(held.protocol, held.remote, held.local, &held.data, held.came);
        }
    }

    fn handle(&mut self, protocol: Protocol, remote: SocketAddr, local: SocketAddr, data: &[u8], came: Instant) {
        if let Ok(received) = Receive::new(protocol, remote, local, data) {
            self.came = Some(came);
            // What is behind its clock costs str0m no look at its timers.
            let at = if rtp_of(data).is_some() { came } else { Instant::now() };
            self.input(Input::Receive(at, received));
            self.came = None;
        }
    }

    fn input(&mut self, input: Input<'_>) {
        if let Err(error) = self.rtc.handle_input(input) {
            debug!(%error, "input refused");
        }
        self.poll();
    }

    /// There is a candidate more. str0m looks at its pairs when it is told the time, and names no time for a new one.
    fn check_paths(&mut self) {
        self.input(Input::Timeout(Instant::now()));
    }

    /// After every input, until it only waits.
    fn poll(&mut self) {
        loop {
            match self.rtc.poll_output() {
                Ok(Output::Timeout(at)) => {
                    self.next_timeout = at;
                    return;
                }
                Ok(Output::Transmit(it)) => match it.proto {
                    Protocol::Tcp => self.net.send_stream(it.source, it.contents.to_vec()),
                    _ if self.send_relayed(it.source, it.destination, &it.contents) => {}
                    _ => self.net.send_udp(it.source, it.destination, &it.contents),
                },
                Ok(Output::Event(event)) => self.event(event),
                Err(error) => {
                    warn!(%error, "peer connection failed");
                    self.rtc.disconnect();
                    self.next_timeout = Instant::now() + Duration::from_millis(100);
                    return;
                }
            }
        }
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::RtpPacket(packet) => {
                let ssrc = Ssrc::new(*packet.header.ssrc);
                let Some(carried) = self.streams.get(&ssrc) else { return };
                let Some(form) = self.forms.get(&(carried.mid, *packet.header.payload_type)) else { return };
                let arrival = RoomEvent::Packet {
                    stream: ssrc,
                    seq: SeqNo::new(*packet.seq_no),
                    rtp: RtpTime::new(packet.time.numer()),
                    marker: packet.header.marker,
                    form: *form,
                    payload: Bytes::from_owner(packet.payload),
                };
                self.holdback.arrived(ssrc, packet.header.sequence_number);
                self.arrivals.push((arrival, self.came.unwrap_or(packet.timestamp)));
            }
            Event::SenderFeedback(feedback) => {
                let stream =
                    self.streams.iter().find(|(_, carried)| carried.mid == feedback.mid).map(|(ssrc, _)| *ssrc);
                let ntp = feedback.sender_info.ntp_time.duration_since(UNIX_EPOCH).ok();
                if let (Some(stream), Some(ntp)) = (stream, ntp) {
                    let rtp = feedback.sender_info.rtp_time.numer() as u32;
                    self.arrivals.push((
                        RoomEvent::Report { stream, rtp, ntp: ntp.as_nanos() as i64 },
                        self.came.unwrap_or(feedback.received_at),
                    ));
                }
            }
            Event::Connected => {
                debug!("media connection secured");
                self.connected = true;
                self.secured = true;
                self.net.calm();
            }
            Event::IceConnectionStateChange(state) => {
                debug!(?state, "ice");
                if matches!(state, IceConnectionState::Disconnected) {
                    self.connected = false;
                } else if matches!(state, IceConnectionState::Connected | IceConnectionState::Completed) {
                    self.connected = true;
                }
            }
            Event::Closed => debug!("peer connection closed by the server"),
            Event::PeerStats(stats) => self.pair = stats.selected_candidate_pair,
            _ => {}
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.close();
    }
}
