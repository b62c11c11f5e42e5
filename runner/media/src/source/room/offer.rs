//! The server's offer: which RTP stream carries which track. It announces no `mid` header extension, so `a=ssrc` and
//! `a=ssrc-group:FID` are the only map. Pure.

use std::net::SocketAddr;

use crate::receive::event::PayloadFormat;
use crate::track::Codec;
use crate::units::Ssrc;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Section {
    pub(super) mid: String,
    /// Sid of the publication; empty on an unused section.
    pub(super) track: String,
    pub(super) streams: Vec<Announced>,
    /// Payload type → what it stands for.
    pub(super) forms: Vec<(u8, PayloadFormat)>,
    candidates: Vec<String>,
    ufrag: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Announced {
    pub(super) ssrc: Ssrc,
    /// Has a stream for retransmissions beside it.
    pub(super) rtx: bool,
}

/// A passive TCP candidate of the server, and the fragment its connection will be bound to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct TcpCandidate {
    pub(super) address: SocketAddr,
    pub(super) ufrag: String,
}

pub(super) fn read(sdp: &str) -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    let mut rtx: Vec<Ssrc> = Vec::new();
    let mut session_ufrag = "";
    for line in sdp.lines().map(str::trim_end) {
        if line.starts_with("m=") {
            sections.push(Section { ufrag: session_ufrag.to_owned(), ..Section::default() });
            rtx.clear();
            continue;
        }
        let Some((key, value)) = line.strip_prefix("a=").and_then(|line| line.split_once(':')) else { continue };
        let Some(section) = sections.last_mut() else {
            if key == "ice-ufrag" {
                session_ufrag = value;
            }
            continue;
        };
        match key {
            "mid" => section.mid = value.to_owned(),
            "ice-ufrag" => section.ufrag = value.to_owned(),
            "msid" => section.track = value.split_once(' ').map_or("", |(_, track)| track).to_owned(),
            "ssrc" => {
                let ssrc = value.split(' ').next().and_then(|ssrc| ssrc.parse().ok()).map(Ssrc::new);
                if let Some(ssrc) = ssrc.filter(|ssrc| !rtx.contains(ssrc)) {
                    section.add(ssrc);
                }
            }
            "ssrc-group" => {
                let mut fields = value.split(' ');
                if fields.next() == Some("FID")
                    && let (Some(Ok(main)), Some(Ok(repair))) =
                        (fields.next().map(str::parse), fields.next().map(str::parse))
                {
                    let (main, repair) = (Ssrc::new(main), Ssrc::new(repair));
                    rtx.push(repair);
                    section.streams.retain(|stream| stream.ssrc != repair);
                    section.add(main);
                    for stream in section.streams.iter_mut().filter(|stream| stream.ssrc == main) {
                        stream.rtx = true;
                    }
                }
            }
            "rtpmap" => section.forms.extend(form(value)),
            "candidate" => section.candidates.push(format!("candidate:{value}")),
            _ => {}
        }
    }
    sections
}

impl Section {
    fn add(&mut self, ssrc: Ssrc) {
        if !self.streams.iter().any(|stream| stream.ssrc == ssrc) {
            self.streams.push(Announced { ssrc, rtx: false });
        }
    }

    pub(super) fn tcp_candidates(&self) -> impl Iterator<Item = TcpCandidate> + '_ {
        self.candidates.iter().filter_map(|candidate| tcp_candidate(candidate, &self.ufrag))
    }

    /// Where media may come from, as users are told.
    pub(super) fn endpoints(&self) -> impl Iterator<Item = String> + '_ {
        self.candidates.iter().filter_map(|candidate| endpoint(candidate))
    }

    pub(super) fn addresses(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.candidates.iter().filter_map(|candidate| address(candidate))
    }
}

/// `111 opus/48000/2`
fn form(rtpmap: &str) -> Option<(u8, PayloadFormat)> {
    let (payload_type, rest) = rtpmap.split_once(' ')?;
    let mut fields = rest.split('/');
    let codec = match fields.next()?.to_ascii_uppercase().as_str() {
        "H264" => Codec::H264,
        "H265" => Codec::H265,
        "VP8" => Codec::Vp8,
        "VP9" => Codec::Vp9,
        "AV1" => Codec::Av1,
        "OPUS" => Codec::Opus,
        "PCMU" => Codec::Pcmu,
        "PCMA" => Codec::Pcma,
        _ => return None,
    };
    let clock_rate = fields.next()?.parse().ok()?;
    let channels = fields.next().and_then(|channels| channels.parse().ok()).unwrap_or(u8::from(!codec.is_video()));
    Some((payload_type.parse().ok()?, PayloadFormat { codec, clock_rate, channels }))
}

pub(super) fn address(candidate: &str) -> Option<SocketAddr> {
    let mut fields = candidate.split(' ').skip(4);
    let (ip, port) = (fields.next()?, fields.next()?);
    Some(SocketAddr::new(ip.parse().ok()?, port.parse().ok()?))
}

/// `udp 192.0.2.1:7882`
pub(super) fn endpoint(candidate: &str) -> Option<String> {
    let protocol = candidate.split(' ').nth(2)?.to_ascii_lowercase();
    Some(format!("{protocol} {}", address(candidate)?))
}

pub(super) fn tcp_candidate(candidate: &str, ufrag: &str) -> Option<TcpCandidate> {
    let is_tcp = candidate.split(' ').nth(2).is_some_and(|protocol| protocol.eq_ignore_ascii_case("tcp"));
    if !is_tcp || !candidate.contains("tcptype passive") {
        return None;
    }
    let own = candidate.split_once(" ufrag ").and_then(|(_, rest)| rest.split(' ').next());
    Some(TcpCandidate { address: address(candidate)?, ufrag: own.unwrap_or(ufrag).to_owned() })
}

/// The server offers its sections `sendrecv`; read so, we would announce streams of our own.
pub(super) fn only_sending(sdp: &str) -> String {
    let mut media = false;
    let mut out = String::with_capacity(sdp.len());
    for line in sdp.split_inclusive('\n') {
        if line.starts_with("m=") {
            media = !line.starts_with("m=application");
        }
        if media && line.trim_end() == "a=sendrecv" {
            out.push_str("a=sendonly\r\n");
        } else {
            out.push_str(line);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFFER: &str = "v=0\r\na=ice-ufrag:abcd\r\nm=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:0\r\na=sendrecv\r\n\
        m=video 9 UDP/TLS/RTP/SAVPF 96 97 108\r\na=mid:1\r\na=sendrecv\r\na=rtpmap:96 VP8/90000\r\na=rtpmap:97 rtx/90000\r\n\
        a=rtpmap:108 H264/90000\r\na=ssrc-group:FID 11 22\r\na=ssrc:11 cname:x\r\na=ssrc:22 cname:x\r\na=msid:PA_a|TR_v TR_v\r\n\
        a=candidate:1 1 tcp 1 10.0.0.1 7881 typ host tcptype passive ufrag efgh\r\n\
        m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:2\r\na=rtpmap:111 opus/48000/2\r\na=ssrc:33 cname:y\r\na=msid:PA_a|TR_a TR_a\r\n";

    #[test]
    fn streams_are_mapped_to_tracks_and_retransmissions_are_not_streams() {
        let sections = read(OFFER);
        assert_eq!(sections[1].track, "TR_v");
        assert_eq!(sections[1].streams, [Announced { ssrc: Ssrc::new(11), rtx: true }]);
        assert_eq!(sections[2].streams, [Announced { ssrc: Ssrc::new(33), rtx: false }]);
        let opus = PayloadFormat { codec: Codec::Opus, clock_rate: 48_000, channels: 2 };
        assert_eq!(sections[2].forms, [(111, opus)]);
        assert_eq!(sections[1].forms.len(), 2, "rtx is no form");
    }

    #[test]
    fn a_passive_tcp_candidate_is_a_door_with_its_own_fragment() {
        let candidates: Vec<TcpCandidate> = read(OFFER)[1].tcp_candidates().collect();
        assert_eq!(
            candidates,
            [TcpCandidate { address: "10.0.0.1:7881".parse().expect("address"), ufrag: "efgh".into() }]
        );
    }

    #[test]
    fn candidates_are_named_by_protocol_and_address() {
        assert_eq!(read(OFFER)[1].endpoints().collect::<Vec<_>>(), ["tcp 10.0.0.1:7881"]);
        let trickled = "candidate:2 1 UDP 2130706431 192.0.2.1 7882 typ host";
        assert_eq!(endpoint(trickled).as_deref(), Some("udp 192.0.2.1:7882"));
        assert_eq!(endpoint("candidate:2 1 udp 1 4f3a.local 7882 typ host"), None);
    }

    #[test]
    fn only_media_sections_are_rewritten() {
        let sdp = only_sending(OFFER);
        assert_eq!(sdp.matches("a=sendonly").count(), 1);
        assert_eq!(sdp.matches("a=sendrecv").count(), 1, "the data channel stays");
    }
}
