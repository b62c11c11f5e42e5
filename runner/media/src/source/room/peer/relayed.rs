//! Media through TURN servers, where no direct way leads to livekit-server: when they are asked, and which datagrams go
//! through which of them.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use str0m::Candidate;
use str0m::net::Protocol;
use tracing::{debug, info};

use super::Peer;
use crate::source::room::net::Net;
use crate::source::room::turn::server::{RelayOffer, RelayServer};
use crate::source::room::turn::{TurnChange, TurnClient};

/// Direct ways are tried so long first: hardly a recording needs a relay, and each allocation costs the server a port.
const DIRECT_FIRST: Duration = Duration::from_secs(1);

/// The relays of one peer connection.
#[derive(Default)]
pub(super) struct RelayPaths {
    offer: RelayOffer,
    /// One for each server, once they are asked.
    paths: Vec<RelayPath>,
    /// From then on a connection that is not there asks them.
    ask_at: Option<Instant>,
}

struct RelayPath {
    server: RelayServer,
    /// Of what leads to the server.
    link: Option<RelayLink>,
    client: Option<TurnClient>,
    /// Where peers reach us.
    relayed: Option<SocketAddr>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct RelayLink {
    local: SocketAddr,
    remote: SocketAddr,
    is_stream: bool,
}

impl RelayLink {
    fn send(self, net: &Net, datagrams: impl IntoIterator<Item = Vec<u8>>) {
        for datagram in datagrams {
            if self.is_stream {
                net.send_stream(self.local, datagram);
            } else {
                net.send_udp(self.local, self.remote, &datagram);
            }
        }
    }
}

impl RelayPaths {
    pub(super) fn new(offer: RelayOffer) -> Self {
        Self { offer, ..Self::default() }
    }

    /// No other way may be used.
    pub(super) fn are_forced(&self) -> bool {
        self.offer.only
    }

    /// The server has made an offer: from now on a connection may come up.
    pub(super) fn expect(&mut self, now: Instant) {
        let wait = if self.offer.only { Duration::ZERO } else { DIRECT_FIRST };
        self.ask_at.get_or_insert(now + wait);
    }

    pub(super) fn wake_at(&self) -> Option<Instant> {
        let asked = !self.paths.is_empty() || self.offer.servers.is_empty();
        let clients = self.paths.iter().filter_map(|path| path.client.as_ref()?.wake_at());
        clients.chain(self.ask_at.filter(|_| !asked)).min()
    }
}

impl Peer {
    /// At every tick.
    pub(super) fn tick_relays(&mut self, now: Instant) {
        let relays = &mut self.relays;
        if relays.paths.is_empty() {
            if self.connected || relays.ask_at.is_none_or(|at| now < at) {
                return;
            }
            for (relay, server) in relays.offer.servers.iter().enumerate() {
                info!(%server, "no direct connection: asking a relay");
                self.endpoints.insert(server.to_string());
                self.net.reach(relay, server.clone());
                relays.paths.push(RelayPath { server: server.clone(), link: None, client: None, relayed: None });
            }
            return;
        }
        for client in relays.paths.iter_mut().filter_map(|path| path.client.as_mut()) {
            client.tick(now);
        }
        self.flush_relays();
    }

    /// The server is there over UDP.
    pub(super) fn relay_found(&mut self, relay: usize, remote: SocketAddr) {
        match self.listen_towards(remote) {
            Some(local) => self.begin_relay(relay, RelayLink { local, remote, is_stream: false }),
            None => self.relay_lost(relay, "no way there over UDP".to_owned()),
        }
    }

    /// A connection to the server is there.
    pub(super) fn relay_up(&mut self, relay: usize, local: SocketAddr, remote: SocketAddr) {
        self.begin_relay(relay, RelayLink { local, remote, is_stream: true });
    }

    pub(super) fn relay_lost(&mut self, relay: usize, reason: String) {
        let Some(path) = self.relays.paths.get_mut(relay) else { return };
        (path.client, path.relayed) = (None, None);
        debug!(server = %path.server, reason, "relay lost");
        let name = path.server.to_string();
        self.endpoints.remove(&name);
        self.endpoints.insert(format!("{name} ({reason})"));
    }

    fn begin_relay(&mut self, relay: usize, link: RelayLink) {
        let Some(path) = self.relays.paths.get_mut(relay) else { return };
        let RelayServer { username, password, .. } = &path.server;
        path.client = Some(TurnClient::new(username, password, link.is_stream, Instant::now()));
        path.link = Some(link);
        self.flush_relays();
    }

    /// A packet of a peer of ours, if a TURN server sent this. False: it is for str0m as it is.
    pub(super) fn receive_relayed(&mut self, local: SocketAddr, remote: SocketAddr, data: &[u8], at: Instant) -> bool {
        let is_from = |link: RelayLink| link.local == local && link.remote == remote;
        let Some(path) = self.relays.paths.iter_mut().find(|path| path.link.is_some_and(is_from)) else {
            return false;
        };
        let Some(client) = &mut path.client else { return true };
        match (client.receive(data, Instant::now()), path.relayed) {
            (Some((peer, payload)), Some(relayed)) => {
                let is_stream = path.link.is_some_and(|link| link.is_stream);
                self.receive(Protocol::Udp, peer, relayed, payload, at);
                self.over_tcp = is_stream;
            }
            _ => self.flush_relays(),
        }
        true
    }

    /// False: `source` is no address of a relay.
    pub(super) fn send_relayed(&mut self, source: SocketAddr, peer: SocketAddr, data: &[u8]) -> bool {
        let Some(path) = self.relays.paths.iter_mut().find(|path| path.relayed == Some(source)) else {
            return false;
        };
        if let (Some(client), Some(link)) = (&mut path.client, path.link) {
            let framed = client.send(peer, data, Instant::now());
            link.send(&self.net, client.take_outgoing().into_iter().chain(framed));
        }
        true
    }

    /// Sends what the clients have to say to their servers, and learns what became of their allocations.
    fn flush_relays(&mut self) {
        for relay in 0..self.relays.paths.len() {
            let path = &mut self.relays.paths[relay];
            let (Some(client), Some(link)) = (&mut path.client, path.link) else { continue };
            link.send(&self.net, client.take_outgoing());
            for change in client.take_changes() {
                match change {
                    TurnChange::Allocated(relayed) => self.relay_allocated(relay, relayed, link),
                    TurnChange::Failed(reason) => self.relay_lost(relay, reason),
                }
            }
        }
    }

    fn relay_allocated(&mut self, relay: usize, relayed: SocketAddr, link: RelayLink) {
        if let Some(path) = self.relays.paths.get_mut(relay) {
            info!(server = %path.server, %relayed, "a relay is there");
            path.relayed = Some(relayed);
        }
        match Candidate::relayed(relayed, link.local, "udp") {
            Ok(candidate) => {
                self.rtc.add_local_candidate(candidate);
                self.poll();
            }
            Err(error) => debug!(%error, %relayed, "no candidate"),
        }
    }

    /// Gives all allocations back.
    pub(super) fn release_relays(&mut self, now: Instant) {
        for path in &mut self.relays.paths {
            if let (Some(client), Some(link)) = (&mut path.client, path.link) {
                client.release(now);
                link.send(&self.net, client.take_outgoing());
            }
        }
    }
}
