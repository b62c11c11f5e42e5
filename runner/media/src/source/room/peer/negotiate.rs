//! Offers and candidates of the server: which streams there are, and where media may come from.

use std::net::SocketAddr;
use std::time::Instant;

use str0m::Candidate;
use str0m::change::SdpOffer;
use str0m::media::Mid;
use tracing::{debug, warn};

use super::{Peer, PeerError, SubscribedStream};
use crate::receive::event::{Publication, RoomEvent};
use crate::source::room::net::Listening;
use crate::source::room::offer::{self, Section, TcpCandidate};
use crate::units::Ssrc;

impl Peer {
    /// The answer to an offer. `publication` knows what a track's sid stands for.
    pub(in crate::source::room) fn answer(
        &mut self,
        sdp: &str,
        publication: impl Fn(&str) -> Option<Publication>,
    ) -> Result<String, PeerError> {
        let now = Instant::now();
        let sections = offer::read(sdp);
        for address in sections.iter().flat_map(Section::addresses).collect::<Vec<_>>() {
            self.listen_towards(address);
        }
        for params in sections.iter().flat_map(Section::tcp_candidates).collect::<Vec<_>>() {
            self.dial(params);
        }
        self.relays.expect(now);
        self.endpoints.extend(sections.iter().flat_map(Section::endpoints));
        self.retire(&sections, now);
        let offer =
            SdpOffer::from_sdp_string(&offer::only_sending(sdp)).map_err(|source| PeerError::Offer { source })?;
        let answer = self.rtc.sdp_api().accept_offer(offer).map_err(|source| PeerError::Accept { source })?;
        for section in &sections {
            let mid = Mid::from(section.mid.as_str());
            self.forms.extend(section.forms.iter().map(|(payload_type, form)| ((mid, *payload_type), *form)));
            for announced in &section.streams {
                let known = self.streams.insert(announced.ssrc, SubscribedStream { mid, track: section.track.clone() });
                if !announced.rtx
                    && let Some(stream) = self.rtc.direct_api().stream_rx(&announced.ssrc.get().into())
                {
                    // Sound has no retransmission stream, but the server answers NACKs for it all the same.
                    stream.suppress_nack(false);
                }
                if known.is_some_and(|known| known.track == section.track) {
                    continue;
                }
                match publication(&section.track) {
                    Some(publication) => {
                        self.arrivals.push((RoomEvent::Opened { stream: announced.ssrc, publication }, now))
                    }
                    None => warn!(track = section.track, "a stream of an unknown track"),
                }
            }
        }
        if !std::mem::replace(&mut self.offered, true) {
            for candidate in std::mem::take(&mut self.early_candidates) {
                self.add_remote(&candidate);
            }
        }
        self.check_paths();
        Ok(answer.to_sdp_string())
    }

    /// Streams that the offer no longer names.
    fn retire(&mut self, sections: &[Section], now: Instant) {
        let named: Vec<Ssrc> =
            sections.iter().flat_map(|section| section.streams.iter().map(|stream| stream.ssrc)).collect();
        let gone: Vec<Ssrc> = self.streams.keys().copied().filter(|ssrc| !named.contains(ssrc)).collect();
        for ssrc in gone {
            self.streams.remove(&ssrc);
            self.holdback.close(ssrc);
            self.rtc.direct_api().remove_stream_rx(ssrc.get().into());
            self.arrivals.push((RoomEvent::Closed { stream: ssrc }, now));
        }
    }

    /// A trickled candidate: `{"candidate": "candidate:…", …}`.
    pub(in crate::source::room) fn trickle(&mut self, init: &str) {
        let Ok(init) = serde_json::from_str::<serde_json::Value>(init) else { return };
        let Some(candidate) = init["candidate"].as_str() else { return };
        if let Some(address) = offer::address(candidate) {
            self.listen_towards(address);
        }
        self.endpoints.extend(offer::endpoint(candidate));
        let ufrag = init["usernameFragment"].as_str().unwrap_or_default();
        if let Some(params) = offer::tcp_candidate(candidate, ufrag) {
            self.dial(params);
        }
        if self.offered {
            self.add_remote(candidate);
            self.check_paths();
        } else {
            self.early_candidates.push(candidate.to_owned());
        }
    }

    fn add_remote(&mut self, candidate: &str) {
        match Candidate::from_sdp_string(candidate) {
            Ok(candidate) => self.rtc.add_remote_candidate(candidate),
            Err(error) => debug!(%error, candidate, "candidate not understood"),
        }
    }

    fn dial(&mut self, params: TcpCandidate) {
        if !self.relays.are_forced() {
            self.net.dial(params);
        }
    }

    /// The address of ours from which this one is reached over UDP.
    pub(super) fn listen_towards(&mut self, remote: SocketAddr) -> Option<SocketAddr> {
        let Listening { local, is_new } = match self.net.listen_towards(remote) {
            Ok(listening) => listening,
            Err(error) => {
                debug!(%error, %remote, "no way there over UDP");
                return None;
            }
        };
        if is_new && !self.relays.are_forced() {
            match Candidate::host(local, "udp") {
                Ok(candidate) => {
                    self.rtc.add_local_candidate(candidate);
                }
                Err(error) => debug!(%error, %local, "no candidate"),
            }
        }
        Some(local)
    }
}
