//! TURN servers that a room names for its participants: `ice_servers` of the join response, with URIs of RFC 7065. Pure.

use std::fmt;

use livekit_protocol::{ClientConfigSetting, IceServer, JoinResponse};
use spillway_plan::Secret;

/// Servers that are asked; more than these help no further.
const MAX_SERVERS: usize = 4;

/// How the server itself is reached. What it relays is UDP in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RelayTransport {
    Udp,
    Tcp,
    Tls,
}

/// One way to one TURN server.
#[derive(Clone, Debug)]
pub(super) struct RelayServer {
    pub(super) transport: RelayTransport,
    /// A name, or an address without brackets.
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) username: String,
    pub(super) password: Secret,
}

/// As `turn udp 192.0.2.1:3478` in messages.
impl fmt::Display for RelayServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let transport = match self.transport {
            RelayTransport::Udp => "udp",
            RelayTransport::Tcp => "tcp",
            RelayTransport::Tls => "tls",
        };
        write!(f, "turn {transport} {}:{}", self.host, self.port)
    }
}

/// What the server says about relays.
#[derive(Clone, Debug, Default)]
pub(super) struct RelayOffer {
    pub(super) servers: Vec<RelayServer>,
    /// Media goes through a relay or not at all: livekit-server asks for it after direct connections have failed.
    pub(super) only: bool,
}

impl RelayOffer {
    pub(super) fn of(response: &JoinResponse) -> Self {
        let servers = servers(&response.ice_servers);
        let forced =
            response.client_configuration.as_ref().is_some_and(|c| c.force_relay() == ClientConfigSetting::Enabled);
        // Without a relay it would mean no media at all.
        Self { only: forced && !servers.is_empty(), servers }
    }
}

fn servers(named: &[IceServer]) -> Vec<RelayServer> {
    let each = named.iter().flat_map(|server| server.urls.iter().map(move |url| (server, url)));
    let read = each.filter_map(|(server, url)| {
        let (transport, host, port) = read_uri(url)?;
        let (username, password) = (server.username.clone(), Secret::new(server.credential.clone()));
        Some(RelayServer { transport, host, port, username, password })
    });
    read.take(MAX_SERVERS).collect()
}

/// `turn:host:port?transport=udp`. `None` for `stun:`, which the server's own candidates make needless, and for what
/// cannot be read.
fn read_uri(uri: &str) -> Option<(RelayTransport, String, u16)> {
    let (scheme, rest) = uri.split_once(':')?;
    let is_secure = match scheme.to_ascii_lowercase().as_str() {
        "turn" => false,
        "turns" => true,
        _ => return None,
    };
    let (authority, query) = rest.split_once('?').unwrap_or((rest, ""));
    let named = query.split('&').find_map(|part| part.strip_prefix("transport="));
    let transport = match (is_secure, named) {
        (false, None | Some("udp")) => RelayTransport::Udp,
        (false, Some("tcp")) => RelayTransport::Tcp,
        (true, None | Some("tcp")) => RelayTransport::Tls,
        // DTLS, or what is not defined.
        _ => return None,
    };
    let usual = if is_secure { 5349 } else { 3478 };
    let (host, port) = match authority.strip_prefix('[') {
        Some(v6) => {
            let (host, port) = v6.split_once(']')?;
            (host, port.strip_prefix(':'))
        }
        None => authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port))),
    };
    let port = match port {
        Some(port) => port.parse().ok()?,
        None => usual,
    };
    (!host.is_empty()).then(|| (transport, host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use livekit_protocol::ClientConfiguration;

    use super::*;

    #[test]
    fn uris_of_rfc_7065_are_read() {
        use RelayTransport::{Tcp, Tls, Udp};
        for (uri, transport, host, port) in [
            ("turn:192.0.2.1:3479?transport=udp", Udp, "192.0.2.1", 3479),
            ("turn:example.org", Udp, "example.org", 3478),
            ("TURN:example.org?transport=tcp", Tcp, "example.org", 3478),
            ("turns:turn.example.org:443?transport=tcp", Tls, "turn.example.org", 443),
            ("turns:[2001:db8::1]", Tls, "2001:db8::1", 5349),
            ("turn:[2001:db8::1]:5000", Udp, "2001:db8::1", 5000),
        ] {
            assert_eq!(read_uri(uri), Some((transport, host.to_owned(), port)), "{uri}");
        }
        for uri in ["stun:example.org", "turn:", "turn:x:y", "turns:x?transport=udp", "turn:[::1", "example.org"] {
            assert_eq!(read_uri(uri), None, "{uri}");
        }
    }

    #[test]
    fn relays_are_forced_only_where_there_are_some() {
        let configuration =
            ClientConfiguration { force_relay: ClientConfigSetting::Enabled.into(), ..Default::default() };
        let mut response = JoinResponse { client_configuration: Some(configuration), ..Default::default() };
        assert!(!RelayOffer::of(&response).only);
        let urls = vec!["stun:example.org".to_owned(), "turn:192.0.2.1:3479?transport=udp".to_owned()];
        response.ice_servers = vec![IceServer { urls, username: "u".to_owned(), credential: "p".to_owned() }];
        let offer = RelayOffer::of(&response);
        assert!(offer.only);
        let named: Vec<String> = offer.servers.iter().map(ToString::to_string).collect();
        assert_eq!(named, ["turn udp 192.0.2.1:3479"]);
        assert_eq!(offer.servers[0].password.reveal(), "p");
        response.client_configuration = None;
        assert!(!RelayOffer::of(&response).only);
    }
}
