//! The URL of a websocket in its parts. Pure. User, password, path and query are in no text of these types but as EgressInfo
//! shows them.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use spillway_protocol::requested::stream_url;
use spillway_protocol::{Secret, without_secrets};
use url::{Host, Url, form_urlencoded};

/// A `ws://` or `wss://` URL. `Display` and `Debug` show it as EgressInfo does.
#[derive(Clone, PartialEq, Eq)]
pub struct WebsocketUrl {
    tls: bool,
    host: String,
    port: u16,
    uri: Secret,
    authorization: Option<Secret>,
    secrets: Vec<Secret>,
    shown: String,
}

impl WebsocketUrl {
    /// Takes a URL apart; `None` for what is none of a websocket with a host. A fragment goes to no server.
    pub fn parse(text: &str) -> Option<Self> {
        let mut url = Url::parse(text).ok()?;
        let tls = match url.scheme() {
            "ws" => false,
            "wss" => true,
            _ => return None,
        };
        let host = match url.host()? {
            Host::Domain("") => return None,
            Host::Ipv6(address) => address.to_string(),
            host => host.to_string(),
        };
        let port = url.port_or_known_default().filter(|port| *port > 0)?;
        let (user, password) = (decoded(url.username()), url.password().map(decoded));
        let authorization = (!user.is_empty() || password.is_some()).then(|| {
            let password = password.clone().unwrap_or_default();
            Secret::new(format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))))
        });
        let values = url.query_pairs().map(|(name, value)| {
            let secret = if value.is_empty() { name } else { value };
            secret.into_owned()
        });
        let written = url.query().unwrap_or_default().split('&').map(|pair| match pair.split_once('=') {
            Some((_, value)) => value.to_owned(),
            None => pair.to_owned(),
        });
        let secrets = values.chain(written).chain([user]).chain(password).map(Secret::new).collect();
        // Neither is part of a request, and neither fails with a host.
        let _ = (url.set_username(""), url.set_password(None));
        url.set_fragment(None);
        Some(Self { tls, host, port, uri: Secret::new(url.into()), authorization, secrets, shown: stream_url(text) })
    }

    /// Whether TLS is under it.
    pub const fn is_tls(&self) -> bool {
        self.tls
    }

    /// Name or address, an IPv6 address without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// TCP port, as written or the scheme's own.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The URL without user, password and fragment, for the handshake.
    pub const fn uri(&self) -> &Secret {
        &self.uri
    }

    /// User and password as the header of a request (RFC 7617).
    pub const fn authorization(&self) -> Option<&Secret> {
        self.authorization.as_ref()
    }

    /// A server's text with `{...}` where it repeats a value of the query, the user or the password.
    pub fn without_secrets(&self, text: &str) -> String {
        without_secrets(text, self.secrets.iter().map(|secret| secret.reveal().as_str()))
    }
}

/// Percent-encoded; a `+` is one, not a space.
fn decoded(text: &str) -> String {
    let query = format!("={}", text.replace('+', "%2B").replace('&', "%26"));
    form_urlencoded::parse(query.as_bytes()).map(|(_, value)| value.into_owned()).next().unwrap_or_default()
}

impl fmt::Display for WebsocketUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for WebsocketUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_url_has_its_parts() {
        for (url, tls, host, port, uri, authorization) in [
            ("ws://h:8080/a/b?token=x%20y", false, "h", 8080, "ws://h:8080/a/b?token=x%20y", None),
            ("WSS://Example.com", true, "example.com", 443, "wss://example.com/", None),
            ("ws://[::1]/#fragment", false, "::1", 80, "ws://[::1]/", None),
            // RFC 7617, 2.
            ("ws://Aladdin:open%20sesame@h/", false, "h", 80, "ws://h/", Some("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==")),
            ("wss://a+b@h/x", true, "h", 443, "wss://h/x", Some("Basic YStiOg==")),
        ] {
            let parsed = WebsocketUrl::parse(url).unwrap();
            assert_eq!((parsed.is_tls(), parsed.host(), parsed.port()), (tls, host, port), "{url}");
            assert_eq!(parsed.uri().reveal(), uri);
            assert_eq!(parsed.authorization().map(|secret| secret.reveal().as_str()), authorization);
        }
        for url in ["http://h/", "ws://", "ws://:1/", "ws://h:0/", "h/a", ""] {
            assert!(WebsocketUrl::parse(url).is_none(), "{url}");
        }
    }

    #[test]
    fn no_text_has_a_secret() {
        let url = WebsocketUrl::parse("wss://user:canary-1@h/a?token=canary%202&canary-3&x=ab#canary-4").unwrap();
        let told = format!("{url} {url:?} {:#?}", Some(&url));
        assert!(!told.contains("canary"), "{told}");
        let server = "user with canary-1, canary 2, canary%202 or canary-3 is about nothing";
        assert_eq!(url.without_secrets(server), "{...} with {...}, {...}, {...} or {...} is about nothing");
    }

    proptest! {
        #[test]
        fn any_text_is_a_url_or_not(text in "(wss?://)?[a-z@:/?&=%+\\[\\]#0-9 é]{0,40}") {
            if let Some(url) = WebsocketUrl::parse(&text) {
                prop_assert!(!url.host().is_empty() && url.port() > 0 && !url.uri().reveal().contains('#'));
            }
        }
    }
}
