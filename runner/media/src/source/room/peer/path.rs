//! The pair of addresses that the connection uses, of a peer that is observed.

use spillway_ipc::MediaPath;
use str0m::net::Protocol;

use super::Peer;

impl Peer {
    /// `None`: there is no connection yet, or the peer is not observed.
    pub(in crate::source::room) fn path(&self) -> Option<MediaPath> {
        let pair = self.pair.as_ref()?;
        let relay = self.relays.server_of(pair.local.addr);
        let is_stream = relay.as_ref().map_or(pair.protocol != Protocol::Udp, |(_, is_stream)| *is_stream);
        Some(MediaPath {
            protocol: if is_stream { "tcp" } else { "udp" }.to_owned(),
            local: pair.local.addr.to_string(),
            remote: pair.remote.addr.to_string(),
            relay: relay.map(|(server, _)| server),
            round_trip_ms: pair.current_round_trip_time.and_then(|way| u64::try_from(way.as_millis()).ok()),
            tried: Vec::new(),
        })
    }
}
