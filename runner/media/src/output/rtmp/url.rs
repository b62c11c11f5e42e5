//! Where a stream goes: an RTMP URL in its parts. The key is in no text this type prints. `mux://` and `twitch://` are
//! resolved before they come here.

use std::fmt;

use spillway_plan::{Secret, stream_url, without_secrets};

const RTMP_PORT: u16 = 1935;
const RTMPS_PORT: u16 = 443;

/// An `rtmp://` or `rtmps://` URL. `Display` and `Debug` show it as EgressInfo does, see [`stream_url`].
#[derive(Clone, PartialEq, Eq)]
pub struct RtmpUrl {
    tls: bool,
    host: String,
    port: u16,
    /// Secret as well: a query may stand in it.
    app: Secret,
    key: Secret,
    shown: String,
}

/// The URL is none of RTMP. Shows nothing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RtmpUrlError {
    /// Neither `rtmp://` nor `rtmps://`.
    #[error("the URL does not begin with rtmp:// or rtmps://")]
    Scheme,
    /// No host, or a port that is no number.
    #[error("the URL has no host or a wrong port")]
    Host,
    /// Less than `/app/key` behind the host.
    #[error("the URL has no stream key behind its application")]
    Key,
}

impl RtmpUrl {
    /// Takes a URL apart. The last segment of the path with its query is the key, what is before it the application. A
    /// query that stands before the last slash belongs to the application (`rtmp://host/app?auth=…/key`). User and
    /// password are ignored, and so is librtmp's ` live=1`.
    ///
    /// # Errors
    ///
    /// When it is no RTMP URL with a key; for good.
    pub fn parse(url: &str) -> Result<Self, RtmpUrlError> {
        let shown = stream_url(url);
        let url = url.strip_suffix(" live=1").unwrap_or(url);
        let (scheme, rest) = url.split_once("://").ok_or(RtmpUrlError::Scheme)?;
        let tls = match scheme.to_ascii_lowercase().as_str() {
            "rtmp" => false,
            "rtmps" => true,
            _ => return Err(RtmpUrlError::Scheme),
        };
        let (authority, path) = rest.split_once('/').ok_or(RtmpUrlError::Key)?;
        let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        let (host, port) = host_and_port(authority).ok_or(RtmpUrlError::Host)?;
        let port = port.unwrap_or(if tls { RTMPS_PORT } else { RTMP_PORT });
        let query = path.find('?').unwrap_or(path.len());
        let slash = path[..query].rfind('/').or_else(|| path.rfind('/')).ok_or(RtmpUrlError::Key)?;
        let (app, key) = (&path[..slash], &path[slash + 1..]);
        if app.is_empty() || key.is_empty() || key.starts_with('?') {
            return Err(RtmpUrlError::Key);
        }
        let secret = |text: &str| Secret::new(text.to_owned());
        Ok(Self { tls, host: host.to_owned(), port, app: secret(app), key: secret(key), shown })
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

    /// What `connect` asks for.
    pub(super) fn app(&self) -> &str {
        self.app.reveal()
    }

    /// What `publish` asks for. For the wire only.
    pub(super) fn key(&self) -> &str {
        self.key.reveal()
    }

    /// The URL without its key, as `connect` tells it. For the wire only.
    pub(super) fn tc_url(&self) -> String {
        let scheme = if self.tls { "rtmps" } else { "rtmp" };
        let (open, close) = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        format!("{scheme}://{open}{}{close}:{}/{}", self.host, self.port, self.app())
    }

    /// A server's text with `{...}` where it repeats the key or a value of a query: some name the stream that they refuse.
    pub fn without_secrets(&self, text: &str) -> String {
        let values = [self.key(), self.app()].into_iter().flat_map(|part| {
            let query = part.split_once('?').map_or("", |(_, query)| query);
            query.split('&').map(|pair| pair.split_once('=').map_or(pair, |(_, value)| value))
        });
        let name = self.key().split('?').next().unwrap_or_default();
        without_secrets(text, [self.key(), name].into_iter().chain(values))
    }
}

impl fmt::Display for RtmpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for RtmpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

/// `host`, `host:port`, `[v6]`, `[v6]:port`.
fn host_and_port(authority: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, behind) = rest.split_once(']')?;
            (host, if behind.is_empty() { None } else { Some(behind.strip_prefix(':')?) })
        }
        None => match authority.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    let port = match port {
        Some(port) => Some(port.parse().ok().filter(|port| *port > 0)?),
        None => None,
    };
    (!host.is_empty()).then_some((host, port))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parts(url: &str) -> (bool, String, u16, String, String) {
        let url = RtmpUrl::parse(url).unwrap();
        (url.is_tls(), url.host().to_owned(), url.port(), url.app().to_owned(), url.key().to_owned())
    }

    #[test]
    fn the_last_segment_with_its_query_is_the_key() {
        for (url, tls, host, port, app, key) in [
            ("rtmp://h/live/k", false, "h", 1935, "live", "k"),
            ("RTMPS://h:1936/a/b/key?x=1&y=a/b", true, "h", 1936, "a/b", "key?x=1&y=a/b"),
            ("rtmps://u:p@live.example.com:443/app/key live=1", true, "live.example.com", 443, "app", "key"),
            ("rtmp://[::1]:99/app/key", false, "::1", 99, "app", "key"),
            ("rtmps://[fe80::1]/app/key", true, "fe80::1", 443, "app", "key"),
            ("rtmp://h/app?auth=secret/key", false, "h", 1935, "app?auth=secret", "key"),
        ] {
            assert_eq!(parts(url), (tls, host.to_owned(), port, app.to_owned(), key.to_owned()), "{url}");
        }
        assert_eq!(RtmpUrl::parse("rtmp://u:p@[::1]:99/a/b/key?x=1").unwrap().tc_url(), "rtmp://[::1]:99/a/b");
    }

    #[test]
    fn what_has_no_key_is_refused() {
        for (url, error) in [
            ("rtmp://h", RtmpUrlError::Key),
            ("rtmp://h/app", RtmpUrlError::Key),
            ("rtmp://h/app/", RtmpUrlError::Key),
            ("rtmp://h//key", RtmpUrlError::Key),
            ("rtmp://h/app/?key=1", RtmpUrlError::Key),
            ("rtmp://:1/app/key", RtmpUrlError::Host),
            ("rtmp://h:x/app/key", RtmpUrlError::Host),
            ("rtmp://h:0/app/key", RtmpUrlError::Host),
            ("rtmp://[::1/app/key", RtmpUrlError::Host),
            ("mux://key", RtmpUrlError::Scheme),
            ("h/app/key", RtmpUrlError::Scheme),
        ] {
            assert_eq!(RtmpUrl::parse(url), Err(error), "{url}");
        }
    }

    #[test]
    fn no_text_has_the_key() {
        let url = RtmpUrl::parse("rtmp://u:canary@h/app?a=canary-a/canary-key?token=canary-token").unwrap();
        let told = format!("{url} {url:?} {:#?}", Some(&url));
        assert!(!told.contains("canary"), "{told}");
        let url = RtmpUrl::parse("rtmp://h/app/canary-key?token=canary-token").unwrap();
        let server = "Stream canary-key is in use (canary-key?token=canary-token, canary-token)";
        assert_eq!(url.without_secrets(server), "Stream {...} is in use ({...}, {...})");
        assert_eq!(RtmpUrl::parse("rtmp://h/app/ab").unwrap().without_secrets("about"), "about");
    }

    proptest! {
        #[test]
        fn any_text_is_a_url_or_not(text in "(rtmps?://)?[a-z@:/?&=\\[\\] é]{0,40}") {
            if let Ok(url) = RtmpUrl::parse(&text) {
                prop_assert!(!url.key().is_empty() && !url.host().is_empty());
            }
        }
    }
}
