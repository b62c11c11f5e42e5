//! The TURN servers of one peer connection: when they are asked, how each is reached, and which datagrams go through which.
//! Sends nothing by itself but over a [`Net`] that it is given.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::ice_server::{RelayOffer, RelayServer};
use super::net::Net;
use super::turn::{TurnChange, TurnClient};

/// Direct ways are tried so long first: hardly a recording needs a relay, and each allocation costs the server a port.
const DIRECT_FIRST: Duration = Duration::from_secs(1);

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
    link: Option<RelayLink>,
    client: Option<TurnClient>,
    /// Where peers reach us.
    relayed: Option<SocketAddr>,
}

/// What leads to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RelayLink {
    /// Of our socket or connection.
    pub(super) local: SocketAddr,
    /// The server's.
    pub(super) remote: SocketAddr,
    pub(super) is_stream: bool,
}

/// A packet that came through a relay.
pub(super) struct RelayedPacket<'d> {
    /// Who sent it.
    pub(super) peer: SocketAddr,
    /// The relay's address, where it was sent to.
    pub(super) through: SocketAddr,
    pub(super) payload: &'d [u8],
    pub(super) is_stream: bool,
}

/// The server's place, the way to it, datagrams for it, and what became of its allocation.
pub(super) type RelayOutput = (usize, RelayLink, Vec<Vec<u8>>, Vec<TurnChange>);

impl RelayLink {
    pub(super) fn send(self, net: &Net, datagrams: Vec<Vec<u8>>) {
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

    /// Time for [`RelayPaths::ask`].
    pub(super) fn is_due(&self, is_connected: bool, now: Instant) -> bool {
        self.is_unasked() && !is_connected && self.ask_at.is_some_and(|at| now >= at)
    }

    /// Servers to look for, in the order of their places.
    pub(super) fn ask(&mut self) -> impl Iterator<Item = &RelayServer> {
        let path = |server: &RelayServer| RelayPath { server: server.clone(), link: None, client: None, relayed: None };
        self.paths = self.offer.servers.iter().map(path).collect();
        self.offer.servers.iter()
    }

    /// A server was found; it is asked for an allocation.
    pub(super) fn begin(&mut self, relay: usize, link: RelayLink, now: Instant) {
        if let Some(path) = self.paths.get_mut(relay) {
            let RelayServer { username, password, .. } = &path.server;
            path.client = Some(TurnClient::new(username, password, link.is_stream, now));
            path.link = Some(link);
        }
    }

    pub(super) fn allocated(&mut self, relay: usize, relayed: SocketAddr) {
        if let Some(path) = self.paths.get_mut(relay) {
            path.relayed = Some(relayed);
        }
    }

    /// Gives the server's name.
    pub(super) fn lost(&mut self, relay: usize) -> Option<String> {
        let path = self.paths.get_mut(relay)?;
        (path.client, path.relayed) = (None, None);
        Some(path.server.to_string())
    }

    /// The server that is reached so.
    pub(super) fn find(&self, local: SocketAddr, remote: SocketAddr) -> Option<usize> {
        let is_this = |link: RelayLink| link.local == local && link.remote == remote;
        self.paths.iter().position(|path| path.link.is_some_and(is_this))
    }

    /// The server whose relay has this address, and whether it is reached over a stream.
    pub(super) fn server_of(&self, relayed: SocketAddr) -> Option<(String, bool)> {
        let path = self.paths.iter().find(|path| path.relayed == Some(relayed))?;
        Some((path.server.to_string(), path.link.is_some_and(|link| link.is_stream)))
    }

    /// What that server sent.
    pub(super) fn receive<'d>(&mut self, relay: usize, data: &'d [u8], now: Instant) -> Option<RelayedPacket<'d>> {
        let path = self.paths.get_mut(relay)?;
        let (peer, payload) = path.client.as_mut()?.receive(data, now)?;
        let is_stream = path.link.is_some_and(|link| link.is_stream);
        Some(RelayedPacket { peer, through: path.relayed?, payload, is_stream })
    }

    /// What is to be sent so that the relay with the address `source` sends `data`; `None`: there is no such relay.
    pub(super) fn send(
        &mut self,
        source: SocketAddr,
        peer: SocketAddr,
        data: &[u8],
        now: Instant,
    ) -> Option<(RelayLink, Vec<Vec<u8>>)> {
        let path = self.paths.iter_mut().find(|path| path.relayed == Some(source))?;
        let (client, link) = (path.client.as_mut()?, path.link?);
        let framed = client.send(peer, data, now);
        let mut datagrams = client.take_outgoing();
        datagrams.extend(framed);
        Some((link, datagrams))
    }

    /// Repeats and refreshes; false when nothing was asked yet.
    pub(super) fn tick(&mut self, now: Instant) -> bool {
        self.clients().for_each(|client| client.tick(now));
        !self.paths.is_empty()
    }

    pub(super) fn take_all(&mut self) -> Vec<RelayOutput> {
        let mut all = Vec::new();
        for (relay, path) in self.paths.iter_mut().enumerate() {
            if let (Some(client), Some(link)) = (&mut path.client, path.link) {
                all.push((relay, link, client.take_outgoing(), client.take_changes()));
            }
        }
        all
    }

    /// Gives all allocations back.
    pub(super) fn release(&mut self, now: Instant) -> Vec<RelayOutput> {
        self.clients().for_each(|client| client.release(now));
        self.take_all()
    }

    /// When [`RelayPaths::is_due`] may become true, or a client has something to repeat.
    pub(super) fn wake_at(&self, is_connected: bool) -> Option<Instant> {
        let clients = self.paths.iter().filter_map(|path| path.client.as_ref()?.wake_at());
        clients.chain(self.ask_at.filter(|_| self.is_unasked() && !is_connected)).min()
    }

    fn is_unasked(&self) -> bool {
        self.paths.is_empty() && !self.offer.servers.is_empty()
    }

    fn clients(&mut self) -> impl Iterator<Item = &mut TurnClient> {
        self.paths.iter_mut().filter_map(|path| path.client.as_mut())
    }
}

#[cfg(test)]
mod tests {
    use livekit_protocol::{IceServer, JoinResponse};

    use super::*;

    fn offer() -> RelayOffer {
        let urls = vec!["turn:192.0.2.1?transport=udp".to_owned(), "turns:192.0.2.1:443?transport=tcp".to_owned()];
        let servers = vec![IceServer { urls, username: "u".to_owned(), credential: "p".to_owned() }];
        RelayOffer::of(&JoinResponse { ice_servers: servers, ..Default::default() })
    }

    #[test]
    fn relays_are_asked_when_there_is_no_direct_connection_after_a_second() {
        let now = Instant::now();
        let mut relays = RelayPaths::new(offer());
        assert!(!relays.is_due(false, now), "before there is anything to connect to");
        relays.expect(now);
        relays.expect(now + DIRECT_FIRST);
        assert_eq!(relays.wake_at(false), Some(now + DIRECT_FIRST));
        // A direct connection that is not secured yet: nothing is to be done, and nothing wakes for it.
        assert_eq!(relays.wake_at(true), None);
        assert!(!relays.is_due(false, now) && !relays.is_due(true, now + DIRECT_FIRST));
        assert!(relays.is_due(false, now + DIRECT_FIRST));
        let asked: Vec<String> = relays.ask().map(ToString::to_string).collect();
        assert_eq!(asked, ["turn udp 192.0.2.1:3478", "turn tls 192.0.2.1:443"]);
        assert!(!relays.is_due(false, now + DIRECT_FIRST) && relays.wake_at(false).is_none());
        let forced = RelayOffer { only: true, ..offer() };
        let mut forced = RelayPaths::new(forced);
        forced.expect(now);
        assert!(forced.are_forced() && forced.is_due(false, now));
        let mut without = RelayPaths::default();
        without.expect(now);
        assert!(!without.is_due(false, now + DIRECT_FIRST) && without.wake_at(false).is_none());
    }

    #[test]
    fn a_server_is_known_by_both_addresses_of_its_way() {
        let now = Instant::now();
        let mut relays = RelayPaths::new(offer());
        assert_eq!(relays.ask().count(), 2);
        let [local, remote, other] = ["127.0.0.1:1", "192.0.2.1:3478", "192.0.2.1:3479"].map(|a| a.parse().unwrap());
        let link = RelayLink { local, remote, is_stream: false };
        relays.begin(0, link, now);
        assert_eq!(
            (relays.find(local, remote), relays.find(local, other), relays.find(other, remote)),
            (Some(0), None, None)
        );
        let asked = relays.take_all();
        assert_eq!((asked.len(), asked[0].0, asked[0].1, asked[0].2.len()), (1, 0, link, 1));
        assert!(relays.wake_at(true).is_some_and(|at| at > now));
        assert!(relays.send(other, remote, b"check", now).is_none(), "nothing is allocated");
        assert_eq!(relays.server_of(other), None);
        relays.allocated(0, other);
        assert_eq!(relays.server_of(other), Some(("turn udp 192.0.2.1:3478".to_owned(), false)));
        assert_eq!(relays.lost(0).as_deref(), Some("turn udp 192.0.2.1:3478"));
        assert!(relays.wake_at(true).is_none() && relays.take_all().is_empty());
    }
}
