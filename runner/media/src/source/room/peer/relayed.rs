//! Media of the peer connection through TURN servers, where no direct way leads to livekit-server.

use std::net::SocketAddr;
use std::time::Instant;

use str0m::Candidate;
use str0m::net::Protocol;
use tracing::{debug, info};

use super::Peer;
use crate::source::room::relay_paths::RelayLink;
use crate::source::room::turn::TurnChange;

impl Peer {
    /// At every tick.
    pub(super) fn tick_relays(&mut self, now: Instant) {
        if self.relays.is_due(self.connected, now) {
            for (relay, server) in self.relays.ask().enumerate() {
                info!(%server, "no direct connection: asking a relay");
                self.endpoints.insert(server.to_string());
                self.net.reach(relay, server.clone());
            }
        }
        if self.relays.tick(now) {
            self.flush_relays();
        }
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
        let Some(server) = self.relays.lost(relay) else { return };
        debug!(server, reason, "relay lost");
        self.endpoints.remove(&server);
        self.endpoints.insert(format!("{server} ({reason})"));
    }

    fn begin_relay(&mut self, relay: usize, link: RelayLink) {
        self.relays.begin(relay, link, Instant::now());
        self.flush_relays();
    }

    /// False: no TURN server sent this, it is for str0m as it is.
    pub(super) fn receive_relayed(&mut self, local: SocketAddr, remote: SocketAddr, data: &[u8], at: Instant) -> bool {
        let Some(relay) = self.relays.find(local, remote) else { return false };
        match self.relays.receive(relay, data, Instant::now()) {
            Some(relayed) => {
                self.receive(Protocol::Udp, relayed.peer, relayed.through, relayed.payload, at);
                self.over_tcp = relayed.is_stream;
            }
            None => self.flush_relays(),
        }
        true
    }

    /// False: `source` is no address of a relay.
    pub(super) fn send_relayed(&mut self, source: SocketAddr, peer: SocketAddr, data: &[u8]) -> bool {
        let Some((link, datagrams)) = self.relays.send(source, peer, data, Instant::now()) else { return false };
        link.send(&self.net, datagrams);
        true
    }

    /// Sends what the clients have to say to their servers, and learns what became of their allocations.
    fn flush_relays(&mut self) {
        for (relay, link, datagrams, changes) in self.relays.take_all() {
            link.send(&self.net, datagrams);
            for change in changes {
                match change {
                    TurnChange::Allocated(relayed) => self.relay_allocated(relay, relayed, link),
                    TurnChange::Failed(reason) => self.relay_lost(relay, reason),
                }
            }
        }
    }

    fn relay_allocated(&mut self, relay: usize, relayed: SocketAddr, link: RelayLink) {
        self.relays.allocated(relay, relayed);
        info!(relay, %relayed, "a relay is there");
        match Candidate::relayed(relayed, link.local, "udp") {
            Ok(candidate) => {
                self.rtc.add_local_candidate(candidate);
                self.check_paths();
            }
            Err(error) => debug!(%error, %relayed, "no candidate"),
        }
    }

    /// Gives all allocations back.
    pub(super) fn release_relays(&mut self, now: Instant) {
        for (_, link, datagrams, _) in self.relays.release(now) {
            link.send(&self.net, datagrams);
        }
    }
}
